//! Sets of two and four bytes a character (`strings/ctype-ucs2.cc`).

use super::{Out, Undecodable, push};

/// UTF-16 without pairs, big-endian. Halves of pairs are no characters.
pub(super) fn ucs2(text: &[u8], out: &mut Out) -> Result<(), Undecodable> {
    let (units, rest) = text.as_chunks::<2>();
    for (at, unit) in units.iter().enumerate() {
        let character = char::from_u32(u16::from_be_bytes(*unit).into()).ok_or(Undecodable { at: at * 2 })?;
        push(character, out);
    }
    whole(text, rest)
}

/// UTF-16 in either order.
pub(super) fn utf16(text: &[u8], order: fn([u8; 2]) -> u16, out: &mut Out) -> Result<(), Undecodable> {
    let (units, rest) = text.as_chunks::<2>();
    let mut at = 0;
    for character in char::decode_utf16(units.iter().map(|unit| order(*unit))) {
        let character = character.map_err(|_| Undecodable { at })?;
        at += character.len_utf16() * 2;
        push(character, out);
    }
    whole(text, rest)
}

/// UTF-32, big-endian.
pub(super) fn utf32(text: &[u8], out: &mut Out) -> Result<(), Undecodable> {
    let (units, rest) = text.as_chunks::<4>();
    for (at, unit) in units.iter().enumerate() {
        push(char::from_u32(u32::from_be_bytes(*unit)).ok_or(Undecodable { at: at * 4 })?, out);
    }
    whole(text, rest)
}

fn whole(text: &[u8], rest: &[u8]) -> Result<(), Undecodable> {
    if rest.is_empty() { Ok(()) } else { Err(Undecodable { at: text.len() - rest.len() }) }
}
