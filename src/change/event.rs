//! What a source's stream is made of.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::{CommitStart, Position, Row};
use crate::schema::{ShapeChange, TableName, TableSchema};

/// One event of a source's stream. Row and truncate events stand between a [`Begin`] and its [`Commit`], and
/// transactions arrive whole, in commit order.
#[derive(Debug, Clone)]
pub enum ChangeEvent {
    /// A source transaction starts.
    Begin(Begin),
    /// A row was inserted, updated or deleted.
    Row(RowChange),
    /// Tables were emptied.
    Truncate(Truncate),
    /// From here on the table looks like this.
    Schema(Arc<TableSchema>),
    /// The target's table is brought to another shape before the rows of this batch. Made by the pipeline.
    Alter(Arc<ShapeChange>),
    /// A marker for the engine itself.
    Message(Message),
    /// The source transaction ends.
    Commit(Commit),
}

/// The start of a source transaction.
#[derive(Debug, Clone)]
pub struct Begin {
    /// The source's transaction id (Postgres); 0 where rows do not carry one.
    pub xid: u32,
    /// Where its commit starts in the log: whether a table copied at a position holds it is asked of this.
    pub commit_start: CommitStart,
    /// When it committed, by the source's clock.
    pub commit_time: Timestamp,
}

impl Begin {
    /// Whether a copy taken at `position` holds it.
    pub fn is_in(&self, position: &Position) -> bool {
        self.commit_start.is_in(position)
    }
}

/// The end of a source transaction.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Where its commit record *ends*: the checkpoint after it.
    pub end: Position,
    /// When it committed, by the source's clock.
    pub commit_time: Timestamp,
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// A new row: `new` is set.
    Insert,
    /// A changed row: `new` is set; `old` if the key changed or the source logs whole old rows.
    Update,
    /// A removed row: `old` is set.
    Delete,
}

impl Op {
    /// The value of the `op` label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Op::Insert => "insert",
            Op::Update => "update",
            Op::Delete => "delete",
        }
    }
}

/// One changed row.
///
/// `old` and `new` have one field per column of `table.columns`. In an `old` image that holds the key only, the other
/// fields are NULL ([`RowChange::old_is_key_only`]).
#[derive(Debug, Clone)]
pub struct RowChange {
    /// The table as it was when the row was written.
    pub table: Arc<TableSchema>,
    /// What happened.
    pub op: Op,
    /// The row before, or its key.
    pub old: Option<Row>,
    /// Whether `old` holds the key columns only.
    pub old_is_key_only: bool,
    /// The row after.
    pub new: Option<Row>,
}

impl RowChange {
    /// Bytes the change holds on to.
    pub fn size(&self) -> usize {
        self.old.as_ref().map_or(0, Row::size) + self.new.as_ref().map_or(0, Row::size)
    }
}

/// One TRUNCATE statement.
#[derive(Debug, Clone)]
pub struct Truncate {
    /// Every table it emptied that is part of the migration.
    pub tables: Vec<Arc<TableSchema>>,
    /// Whether it said RESTART IDENTITY.
    pub restart_identity: bool,
    /// Tables of it (target's names) that lose only the rows of this condition: of the others the copy is younger.
    pub conditions: Vec<(TableName, String)>,
    /// Tables (target's names) that it emptied too, and that somebody else empties here, or has: what in them refers to a
    /// row of these tables is no reason to keep it.
    pub elsewhere: Vec<TableName>,
}

/// A marker that the engine itself wrote into the source's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The fence with this nonce was taken: every change before it is in the stream before it (TRAPS 19).
    Fence {
        /// Which fence.
        nonce: String,
    },
    /// Somebody else's logical message.
    Other {
        /// Its prefix.
        prefix: String,
        /// Its content.
        content: Bytes,
    },
}
