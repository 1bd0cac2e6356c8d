//! Numbers as people read them.

/// `1.1 MB`; powers of 1024, as Postgres prints them.
pub fn bytes(bytes: u64) -> String {
    scaled(bytes as f64, 1024.0, &["B", "kB", "MB", "GB", "TB"])
}

/// `18 of 120 GB`, `900 MB of 1.2 GB`: the unit once where it is the same.
pub fn of(part: u64, whole: u64) -> String {
    let (part, whole) = (bytes(part), bytes(whole));
    match (part.split_once(' '), whole.split_once(' ')) {
        (Some((number, unit)), Some((_, same))) if unit == same => format!("{number} of {whole}"),
        _ => format!("{part} of {whole}"),
    }
}

/// `250 MB/min`, of bytes a second.
pub fn per_minute(bytes_per_second: f64) -> String {
    format!("{}/min", bytes((bytes_per_second.max(0.0) * 60.0) as u64))
}

/// `1.9 M`; for counts where the order of magnitude is what matters.
pub fn about(count: f64) -> String {
    scaled(count, 1000.0, &["", "k", "M", "G"]).trim_end().to_owned()
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 10.0);
    format!("{value:.digits$} {}", units[unit])
}

/// `2,310`
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `0.3 s`, `41 s`, `41 m`, `1 h 12 m`, `2 d 17 h`: the two units that matter.
pub fn seconds(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match whole {
        _ if seconds < 10.0 => format!("{:.1} s", seconds.max(0.0)),
        0..60 => format!("{whole} s"),
        60..600 => format!("{minutes} m {} s", whole % 60),
        600..3600 => format!("{minutes} m"),
        3600..86_400 => format!("{hours} h {minutes} m"),
        _ => format!("{days} d {hours} h"),
    }
}

/// `1 table`, `2 tables`
pub fn plural(number: u64, one: &str) -> String {
    format!("{} {one}{}", count(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(bytes(1_150_000), "1.1 MB");
        assert_eq!(bytes(18 << 30), "18 GB");
        assert_eq!(bytes(17), "17 B");
        assert_eq!(of(18 << 30, 120 << 30), "18 of 120 GB");
        assert_eq!(of(900 << 20, 120 << 30), "900 MB of 120 GB");
        assert_eq!(per_minute(f64::from(240 << 20) / 60.0), "240 MB/min");
        assert_eq!(about(1_900_000.0), "1.9 M");
        assert_eq!(about(12.0), "12");
        assert_eq!(count(1_002_310), "1,002,310");
        assert_eq!(seconds(0.31), "0.3 s");
        assert_eq!(seconds(4320.0), "1 h 12 m");
        assert_eq!(seconds(65.0 * 3600.0), "2 d 17 h");
        assert_eq!(seconds(2460.0), "41 m");
        assert_eq!(plural(1, "table"), "1 table");
    }
}
