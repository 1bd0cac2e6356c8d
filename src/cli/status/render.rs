//! From facts to text: what and where, the state, problems before numbers, last what the reader must do.

use std::fmt::Write;

use jiff::Timestamp;

use super::facts::{EndFacts, StatusFacts, TableFacts};
use crate::cli::human::{about, bytes, count, plural, seconds};
use crate::target::state::{Health, Phase};

/// Tables named one by one; the others are only counted.
const NAMED: usize = 12;

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

fn row(out: &mut String, name: &str, text: &str) {
    let _ = writeln!(out, "{name:<9} {text}");
}

fn state_line(facts: &StatusFacts) -> String {
    let Some(phase) = facts.phase else {
        return "UNKNOWN: the target, which keeps the state, cannot be reached from here".to_owned();
    };
    let mut state = phase.as_str().to_uppercase();
    match facts.health {
        Some(Health::Stalled) => state.push_str(", STALLED"),
        Some(Health::Error) if facts.run.is_some() => state.push_str(", ENDED WITH AN ERROR"),
        Some(Health::Stopped) if phase < Phase::TargetLive && phase > Phase::New => state.push_str(", NOT RUNNING"),
        _ => {}
    }
    let since = match &facts.last_error {
        Some(trouble) if facts.health == Some(Health::Stalled) => Some(ago(facts, trouble.first_at)),
        _ => facts.phase_seconds,
    };
    if let Some(since) = since {
        let _ = write!(state, " for {}", seconds(since));
    }
    if phase == Phase::Snapshot
        && let Some(left) = facts.copy.left_seconds
    {
        let _ = write!(state, ", about {} left", seconds(left));
    }
    let run = match &facts.run {
        Some(run) if facts.run_alive => format!("run: alive, {} pid {}, {}", run.host, run.pid, run.version),
        Some(run) => {
            format!("run: none, the last on {} pid {}, {} ago", run.host, run.pid, seconds(run.heartbeat_seconds))
        }
        None => "run: none yet".to_owned(),
    };
    format!("{state:<58}{run}").replace("   run:", "   run:")
}

/// Seconds since `then`, by the newest clock the facts hold.
fn ago(facts: &StatusFacts, then: Timestamp) -> f64 {
    let heartbeat = facts.run.as_ref().map_or(0.0, |run| run.heartbeat_seconds);
    (Timestamp::now().duration_since(then).as_secs_f64() - heartbeat.min(0.0)).max(0.0)
}

fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M:%S").to_string()
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
    if let Some(trouble) = &facts.last_error {
        let mut lines = trouble.error.lines();
        row(out, "cause", lines.next().unwrap_or_default());
        lines.for_each(|line| row(out, "", line.trim_start()));
        let tries = plural(u64::from(trouble.tries), "time");
        let next = match trouble.next_try_at {
            Some(at) if facts.run_alive => format!(", next at {}", clock(at)),
            _ => String::new(),
        };
        row(out, "", &format!("first {} UTC, seen {tries}{next}", clock(trouble.first_at)));
    }
    if let Some("lost" | "unreserved") = facts.slot_status.as_deref() {
        row(out, "slot", "the source has begun to throw away log this migration still needs");
    }
    let over = matches!((facts.retained_bytes, facts.max_retained_bytes), (Some(kept), Some(limit)) if kept > limit);
    if over {
        row(out, "source", "keeps more WAL for this migration than [source] max_retained allows");
    }
    if facts.dead_letters > 0 {
        row(out, "rows", &format!("{} in cutwater.dead_letter at the target", plural(facts.dead_letters, "row")));
    }
    if facts.divergences > 0 {
        row(out, "rows", &format!("{} updates or deletes found no row", facts.divergences));
    }
    if let Some(cutover) = &facts.cutover {
        if let Some(broken) = &cutover.broken {
            row(out, "cutover", &format!("the fence was broken: {broken}"));
        }
        if cutover.step == "undone" {
            row(
                out,
                "cutover",
                &format!("the last one was undone: {}", cutover.note.as_deref().unwrap_or("no reason noted")),
            );
        }
    }
    if out.len() > before {
        out.push('\n');
    }
}

