//! Dates and times of MySQL, which has some that no calendar has.
//!
//! Which values there are: <https://dev.mysql.com/doc/refman/8.4/en/date-and-time-types.html>.

/// Days of a month; 0 for no month.
fn days(year: u32, month: u32) -> u32 {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 0,
    }
}

fn number(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0u32, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u32::from(digit - b'0')))
}

/// Year, month and day at the beginning of `2024-02-29` or `2024-02-29 12:00:00`.
fn parts(text: &[u8]) -> Option<(u32, u32, u32)> {
    let date = text.get(..10)?;
    if date[4] != b'-' || date[7] != b'-' {
        return None;
    }
    Some((number(&date[..4])?, number(&date[5..7])?, number(&date[8..])?))
}

/// Whether it is a day of the calendar that Postgres counts by.
pub(super) fn is_date(text: &[u8]) -> bool {
    parts(text).is_some_and(|(year, month, day)| year > 0 && day > 0 && day <= days(year, month))
}

/// The nearest day there is to one that is none.
pub(super) fn nearest(text: &[u8]) -> String {
    let (year, month, day) = parts(text).unwrap_or((0, 0, 0));
    // Nothing of a year 0000 can be kept.
    let (year, month, day) = if year == 0 { (1, 1, 1) } else { (year, month.clamp(1, 12), day.max(1)) };
    format!("{year:04}-{month:02}-{:02}", day.min(days(year, month)))
}

/// The text without the zeros at the end of a fraction, as Postgres prints it.
pub(super) fn trimmed(text: &[u8]) -> &[u8] {
    let Some(dot) = text.iter().rposition(|byte| *byte == b'.') else { return text };
    let end = text.iter().rposition(|byte| *byte != b'0').unwrap_or(dot);
    &text[..if end == dot { dot } else { end + 1 }]
}

/// Whether it is a time of day: from 00:00:00 to 24:00:00.
pub(super) fn is_time_of_day(text: &[u8]) -> bool {
    let Some(hours) = text.split(|byte| *byte == b':').next().filter(|hours| hours.len() == 2).and_then(number) else {
        return false;
    };
    hours < 24 || (hours == 24 && text[2..].iter().all(|byte| !matches!(byte, b'1'..=b'9')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_one_of_the_calendar() {
        for good in ["0001-01-01", "2024-02-29", "2000-02-29", "9999-12-31", "1999-12-31 23:59:59.5"] {
            assert!(is_date(good.as_bytes()), "{good}");
        }
        for (bad, near) in [
            ("0000-00-00", "0001-01-01"),
            ("2024-00-00", "2024-01-01"),
            ("2024-05-00 10:00:00", "2024-05-01"),
            ("2023-02-31", "2023-02-28"),
            ("1900-02-29", "1900-02-28"),
            ("0000-12-31", "0001-01-01"),
        ] {
            assert!(!is_date(bad.as_bytes()), "{bad}");
            assert_eq!(nearest(bad.as_bytes()), near);
        }
    }

    #[test]
    fn zeros_of_a_fraction_go_and_others_stay() {
        for (text, trim) in [("10:00:00.500", "10:00:00.5"), ("10:00:00.000", "10:00:00"), ("10:10:00", "10:10:00")] {
            assert_eq!(trimmed(text.as_bytes()), trim.as_bytes());
        }
    }

    #[test]
    fn a_time_of_day_is_within_a_day() {
        for (text, is) in [
            ("24:00:00.000", true),
            ("24:00:01", false),
            ("-00:00:01", false),
            ("838:59:59", false),
            ("00:00:00", true),
        ] {
            assert_eq!(is_time_of_day(text.as_bytes()), is, "{text}");
        }
    }
}
