//! MySQL's binary JSON into the text that the server prints.
//!
//! Format: `sql-common/json_binary.h`; the text: `Json_wrapper::to_string` in `sql-common/json_dom.cc`. Members of an
//! object are stored, and printed, ordered by the length of their keys and then by their bytes. Dates, decimals and what
//! else JSON does not know are stored as opaque values and printed as strings, unknown ones as `base64:typeN:…`.
//!
//! A document from the wire may be anything: offsets are checked, the depth is bounded, and the work is bounded by the
//! document's own size, so that offsets that point at the same bytes again and again end in an error.

mod change;
mod dom;
mod opaque;

use super::cursor::{Cursor, malformed};
use super::number::{self, Out};
use crate::error::Result;

pub(super) use change::write_changed;

/// The server refuses deeper documents (`JSON_DOCUMENT_MAX_DEPTH`).
const DEEPEST: usize = 100;

/// Types of values (`JSONB_TYPE_…`).
mod tag {
    pub(super) const SMALL_OBJECT: u8 = 0x0;
    pub(super) const LARGE_OBJECT: u8 = 0x1;
    pub(super) const SMALL_ARRAY: u8 = 0x2;
    pub(super) const LARGE_ARRAY: u8 = 0x3;
    pub(super) const LITERAL: u8 = 0x4;
    pub(super) const INT16: u8 = 0x5;
    pub(super) const UINT16: u8 = 0x6;
    pub(super) const INT32: u8 = 0x7;
    pub(super) const UINT32: u8 = 0x8;
    pub(super) const INT64: u8 = 0x9;
    pub(super) const UINT64: u8 = 0xA;
    pub(super) const DOUBLE: u8 = 0xB;
    pub(super) const STRING: u8 = 0xC;
    pub(super) const OPAQUE: u8 = 0xF;
}

/// Appends the text of a document. An empty one is the literal `null`, as the server takes it.
pub(super) fn write(document: &[u8], out: &mut Out) -> Result<()> {
    let Some((tag, value)) = document.split_first() else {
        out.extend_from_slice(b"null");
        return Ok(());
    };
    let mut budget = Budget(document.len() + 1);
    write_value(Value { tag: *tag, bytes: value }, &mut budget, 0, out)
}

/// A value's type and the bytes from its beginning on (to the end of what holds it).
#[derive(Debug, Clone, Copy)]
struct Value<'a> {
    tag: u8,
    bytes: &'a [u8],
}

/// What may still be read: every element and every text takes its part, and no document has more than its length.
struct Budget(usize);

impl Budget {
    fn spend(&mut self, bytes: usize) -> Result<()> {
        self.0 = self.0.checked_sub(bytes).ok_or_else(|| malformed("a JSON document uses the same bytes twice"))?;
        Ok(())
    }
}

fn write_value(value: Value<'_>, budget: &mut Budget, depth: usize, out: &mut Out) -> Result<()> {
    match Container::open(value)? {
        None => write_scalar(value, budget, out),
        Some(_) if depth > DEEPEST => Err(malformed("a JSON document is deeper than 100 levels")),
        Some(container) => {
            out.extend_from_slice(if container.is_object { b"{" } else { b"[" });
            for at in 0..container.count {
                if at > 0 {
                    out.extend_from_slice(b", ");
                }
                // An entry has 3 bytes at least; one of them is for the element.
                budget.spend(1)?;
                if container.is_object {
                    let key = container.key(at)?;
                    budget.spend(key.len())?;
                    write_quoted(key, out)?;
                    out.extend_from_slice(b": ");
                }
                write_value(container.value(at)?, budget, depth + 1, out)?;
            }
            out.extend_from_slice(if container.is_object { b"}" } else { b"]" });
            Ok(())
        }
    }
}

/// An object or array, cut to its length.
#[derive(Debug, Clone, Copy)]
struct Container<'a> {
    is_object: bool,
    count: usize,
    bytes: &'a [u8],
    /// Bytes of counts and offsets: 2 or 4.
    width: usize,
}

