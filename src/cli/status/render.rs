//! From facts to text: what and where, the state, problems before numbers, last what the reader must do.
//!
//! [`super::blocks`] has the numbers of each phase; here are the frame, the trouble and the advice.

use std::fmt::Write;

use jiff::Timestamp;

use super::blocks::{clock, kept, row, snapshot, streaming};
use super::facts::{EndFacts, StatusFacts};
use crate::cli::human::{bytes, per_minute, plural, seconds};
use crate::target::state::{Health, Phase, Trouble};

/// The screen. Pure: the same facts, the same text.
pub fn render(facts: &StatusFacts) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{:<9} {}  ->  {}", facts.migration, label(&facts.source), label(&facts.target));
    let _ = writeln!(out, "{}\n", state_line(facts));
    problems(&mut out, facts);
    match facts.phase {
        None | Some(Phase::New) => {}
        Some(Phase::Snapshot | Phase::Indexing) => snapshot(&mut out, facts),
        Some(_) => streaming(&mut out, facts),
    }
    if !out.ends_with("\n\n") {
        out.push('\n');
    }
    out.push_str(&advice(facts));
    out
}

fn label(end: &EndFacts) -> String {
    match &end.version {
        Some(version) => format!("{} ({version})", end.label),
        None => format!("{} (not reachable)", end.label),
    }
}

fn state_line(facts: &StatusFacts) -> String {
    let Some(phase) = facts.phase else {
        return "UNKNOWN: the target, which keeps the state, cannot be reached from here".to_owned();
    };
    let mut state = phase.as_str().to_uppercase();
    let paused_since = facts.paused.as_ref().and_then(|paused| paused.snapshot_since.or(paused.apply_since));
    let (suffix, since) = match facts.health {
        Some(Health::Stalled) => (", STALLED", facts.last_error.as_ref().map(|trouble| ago(facts, trouble.first_at))),
        Some(Health::Paused) => (", PAUSED", paused_since.map(|since| ago(facts, since))),
        Some(Health::Error) if facts.run.is_some() => (", ENDED WITH AN ERROR", facts.phase_seconds),
        Some(Health::Stopped) if phase < Phase::TargetLive && phase > Phase::New => {
            (", NOT RUNNING", facts.phase_seconds)
        }
        _ => (" ", facts.phase_seconds),
    };
    state.push_str(suffix);
    if let Some(since) = since {
        let _ = write!(state, " for {}", seconds(since));
    }
    state.push_str(&left(facts, phase));
    let run = match &facts.run {
        Some(run) if facts.run_alive => format!("run: alive, {} pid {}, {}", run.host, run.pid, run.version),
        Some(run) => {
            format!("run: none, the last on {} pid {}, {} ago", run.host, run.pid, seconds(run.heartbeat_seconds))
        }
        None => "run: none yet".to_owned(),
    };
    format!("{:<58}{}{run}", state.trim_end(), if state.len() < 58 { "" } else { "   " })
}

/// `, about 54 m left (copy 33 m, indexes 21 m)`: as much of it as is known.
fn left(facts: &StatusFacts, phase: Phase) -> String {
    let copy = facts.copy.left_seconds.filter(|_| phase == Phase::Snapshot);
    let indexes = facts.copy.indexes_left_seconds;
    match (copy, indexes) {
        (Some(copy), Some(indexes)) => {
            let (sum, copy, indexes) = (seconds(copy + indexes), seconds(copy), seconds(indexes));
            format!(", about {sum} left (copy {copy}, indexes {indexes})")
        }
        (Some(copy), None) => format!(", about {} left, then the indexes", seconds(copy)),
        (None, Some(indexes)) => format!(", about {} left", seconds(indexes)),
        (None, None) => String::new(),
    }
}

/// Seconds since `then`.
fn ago(facts: &StatusFacts, then: Timestamp) -> f64 {
    facts.at.duration_since(then).as_secs_f64().max(0.0)
}

