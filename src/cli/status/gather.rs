//! Asks both ends for the facts.

use std::time::Duration;

use jiff::Timestamp;

use super::facts::{CopyFacts, CutoverFacts, EndFacts, PausedFacts, Refusal, RunFacts, StatusFacts, TableFacts};
use super::partitions;
use crate::change::{LogFiles, Position};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::pipeline::{Job, belongs};
use crate::source::{AnySource, Source, Standing};
use crate::target::state::{
    Checkpoint, Control, Cutover, CutoverStep, Health, Migration, Phase, RunReport, TableStage, TableState,
};
use crate::target::{AnyTarget, Target};
use crate::telemetry::room_seconds;

/// An end that does not answer in this time is reported as unreachable.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the server's own limit is the nearer one.
const SERVER_GIVES_UP: &str = "the source gives the slot up (max_slot_wal_keep_size), and the copy must start over";

/// A run reports once a second and may miss some while it is busy or the target is slow.
const ALIVE: f64 = 10.0;

struct SourceSide {
    time: Timestamp,
    head: Position,
    files: LogFiles,
    version: String,
    retained: Option<u64>,
    slot_status: Option<String>,
    server_limit: Option<u64>,
    confirmed: Option<Position>,
    vacuum_held: Option<f64>,
}

struct TargetSide {
    late_waiting: Option<String>,
    not_validated: u64,
    version: String,
    now: Timestamp,
    migration: Option<Migration>,
    checkpoint: Option<Checkpoint>,
    tables: Vec<TableState>,
    run: Option<(RunReport, f64)>,
    dead_letters: u64,
    cutover: Option<Cutover>,
    control: Control,
}

/// The facts now. Fails only if the config itself is of no use.
pub async fn gather(config: &Config) -> Result<StatusFacts> {
    let Job { source, target, .. } = Job::open(config.clone())?;
    let (at_source, at_target) =
        tokio::join!(Box::pin(patiently(ask_source(&source))), Box::pin(patiently(ask_target(&target))));
    match &at_target {
        // Not an end that is away: a state that is not for this binary, or not of this config.
        Err(error) if error.kind() == Kind::Config => return Err(error.clone()),
        Ok(TargetSide { migration: Some(migration), .. }) => belongs::ends(config, migration)?,
        _ => {}
    }
    let verified = at_target.as_ref().ok().and_then(|t| t.migration.as_ref()).and_then(|m| m.verify.as_ref());
    let moved = match verified.and_then(|verify| verify.leaves.as_ref()).filter(|_| at_source.is_ok()) {
        Some(then) => {
            // An end that has gone meanwhile is told by the next look.
            patiently(partitions::changed(&source, target.state(), then)).await.unwrap_or_default()
        }
        None => None,
    };
    let mut facts = assemble(config, (source.label(), at_source), (target.label(), at_target));
    if let Some((table, what)) = moved.filter(|_| facts.phase == Some(Phase::Streaming)) {
        let fix =
            format!("cutwater verify   and if rows differ   cutwater tables resync '{table}'   or verify --repair");
        let reason = format!("since the last clean verify {what}");
        facts.cutover_refusals.push(Refusal { reason, fix });
    }
    Ok(facts)
}

async fn patiently<T>(asking: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Error::new(Kind::Connection, format!("no answer within {} s", PATIENCE.as_secs()));
    tokio::time::timeout(PATIENCE, asking).await.map_err(late)?
}

async fn ask_source(source: &AnySource) -> Result<SourceSide> {
    let Standing { head, version, confirmed, vacuum_held_seconds } = source.standing().await?;
    Ok(SourceSide {
        time: head.time,
        head: head.position,
        files: head.files,
        version,
        retained: head.retained_bytes,
        slot_status: head.slot_status,
        server_limit: head.server_limit_bytes,
        confirmed,
        vacuum_held: vacuum_held_seconds,
    })
}

