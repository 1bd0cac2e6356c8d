//! The small events around the rows: rotation, heartbeats, ends of transactions, incidents.
//!
//! Formats: `libs/mysql/binlog/event/control_events.{h,cpp}` (MySQL) and `sql/log_event.h` (MariaDB).

use bytes::Bytes;

use super::cursor::{Cursor, malformed};
use super::header::kind;
use crate::error::{Error, Kind, Result};

/// `Rotate_event`: the log goes on in another file. An artificial one names the file in which a stream begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotate {
    /// The file's name.
    pub file: String,
    /// Where in it the next event stands (4 = the first).
    pub position: u64,
}

impl Rotate {
    pub(super) fn decode(body: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new(body);
        Ok(Rotate { position: cursor.u64()?, file: file_name(cursor.rest())? })
    }
}

/// `Heartbeat_event` and `Heartbeat_event_v2` (`codecs/binary.cpp`): nothing was written; this is where the log ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// The file.
    pub file: String,
    /// The position in it.
    pub position: u64,
}

impl Heartbeat {
    /// Version 1: the name is the body, the position stands in the header.
    pub(super) fn decode_v1(body: &[u8], next_position: u32) -> Result<Self> {
        Ok(Heartbeat { file: file_name(body)?, position: u64::from(next_position) })
    }

    /// Version 2: type, length, value; 0 ends.
    pub(super) fn decode_v2(body: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new(body);
        let (mut file, mut position) = (String::new(), 0);
        while !cursor.is_empty() {
            let field = cursor.lenenc()?;
            if field == 0 {
                break;
            }
            let value = cursor.lenenc_bytes()?;
            match field {
                1 => file = file_name(value)?,
                2 => position = Cursor::new(value).lenenc()?,
                _ => {}
            }
        }
        Ok(Heartbeat { file, position })
    }
}

/// `Binlog_checkpoint_log_event` of MariaDB: u32 length, name of the oldest file that crash recovery needs.
pub(super) fn decode_checkpoint(body: &[u8]) -> Result<String> {
    let mut cursor = Cursor::new(body);
    let length = cursor.u32()?;
    file_name(cursor.take_u64(length.into())?)
}

fn file_name(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| malformed("the name of a binlog file is not UTF-8"))
}

/// The name of an XA transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct XaId {
    /// The format; 1 where the client named none.
    pub format: u32,
    /// The global part.
    pub global: Bytes,
    /// The branch.
    pub branch: Bytes,
}

impl XaId {
    /// Reads both parts, whose lengths came before.
    pub(super) fn decode(cursor: &mut Cursor<'_>, body: &Bytes, format: u32, global: u64, branch: u64) -> Result<Self> {
        // MAXGTRIDSIZE and MAXBQUALSIZE.
        if global > 64 || branch > 64 {
            return Err(malformed("the name of an XA transaction is longer than 64 bytes"));
        }
        Ok(XaId {
            format,
            global: body.slice_ref(cursor.take_u64(global)?),
            branch: body.slice_ref(cursor.take_u64(branch)?),
        })
    }

    /// As `XA COMMIT` takes it and a Query event of one prints it: `X'67',X'62',1`.
    pub fn to_sql(&self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        format!("X'{}',X'{}',{}", hex(&self.global), hex(&self.branch), self.format)
    }
}

/// `XA_prepare_event`: u8 one phase, u32 format, u32 and u32 lengths, both parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XaPrepare {
    /// `XA COMMIT … ONE PHASE`: the transaction is committed with this event, not only prepared.
    pub one_phase: bool,
    /// Its name.
    pub id: XaId,
}

impl XaPrepare {
    pub(super) fn decode(body: &Bytes) -> Result<Self> {
        let mut cursor = Cursor::new(body);
        let one_phase = cursor.u8()? != 0;
        let (format, global, branch) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
        Ok(XaPrepare { one_phase, id: XaId::decode(&mut cursor, body, format, global.into(), branch.into())? })
    }
}

/// An event that only a statement-based log holds. Which ones changes what is to be done about it (TRAPS 16), so the
/// reader is told, not the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statement {
    /// `LAST_INSERT_ID()` or the auto-increment value of the next statement (`Intvar_event`).
    IntVar,
    /// The seed of `RAND()` (`Rand_event`).
    Rand,
    /// A user variable of the next statement (`User_var_event`). A row-based log has them too, for DDL.
    UserVar,
    /// `LOAD DATA` as a statement (`load_data_events.h`).
    LoadData,
}

impl Statement {
    pub(super) fn of(event: u8) -> Option<Self> {
        match event {
            kind::INTVAR => Some(Statement::IntVar),
            kind::RAND => Some(Statement::Rand),
            kind::USER_VAR => Some(Statement::UserVar),
            6 | 8..=12 | kind::BEGIN_LOAD_QUERY | kind::EXECUTE_LOAD_QUERY => Some(Statement::LoadData),
            _ => None,
        }
    }
}

/// `Incident_event`: u16 number, u8 length, text. The log has a gap here, so it is always an error.
pub(super) fn incident(body: &[u8]) -> Error {
    let mut cursor = Cursor::new(body);
    let number = cursor.u16().unwrap_or(0);
    let text = cursor.u8().and_then(|length| cursor.take(length.into())).unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let what = if number == 1 { "lost events".to_owned() } else { format!("incident {number}") };
    Error::new(
        Kind::SlotLost,
        format!("the source notes an incident in its binlog ({what}: {text}); changes are missing there"),
    )
    .fix("begin the migration anew: the binlog does not hold everything that happened on the source")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_heartbeat_tells_file_and_position_in_both_versions() {
        let expected = Heartbeat { file: "binlog.000002".into(), position: 0x1_0000_0001 };
        let mut body = vec![1, 13];
        body.extend_from_slice(b"binlog.000002");
        body.extend_from_slice(&[2, 9, 0xFE, 1, 0, 0, 0, 1, 0, 0, 0]);
        // A field of a later version is passed over.
        body.extend_from_slice(&[3, 1, 9]);
        body.push(0);
        assert_eq!(Heartbeat::decode_v2(&body).unwrap(), expected);
        for end in [1, 5, 16, 20] {
            assert!(Heartbeat::decode_v2(&body[..end]).is_err(), "cut at {end}");
        }
        assert_eq!(Heartbeat::decode_v1(b"binlog.000002", 77).unwrap().position, 77);
    }

    #[test]
    fn an_xa_name_is_cut_from_the_event() {
        let mut body = vec![0];
        for number in [1u32, 3, 2] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        body.extend_from_slice(b"abcde");
        let body = Bytes::from(body);
        let prepare = XaPrepare::decode(&body).unwrap();
        assert!(!prepare.one_phase);
        assert_eq!(prepare.id.to_sql(), "X'616263',X'6465',1");
        for end in 0..body.len() {
            assert!(XaPrepare::decode(&body.slice(..end)).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn an_incident_is_an_error_that_says_what_was_lost() {
        let error = incident(b"\x01\x00\x04oops");
        assert_eq!(error.kind(), Kind::SlotLost);
        assert!(error.why().contains("lost events: oops"), "{error}");
        assert_eq!(incident(b"").kind(), Kind::SlotLost);
    }
}
