//! Values as SQL literals, exact whatever the column is.
//!
//! In: a value in the canonical form of a row, and the column it is for. Out: its literal, right in a session as
//! [`crate::mysql::connect_as`] makes it (utf8mb4, backslashes escape). Literals are sent because statements of many rows
//! have more values than a prepared statement may have placeholders (65,535), and because the server reads them faster
//! than it binds them.
//!
//! | value | literal | why |
//! |---|---|---|
//! | integers | bare | compared as integers, so that the key's index is used |
//! | float, double | bare, with an exponent | without one it would be a decimal first |
//! | bit | the number | bytes would be compared as text |
//! | bytes, geometry, vector | `_binary'…'` | no character set reads them |
//! | the rest | `'…'` | the column's own reading of a text is exact; decimals in a set would be cut to 65 digits in common |

use crate::change::Datum;
use crate::schema::{MySqlKind, MySqlType};

/// Appends the literal of a value for a column of this type.
pub(super) fn push(out: &mut Vec<u8>, ty: &MySqlType, datum: Datum<'_>) {
    match datum {
        Datum::Null | Datum::Unchanged => out.extend_from_slice(b"NULL"),
        Datum::Binary(bytes) if ty.kind == MySqlKind::Bit && bytes.len() <= 8 => {
            let number = bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
            out.extend_from_slice(number.to_string().as_bytes());
        }
        Datum::Binary(bytes) => {
            out.extend_from_slice(b"_binary");
            quoted(out, bytes);
        }
        Datum::Text(text) if ty.is_integer() && is_integer(text) => out.extend_from_slice(text),
        Datum::Text(text) if matches!(ty.kind, MySqlKind::Float | MySqlKind::Double) && is_number(text) => {
            out.extend_from_slice(text);
            if !text.iter().any(|byte| matches!(byte, b'e' | b'E')) {
                out.extend_from_slice(b"e0");
            }
        }
        Datum::Text(text) => quoted(out, text),
    }
}

/// Appends a text between quotes.
pub(super) fn quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.reserve(text.len() + 2);
    out.push(b'\'');
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\'' | b'\\' | 0)) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(if rest[at] == 0 {
            b"\\0"
        } else if rest[at] == b'\'' {
            b"\\'"
        } else {
            b"\\\\"
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'\'');
}

fn is_integer(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    // More digits than any integer has would be a decimal.
    !digits.is_empty() && digits.len() <= 20 && digits.iter().all(u8::is_ascii_digit)
}

fn is_number(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    digits.first().is_some_and(u8::is_ascii_digit)
        && digits.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(column_type: &str, datum: Datum<'_>) -> String {
        let mut out = Vec::new();
        push(&mut out, &MySqlType::parse(column_type), datum);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn a_literal_means_the_value_and_nothing_else() {
        let text = |value: &'static str| Datum::Text(value.as_bytes());
        assert_eq!(literal("bigint", text("-9223372036854775808")), "-9223372036854775808");
        assert_eq!(literal("bigint", text("1; DROP TABLE t")), "'1; DROP TABLE t'");
        assert_eq!(literal("double", text("0.1")), "0.1e0");
        assert_eq!(literal("double", text("-1.7e308")), "-1.7e308");
        assert_eq!(literal("decimal(5,2)", text("1.50")), "'1.50'");
        assert_eq!(literal("bit(9)", Datum::Binary(&[1, 2])), "258");
        assert_eq!(literal("blob", Datum::Binary(b"a'\\\0\xff")), "_binary'a\\'\\\\\\0\u{fffd}'");
        assert_eq!(literal("text", text("it's \\ \n")), "'it\\'s \\\\ \n'");
        assert_eq!(literal("year", text("0000")), "'0000'");
        assert_eq!(literal("text", Datum::Null), "NULL");
    }
}
