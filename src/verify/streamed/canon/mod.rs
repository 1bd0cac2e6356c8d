//! One form of a value, whichever end it came from.
//!
//! In: the text (or the bytes) of a value at one of the ends. Out: bytes that are the same at both ends exactly if the
//! values are. For most types that is what the value is anyway: what is written at the target is the text that the target
//! prints (`transform::convert`). Compared by value and not by bytes:
//!
//! | type | why | form |
//! |---|---|---|
//! | floats | how many digits are printed depends on the server's version | the number's bits; there is one zero |
//! | `numeric`, `decimal` | the target's column may have more digits after the point | digits without zeros at the ends |
//! | JSON | blanks, the order of keys, `1e2` and `100` | keys in order, the last of equal ones; numbers as above |
//! | `uuid` from a text | upper case, braces | hex |
//! | `inet` from a text | `2001:DB8::0` | the address |
//! | PostGIS | the case of hex | lower case |

mod json;

use std::net::IpAddr;

use crate::schema::mapping::PgType;
use crate::schema::{ColumnType, MySqlKind};

/// The form of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Canon {
    Bytes,
    Single,
    Double,
    /// `{1,0.1}`
    Singles,
    Decimal,
    Json,
    Uuid,
    Inet,
    Lower,
    /// `t`, or `true` as a cast gives it.
    Truth,
}

impl Canon {
    /// For a column of these types at the source and at the target.
    pub(super) fn of(source: &ColumnType, there: &ColumnType) -> Canon {
        let kind = source.mysql.as_deref().map(|ty| ty.kind);
        if let Some(there) = there.mysql.as_deref() {
            return Canon::between_mysql(kind.unwrap_or(MySqlKind::Other), there.kind);
        }
        let display = there.display.rsplit('.').next().unwrap_or_default();
        match PgType::parse(display) {
            Some(PgType::Real) => Canon::Single,
            Some(PgType::Double) => Canon::Double,
            Some(PgType::RealArray) => Canon::Singles,
            Some(PgType::Numeric(_)) => Canon::Decimal,
            Some(PgType::JsonB) => Canon::Json,
            // What was a text stays that text.
            Some(PgType::Json) if kind == Some(MySqlKind::Json) => Canon::Json,
            Some(PgType::Uuid) => Canon::Uuid,
            Some(PgType::Inet) => Canon::Inet,
            Some(PgType::Geometry) => Canon::Lower,
            Some(PgType::Boolean) => Canon::Truth,
            _ => Canon::Bytes,
        }
    }

    fn between_mysql(source: MySqlKind, there: MySqlKind) -> Canon {
        use MySqlKind as K;
        match (source, there) {
            (K::Json, _) | (_, K::Json) => Canon::Json,
            (K::Float | K::Double, _) | (_, K::Float | K::Double) => Canon::Double,
            (K::Decimal, _) | (_, K::Decimal) => Canon::Decimal,
            (K::Uuid, _) | (_, K::Uuid) => Canon::Uuid,
            (K::Inet4 | K::Inet6, _) | (_, K::Inet4 | K::Inet6) => Canon::Inet,
            _ => Canon::Bytes,
        }
    }

    /// The form of a value: itself, or what it writes into `out`. What cannot be read as what it should be stays as it is.
    pub(super) fn form<'a>(self, value: &'a [u8], out: &'a mut Vec<u8>) -> &'a [u8] {
        out.clear();
        let text = std::str::from_utf8(value).unwrap_or_default();
        let written = match self {
            Canon::Bytes => None,
            Canon::Single => single(text, out),
            Canon::Double => text.parse::<f64>().ok().map(|number| {
                // Both zeros are one number.
                out.extend_from_slice(&if number == 0.0 { 0.0 } else { number }.to_bits().to_be_bytes());
            }),
            Canon::Singles => text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).and_then(|list| {
                list.split(',').filter(|text| !text.is_empty()).try_for_each(|text| single(text, out))
            }),
            Canon::Decimal => decimal(text, out),
            Canon::Json => json::form(text, out),
            Canon::Uuid => {
                out.extend(value.iter().filter(|byte| !matches!(byte, b'-' | b'{' | b'}')).map(u8::to_ascii_lowercase));
                Some(())
            }
            Canon::Inet => {
                let (address, bits) = text.split_once('/').unwrap_or((text, ""));
                address.parse::<IpAddr>().ok().map(|address| {
                    let whole = if address.is_ipv4() { "32" } else { "128" };
                    let bits = if bits.is_empty() { whole } else { bits };
                    out.extend_from_slice(format!("{address}/{bits}").as_bytes());
                })
            }
            Canon::Truth => value.first().map(|first| out.push(*first)),
            Canon::Lower => {
                out.extend(value.iter().map(u8::to_ascii_lowercase));
                Some(())
            }
        };
        if written.is_some() { out } else { value }
    }
}

