//! Numbers as the server's text protocol prints them, written without an allocation.

use super::cursor::{Cursor, malformed};
use crate::error::Result;

/// Where values are written: the row's own buffer, or a scratch one.
pub(super) type Out = bytes::BytesMut;

const PAIRS: &[u8; 200] =
    b"0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849\
5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";

/// A number without sign.
#[inline]
pub(super) fn write_u64(mut number: u64, out: &mut Out) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    while number >= 100 {
        let pair = (number % 100) as usize * 2;
        number /= 100;
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    }
    if number >= 10 {
        let pair = number as usize * 2;
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    } else {
        at -= 1;
        digits[at] = b'0' + number as u8;
    }
    out.extend_from_slice(&digits[at..]);
}

/// A number with sign.
#[inline]
pub(super) fn write_i64(number: i64, out: &mut Out) {
    if number < 0 {
        out.extend_from_slice(b"-");
    }
    write_u64(number.unsigned_abs(), out);
}

/// A number with exactly `width` digits (at most 20), zeros before it.
#[inline]
pub(super) fn write_padded(mut number: u64, width: usize, out: &mut Out) {
    let mut digits = [b'0'; 20];
    for digit in digits[..width].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits[..width]);
}

/// A double in its shortest form that reads back the same, laid out as `my_gcvt` does (`strings/dtoa.cc`): plain from
/// 1e-15 on and up to 1e15, or as long as there are digits behind the point; with an exponent otherwise.
pub(super) fn write_double(number: f64, out: &mut Out) {
    use std::io::Write;
    let mut text = [0u8; 32];
    let mut rest = &mut text[..];
    // 17 digits, point, sign and exponent are 25 bytes.
    let _ = write!(rest, "{:e}", number.abs());
    let left = rest.len();
    let written = &text[..32 - left];
    let Some(e) = written.iter().position(|byte| *byte == b'e') else {
        // No server stores what is no number (`Field_double::store`).
        out.extend_from_slice(written);
        return;
    };
    let mut digits = [0u8; 24];
    let mut count = 0;
    for digit in written[..e].iter().filter(|byte| byte.is_ascii_digit()) {
        digits[count] = *digit;
        count += 1;
    }
    let digits = &digits[..count];
    let exponent = std::str::from_utf8(&written[e + 1..]).ok().and_then(|text| text.parse::<i32>().ok()).unwrap_or(0);
    if number.is_sign_negative() {
        out.extend_from_slice(b"-");
    }
    // Digits before the point.
    let point = exponent + 1;
    if point < -14 || (point > 15 && count as i32 <= point) {
        out.extend_from_slice(&digits[..1]);
        if count > 1 {
            out.extend_from_slice(b".");
            out.extend_from_slice(&digits[1..]);
        }
        out.extend_from_slice(b"e");
        write_i64(i64::from(exponent), out);
    } else if point <= 0 {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + (-point) as usize, b'0');
        out.extend_from_slice(digits);
    } else if (point as usize) < count {
        out.extend_from_slice(&digits[..point as usize]);
        out.extend_from_slice(b".");
        out.extend_from_slice(&digits[point as usize..]);
    } else {
        out.extend_from_slice(digits);
        out.resize(out.len() + point as usize - count, b'0');
    }
}

/// Bytes that 0 to 9 decimal digits take.
const DIGIT_BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

/// Bytes of a DECIMAL in the log (`decimal_bin_size` in `strings/decimal.cc`). A column has up to 65 digits; a number in a
/// JSON document up to the 81 that the server computes with (`DECIMAL_BUFF_LENGTH`).
pub(super) fn decimal_size(precision: u8, scale: u8) -> Option<usize> {
    let (whole, scale) = (usize::from(precision.checked_sub(scale)?), usize::from(scale));
    (precision <= 81).then(|| whole / 9 * 4 + DIGIT_BYTES[whole % 9] + scale / 9 * 4 + DIGIT_BYTES[scale % 9])
}

