//! A JSON document in one form: without blanks, keys in the order of their bytes, the last of equal keys, strings with
//! their lengths before them, numbers as digits and a power of ten.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

use super::decimal;

/// Deeper than any server keeps documents.
const DEEPEST: usize = 512;

/// Appends the form of a document; `None` if it is none.
pub(super) fn form(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let mut reader = Reader { rest: text.chars().peekable() };
    reader.value(out, 0)?;
    reader.blanks();
    reader.rest.next().is_none().then_some(())
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Reader<'_> {
    fn blanks(&mut self) {
        while self.rest.next_if(|c| matches!(c, ' ' | '\t' | '\n' | '\r')).is_some() {}
    }

    fn takes(&mut self, wanted: char) -> Option<()> {
        self.blanks();
        self.rest.next_if_eq(&wanted).map(drop)
    }

    fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        self.blanks();
        if depth > DEEPEST {
            return None;
        }
        match self.rest.peek()? {
            '{' => self.object(out, depth),
            '[' => self.array(out, depth),
            '"' => {
                put(&self.string()?, out);
                Some(())
            }
            't' | 'f' | 'n' => {
                let word = self.word(|c| c.is_ascii_lowercase());
                matches!(word.as_str(), "true" | "false" | "null").then(|| out.extend_from_slice(word.as_bytes()))
            }
            _ => decimal(&self.word(|c| matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E')), out),
        }
    }

    fn word(&mut self, of: impl Fn(&char) -> bool) -> String {
        std::iter::from_fn(|| self.rest.next_if(&of)).collect()
    }

    fn array(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        self.takes('[')?;
        out.push(b'[');
        if self.takes(']').is_none() {
            loop {
                self.value(out, depth + 1)?;
                out.push(b',');
                if self.takes(',').is_none() {
                    self.takes(']')?;
                    break;
                }
            }
        }
        out.push(b']');
        Some(())
    }

    fn object(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        self.takes('{')?;
        let mut members = BTreeMap::new();
        if self.takes('}').is_none() {
            loop {
                self.blanks();
                let key = self.string()?;
                self.takes(':')?;
                let mut value = Vec::new();
                self.value(&mut value, depth + 1)?;
                members.insert(key, value);
                if self.takes(',').is_none() {
                    self.takes('}')?;
                    break;
                }
            }
        }
        out.push(b'{');
        for (key, value) in members {
            put(&key, out);
            out.push(b':');
            out.extend_from_slice(&value);
            out.push(b',');
        }
        out.push(b'}');
        Some(())
    }

    fn string(&mut self) -> Option<String> {
        self.rest.next_if_eq(&'"')?;
        let mut text = String::new();
        loop {
            match self.rest.next()? {
                '"' => return Some(text),
                '\\' => text.push(self.escaped()?),
                c => text.push(c),
            }
        }
    }

    fn escaped(&mut self) -> Option<char> {
        Some(match self.rest.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let unit = self.unit()?;
                if !(0xd800..0xdc00).contains(&unit) {
                    return char::from_u32(unit);
                }
                // The first half of a character past the first 65536.
                (self.rest.next()? == '\\' && self.rest.next()? == 'u').then_some(())?;
                let low = self.unit()?.checked_sub(0xdc00)?;
                return char::from_u32(0x10000 + ((unit - 0xd800) << 10) + low);
            }
            c => c,
        })
    }

    fn unit(&mut self) -> Option<u32> {
        let digits: String = std::iter::from_fn(|| self.rest.next()).take(4).collect();
        u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 4)
    }
}

fn put(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("\"{}:", text.len()).as_bytes());
    out.extend_from_slice(text.as_bytes());
}
