//! The rows about tables: how far each is, and what is asked for it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::word::words;
use crate::change::Position;
use crate::schema::TableName;

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
    /// Whether the table is to be carried to the target: not left out on request.
    pub fn is_carried(self) -> bool {
        !matches!(self, TableStage::Skipped | TableStage::Removed)
    }
}

words! { TableStage, "table stage":
    Waiting => "waiting",
    Copying => "copying",
    CatchingUp => "catching-up",
    Copied => "copied",
    Failed => "failed",
    Skipped => "skipped",
    Removed => "removed",
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

words! { TableAction, "request":
    Add => "add",
    Remove => "remove",
    Resync => "resync",
    Skip => "skip",
}

/// A row of `cutwater.table_request`: what is wanted of a table, until a run has taken note of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRequest {
    /// Name at the source.
    pub source: TableName,
    /// What is wanted.
    pub action: TableAction,
}
