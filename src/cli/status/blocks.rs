//! The numbers of each phase, one block a function.

use std::fmt::Write;

use jiff::Timestamp;

use super::facts::{StatusFacts, TableFacts};
use super::render::{growing, size};
use crate::cli::human::{about, bytes, count, of, per_minute, plural, seconds};
use crate::target::state::Health;

/// Tables named one by one; the others are only counted.
const NAMED: usize = 12;

pub(super) fn row(out: &mut String, name: &str, text: &str) {
    let _ = writeln!(out, "{name:<9} {text}");
}

pub(super) fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M:%S").to_string()
}

/// The copy: how much, how fast, which tables, what it costs the source.
pub(super) fn snapshot(out: &mut String, facts: &StatusFacts) {
    let copy = &facts.copy;
    let done = (copy.bytes_estimate as f64 * copy.ratio) as u64;
    let throttle = match copy.max_rows_per_second {
        Some(limit) => format!("{} rows/s", about(limit as f64)),
        None => "none".to_owned(),
    };
    let rates = match copy.rows_per_second {
        rate if rate > 0.0 => {
            format!("   {}/s   {} rows/s   throttle: {throttle}", bytes(copy.bytes_per_second as u64), about(rate))
        }
        _ if copy.max_rows_per_second.is_some() => format!("   throttle: {throttle}"),
        _ => String::new(),
    };
    row(out, "copied", &format!("{} ({:.0} %){rates}", of(done, copy.bytes_estimate), copy.ratio * 100.0));
    row(out, "tables", &tables(facts));
    let moving: Vec<&TableFacts> = facts.tables.iter().filter(|table| named(table)).collect();
    let width = moving.iter().take(NAMED).map(|table| table.name.chars().count()).max().unwrap_or(0);
    for table in moving.iter().take(NAMED) {
        row(out, "", &table_line(table, width));
    }
    if moving.len() > NAMED {
        row(out, "", &format!("and {} more", moving.len() - NAMED));
    }
    source(out, facts);
    if let Some(held) = facts.vacuum_held_seconds.filter(|held| *held >= 1.0) {
        row(out, "", &format!("the copy has held back vacuum for {}", seconds(held)));
    }
}

fn named(table: &TableFacts) -> bool {
    table.state == "copying" || table.waits_for.is_some() || table.state == "failed"
}

/// `188 done, 3 copying, 1 waiting, 11 to go       indexes 96 of 214`
fn tables(facts: &StatusFacts) -> String {
    let mut counts: Vec<(usize, &str)> = vec![(0, "done"), (0, "copying"), (0, "waiting"), (0, "to go")];
    for table in &facts.tables {
        let word = match table.state {
            "copied" | "streaming" => "done",
            "copying" | "waiting" if table.waits_for.is_some() => "waiting",
            "waiting" => "to go",
            other => other,
        };
        match counts.iter_mut().find(|(_, known)| *known == word) {
            Some((count, _)) => *count += 1,
            None => counts.push((1, word)),
        }
    }
    let always = ["done", "copying", "to go"];
    let parts = counts.iter().filter(|(count, word)| *count > 0 || always.contains(word));
    let text = parts.map(|(count, word)| format!("{count} {word}")).collect::<Vec<_>>().join(", ");
    match facts.copy.indexes_total {
        0 => text,
        total => format!("{text}       indexes {} of {total}", facts.copy.indexes_done),
    }
}

fn table_line(table: &TableFacts, width: usize) -> String {
    if let Some(waits_for) = &table.waits_for {
        return format!("{:<width$}   waits for {waits_for}", table.name);
    }
    if table.state != "copying" {
        let why = table.error.as_deref().filter(|_| table.state == "failed").and_then(|error| error.lines().next());
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        return format!("{:<width$}   {}{why}", table.name, table.state);
    }
    let whole = table.bytes_estimate.max(0) as u64;
    let fraction = table.fraction();
    let done = of((whole as f64 * fraction) as u64, whole);
    let mut line = format!("{:<width$}   {:>3.0} %   {done}", table.name, fraction * 100.0);
    if let Some(rate) = table.rate.filter(|rate| *rate > 0.0) {
        let missing = (table.rows_estimate - table.rows).max(0) as f64;
        let _ = write!(line, "   {} rows/s   {} left", about(rate), seconds(missing / rate));
    }
    line
}

