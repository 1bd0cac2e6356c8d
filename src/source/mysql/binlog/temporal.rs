//! Dates and times as the server's text protocol prints them in the session time zone '+00:00'.
//!
//! The forms of MySQL 5.6 and later (`TIME2`, `DATETIME2`, `TIMESTAMP2`): `my_time_packed_from_binary`,
//! `my_datetime_packed_from_binary`, `my_timestamp_from_binary` in `mysys/my_time.cc`. The older forms without fraction:
//! `Field_time`, `Field_datetime`, `Field_timestamp` in `sql/field.cc` of 5.5. MariaDB's own form with fraction
//! (`mysql56_temporal_format = OFF`): `Field_time_hires`, `Field_datetime_hires`, `Field_timestamp_hires` and
//! `unpack_time` in its `sql/field.{h,cc}`, `sql/compat56.cc`.

use super::cursor::{Cursor, malformed};
use super::number::{Out, write_padded, write_u64};
use crate::error::Result;

/// Bytes of MariaDB's DATETIME with so many digits behind the second.
pub(super) const DATETIME_HIRES_BYTES: [usize; 7] = [5, 6, 6, 7, 7, 7, 8];
/// Bytes of MariaDB's TIME with so many digits behind the second.
pub(super) const TIME_HIRES_BYTES: [usize; 7] = [3, 4, 4, 5, 5, 5, 6];

/// A moment in its parts; each as the server stored it, so it may be no date of any calendar (`0000-00-00`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) year: u64,
    pub(super) month: u64,
    pub(super) day: u64,
    pub(super) hour: u64,
    pub(super) minute: u64,
    pub(super) second: u64,
    pub(super) micros: u64,
}

pub(super) fn write_date(parts: &Parts, out: &mut Out) {
    write_padded(parts.year, 4, out);
    out.extend_from_slice(b"-");
    write_padded(parts.month, 2, out);
    out.extend_from_slice(b"-");
    write_padded(parts.day, 2, out);
}

pub(super) fn write_datetime(parts: &Parts, fsp: u8, out: &mut Out) {
    write_date(parts, out);
    out.extend_from_slice(b" ");
    write_padded(parts.hour, 2, out);
    minutes_and_on(parts, fsp, out);
}

pub(super) fn write_time(negative: bool, parts: &Parts, fsp: u8, out: &mut Out) {
    if negative {
        out.extend_from_slice(b"-");
    }
    if parts.hour < 100 {
        write_padded(parts.hour, 2, out);
    } else {
        write_u64(parts.hour, out);
    }
    minutes_and_on(parts, fsp, out);
}

fn minutes_and_on(parts: &Parts, fsp: u8, out: &mut Out) {
    out.extend_from_slice(b":");
    write_padded(parts.minute, 2, out);
    out.extend_from_slice(b":");
    write_padded(parts.second, 2, out);
    if fsp > 0 {
        out.extend_from_slice(b".");
        write_padded(parts.micros / 10u64.pow(6 - u32::from(fsp.min(6))), usize::from(fsp.min(6)), out);
    }
}

/// DATE: day in 5 bits, month in 4, year, little-endian.
pub(super) fn date(cursor: &mut Cursor<'_>, out: &mut Out) -> Result<()> {
    let packed = cursor.uint(3)?;
    let parts = Parts { day: packed & 31, month: packed >> 5 & 15, year: packed >> 9, ..Parts::default() };
    write_date(&parts, out);
    Ok(())
}

/// TIME before 5.6: the number hhmmss with its sign.
pub(super) fn time_old(cursor: &mut Cursor<'_>, out: &mut Out) -> Result<()> {
    let packed = cursor.uint(3)?;
    let signed = (packed << 40) as i64 >> 40;
    let number = signed.unsigned_abs();
    let parts = Parts { hour: number / 10_000, minute: number / 100 % 100, second: number % 100, ..Parts::default() };
    write_time(signed < 0, &parts, 0, out);
    Ok(())
}

/// DATETIME before 5.6: the number YYYYMMDDhhmmss.
pub(super) fn datetime_old(cursor: &mut Cursor<'_>, out: &mut Out) -> Result<()> {
    let packed = cursor.u64()?;
    let (date, time) = (packed / 1_000_000, packed % 1_000_000);
    let parts = Parts {
        year: date / 10_000,
        month: date / 100 % 100,
        day: date % 100,
        hour: time / 10_000,
        minute: time / 100 % 100,
        second: time % 100,
        micros: 0,
    };
    if parts.year > 9999 {
        return Err(malformed("a DATETIME has a year above 9999"));
    }
    write_datetime(&parts, 0, out);
    Ok(())
}