/// A DECIMAL (`bin2decimal` in `strings/decimal.cc`): groups of nine digits in four bytes, big-endian, an incomplete group
/// first before the point and last behind it; the first bit inverted; all bits inverted if it is negative.
pub(super) fn write_decimal(cursor: &mut Cursor<'_>, precision: u8, scale: u8, out: &mut Out) -> Result<()> {
    let size = decimal_size(precision, scale)
        .ok_or_else(|| malformed(format!("a DECIMAL of {precision} digits, {scale} behind the point")))?;
    let bytes = cursor.take(size)?;
    let Some(first) = bytes.first() else {
        out.extend_from_slice(b"0");
        return Ok(());
    };
    let flip = if first & 0x80 == 0 { 0xFF } else { 0 };
    let (whole, scale) = (usize::from(precision - scale), usize::from(scale));
    let mut at = 0;
    let mut group = |digits: usize| {
        let length = DIGIT_BYTES[digits];
        let number = bytes[at..at + length].iter().enumerate().fold(0u32, |number, (offset, byte)| {
            let byte = if at + offset == 0 { byte ^ 0x80 } else { *byte };
            number << 8 | u32::from(byte ^ flip)
        });
        at += length;
        number
    };
    let start = out.len();
    if flip == 0xFF {
        out.extend_from_slice(b"-");
    }
    let unsigned = out.len();
    if whole % 9 > 0 {
        let number = group(whole % 9);
        if number > 0 {
            write_u64(u64::from(number), out);
        }
    }
    for _ in 0..whole / 9 {
        let number = u64::from(group(9));
        if out.len() > unsigned {
            write_padded(number, 9, out);
        } else if number > 0 {
            write_u64(number, out);
        }
    }
    if out.len() == unsigned {
        out.extend_from_slice(b"0");
    }
    if scale > 0 {
        out.extend_from_slice(b".");
        for _ in 0..scale / 9 {
            write_padded(u64::from(group(9)), 9, out);
        }
        if scale % 9 > 0 {
            write_padded(u64::from(group(scale % 9)), scale % 9, out);
        }
    }
    // Groups above their digits are no DECIMAL; what they print is longer than it can be.
    if out.len() - start > usize::from(precision) + 3 {
        return Err(malformed("a DECIMAL has more digits than its column"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn text(write: impl FnOnce(&mut Out)) -> String {
        let mut out = Out::new();
        write(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn integers_are_written_at_every_length() {
        let mut number = 1u64;
        for _ in 0..20 {
            for near in [number - 1, number, number + 1, u64::MAX / number] {
                assert_eq!(text(|out| write_u64(near, out)), near.to_string());
            }
            number = number.saturating_mul(10).min(u64::MAX - 1);
        }
        for number in [i64::MIN, -1, 0, i64::MAX] {
            assert_eq!(text(|out| write_i64(number, out)), number.to_string());
        }
        assert_eq!(text(|out| write_padded(42, 6, out)), "000042");
    }

    #[test]
    fn doubles_look_as_the_server_prints_them() {
        for (number, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (-1.5, "-1.5"),
            (f64::from(1.1f32), "1.100000023841858"),
            (1e14, "100000000000000"),
            (1e15, "1e15"),
            (123_456_789_012_345_680.0, "1.2345678901234568e17"),
            (1_234_567_890_123_456.8, "1234567890123456.8"),
            (0.1, "0.1"),
            (0.000_01, "0.00001"),
            (1e-15, "0.000000000000001"),
            (1e-16, "1e-16"),
            (1.25e-20, "1.25e-20"),
            (f64::MAX, "1.7976931348623157e308"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(text(|out| write_double(number, out)), expected);
        }
    }

    fn decimal(bytes: &[u8], precision: u8, scale: u8) -> Result<String> {
        let mut out = Out::new();
        write_decimal(&mut Cursor::new(bytes), precision, scale, &mut out)?;
        Ok(String::from_utf8(out.to_vec()).unwrap())
    }

    #[test]
    fn decimals_are_read_in_groups_of_nine_digits() {
        // The example of strings/decimal.cc: 1234567890.1234 as DECIMAL(14,4), and its negative.
        let plus = [0x81, 0x0D, 0xFB, 0x38, 0xD2, 0x04, 0xD2];
        let minus: Vec<u8> = plus.iter().map(|byte| !byte).collect();
        assert_eq!(decimal(&plus, 14, 4).unwrap(), "1234567890.1234");
        assert_eq!(decimal(&minus, 14, 4).unwrap(), "-1234567890.1234");
        assert_eq!(decimal(&[0x80], 2, 0).unwrap(), "0");
        assert_eq!(decimal(&[0x80], 2, 2).unwrap(), "0.00");
        assert_eq!(decimal(&[0x80, 5], 4, 2).unwrap(), "0.05");
        assert_eq!(decimal_size(65, 30), Some(30));
        for end in 0..plus.len() {
            assert!(decimal(&plus[..end], 14, 4).is_err());
        }
        assert!(decimal(&[0; 40], 3, 4).is_err());
        assert!(decimal(&[0; 40], 82, 4).is_err());
    }
}
