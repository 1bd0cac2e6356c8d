//! The model that every stage speaks: positions, rows, changes.
//!
//! A [`ChangeEvent`] flows from a source's stream through transform and batcher to a target's applier. Its values stay
//! the bytes they arrived as: a [`Row`] is a slice of the received frame, and a [`Datum`] a borrowed view of one field.
//! Nothing here knows a server; nothing here decodes a value.

mod budget;
mod chunks;
mod event;
mod position;
mod row;

pub use budget::{Budget, Share};
pub use chunks::{Chunk, ChunkMap, Verdict, beginning_of, end_of};
pub use event::{Begin, ChangeEvent, Commit, Message, Op, RowChange, Truncate};
pub use position::{
    BinlogPlace, BinlogPosition, CommitStart, Durable, Gtid, GtidSet, Interval, LogFiles, Lsn, MariaGtid, MariaGtidSet,
    Position, Tsid,
};
pub use row::{Datum, Fields, Row, RowBuilder};
