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
    facts.paused = Some(PausedFacts { snapshot_since: None, apply_since: Some(time(0)), by: Some("ann@ops".into()) });
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
