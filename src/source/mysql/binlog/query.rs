//! QUERY: a statement as text. In a row-based log: BEGIN, COMMIT of a non-transactional table, SAVEPOINT, XA, DDL.
//!
//! Format: `Query_event` in `libs/mysql/binlog/event/statement_events.{h,cpp}`: u32 thread, u32 seconds, u8 length of
//! the database's name, u16 error, u16 length of the status variables; the variables, the name and a NUL, the statement.
//! MariaDB's QUERY_COMPRESSED (`sql/log_event.cc`) has the statement deflated.

use bytes::Bytes;

use super::compressed;
use super::cursor::{Cursor, malformed};
use crate::error::Result;

/// A statement and what of its session its meaning hangs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The session's id.
    pub thread: u32,
    /// The error it ended with; not 0: the rows before it were kept all the same (non-transactional tables).
    pub error: u16,
    /// The default database; empty if none.
    pub schema: Bytes,
    /// The statement, in the client's character set (see [`StatusVars::charset`]).
    pub sql: Bytes,
    /// What of the session was sent with it.
    pub status: StatusVars,
}

/// The status variables that are of use (`Query_event::Query_event_status_vars`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusVars {
    /// `sql_mode` as a bit set; decides how the statement is to be read (`ANSI_QUOTES`, `NO_BACKSLASH_ESCAPES`).
    pub sql_mode: Option<u64>,
    /// Collation numbers of `character_set_client`, `collation_connection`, `collation_server`.
    pub charset: Option<[u16; 3]>,
    /// `time_zone` of the session, sent where the statement's result hangs on it.
    pub time_zone: Option<String>,
    /// The transaction of an atomic DDL statement (MySQL 8.0.4 and later; MariaDB 10.6 and later).
    pub ddl_xid: Option<u64>,
    /// `default_collation_for_utf8mb4` (MySQL 8.0).
    pub default_utf8mb4_collation: Option<u16>,
    /// Microseconds of the statement's start, beside the header's seconds.
    pub microseconds: Option<u32>,
}

impl Query {
    pub(super) fn decode(body: &Bytes, post_header: usize, deflated: bool) -> Result<Self> {
        let mut cursor = Cursor::new(body);
        let mut fixed = Cursor::new(cursor.take(post_header)?);
        let thread = fixed.u32()?;
        let _seconds = fixed.u32()?;
        let schema_length = usize::from(fixed.u8()?);
        let error = fixed.u16()?;
        let status_length = usize::from(fixed.u16()?);
        let status = StatusVars::decode(cursor.take(status_length)?)?;
        let schema = body.slice_ref(cursor.take(schema_length)?);
        if cursor.u8()? != 0 {
            return Err(malformed("the database's name in a Query event does not end where it should"));
        }
        let sql = body.slice_ref(cursor.rest());
        Ok(Query { thread, error, schema, sql: if deflated { compressed::inflate(&sql)? } else { sql }, status })
    }
}

