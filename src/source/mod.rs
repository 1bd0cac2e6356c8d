//! Where changes come from.
//!
//! Out of a source flow, in this order: the tables it has ([`Source::tables`]), a [`Snapshot`] of them consistent at one
//! position, and the [`ChangeStream`] from that position on. Back into it flows only the durable position
//! ([`ChangeStream::confirm`], law 1). A source never waits for a target: when the budget is used up it stops reading
//! and keeps answering the server. Nothing here knows a target, a rule or a batch.

pub mod postgres;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::change::{Budget, ChangeEvent, Chunk, Durable, LogFiles, Position, Share};
use crate::error::Result;
use crate::schema::{Patterns, TableName, TableSchema};

/// Who the source is. Stored with the checkpoint: a position means nothing on another server or timeline (TRAPS 2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceIdentity {
    /// `postgres`.
    pub engine: String,
    /// The server's version as it prints it (`15.8`).
    pub version: String,
    /// Postgres: `pg_control_system().system_identifier`.
    pub system_id: String,
    /// Postgres: the timeline.
    pub timeline: u32,
    /// The database.
    pub database: String,
}

/// Where the source's log ends, and what it keeps for us, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// The end of the log that a reader can get (Postgres: the flush LSN).
    pub position: Position,
    /// The files of its log, where it is made of files that positions name: what is between two positions in bytes.
    pub files: LogFiles,
    /// The source's clock.
    pub time: Timestamp,
    /// Bytes of log kept for our slot; `None` without a slot.
    pub retained_bytes: Option<u64>,
    /// Postgres: `wal_status` of the slot (`reserved`, `extended`, `unreserved`, `lost`).
    pub slot_status: Option<String>,
    /// Bytes of log at which the server itself gives the slot up (Postgres: `max_slot_wal_keep_size`, which is asked of
    /// the server as `safe_wal_size`); `None` if it never does.
    pub server_limit_bytes: Option<u64>,
}

/// A durable reading position that the source keeps for us.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotState {
    /// What was confirmed to it last.
    pub confirmed: Position,
    /// The process reading it, if any (Postgres: backend pid).
    pub active_pid: Option<i32>,
    /// Whether the server has thrown away log it needed.
    pub lost: bool,
}

/// A source of changes. Cheap to clone: it holds addresses, not connections.
pub trait Source: Clone + Send + Sync + 'static {
    /// Its stream.
    type Stream: ChangeStream;
    /// Its snapshot.
    type Snapshot: Snapshot;

    /// `postgres old:5432/shop`, for people.
    fn label(&self) -> String;

    /// Who it is.
    fn identity(&self) -> impl Future<Output = Result<SourceIdentity>> + Send;

    /// The tables that match, in name order, with their keys as the stream will report them. Partitions are part of
    /// their parent.
    fn tables(&self, patterns: &Patterns) -> impl Future<Output = Result<Vec<Arc<TableSchema>>>> + Send;

    /// Makes what must exist before the slot: the publication over `tables`, the marker table of the fence. May be run
    /// again.
    fn prepare(&self, tables: &[Arc<TableSchema>]) -> impl Future<Output = Result<()>> + Send;

    /// The slot of this migration, if it exists.
    fn slot(&self) -> impl Future<Output = Result<Option<SlotState>>> + Send;

    /// Creates the slot and exports the snapshot of its consistent point: no gap, no overlap. Logs, by pid and age, the
    /// transactions it has to wait for.
    fn create_slot(&self) -> impl Future<Output = Result<Self::Snapshot>> + Send;

    /// Exports a snapshot at a later, exactly known position, from a temporary slot (TRAPS 6).
    fn temporary_snapshot(&self) -> impl Future<Output = Result<Self::Snapshot>> + Send;

    /// Drops the slot, if it exists.
    fn drop_slot(&self) -> impl Future<Output = Result<()>> + Send;

    /// Starts the stream at `from`: the next event is the first transaction whose commit starts at or after it.
    /// `tables` are the migrated tables as [`Source::tables`] gave them. The caller holds the lease: a predecessor that
    /// still reads the slot is ended.
    fn stream(
        &self,
        from: &Position,
        tables: &[Arc<TableSchema>],
        budget: &Budget,
    ) -> impl Future<Output = Result<Self::Stream>> + Send;

    /// The head now.
    fn head(&self) -> impl Future<Output = Result<Head>> + Send;

    /// Writes something harmless into the source's log, where the stream will meet it, so that a slot with nothing to read
    /// moves on while the rest of the server is busy. Where it ended; `None` where it would be of no use or may not be.
    fn heartbeat(&self) -> impl Future<Output = Result<Option<Position>>> + Send;

    /// Removes everything of this migration from the source and says what was removed. What is not there is no error.
    /// The fence is removed too.
    fn teardown(&self) -> impl Future<Output = Result<Vec<String>>> + Send;
}