async fn ask_target(target: &AnyTarget) -> Result<TargetSide> {
    let standing = target.standing().await?;
    let state = target.state();
    Ok(TargetSide {
        late_waiting: standing.waiting,
        not_validated: standing.not_validated,
        version: standing.version,
        now: standing.now,
        migration: state.migration().await?,
        checkpoint: state.checkpoint().await?,
        tables: state.tables().await?,
        run: state.run().await?,
        dead_letters: state.dead_letters().await?,
        cutover: state.cutover().await?,
        control: state.control().await?,
    })
}

fn end(label: String, version: Option<String>, error: Option<&Error>) -> EndFacts {
    EndFacts { label, version, unreachable: error.map(Error::message) }
}

fn assemble(
    config: &Config,
    (source_label, source): (String, Result<SourceSide>),
    (target_label, target): (String, Result<TargetSide>),
) -> StatusFacts {
    let at_source = source.as_ref().ok();
    let at_target = target.as_ref().ok();
    let migration = at_target.and_then(|t| t.migration.as_ref());
    let report = at_target.and_then(|t| t.run.as_ref());
    let checkpoint = at_target.and_then(|t| t.checkpoint.as_ref());
    let now = at_target.map_or_else(Timestamp::now, |t| t.now);
    let run_alive =
        report.is_some_and(|(report, age)| *age < ALIVE && !matches!(report.health, Health::Stopped | Health::Error));
    let caught_up_at = report.and_then(|(report, _)| report.caught_up_at).max(checkpoint.and_then(|c| c.commit_time));
    let head = at_source.map(|s| s.head.clone());
    let known_head = head.or_else(|| report.and_then(|(report, _)| report.source_head.clone()));
    let files = at_source.map(|s| s.files.clone()).unwrap_or_default();
    let lag_bytes = match (&known_head, checkpoint) {
        (Some(head), Some(checkpoint)) => head.bytes_since(&checkpoint.position, &files),
        _ => None,
    };
    let phase = at_target.map(|t| t.migration.as_ref().map_or(Phase::New, |migration| migration.phase));
    // After the switch nothing is followed any more: a lag would be a number without a meaning.
    let following = phase.is_some_and(|phase| phase < Phase::TargetLive);
    let lag_seconds = match (at_source, checkpoint) {
        _ if !following => None,
        (Some(source), Some(checkpoint)) if checkpoint.position >= source.head => Some(0.0),
        // Nothing was ever caught up with before the stream starts: then the run knows, from its own samples.
        (Some(source), Some(_)) => caught_up_at
            .map(|at| since(source.time, at))
            .or_else(|| report.filter(|_| run_alive).and_then(|(report, age)| report.lag_seconds.map(|lag| lag + age))),
        // The source cannot be asked: pending since it was last known to be caught up.
        (None, Some(_)) => caught_up_at.map(|at| since(now, at)),
        (_, None) => None,
    };
    let live = |value: Option<f64>| value.filter(|_| run_alive).unwrap_or(0.0);
    let known = |value: fn(&RunReport) -> Option<f64>| report.filter(|_| run_alive).and_then(|(r, _)| value(r));
    let kept = at_source.and_then(|s| s.retained);
    let server_limit = at_source.and_then(|s| s.server_limit);
    let growth = known(|report| report.retained_growth);
    let limit = config.source.max_retained.map(|size| size.0).into_iter().chain(server_limit).min();
    let mut facts = StatusFacts {
        at: now,
        paused: at_target.and_then(|t| paused(&t.control)),
        settings: at_target.map(|t| t.control.settings.clone()).unwrap_or_default(),
        lag_growth: known(|report| report.lag_growth),
        source_away_since: report.filter(|_| run_alive).and_then(|(report, _)| report.source_away_since),
        server_limit_bytes: server_limit,
        retained_growth: growth,
        room_seconds: kept.zip(limit).and_then(|(kept, limit)| room_seconds(kept, limit, growth)),
        on_limit: match (config.source.max_retained.map(|size| size.0), server_limit) {
            (None, Some(_)) => SERVER_GIVES_UP,
            (Some(ours), Some(server)) if server < ours => SERVER_GIVES_UP,
            _ => config.source.on_limit.consequence(),
        },
        slot_confirmed: at_source.and_then(|s| s.confirmed.clone()),
        // Outside the copy, sessions of ours hold it for moments.
        vacuum_held_seconds: at_source
            .and_then(|s| s.vacuum_held)
            .filter(|_| matches!(phase, Some(Phase::Snapshot | Phase::Indexing))),
        migration: config.migration.name.clone(),
        phase,
        phase_seconds: migration.map(|migration| since(now, migration.phase_since)),
        health: at_target.map(|_| health(report, run_alive)),
        run_alive,
        run: report.map(|(report, age)| RunFacts {
            host: report.host.clone(),
            pid: report.pid,
            version: report.version.clone(),
            heartbeat_seconds: *age,
        }),
        source: end(source_label, at_source.map(|s| s.version.clone()), source.as_ref().err()),
        target: end(target_label, at_target.map(|t| t.version.clone()), target.as_ref().err()),
        lag_seconds,
        lag_bytes: lag_bytes.filter(|_| following),
        caught_up_at,
        worst_lag_seconds: report.and_then(|(report, _)| report.worst_lag_seconds),
        worst_lag_at: report.and_then(|(report, _)| report.worst_lag_at),
        checkpoint: checkpoint.map(|c| c.position.clone()),
        checkpoint_time: checkpoint.and_then(|c| c.commit_time),
        source_head: known_head,
        retained_bytes: kept,
        max_retained_bytes: config.source.max_retained.map(|size| size.0),
        slot_status: at_source.and_then(|s| s.slot_status.clone()),
        changes_per_second: live(report.map(|(report, _)| report.changes_per_second)),
        transactions_per_second: live(report.map(|(report, _)| report.transactions_per_second)),
        copy: CopyFacts::default(),
        tables: at_target.map(|t| tables(&t.tables, now, phase)).unwrap_or_default(),
        dead_letters: at_target.map_or(0, |t| t.dead_letters),
        divergences: checkpoint.map_or(0, |c| c.divergences),
        verify: migration
            .and_then(|migration| migration.verify.clone())
            .map(|verify| crate::target::state::VerifyRecord { leaves: None, ..verify }),
        verify_age_seconds: migration.and_then(|m| m.verify.as_ref()).map(|verify| since(now, verify.at)),
        late_waiting: at_target.and_then(|t| t.late_waiting.clone()).filter(|_| following),
        not_validated: at_target.map_or(0, |t| t.not_validated).min(if following { 0 } else { u64::MAX }),
        cutover: at_target.and_then(|t| t.cutover.as_ref()).map(|attempt| cutover(attempt, now)),
        cutover_refusals: Vec::new(),
        last_error: report.and_then(|(report, _)| report.trouble.clone()),
    };
    facts.copy = copy(&facts.tables, report.map(|(report, _)| report), run_alive);
    if phase == Some(Phase::Indexing) {
        facts.copy.indexes_left_seconds = indexes_left(&facts.copy, facts.phase_seconds.unwrap_or(0.0));
    }
    facts.cutover_refusals = refusals(&facts, config);
    facts
}

