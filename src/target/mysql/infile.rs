//! Copied rows as the file of a `LOAD DATA LOCAL INFILE` that never touches a disk.
//!
//! In: chunks of rows as the source reads them. Out: lines of fields between tabs, `\N` for NULL; a backslash stands before
//! what would end a field or line. <https://dev.mysql.com/doc/refman/8.4/en/load-data.html>
//!
//! The file is read as bytes (`CHARACTER SET binary`): read as utf8mb4, bytes that are no UTF-8 would be refused, and a
//! blob holds such bytes. So every column takes the field's bytes as its value, but for those of which bytes mean something
//! else than their text: another character set than UTF-8's, JSON, UUIDs and addresses. They are given to the server as
//! text, which it converts.
//!
//! With LOCAL the server takes every error about a row for a warning, and leaves the row out or changes the value: whoever
//! loads must count both.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use mysql_async::InfileData;

use super::tables::Entry;
use crate::change::{Datum, Row};
use crate::error::{Error, Kind};
use crate::schema::{MySqlKind, MySqlType};
use crate::source::CopyStream;
use crate::target::Loaded;

/// Bytes of a packet: far below what any server takes (`max_allowed_packet`), however large a row is.
const PACKET: usize = 128 << 10;

/// What has been read of a source's rows, and why no more.
#[derive(Default)]
pub(super) struct Sent {
    pub loaded: Loaded,
    pub error: Option<Error>,
}

/// The statement.
pub(super) fn statement(entry: &Entry) -> String {
    let mut fields = Vec::new();
    let mut set = Vec::new();
    for (n, column) in entry.columns.iter().enumerate() {
        if is_its_bytes(&column.ty) {
            fields.push(column.sql.clone());
        } else {
            fields.push(format!("@v{n}"));
            set.push(format!("{} = CONVERT(@v{n} USING utf8mb4)", column.sql));
        }
    }
    let set = if set.is_empty() { String::new() } else { format!(" SET {}", set.join(", ")) };
    format!(
        "LOAD DATA LOCAL INFILE 'cutwater' INTO TABLE {} CHARACTER SET binary \
         FIELDS TERMINATED BY '\\t' ESCAPED BY '\\\\' LINES TERMINATED BY '\\n' ({}){set}",
        entry.sql,
        fields.join(", ")
    )
}

/// Whether a column takes the bytes of a value's UTF-8 for that value.
fn is_its_bytes(ty: &MySqlType) -> bool {
    use MySqlKind as K;
    match ty.kind {
        K::Json | K::Uuid | K::Inet4 | K::Inet6 | K::Other => false,
        _ => ty.charset.as_deref().is_none_or(|charset| matches!(charset, "utf8mb4" | "utf8mb3" | "utf8" | "ascii")),
    }
}

/// The rows as the file; what was read stands in `sent` once the server has answered.
pub(super) fn data(stream: CopyStream, sent: Arc<Mutex<Sent>>) -> InfileData {
    let lines = stream.flat_map(move |chunk| {
        let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
        let made = chunk.and_then(|chunk| {
            sent.loaded.rows += chunk.rows;
            sent.loaded.bytes += chunk.bytes.len() as u64;
            lines(chunk.bytes)
        });
        let (packets, error) = match made {
            Ok(lines) => (packets(lines), None),
            Err(error) => {
                let said = std::io::Error::other(error.message());
                sent.error = Some(error);
                (Vec::new(), Some(Err(said)))
            }
        };
        futures::stream::iter(packets.into_iter().map(Ok).chain(error))
    });
    Box::pin(lines)
}

/// Rows that are at hand as the file.
pub(super) fn data_of<'r>(rows: impl Iterator<Item = &'r Row>) -> InfileData {
    let mut out = Vec::new();
    rows.for_each(|row| line(&mut out, row));
    Box::pin(futures::stream::iter(packets(Bytes::from(out)).into_iter().map(Ok)))
}

/// Cut into what the server takes at once, wherever that is in a row.
fn packets(mut lines: Bytes) -> Vec<Bytes> {
    let mut packets = Vec::new();
    while !lines.is_empty() {
        packets.push(lines.split_to(lines.len().min(PACKET)));
    }
    packets
}

fn lines(mut rows: Bytes) -> Result<Bytes, Error> {
    let mut out = Vec::with_capacity(rows.len() + rows.len() / 8);
    while !rows.is_empty() {
        line(&mut out, &Row::split_from(&mut rows).ok_or_else(cut_in_two)?);
    }
    Ok(Bytes::from(out))
}

fn line(out: &mut Vec<u8>, row: &Row) {
    for (n, datum) in row.fields().enumerate() {
        if n > 0 {
            out.push(b'\t');
        }
        match datum {
            Datum::Text(bytes) | Datum::Binary(bytes) => escaped(out, bytes),
            Datum::Null | Datum::Unchanged => out.extend_from_slice(b"\\N"),
        }
    }
    out.push(b'\n');
}

fn escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\t' | b'\n' | b'\\' | 0)) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(match rest[at] {
            b'\t' => b"\\t",
            b'\n' => b"\\n",
            0 => b"\\0",
            _ => b"\\\\",
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

pub(super) fn cut_in_two() -> Error {
    Error::new(Kind::Protocol, "the source has cut a row in two")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn what_would_end_a_field_or_a_line_does_not() {
        let row: Row = [Datum::Text(b"a\tb\nc\\d"), Datum::Null, Datum::Binary(b"\0\r\xff"), Datum::Text(b"")]
            .into_iter()
            .collect();
        let made = lines(row.as_bytes().clone()).unwrap();
        assert_eq!(&made[..], b"a\\tb\\nc\\\\d\t\\N\t\\0\r\xff\t\n");
        assert_eq!(lines(row.as_bytes().slice(..5)).unwrap_err().kind(), Kind::Protocol);
    }
}
