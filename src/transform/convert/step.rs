//! What is done to the values of one column.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::time;
use crate::config::{InvalidText, NulByte, OutOfRange, ValuesConfig, ZeroDate};
use crate::schema::mapping::PgType;
use crate::schema::{MySqlKind, MySqlType};

/// The conversion of a column, chosen once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The text is what Postgres takes and prints.
    Same,
    /// An integer that must lie between two bounds.
    Integer(i128, i128),
    /// A number as true or false.
    Truth,
    /// A shortest double as the shortest float, or as a double.
    Single,
    Double,
    Year,
    Date,
    /// With the zone behind it.
    DateTime(&'static str),
    TimeOfDay(u8),
    Interval,
    /// Plain text; the second: how many characters there is room for.
    Text(Option<u32>),
    /// JSON text, for `jsonb`, where an escaped NUL cannot be.
    JsonB,
    /// A text that must be a UUID.
    UuidText,
    /// The labels that there are.
    Label(Vec<Box<str>>),
    /// Labels with commas between them into an array.
    Set,
    Hex,
    UuidBytes,
    Bits(usize),
    BitNumber(i128),
    BitTruth,
    /// SRID and WKB into EWKB; as hex with or without `\x` before it.
    Geometry(&'static str),
    Vector,
    Inet,
}

/// A converted value.
#[derive(Debug)]
pub(super) enum Done<'a> {
    /// A part of the value as it came.
    Same(&'a [u8]),
    /// It is in the scratch buffer.
    Written,
    Null,
}

/// A value that cannot be carried.
#[derive(Debug)]
pub(super) struct Refused {
    pub why: String,
    /// `zero_date`; empty if no setting helps.
    pub setting: &'static str,
}

type Outcome<'a> = Result<Done<'a>, Refused>;

fn refused<'a>(setting: &'static str, why: impl Into<String>) -> Outcome<'a> {
    Err(Refused { why: why.into(), setting })
}

fn bounds(to: &PgType) -> (i128, i128) {
    match to {
        PgType::SmallInt => (i128::from(i16::MIN), i128::from(i16::MAX)),
        PgType::Integer => (i128::from(i32::MIN), i128::from(i32::MAX)),
        PgType::BigInt => (i128::from(i64::MIN), i128::from(i64::MAX)),
        PgType::Numeric(Some((p, s))) => {
            let most = 10i128.pow((p.saturating_sub(*s)).min(38)) - 1;
            (-most, most)
        }
        _ => (i128::MIN, i128::MAX),
    }
}

/// What the integer type itself can hold.
fn held(from: &MySqlType) -> (i128, i128) {
    let bits = match from.kind {
        MySqlKind::TinyInt => 8,
        MySqlKind::SmallInt => 16,
        MySqlKind::MediumInt => 24,
        MySqlKind::Int => 32,
        _ => 64,
    };
    if from.unsigned { (0, (1i128 << bits) - 1) } else { (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1) }
}

impl Step {
    /// The step from one type to the other; the pair is one of those that the mapping allows.
    pub(super) fn compile(from: &MySqlType, to: &PgType) -> Step {
        use MySqlKind as K;
        use PgType as P;
        let room = match to {
            P::VarChar(Some(n)) => Some(*n),
            _ => None,
        };
        // A column that cannot hold more than the target has room for need not be counted.
        let text = |most: Option<u32>| match (room, most) {
            (Some(room), Some(most)) if most <= room => Step::Text(None),
            (room, _) => Step::Text(room),
        };
        match (from.kind, to) {
            (_, P::Boolean) if from.kind == K::Bit => Step::BitTruth,
            (_, P::Boolean) => Step::Truth,
            (K::TinyInt | K::SmallInt | K::MediumInt | K::Int | K::BigInt, _) => {
                let ((low, high), (least, most)) = (bounds(to), held(from));
                if low <= least && most <= high { Step::Same } else { Step::Integer(low, high) }
            }
            (K::Decimal, P::Numeric(None)) => Step::Same,
            (K::Decimal, P::Numeric(Some((p, s)))) => {
                let (precision, scale) = (from.precision.unwrap_or(10), from.scale.unwrap_or(0));
                let fits = *s >= scale && p.saturating_sub(*s) >= precision.saturating_sub(scale);
                if fits { Step::Same } else { Step::Integer(bounds(to).0, bounds(to).1) }
            }
            (K::Float, P::Real) => Step::Single,
            (K::Float | K::Double, P::Double) => Step::Double,
            (K::Year, _) if to.is_number() => Step::Year,
            (K::Date, P::Date) => Step::Date,
            (K::DateTime | K::Timestamp, P::Timestamp(_)) => Step::DateTime(""),
            (K::DateTime | K::Timestamp, P::TimestampTz(_)) => Step::DateTime("+00"),
            (K::Time, P::Time(digits)) => Step::TimeOfDay(*digits),
            (K::Time, P::Interval(_)) => Step::Interval,
            (K::Enum, _) => Step::Label(from.labels.iter().map(|label| label.as_str().into()).collect()),
            (K::Set, P::TextArray) => Step::Set,
            (K::Bit, P::Bit(length)) => Step::Bits(*length as usize),
            (K::Bit, P::Bytea) => Step::Hex,
            (K::Bit, _) => Step::BitNumber(bounds(to).1),
            (K::Geometry, P::Geometry) => Step::Geometry(""),
            (K::Geometry, _) => Step::Geometry("\\x"),
            (K::Vector, P::RealArray) => Step::Vector,
            (_, P::Uuid) if from.is_bytes() => Step::UuidBytes,
            (_, P::Bytea) => Step::Hex,
            (K::Uuid, P::Uuid) => Step::Same,
            (_, P::Uuid) => Step::UuidText,
            (_, P::Inet) => Step::Inet,
            (_, P::JsonB) => Step::JsonB,
            (K::Char | K::VarChar, _) => text(from.length),
            _ => text(None),
        }
    }

