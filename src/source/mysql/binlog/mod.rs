//! Events of a binlog, of MySQL 5.6 to 9 and MariaDB 10 and 11, from their bytes.
//!
//! In flows one event at a time as [`Bytes`](bytes::Bytes), from a file or from a replication stream, with the
//! [`FormatDescription`] in force. Out flow typed [`Event`]s that share those bytes, and from the row events rows in the
//! pipeline's layout: text as the server itself prints it in UTF-8 and UTC, raw bytes for binary types, `Unchanged` for
//! what a MINIMAL or NOBLOB image leaves out.
//!
//! ```text
//! bytes ─► Event::decode ─┬─ TableMap ─► layout(hints) ─► [ColumnLayout]
//!                         ├─ Rows ─────► images() ─► RowReader::next ─► before, after: Row
//!                         ├─ Payload ──► events() ─► bytes ─► Event::decode …
//!                         └─ Gtid, Query, Xid, Rotate …
//! ```
//!
//! Nothing here has a connection, knows a position, or keeps what it saw: which table map belongs to which rows, where a
//! transaction ends, and what a statement in the log means is the reader's.
//!
//! What can go wrong: the bytes are damaged, cut short, or of a kind that is not known (`Protocol`); the log itself says
//! that changes are missing (`SlotLost`); neither log nor catalogue tells a column's sign, character set or labels
//! (`Schema`); a text holds bytes that its character set does not define (the caller's [`OnInvalid`] decides). Lengths
//! come from the wire: they are checked against what is there before anything is allocated by them.

mod charset;
mod compressed;
mod control;
mod cursor;
mod event;
mod field;
mod fixed;
mod format;
mod gtid;
mod header;
mod json;
mod layout;
mod metadata;
mod number;
mod payload;
mod query;
mod rows;
mod table_map;
mod tagged;
mod temporal;

pub use charset::{Charset, Undecodable};
pub use control::{Heartbeat, Rotate, Statement, XaId, XaPrepare};
pub use event::Event;
pub use field::{InvalidText, OnInvalid, Present, Substitute, refuse_invalid, write_row};
pub use format::{Checksum, FormatDescription};
pub use gtid::{GtidInterval, MariaAlter, MariaGtidEvent, MariaXa, MySqlGtid};
pub use header::{CHECKSUM_LENGTH, EventHeader, HEADER_LENGTH, RawEvent, kind, kind_name};
pub use layout::{ColumnHint, ColumnLayout, Fixed};
pub use metadata::{Labels, TableMetadata};
pub use payload::{PayloadEvents, TransactionPayload};
pub use query::{Query, StatusVars};
pub use rows::{Images, RowImages, RowReader, Rows, RowsKind};
pub use table_map::{MappedColumn, TableMap, column_type};
