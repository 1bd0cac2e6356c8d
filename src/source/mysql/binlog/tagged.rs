//! MySQL's serialization library, as far as the tagged GTID event uses it.
//!
//! Format: `libs/mysql/serialization/readme.md`. A message is a version byte, its length (counted from the version byte
//! on), the last field that may not be ignored, and then fields, each with its number before it. Numbers have 1 to 9
//! bytes, little-endian: the trailing ones of the first byte, plus one, are the bytes of the number.

use super::cursor::{Cursor, malformed};
use crate::error::Result;

/// Reads a message and gives each field to `read`, which knows the numbers up to `known`.
pub(super) fn read_message(
    message: &[u8],
    known: u64,
    mut read: impl FnMut(u64, &mut Cursor<'_>) -> Result<()>,
) -> Result<()> {
    let mut cursor = Cursor::new(message);
    let _version = unsigned(&mut cursor)?;
    let length = unsigned(&mut cursor)?;
    let consumed = message.len() - cursor.len();
    let fields = length.checked_sub(consumed as u64).ok_or_else(|| malformed("a tagged GTID event is cut short"))?;
    let mut cursor = Cursor::new(cursor.take_u64(fields)?);
    let needed = unsigned(&mut cursor)?;
    if needed > known {
        return Err(malformed(format!("a GTID event has a field ({needed}) that must be known and is not")));
    }
    while !cursor.is_empty() {
        let field = unsigned(&mut cursor)?;
        if field > known {
            // Its length is not known, and all after it may be ignored.
            break;
        }
        read(field, &mut cursor)?;
    }
    Ok(())
}

/// An unsigned number.
pub(super) fn unsigned(cursor: &mut Cursor<'_>) -> Result<u64> {
    let first = cursor.u8()?;
    let more = first.trailing_ones() as usize;
    if more == 8 {
        return cursor.u64();
    }
    let rest = cursor.uint(more)?;
    // What is left of the first byte holds the lowest bits; with seven ones nothing is left of it.
    let low = u64::from(first).checked_shr(more as u32 + 1).unwrap_or(0);
    Ok(low | rest << (7 - more))
}

/// A signed number: the sign in the lowest bit.
pub(super) fn signed(cursor: &mut Cursor<'_>) -> Result<i64> {
    let number = unsigned(cursor)?;
    let magnitude = (number >> 1) as i64;
    Ok(if number & 1 == 0 { magnitude } else { -magnitude - 1 })
}

/// Text with its length before it.
pub(super) fn text(cursor: &mut Cursor<'_>) -> Result<String> {
    let length = unsigned(cursor)?;
    String::from_utf8(cursor.take_u64(length)?.to_vec()).map_err(|_| malformed("a tag is not UTF-8"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn numbers_have_one_to_nine_bytes() {
        for (bytes, value) in [
            (&[0b0000_0010][..], 1),
            (&[0b1111_1110], 127),
            (&[0b1111_1011, 0xFF, 0x07], 65_535),
            (&[0x7F, 1, 0, 0, 0, 0, 0, 0x80], 0x80_0000_0000_0001),
            (&[0xFF, 1, 0, 0, 0, 0, 0, 0, 0x80], 0x8000_0000_0000_0001),
        ] {
            assert_eq!(unsigned(&mut Cursor::new(bytes)).unwrap(), value);
            for end in 0..bytes.len() {
                assert!(unsigned(&mut Cursor::new(&bytes[..end])).is_err());
            }
        }
        // The examples of the format's description.
        assert_eq!(signed(&mut Cursor::new(&[0b1111_0011, 0xFF, 0x0F])).unwrap(), 65_535);
        assert_eq!(signed(&mut Cursor::new(&[0b1111_1011, 0xFF, 0x0F])).unwrap(), -65_536);
        assert_eq!(signed(&mut Cursor::new(&[0xFF; 9])).unwrap(), i64::MIN);
    }

    #[test]
    fn a_field_that_must_be_known_stops_and_another_is_passed_over() {
        // Version 0, length 5, the last needed field is 1, field 1 = 10; each number shifted by its one trailing zero.
        let message = [0, 10, 2, 2, 20];
        let mut seen = Vec::new();
        read_message(&message, 1, |field, value| {
            seen.push((field, unsigned(value)?));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [(1, 10)]);
        assert!(read_message(&message, 0, |_, _| Ok(())).is_err());
        assert!(read_message(&message[..4], 1, |_, _| Ok(())).is_err());
    }
}
