//! What Cutwater remembers about a migration, in words that hold for every engine.
//!
//! It is kept in the target (schema or database `cutwater`), so that it is exactly as durable as the data. `run`,
//! `cutover` and `status` are separate processes that meet here.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::change::Position;
use crate::error::{Error, Kind};
use crate::schema::TableName;
use crate::source::SourceIdentity;

/// Version of the layout of the state. A binary refuses a newer one before it touches anything.
///
/// | format | what was added |
/// |---|---|
/// | 1 | the first |
/// | 2 | `migration.fingerprint` is of the ends alone, `table_state.rule` holds what the rules made of each table |
///
/// A newer binary reads the last format, and its `run` upgrades it. Additions are new tables and new columns only.
pub const FORMAT: i32 = 2;

/// Where a migration is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Nothing was copied yet.
    New,
    /// Existing rows are being copied.
    Snapshot,
    /// Keys, indexes and constraints are being built.
    Indexing,
    /// The stream runs and has not reached the head yet.
    CatchingUp,
    /// The stream follows the head.
    Streaming,
    /// A cutover has fenced the source.
    Draining,
    /// Cut over: the target is live.
    TargetLive,
    /// Cut over and back: the source is live.
    RolledBack,
}

impl Phase {
    /// The word of `status --json` and of the state.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::New => "new",
            Phase::Snapshot => "snapshot",
            Phase::Indexing => "indexing",
            Phase::CatchingUp => "catching-up",
            Phase::Streaming => "streaming",
            Phase::Draining => "draining",
            Phase::TargetLive => "target-live",
            Phase::RolledBack => "rolled-back",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Phase {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        use Phase::*;
        [New, Snapshot, Indexing, CatchingUp, Streaming, Draining, TargetLive, RolledBack]
            .into_iter()
            .find(|phase| phase.as_str() == text)
            .ok_or_else(|| Error::new(Kind::Internal, format!("the state holds an unknown phase {text:?}")))
    }
}

/// The right to write a migration's data and checkpoint, until somebody raises the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The migration.
    pub migration: String,
    /// Raised by one whenever the lease is taken. Every target transaction checks it (TRAPS 1).
    pub epoch: i64,
    /// `host pid 4121`, for people.
    pub holder: String,
}

/// The row `cutwater.migration`.
#[derive(Debug, Clone)]
pub struct Migration {
    /// Its name.
    pub name: String,
    /// Layout of the state, see [`FORMAT`].
    pub format: i32,
    /// What may not change in mid-migration: the two ends, see [`crate::config::Config::fingerprint`].
    pub fingerprint: String,
    /// The source, as it was when the migration began.
    pub source: SourceIdentity,
    /// `postgres old:5432/shop`.
    pub source_label: String,
    /// `postgres new:5432/shop`.
    pub target_label: String,
    /// Where it is.
    pub phase: Phase,
    /// Since when.
    pub phase_since: Timestamp,
    /// The consistent point of the slot; `None` until the slot was made.
    pub slot_position: Option<Position>,
    /// The source's head when the last copy ended. Until the stream has passed it, an update or delete that finds no
    /// row is no divergence: a TRUNCATE may have hidden the row from the copy (TRAPS 7).
    pub copied_until: Option<Position>,
    /// Current epoch.
    pub epoch: i64,
    /// Who holds the lease.
    pub lease_holder: Option<String>,
    /// Whether the lease is still valid, by the target's clock.
    pub lease_valid: bool,
    /// When the migration began.
    pub created_at: Timestamp,
    /// The last finished verify.
    pub verify: Option<VerifyRecord>,
}

/// What the last `verify` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyRecord {
    /// When it ended, by the target's clock.
    pub at: Timestamp,
    /// Tables compared.
    pub tables: u64,
    /// Rows that differ.
    pub differences: u64,
    /// How long it took, which is what comparing everything again would take about.
    #[serde(default)]
    pub duration_ms: u64,
    /// If it was clean: the generation under which the target keeps the keys of what changed since.
    #[serde(default)]
    pub generation: Option<i64>,
    /// The source's partitions when it began; unknown from a version that did not look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaves: Option<crate::schema::Leaves>,
}

/// The row `cutwater.checkpoint`.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Everything up to here is durable.
    pub position: Position,
    /// The epoch it was written under.
    pub epoch: i64,
    /// Commit time, by the source's clock, of the newest transaction that was applied.
    pub commit_time: Option<Timestamp>,
    /// When it was written, by the target's clock.
    pub updated_at: Timestamp,
    /// Changes applied since the beginning.
    pub changes: i64,
    /// Source transactions applied since the beginning.
    pub transactions: i64,
    /// Updates and deletes that did not find their row.
    pub divergences: i64,
}

/// How far a table's copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableStage {
    /// Not begun.
    Waiting,
    /// Being copied.
    Copying,
    /// Copied beside the running stream; a stream of its own brings it up to the others.
    CatchingUp,
    /// All rows are there; the stream keeps it current once it runs.
    Copied,
    /// It could not be copied, see [`TableState::error`]; the others go on without it.
    Failed,
    /// Left out by `tables skip`: what the target has of it is as old as that.
    Skipped,
    /// Left out by `tables remove`: no longer part of the migration, and known not to be by mistake.
    Removed,
}