impl<'a> Container<'a> {
    /// Count, size, then for objects a key entry each (offset, u16 length), then a value entry each (type, offset or the
    /// value itself if it is small).
    fn open(value: Value<'a>) -> Result<Option<Self>> {
        let (is_object, width) = match value.tag {
            tag::SMALL_OBJECT => (true, 2),
            tag::LARGE_OBJECT => (true, 4),
            tag::SMALL_ARRAY => (false, 2),
            tag::LARGE_ARRAY => (false, 4),
            _ => return Ok(None),
        };
        let mut cursor = Cursor::new(value.bytes);
        let (count, size) = (cursor.uint(width)? as usize, cursor.uint(width)? as usize);
        let bytes = value.bytes.get(..size).ok_or_else(|| malformed("a JSON document is cut short"))?;
        let entry = 1 + width + if is_object { width + 2 } else { 0 };
        if 2 * width + count.saturating_mul(entry) > size {
            return Err(malformed("a JSON document has more members than bytes"));
        }
        Ok(Some(Container { is_object, count, bytes, width }))
    }

    fn key(&self, at: usize) -> Result<&'a [u8]> {
        let mut entry = self.from(2 * self.width + at * (self.width + 2))?;
        let (offset, length) = (entry.uint(self.width)? as usize, entry.u16()?);
        self.from(offset)?.take(usize::from(length))
    }

    fn value(&self, at: usize) -> Result<Value<'a>> {
        let keys = if self.is_object { self.count * (self.width + 2) } else { 0 };
        let mut entry = self.from(2 * self.width + keys + at * (1 + self.width))?;
        let tag = entry.u8()?;
        let inlined = matches!(tag, tag::LITERAL | tag::INT16 | tag::UINT16)
            || (self.width == 4 && matches!(tag, tag::INT32 | tag::UINT32));
        if inlined {
            return Ok(Value { tag, bytes: entry.rest() });
        }
        let offset = entry.uint(self.width)? as usize;
        // A container inside of itself would never end.
        if offset < 2 * self.width {
            return Err(malformed("a JSON document holds itself"));
        }
        Ok(Value { tag, bytes: self.from(offset)?.rest() })
    }

    fn from(&self, offset: usize) -> Result<Cursor<'a>> {
        self.bytes.get(offset..).map(Cursor::new).ok_or_else(|| malformed("a JSON document is cut short"))
    }
}

fn write_scalar(value: Value<'_>, budget: &mut Budget, out: &mut Out) -> Result<()> {
    let mut cursor = Cursor::new(value.bytes);
    match value.tag {
        tag::LITERAL => out.extend_from_slice(match cursor.u8()? {
            0 => b"null",
            1 => b"true",
            2 => b"false",
            other => return Err(malformed(format!("a JSON document has the literal {other}"))),
        }),
        tag::INT16 => number::write_i64(i64::from(cursor.u16()? as i16), out),
        tag::UINT16 => number::write_u64(u64::from(cursor.u16()?), out),
        tag::INT32 => number::write_i64(i64::from(cursor.u32()? as i32), out),
        tag::UINT32 => number::write_u64(u64::from(cursor.u32()?), out),
        tag::INT64 => number::write_i64(cursor.u64()? as i64, out),
        tag::UINT64 => number::write_u64(cursor.u64()?, out),
        tag::DOUBLE => write_double(f64::from_le_bytes(cursor.array()?), out),
        tag::STRING => {
            let text = sized(&mut cursor)?;
            budget.spend(text.len())?;
            write_quoted(text, out)?;
        }
        tag::OPAQUE => {
            let kind = cursor.u8()?;
            let value = sized(&mut cursor)?;
            budget.spend(value.len())?;
            opaque::write(kind, value, out)?;
        }
        other => return Err(malformed(format!("a JSON document has a value of type {other}"))),
    }
    Ok(())
}

