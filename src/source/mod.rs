//! Where changes come from.
//!
//! Out of a source flow, in this order: the tables it has ([`Source::tables`]), a [`Snapshot`] of them consistent at one
//! position, and the [`ChangeStream`] from that position on. Back into it flows only the durable position
//! ([`ChangeStream::confirm`], law 1). A source never waits for a target: when the budget is used up it stops reading
//! and keeps answering the server. Nothing here knows a target, a rule or a batch.
//!
//! Whoever uses a source holds an [`AnySource`], which the scheme of the URL chooses, and names no engine. So what only
//! one engine has is asked for by what is wanted of it, and every question of that kind has an answer that is right for
//! an engine which has nothing of it:
//!
//! | wanted | Postgres | an engine without it |
//! |---|---|---|
//! | a durable reading position ([`Source::slot`]) | the replication slot | how far back its log goes: `confirmed` is what was purged |
//! | that the stream carried every change ([`Source::memberships`], [`Source::unbroken`]) | the publication's rows | its log is of everything |
//! | what is done to a part of a table as a whole ([`Source::leaves`]) | partitions | it is in the stream |
//! | columns beyond their description ([`Source::facts`]) | catalogue numbers, files | names alone |
//! | a value the stream left out ([`Source::reread`]) | TOAST | its stream carries every value |
//! | values in the engine's binary form ([`Source::set_binary`]) | `binary 'true'` | there is one form |
//! | a head that holds what was just seen ([`Source::head_of_seen`]) | asynchronous commits | the head |

mod any;
pub mod fence;
mod membership;
pub mod mysql;
pub mod postgres;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::change::{Budget, ChangeEvent, Chunk, Durable, LogFiles, Position, Row, Share};
use crate::error::{Error, Kind, Result};
use crate::schema::{Facts, Leaves, Patterns, TableName, TableSchema};

pub use any::{AnySnapshot, AnySource, AnyStream};
pub use fence::AnyFence;
pub use membership::Membership;

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