fn problems(out: &mut String, facts: &StatusFacts) {
    let before = out.len();
    for (end, name) in [(&facts.source, "source"), (&facts.target, "target")] {
        if let Some(why) = &end.unreachable {
            row(out, name, &format!("cannot be reached from here: {why}"));
            if name == "source"
                && let Some(at) = facts.caught_up_at
            {
                row(out, "", &format!("last known to be caught up at {} UTC", clock(at)));
            }
        }
    }
    if let Some(since) = facts.source_away_since {
        row(
            out,
            "source",
            &format!("not reached by the run since {} UTC ({})", clock(since), seconds(ago(facts, since))),
        );
    }
    if facts.phase.is_none() {
        unknown(out, facts);
    }
    if let Some(trouble) = &facts.last_error {
        cause(out, facts, trouble);
    }
    for table in facts.tables.iter().filter(|table| table.state == "failed").take(12) {
        let why = table.error.as_deref().and_then(|error| error.lines().next()).unwrap_or("no reason was noted");
        row(out, "table", &format!("{} could not be copied: {why}", table.name));
        row(out, "", "fix: remove the cause, then cutwater tables resync; or leave it out: cutwater tables skip");
    }
    let skipped: Vec<&str> =
        facts.tables.iter().filter(|table| table.state == "skipped").map(|table| table.name.as_str()).collect();
    if !skipped.is_empty() {
        row(out, "skipped", &format!("{}: not carried, what the target has of it is stale", skipped.join(", ")));
    }
    paused(out, facts);
    match facts.slot_status.as_deref() {
        Some("lost") => {
            row(out, "slot", "lost: the source has thrown away log this migration needs (max_slot_wal_keep_size)");
        }
        Some("unreserved") => {
            row(
                out,
                "slot",
                "past max_slot_wal_keep_size: the source's next checkpoint throws away log this migration",
            );
            row(out, "", "needs. On the source, now: raise max_slot_wal_keep_size, SELECT pg_reload_conf();");
        }
        _ => {}
    }
    let over = matches!((facts.retained_bytes, facts.max_retained_bytes), (Some(kept), Some(limit)) if kept > limit);
    if over {
        row(out, "source", &format!("keeps more WAL for us than [source] max_retained: {}", facts.on_limit));
    }
    if facts.copy.stepped_back && matches!(facts.phase, Some(Phase::Snapshot)) {
        row(out, "copy", "has stepped back: no further table is begun until the stream has freed the source's WAL");
    }
    if facts.dead_letters > 0 {
        row(out, "rows", &format!("{} in cutwater.dead_letter at the target", plural(facts.dead_letters, "row")));
    }
    if facts.divergences > 0 {
        row(out, "rows", &format!("{} updates or deletes found no row", facts.divergences));
    }
    cutover(out, facts);
    if out.len() > before {
        out.push('\n');
    }
}

/// The target does not answer, but the source does: what it knows.
fn unknown(out: &mut String, facts: &StatusFacts) {
    if facts.retained_bytes.is_some() {
        row(out, "source", &format!("application not affected. {}", kept(facts)));
    }
    if let Some(confirmed) = &facts.slot_confirmed {
        row(out, "data", &format!("safe up to {confirmed} at least: that was confirmed to the source"));
    }
}

fn cause(out: &mut String, facts: &StatusFacts, trouble: &Trouble) {
    let mut lines = trouble.error.lines();
    row(out, "cause", lines.next().unwrap_or_default());
    lines.for_each(|line| row(out, "", line.trim_start()));
    let tries = match trouble.tries {
        1 => "1 try".to_owned(),
        tries => format!("{tries} tries"),
    };
    let next = match trouble.next_try_at {
        Some(at) if facts.run_alive => {
            let wait = at.duration_since(facts.at).as_secs_f64();
            if wait >= 1.0 { format!(", next in {}", seconds(wait)) } else { ", next now".to_owned() }
        }
        _ => String::new(),
    };
    row(out, "", &format!("first {} UTC, {tries}{next}", clock(trouble.first_at)));
}

fn paused(out: &mut String, facts: &StatusFacts) {
    let Some(paused) = &facts.paused else { return };
    let what = match (paused.snapshot_since, paused.apply_since) {
        (Some(_), Some(_)) => "copy and applying",
        (Some(_), None) => "copy",
        _ => "applying",
    };
    let Some(since) = paused.snapshot_since.into_iter().chain(paused.apply_since).min() else { return };
    let by = paused.by.as_deref().map(|by| format!(", by {by}")).unwrap_or_default();
    row(out, "paused", &format!("{what}, since {} UTC ({}){by}", clock(since), seconds(ago(facts, since))));
}

fn cutover(out: &mut String, facts: &StatusFacts) {
    let Some(cutover) = &facts.cutover else { return };
    if let Some(broken) = &cutover.broken {
        row(out, "cutover", &format!("the fence was broken: {broken}"));
    }
    if cutover.step == "undone" {
        let why = cutover.note.as_deref().unwrap_or("no reason noted");
        row(out, "cutover", &format!("the last one was undone: {why}"));
    }
    if cutover.abandoned {
        let at = cutover.deadline.map(|at| format!(" at {} UTC", clock(at))).unwrap_or_default();
        row(out, "cutover", &format!("its driver is gone at step {}; the fence lifted itself{at}", cutover.step));
        row(out, "", "and the source takes writes");
    }
}