/// What a stream gives.
#[derive(Debug)]
pub enum StreamItem {
    /// A run of events as they came; it may start and end in the middle of a transaction.
    Events(EventChunk),
    /// Up to here the source has nothing for us that was not given already. Never inside a transaction.
    Idle(Position),
}

/// Some events and their share of the budget.
#[derive(Debug)]
pub struct EventChunk {
    /// The events, in order.
    pub events: Vec<ChangeEvent>,
    /// Bytes they hold on to.
    pub bytes: usize,
    /// How old the newest commit among them was when the source sent it: whether there is a backlog. Zero without one.
    pub age: Duration,
    /// Their share of the budget; dropped once they are applied.
    pub share: Share,
}

/// A running stream. Dropping it ends it.
pub trait ChangeStream: Send {
    /// The next item. Cancel-safe.
    fn next(&mut self) -> impl Future<Output = Result<StreamItem>> + Send;

    /// Confirms to the source that everything up to `durable` may be forgotten. Never blocks; sent within a second.
    fn confirm(&self, durable: &Durable<Position>);

    /// Sends the last confirmation and ends the stream cleanly.
    fn close(self) -> impl Future<Output = Result<()>> + Send;
}

/// How copied rows look on the wire between a source and a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyFormat {
    /// Postgres `COPY … (FORMAT binary)`.
    PgBinary,
    /// Postgres `COPY … (FORMAT text)`.
    PgText,
}

/// Bytes of a copy, cut anywhere, with the number of rows that end in them.
#[derive(Debug, Clone)]
pub struct CopyChunk {
    /// The bytes.
    pub bytes: Bytes,
    /// Rows that end in them.
    pub rows: u64,
}

/// The rows of a [`Part`].
pub type CopyStream = Pin<Box<dyn Stream<Item = Result<CopyChunk>> + Send>>;

/// A piece of a table that is copied in one go.
#[derive(Debug, Clone)]
pub struct Part {
    /// The table it is of.
    pub table: Arc<TableSchema>,
    /// The `FROM` and `WHERE` that select it, written by the source for itself.
    pub selection: String,
    /// Estimated rows in it.
    pub rows: u64,
    /// Its number, if the table is copied in ranges of its key that remember where each was read.
    pub chunk: Option<i32>,
}

/// The existing rows, consistent at one position. Dropping it lets the source forget it.
pub trait Snapshot: Send + Sync + 'static {
    /// The position: it holds every transaction whose commit starts below it, and no other.
    fn position(&self) -> &Position;

    /// Why a copy of this table does not move, if it does not: `a lock: pid 8812, ALTER TABLE, role billing, 14 m`.
    fn waits_for(&self, table: &TableName) -> Option<String> {
        let _ = table;
        None
    }

    /// Cuts a table into parts of about `chunk_rows`; together they are the table. One part where it cannot be cut.
    fn parts(&self, table: &Arc<TableSchema>, chunk_rows: u64) -> impl Future<Output = Result<Vec<Part>>> + Send;

    /// A column of the table's key whose ranges can be read apart, and keys between which there are about `chunk_rows`;
    /// `None` if there is no such column.
    fn key_bounds(
        &self,
        table: &Arc<TableSchema>,
        chunk_rows: u64,
    ) -> impl Future<Output = Result<Option<(String, Vec<i64>)>>> + Send;

    /// The part that is this range of the table's key.
    fn key_range(&self, table: &Arc<TableSchema>, column: &str, chunk: &Chunk) -> Part;

    /// Reads a part: the columns at `columns` of the table, in that order. One source transaction a part (TRAPS 10).
    fn copy(
        &self,
        part: &Part,
        columns: &[usize],
        format: CopyFormat,
    ) -> impl Future<Output = Result<CopyStream>> + Send;
}