/// What a source shows of itself and of what it keeps for us, to whoever asks for the status.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The server's version as it prints it.
    pub version: String,
    /// Where its log ends, and what it keeps.
    pub head: Head,
    /// What was confirmed to the slot last.
    pub confirmed: Option<Position>,
    /// Seconds for which sessions of ours have kept it from cleaning up old rows.
    pub vacuum_held_seconds: Option<f64>,
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
    type Snapshot: Snapshot<Stream = Self::Stream>;

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

    /// The slot of this migration, if it exists. For an engine without slots: what of its log is still there.
    fn slot(&self) -> impl Future<Output = Result<Option<SlotState>>> + Send;

    /// Whether the slot is there without us: an administrator made it, or the engine keeps its log for everybody. It is
    /// used, and neither made nor dropped.
    fn slot_is_given(&self) -> bool {
        false
    }

    /// How somebody drops the slot by hand; empty where there is none.
    fn drop_slot_by_hand(&self) -> &'static str {
        ""
    }

    /// Creates the slot and exports the snapshot of its consistent point: no gap, no overlap. Logs, by pid and age, the
    /// transactions it has to wait for.
    fn create_slot(&self) -> impl Future<Output = Result<Self::Snapshot>> + Send;

    /// Exports a snapshot at a later, exactly known position, from a temporary slot (TRAPS 6).
    fn temporary_snapshot(&self) -> impl Future<Output = Result<Self::Snapshot>> + Send;

    /// The existing rows as they are now, for a look: nothing is made at the source, and the position is only about.
    fn snapshot_of_now(&self) -> impl Future<Output = Result<Self::Snapshot>> + Send;

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

    /// A position that every transaction visible so far lies before: the head alone may not be one.
    fn head_of_seen(&self) -> impl Future<Output = Result<Position>> + Send {
        async { Ok(self.head().await?.position) }
    }

    /// Writes something harmless into the source's log, where the stream will meet it, so that a slot with nothing to read
    /// moves on while the rest of the server is busy. Where it ended; `None` where it would be of no use or may not be.
    fn heartbeat(&self) -> impl Future<Output = Result<Option<Position>>> + Send;

    /// What `status` shows of it, asked on a connection of its own.
    fn standing(&self) -> impl Future<Output = Result<Standing>> + Send {
        async {
            let version = self.identity().await?.version;
            let confirmed = self.slot().await?.map(|slot| slot.confirmed);
            Ok(Standing { version, confirmed, head: self.head().await?, vacuum_held_seconds: None })
        }
    }

    /// What [`Source::teardown`] would remove.
    fn made(&self) -> impl Future<Output = Result<Vec<String>>> + Send;

    /// Removes everything of this migration from the source and says what was removed. What is not there is no error.
    /// The fence is removed too.
    fn teardown(&self) -> impl Future<Output = Result<Vec<String>>> + Send;

    /// Whether streams started from now on carry values in the engine's binary form: only where every migrated column
    /// means the same at the target, which the source cannot know and the caller does. Returns what it will be.
    fn set_binary(&self, binary: bool) -> bool {
        self.may_be_binary(binary)
    }

    /// The same for a stream beside the others.
    fn may_be_binary(&self, binary: bool) -> bool {
        let _ = binary;
        false
    }

    /// Streams started from now on carry text, whatever [`Source::set_binary`] says: an older or newer shape of a table
    /// holds what cannot travel in binary form.
    fn require_text(&self) {}

    /// By what each of the tables with these ids gets into the stream. An error if one does not, or not whole.
    fn memberships(&self, ids: &[u32]) -> impl Future<Output = Result<HashMap<u32, Membership>>> + Send {
        let _ = ids;
        async { Ok(HashMap::new()) }
    }

    /// The error that names those of `tables` that the stream may lack changes of: what makes them get into it is `now`
    /// something else than what was `recorded`.
    fn unbroken(
        &self,
        tables: &HashMap<u32, TableName>,
        recorded: &HashMap<TableName, Membership>,
        now: &HashMap<u32, Membership>,
    ) -> Result<()> {
        let _ = (tables, recorded, now);
        Ok(())
    }

    /// The parts of these tables to which something can be done as a whole that no stream tells of.
    fn leaves(&self, tables: &HashMap<u32, TableName>) -> impl Future<Output = Result<Leaves>> + Send {
        let _ = tables;
        async { Ok(Leaves::default()) }
    }

    /// Which of these parts hold nothing at all; none if that cannot be told without waiting for a lock.
    fn empty(&self, ids: &[u32]) -> impl Future<Output = Result<Vec<u32>>> + Send {
        let _ = ids;
        async { Ok(Vec::new()) }
    }

    /// What the catalogue says about the columns of these tables beyond their description, by id.
    fn facts(&self, ids: &[u32]) -> impl Future<Output = Result<HashMap<u32, Facts>>> + Send {
        let _ = ids;
        async { Ok(HashMap::new()) }
    }

    /// A fingerprint of the columns, keys and names of these tables: another one says that something was altered. And a
    /// place in the log after which the stream knows them like that. An error if the stream no longer has them whole.
    fn look(&self, ids: &[u32]) -> impl Future<Output = Result<(String, Position)>> + Send;

    /// What the table with this id is called now; `None` if it is gone.
    fn name_of(&self, id: u32) -> impl Future<Output = Result<Option<TableName>>> + Send;

    /// Completes `row` of `table`, which transaction `xid` wrote and the stream sent in part.
    fn reread(&self, table: &TableSchema, row: &Row, xid: u32) -> impl Future<Output = Result<Reread>> + Send {
        let _ = (row, xid);
        let why = format!("a row of {} came in part, and cannot be read again", table.name);
        async { Err(Error::new(Kind::Protocol, why)) }
    }
}

/// A row that was read again.
#[derive(Debug)]
pub struct Reread {
    /// The row, complete; `None`: it is not there under this key any more.
    pub row: Option<Row>,
    /// Every change that made it differ from what the stream told is in the log before this place. `None`: it does not
    /// differ.
    pub changed_before: Option<Position>,
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
    /// Rows in the layout of [`Row`], one behind the other: what ends of different engines understand alike. Chunks are
    /// cut between rows only.
    Rows,
}

/// Bytes of a copy, cut anywhere (but see [`CopyFormat::Rows`]), with the number of rows that end in them.
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
    /// The stream that goes on from it.
    type Stream: ChangeStream;

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

    /// How copied rows can be given. A target says the same of what it takes, and the pair picks.
    fn copy_formats(&self) -> &'static [CopyFormat];

    /// Reads a part: the columns at `columns` of the table, in that order. One source transaction a part (TRAPS 10).
    fn copy(
        &self,
        part: &Part,
        columns: &[usize],
        format: CopyFormat,
    ) -> impl Future<Output = Result<CopyStream>> + Send;

    /// The changes of `tables` from its position on, as a stream beside the migration's own; `binary` is what
    /// [`Source::may_be_binary`] said. Only of a [`Source::temporary_snapshot`], which it ends: no gap, no overlap.
    fn follow(
        &self,
        tables: &[Arc<TableSchema>],
        budget: &Budget,
        binary: bool,
    ) -> impl Future<Output = Result<Self::Stream>> + Send;
}