/// What removes the cause, as far as its words tell.
fn remedy(facts: &StatusFacts, trouble: &Trouble) -> String {
    let (first, rest) = trouble.error.split_once('\n').unwrap_or((&trouble.error, ""));
    if let Some(fix) = rest.lines().find_map(|line| line.trim().strip_prefix("fix: ")) {
        return fix.trim_end_matches(['.', ';']).to_owned();
    }
    // Which end an error speaks of stands in it, if anywhere.
    let place = |end: &EndFacts| {
        end.label.split(' ').next_back().unwrap_or_default().split('/').next().unwrap_or_default().to_owned()
    };
    let (source, target) = (place(&facts.source), place(&facts.target));
    let at = if !source.is_empty() && first.contains(&source) { source } else { target };
    if first.contains("No space left") {
        return format!("add disk on {at}");
    }
    match trouble.kind.as_str() {
        "connection" => format!("make {at} reachable"),
        "transient" if first.contains("lock") => format!("let go of the lock on {at}, or end who holds it"),
        "slot_in_use" => "end the other reader of the slot".to_owned(),
        _ => "remove the cause".to_owned(),
    }
}

/// The last lines: what to do.
fn advice(facts: &StatusFacts) -> String {
    let Some(phase) = facts.phase else {
        return "Do: make the target reachable from here. What is there already is safe.".to_owned();
    };
    let start_over =
        "Do: cutwater teardown, then cutwater run: the copy must start over, changes are missing for good.";
    if facts.slot_status.as_deref() == Some("lost") {
        return start_over.to_owned();
    }
    if facts.cutover.as_ref().is_some_and(|cutover| cutover.abandoned) && phase < Phase::TargetLive {
        return "Do: cutwater cutover   takes it back and begins anew, or cutwater cutover --abort".to_owned();
    }
    match (phase, facts.health) {
        (Phase::New, _) if facts.run_alive => "Nothing needs you.".to_owned(),
        (Phase::New, _) => "Nothing was begun yet.\nDo: cutwater check, then cutwater run".to_owned(),
        (Phase::TargetLive, _) if facts.not_validated > 0 => format!(
            "The target is live. {} of it are not validated yet; they hold for every new row.\nDo: cutwater cutover   goes on with them",
            plural(facts.not_validated, "foreign key")
        ),
        (Phase::TargetLive, _) => "The target is live. The old source rejects writes.".to_owned(),
        (Phase::RolledBack, _) => "The source is live.".to_owned(),
        (Phase::Draining, _) if facts.cutover.as_ref().is_some_and(|cutover| cutover.step == "switching") => {
            "A cutover is past its point of no return.\nDo: cutwater cutover   goes on to its end".to_owned()
        }
        (Phase::Draining, _) => "A cutover is under way; before its point of no return it undoes itself.".to_owned(),
        (_, Some(Health::Stalled)) => {
            let remedy = facts.last_error.as_ref().map_or_else(|| "remove the cause".into(), |t| remedy(facts, t));
            let last = "Last resort: cutwater teardown   frees the WAL; the copy starts over";
            format!("Do: {remedy}. It goes on by itself.\n{last}")
        }
        (_, Some(Health::Paused)) => {
            "Do: cutwater resume   when you are ready; until then the source keeps its WAL for us".to_owned()
        }
        (_, Some(Health::Error)) if facts.last_error.as_ref().is_some_and(|trouble| trouble.kind == "slot_lost") => {
            start_over.to_owned()
        }
        (_, Some(Health::Error)) => "Do: remove the cause, then cutwater run: it goes on where it was.".to_owned(),
        (_, Some(Health::Stopped)) => {
            "Do: cutwater run   goes on where it was; until then the source keeps its WAL for us".to_owned()
        }
        _ if facts.source.unreachable.is_some() => {
            "Do: make the source reachable. The run goes on by itself.".to_owned()
        }
        (Phase::Streaming, _) => match facts.cutover_refusals.first() {
            Some(refusal) => format!("Cutover would be refused: {}.\n  fix: {}", refusal.reason, refusal.fix),
            None => "Nothing needs you.   next: cutwater cutover --dry-run".to_owned(),
        },
        (Phase::Snapshot, _) => format!("Nothing needs you.{}", knob(facts)),
        _ => "Nothing needs you.".to_owned(),
    }
}

/// How to make the copy slower, or faster again.
fn knob(facts: &StatusFacts) -> String {
    if facts.copy.max_rows_per_second.is_some() {
        return "   faster: cutwater set snapshot.max_rows_per_second=none".to_owned();
    }
    let half = facts.copy.rows_per_second / 2.0;
    if half < 1.0 {
        return String::new();
    }
    // One digit and zeros: it is a knob, not a measurement.
    let scale = 10_f64.powf(half.log10().floor());
    format!("   slower: cutwater set snapshot.max_rows_per_second={:.0}", (half / scale).floor() * scale)
}

/// `growing 240 MB/min`, of a lag that does.
pub(super) fn growing(facts: &StatusFacts) -> Option<String> {
    let growth = facts.lag_growth.filter(|growth| *growth * 60.0 >= 1024.0)?;
    Some(format!("growing {}", per_minute(growth)))
}

/// What the state's line says of lag in bytes.
pub(super) fn size(size: Option<u64>) -> String {
    size.map(|size| format!(", {}", bytes(size))).unwrap_or_default()
}

#[cfg(test)]
mod tests;