impl TableStage {
    /// The word of the state.
    pub fn as_str(self) -> &'static str {
        match self {
            TableStage::Waiting => "waiting",
            TableStage::Copying => "copying",
            TableStage::CatchingUp => "catching-up",
            TableStage::Copied => "copied",
            TableStage::Failed => "failed",
            TableStage::Skipped => "skipped",
            TableStage::Removed => "removed",
        }
    }

    /// Whether the table is to be carried to the target: not left out on request.
    pub fn is_carried(self) -> bool {
        !matches!(self, TableStage::Skipped | TableStage::Removed)
    }
}

impl FromStr for TableStage {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        use TableStage::*;
        [Waiting, Copying, CatchingUp, Copied, Failed, Skipped, Removed]
            .into_iter()
            .find(|stage| stage.as_str() == text)
            .ok_or_else(|| Error::new(Kind::Internal, format!("the state holds an unknown table stage {text:?}")))
    }
}

/// A row of `cutwater.table_state`.
#[derive(Debug, Clone)]
pub struct TableState {
    /// Name at the source.
    pub source: TableName,
    /// Name at the target.
    pub target: TableName,
    /// How far it is.
    pub stage: TableStage,
    /// The position it was copied at: older transactions are skipped for it.
    pub copied_at: Option<Position>,
    /// Rows expected.
    pub rows_estimate: i64,
    /// Rows copied so far, by the run's last report.
    pub rows_copied: i64,
    /// Bytes of the table at the source.
    pub bytes_estimate: i64,
    /// Bytes copied so far.
    pub bytes_copied: i64,
    /// When its copy began.
    pub started_at: Option<Timestamp>,
    /// When its copy ended.
    pub finished_at: Option<Timestamp>,
    /// Why it does not move, if it does not.
    pub waits_for: Option<String>,
    /// What the rules made of it when it became part of the migration or was last copied again
    /// ([`crate::config::Config::rule_of`]); `None` in a state of format 1.
    pub rule: Option<String>,
    /// Why it could not be copied, with what to do about it.
    pub error: Option<String>,
    /// Its foreign keys, triggers and the like are still to be made: they wait for one consistent state.
    pub unfinished: bool,
}

/// A table that becomes part of the migration.
#[derive(Debug, Clone)]
pub struct NewTable {
    /// Name at the source.
    pub source: TableName,
    /// Name at the target.
    pub target: TableName,
    /// Estimated rows.
    pub rows: i64,
    /// Bytes at the source.
    pub bytes: i64,
    /// What the rules make of it: [`crate::config::Config::rule_of`].
    pub rule: String,
}

/// What `cutwater tables` asks a run to do with a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableAction {
    /// Take it into the migration.
    Add,
    /// Leave it out for good; what is at the target stays.
    Remove,
    /// Copy it again.
    Resync,
    /// Leave it out, and let nothing wait for it.
    Skip,
}

impl TableAction {
    /// The word of the command line and of the state.
    pub fn as_str(self) -> &'static str {
        match self {
            TableAction::Add => "add",
            TableAction::Remove => "remove",
            TableAction::Resync => "resync",
            TableAction::Skip => "skip",
        }
    }
}

impl FromStr for TableAction {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        use TableAction::*;
        [Add, Remove, Resync, Skip]
            .into_iter()
            .find(|action| action.as_str() == text)
            .ok_or_else(|| Error::new(Kind::Internal, format!("the state holds an unknown request {text:?}")))
    }
}

/// A row of `cutwater.table_request`: what is wanted of a table, until a run has taken note of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRequest {
    /// Name at the source.
    pub source: TableName,
    /// What is wanted.
    pub action: TableAction,
}

/// What a `run` says about itself once a second: the row `cutwater.run`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunReport {
    /// Host it runs on.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// When it started, by its own clock.
    pub started_at: Timestamp,
    /// `ok`, `stalled`, `paused`, `error`, `stopped`.
    pub health: Health,
    /// The newest source time at which everything then committed is known to be durable at the target.
    pub caught_up_at: Option<Timestamp>,
    /// The source's head at its last sample.
    pub source_head: Option<Position>,
    /// Lag in seconds as the run measured it.
    pub lag_seconds: Option<f64>,
    /// Lag in bytes of source log.
    pub lag_bytes: Option<u64>,
    /// Worst lag of the last hour, in seconds.
    pub worst_lag_seconds: Option<f64>,
    /// When that was.
    pub worst_lag_at: Option<Timestamp>,
    /// Bytes of log the source keeps for us.
    pub retained_bytes: Option<u64>,
    /// The nearer of `[source] max_retained` and the server's own limit, in bytes.
    #[serde(default)]
    pub retained_limit: Option<u64>,
    /// How fast the kept log grows, in bytes a second, over the last ten minutes.
    #[serde(default)]
    pub retained_growth: Option<f64>,
    /// Seconds until the limit is reached at that rate.
    #[serde(default)]
    pub retained_room: Option<f64>,
    /// How fast the lag grows, in bytes a second, over the last ten minutes.
    #[serde(default)]
    pub lag_growth: Option<f64>,
    /// The throttle that holds, in rows a second; `None`: none.
    #[serde(default)]
    pub max_rows_per_second: Option<u64>,
    /// The copy has stepped back until the stream has freed the source's log.
    #[serde(default)]
    pub stepped_back: bool,
    /// Since when the source has not answered.
    #[serde(default)]
    pub source_away_since: Option<Timestamp>,
    /// Changes per second over the last ten seconds.
    pub changes_per_second: f64,
    /// Source transactions per second over the last ten seconds.
    pub transactions_per_second: f64,
    /// Rows per second of the copy over the last ten seconds.
    pub copy_rows_per_second: f64,
    /// Bytes per second of the copy over the last ten seconds.
    pub copy_bytes_per_second: f64,
    /// Indexes and constraints built, and in all.
    pub indexes_done: u64,
    /// …
    pub indexes_total: u64,
    /// What keeps it from working, if anything.
    pub trouble: Option<Trouble>,
}

