//! Names of transactions: GTIDs of both dialects, and the sets of them at the beginning of a file.
//!
//! MySQL: `Gtid_event` in `libs/mysql/binlog/event/control_events.{h,cpp}`, sets in `Gtid_set::add_gtid_encoding`
//! (`sql/rpl_gtid_set.cc`). MariaDB: `Gtid_log_event` and `Gtid_list_log_event` in its `sql/log_event.{h,cc}`.

use bytes::Bytes;

use super::control::XaId;
use super::cursor::{Cursor, malformed};
use super::tagged;
use crate::change::{Gtid, MariaGtid, Tsid};
use crate::error::Result;

/// `GTID_LOG_EVENT`, `ANONYMOUS_GTID_LOG_EVENT`, `GTID_TAGGED_LOG_EVENT`: what a transaction of MySQL begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MySqlGtid {
    /// Its name; `None` for an anonymous transaction.
    pub gtid: Option<Gtid>,
    /// It may hold statements that are not rows (`FLAG_MAY_HAVE_SBR`).
    pub may_have_statements: bool,
    /// Microseconds since 1970 at which the server we read from committed it; `None` before MySQL 8.0.
    pub immediate_commit: Option<u64>,
    /// Microseconds since 1970 at which the first server committed it.
    pub original_commit: Option<u64>,
    /// Bytes of the whole transaction in the log, this event included; `None` before MySQL 8.0.
    pub transaction_length: Option<u64>,
    /// The logical clock: it may run beside all transactions after this one …
    pub last_committed: i64,
    /// … and is itself this one.
    pub sequence_number: i64,
}

/// One interval of the set at the beginning of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GtidInterval {
    /// Where they came from.
    pub tsid: Tsid,
    /// The first number.
    pub first: u64,
    /// The last number.
    pub last: u64,
}

impl MySqlGtid {
    /// Flags, UUID, number, then what later versions added; the end may come after each part.
    pub(super) fn decode(body: &[u8], anonymous: bool) -> Result<Self> {
        let mut cursor = Cursor::new(body);
        let flags = cursor.u8()?;
        let uuid = cursor.array::<16>()?;
        let number = cursor.u64()?;
        if anonymous != (number == 0) || number > i64::MAX as u64 {
            return Err(malformed(format!("a GTID has the number {number}")));
        }
        let gtid = (!anonymous).then(|| Gtid { tsid: Tsid { uuid, tag: Box::default() }, number });
        let mut event = MySqlGtid { gtid, may_have_statements: flags & 1 != 0, ..MySqlGtid::default() };
        // LOGICAL_TIMESTAMP_TYPECODE
        if cursor.is_empty() || cursor.u8()? != 2 {
            return Ok(event);
        }
        event.last_committed = cursor.u64()? as i64;
        event.sequence_number = cursor.u64()? as i64;
        if cursor.is_empty() {
            return Ok(event);
        }
        // The highest of the 56 bits says that the original time differs and follows.
        let immediate = cursor.uint(7)?;
        event.immediate_commit = Some(immediate & !(1 << 55));
        event.original_commit = if immediate >> 55 == 1 { Some(cursor.uint(7)?) } else { event.immediate_commit };
        if !cursor.is_empty() {
            event.transaction_length = Some(cursor.lenenc()?);
        }
        Ok(event)
    }

    /// `GTID_TAGGED_LOG_EVENT`, written by the serialization library (`Gtid_event::define_fields`).
    pub(super) fn decode_tagged(body: &[u8]) -> Result<Self> {
        let mut event = MySqlGtid::default();
        let mut gtid = Gtid { tsid: Tsid { uuid: [0; 16], tag: Box::default() }, number: 0 };
        tagged::read_message(body, 11, |field, value| {
            match field {
                0 => event.may_have_statements = tagged::unsigned(value)? & 1 != 0,
                // An array: every element is a number of its own.
                1 => {
                    for byte in &mut gtid.tsid.uuid {
                        *byte = u8::try_from(tagged::unsigned(value)?).map_err(|_| malformed("a UUID is malformed"))?;
                    }
                }
                2 => {
                    gtid.number = u64::try_from(tagged::signed(value)?).map_err(|_| malformed("a GTID is negative"))?;
                }
                3 => gtid.tsid.tag = tagged::text(value)?.into(),
                4 => event.last_committed = tagged::signed(value)?,
                5 => event.sequence_number = tagged::signed(value)?,
                6 => event.immediate_commit = Some(tagged::unsigned(value)?),
                7 => event.original_commit = Some(tagged::unsigned(value)?),
                8 => event.transaction_length = Some(tagged::unsigned(value)?),
                // Versions of both servers, and the ticket of the commit group.
                _ => drop(tagged::unsigned(value)?),
            }
            Ok(())
        })?;
        event.original_commit = event.original_commit.or(event.immediate_commit);
        if gtid.number == 0 {
            return Err(malformed("a GTID has the number 0"));
        }
        event.gtid = Some(gtid);
        Ok(event)
    }
}