fn single(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let number = text.trim().parse::<f32>().ok()?;
    out.extend_from_slice(&if number == 0.0 { 0.0 } else { number }.to_bits().to_be_bytes());
    Some(())
}

/// A decimal number as `-123e-2`: digits without zeros at the ends, and the power of ten that they are to be taken by.
fn decimal(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut power = exponent.parse::<i64>().ok()?.checked_sub(fraction.len() as i64)?;
    if whole.is_empty() && fraction.is_empty() || !(whole.bytes().chain(fraction.bytes())).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let start = out.len();
    if negative {
        out.push(b'-');
    }
    let digits = out.len();
    out.extend(whole.bytes().chain(fraction.bytes()).skip_while(|digit| *digit == b'0'));
    while out.len() > digits && out.last() == Some(&b'0') {
        out.pop();
        power += 1;
    }
    if out.len() == digits {
        out.truncate(start);
        out.push(b'0');
    } else {
        out.extend_from_slice(format!("e{power}").as_bytes());
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(canon: Canon, text: &str) -> Vec<u8> {
        canon.form(text.as_bytes(), &mut Vec::new()).to_vec()
    }

    fn check(canon: Canon, same: &[(&str, &str)], different: &[(&str, &str)]) {
        for (a, b) in same {
            assert_eq!(form(canon, a), form(canon, b), "{canon:?}: {a} and {b}");
        }
        for (a, b) in different {
            assert_ne!(form(canon, a), form(canon, b), "{canon:?}: {a} and {b}");
        }
    }

    #[test]
    fn floats_are_the_same_number() {
        let same = [("1.1", "1.10000002"), ("0", "-0"), ("1e+07", "10000000"), ("NaN", "NaN")];
        check(Canon::Single, &same, &[("1.1", "1.1000003"), ("1", "-1")]);
        check(Canon::Double, &[("0.1", "0.10000000000000001"), ("1e15", "1e+15")], &[("0.1", "0.10000000000000002")]);
        check(Canon::Singles, &[("{1,0.1}", "{1,0.100000001}")], &[("{1,0.1}", "{0.1,1}"), ("{1}", "{1,1}")]);
    }

    #[test]
    fn decimals_are_the_same_digits() {
        let same = [("1.50", "1.5000"), ("0.00", "-0"), ("0100", "1e2"), ("-0.010", "-1e-2"), (".5", "0.5")];
        let digits = "99999999999999999999999999999999999.999999999999999999999999999999";
        check(
            Canon::Decimal,
            &same,
            &[("1.5", "-1.5"), ("10", "1"), (digits, &digits.replace("9.9", "9.8")), ("", "0")],
        );
    }

    #[test]
    fn texts_of_addresses_and_identifiers_are_the_same_value() {
        check(Canon::Uuid, &[("0B1E7A5C-1D2F", "{0b1e7a5c-1d2f}")], &[("0b", "0c")]);
        let same = [("2001:DB8::0", "2001:db8::"), ("10.0.0.1", "10.0.0.1/32")];
        check(Canon::Inet, &same, &[("10.0.0.1/24", "10.0.0.1"), ("::1", "::2")]);
        check(Canon::Lower, &[("0101AF", "0101af")], &[("01", "02")]);
        check(Canon::Bytes, &[("a", "a")], &[("a", "A"), ("a", "a "), ("", " ")]);
    }

    #[test]
    fn json_is_the_same_document() {
        let same = [
            (r#"{"b": 1, "a": [1, 2.50, null]}"#, r#"{"a":[1,2.5,null],"b":1}"#),
            (r#"{"a": 1, "a": 2}"#, r#"{"a": 2}"#),
            ("1e3", "1000"),
            (r#""\u00e4\ud83d\ude00\/""#, r#""ä😀/""#),
            ("true", " true "),
            ("{}", "{ }"),
        ];
        let different = [
            ("[1, 2]", "[2, 1]"),
            (r#"{"a": 1}"#, r#"{"a": "1"}"#),
            (r#"["ab"]"#, r#"["a", "b"]"#),
            (r#"["a"]"#, r#"[["a"]]"#),
            ("[]", "{}"),
            ("null", r#""null""#),
            (r#"{"a": 18446744073709551615}"#, r#"{"a": 18446744073709551614}"#),
            (r#"{"a": {"b": 1}}"#, r#"{"a": {}, "b": 1}"#),
            ("{", "["),
        ];
        check(Canon::Json, &same, &different);
    }
}
