//! Sets with one byte a character.

use std::sync::LazyLock;

use super::{Out, Undecodable, push};

/// One of [`NAMES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Single(u8);

/// In the order of `single_byte.txt`; `swe7` has no table, it is ASCII with other letters in the place of brackets.
const NAMES: [&str; 24] = [
    "armscii8", "cp1250", "cp1251", "cp1256", "cp1257", "cp850", "cp852", "cp866", "dec8", "geostd8", "greek",
    "hebrew", "hp8", "keybcs2", "koi8r", "koi8u", "latin1", "latin2", "latin5", "latin7", "macce", "macroman",
    "tis620", "swe7",
];
const SWE7: Single = Single(23);

/// Stands for a byte that the set does not define.
const UNDEFINED: u16 = 0xFFFF;

/// The characters of 0x80 to 0xFF, a set each.
static TABLES: LazyLock<Vec<[u16; 128]>> = LazyLock::new(|| {
    include_str!("single_byte.txt")
        .lines()
        .map(|line| {
            let mut table = [UNDEFINED; 128];
            let characters = line.split(' ').skip(1).map(|hex| u16::from_str_radix(hex, 16).unwrap_or(UNDEFINED));
            table.iter_mut().zip(characters).for_each(|(slot, character)| *slot = character);
            table
        })
        .collect()
});

impl Single {
    pub(super) fn named(name: &str) -> Option<Self> {
        NAMES.iter().position(|known| *known == name).map(|at| Single(at as u8))
    }

    pub(super) fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }

    pub(super) fn of_collation(number: u32) -> Option<Self> {
        Self::named(match number {
            32 | 64 => "armscii8",
            26 | 34 | 44 | 66 | 99 => "cp1250",
            14 | 23 | 50..=52 => "cp1251",
            57 | 67 => "cp1256",
            29 | 58 | 59 => "cp1257",
            4 | 80 => "cp850",
            40 | 81 => "cp852",
            36 | 68 => "cp866",
            3 | 69 => "dec8",
            92 | 93 => "geostd8",
            25 | 70 => "greek",
            16 | 71 => "hebrew",
            6 | 72 => "hp8",
            37 | 73 => "keybcs2",
            7 | 74 => "koi8r",
            22 | 75 => "koi8u",
            5 | 8 | 15 | 31 | 47..=49 | 94 => "latin1",
            2 | 9 | 21 | 27 | 77 => "latin2",
            30 | 78 => "latin5",
            20 | 41 | 42 | 79 => "latin7",
            38 | 43 => "macce",
            39 | 53 => "macroman",
            10 | 82 => "swe7",
            18 | 89 => "tis620",
            _ => return None,
        })
    }

    pub(super) fn decode(self, text: &[u8], out: &mut Out) -> Result<(), Undecodable> {
        if self == SWE7 {
            return swe7(text, out);
        }
        let table = &TABLES[usize::from(self.0)];
        let mut rest = text;
        while !rest.is_empty() {
            let ascii = rest.iter().position(|byte| !byte.is_ascii()).unwrap_or(rest.len());
            out.extend_from_slice(&rest[..ascii]);
            rest = &rest[ascii..];
            if let Some((byte, after)) = rest.split_first() {
                match char::from_u32(u32::from(table[usize::from(byte & 0x7F)])) {
                    Some(character) if character != '\u{FFFF}' => push(character, out),
                    _ => return Err(Undecodable { at: text.len() - rest.len() }),
                }
                rest = after;
            }
        }
        Ok(())
    }
}

fn swe7(text: &[u8], out: &mut Out) -> Result<(), Undecodable> {
    for (at, byte) in text.iter().enumerate() {
        push(
            match byte {
                b'@' => 'É',
                b'[' => 'Ä',
                b'\\' => 'Ö',
                b']' => 'Å',
                b'^' => 'Ü',
                b'`' => 'é',
                b'{' => 'ä',
                b'|' => 'ö',
                b'}' => 'å',
                b'~' => 'ü',
                0x7F.. => return Err(Undecodable { at }),
                plain => char::from(*plain),
            },
            out,
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_has_its_table() {
        for (table, line) in NAMES[..23].iter().zip(include_str!("single_byte.txt").lines()) {
            assert_eq!(line.split(' ').next(), Some(*table));
            assert_eq!(line.split(' ').count(), 129);
        }
        assert_eq!((TABLES.len(), SWE7.name()), (23, "swe7"));
    }
}