    /// Converts a value; `out` is empty.
    pub(super) fn convert<'a>(&self, value: &'a [u8], policy: ValuesConfig, out: &mut Vec<u8>) -> Outcome<'a> {
        match self {
            Step::Same => Ok(Done::Same(value)),
            Step::Integer(low, high) => integer(value, *low, *high, policy.out_of_range, out),
            Step::Truth => match value {
                b"0" => Ok(Done::Same(b"f")),
                b"1" => Ok(Done::Same(b"t")),
                _ => beyond(policy.out_of_range, "only 0 and 1 are false and true", Done::Same(b"t")),
            },
            Step::Single | Step::Double => float(value, *self == Step::Single, out),
            Step::Year => Ok(Done::Same(if value == b"0000" { b"0" } else { value })),
            Step::Date => date(value, "", policy.zero_date, out),
            Step::DateTime(zone) => date(value, zone, policy.zero_date, out),
            Step::TimeOfDay(digits) => time_of_day(value, *digits, policy.out_of_range, out),
            Step::Interval => Ok(Done::Same(time::trimmed(value))),
            Step::Text(room) => text(value, *room, policy, out),
            Step::JsonB => json(value, policy, out),
            Step::UuidText => match is_uuid(value) {
                true => Ok(Done::Same(value)),
                false => beyond(policy.out_of_range, "it is no UUID", Done::Null),
            },
            Step::UuidBytes if value.len() == 16 => {
                hex(value, out);
                for dash in [8, 13, 18, 23] {
                    out.insert(dash, b'-');
                }
                Ok(Done::Written)
            }
            Step::UuidBytes => beyond(policy.out_of_range, "a UUID has 16 bytes", Done::Null),
            Step::Label(labels) => {
                if value.is_empty() && !labels.iter().any(|label| label.is_empty()) {
                    return beyond(policy.out_of_range, "it is the mark of an invalid write, not a label", Done::Null);
                }
                text(value, None, policy, out)
            }
            Step::Set => {
                set(value, out);
                Ok(Done::Written)
            }
            Step::Hex => {
                out.extend_from_slice(b"\\x");
                hex(value, out);
                Ok(Done::Written)
            }
            Step::Bits(length) => {
                let all = value.len() * 8;
                let bit = |at: usize| value[at / 8] >> (7 - at % 8) & 1;
                out.extend((all.saturating_sub(*length)..all).map(|at| b'0' + bit(at)));
                Ok(Done::Written)
            }
            Step::BitNumber(most) => {
                let number = value.iter().fold(0i128, |sum, byte| sum << 8 | i128::from(*byte));
                if number > *most && policy.out_of_range != OutOfRange::Clamp {
                    return beyond(policy.out_of_range, "it is too large", Done::Null);
                }
                out.extend_from_slice(number.min(*most).to_string().as_bytes());
                Ok(Done::Written)
            }
            Step::BitTruth => Ok(Done::Same(if value.iter().any(|byte| *byte != 0) { b"t" } else { b"f" })),
            Step::Geometry(prefix) => geometry(value, prefix, out),
            Step::Vector => vector(value, out),
            Step::Inet => Ok(Done::Same(value)),
        }
    }
}

/// What becomes of a value that the type has no room for.
fn beyond<'a>(policy: OutOfRange, why: &str, nearest: Done<'a>) -> Outcome<'a> {
    match policy {
        OutOfRange::Stop => refused("out_of_range", why),
        OutOfRange::Null => Ok(Done::Null),
        OutOfRange::Clamp => Ok(nearest),
    }
}