/// `PREVIOUS_GTIDS_LOG_EVENT`: everything in the files before this one.
///
/// u64 number of UUIDs, each: 16 bytes, u64 number of intervals, each u64 first and u64 after the last. With tags the
/// first and the last byte of the count are 1 and the count stands between; the tag follows the UUID.
pub(super) fn decode_previous(body: &[u8]) -> Result<Vec<GtidInterval>> {
    let mut cursor = Cursor::new(body);
    let count = cursor.u64()?;
    let has_tags = match count >> 56 {
        0 => false,
        1 => true,
        format => return Err(malformed(format!("a set of GTIDs has format {format}, which is not known"))),
    };
    let count = if has_tags { (count & 0x00FF_FFFF_FFFF_FFFF) >> 8 } else { count };
    let mut set = Vec::new();
    for _ in 0..count {
        let uuid = cursor.array::<16>()?;
        let tag = if has_tags { tagged::text(&mut cursor)?.into() } else { Box::default() };
        let tsid = Tsid { uuid, tag };
        for _ in 0..cursor.u64()? {
            let (first, end) = (cursor.u64()?, cursor.u64()?);
            if first == 0 || end <= first {
                return Err(malformed(format!("a set of GTIDs has the interval {first} to {end}")));
            }
            set.push(GtidInterval { tsid: tsid.clone(), first, last: end - 1 });
        }
    }
    Ok(set)
}

/// `Gtid_log_event` of MariaDB: what a transaction begins with, in place of BEGIN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MariaGtidEvent {
    /// Its name; the server is from the header.
    pub gtid: MariaGtid,
    /// One event follows and no end (`FL_STANDALONE`): DDL.
    pub standalone: bool,
    /// Everything in it can be rolled back (`FL_TRANSACTIONAL`).
    pub transactional: bool,
    /// It is DDL (`FL_DDL`).
    pub ddl: bool,
    /// Transactions with the same number were committed together (`FL_GROUP_COMMIT_ID`).
    pub group_commit: Option<u64>,
    /// XA: what happens to the transaction of this name.
    pub xa: Option<MariaXa>,
    /// A long ALTER that is logged in two parts (`binlog_alter_two_phase`).
    pub alter: Option<MariaAlter>,
}

/// What a MariaDB GTID event says of an XA transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MariaXa {
    /// The rows follow, and then XA PREPARE (`FL_PREPARED_XA`).
    Prepared(XaId),
    /// XA COMMIT or XA ROLLBACK follows (`FL_COMPLETED_XA`).
    Completed(XaId),
}

/// The parts of an ALTER in two phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MariaAlter {
    /// It begins; nothing has changed yet.
    Start,
    /// It is done; the number of its beginning.
    Commit(u64),
    /// It failed; the number of its beginning.
    Rollback(u64),
}

impl MariaGtidEvent {
    pub(super) fn decode(body: &Bytes, server: u32) -> Result<Self> {
        let mut cursor = Cursor::new(body);
        let sequence = cursor.u64()?;
        let domain = cursor.u32()?;
        let flags = cursor.u8()?;
        let group_commit = if flags & 0x02 != 0 { Some(cursor.u64()?) } else { None };
        let xa = if flags & 0xC0 == 0 {
            None
        } else {
            let format = cursor.u32()?;
            let (global, branch) = (cursor.u8()?, cursor.u8()?);
            let id = XaId::decode(&mut cursor, body, format, global.into(), branch.into())?;
            Some(if flags & 0x40 != 0 { MariaXa::Prepared(id) } else { MariaXa::Completed(id) })
        };
        // The event is padded with zeros to 19 bytes, which read as no further flags.
        let mut alter = None;
        if !cursor.is_empty() {
            let extra = cursor.u8()?;
            if extra & 0x01 != 0 {
                cursor.u8()?;
            }
            alter = match extra & 0x0E {
                0x02 => Some(MariaAlter::Start),
                0x04 => Some(MariaAlter::Commit(cursor.u64()?)),
                0x08 => Some(MariaAlter::Rollback(cursor.u64()?)),
                _ => None,
            };
        }
        Ok(MariaGtidEvent {
            gtid: MariaGtid { domain, server, sequence },
            standalone: flags & 0x01 != 0,
            transactional: flags & 0x04 != 0,
            ddl: flags & 0x20 != 0,
            group_commit,
            xa,
            alter,
        })
    }
}

