//! The facts of `status`: what `--json` and `/status` print and the text is made of.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::change::Position;
use crate::target::state::{Health, Phase, Trouble, VerifyRecord};

/// Everything `status` knows. Times are RFC 3339, sizes bytes, durations seconds.
#[derive(Debug, Clone, Serialize)]
pub struct StatusFacts {
    /// When these facts were true: the target's clock, or ours if it cannot be reached.
    pub at: Timestamp,
    /// The migration's name.
    pub migration: String,
    /// `None` while the target, which knows, cannot be reached.
    pub phase: Option<Phase>,
    /// How long it has been in this phase.
    pub phase_seconds: Option<f64>,
    /// `None` while the target, which knows, cannot be reached.
    pub health: Option<Health>,
    /// Whether a `run` has reported within the last seconds.
    pub run_alive: bool,
    /// What is paused, since when and by whom.
    pub paused: Option<PausedFacts>,
    /// Settings that go before the file's (`cutwater set`).
    pub settings: BTreeMap<String, String>,
    /// The last run, alive or not.
    pub run: Option<RunFacts>,
    /// The old server.
    pub source: EndFacts,
    /// The new server.
    pub target: EndFacts,
    /// 0 if everything the source had is durable; else the source's time since everything was.
    pub lag_seconds: Option<f64>,
    /// Source log between checkpoint and head.
    pub lag_bytes: Option<u64>,
    /// The newest source time at which everything then committed is known durable.
    pub caught_up_at: Option<Timestamp>,
    /// Worst of the last hour.
    pub worst_lag_seconds: Option<f64>,
    /// When that was.
    pub worst_lag_at: Option<Timestamp>,
    /// How fast the lag grows, in bytes a second; negative while it falls.
    pub lag_growth: Option<f64>,
    /// Since when the run has not reached the source.
    pub source_away_since: Option<Timestamp>,
    /// Durable at the target.
    pub checkpoint: Option<Position>,
    /// Commit time of the newest transaction in it.
    pub checkpoint_time: Option<Timestamp>,
    /// End of the source's log.
    pub source_head: Option<Position>,
    /// Log the source keeps for us.
    pub retained_bytes: Option<u64>,
    /// `[source] max_retained`
    pub max_retained_bytes: Option<u64>,
    /// The server's own limit (`max_slot_wal_keep_size`), past which it gives the slot up.
    pub server_limit_bytes: Option<u64>,
    /// How fast the kept log grows, in bytes a second, over the last ten minutes.
    pub retained_growth: Option<f64>,
    /// Seconds until the nearer limit is reached at that rate.
    pub room_seconds: Option<f64>,
    /// What happens then, in words.
    pub on_limit: &'static str,
    /// The slot's `wal_status`.
    pub slot_status: Option<String>,
    /// What was confirmed to the slot last: at least this is durable at the target.
    pub slot_confirmed: Option<Position>,
    /// How long the copy has kept vacuum from removing dead rows at the source.
    pub vacuum_held_seconds: Option<f64>,
    /// Changes applied per second.
    pub changes_per_second: f64,
    /// Source transactions applied per second.
    pub transactions_per_second: f64,
    /// The copy.
    pub copy: CopyFacts,
    /// Every table, in name order.
    pub tables: Vec<TableFacts>,
    /// Rows the target refused.
    pub dead_letters: u64,
    /// Updates and deletes that found no row.
    pub divergences: i64,
    /// The last verify.
    pub verify: Option<VerifyRecord>,
    /// How old it is.
    pub verify_age_seconds: Option<f64>,
    /// Foreign keys and triggers that are made at the cutover: `41 foreign keys and 6 triggers`.
    pub late_waiting: Option<String>,
    /// Foreign keys made at the cutover that are not validated yet.
    pub not_validated: u64,
    /// The last attempt at a cutover.
    pub cutover: Option<CutoverFacts>,
    /// Why a cutover would be refused now, as far as `status` can tell: `cutover --dry-run` asks every gate.
    pub cutover_refusals: Vec<Refusal>,
    /// What keeps the run from working.
    pub last_error: Option<Trouble>,
}

/// A pause.
#[derive(Debug, Clone, Serialize)]
pub struct PausedFacts {
    /// Since when the copy is paused.
    pub snapshot_since: Option<Timestamp>,
    /// Since when nothing is applied.
    pub apply_since: Option<Timestamp>,
    /// Who paused.
    pub by: Option<String>,
}

/// One of the two servers.
#[derive(Debug, Clone, Serialize)]
pub struct EndFacts {
    /// `postgres old:5432/shop`
    pub label: String,
    /// Its version.
    pub version: Option<String>,
    /// Why it cannot be reached from here, if it cannot.
    pub unreachable: Option<String>,
}

/// A run.
#[derive(Debug, Clone, Serialize)]
pub struct RunFacts {
    /// Where it runs.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Since its last sign of life.
    pub heartbeat_seconds: f64,
}

/// The copy of the existing rows.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CopyFacts {
    /// Copied so far.
    pub rows: u64,
    /// Expected.
    pub rows_estimate: u64,
    /// Size of the tables at the source.
    pub bytes_estimate: u64,
    /// 0 to 1, by size of the tables.
    pub ratio: f64,
    /// Now.
    pub rows_per_second: f64,
    /// Now.
    pub bytes_per_second: f64,
    /// The limit on that, if there is one.
    pub max_rows_per_second: Option<u64>,
    /// At this rate.
    pub left_seconds: Option<f64>,
    /// The indexes that are left, at the rate of those that are built; known once some are.
    pub indexes_left_seconds: Option<f64>,
    /// It waits until the stream has freed the source's log (`on_limit = "pause-snapshot"`).
    pub stepped_back: bool,
    /// Keys, indexes and constraints built.
    pub indexes_done: u64,
    /// … of so many.
    pub indexes_total: u64,
}

/// One table.
#[derive(Debug, Clone, Serialize)]
pub struct TableFacts {
    /// At the source.
    pub name: String,
    /// At the target.
    pub target: String,
    /// `waiting`, `copying`, `catching-up`, `copied`, `streaming`, `failed`, `skipped`
    pub state: &'static str,
    /// Rows copied.
    pub rows: i64,
    /// Rows expected.
    pub rows_estimate: i64,
    /// Size at the source.
    pub bytes_estimate: i64,
    /// Rows per second since its copy began; `None` if it is not being copied.
    pub rate: Option<f64>,
    /// Why it does not move.
    pub waits_for: Option<String>,
    /// Why it could not be copied.
    pub error: Option<String>,
}

impl TableFacts {
    /// From 0 to 1.
    pub fn fraction(&self) -> f64 {
        match self.state {
            "waiting" => 0.0,
            "copying" if self.rows_estimate <= 0 => 0.0,
            "copying" => (self.rows as f64 / self.rows_estimate as f64).min(1.0),
            _ => 1.0,
        }
    }
}

/// An attempt at a cutover.
#[derive(Debug, Clone, Serialize)]
pub struct CutoverFacts {
    /// How far it came.
    pub step: String,
    /// When the fence lifts itself.
    pub deadline: Option<Timestamp>,
    /// The driver is gone: the fence has lifted itself, and the attempt was neither finished nor taken back.
    pub abandoned: bool,
    /// How the fence was broken, if it was.
    pub broken: Option<String>,
    /// What was done, or why it was taken back.
    pub note: Option<String>,
}

/// A gate that is not met.
#[derive(Debug, Clone, Serialize)]
pub struct Refusal {
    /// Why.
    pub reason: String,
    /// What to do.
    pub fix: String,
}
