//! Where changes go.
//!
//! Into a target flow the parts of a snapshot ([`Target::load`]) and then batches of whole source transactions
//! ([`Applier::apply`]). Out of it flows one thing: the position that is durable there. Every transaction it commits
//! begins by moving on, or locking, a row that carries the epoch of the lease it was begun under (TRAPS 1), so a process
//! that wakes up late is fenced. What Cutwater remembers about a migration is kept here too: [`state::State`].
//! Nothing here reads a source.
//!
//! Whoever uses a target holds an [`AnyTarget`], which the scheme of the URL chooses, and names no engine. Its applier is
//! one for each batch, so the choice costs one `match` a batch.

mod any;
mod batch;
pub mod mysql;
pub mod parallel;
pub mod plan;
pub mod postgres;
pub mod state;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use jiff::Timestamp;

use crate::change::{ChangeEvent, ChunkMap, Durable, Op, Position};
use crate::config::{ApplyConfig, Existing};
use crate::error::Result;
use crate::schema::{ShapeChange, TableName, TableSchema};
use crate::source::{CopyFormat, CopyStream};
use parallel::{Parallel, Worker};
use state::{Lease, Routing, State};

pub use any::{AnyApplier, AnyTarget};

/// The worker of tables that are copied beside the stream.
pub const SIDE: i32 = -1;

/// Changes that become one target transaction, or a part of one.
#[derive(Debug)]
pub struct Batch {
    /// The events, from a Begin (or from where the last part ended) to a Commit (or to where the next part goes on).
    /// Tables and rows are in the target's shape.
    pub events: Vec<ChangeEvent>,
    /// Where it ends.
    pub end: BatchEnd,
    /// Whether an update or delete may find no row without that being a divergence: while the stream has not passed the
    /// place where the last copy ended, a TRUNCATE may have hidden rows from the copy (TRAPS 7).
    pub tolerate_missing: bool,
}

/// Where a batch ends.
#[derive(Debug, Clone, PartialEq)]
pub enum BatchEnd {
    /// With a source commit: the target commits too.
    Commit {
        /// The checkpoint after it.
        position: Position,
        /// When the last transaction in it committed at the source.
        commit_time: Timestamp,
    },
    /// In the middle of a source transaction larger than a batch: the target transaction stays open (law 3).
    Open,
}

/// What an applied batch was.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    /// Set when the target has committed.
    pub durable: Option<Durable<Position>>,
    /// Source changes by table and operation, as they came, before folding.
    pub rows: HashMap<(TableName, Op), u64>,
    /// Source transactions that ended in it.
    pub transactions: u64,
    /// Updates and deletes that found another number of rows than they should (by default an error, so 0).
    pub divergences: u64,
    /// Rows written to the dead letters.
    pub dead_letters: u64,
    /// Whether it had to be replayed row by row.
    pub replayed: bool,
    /// Nonce of the fence whose marker was in it.
    pub fence: Option<String>,
}

/// What loading one part did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Loaded {
    /// Rows written, as the target counted them.
    pub rows: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// How a part gets into its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadMode {
    /// It is the whole table: emptied, loaded (frozen where possible) and marked as copied in one target transaction.
    Whole,
    /// One of several parts: appended.
    Append,
    /// One of several ranges of the key: appended, and marked as copied in the same target transaction.
    Chunk(i32),
}

/// What a target shows of itself, to whoever asks for the status.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The server's version as it prints it.
    pub version: String,
    /// The target's clock.
    pub now: Timestamp,
    /// What waits for the cutover, in words: foreign keys and triggers that may not exist while changes are applied.
    pub waiting: Option<String>,
    /// Foreign keys that were made at the cutover and are not validated yet.
    pub not_validated: u64,
}

