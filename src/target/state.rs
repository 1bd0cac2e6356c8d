//! What Cutwater remembers about a migration, in words that hold for every engine.
//!
//! It is kept in the target (schema or database `cutwater`), so that it is exactly as durable as the data. `run`,
//! `cutover` and `status` are separate processes that meet here.
//!
//! [`State`] is the access, whichever engine the target is of. Its laws are here, once: each file of this folder has the
//! methods about one subject, and says them in statements that [`db`] takes to the engine. What a law hangs on is a lock
//! that is taken first: the migration's row under the lease's epoch, then the checkpoints from worker 0 on.

mod access;
mod chunks;
mod control;
mod cutover;
pub(in crate::target) mod db;
mod format;
mod journal;
mod known_tables;
mod lease;
mod leaves;
mod letters;
mod membership;
mod migration;
mod run;
mod set;
mod shapes;
mod tables;
mod tracking;
mod word;
mod workers;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

use crate::change::Position;
use crate::source::SourceIdentity;
use word::words;

pub use self::access::{State, Transaction};
pub use self::cutover::{Cutover, CutoverStep};
pub use self::db::Database;
pub use self::lease::{LeaseOutcome, fenced};
pub use self::letters::SetAside;
pub use self::run::{Control, Health, Order, RunReport, Trouble};
pub use self::set::Requested;
pub use self::tables::{NewTable, TableAction, TableRequest, TableStage, TableState};
pub use self::tracking::{Changed, ChangedKeys, Touched, Tracked};
pub(in crate::target) use self::workers::LOCK_ALL;
pub use self::workers::Routing;

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

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

words! { Phase, "phase":
    New => "new",
    Snapshot => "snapshot",
    Indexing => "indexing",
    CatchingUp => "catching-up",
    Streaming => "streaming",
    Draining => "draining",
    TargetLive => "target-live",
    RolledBack => "rolled-back",
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
