//! Sets of one to four bytes a character, by `encoding_rs`, and what MySQL and MariaDB define otherwise.
//!
//! `encoding_rs` follows the web's encodings, which are wider (HKSCS in Big5, NEC's and IBM's characters in Shift_JIS and
//! EUC, the 2022 edition of GB18030) and take a few signs for others (the wave dash, the fullwidth backslash). The
//! servers' own tables differ from them in what `multi_byte.txt` lists, a set a line: `code=character`,
//! `from-to=character` for a run of both, `-` for codes that the servers do not define. It was made by asking both servers
//! for every code; they agree with each other. `cp932` and `euckr` do not differ.

use std::sync::LazyLock;

use encoding_rs::Encoding;

use super::{Out, Undecodable, push};

/// A multi-byte set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Multi {
    Big5,
    Cp932,
    Eucjpms,
    Euckr,
    Gb18030,
    Gb2312,
    Gbk,
    Sjis,
    Ujis,
}

const ALL: [Multi; 9] = [
    Multi::Big5,
    Multi::Cp932,
    Multi::Eucjpms,
    Multi::Euckr,
    Multi::Gb18030,
    Multi::Gb2312,
    Multi::Gbk,
    Multi::Sjis,
    Multi::Ujis,
];

/// Codes that are not the web's, in order: first, last, the first's character.
type Differences = Vec<(u32, u32, Option<u32>)>;

static DIFFERENCES: LazyLock<Vec<(&str, Differences)>> = LazyLock::new(|| {
    let hex = |text: &str| u32::from_str_radix(text, 16).ok();
    include_str!("multi_byte.txt")
        .lines()
        .map(|line| {
            let (name, runs) = line.split_once(' ').unwrap_or((line, ""));
            let runs = runs.split(' ').filter_map(|run| {
                let (codes, character) = run.split_once('=')?;
                let (first, last) = codes.split_once('-').unwrap_or((codes, codes));
                Some((hex(first)?, hex(last)?, hex(character)))
            });
            (name, runs.collect())
        })
        .collect()
});

impl Multi {
    fn differences(self) -> &'static [(u32, u32, Option<u32>)] {
        let name = self.name();
        DIFFERENCES.iter().find(|(set, _)| *set == name).map(|(_, runs)| runs.as_slice()).unwrap_or_default()
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|multi| multi.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Multi::Big5 => "big5",
            Multi::Cp932 => "cp932",
            Multi::Eucjpms => "eucjpms",
            Multi::Euckr => "euckr",
            Multi::Gb18030 => "gb18030",
            Multi::Gb2312 => "gb2312",
            Multi::Gbk => "gbk",
            Multi::Sjis => "sjis",
            Multi::Ujis => "ujis",
        }
    }

    fn encoding(self) -> &'static Encoding {
        match self {
            Multi::Big5 => encoding_rs::BIG5,
            Multi::Cp932 | Multi::Sjis => encoding_rs::SHIFT_JIS,
            Multi::Eucjpms | Multi::Ujis => encoding_rs::EUC_JP,
            Multi::Euckr => encoding_rs::EUC_KR,
            Multi::Gb18030 => encoding_rs::GB18030,
            Multi::Gb2312 | Multi::Gbk => encoding_rs::GBK,
        }
    }

    pub(super) fn decode(self, text: &[u8], out: &mut Out) -> Result<(), Undecodable> {
        let differences = self.differences();
        let mut rest = text;
        while !rest.is_empty() {
            let ascii = rest.iter().position(|byte| !byte.is_ascii()).unwrap_or(rest.len());
            out.extend_from_slice(&rest[..ascii]);
            rest = &rest[ascii..];
            if rest.is_empty() {
                break;
            }
            let at = text.len() - rest.len();
            let length = self.length(rest).filter(|length| *length <= rest.len()).ok_or(Undecodable { at })?;
            let (character, after) = rest.split_at(length);
            let code = character.iter().fold(0, |code, byte| code << 8 | u32::from(*byte));
            let run = differences.partition_point(|(_, last, _)| *last < code);
            if let Some((first, _, to)) = differences.get(run).filter(|(first, _, _)| *first <= code) {
                let to = to.and_then(|to| char::from_u32(to + code - first)).ok_or(Undecodable { at })?;
                push(to, out);
                rest = after;
                continue;
            }
            match self.encoding().decode_without_bom_handling_and_without_replacement(character) {
                Some(decoded) => decoded.chars().for_each(|character| push(character, out)),
                None => return Err(Undecodable { at }),
            }
            rest = after;
        }
        Ok(())
    }

    /// Bytes of the character that begins here, which is not ASCII.
    fn length(self, text: &[u8]) -> Option<usize> {
        let first = *text.first()?;
        Some(match self {
            Multi::Cp932 | Multi::Sjis if matches!(first, 0xA1..=0xDF) => 1,
            Multi::Eucjpms | Multi::Ujis if first == 0x8F => 3,
            Multi::Gb18030 if text.get(1)?.is_ascii_digit() => 4,
            _ => 2,
        })
    }
}
