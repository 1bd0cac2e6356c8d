//! Text of every character set of MySQL and MariaDB, into UTF-8.
//!
//! In flow the bytes of a value and the set of its column; out flows UTF-8, the same that the server prints with
//! `character_set_results = utf8mb4`. A byte sequence that the set does not define is an error ([`Undecodable`]) where
//! the server would print `?`: what becomes of it is for the caller to decide, nothing is replaced here.
//!
//! Numbers of collations: `information_schema.collations` of MySQL 9.7 and MariaDB 10.11. The single-byte tables
//! (`single_byte.txt`) are what both servers print for each byte; the multi-byte sets are decoded by `encoding_rs`, with
//! the differences listed in [`multi`].

mod multi;
mod single;
mod wide;

use super::number::Out;
use multi::Multi;
use single::Single;

/// A character set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Charset(Set);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Set {
    Binary,
    Ascii,
    Utf8mb3,
    Utf8mb4,
    Ucs2,
    Utf16,
    Utf16le,
    Utf32,
    Single(Single),
    Multi(Multi),
}

/// A value holds bytes that its character set does not define.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undecodable {
    /// Where in the value the first of them stands.
    pub at: usize,
}

#[allow(non_upper_case_globals, reason = "they read as the variants that they stand for")]
impl Charset {
    /// No text but bytes.
    pub const Binary: Charset = Charset(Set::Binary);
    /// `utf8mb4`
    pub const Utf8mb4: Charset = Charset(Set::Utf8mb4);

    /// The set of a collation's number, as table maps and result sets name it.
    pub fn of_collation(number: u32) -> Option<Charset> {
        Some(Charset(match number {
            63 => Set::Binary,
            11 | 65 => Set::Ascii,
            33 | 76 | 83 | 192..=223 | 576..=607 | 2048..=2303 => Set::Utf8mb3,
            45 | 46 | 224..=247 | 255..=323 | 608..=639 | 2304..=2559 => Set::Utf8mb4,
            35 | 90 | 128..=159 | 640..=671 | 2560..=2815 => Set::Ucs2,
            54 | 55 | 101..=124 | 672..=703 | 2816..=3071 => Set::Utf16,
            56 | 62 => Set::Utf16le,
            60 | 61 | 160..=191 | 736..=767 | 3072..=3327 => Set::Utf32,
            1 | 84 => Set::Multi(Multi::Big5),
            95 | 96 => Set::Multi(Multi::Cp932),
            97 | 98 => Set::Multi(Multi::Eucjpms),
            19 | 85 => Set::Multi(Multi::Euckr),
            248..=250 => Set::Multi(Multi::Gb18030),
            24 | 86 => Set::Multi(Multi::Gb2312),
            28 | 87 => Set::Multi(Multi::Gbk),
            13 | 88 => Set::Multi(Multi::Sjis),
            12 | 91 => Set::Multi(Multi::Ujis),
            // MariaDB's collations without padding: 1024 more than those that they are made from.
            1025..=2047 => return Self::of_collation(number - 1024),
            number => Set::Single(Single::of_collation(number)?),
        }))
    }

    /// The set of this name, as `information_schema.columns.character_set_name` has it.
    pub fn named(name: &str) -> Option<Charset> {
        Some(Charset(match name {
            "binary" => Set::Binary,
            "ascii" => Set::Ascii,
            "utf8" | "utf8mb3" => Set::Utf8mb3,
            "utf8mb4" => Set::Utf8mb4,
            "ucs2" => Set::Ucs2,
            "utf16" => Set::Utf16,
            "utf16le" => Set::Utf16le,
            "utf32" => Set::Utf32,
            name => match Multi::named(name) {
                Some(multi) => Set::Multi(multi),
                None => Set::Single(Single::named(name)?),
            },
        }))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Binary => "binary",
            Set::Ascii => "ascii",
            Set::Utf8mb3 => "utf8mb3",
            Set::Utf8mb4 => "utf8mb4",
            Set::Ucs2 => "ucs2",
            Set::Utf16 => "utf16",
            Set::Utf16le => "utf16le",
            Set::Utf32 => "utf32",
            Set::Single(single) => single.name(),
            Set::Multi(multi) => multi.name(),
        }
    }

    /// Appends `text` in UTF-8. On an error `out` may hold a part of it, which the caller takes back.
    #[inline]
    pub fn decode(self, text: &[u8], out: &mut Out) -> Result<(), Undecodable> {
        match self.0 {
            Set::Utf8mb4 | Set::Utf8mb3 => match std::str::from_utf8(text) {
                Ok(_) => {
                    out.extend_from_slice(text);
                    Ok(())
                }
                Err(error) => Err(Undecodable { at: error.valid_up_to() }),
            },
            Set::Binary => {
                out.extend_from_slice(text);
                Ok(())
            }
            Set::Ascii => match text.iter().position(|byte| !byte.is_ascii()) {
                None => {
                    out.extend_from_slice(text);
                    Ok(())
                }
                Some(at) => Err(Undecodable { at }),
            },
            Set::Ucs2 => wide::ucs2(text, out),
            Set::Utf16 => wide::utf16(text, u16::from_be_bytes, out),
            Set::Utf16le => wide::utf16(text, u16::from_le_bytes, out),
            Set::Utf32 => wide::utf32(text, out),
            Set::Single(single) => single.decode(text, out),
            Set::Multi(multi) => multi.decode(text, out),
        }
    }
}

