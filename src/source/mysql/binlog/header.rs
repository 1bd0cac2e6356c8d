//! The header that every event begins with, the checksum that it may end with, and the numbers of the event types.
//!
//! Formats: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_replication_binlog_event.html> and
//! `libs/mysql/binlog/event/binlog_event.h`; MariaDB's own types are in its `sql/log_event.h`.

use bytes::{Buf, Bytes};

use super::cursor::{Cursor, malformed};
use super::format::{Checksum, FormatDescription};
use crate::error::{Error, Kind, Result};

/// Bytes of the common header of version 4.
pub const HEADER_LENGTH: usize = 19;
/// Bytes of a CRC32 at the end of an event.
pub const CHECKSUM_LENGTH: usize = 4;

/// Numbers of event types (`enum Log_event_type`).
#[allow(missing_docs, reason = "the names are the server's own")]
pub mod kind {
    pub const UNKNOWN: u8 = 0;
    pub const START_V3: u8 = 1;
    pub const QUERY: u8 = 2;
    pub const STOP: u8 = 3;
    pub const ROTATE: u8 = 4;
    pub const INTVAR: u8 = 5;
    pub const SLAVE: u8 = 7;
    pub const APPEND_BLOCK: u8 = 9;
    pub const DELETE_FILE: u8 = 11;
    pub const RAND: u8 = 13;
    pub const USER_VAR: u8 = 14;
    pub const FORMAT_DESCRIPTION: u8 = 15;
    pub const XID: u8 = 16;
    pub const BEGIN_LOAD_QUERY: u8 = 17;
    pub const EXECUTE_LOAD_QUERY: u8 = 18;
    pub const TABLE_MAP: u8 = 19;
    pub const WRITE_ROWS_V1: u8 = 23;
    pub const UPDATE_ROWS_V1: u8 = 24;
    pub const DELETE_ROWS_V1: u8 = 25;
    pub const INCIDENT: u8 = 26;
    pub const HEARTBEAT: u8 = 27;
    pub const IGNORABLE: u8 = 28;
    pub const ROWS_QUERY: u8 = 29;
    pub const WRITE_ROWS: u8 = 30;
    pub const UPDATE_ROWS: u8 = 31;
    pub const DELETE_ROWS: u8 = 32;
    pub const GTID: u8 = 33;
    pub const ANONYMOUS_GTID: u8 = 34;
    pub const PREVIOUS_GTIDS: u8 = 35;
    pub const TRANSACTION_CONTEXT: u8 = 36;
    pub const VIEW_CHANGE: u8 = 37;
    pub const XA_PREPARE: u8 = 38;
    pub const PARTIAL_UPDATE_ROWS: u8 = 39;
    pub const TRANSACTION_PAYLOAD: u8 = 40;
    pub const HEARTBEAT_V2: u8 = 41;
    pub const GTID_TAGGED: u8 = 42;
    pub const MARIA_ANNOTATE_ROWS: u8 = 160;
    pub const MARIA_BINLOG_CHECKPOINT: u8 = 161;
    pub const MARIA_GTID: u8 = 162;
    pub const MARIA_GTID_LIST: u8 = 163;
    pub const MARIA_START_ENCRYPTION: u8 = 164;
    pub const MARIA_QUERY_COMPRESSED: u8 = 165;
    pub const MARIA_WRITE_ROWS_COMPRESSED_V1: u8 = 166;
    pub const MARIA_UPDATE_ROWS_COMPRESSED_V1: u8 = 167;
    pub const MARIA_DELETE_ROWS_COMPRESSED_V1: u8 = 168;
    pub const MARIA_WRITE_ROWS_COMPRESSED: u8 = 169;
    pub const MARIA_UPDATE_ROWS_COMPRESSED: u8 = 170;
    pub const MARIA_DELETE_ROWS_COMPRESSED: u8 = 171;
}

