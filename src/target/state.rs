//! What Cutwater remembers about a migration, in words that hold for every engine.
//!
//! It is kept in the target (schema or database `cutwater`), so that it is exactly as durable as the data. `run`,
//! `cutover` and `status` are separate processes that meet here.

mod cutover;
mod run;
mod tables;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

use crate::change::Position;
use crate::error::{Error, Kind};
use crate::source::SourceIdentity;

pub use self::cutover::{Cutover, CutoverStep};
pub use self::run::{Control, Health, Order, RunReport, Trouble};
pub use self::tables::{NewTable, TableAction, TableRequest, TableStage, TableState};

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
