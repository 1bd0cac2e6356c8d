//! What MariaDB deflates with zlib: statements and rows (`log_bin_compress`), and columns (`COMPRESSED`).
//!
//! Statements and rows (`binlog_buf_uncompress` in MariaDB's `sql/log_event.cc`): a byte with 0x80, the algorithm in
//! bits 4 to 6 (0 = zlib) and the number of bytes of the length in bits 0 to 2; the length, big-endian; the stream.
//!
//! A column (`sql/field_comp.cc`, `Field_longstr::uncompress`): a byte, 0 if what follows is not compressed; otherwise
//! the method in bits 4 to 7 (8 = zlib), bit 3 set for a stream without the zlib header, and the number of bytes of the
//! length in bits 0 to 2; the length, big-endian; the stream.

use std::io::Read;

use bytes::Bytes;

use super::cursor::{Cursor, malformed};
use crate::error::Result;

/// The longest event a server takes (`slave_max_allowed_packet`, 1 GiB), so the most that anything may inflate to.
const LONGEST: u64 = 1 << 30;

/// Inflates the body of a compressed event.
pub(super) fn inflate(bytes: &[u8]) -> Result<Bytes> {
    let mut cursor = Cursor::new(bytes);
    let first = cursor.u8()?;
    if first & 0x80 == 0 || first & 0x70 != 0 {
        return Err(malformed(format!("a compressed event uses a method that is not known ({first:#04x})")));
    }
    let length = cursor.uint_be(usize::from(first & 7))?;
    let mut out = Vec::new();
    read_exactly(flate2::read::ZlibDecoder::new(cursor.rest()), length, &mut out)?;
    Ok(out.into())
}

/// Inflates the value of a compressed column into `out`, which is emptied first; gives back where the value stands.
pub(super) fn inflate_column<'a>(bytes: &'a [u8], out: &'a mut Vec<u8>) -> Result<&'a [u8]> {
    let mut cursor = Cursor::new(bytes);
    // The empty value has no byte at all.
    let Ok(first) = cursor.u8() else { return Ok(bytes) };
    match first >> 4 {
        0 if first == 0 => Ok(cursor.rest()),
        8 => {
            let length = cursor.uint_be(usize::from(first & 7))?;
            out.clear();
            if first & 8 == 0 {
                read_exactly(flate2::read::ZlibDecoder::new(cursor.rest()), length, out)?;
            } else {
                read_exactly(flate2::read::DeflateDecoder::new(cursor.rest()), length, out)?;
            }
            Ok(out)
        }
        method => Err(malformed(format!("a compressed column uses method {method}, which is not known"))),
    }
}

/// Reads what must be `length` bytes. The buffer grows with what really comes, not by what was claimed.
fn read_exactly(from: impl Read, length: u64, out: &mut Vec<u8>) -> Result<()> {
    if length > LONGEST {
        return Err(malformed(format!("compressed data claims to be {length} bytes long")));
    }
    from.take(length + 1)
        .read_to_end(out)
        .map_err(|error| malformed(format!("compressed data is damaged: {error}")))?;
    if out.len() as u64 == length {
        Ok(())
    } else {
        Err(malformed(format!("compressed data claims {length} bytes and holds {} or more", out.len())))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::io::Write;

    use super::*;

    fn deflated(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn an_event_is_inflated_and_a_false_length_is_refused() {
        let text = b"insert into t values (1), (1), (1), (1), (1)";
        let mut event = vec![0x82, 0, text.len() as u8];
        event.extend_from_slice(&deflated(text));
        assert_eq!(&inflate(&event).unwrap()[..], text);
        for end in 0..event.len() - 4 {
            assert!(inflate(&event[..end]).is_err(), "cut at {end}");
        }
        for length in [text.len() as u8 - 1, text.len() as u8 + 1] {
            event[2] = length;
            assert!(inflate(&event).is_err());
        }
        assert!(inflate(&[0x84, 0xFF, 0xFF, 0xFF, 0xFF, 0]).is_err());
    }

    #[test]
    fn a_column_is_inflated_unless_it_was_stored_as_it_is() {
        let mut out = Vec::new();
        assert_eq!(inflate_column(b"", &mut out).unwrap(), b"");
        assert_eq!(inflate_column(b"\0plain", &mut out).unwrap(), b"plain");
        let mut value = vec![0x81, 6];
        value.extend_from_slice(&deflated(b"aaaaaa"));
        assert_eq!(inflate_column(&value, &mut out).unwrap(), b"aaaaaa");
        let mut raw = vec![0x89, 6];
        let stream = deflated(b"bbbbbb");
        raw.extend_from_slice(&stream[2..stream.len() - 4]);
        assert_eq!(inflate_column(&raw, &mut out).unwrap(), b"bbbbbb");
        assert!(inflate_column(&[0x70, 1], &mut out).is_err());
    }
}
