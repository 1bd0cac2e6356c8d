//! Asks both ends for the facts.

use std::time::Duration;

use jiff::Timestamp;

use super::facts::{CopyFacts, CutoverFacts, EndFacts, Refusal, RunFacts, StatusFacts, TableFacts};
use crate::change::Position;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::pipeline::belongs;
use crate::postgres::{ConnInfo, connect};
use crate::target::postgres::State;
use crate::target::state::{
    Checkpoint, Cutover, CutoverStep, Health, Migration, Phase, RunReport, TableStage, TableState,
};

/// An end that does not answer in this time is reported as unreachable.
const PATIENCE: Duration = Duration::from_secs(5);

/// A run reports once a second and may miss some while it is busy or the target is slow.
const ALIVE: f64 = 10.0;

struct SourceSide {
    time: Timestamp,
    head: Position,
    version: String,
    retained: Option<u64>,
    slot_status: Option<String>,
}

struct TargetSide {
    version: String,
    now: Timestamp,
    migration: Option<Migration>,
    checkpoint: Option<Checkpoint>,
    tables: Vec<TableState>,
    run: Option<(RunReport, f64)>,
    dead_letters: u64,
    cutover: Option<Cutover>,
}

/// The facts now. Fails only if the config itself is of no use.
pub async fn gather(config: &Config) -> Result<StatusFacts> {
    let (source, target) = (ConnInfo::parse(&config.source.url)?, ConnInfo::parse(&config.target.url)?);
    let name = &config.migration.name;
    let (at_source, at_target) =
        tokio::join!(patiently(ask_source(&source, name)), patiently(ask_target(&target, name)));
    match &at_target {
        // Not an end that is away: a state that is not for this binary, or not of this config.
        Err(error) if error.kind() == Kind::Config => return Err(error.clone()),
        Ok(TargetSide { migration: Some(migration), .. }) => belongs::ends(config, migration)?,
        _ => {}
    }
    Ok(assemble(config, (source.label(), at_source), (target.label(), at_target)))
}

async fn patiently<T>(asking: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Error::new(Kind::Connection, format!("no answer within {} s", PATIENCE.as_secs()));
    tokio::time::timeout(PATIENCE, asking).await.map_err(late)?
}

async fn ask_source(info: &ConnInfo, name: &str) -> Result<SourceSide> {
    let client = connect(info, "cutwater status").await?;
    let row = client.query_one(include_str!("head.sql"), &[&format!("cutwater_{name}")]).await?;
    Ok(SourceSide {
        time: micros(row.get(0))?,
        head: row.get::<_, &str>(1).parse()?,
        version: row.get(2),
        retained: row.get::<_, Option<i64>>(3).map(|bytes| bytes.max(0) as u64),
        slot_status: row.get(4),
    })
}

async fn ask_target(info: &ConnInfo, name: &str) -> Result<TargetSide> {
    let client = connect(info, "cutwater status").await?;
    let sql = "SELECT split_part(current_setting('server_version'), ' ', 1),
                      (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let row = client.query_one(sql, &[]).await?;
    let state = State::new(info.clone(), name);
    Ok(TargetSide {
        version: row.get(0),
        now: micros(row.get(1))?,
        migration: state.migration().await?,
        checkpoint: state.checkpoint().await?,
        tables: state.tables().await?,
        run: state.run().await?,
        dead_letters: state.dead_letters().await?,
        cutover: state.cutover().await?,
    })
}

fn micros(value: i64) -> Result<Timestamp> {
    Timestamp::from_microsecond(value).map_err(|error| Error::new(Kind::Internal, error.to_string()))
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
    let lag_bytes = match (&known_head, checkpoint) {
        (Some(head), Some(checkpoint)) => Some(head.lsn().since(checkpoint.position.lsn())),
        _ => None,
    };
    let phase = at_target.map(|t| t.migration.as_ref().map_or(Phase::New, |migration| migration.phase));
    // After the switch nothing is followed any more: a lag would be a number without a meaning.
    let following = phase.is_some_and(|phase| phase < Phase::TargetLive);
    let lag_seconds = match (at_source, checkpoint) {
        _ if !following => None,
        (Some(source), Some(checkpoint)) if checkpoint.position >= source.head => Some(0.0),
        (Some(source), Some(_)) => caught_up_at.map(|at| since(source.time, at)),
        // The source cannot be asked: pending since it was last known to be caught up.
        (None, Some(_)) => caught_up_at.map(|at| since(now, at)),
        (_, None) => None,
    };
    let live = |value: Option<f64>| value.filter(|_| run_alive).unwrap_or(0.0);
    let mut facts = StatusFacts {
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
        retained_bytes: at_source.and_then(|s| s.retained),
        max_retained_bytes: config.source.max_retained.map(|size| size.0),
        slot_status: at_source.and_then(|s| s.slot_status.clone()),
        changes_per_second: live(report.map(|(report, _)| report.changes_per_second)),
        transactions_per_second: live(report.map(|(report, _)| report.transactions_per_second)),
        copy: CopyFacts::default(),
        tables: at_target.map(|t| tables(&t.tables, now, phase)).unwrap_or_default(),
        dead_letters: at_target.map_or(0, |t| t.dead_letters),
        divergences: checkpoint.map_or(0, |c| c.divergences),
        verify: migration.and_then(|migration| migration.verify.clone()),
        verify_age_seconds: migration.and_then(|m| m.verify.as_ref()).map(|verify| since(now, verify.at)),
        cutover: at_target.and_then(|t| t.cutover.as_ref()).map(cutover),
        cutover_refusals: Vec::new(),
        last_error: report.and_then(|(report, _)| report.trouble.clone()),
    };
    facts.copy = copy(&facts.tables, report.map(|(report, _)| report), run_alive);
    facts.cutover_refusals = refusals(&facts, config);
    facts
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
        left_seconds: (rows_per_second > 0.0).then(|| missing / rows_per_second),
        indexes_done: report.map_or(0, |report| report.indexes_done),
        indexes_total: report.map_or(0, |report| report.indexes_total),
    }
}

fn cutover(cutover: &Cutover) -> CutoverFacts {
    CutoverFacts {
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
            version: "15.8".into(),
            retained: Some(1),
            slot_status: None,
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