fn paused(control: &Control) -> Option<PausedFacts> {
    control.snapshot_paused_at.or(control.apply_paused_at)?;
    Some(PausedFacts {
        snapshot_since: control.snapshot_paused_at,
        apply_since: control.apply_paused_at,
        by: control.paused_by.clone(),
    })
}

/// At the rate of those that are built since the phase began. Two are the least that say anything.
fn indexes_left(copy: &CopyFacts, seconds: f64) -> Option<f64> {
    let missing = copy.indexes_total.saturating_sub(copy.indexes_done);
    (copy.indexes_done >= 2).then(|| seconds / copy.indexes_done as f64 * missing as f64)
}

fn since(now: Timestamp, then: Timestamp) -> f64 {
    now.duration_since(then).as_secs_f64().max(0.0)
}

fn health(report: Option<&(RunReport, f64)>, alive: bool) -> Health {
    match report {
        Some((report, _)) if alive || report.health == Health::Error => report.health,
        // Killed or cut off: it did not say good-bye.
        Some((report, _)) if report.health != Health::Stopped => Health::Error,
        _ => Health::Stopped,
    }
}

fn tables(states: &[TableState], now: Timestamp, phase: Option<Phase>) -> Vec<TableFacts> {
    let streaming = phase.is_some_and(|phase| phase >= Phase::CatchingUp);
    let facts = |table: &TableState| TableFacts {
        name: table.source.to_string(),
        target: table.target.to_string(),
        state: match table.stage {
            TableStage::Copied if streaming => "streaming",
            stage => stage.as_str(),
        },
        rows: table.rows_copied,
        rows_estimate: table.rows_estimate,
        bytes_estimate: table.bytes_estimate,
        rate: table
            .started_at
            .filter(|_| table.stage == TableStage::Copying)
            .map(|at| table.rows_copied as f64 / since(now, at).max(1.0)),
        waits_for: table.waits_for.clone(),
        error: table.error.clone(),
    };
    states.iter().map(facts).collect()
}

