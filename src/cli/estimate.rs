//! The screen of `check --estimate`.

use std::fmt::Write;

use super::human::{about, bytes, plural, seconds};
use crate::pipeline::estimate::{Estimate, Range};

/// A few lines, every figure a range.
pub(super) fn render(estimate: &Estimate) -> String {
    let mut out = String::new();
    let mut row = |name: &str, text: String| {
        let _ = writeln!(out, "{name:<10}{text}");
    };
    let time = |range: Range| between(range, seconds);
    let size = |range: Range| between(range, |value| bytes(value as u64));
    let all = estimate.table_bytes;
    row(
        "copy",
        format!(
            "{}   {}, {}, at {}/s",
            time(estimate.copy_seconds),
            plural(estimate.tables as u64, "table"),
            bytes(all),
            bytes(estimate.copy_bytes_per_second as u64)
        ),
    );
    row("indexes", format!("{}   {} at the source", time(estimate.index_seconds), bytes(estimate.index_bytes)));
    row(
        "WAL kept",
        format!(
            "{} at the source until the stream begins, at the {}/s it writes now",
            size(estimate.wal_kept_bytes),
            bytes(estimate.wal_bytes_per_second as u64)
        ),
    );
    row("space", format!("{} at the target, and its WAL", size(estimate.target_bytes)));
    row("downtime", format!("{} at the cutover, after a clean verify", time(estimate.downtime_seconds)));
    let _ = write!(
        out,
        "\nFrom {} rows copied in {} and rolled back at the target. Nothing was changed.\n\
         It supposes both servers as busy as they are now.",
        about(estimate.sampled_rows as f64),
        seconds(estimate.sampled_seconds)
    );
    out
}

fn between(range: Range, say: impl Fn(f64) -> String) -> String {
    let (low, high) = (say(range.low), say(range.high));
    if low == high { format!("about {low}") } else { format!("{low} to {high}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_a_range_and_says_what_it_rests_on() {
        let range = |low: f64, high: f64| Range { low, high };
        let text = render(&Estimate {
            sampled_seconds: 10.2,
            sampled_rows: 1_900_000,
            tables: 203,
            table_bytes: 690 << 30,
            index_bytes: 214 << 30,
            copy_bytes_per_second: 142.0 * f64::from(1 << 20),
            copy_seconds: range(3500.0, 9000.0),
            index_seconds: range(600.0, 2600.0),
            wal_bytes_per_second: f64::from(4 << 20),
            wal_kept_bytes: range(16e9, 45e9),
            target_bytes: range(5e11, 9e11),
            downtime_seconds: range(0.3, 2.1),
        });
        insta::assert_snapshot!(text, @r"
        copy      58 m to 2 h 30 m   203 tables, 690 GB, at 142 MB/s
        indexes   10 m to 43 m   214 GB at the source
        WAL kept  15 GB to 42 GB at the source until the stream begins, at the 4.0 MB/s it writes now
        space     466 GB to 838 GB at the target, and its WAL
        downtime  0.3 s to 2.1 s at the cutover, after a clean verify

        From 1.9 M rows copied in 10 s and rolled back at the target. Nothing was changed.
        It supposes both servers as busy as they are now.
        ");
    }
}
