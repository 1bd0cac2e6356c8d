//! From the bytes of one event to what it says.

use bytes::Bytes;

use super::control::{self, Heartbeat, Rotate, Statement, XaPrepare};
use super::format::FormatDescription;
use super::gtid::{self, GtidInterval, MariaGtidEvent, MySqlGtid};
use super::header::{EventHeader, RawEvent, kind, kind_name};
use super::payload::TransactionPayload;
use super::query::Query;
use super::rows::Rows;
use super::table_map::TableMap;
use crate::change::MariaGtid;
use crate::error::{Error, Kind, Result};

/// What an event says. Names, texts and rows are slices of its bytes.
#[derive(Debug, Clone)]
pub enum Event {
    /// What the events after it look like: from here on the caller decodes with it.
    Format(FormatDescription),
    /// The log goes on in another file.
    Rotate(Rotate),
    /// Nothing was written; how far the log goes.
    Heartbeat(Heartbeat),
    /// The server was shut down and closed the file.
    Stop,
    /// A statement as text.
    Query(Query),
    /// A transaction is committed; its number in the engine.
    Xid(u64),
    /// An XA transaction is prepared (or committed at once).
    XaPrepare(XaPrepare),
    /// Part of a statement that was logged as a statement.
    Statement(Statement),
    /// The statement behind the rows that follow (MySQL `binlog_rows_query_log_events`, MariaDB `ANNOTATE_ROWS`).
    RowsQuery(Bytes),
    /// Everything that is in the files before this one (MySQL).
    PreviousGtids(Vec<GtidInterval>),
    /// A transaction of MySQL begins.
    Gtid(MySqlGtid),
    /// A transaction of MariaDB begins.
    MariaGtid(MariaGtidEvent),
    /// The last transactions in the files before this one (MariaDB).
    MariaGtidList(Vec<MariaGtid>),
    /// The oldest file that crash recovery needs (MariaDB).
    BinlogCheckpoint(String),
    /// The columns of a table.
    TableMap(TableMap),
    /// Rows of a table.
    Rows(Rows),
    /// A whole transaction, compressed.
    Payload(TransactionPayload),
    /// Of no meaning to a reader (group replication's notes), or not known and marked as one to pass over.
    Ignored,
}

impl Event {
    /// Reads one event, as it stands in a file or comes in a network stream after the OK byte.
    pub fn decode(event: Bytes, format: &FormatDescription) -> Result<(EventHeader, Event)> {
        let raw = RawEvent::parse(event, format)?;
        let event = Self::of(&raw, format).map_err(|error| match raw.header.kind {
            kind::INCIDENT | kind::MARIA_START_ENCRYPTION => error,
            kind => error.context(format!(
                "reading a {} event before position {} of the binlog",
                kind_name(kind),
                raw.header.next_position
            )),
        })?;
        Ok((raw.header, event))
    }