/// An integer, or a decimal that must be within the same bounds.
fn integer<'a>(value: &'a [u8], low: i128, high: i128, policy: OutOfRange, out: &mut Vec<u8>) -> Outcome<'a> {
    let whole = value.split(|byte| *byte == b'.').next().unwrap_or_default();
    let number = std::str::from_utf8(whole).ok().and_then(|text| text.parse::<i128>().ok());
    // More digits than an i128 has are past every bound.
    let number = number.unwrap_or(if value.first() == Some(&b'-') { i128::MIN } else { i128::MAX });
    if (low..=high).contains(&number) {
        return Ok(Done::Same(value));
    }
    let nearest = if number < low { low } else { high };
    out.extend_from_slice(nearest.to_string().as_bytes());
    beyond(policy, &format!("it has room for {low} to {high}"), Done::Written)
}

/// A double's shortest text as Postgres prints it: `%g` with as many digits as are needed
/// (`float8out_internal` in src/backend/utils/adt/float.c, `to_chars` in src/common/d2s.c).
fn float<'a>(value: &'a [u8], single: bool, out: &mut Vec<u8>) -> Outcome<'a> {
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<f64>().ok());
    let Some(number) = number else { return refused("", "it is no number") };
    // Rust's shortest digits of either width, as d.ddde±x.
    let (shortest, fixed_below) = match single {
        true => (format!("{:e}", number as f32), 6),
        false => (format!("{number:e}"), 15),
    };
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mut text = String::new();
    if (-4..fixed_below).contains(&exponent) {
        text = if single { (number as f32).to_string() } else { number.to_string() };
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(text, "{digits}e{sign}{:02}", exponent.abs());
    }
    out.extend_from_slice(text.as_bytes());
    Ok(Done::Written)
}

fn date<'a>(value: &'a [u8], zone: &str, policy: ZeroDate, out: &mut Vec<u8>) -> Outcome<'a> {
    let rest = time::trimmed(value.get(10..).unwrap_or_default());
    let day: Cow<'_, [u8]> = match (time::is_date(value), policy) {
        (true, _) if zone.is_empty() => return Ok(Done::Same(&value[..10 + rest.len()])),
        (true, _) => Cow::Borrowed(&value[..10]),
        (false, ZeroDate::Stop) => return refused("zero_date", "it is no day of the calendar"),
        (false, ZeroDate::Null) => return Ok(Done::Null),
        (false, ZeroDate::Epoch) => {
            out.extend_from_slice(if value.len() > 10 { b"1970-01-01 00:00:00" } else { b"1970-01-01" });
            out.extend_from_slice(zone.as_bytes());
            return Ok(Done::Written);
        }
        (false, ZeroDate::Clamp) => Cow::Owned(time::nearest(value).into_bytes()),
    };
    out.extend_from_slice(&day);
    out.extend_from_slice(rest);
    out.extend_from_slice(zone.as_bytes());
    Ok(Done::Written)
}

fn time_of_day<'a>(value: &'a [u8], digits: u8, policy: OutOfRange, out: &mut Vec<u8>) -> Outcome<'a> {
    if time::is_time_of_day(value) {
        return Ok(Done::Same(time::trimmed(value)));
    }
    if value.first() == Some(&b'-') {
        out.extend_from_slice(b"00:00:00");
    } else {
        out.extend_from_slice(b"23:59:59");
        if digits > 0 {
            out.push(b'.');
            out.extend(std::iter::repeat_n(b'9', usize::from(digits)));
        }
    }
    beyond(policy, "it is no time of day; interval holds it", Done::Written)
}

fn text<'a>(value: &'a [u8], room: Option<u32>, policy: ValuesConfig, out: &mut Vec<u8>) -> Outcome<'a> {
    let Ok(valid) = std::str::from_utf8(value) else {
        return match policy.invalid_text {
            InvalidText::Stop => refused("invalid_text", "it is not UTF-8"),
            InvalidText::Null => Ok(Done::Null),
            InvalidText::Replace => {
                let repaired = String::from_utf8_lossy(value).into_owned();
                match text(repaired.as_bytes(), room, policy, out)? {
                    Done::Same(repaired) => out.extend_from_slice(repaired),
                    Done::Written => {}
                    Done::Null => return Ok(Done::Null),
                }
                Ok(Done::Written)
            }
        };
    };
    if value.contains(&0) {
        match policy.nul_byte {
            NulByte::Stop => return refused("nul_byte", "a text there cannot hold NUL"),
            NulByte::Null => return Ok(Done::Null),
            NulByte::Remove => out.extend(value.iter().filter(|byte| **byte != 0)),
        }
    }
    // In bytes it is at least as long as in characters.
    let Some(room) = room.map(|room| room as usize).filter(|room| valid.len() > *room) else {
        return Ok(if out.is_empty() { Done::Same(value) } else { Done::Written });
    };
    let end = valid.char_indices().filter(|(_, c)| *c != '\0').nth(room).map(|(at, _)| at);
    let Some(end) = end else { return Ok(if out.is_empty() { Done::Same(value) } else { Done::Written }) };
    out.clear();
    out.extend(value[..end].iter().filter(|byte| **byte != 0));
    beyond(policy.out_of_range, &format!("it has room for {room} characters"), Done::Written)
}