/// Why a run does not move.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trouble {
    /// The error, as it would be printed.
    pub error: String,
    /// Label of its kind.
    pub kind: String,
    /// When it first happened.
    pub first_at: Timestamp,
    /// How often it was tried since.
    pub tries: u32,
    /// When it is tried next.
    pub next_try_at: Option<Timestamp>,
}

/// Whether a run works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// It works.
    Ok,
    /// It tries, and something is in the way.
    Stalled,
    /// It was told to pause, and does.
    Paused,
    /// It has stopped for good, with [`RunReport::trouble`].
    Error,
    /// It was asked to stop, and did.
    Stopped,
}

/// The row `cutwater.control`: what people ask of the run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Control {
    /// Raised by everyone who asks for something.
    pub version: i64,
    /// Since when the copy is paused, by the target's clock.
    pub snapshot_paused_at: Option<Timestamp>,
    /// Since when nothing is applied, by the target's clock.
    pub apply_paused_at: Option<Timestamp>,
    /// Who paused.
    pub paused_by: Option<String>,
    /// Key of the config file → value, as it is written there; it goes before the file's.
    pub settings: BTreeMap<String, String>,
    /// The version the run acts on.
    pub acknowledged: i64,
    /// Which run that is.
    pub acknowledged_by: Option<String>,
}

/// A change to [`Control`]. `None` leaves something as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    /// Pause the copy, or let it go on.
    pub snapshot_paused: Option<bool>,
    /// Pause the applying, or let it go on.
    pub apply_paused: Option<bool>,
    /// Settings to change; a `None` gives the setting back to the file.
    pub settings: BTreeMap<String, Option<String>>,
}

/// A row of `cutwater.event`: who did what, from the first day.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// When, by the target's clock; set when it is written.
    pub at: Option<Timestamp>,
    /// OS user.
    pub os_user: String,
    /// Host.
    pub host: String,
    /// Version of the binary.
    pub version: String,
    /// `run`, `cutover` …
    pub command: String,
    /// `started`, `done`, `refused`, `undone`, `error: …`
    pub outcome: String,
}

/// Where a cutover is. Each step is written before the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CutoverStep {
    /// The nonce is chosen; the fence may or may not have been taken.
    Fencing,
    /// The source rejects writes until the deadline.
    Fenced,
    /// Everything before the fence is durable at the target.
    Drained,
    /// Final verify was clean, sequences are set.
    Verified,
    /// The fence is permanent: from here it only goes forward.
    Switching,
    /// The switch command has succeeded: the target is live.
    Done,
    /// Taken back before the point of no return: the source is live.
    Undone,
}

impl CutoverStep {
    /// The word of the state.
    pub fn as_str(self) -> &'static str {
        match self {
            CutoverStep::Fencing => "fencing",
            CutoverStep::Fenced => "fenced",
            CutoverStep::Drained => "drained",
            CutoverStep::Verified => "verified",
            CutoverStep::Switching => "switching",
            CutoverStep::Done => "done",
            CutoverStep::Undone => "undone",
        }
    }
}

impl FromStr for CutoverStep {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        use CutoverStep::*;
        [Fencing, Fenced, Drained, Verified, Switching, Done, Undone]
            .into_iter()
            .find(|step| step.as_str() == text)
            .ok_or_else(|| Error::new(Kind::Internal, format!("the state holds an unknown cutover step {text:?}")))
    }
}

/// A row of `cutwater.cutover`: one attempt.
#[derive(Debug, Clone)]
pub struct Cutover {
    /// Names the attempt and its fence.
    pub nonce: String,
    /// How far it is.
    pub step: CutoverStep,
    /// When it began, by the target's clock.
    pub started_at: Timestamp,
    /// When the fence expires by itself, by the source's clock.
    pub deadline: Option<Timestamp>,
    /// Set by the applier, in the batch's own transaction, when the fence's marker was applied.
    pub drained_at: Option<Position>,
    /// Set by the applier when a migrated table changed after the marker: the fence was broken (TRAPS 19).
    pub broken: Option<String>,
    /// What was done or why it was undone, for `report`.
    pub note: Option<String>,
}