/// The stream: lag, rates, positions, what a cutover will ask.
pub(super) fn streaming(out: &mut String, facts: &StatusFacts) {
    let troubled = facts.health == Some(Health::Stalled) || facts.last_error.is_some();
    let mut lag = match facts.lag_seconds {
        Some(lag) => format!("{}{}", seconds(lag), size(facts.lag_bytes)),
        None if facts.lag_bytes.is_some() => format!("not known yet{}", size(facts.lag_bytes)),
        None => String::new(),
    };
    if let Some(growing) = growing(facts).filter(|_| troubled || facts.paused.is_some()) {
        let _ = write!(lag, ", {growing}");
    } else if let (Some(worst), Some(at)) = (facts.worst_lag_seconds, facts.worst_lag_at) {
        let _ = write!(lag, "        worst in the last hour: {} at {}", seconds(worst), at.strftime("%H:%M"));
    }
    if !lag.is_empty() {
        row(out, "lag", &lag);
    }
    if troubled {
        source(out, facts);
        data(out, facts);
        return;
    }
    if facts.run_alive {
        let (changes, transactions) = (facts.changes_per_second as u64, facts.transactions_per_second as u64);
        row(out, "rate", &format!("{} changes/s, {} transactions/s", count(changes), count(transactions)));
    }
    if let Some(checkpoint) = &facts.checkpoint {
        let head = facts.source_head.as_ref().map(|head| format!("   source {head}")).unwrap_or_default();
        row(out, "position", &format!("target {checkpoint}{head}"));
    }
    let following = facts.tables.iter().filter(|table| table.state == "streaming").count();
    let (letters, divergences) =
        (plural(facts.dead_letters, "dead letter"), plural(facts.divergences.max(0) as u64, "divergence"));
    row(out, "tables", &format!("{following} of {} streaming, {letters}, {divergences}", facts.tables.len()));
    let others: Vec<&TableFacts> =
        facts.tables.iter().filter(|table| table.state != "streaming" || table.waits_for.is_some()).collect();
    let width = others.iter().take(NAMED).map(|table| table.name.chars().count()).max().unwrap_or(0);
    for table in others.iter().take(NAMED) {
        row(out, "", &table_line(table, width));
    }
    source(out, facts);
    row(out, "verify", &verify(facts));
    if let Some(words) = &facts.late_waiting {
        row(out, "waiting", &format!("{words}, made at the cutover"));
    }
    if !facts.run_alive {
        data(out, facts);
    }
}

fn verify(facts: &StatusFacts) -> String {
    match (&facts.verify, facts.verify_age_seconds) {
        (Some(verify), Some(age)) if verify.differences == 0 => {
            format!("clean {} ago, {}, 0 rows differ", seconds(age), plural(verify.tables, "table"))
        }
        (Some(verify), Some(age)) => {
            format!("{} differ, {} ago", plural(verify.differences, "row"), seconds(age))
        }
        _ => "never".to_owned(),
    }
}

fn data(out: &mut String, facts: &StatusFacts) {
    if let (Some(checkpoint), Some(at)) = (&facts.checkpoint, facts.checkpoint_time) {
        row(out, "data", &format!("safe up to {checkpoint} ({} UTC)", clock(at)));
    }
}

fn source(out: &mut String, facts: &StatusFacts) {
    if facts.retained_bytes.is_none() {
        return;
    }
    let stalled = facts.health == Some(Health::Stalled);
    let text = kept(facts);
    row(out, "source", &if stalled { format!("application not affected. {text}") } else { text });
    if stalled && facts.room_seconds.is_some() {
        row(out, "", &format!("then: {}", facts.on_limit));
    }
}

/// `WAL kept 18 of 120 GB allowed, +250 MB/min: 6 h 48 m of room`
pub(super) fn kept(facts: &StatusFacts) -> String {
    let kept = facts.retained_bytes.unwrap_or(0);
    let limit = facts.max_retained_bytes.into_iter().chain(facts.server_limit_bytes).min();
    let mut text = match limit {
        Some(limit) => format!("WAL kept {} allowed", of(kept, limit)),
        None => format!("WAL kept {}", bytes(kept)),
    };
    if let Some(growth) = facts.retained_growth.filter(|growth| *growth * 60.0 >= 1024.0) {
        let _ = write!(text, ", +{}", per_minute(growth));
    }
    match facts.room_seconds {
        Some(room) if room > 0.0 => {
            let _ = write!(text, ": {} of room", seconds(room));
        }
        Some(_) => text.push_str(": no room left"),
        None => {}
    }
    text
}