fn copy(tables: &[TableFacts], report: Option<&RunReport>, alive: bool) -> CopyFacts {
    // An empty table counts as one page, so that it counts at all.
    let weight = |table: &TableFacts| table.bytes_estimate.max(8192) as f64;
    let total: f64 = tables.iter().map(weight).sum();
    let done: f64 = tables.iter().map(|table| weight(table) * table.fraction()).sum();
    let rows: u64 = tables.iter().map(|table| table.rows.max(0) as u64).sum();
    let rows_estimate: u64 = tables.iter().map(|table| table.rows_estimate.max(table.rows).max(0) as u64).sum();
    let rows_per_second = report.filter(|_| alive).map_or(0.0, |report| report.copy_rows_per_second);
    let missing: f64 = tables.iter().map(|table| table.rows_estimate.max(0) as f64 * (1.0 - table.fraction())).sum();
    CopyFacts {
        rows,
        rows_estimate,
        bytes_estimate: tables.iter().map(|table| table.bytes_estimate.max(0) as u64).sum(),
        ratio: if total > 0.0 { done / total } else { 0.0 },
        rows_per_second,
        bytes_per_second: report.filter(|_| alive).map_or(0.0, |report| report.copy_bytes_per_second),
        max_rows_per_second: report.filter(|_| alive).and_then(|report| report.max_rows_per_second),
        indexes_left_seconds: None,
        stepped_back: report.is_some_and(|report| alive && report.stepped_back),
        left_seconds: (rows_per_second > 0.0).then(|| missing / rows_per_second),
        indexes_done: report.map_or(0, |report| report.indexes_done),
        indexes_total: report.map_or(0, |report| report.indexes_total),
    }
}

fn cutover(cutover: &Cutover, now: Timestamp) -> CutoverFacts {
    CutoverFacts {
        abandoned: cutover.step < CutoverStep::Switching && cutover.deadline.is_some_and(|deadline| deadline < now),
        step: cutover.step.as_str().to_owned(),
        deadline: cutover.deadline.filter(|_| cutover.step < CutoverStep::Switching),
        broken: cutover.broken.clone(),
        note: cutover.note.clone(),
    }
}