/// A target. Cheap to clone: it holds addresses, not connections.
pub trait Target: Clone + Send + Sync + 'static {
    /// Its applier.
    type Applier: Worker;

    /// `postgres new:5432/shop`, for people.
    fn label(&self) -> String;

    /// What it remembers about migrations.
    fn state(&self) -> &State;

    /// The tables of these names as they are here; `None` where there is none.
    fn tables(&self, names: &[TableName]) -> impl Future<Output = Result<Vec<Option<Arc<TableSchema>>>>> + Send;

    /// What `status` shows of it, asked on a connection of its own.
    fn standing(&self) -> impl Future<Output = Result<Standing>> + Send;

    /// Checks that the tables are empty, or empties them, as `existing` says; the refusal names each with its count.
    fn make_room(&self, tables: &[TableName], existing: Existing) -> impl Future<Output = Result<()>> + Send;

    /// Brings a table whose copy is still to come to another shape.
    fn alter(&self, table: &TableName, statements: &[&String]) -> impl Future<Output = Result<()>> + Send;

    /// How copied rows can be taken.
    fn copy_formats(&self) -> &'static [CopyFormat];

    /// Begins a table's copy in parts: empties it and marks it as being copied, in one transaction.
    fn begin_table(
        &self,
        lease: &Lease,
        source: &TableName,
        table: &Arc<TableSchema>,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Begins a table's copy in ranges of its key: empties it, marks it as being copied and records the ranges, in one
    /// transaction.
    fn begin_chunks(
        &self,
        lease: &Lease,
        source: &TableName,
        table: &Arc<TableSchema>,
        map: &ChunkMap,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Loads one part. `columns` are names at the target, in the order of the stream. `copied_at` is the snapshot's
    /// position, recorded with [`LoadMode::Whole`] in the same transaction.
    #[allow(clippy::too_many_arguments, reason = "one call a table part; a struct would only rename the arguments")]
    fn load(
        &self,
        lease: &Lease,
        source: &TableName,
        table: &Arc<TableSchema>,
        columns: &[String],
        format: CopyFormat,
        mode: LoadMode,
        copied_at: &Position,
        stream: CopyStream,
    ) -> impl Future<Output = Result<Loaded>> + Send;

    /// Marks a table copied in parts as complete at `copied_at`; one copied in ranges of its key, at the newest of them.
    fn finish_table(
        &self,
        lease: &Lease,
        source: &TableName,
        copied_at: &Position,
        rows: u64,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Opens an applier of this lease: 0 is the stream's, which may have others beside it, [`SIDE`] that of tables that
    /// catch up. It reads its checkpoint itself ([`Applier::checkpoint`]).
    fn worker(
        &self,
        lease: &Lease,
        config: &ApplyConfig,
        number: i32,
    ) -> impl Future<Output = Result<Self::Applier>> + Send;

    /// The stream's applier, if it is alone.
    fn applier(&self, lease: &Lease, config: &ApplyConfig) -> impl Future<Output = Result<Self::Applier>> + Send {
        self.worker(lease, config, 0)
    }

    /// The appliers of the stream that this routing says.
    fn workers(
        &self,
        lease: &Lease,
        config: &ApplyConfig,
        routing: &Routing,
    ) -> impl Future<Output = Result<Parallel<Self::Applier>>> + Send {
        async {
            let others = (1..routing.workers()).map(|worker| self.worker(lease, config, worker as i32));
            let (lead, others) = tokio::try_join!(self.applier(lease, config), futures::future::try_join_all(others))?;
            Ok(Parallel::new(lead, others, routing.by_target()))
        }
    }
}

/// Applies batches on one connection of its own.
pub trait Applier: Send {
    /// The checkpoint as it was read when the applier was opened, or as of its last commit.
    fn checkpoint(&self) -> Durable<Position>;

    /// Applies a batch. After an error the applier is of no use any more: open a new one, which reads the checkpoint
    /// again (TRAPS 2).
    fn apply(&mut self, batch: Batch) -> impl Future<Output = Result<Applied>> + Send;

    /// Brings tables to another shape, between two batches.
    fn alter(&mut self, changes: &[Arc<ShapeChange>]) -> impl Future<Output = Result<()>> + Send;

    /// Moves the checkpoint on over log that holds nothing for us.
    fn advance(&mut self, to: &Position) -> impl Future<Output = Result<Durable<Position>>> + Send;
}