/// What an event type is called in the server's messages; for the person who reads the error.
pub fn kind_name(kind: u8) -> &'static str {
    match kind {
        kind::START_V3 => "Start_v3",
        kind::QUERY => "Query",
        kind::STOP => "Stop",
        kind::ROTATE => "Rotate",
        kind::INTVAR => "Intvar",
        kind::SLAVE..=12 => "statement-based LOAD DATA",
        kind::RAND => "RAND",
        kind::USER_VAR => "User_var",
        kind::FORMAT_DESCRIPTION => "Format_desc",
        kind::XID => "Xid",
        kind::BEGIN_LOAD_QUERY => "Begin_load_query",
        kind::EXECUTE_LOAD_QUERY => "Execute_load_query",
        kind::TABLE_MAP => "Table_map",
        20..=22 => "Rows of a MySQL 5.1 preview",
        kind::WRITE_ROWS_V1 => "Write_rows_v1",
        kind::UPDATE_ROWS_V1 => "Update_rows_v1",
        kind::DELETE_ROWS_V1 => "Delete_rows_v1",
        kind::INCIDENT => "Incident",
        kind::HEARTBEAT | kind::HEARTBEAT_V2 => "Heartbeat",
        kind::IGNORABLE => "Ignorable",
        kind::ROWS_QUERY => "Rows_query",
        kind::WRITE_ROWS => "Write_rows",
        kind::UPDATE_ROWS => "Update_rows",
        kind::DELETE_ROWS => "Delete_rows",
        kind::GTID => "Gtid",
        kind::ANONYMOUS_GTID => "Anonymous_Gtid",
        kind::PREVIOUS_GTIDS => "Previous_gtids",
        kind::TRANSACTION_CONTEXT => "Transaction_context",
        kind::VIEW_CHANGE => "View_change",
        kind::XA_PREPARE => "XA_prepare",
        kind::PARTIAL_UPDATE_ROWS => "Update_rows_partial",
        kind::TRANSACTION_PAYLOAD => "Transaction_payload",
        kind::GTID_TAGGED => "Gtid_tagged",
        kind::MARIA_ANNOTATE_ROWS => "Annotate_rows",
        kind::MARIA_BINLOG_CHECKPOINT => "Binlog_checkpoint",
        kind::MARIA_GTID => "Gtid (MariaDB)",
        kind::MARIA_GTID_LIST => "Gtid_list",
        kind::MARIA_START_ENCRYPTION => "Start_encryption",
        kind::MARIA_QUERY_COMPRESSED => "Query_compressed",
        kind::MARIA_WRITE_ROWS_COMPRESSED_V1 | kind::MARIA_WRITE_ROWS_COMPRESSED => "Write_rows_compressed",
        kind::MARIA_UPDATE_ROWS_COMPRESSED_V1 | kind::MARIA_UPDATE_ROWS_COMPRESSED => "Update_rows_compressed",
        kind::MARIA_DELETE_ROWS_COMPRESSED_V1 | kind::MARIA_DELETE_ROWS_COMPRESSED => "Delete_rows_compressed",
        _ => "unknown",
    }
}

/// The common header (`Log_event_header`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventHeader {
    /// Seconds since 1970 at which the statement began, by the server's clock; 0 in artificial events.
    pub timestamp: u32,
    /// The type's number, see [`kind`].
    pub kind: u8,
    /// The server that executed it first.
    pub server_id: u32,
    /// Bytes of the whole event, header and checksum included.
    pub size: u32,
    /// Where the next event begins in the source's file (the low 32 bits of it); 0 in artificial events and inside a
    /// compressed transaction.
    pub next_position: u32,
    /// See the `FLAG_…` constants.
    pub flags: u16,
}

impl EventHeader {
    /// The file was not closed when the format description was written (`LOG_EVENT_BINLOG_IN_USE_F`).
    pub const FLAG_IN_USE: u16 = 0x1;
    /// The statement depends on its thread, as one with temporary tables does (`LOG_EVENT_THREAD_SPECIFIC_F`).
    pub const FLAG_THREAD_SPECIFIC: u16 = 0x4;
    /// Made by the server for this stream, in no file (`LOG_EVENT_ARTIFICIAL_F`).
    pub const FLAG_ARTIFICIAL: u16 = 0x20;
    /// Who does not know the type may pass over it (`LOG_EVENT_IGNORABLE_F`).
    pub const FLAG_IGNORABLE: u16 = 0x80;