fn snapshot(out: &mut String, facts: &StatusFacts) {
    let copy = &facts.copy;
    let done = (copy.bytes_estimate as f64 * copy.ratio) as u64;
    let rates = match copy.rows_per_second {
        rate if rate > 0.0 => format!("   {}/s   {} rows/s", bytes(copy.bytes_per_second as u64), about(rate)),
        _ => String::new(),
    };
    row(
        out,
        "copied",
        &format!("{} of {} ({:.0} %){rates}", bytes(done), bytes(copy.bytes_estimate), copy.ratio * 100.0),
    );
    let in_state = |state: &str| facts.tables.iter().filter(|table| table.state == state).count();
    let indexes = match copy.indexes_total {
        0 => String::new(),
        total => format!("       indexes {} of {total}", copy.indexes_done),
    };
    let (copied, copying, waiting) = (in_state("copied"), in_state("copying"), in_state("waiting"));
    row(out, "tables", &format!("{copied} done, {copying} copying, {waiting} to go{indexes}"));
    let moving: Vec<&TableFacts> =
        facts.tables.iter().filter(|table| table.state == "copying" || table.waits_for.is_some()).collect();
    let width = moving.iter().take(NAMED).map(|table| table.name.chars().count()).max().unwrap_or(0);
    for table in moving.iter().take(NAMED) {
        row(out, "", &table_line(table, width));
    }
    if moving.len() > NAMED {
        row(out, "", &format!("and {} more", moving.len() - NAMED));
    }
    source_line(out, facts);
}

fn table_line(table: &TableFacts, width: usize) -> String {
    if let Some(waits_for) = &table.waits_for {
        return format!("{:<width$}   waits for {waits_for}", table.name);
    }
    let size = table.bytes_estimate.max(0) as u64;
    let fraction = table.fraction();
    let mut line = format!(
        "{:<width$}   {:>3.0} %   {} of {}",
        table.name,
        fraction * 100.0,
        bytes((size as f64 * fraction) as u64),
        bytes(size)
    );
    if let Some(rate) = table.rate.filter(|rate| *rate > 0.0) {
        let missing = (table.rows_estimate - table.rows).max(0) as f64;
        let _ = write!(line, "   {} left", seconds(missing / rate));
    }
    line
}