    /// Reads the body of an event.
    pub fn of(raw: &RawEvent, format: &FormatDescription) -> Result<Event> {
        let (header, body) = (&raw.header, &raw.body);
        let post_header = |usual: usize| format.post_header_length(header.kind, usual);
        Ok(match header.kind {
            kind::FORMAT_DESCRIPTION => Event::Format(FormatDescription::decode(body)?),
            kind::ROTATE => Event::Rotate(Rotate::decode(body)?),
            kind::HEARTBEAT => Event::Heartbeat(Heartbeat::decode_v1(body, header.next_position)?),
            kind::HEARTBEAT_V2 => Event::Heartbeat(Heartbeat::decode_v2(body)?),
            kind::STOP => Event::Stop,
            kind::QUERY => Event::Query(Query::decode(body, post_header(13), false)?),
            kind::MARIA_QUERY_COMPRESSED => Event::Query(Query::decode(body, post_header(13), true)?),
            kind::XID => Event::Xid(super::cursor::Cursor::new(body).u64()?),
            kind::XA_PREPARE => Event::XaPrepare(XaPrepare::decode(body)?),
            // One byte of the length, cut to its low 8 bits, then the text to the end.
            kind::ROWS_QUERY => Event::RowsQuery(body.slice(1.min(body.len())..)),
            kind::MARIA_ANNOTATE_ROWS => Event::RowsQuery(body.clone()),
            kind::PREVIOUS_GTIDS => Event::PreviousGtids(gtid::decode_previous(body)?),
            kind::GTID => Event::Gtid(MySqlGtid::decode(body, false)?),
            kind::ANONYMOUS_GTID => Event::Gtid(MySqlGtid::decode(body, true)?),
            kind::GTID_TAGGED => Event::Gtid(MySqlGtid::decode_tagged(body)?),
            kind::MARIA_GTID => Event::MariaGtid(MariaGtidEvent::decode(body, header.server_id)?),
            kind::MARIA_GTID_LIST => Event::MariaGtidList(gtid::decode_list(body)?),
            kind::MARIA_BINLOG_CHECKPOINT => Event::BinlogCheckpoint(control::decode_checkpoint(body)?),
            kind::TABLE_MAP => Event::TableMap(TableMap::decode(body, post_header(8), format.mariadb)?),
            kind::WRITE_ROWS_V1..=kind::DELETE_ROWS_V1
            | kind::MARIA_WRITE_ROWS_COMPRESSED_V1..=kind::MARIA_DELETE_ROWS_COMPRESSED_V1 => {
                Event::Rows(Rows::decode(header.kind, body, post_header(8))?)
            }
            kind::WRITE_ROWS..=kind::DELETE_ROWS
            | kind::PARTIAL_UPDATE_ROWS
            | kind::MARIA_WRITE_ROWS_COMPRESSED..=kind::MARIA_DELETE_ROWS_COMPRESSED => {
                Event::Rows(Rows::decode(header.kind, body, post_header(10))?)
            }
            kind::TRANSACTION_PAYLOAD => Event::Payload(TransactionPayload::decode(body)?),
            kind::INCIDENT => return Err(control::incident(body)),
            kind::MARIA_START_ENCRYPTION => {
                // In a stream it is a note on the file, whose events the server has decrypted.
                if header.is_ignorable() || header.is_artificial() {
                    return Ok(Event::Ignored);
                }
                return Err(Error::new(
                    Kind::Protocol,
                    "the binlog file is encrypted, and what follows cannot be read from it",
                )
                .fix("read it through the server, which decrypts it"));
            }
            kind::IGNORABLE | kind::TRANSACTION_CONTEXT | kind::VIEW_CHANGE | kind::SLAVE => Event::Ignored,
            other => {
                match Statement::of(other) {
                    Some(statement) => Event::Statement(statement),
                    None if header.is_ignorable() => Event::Ignored,
                    None => {
                        return Err(Error::new(
                        Kind::Protocol,
                        format!("the binlog has an event of type {other} ({}), which is not known", kind_name(other)),
                    )
                    .fix("a later version of Cutwater may know it; the server's version is in the first line of its log"));
                    }
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::source::mysql::binlog::Checksum;

    fn event(kind: u8, flags: u16, body: &[u8], checksum: bool) -> Bytes {
        let mut event = vec![0; 19];
        event[4] = kind;
        event[17..19].copy_from_slice(&flags.to_le_bytes());
        event[13] = 1;
        event.extend_from_slice(body);
        let size = event.len() + if checksum { 4 } else { 0 };
        event[9..13].copy_from_slice(&(size as u32).to_le_bytes());
        if checksum {
            let crc = crc32fast::hash(&event);
            event.extend_from_slice(&crc.to_le_bytes());
        }
        event.into()
    }

    fn with_crc() -> FormatDescription {
        FormatDescription { checksum: Checksum::Crc32, ..FormatDescription::before_the_first() }
    }

    #[test]
    fn a_damaged_event_is_found_by_its_checksum() {
        let whole = event(kind::XID, 0, &7u64.to_le_bytes(), true);
        assert!(matches!(Event::decode(whole.clone(), &with_crc()), Ok((_, Event::Xid(7)))));
        for at in (0..whole.len()).filter(|at| !(9..13).contains(at)) {
            let mut damaged = whole.to_vec();
            damaged[at] ^= 0x10;
            let error = Event::decode(damaged.into(), &with_crc()).unwrap_err();
            assert_eq!(error.kind(), Kind::Protocol);
            assert!(error.why().contains("checksum"), "{error}");
        }
        for end in 0..whole.len() {
            assert!(Event::decode(whole.slice(..end), &with_crc()).is_err());
        }
    }

    #[test]
    fn the_rotate_before_the_first_format_is_read_with_and_without_a_checksum() {
        let body = [&4u64.to_le_bytes()[..], b"binlog.000007"].concat();
        for checksum in [false, true] {
            let rotate = event(kind::ROTATE, EventHeader::FLAG_ARTIFICIAL, &body, checksum);
            let (header, event) = Event::decode(rotate, &FormatDescription::before_the_first()).unwrap();
            let Event::Rotate(rotate) = event else { panic!("{event:?}") };
            assert!(header.is_artificial());
            assert_eq!((rotate.file.as_str(), rotate.position), ("binlog.000007", 4));
        }
    }

    #[test]
    fn what_is_not_known_is_passed_over_only_where_the_server_allows_it() {
        let format = with_crc();
        let known = event(99, EventHeader::FLAG_IGNORABLE, b"x", true);
        assert!(matches!(Event::decode(known, &format), Ok((_, Event::Ignored))));
        let error = Event::decode(event(99, 0, b"x", true), &format).unwrap_err();
        assert!(error.why().contains("type 99"), "{error}");
        let error = Event::decode(event(kind::MARIA_START_ENCRYPTION, 0, &[0; 17], true), &format).unwrap_err();
        assert!(error.why().contains("encrypted"), "{error}");
        let error = Event::decode(event(kind::INCIDENT, 0, b"\x01\0\0", true), &format).unwrap_err();
        assert_eq!(error.kind(), Kind::SlotLost);
        for (kind, statement) in [
            (kind::INTVAR, Statement::IntVar),
            (kind::RAND, Statement::Rand),
            (kind::USER_VAR, Statement::UserVar),
            (kind::EXECUTE_LOAD_QUERY, Statement::LoadData),
        ] {
            let decoded = Event::decode(event(kind, 0, b"", true), &format).unwrap().1;
            assert!(matches!(decoded, Event::Statement(found) if found == statement));
        }
    }

    #[test]
    fn no_body_of_any_event_makes_the_decoder_panic() {
        let mut seed = 0x9E37_79B9_7F4A_7C15u64;
        let format = FormatDescription { checksum: Checksum::None, ..FormatDescription::before_the_first() };
        for kind in 0..=255 {
            for round in 0..200usize {
                let body: Vec<u8> = (0..round % 67)
                    .map(|_| {
                        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        // Small numbers make lengths that fit.
                        let byte = (seed >> 56) as u8;
                        if round % 2 == 0 { byte % 8 } else { byte }
                    })
                    .collect();
                if let Ok((_, Event::Payload(payload))) = Event::decode(event(kind, 0, &body, false), &format) {
                    let _ = payload.events().map(|events| events.take(3).count());
                }
            }
        }
    }
}