/// Looks for `\u0000` that is no escaped backslash before `u0000`.
fn json<'a>(value: &'a [u8], policy: ValuesConfig, out: &mut Vec<u8>) -> Outcome<'a> {
    let mut found = false;
    let mut at = 0;
    while let Some(next) = value[at..].iter().position(|byte| *byte == b'\\') {
        let start = at + next;
        if value[start..].starts_with(b"\\u0000") {
            match policy.nul_byte {
                NulByte::Stop => return refused("nul_byte", "jsonb cannot hold \\u0000; json can"),
                NulByte::Null => return Ok(Done::Null),
                NulByte::Remove => {}
            }
            found = true;
            out.extend_from_slice(&value[at..start]);
            at = start + 6;
        } else {
            let end = (start + 2).min(value.len());
            out.extend_from_slice(&value[at..end]);
            at = end;
        }
    }
    if !found {
        out.clear();
        return text(value, None, policy, out);
    }
    out.extend_from_slice(&value[at..]);
    Ok(Done::Written)
}

fn hex(value: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(2 * value.len());
    for byte in value {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

fn is_uuid(value: &[u8]) -> bool {
    value.len() == 36
        && value.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// An array's text as `array_out` prints it: quoted where a label needs it.
fn set(value: &[u8], out: &mut Vec<u8>) {
    out.push(b'{');
    if !value.is_empty() {
        for (at, label) in value.split(|byte| *byte == b',').enumerate() {
            if at > 0 {
                out.push(b',');
            }
            let special =
                |byte: &u8| matches!(byte, b'"' | b'\\' | b'{' | b'}') || byte.is_ascii_whitespace() || *byte == 11;
            let quoted = label.is_empty() || label.iter().any(special) || label.eq_ignore_ascii_case(b"null");
            if !quoted {
                out.extend_from_slice(label);
                continue;
            }
            out.push(b'"');
            for byte in label {
                if matches!(byte, b'"' | b'\\') {
                    out.push(b'\\');
                }
                out.push(*byte);
            }
            out.push(b'"');
        }
    }
    out.push(b'}');
}

/// The server's 4 bytes of SRID and WKB (<https://dev.mysql.com/doc/refman/8.4/en/gis-data-formats.html>) as PostGIS'
/// extended WKB, which has the SRID inside, marked by a bit of the type; without one it is plain WKB.
fn geometry<'a>(value: &'a [u8], prefix: &str, out: &mut Vec<u8>) -> Outcome<'a> {
    let (Some(srid), Some(wkb)) = (value.first_chunk::<4>(), value.get(4..).filter(|wkb| wkb.len() >= 5)) else {
        return refused("", "it is too short for a geometry");
    };
    out.extend_from_slice(prefix.as_bytes());
    if *srid == [0; 4] {
        hex(wkb, out);
        return Ok(Done::Written);
    }
    // 1 is little-endian, in which the server stores all of it.
    let little = wkb[0] == 1;
    let mut head = [wkb[0], wkb[1], wkb[2], wkb[3], wkb[4], srid[0], srid[1], srid[2], srid[3]];
    head[if little { 4 } else { 1 }] |= 0x20;
    if !little {
        head[5..].reverse();
    }
    hex(&head, out);
    hex(&wkb[5..], out);
    Ok(Done::Written)
}

/// Floats of 4 bytes, little-endian, as the text of a `real[]`.
fn vector<'a>(value: &'a [u8], out: &mut Vec<u8>) -> Outcome<'a> {
    let (floats, rest) = value.as_chunks::<4>();
    if !rest.is_empty() {
        return refused("", "its length is no multiple of 4");
    }
    out.push(b'{');
    for (at, bytes) in floats.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let number = f32::from_le_bytes(*bytes).to_string();
        float(number.as_bytes(), true, out)?;
    }
    out.push(b'}');
    Ok(Done::Written)
}