impl StatusVars {
    /// The list has no lengths: behind a variable that is not known nothing can be read, so reading ends there, as the
    /// servers' own does.
    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new(bytes);
        let mut vars = StatusVars::default();
        while !cursor.is_empty() {
            match cursor.u8()? {
                // FLAGS2, AUTO_INCREMENT, MASTER_DATA_WRITTEN
                0 | 3 | 10 => drop(cursor.take(4)?),
                1 => vars.sql_mode = Some(cursor.u64()?),
                // CATALOG: length, text, NUL
                2 => {
                    let length = cursor.u8()?;
                    cursor.take(usize::from(length) + 1)?;
                }
                4 => vars.charset = Some([cursor.u16()?, cursor.u16()?, cursor.u16()?]),
                5 => vars.time_zone = Some(short_text(&mut cursor)?),
                // CATALOG_NZ
                6 => drop(short_text(&mut cursor)?),
                // LC_TIME_NAMES, CHARSET_DATABASE
                7 | 8 => drop(cursor.take(2)?),
                // TABLE_MAP_FOR_UPDATE, COMMIT_TS, COMMIT_TS2
                9 | 14 | 15 => drop(cursor.take(8)?),
                // INVOKER: user and host
                11 => {
                    short_text(&mut cursor)?;
                    short_text(&mut cursor)?;
                }
                // UPDATED_DB_NAMES: count (254: too many to say), each ends with NUL
                12 => {
                    let count = cursor.u8()?;
                    for _ in 0..if count == 254 { 0 } else { count } {
                        while cursor.u8()? != 0 {}
                    }
                }
                // MICROSECONDS; MariaDB: HRNOW
                13 | 128 => vars.microseconds = Some(cursor.uint(3)? as u32),
                // EXPLICIT_DEFAULTS_FOR_TIMESTAMP, SQL_REQUIRE_PRIMARY_KEY, DEFAULT_TABLE_ENCRYPTION
                16 | 19 | 20 => drop(cursor.u8()?),
                // DDL_LOGGED_WITH_XID; MariaDB: XID
                17 | 129 => vars.ddl_xid = Some(cursor.u64()?),
                18 => vars.default_utf8mb4_collation = Some(cursor.u16()?),
                // MariaDB CHARACTER_SET_COLLATIONS: count, then pairs of u16; comes before others since 11.5
                131 => {
                    let count = cursor.u8()?;
                    cursor.take(usize::from(count) * 4)?;
                }
                _ => break,
            }
        }
        Ok(vars)
    }
}

fn short_text(cursor: &mut Cursor<'_>) -> Result<String> {
    let length = cursor.u8()?;
    Ok(String::from_utf8_lossy(cursor.take(length.into())?).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn event() -> Bytes {
        let mut status = vec![0, 0, 0, 0, 0];
        status.push(131);
        status.extend_from_slice(&[1, 45, 0, 46, 0]);
        status.push(1);
        status.extend_from_slice(&0x0410_0000u64.to_le_bytes());
        status.extend_from_slice(b"\x06\x03std\x02\x03std\x00\x03\x01\x00\x01\x00");
        status.extend_from_slice(&[4, 45, 0, 46, 0, 255, 0]);
        status.extend_from_slice(b"\x05\x06+00:00\x0c\x02a\x00b\x00\x0b\x01u\x01h\x0d\x40\x42\x0f");
        status.push(17);
        status.extend_from_slice(&9u64.to_le_bytes());
        status.extend_from_slice(&[18, 255, 0, 16, 1, 19, 0, 20, 0]);
        let mut body = vec![7, 0, 0, 0, 1, 0, 0, 0, 4, 3, 0];
        body.extend_from_slice(&(status.len() as u16).to_le_bytes());
        body.extend_from_slice(&status);
        body.extend_from_slice(b"shop\0CREATE TABLE t (a int)");
        body.into()
    }

    #[test]
    fn a_statement_comes_with_what_its_meaning_hangs_on() {
        let query = Query::decode(&event(), 13, false).unwrap();
        assert_eq!((query.thread, query.error), (7, 3));
        assert_eq!((&query.schema[..], &query.sql[..]), (&b"shop"[..], &b"CREATE TABLE t (a int)"[..]));
        assert_eq!(query.status.sql_mode, Some(0x0410_0000));
        assert_eq!(query.status.charset, Some([45, 46, 255]));
        assert_eq!(query.status.time_zone.as_deref(), Some("+00:00"));
        assert_eq!(query.status.ddl_xid, Some(9));
        assert_eq!(query.status.default_utf8mb4_collation, Some(255));
        assert_eq!(query.status.microseconds, Some(1_000_000));
    }

    #[test]
    fn a_statement_cut_before_its_text_is_an_error() {
        let event = event();
        let text = event.len() - "CREATE TABLE t (a int)".len();
        for end in 0..text {
            assert!(Query::decode(&event.slice(..end), 13, false).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_status_variable_of_a_later_version_ends_the_list() {
        assert_eq!(StatusVars::decode(&[200, 1, 2, 3]).unwrap(), StatusVars::default());
    }
}