/// The gates that the state alone decides, the first to fix first.
fn refusals(facts: &StatusFacts, config: &Config) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let mut refuse = |reason: String, fix: &str| refusals.push(Refusal { reason, fix: fix.to_owned() });
    if facts.phase != Some(Phase::Streaming) {
        return refusals;
    }
    if !facts.run_alive {
        refuse("no run is alive".to_owned(), "cutwater run");
    }
    if facts.paused.is_some() {
        refuse("it is paused".to_owned(), "cutwater resume");
    }
    if let Some(table) = facts.tables.iter().find(|table| table.state == "failed") {
        refuse(format!("{} could not be copied", table.name), "cutwater tables   says why, and what to do");
    }
    if facts.tables.iter().any(|table| ["waiting", "copying", "catching-up"].contains(&table.state)) {
        refuse("a table is being copied".to_owned(), "cutwater tables   shows how far it is");
    }
    if facts.dead_letters > 0 {
        refuse(format!("{} dead letters", facts.dead_letters), "SELECT * FROM cutwater.dead_letter at the target");
    }
    if facts.divergences > 0 {
        refuse(format!("{} updates or deletes found no row", facts.divergences), "cutwater verify");
    }
    let max_age = config.cutover.max_verify_age.0.as_secs_f64();
    match (&facts.verify, facts.verify_age_seconds) {
        (None, _) | (_, None) => refuse("nothing was verified yet".to_owned(), "cutwater verify"),
        (Some(verify), _) if verify.differences > 0 => {
            refuse(format!("the last verify found {} rows that differ", verify.differences), "cutwater verify");
        }
        (_, Some(age)) if age > max_age => {
            let hours = super::super::human::seconds(max_age);
            refuse(format!("last clean verify is older than {hours}"), "cutwater verify");
        }
        _ => {}
    }
    refusals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Lsn;

    fn config() -> Config {
        Config::from_urls("shop", "postgres://a@old/shop", "postgres://a@new/shop").expect("valid")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("in range")
    }

    fn source(second: i64, head: u64) -> SourceSide {
        SourceSide {
            time: at(second),
            head: Lsn(head).into(),
            files: LogFiles::default(),
            version: "15.8".into(),
            retained: Some(1),
            slot_status: None,
            server_limit: None,
            confirmed: None,
            vacuum_held: None,
        }
    }

    fn target(checkpoint: u64, committed: i64) -> TargetSide {
        let identity = crate::source::SourceIdentity {
            engine: "postgres".into(),
            version: "15.8".into(),
            system_id: "1".into(),
            timeline: 1,
            database: "shop".into(),
        };
        TargetSide {
            late_waiting: None,
            not_validated: 0,
            version: "17.2".into(),
            now: at(100),
            migration: Some(Migration {
                name: "shop".into(),
                format: crate::target::state::FORMAT,
                fingerprint: String::new(),
                source: identity,
                source_label: String::new(),
                target_label: String::new(),
                phase: Phase::Streaming,
                phase_since: at(0),
                slot_position: None,
                copied_until: None,
                epoch: 1,
                lease_holder: None,
                lease_valid: false,
                created_at: at(0),
                verify: None,
            }),
            checkpoint: Some(Checkpoint {
                position: Lsn(checkpoint).into(),
                epoch: 1,
                commit_time: Some(at(committed)),
                updated_at: at(committed),
                changes: 0,
                transactions: 0,
                divergences: 0,
            }),
            tables: Vec::new(),
            run: None,
            dead_letters: 0,
            cutover: None,
            control: Control::default(),
        }
    }

    fn facts(source: Result<SourceSide>, target: Result<TargetSide>) -> StatusFacts {
        assemble(&config(), ("old".into(), source), ("new".into(), target))
    }

    #[test]
    fn lag_is_zero_only_when_nothing_is_pending() {
        assert_eq!(facts(Ok(source(100, 50)), Ok(target(50, 10))).lag_seconds, Some(0.0));
        let behind = facts(Ok(source(100, 90)), Ok(target(50, 10)));
        assert_eq!((behind.lag_seconds, behind.lag_bytes), (Some(90.0), Some(40)));
    }

    #[test]
    fn a_source_that_is_down_counts_as_pending() {
        let facts = facts(Err(Error::new(Kind::Connection, "refused")), Ok(target(50, 10)));
        assert_eq!(facts.lag_seconds, Some(90.0));
        assert_eq!(facts.source.unreachable.as_deref(), Some("refused"));
    }

    #[test]
    fn a_target_that_is_down_leaves_no_number_that_could_be_wrong() {
        let facts = facts(Ok(source(100, 50)), Err(Error::new(Kind::Connection, "refused")));
        assert_eq!((facts.phase, facts.health, facts.lag_seconds), (None, None, None));
    }

    #[test]
    fn the_json_has_the_promised_keys() {
        let json = serde_json::to_value(facts(Ok(source(1, 1)), Ok(target(1, 1)))).expect("serializable");
        for key in [
            "migration",
            "phase",
            "health",
            "run_alive",
            "lag_seconds",
            "lag_bytes",
            "checkpoint",
            "source_head",
            "retained_bytes",
            "tables",
            "last_error",
        ] {
            assert!(json.get(key).is_some(), "{key}");
        }
    }
}