fn streaming(out: &mut String, facts: &StatusFacts) {
    let mut lag = match (facts.lag_seconds, facts.lag_bytes) {
        (Some(lag), Some(size)) => format!("{}, {}", seconds(lag), bytes(size)),
        (None, Some(size)) => format!("not known yet, {}", bytes(size)),
        _ => String::new(),
    };
    if let (Some(worst), Some(at)) = (facts.worst_lag_seconds, facts.worst_lag_at) {
        let _ = write!(lag, "        worst in the last hour: {} at {}", seconds(worst), at.strftime("%H:%M"));
    }
    if !lag.is_empty() {
        row(out, "lag", &lag);
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
    row(
        out,
        "tables",
        &format!(
            "{following} of {} streaming, {}, {}",
            facts.tables.len(),
            plural(facts.dead_letters, "dead letter"),
            plural(facts.divergences.max(0) as u64, "divergence")
        ),
    );
    source_line(out, facts);
    let verify = match (&facts.verify, facts.verify_age_seconds) {
        (Some(verify), Some(age)) if verify.differences == 0 => {
            format!("clean {} ago, {}, 0 rows differ", seconds(age), plural(verify.tables, "table"))
        }
        (Some(verify), Some(age)) => {
            format!("{} differ, {} ago", plural(verify.differences, "row"), seconds(age))
        }
        _ => "never".to_owned(),
    };
    row(out, "verify", &verify);
    if let Some(data) = facts.checkpoint_time.filter(|_| !facts.run_alive || facts.last_error.is_some()) {
        let position = facts.checkpoint.as_ref().map(ToString::to_string).unwrap_or_default();
        row(out, "data", &format!("safe up to {position} ({} UTC)", clock(data)));
    }
}

fn source_line(out: &mut String, facts: &StatusFacts) {
    let Some(kept) = facts.retained_bytes else { return };
    let text = match facts.max_retained_bytes {
        Some(limit) => format!("WAL kept {} of {} allowed", bytes(kept), bytes(limit)),
        None => format!("WAL kept {}", bytes(kept)),
    };
    row(out, "source", &text);
}

/// The last lines: what to do.
fn advice(facts: &StatusFacts) -> String {
    let Some(phase) = facts.phase else {
        return "Do: make the target reachable from here. What is there already is safe.".to_owned();
    };
    if facts.slot_status.as_deref() == Some("lost") {
        return "Do: cutwater teardown, then cutwater run: the copy must start over, changes are missing for good."
            .to_owned();
    }
    match (phase, facts.health) {
        (Phase::New, _) if facts.run_alive => "Nothing needs you.".to_owned(),
        (Phase::New, _) => "Nothing was begun yet.\nDo: cutwater check, then cutwater run".to_owned(),
        (Phase::TargetLive, _) => "The target is live. The old source rejects writes.".to_owned(),
        (Phase::RolledBack, _) => "The source is live.".to_owned(),
        (Phase::Draining, _) if facts.cutover.as_ref().is_some_and(|cutover| cutover.step == "switching") => {
            "A cutover is past its point of no return.\nDo: cutwater cutover   goes on to its end".to_owned()
        }
        (Phase::Draining, _) => "A cutover is under way; before its point of no return it undoes itself.".to_owned(),
        (_, Some(Health::Stalled)) => {
            let fix = "Do: remove the cause. The run goes on by itself.";
            format!("{fix}\nLast resort: cutwater teardown   frees the WAL; the copy starts over")
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
        _ => "Nothing needs you.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::facts::{CopyFacts, Refusal, RunFacts};
    use crate::target::state::{Trouble, VerifyRecord};

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("in range")
    }

    fn end(label: &str, version: &str) -> EndFacts {
        EndFacts { label: label.into(), version: Some(version.into()), unreachable: None }
    }

    fn table(name: &str, state: &'static str, rows: i64) -> TableFacts {
        TableFacts {
            name: name.into(),
            target: name.into(),
            state,
            rows,
            rows_estimate: 100,
            bytes_estimate: 1 << 30,
            rate: (state == "copying").then_some(1.0),
            waits_for: None,
        }
    }

    fn facts(phase: Phase) -> StatusFacts {
        StatusFacts {
            migration: "shop".into(),
            phase: Some(phase),
            phase_seconds: Some(4320.0),
            health: Some(Health::Ok),
            run_alive: true,
            run: Some(RunFacts { host: "mig-1".into(), pid: 4121, version: "0.3.0".into(), heartbeat_seconds: 0.4 }),
            source: end("postgres old:5432/shop", "15.8"),
            target: end("postgres new:5432/shop", "17.2"),
            lag_seconds: Some(0.3),
            lag_bytes: Some(1_153_434),
            caught_up_at: Some(time(0)),
            worst_lag_seconds: Some(4.2),
            worst_lag_at: Some(time(0)),
            checkpoint: Some("5D/8A31F0C8".parse().expect("an LSN")),
            checkpoint_time: Some(time(0)),
            source_head: Some("5D/8A429E10".parse().expect("an LSN")),
            retained_bytes: Some(96 << 20),
            max_retained_bytes: Some(120 << 30),
            slot_status: Some("reserved".into()),
            changes_per_second: 2310.0,
            transactions_per_second: 410.0,
            copy: CopyFacts::default(),
            tables: vec![table("public.orders", "streaming", 100), table("public.users", "streaming", 100)],
            dead_letters: 0,
            divergences: 0,
            verify: Some(VerifyRecord { at: time(0), tables: 2, differences: 0, duration_ms: 5, generation: None }),
            verify_age_seconds: Some(26.0 * 3600.0),
            cutover: None,
            cutover_refusals: Vec::new(),
            last_error: None,
        }
    }

    #[test]
    fn streaming_ends_with_why_a_cutover_would_be_refused() {
        let mut facts = facts(Phase::Streaming);
        let reason = "last clean verify is older than 24 h".to_owned();
        facts.cutover_refusals = vec![Refusal { reason, fix: "cutwater verify".into() }];
        let expected = "\
shop      postgres old:5432/shop (15.8)  ->  postgres new:5432/shop (17.2)
STREAMING for 1 h 12 m                                    run: alive, mig-1 pid 4121, 0.3.0

lag       0.3 s, 1.1 MB        worst in the last hour: 4.2 s at 22:13
rate      2,310 changes/s, 410 transactions/s
position  target 5D/8A31F0C8   source 5D/8A429E10
tables    2 of 2 streaming, 0 dead letters, 0 divergences
source    WAL kept 96 MB of 120 GB allowed
verify    clean 1 d 2 h ago, 2 tables, 0 rows differ

Cutover would be refused: last clean verify is older than 24 h.
  fix: cutwater verify";
        assert_eq!(render(&facts), expected);
    }

    #[test]
    fn mid_snapshot_names_what_moves_and_what_waits() {
        let mut facts = facts(Phase::Snapshot);
        let mut waiting = table("public.audit_2019", "waiting", 0);
        waiting.waits_for = Some("a lock: pid 8812, ALTER TABLE, role billing, 14 m".into());
        facts.tables = vec![waiting, table("public.done", "copied", 100), table("public.orders", "copying", 61)];
        facts.copy = CopyFacts {
            rows: 161,
            rows_estimate: 300,
            bytes_estimate: 690 << 30,
            ratio: 0.6,
            rows_per_second: 1_900_000.0,
            bytes_per_second: 142.0 * f64::from(1 << 20),
            left_seconds: Some(3240.0),
            indexes_done: 96,
            indexes_total: 214,
        };
        let expected = "\
shop      postgres old:5432/shop (15.8)  ->  postgres new:5432/shop (17.2)
SNAPSHOT for 1 h 12 m, about 54 m left                    run: alive, mig-1 pid 4121, 0.3.0

copied    414 GB of 690 GB (60 %)   142 MB/s   1.9 M rows/s
tables    1 done, 1 copying, 1 to go       indexes 96 of 214
          public.audit_2019   waits for a lock: pid 8812, ALTER TABLE, role billing, 14 m
          public.orders        61 %   625 MB of 1.0 GB   39 s left
source    WAL kept 96 MB of 120 GB allowed

Nothing needs you.";
        assert_eq!(render(&facts), expected);
    }

    #[test]
    fn at_three_in_the_morning_the_cause_stands_first_and_what_to_do_last() {
        let mut facts = facts(Phase::Streaming);
        facts.health = Some(Health::Stalled);
        facts.lag_seconds = Some(2460.0);
        facts.last_error = Some(Trouble {
            error: "target new:5432: could not extend file: No space left on device\n  fix: Check free disk space."
                .into(),
            kind: "transient".into(),
            first_at: time(0),
            tries: 38,
            next_try_at: Some(time(60)),
        });
        let text = render(&facts);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("STREAMING, STALLED for "), "{text}");
        assert_eq!(lines[3], "cause     target new:5432: could not extend file: No space left on device");
        assert_eq!(lines[4], "          fix: Check free disk space.");
        assert_eq!(lines[5], "          first 22:13:20 UTC, seen 38 times, next at 22:14:20");
        assert!(text.contains("lag       41 m, "), "{text}");
        assert!(text.contains("data      safe up to 5D/8A31F0C8 (22:13:20 UTC)"), "{text}");
        assert!(lines[lines.len() - 2].starts_with("Do: "), "{text}");
    }

    #[test]
    fn a_dead_run_says_so_and_how_to_go_on() {
        let mut facts = facts(Phase::Streaming);
        facts.run_alive = false;
        facts.health = Some(Health::Error);
        let text = render(&facts);
        assert!(text.contains("run: none, the last on mig-1 pid 4121, 0.4 s ago"), "{text}");
        assert!(text.ends_with("Do: remove the cause, then cutwater run: it goes on where it was."), "{text}");
    }

    #[test]
    fn a_target_that_is_away_is_named_and_nothing_is_made_up() {
        let mut facts = facts(Phase::Streaming);
        (facts.phase, facts.health, facts.run, facts.run_alive) = (None, None, None, false);
        facts.target.version = None;
        facts.target.unreachable = Some("connection refused".into());
        let text = render(&facts);
        assert!(text.contains("postgres new:5432/shop (not reachable)"), "{text}");
        assert!(text.contains("target    cannot be reached from here: connection refused"), "{text}");
        assert!(!text.contains("lag "), "{text}");
    }
}