fn push(character: char, out: &mut Out) {
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn text(set: &str, bytes: &[u8]) -> Result<String, usize> {
        let mut out = Out::new();
        let set = Charset::named(set).unwrap();
        set.decode(bytes, &mut out).map_err(|error| error.at)?;
        Ok(String::from_utf8(out.to_vec()).unwrap())
    }

    #[test]
    fn text_of_every_kind_of_set_becomes_utf8() {
        for (set, bytes, expected) in [
            ("latin1", &b"caf\xE9 \x80"[..], "café €"),
            ("latin1", b"\x81", "\u{81}"),
            ("cp1251", b"\xCF\xF0\xE8", "При"),
            ("swe7", b"[}", "Äå"),
            ("koi8r", b"\xF0\xD2\xC9", "При"),
            ("ucs2", b"\0a\x20\xAC", "a€"),
            ("utf16", b"\xD8\x3D\xDE\x00", "😀"),
            ("utf16le", b"\x3D\xD8\x00\xDE", "😀"),
            ("utf32", b"\0\x01\xF6\x00", "😀"),
            ("gbk", b"\xC4\xE3\xBA\xC3", "你好"),
            ("big5", b"\xA7\x41\xA6\x6E", "你好"),
            ("euckr", b"\xB0\xA1", "가"),
            ("gb18030", b"\x81\x30\x81\x30", "\u{80}"),
            ("ujis", b"\xA4\xA2", "あ"),
            ("eucjpms", b"\x8F\xB0\xA1", "丂"),
            ("sjis", b"\x82\xA0\\\xB1", "あ\\ｱ"),
            ("cp932", b"\x87\x40\x81\x60", "①～"),
            ("sjis", b"\x81\x60\x81\x5F", "〜\\"),
            ("ujis", b"\xF5\xA1", "\u{E000}"),
            ("utf8mb4", "😀".as_bytes(), "😀"),
            ("ascii", b"plain", "plain"),
        ] {
            assert_eq!(text(set, bytes).as_deref(), Ok(expected), "{set}");
        }
    }

    #[test]
    fn bytes_that_a_set_does_not_define_are_found_and_not_replaced() {
        for (set, bytes, at) in [
            ("ascii", &b"ab\x80"[..], 2),
            ("utf8mb4", b"a\xFF", 1),
            ("cp1251", b"a\x98", 1),
            ("swe7", b"aa\x80", 2),
            ("ucs2", b"\0a\xD8\0", 2),
            ("ucs2", b"\0aa", 2),
            ("utf16", b"\xD8\x3D\0a", 0),
            ("utf16", b"\xDE\x00", 0),
            ("utf32", b"\0\x11\0\0", 0),
            ("utf32", b"\0\0\0a\0", 4),
            ("gbk", b"a\x81", 1),
            ("sjis", b"a\x87\x40", 1),
            ("big5", b"\x87\x40", 0),
        ] {
            assert_eq!(text(set, bytes), Err(at), "{set}");
        }
    }

    #[test]
    fn collations_belong_to_their_set() {
        for (number, name) in [
            (8, "latin1"),
            (1032, "latin1"),
            (45, "utf8mb4"),
            (255, "utf8mb4"),
            (2304, "utf8mb4"),
            (1270, "utf8mb4"),
            (63, "binary"),
            (28, "gbk"),
            (1111, "gbk"),
            (1206, "utf32"),
            (2247, "utf8mb3"),
        ] {
            assert_eq!(Charset::of_collation(number).unwrap().name(), name, "{number}");
        }
        for number in [0, 100, 400, 1024, 5000] {
            assert_eq!(Charset::of_collation(number), None, "{number}");
        }
    }
}