/// TIMESTAMP before 5.6: seconds since 1970.
pub(super) fn timestamp_old(cursor: &mut Cursor<'_>, out: &mut Out) -> Result<()> {
    timestamp(u64::from(cursor.u32()?), 0, 0, out);
    Ok(())
}

/// TIMESTAMP2: seconds and fraction, big-endian.
pub(super) fn timestamp2(cursor: &mut Cursor<'_>, fsp: u8, out: &mut Out) -> Result<()> {
    let seconds = cursor.uint_be(4)?;
    let micros = fraction(cursor, fsp)?;
    timestamp(seconds, micros, fsp, out);
    Ok(())
}

/// Seconds 0 stand for `0000-00-00 00:00:00`, which is why a TIMESTAMP begins at second 1.
fn timestamp(seconds: u64, micros: u64, fsp: u8, out: &mut Out) {
    let mut parts = Parts { micros, ..Parts::default() };
    if seconds > 0 || micros > 0 {
        (parts.year, parts.month, parts.day) = civil(seconds / 86_400);
        let second = seconds % 86_400;
        (parts.hour, parts.minute, parts.second) = (second / 3600, second / 60 % 60, second % 60);
    }
    write_datetime(&parts, fsp, out);
}

/// The day of the calendar that is `days` after 1970-01-01: years counted from March on, in eras of 400 years.
fn civil(days: u64) -> (u64, u64, u64) {
    let since_march = days + 719_468;
    let (era, day) = (since_march / 146_097, since_march % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

/// The fraction behind `DATETIME2` and `TIMESTAMP2`: two digits a byte, as microseconds.
fn fraction(cursor: &mut Cursor<'_>, fsp: u8) -> Result<u64> {
    if fsp > 6 {
        return Err(malformed(format!("a time with {fsp} digits behind the second")));
    }
    let bytes = usize::from(fsp.div_ceil(2));
    Ok(cursor.uint_be(bytes)? * 10u64.pow(6 - 2 * bytes as u32))
}

/// DATETIME2: 5 bytes, big-endian, the highest bit set: year * 13 + month in 17 bits, day 5, hour 5, minute 6, second 6.
pub(super) fn datetime2(cursor: &mut Cursor<'_>, fsp: u8, out: &mut Out) -> Result<()> {
    let packed = cursor
        .uint_be(5)?
        .checked_sub(0x80_0000_0000)
        .ok_or_else(|| malformed("a DATETIME is negative, which no server stores"))?;
    let micros = fraction(cursor, fsp)?;
    write_datetime(&unpack_datetime(packed, micros), fsp, out);
    Ok(())
}

/// The packed form without fraction, which JSON has too.
pub(super) fn unpack_datetime(packed: u64, micros: u64) -> Parts {
    let year_month = packed >> 22;
    Parts {
        year: year_month / 13,
        month: year_month % 13,
        day: packed >> 17 & 31,
        hour: packed >> 12 & 31,
        minute: packed >> 6 & 63,
        second: packed & 63,
        micros,
    }
}

/// TIME2: 3 bytes and the fraction, big-endian, as one number around a middle; negative ones count down from there.
pub(super) fn time2(cursor: &mut Cursor<'_>, fsp: u8, out: &mut Out) -> Result<()> {
    if fsp > 6 {
        return Err(malformed(format!("a TIME with {fsp} digits behind the second")));
    }
    let bytes = usize::from(fsp.div_ceil(2));
    let packed = cursor.uint_be(3 + bytes)? as i64 - (0x80_0000i64 << (8 * bytes));
    let whole = packed.unsigned_abs();
    let micros = (whole & ((1 << (8 * bytes)) - 1)) * 10u64.pow(6 - 2 * bytes as u32);
    let parts = unpack_time(whole >> (8 * bytes), micros);
    write_time(packed < 0, &parts, fsp, out);
    Ok(())
}

/// Hour in 10 bits, minute 6, second 6; JSON has it too.
pub(super) fn unpack_time(packed: u64, micros: u64) -> Parts {
    Parts { hour: packed >> 12 & 1023, minute: packed >> 6 & 63, second: packed & 63, micros, ..Parts::default() }
}

/// MariaDB's TIMESTAMP with fraction before the forms of 5.6: 4 bytes of seconds, then the fraction, big-endian.
pub(super) fn timestamp_hires(cursor: &mut Cursor<'_>, fsp: u8, out: &mut Out) -> Result<()> {
    let seconds = cursor.uint_be(4)?;
    let micros = cursor.uint_be(usize::from(fsp.div_ceil(2)))? * 10u64.pow(6 - u32::from(fsp.min(6)));
    timestamp(seconds, micros, fsp, out);
    Ok(())
}

/// MariaDB's DATETIME with fraction: all parts multiplied into one number, cut to the fraction's digits, big-endian.
pub(super) fn datetime_hires(cursor: &mut Cursor<'_>, fsp: u8, out: &mut Out) -> Result<()> {
    let bytes = DATETIME_HIRES_BYTES[usize::from(fsp.min(6))];
    let packed = cursor.uint_be(bytes)?;
    let parts = unpack_hires(packed, fsp).ok_or_else(|| malformed("a DATETIME is out of range"))?;
    write_datetime(&parts, fsp, out);
    Ok(())
}

/// MariaDB's TIME with fraction: the same around the middle of 838:59:59 and a second.
pub(super) fn time_hires(cursor: &mut Cursor<'_>, fsp: u8, out: &mut Out) -> Result<()> {
    const MIDDLE_SECONDS: i64 = 838 * 3600 + 59 * 60 + 59 + 1;
    let bytes = TIME_HIRES_BYTES[usize::from(fsp.min(6))];
    let packed = cursor.uint_be(bytes)? as i64 - MIDDLE_SECONDS * 10i64.pow(u32::from(fsp.min(6)));
    let mut parts = unpack_hires(packed.unsigned_abs(), fsp).ok_or_else(|| malformed("a TIME is out of range"))?;
    parts.hour += (parts.day + 32 * (parts.month + 13 * parts.year)) * 24;
    write_time(packed < 0, &parts, fsp, out);
    Ok(())
}

fn unpack_hires(packed: u64, fsp: u8) -> Option<Parts> {
    let mut rest = packed.checked_mul(10u64.pow(6 - u32::from(fsp.min(6))))?;
    let mut next = |base: u64| {
        let part = rest % base;
        rest /= base;
        part
    };
    let (micros, second, minute, hour) = (next(1_000_000), next(60), next(60), next(24));
    let (day, month) = (next(32), next(13));
    (rest <= 9999).then_some(Parts { year: rest, month, day, hour, minute, second, micros })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn text(bytes: &[u8], read: impl Fn(&mut Cursor<'_>, &mut Out) -> Result<()>) -> String {
        for end in 0..bytes.len() {
            assert!(read(&mut Cursor::new(&bytes[..end]), &mut Out::new()).is_err(), "cut at {end}");
        }
        let mut out = Out::new();
        let mut cursor = Cursor::new(bytes);
        read(&mut cursor, &mut out).unwrap();
        assert!(cursor.is_empty());
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn old_forms_are_decimal_numbers() {
        assert_eq!(text(&(8_385_959u32.to_le_bytes())[..3], time_old), "838:59:59");
        assert_eq!(text(&((-8_385_959i32).to_le_bytes())[..3], time_old), "-838:59:59");
        assert_eq!(text(&20_240_229_235_958u64.to_le_bytes(), datetime_old), "2024-02-29 23:59:58");
        assert_eq!(text(&0u32.to_le_bytes(), timestamp_old), "0000-00-00 00:00:00");
        assert_eq!(text(&i32::MAX.to_le_bytes(), timestamp_old), "2038-01-19 03:14:07");
        assert_eq!(text(&[0, 0, 0], date), "0000-00-00");
        assert_eq!(text(&(2024u32 << 9 | 2 << 5).to_le_bytes()[..3], date), "2024-02-00");
    }

    #[test]
    fn a_negative_time_counts_down_from_the_middle() {
        assert_eq!(text(&[0x80, 0, 0], |c, o| time2(c, 0, o)), "00:00:00");
        // -00:00:00.01, -00:00:01.10 and -00:00:01.00 from the comment in mysys/my_time.cc.
        assert_eq!(text(&[0x7F, 0xFF, 0xFF, 0xFF], |c, o| time2(c, 2, o)), "-00:00:00.01");
        assert_eq!(text(&[0x7F, 0xFF, 0xFE, 0xF6], |c, o| time2(c, 2, o)), "-00:00:01.10");
        assert_eq!(text(&[0x7F, 0xFF, 0xFF, 0x00], |c, o| time2(c, 2, o)), "-00:00:01.00");
        assert!(time2(&mut Cursor::new(&[0; 9]), 7, &mut Out::new()).is_err());
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (days, date) in [(0, (1970, 1, 1)), (58, (1970, 2, 28)), (59, (1970, 3, 1)), (11_016, (2000, 2, 29))] {
            assert_eq!(civil(days), date);
        }
        assert_eq!(civil(24_855), (2038, 1, 19));
        assert_eq!(civil(u64::from(u32::MAX) / 86_400), (2106, 2, 7));
    }
}
