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
mod tests {
    use super::*;
    use crate::cli::status::facts::{CopyFacts, CutoverFacts, PausedFacts, Refusal, RunFacts, TableFacts};
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
            error: None,
            waits_for: None,
        }
    }

    fn facts(phase: Phase) -> StatusFacts {
        StatusFacts {
            at: time(0),
            paused: None,
            settings: std::collections::BTreeMap::new(),
            lag_growth: None,
            source_away_since: None,
            server_limit_bytes: None,
            retained_growth: None,
            room_seconds: None,
            on_limit: crate::config::OnLimit::Warn.consequence(),
            slot_confirmed: None,
            vacuum_held_seconds: None,
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
            verify: Some(VerifyRecord {
                at: time(0),
                tables: 2,
                differences: 0,
                duration_ms: 5,
                generation: None,
                leaves: None,
            }),
            verify_age_seconds: Some(26.0 * 3600.0),
            late_waiting: None,
            not_validated: 0,
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
STREAMING  for 1 h 12 m                                   run: alive, mig-1 pid 4121, 0.3.0

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
            max_rows_per_second: None,
            left_seconds: Some(3240.0),
            indexes_left_seconds: None,
            stepped_back: false,
            indexes_done: 96,
            indexes_total: 214,
        };
        facts.retained_bytes = Some(18 << 30);
        facts.retained_growth = Some(f64::from(250 << 20) / 60.0);
        facts.room_seconds = Some(24_480.0);
        facts.vacuum_held_seconds = Some(4320.0);
        let expected = "\
shop      postgres old:5432/shop (15.8)  ->  postgres new:5432/shop (17.2)
SNAPSHOT  for 1 h 12 m, about 54 m left, then the indexes run: alive, mig-1 pid 4121, 0.3.0

copied    414 of 690 GB (60 %)   142 MB/s   1.9 M rows/s   throttle: none
tables    1 done, 1 copying, 1 waiting, 0 to go       indexes 96 of 214
          public.audit_2019   waits for a lock: pid 8812, ALTER TABLE, role billing, 14 m
          public.orders        61 %   625 MB of 1.0 GB   1 rows/s   39 s left
source    WAL kept 18 of 120 GB allowed, +250 MB/min: 6 h 48 m of room
          the copy has held back vacuum for 1 h 12 m

Nothing needs you.   slower: cutwater set snapshot.max_rows_per_second=900000";
        assert_eq!(render(&facts), expected);
    }

    fn stalled() -> StatusFacts {
        let mut facts = facts(Phase::Streaming);
        facts.health = Some(Health::Stalled);
        facts.at = time(2460);
        facts.lag_seconds = Some(2460.0);
        facts.lag_bytes = Some(9_830 << 20);
        facts.lag_growth = Some(f64::from(240 << 20) / 60.0);
        facts.retained_bytes = Some(9_933 << 20);
        facts.retained_growth = facts.lag_growth;
        facts.room_seconds = Some(27_600.0);
        facts.last_error = Some(Trouble {
            error: "target new:5432: could not extend file \"base/1\": No space left on device".into(),
            kind: "transient".into(),
            first_at: time(0),
            tries: 38,
            next_try_at: Some(time(2520)),
        });
        facts
    }

    #[test]
    fn at_three_in_the_morning_the_cause_stands_first_and_what_to_do_last() {
        let expected = "\
shop      postgres old:5432/shop (15.8)  ->  postgres new:5432/shop (17.2)
STREAMING, STALLED for 41 m                               run: alive, mig-1 pid 4121, 0.3.0

cause     target new:5432: could not extend file \"base/1\": No space left on device
          first 22:13:20 UTC, 38 tries, next in 1 m 0 s

lag       41 m, 9.6 GB, growing 240 MB/min
source    application not affected. WAL kept 9.7 of 120 GB allowed, +240 MB/min: 7 h 40 m of room
          then: warn only, the source's disk keeps filling
data      safe up to 5D/8A31F0C8 (22:13:20 UTC)

Do: add disk on new:5432. It goes on by itself.
Last resort: cutwater teardown   frees the WAL; the copy starts over";
        assert_eq!(render(&stalled()), expected);
    }

    #[test]
    fn what_to_do_follows_from_the_cause() {
        let mut facts = stalled();
        let mut says = |error: &str, kind: &str, expected: &str| {
            let trouble = facts.last_error.as_mut().expect("it is stalled");
            (trouble.error, trouble.kind) = (error.into(), kind.into());
            let text = render(&facts);
            assert!(text.contains(&format!("Do: {expected}. It goes on by itself.")), "{text}");
        };
        says("connecting to old:5432: connection refused", "connection", "make old:5432 reachable");
        says("writing to new:5432\n  fix: GRANT UPDATE ON t TO me;", "privilege", "GRANT UPDATE ON t TO me");
        says("something unheard of", "internal", "remove the cause");
    }

    #[test]
    fn a_pause_says_what_since_when_and_by_whom_and_how_to_go_on() {
        let mut facts = facts(Phase::Streaming);
        facts.health = Some(Health::Paused);
        facts.at = time(600);
        facts.lag_growth = Some(2048.0);
        facts.paused =
            Some(PausedFacts { snapshot_since: None, apply_since: Some(time(0)), by: Some("ann@ops".into()) });
        let text = render(&facts);
        assert!(text.contains("\nSTREAMING, PAUSED for 10 m "), "{text}");
        assert!(text.contains("\npaused    applying, since 22:13:20 UTC (10 m), by ann@ops\n"), "{text}");
        assert!(text.contains("lag       0.3 s, 1.1 MB, growing 120 kB/min"), "{text}");
        assert!(text.contains("Do: cutwater resume"), "{text}");
    }

    #[test]
    fn a_cutover_whose_driver_is_gone_is_told_with_what_to_do() {
        let mut facts = facts(Phase::Draining);
        facts.cutover = Some(CutoverFacts {
            step: "fenced".into(),
            deadline: Some(time(0)),
            abandoned: true,
            broken: None,
            note: None,
        });
        let text = render(&facts);
        assert!(
            text.contains("cutover   its driver is gone at step fenced; the fence lifted itself at 22:13:20 UTC"),
            "{text}"
        );
        assert!(
            text.ends_with("Do: cutwater cutover   takes it back and begins anew, or cutwater cutover --abort"),
            "{text}"
        );
    }

    #[test]
    fn a_slot_that_is_lost_or_about_to_be_says_what_to_do() {
        let mut facts = facts(Phase::Streaming);
        facts.slot_status = Some("unreserved".into());
        assert!(render(&facts).contains("raise max_slot_wal_keep_size, SELECT pg_reload_conf();"));
        facts.slot_status = Some("lost".into());
        let text = render(&facts);
        assert!(
            text.ends_with(
                "Do: cutwater teardown, then cutwater run: the copy must start over, changes are missing for good."
            ),
            "{text}"
        );
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
