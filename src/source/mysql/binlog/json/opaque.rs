//! Values that JSON does not know: decimals, dates, times, and bytes of any other type.

use super::super::cursor::{Cursor, malformed};
use super::super::number::{self, Out};
use super::super::table_map::column_type as t;
use super::super::temporal;
use crate::error::Result;

/// Appends the value of column type `kind`, as a number for DECIMAL and as a string for everything else.
pub(super) fn write(kind: u8, value: &[u8], out: &mut Out) -> Result<()> {
    let mut cursor = Cursor::new(value);
    match kind {
        // u8 precision, u8 scale, then the form of the rows (`json_decimal` in `json_dom.cc`).
        t::NEWDECIMAL => {
            let (precision, scale) = (cursor.u8()?, cursor.u8()?);
            number::write_decimal(&mut cursor, precision, scale, out)
        }
        t::DATE => quoted(out, |out| {
            temporal::write_date(&temporal::unpack_datetime(packed(&mut cursor)?.1 >> 24, 0), out);
            Ok(())
        }),
        t::DATETIME | t::TIMESTAMP => quoted(out, |out| {
            let (_, number) = packed(&mut cursor)?;
            temporal::write_datetime(&temporal::unpack_datetime(number >> 24, number & 0xFF_FFFF), 6, out);
            Ok(())
        }),
        t::TIME => quoted(out, |out| {
            let (negative, number) = packed(&mut cursor)?;
            temporal::write_time(negative, &temporal::unpack_time(number >> 24, number & 0xFF_FFFF), 6, out);
            Ok(())
        }),
        other => quoted(out, |out| {
            out.extend_from_slice(b"base64:type");
            number::write_u64(u64::from(other), out);
            out.extend_from_slice(b":");
            write_base64(value, out);
            Ok(())
        }),
    }
}

/// The packed form of `my_time.h` (`TIME_to_longlong_packed`): the parts above 24 bits of microseconds.
fn packed(cursor: &mut Cursor<'_>) -> Result<(bool, u64)> {
    let number = cursor.u64()? as i64;
    let magnitude = number.unsigned_abs();
    // 10000 years of 13 months.
    if magnitude >> 46 >= 130_000 {
        return Err(malformed("a date in a JSON document is out of range"));
    }
    Ok((number < 0, magnitude))
}

fn quoted(out: &mut Out, write: impl FnOnce(&mut Out) -> Result<()>) -> Result<()> {
    out.extend_from_slice(b"\"");
    write(out)?;
    out.extend_from_slice(b"\"");
    Ok(())
}

/// Base64 with a line break after every 76 characters, as `base64_encode` of the server writes it (`include/base64.h`),
/// which then stands in the string as an escape.
fn write_base64(bytes: &[u8], out: &mut Out) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut line = 0;
    for group in bytes.chunks(3) {
        if line == 76 {
            out.extend_from_slice(b"\\n");
            line = 0;
        }
        let number = (0..3).fold(0usize, |number, at| number << 8 | usize::from(*group.get(at).unwrap_or(&0)));
        let mut digits = [0, 1, 2, 3].map(|at| DIGITS[number >> (18 - 6 * at) & 63]);
        digits[group.len() + 1..].fill(b'=');
        out.extend_from_slice(&digits);
        line += 4;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn text(kind: u8, value: &[u8]) -> String {
        let mut out = Out::new();
        write(kind, value, &mut out).unwrap();
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn what_json_does_not_know_is_printed_as_text() {
        assert_eq!(text(t::NEWDECIMAL, &[4, 2, 0x80 + 12, 34]), "12.34");
        let packed =
            |ym: i64, day: i64, hms: i64, micros: i64| (((ym << 5 | day) << 17 | hms) << 24 | micros).to_le_bytes();
        let moment = packed(2015 * 13 + 1, 15, 23 << 12 | 24 << 6 | 25, 12);
        assert_eq!(text(t::DATETIME, &moment), "\"2015-01-15 23:24:25.000012\"");
        assert_eq!(text(t::DATE, &packed(2015 * 13 + 1, 15, 0, 0)), "\"2015-01-15\"");
        assert_eq!(text(t::TIME, &(-((1i64 << 12) << 24 | 5)).to_le_bytes()), "\"-01:00:00.000005\"");
        assert_eq!(text(t::VAR_STRING, b"ab"), "\"base64:type253:YWI=\"");
        assert!(write(t::DATETIME, &[0xFF; 3], &mut Out::new()).is_err());
        assert!(write(t::DATETIME, &i64::MIN.to_le_bytes(), &mut Out::new()).is_err());
        let long = text(t::BLOB, &[0; 60]);
        assert_eq!(long.find("\\n"), Some("\"base64:type252:".len() + 76));
    }
}