/// A whole number is printed with `.0`, so that it is read back as a double.
fn write_double(number: f64, out: &mut Out) {
    let start = out.len();
    number::write_double(number, out);
    if !out[start..].iter().any(|byte| matches!(byte, b'.' | b'e')) {
        out.extend_from_slice(b".0");
    }
}

/// Bytes with their length before them: 7 bits a byte, the lowest first, the highest bit set if more follow.
fn sized<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8]> {
    let mut length = 0u64;
    for at in 0..5 {
        let byte = cursor.u8()?;
        length |= u64::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return cursor.take_u64(length);
        }
    }
    Err(malformed("a length in a JSON document is malformed"))
}

/// A string with quotes and escapes (`double_quote` in `json_dom.cc`).
fn write_quoted(text: &[u8], out: &mut Out) -> Result<()> {
    if std::str::from_utf8(text).is_err() {
        return Err(malformed("a text in a JSON document is not UTF-8"));
    }
    out.extend_from_slice(b"\"");
    let mut plain = 0;
    for (at, byte) in text.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            0x08 => b"\\b",
            0x0C => b"\\f",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..0x20 => b"",
            _ => continue,
        };
        out.extend_from_slice(&text[plain..at]);
        plain = at + 1;
        if escape.is_empty() {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        } else {
            out.extend_from_slice(escape);
        }
    }
    out.extend_from_slice(&text[plain..]);
    out.extend_from_slice(b"\"");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    pub(super) fn text(document: &[u8]) -> Result<String> {
        let mut out = Out::new();
        write(document, &mut out)?;
        Ok(String::from_utf8(out.to_vec()).unwrap())
    }

    /// `{"a": "x\n", "b": [1, null]}` as the server stores it.
    pub(super) const DOCUMENT: &[u8] = &[
        0, 2, 0, 34, 0, 18, 0, 1, 0, 19, 0, 1, 0, 12, 20, 0, 2, 23, 0, b'a', b'b', 2, b'x', b'\n', 2, 0, 11, 0, 5, 1,
        0, 4, 0, 0, 0,
    ];

    #[test]
    fn a_document_is_printed_as_the_server_does() {
        assert_eq!(text(DOCUMENT).unwrap(), "{\"a\": \"x\\n\", \"b\": [1, null]}");
        assert_eq!(text(&[]).unwrap(), "null");
        assert_eq!(text(&[4, 1]).unwrap(), "true");
        assert_eq!(text(&[0xC, 4, 1, b'"', b'\\', 0x1F]).unwrap(), "\"\\u0001\\\"\\\\\\u001f\"");
        for (number, expected) in [(1.0f64, "1.0"), (1e20, "1e20"), (-0.5, "-0.5")] {
            let mut document = vec![0xB];
            document.extend_from_slice(&number.to_le_bytes());
            assert_eq!(text(&document).unwrap(), expected);
        }
    }

    #[test]
    fn a_document_cut_short_or_damaged_is_an_error() {
        for end in 1..DOCUMENT.len() {
            assert!(text(&DOCUMENT[..end]).is_err(), "cut at {end}");
        }
        // Every single damaged byte gives some text or an error, and ends.
        for at in 0..DOCUMENT.len() {
            for byte in 0..=255 {
                let mut damaged = DOCUMENT.to_vec();
                damaged[at] = byte;
                let _ = text(&damaged);
            }
        }
    }

    #[test]
    fn offsets_that_meet_do_not_multiply_the_text() {
        // Arrays of 50 entries that all point at the next array: 50^n elements.
        let (levels, fan) = (8usize, 50usize);
        let size = 4 + fan * 3;
        let mut document = vec![2];
        for level in 0..levels {
            let total = (levels - level) * size;
            document.extend_from_slice(&(fan as u16).to_le_bytes());
            document.extend_from_slice(&(total as u16).to_le_bytes());
            for _ in 0..fan {
                let last = level + 1 == levels;
                document.push(if last { 4 } else { 2 });
                document.extend_from_slice(&(if last { 0 } else { size as u16 }).to_le_bytes());
            }
        }
        assert!(text(&document).unwrap_err().why().contains("twice"));
    }
}