    /// Reads the header at the start of an event.
    pub fn parse(event: &[u8]) -> Result<EventHeader> {
        let mut cursor = Cursor::new(event);
        Ok(EventHeader {
            timestamp: cursor.u32()?,
            kind: cursor.u8()?,
            server_id: cursor.u32()?,
            size: cursor.u32()?,
            next_position: cursor.u32()?,
            flags: cursor.u16()?,
        })
    }

    /// Whether the server made it for this stream: it is in no file.
    pub fn is_artificial(&self) -> bool {
        self.flags & Self::FLAG_ARTIFICIAL != 0 || self.next_position == 0
    }

    /// Whether who does not know it may pass over it.
    pub fn is_ignorable(&self) -> bool {
        self.flags & Self::FLAG_IGNORABLE != 0
    }
}

/// An event whose length and checksum are right; what is in it was not looked at.
#[derive(Debug, Clone)]
pub struct RawEvent {
    /// Its header.
    pub header: EventHeader,
    /// What stands between header and checksum.
    pub body: Bytes,
}

impl RawEvent {
    /// Takes one event as it stands in a file, or in a network stream after the OK byte.
    pub fn parse(mut event: Bytes, format: &FormatDescription) -> Result<RawEvent> {
        let header = EventHeader::parse(&event)?;
        if header.size as usize != event.len() {
            return Err(malformed(format!(
                "a {} event says that it has {} bytes and has {}",
                kind_name(header.kind),
                header.size,
                event.len()
            )));
        }
        let end = match header.kind {
            // It brings its own algorithm, and is the event with the room for a checksum in any case.
            kind::FORMAT_DESCRIPTION => {
                let length = FormatDescription::checksum_room(&event);
                if length > 0 && FormatDescription::checksum_in(&event) == Checksum::Crc32 {
                    verify(&event, &header)?;
                }
                event.len().saturating_sub(length)
            }
            _ => match format.checksum {
                Checksum::None => event.len(),
                Checksum::Crc32 => {
                    verify(&event, &header)?;
                    event.len() - CHECKSUM_LENGTH
                }
                // Before the first format description there is only the artificial rotate event that names the file.
                Checksum::Unknown if verify(&event, &header).is_ok() => event.len() - CHECKSUM_LENGTH,
                Checksum::Unknown => event.len(),
            },
        };
        if end < HEADER_LENGTH {
            return Err(malformed(format!("a {} event is cut short", kind_name(header.kind))));
        }
        event.truncate(end);
        event.advance(HEADER_LENGTH);
        Ok(RawEvent { header, body: event })
    }
}

/// Compares the CRC32 of an event with the one it ends with (`Log_event_footer::event_checksum_test`).
fn verify(event: &[u8], header: &EventHeader) -> Result<()> {
    let Some((content, sent)) = event.split_last_chunk::<CHECKSUM_LENGTH>() else {
        return Err(malformed("a binlog event is too short for its checksum"));
    };
    let mut crc = crc32fast::Hasher::new();
    match content.get(17..HEADER_LENGTH) {
        // The flag is set in the open file and was not when the sum was made.
        Some(&[low, high]) if header.kind == kind::FORMAT_DESCRIPTION => {
            crc.update(&content[..17]);
            crc.update(&[low & !(EventHeader::FLAG_IN_USE as u8), high]);
            crc.update(&content[HEADER_LENGTH..]);
        }
        _ => crc.update(content),
    }
    if crc.finalize() == u32::from_le_bytes(*sent) {
        return Ok(());
    }
    Err(Error::new(
        Kind::Protocol,
        format!(
            "the checksum of a {} event before position {} is wrong: the binlog is damaged, or was on its way",
            kind_name(header.kind),
            header.next_position
        ),
    )
    .fix("check the file on the source with `mysqlbinlog --verify-binlog-checksum`; if it is whole there, start again"))
}