/// `Gtid_list_log_event`: the last transactions of each domain and server before this file.
///
/// u32 count (28 bits) and flags, then u32 domain, u32 server, u64 number each. The last entry of a domain is the newest.
pub(super) fn decode_list(body: &[u8]) -> Result<Vec<MariaGtid>> {
    let mut cursor = Cursor::new(body);
    let count = cursor.u32()? & 0x0FFF_FFFF;
    (0..count)
        .map(|_| Ok(MariaGtid { domain: cursor.u32()?, server: cursor.u32()?, sequence: cursor.u64()? }))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_gtid_has_what_its_server_version_wrote() {
        let mut body = vec![1];
        body.extend_from_slice(&[0xAB; 16]);
        body.extend_from_slice(&5u64.to_le_bytes());
        // MySQL 5.6
        let gtid = MySqlGtid::decode(&body, false).unwrap();
        assert_eq!(gtid.gtid.as_ref().unwrap().number, 5);
        assert_eq!(gtid.immediate_commit, None);
        // 5.7
        body.push(2);
        body.extend_from_slice(&3u64.to_le_bytes());
        body.extend_from_slice(&4u64.to_le_bytes());
        assert_eq!(MySqlGtid::decode(&body, false).unwrap().sequence_number, 4);
        // 8.0
        let stamp = 1_700_000_000_000_000u64;
        body.extend_from_slice(&(stamp | 1 << 55).to_le_bytes()[..7]);
        body.extend_from_slice(&(stamp - 1).to_le_bytes()[..7]);
        body.extend_from_slice(&[0xFC, 0, 1]);
        let gtid = MySqlGtid::decode(&body, false).unwrap();
        assert_eq!((gtid.immediate_commit, gtid.original_commit), (Some(stamp), Some(stamp - 1)));
        assert_eq!(gtid.transaction_length, Some(256));
        assert!(MySqlGtid::decode(&body, true).is_err());
        for end in (0..25).chain(26..42).chain([43, 50, 57, 58]) {
            assert!(MySqlGtid::decode(&body[..end], false).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_set_of_gtids_is_read_with_and_without_tags() {
        let mut body = 1u64.to_le_bytes().to_vec();
        body.extend_from_slice(&[7; 16]);
        body.extend_from_slice(&2u64.to_le_bytes());
        for number in [1u64, 6, 9, 10] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        let set = decode_previous(&body).unwrap();
        assert_eq!(set.iter().map(|i| (i.first, i.last)).collect::<Vec<_>>(), [(1, 5), (9, 9)]);
        for end in 0..body.len() {
            assert!(decode_previous(&body[..end]).is_err(), "cut at {end}");
        }
        let mut tagged = vec![1, 1, 0, 0, 0, 0, 0, 1];
        tagged.extend_from_slice(&[7; 16]);
        tagged.extend_from_slice(b"\x06abc");
        for number in [1u64, 1, 2] {
            tagged.extend_from_slice(&number.to_le_bytes());
        }
        let set = decode_previous(&tagged).unwrap();
        assert_eq!((&*set[0].tsid.tag, set[0].first, set[0].last), ("abc", 1, 1));
        // A count that was only claimed allocates nothing.
        assert!(decode_previous(&0x00FF_FFFF_FFFF_FFFFu64.to_le_bytes()).is_err());
        assert!(decode_list(&0x0FFF_FFFFu32.to_le_bytes()).is_err());
    }

    #[test]
    fn a_gtid_of_mariadb_tells_ddl_groups_and_xa() {
        let gtid = |flags: u8, rest: &[u8]| {
            let mut body = 42u64.to_le_bytes().to_vec();
            body.extend_from_slice(&3u32.to_le_bytes());
            body.push(flags);
            body.extend_from_slice(rest);
            MariaGtidEvent::decode(&body.into(), 9)
        };
        let ddl = gtid(0x21, &[0; 6]).unwrap();
        assert!(ddl.ddl && ddl.standalone && !ddl.transactional);
        assert_eq!(ddl.gtid, MariaGtid { domain: 3, server: 9, sequence: 42 });
        let grouped = gtid(0x06, &7u64.to_le_bytes()).unwrap();
        assert!(grouped.transactional);
        assert_eq!(grouped.group_commit, Some(7));
        let Some(MariaXa::Prepared(id)) = gtid(0x40, b"\x01\0\0\0\x01\x01gb").unwrap().xa else { panic!("no XA") };
        assert_eq!(id.to_sql(), "X'67',X'62',1");
        let commit = gtid(0x21, b"\x04\x09\0\0\0\0\0\0\0").unwrap();
        assert_eq!(commit.alter, Some(MariaAlter::Commit(9)));
        for rest in [&b"\x04\x09"[..], b"\x01"] {
            assert!(gtid(0x21, rest).is_err());
        }
        assert!(gtid(0x40, b"\x01\0\0\0\x41\x01gb").is_err());
    }
}
