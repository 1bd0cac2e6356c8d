//! FORMAT_DESCRIPTION: what the events after it look like.
//!
//! Format: `Format_description_event` in `libs/mysql/binlog/event/control_events.{h,cpp}`; MariaDB has the same.
//! u16 binlog version, 50 bytes server version, u32 time, u8 length of the common header, one byte a type with the
//! length of its fixed part, u8 checksum algorithm, room for a checksum.

use super::cursor::{Cursor, malformed};
use super::header::{CHECKSUM_LENGTH, HEADER_LENGTH};
use crate::error::{Error, Kind, Result};

/// What events end with (`enum_binlog_checksum_alg`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// Nothing.
    None,
    /// A CRC32 of everything before it, little-endian.
    Crc32,
    /// Not said yet: the events before the first format description of a stream.
    Unknown,
}

/// The format in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatDescription {
    /// Whether it was written by MariaDB.
    pub mariadb: bool,
    /// Major, minor and patch version of the server that wrote the file.
    pub version: (u16, u16, u16),
    /// The version as the server prints it (`10.11.6-MariaDB-log`).
    pub server_version: String,
    /// What the events end with.
    pub checksum: Checksum,
    /// Length in bytes of the fixed part of each event type, from type 1 on.
    pub(super) post_header: Vec<u8>,
}

/// Where the checksum algorithm and the room for the checksum stand, from the end.
const TRAILER: usize = 1 + CHECKSUM_LENGTH;
const FIXED: usize = 2 + 50 + 4 + 1;

impl FormatDescription {
    /// What is in force before the first one of a stream came.
    pub fn before_the_first() -> Self {
        FormatDescription {
            mariadb: false,
            version: (0, 0, 0),
            server_version: String::new(),
            checksum: Checksum::Unknown,
            post_header: Vec::new(),
        }
    }

    /// The same format for the events inside a compressed transaction: they have no checksum of their own.
    #[must_use]
    pub fn without_checksum(&self) -> Self {
        FormatDescription { checksum: Checksum::None, ..self.clone() }
    }

    /// Bytes of the fixed part of events of type `kind`; `usual` where the description says nothing of the type.
    pub(super) fn post_header_length(&self, kind: u8, usual: usize) -> usize {
        usize::from(kind)
            .checked_sub(1)
            .and_then(|at| self.post_header.get(at))
            .map_or(usual, |length| (*length).into())
    }

    /// Bytes of the checksum's room at the end of a whole format description event (0 before MySQL 5.6.1).
    pub(super) fn checksum_room(event: &[u8]) -> usize {
        if Self::has_checksum_field(event) { CHECKSUM_LENGTH } else { 0 }
    }

    /// The algorithm that a whole format description event names.
    pub(super) fn checksum_in(event: &[u8]) -> Checksum {
        match event.len().checked_sub(TRAILER).and_then(|at| event.get(at)) {
            Some(1) if Self::has_checksum_field(event) => Checksum::Crc32,
            _ => Checksum::None,
        }
    }

    fn has_checksum_field(event: &[u8]) -> bool {
        let Some(version) = event.get(HEADER_LENGTH + 2..HEADER_LENGTH + 52) else { return false };
        let (text, version) = version_of(version);
        let from = if text.contains("MariaDB") { (5, 3, 0) } else { (5, 6, 1) };
        version >= from && event.len() >= HEADER_LENGTH + FIXED + TRAILER
    }

    /// Reads the body of the event; the room for the checksum is cut off already.
    pub(super) fn decode(body: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new(body);
        let binlog_version = cursor.u16()?;
        if binlog_version != 4 {
            return Err(Error::new(Kind::Protocol, format!("the binlog has format {binlog_version}, not 4"))
                .fix("the source must be MySQL 5.7 or later, or MariaDB 10.5 or later"));
        }
        let (server_version, version) = version_of(cursor.take(50)?);
        let _created = cursor.u32()?;
        let header_length = cursor.u8()?;
        if usize::from(header_length) != HEADER_LENGTH {
            return Err(malformed(format!("events have a header of {header_length} bytes, not {HEADER_LENGTH}")));
        }
        let mariadb = server_version.contains("MariaDB");
        let mut post_header = cursor.rest();
        let mut checksum = Checksum::None;
        if version >= if mariadb { (5, 3, 0) } else { (5, 6, 1) } {
            let (algorithm, lengths) =
                post_header.split_last().ok_or_else(|| malformed("a format description event is cut short"))?;
            post_header = lengths;
            checksum = match algorithm {
                0 | 255 => Checksum::None,
                1 => Checksum::Crc32,
                other => {
                    return Err(malformed(format!("the binlog uses checksum algorithm {other}, which is not known")));
                }
            };
        }
        Ok(FormatDescription { mariadb, version, server_version, checksum, post_header: post_header.to_vec() })
    }
}

/// The version's text (padded with NUL) and its three numbers.
fn version_of(padded: &[u8]) -> (String, (u16, u16, u16)) {
    let text = padded.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text).into_owned();
    // MariaDB up to 10 said 5.5.5 first, for the replicas that compared one digit.
    let plain = if text.contains("MariaDB") { text.strip_prefix("5.5.5-").unwrap_or(&text) } else { &text };
    let mut numbers = plain.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u16>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    let version = (next(), next(), next());
    (text, version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_servers_print() {
        for (text, version) in [
            ("9.7.1\0\0", (9, 7, 1)),
            ("5.7.44-log", (5, 7, 44)),
            ("10.11.14-MariaDB-0+deb12u2-log", (10, 11, 14)),
            ("5.5.5-10.5.9-MariaDB", (10, 5, 9)),
            ("", (0, 0, 0)),
        ] {
            assert_eq!(version_of(text.as_bytes()).1, version, "{text}");
        }
    }
}
