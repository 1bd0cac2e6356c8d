//! From frames of the replication stream to events.
//!
//! In: complete frames as one slice of the read buffer. Out: [`ChangeEvent`]s whose rows are slices of it, and what the
//! keepalives between them said ([`Said`]). Knows the tables as they were given at the start, and says so when the
//! stream's differ ([`super::relation`]).

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use jiff::Timestamp;

use super::heartbeat::PREFIX;
use super::pgoutput::{self, Message as Wal, OldRow, PgMicros, Relation};
use super::relation;
use crate::change::{Begin, ChangeEvent, Commit, Datum, Lsn, Message, Op, Row, RowChange, Truncate};
use crate::error::{Error, Kind, Result};
use crate::postgres::server_error;
use crate::schema::TableSchema;

/// Seconds from 1970 to 2000, where Postgres' clock starts.
const PG_EPOCH: i64 = 946_684_800;

/// What a relation's id in the stream stands for.
#[derive(Debug, Clone)]
enum Known {
    Table(Arc<TableSchema>),
    /// `cutwater.fence`: where its columns `migration`, `nonce` and `state` are.
    Fence([usize; 3]),
    /// Published, but no longer part of the migration.
    Ignored,
}

/// What the keepalives among some frames said.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Said {
    /// The server wants to hear from us at once.
    pub reply_requested: bool,
    /// The source has nothing for us before this place, and no transaction is open.
    pub idle: Option<Lsn>,
    /// How old the newest commit among them was when the server sent it, in microseconds: by one clock, the server's.
    pub age: Option<i64>,
}

/// Turns frames into events.
pub(super) struct Assembler {
    migration: String,
    tables: Vec<Arc<TableSchema>>,
    relations: HashMap<u32, Known>,
    /// The relation of the last row: rows of one table follow each other.
    last: Option<(u32, Arc<TableSchema>)>,
    /// Whether relations were met that are no part of the migration.
    ignores: bool,
    in_transaction: bool,
    /// When the server sent the message being looked at.
    sent: PgMicros,
}

impl Assembler {
    pub(super) fn new(migration: &str, tables: &[Arc<TableSchema>]) -> Assembler {
        Assembler {
            migration: migration.to_owned(),
            tables: tables.to_vec(),
            relations: HashMap::new(),
            last: None,
            ignores: false,
            in_transaction: false,
            sent: 0,
        }
    }

    /// Decodes complete frames. On an error `events` holds what came before it.
    pub(super) fn feed(&mut self, mut frames: Bytes, events: &mut Vec<ChangeEvent>) -> Result<Said> {
        let mut said = Said::default();
        while frames.len() >= 5 {
            let tag = frames.get_u8();
            let length = (frames.get_u32() as usize).saturating_sub(4);
            if length > frames.len() {
                return Err(Error::new(Kind::Protocol, "a frame of the replication stream is cut short"));
            }
            match tag {
                b'd' => self.copy_data(&mut frames, length, events, &mut said)?,
                b'E' => return Err(for_good(server_error(&frames[..length]))),
                b'c' => return Err(Error::new(Kind::Connection, "the source ended the stream: it is shutting down")),
                _ => frames.advance(length),
            }
        }
        Ok(said)
    }

    /// `XLogData` or `Primary keepalive message`.
    /// <https://www.postgresql.org/docs/current/protocol-replication.html>
    #[inline]
    fn copy_data(
        &mut self,
        frames: &mut Bytes,
        length: usize,
        events: &mut Vec<ChangeEvent>,
        said: &mut Said,
    ) -> Result<()> {
        match frames.first() {
            // start of the data, end of the WAL, clock
            Some(b'w') if length > 25 => {
                frames.advance(17);
                self.sent = frames.get_i64();
                self.message(frames, length - 25, events, said)
            }
            // Nothing in it: a server of version 13 announces the origin of a transaction so, when it cannot name it.
            Some(b'w') if length == 25 => {
                frames.advance(25);
                Ok(())
            }
            Some(b'k') if length == 18 => {
                frames.advance(1);
                let end = Lsn(frames.get_u64());
                frames.advance(8);
                said.reply_requested |= frames.get_u8() == 1;
                if !self.in_transaction {
                    said.idle = Some(end);
                }
                Ok(())
            }
            _ => Err(Error::new(
                Kind::Protocol,
                "the replication stream holds something that is neither WAL nor keepalive",
            )),
        }
    }

    #[inline]
    fn message(
        &mut self,
        frames: &mut Bytes,
        length: usize,
        events: &mut Vec<ChangeEvent>,
        said: &mut Said,
    ) -> Result<()> {
        // Beside the stream nearly everything is of tables that it does not follow: not taken apart.
        if self.ignores
            && let Some([b'I' | b'U' | b'D', id @ ..]) = frames.get(..length.min(5))
            && let Ok(id) = <[u8; 4]>::try_from(id).map(u32::from_be_bytes)
            && self.last.as_ref().is_none_or(|(last, _)| *last != id)
            && matches!(self.relations.get(&id), Some(Known::Ignored))
        {
            frames.advance(length);
            return Ok(());
        }
        match pgoutput::decode(frames, length)? {
            Wal::Insert { relation, new } => self.row(relation, Op::Insert, None, Some(new), events)?,
            Wal::Update { relation, old, new } => self.row(relation, Op::Update, old, Some(new), events)?,
            Wal::Delete { relation, old } => self.row(relation, Op::Delete, Some(old), None, events)?,
            Wal::Begin { final_lsn, commit_time, xid } => {
                self.in_transaction = true;
                said.idle = None;
                let commit_time = timestamp(commit_time)?;
                events.push(ChangeEvent::Begin(Begin { xid, commit_start: final_lsn.into(), commit_time }));
            }
            Wal::Commit { end_lsn, commit_time, .. } => {
                self.in_transaction = false;
                said.age = Some(self.sent.saturating_sub(commit_time));
                let commit_time = timestamp(commit_time)?;
                events.push(ChangeEvent::Commit(Commit { end: end_lsn.into(), commit_time }));
            }
            Wal::Relation(relation) => self.relation(&relation, events)?,
            Wal::Truncate { relations, restart_identity, .. } => self.truncate(&relations, restart_identity, events),
            // It comes in its place in the log: what was committed before it has been sent.
            Wal::Logical { transactional: false, lsn, prefix, .. } if prefix == PREFIX && !self.in_transaction => {
                said.idle = said.idle.max(Some(lsn));
            }
            Wal::Logical { transactional: true, prefix, content, .. } if self.in_transaction => {
                events.push(ChangeEvent::Message(Message::Other { prefix, content }));
            }
            Wal::Logical { .. } | Wal::Type { .. } | Wal::Origin { .. } => {}
            // Never asked for: see `pgoutput`.
            Wal::StreamStart { .. }
            | Wal::StreamStop
            | Wal::StreamCommit { .. }
            | Wal::StreamAbort { .. }
            | Wal::StreamPrepare(_) => return Err(not_asked_for("in pieces, while it runs")),
            Wal::BeginPrepare(_) | Wal::Prepare(_) | Wal::CommitPrepared { .. } | Wal::RollbackPrepared { .. } => {
                return Err(not_asked_for("when it is prepared"));
            }
        }
        Ok(())
    }

    #[inline]
    fn row(
        &mut self,
        id: u32,
        op: Op,
        old: Option<OldRow>,
        new: Option<Row>,
        events: &mut Vec<ChangeEvent>,
    ) -> Result<()> {
        let table = match &self.last {
            Some((last, table)) if *last == id => Arc::clone(table),
            _ => match self.relations.get(&id) {
                Some(Known::Table(table)) => {
                    self.last = Some((id, Arc::clone(table)));
                    Arc::clone(table)
                }
                Some(Known::Fence(columns)) => {
                    if let Some(message) = new.and_then(|row| self.fence(&row, *columns)) {
                        events.push(ChangeEvent::Message(message));
                    }
                    return Ok(());
                }
                Some(Known::Ignored) => return Ok(()),
                None => {
                    return Err(Error::new(
                        Kind::Protocol,
                        format!("a row of relation {id}, which was never described"),
                    ));
                }
            },
        };
        let fields = table.columns.len();
        let fits = |row: &Row| row.len() == fields;
        if !old.iter().all(|old| fits(&old.row)) || !new.iter().all(fits) {
            return Err(Error::new(Kind::Protocol, format!("a row of {} has not {fields} fields", table.name)));
        }
        let (old, old_is_key_only) = old.map_or((None, false), |old| (Some(old.row), old.key_only));
        events.push(ChangeEvent::Row(RowChange { table, op, old, old_is_key_only, new }));
        Ok(())
    }

    fn truncate(&self, ids: &[u32], restart_identity: bool, events: &mut Vec<ChangeEvent>) {
        let tables: Vec<_> = ids
            .iter()
            .filter_map(|id| match self.relations.get(id) {
                Some(Known::Table(table)) => Some(Arc::clone(table)),
                _ => None,
            })
            .collect();
        if !tables.is_empty() {
            let (conditions, elsewhere) = (Vec::new(), Vec::new());
            events.push(ChangeEvent::Truncate(Truncate { tables, restart_identity, conditions, elsewhere }));
        }
    }

    fn relation(&mut self, seen: &Relation, events: &mut Vec<ChangeEvent>) -> Result<()> {
        self.last = None;
        let known = if (seen.schema.as_str(), seen.name.as_str()) == ("cutwater", "fence") {
            let column = |name| {
                seen.columns.iter().position(|column| column.name == name).ok_or_else(|| {
                    Error::new(Kind::Schema, format!("the source's cutwater.fence has no column {name}"))
                })
            };
            Known::Fence([column("migration")?, column("nonce")?, column("state")?])
        } else {
            match relation::find(&self.tables, seen) {
                Some(given) => match relation::differing(given, seen) {
                    None => Known::Table(Arc::clone(given)),
                    Some(new) => {
                        let new = Arc::new(new);
                        events.push(ChangeEvent::Schema(Arc::clone(&new)));
                        Known::Table(new)
                    }
                },
                None => {
                    tracing::debug!(schema = seen.schema, table = seen.name, "not part of the migration: passed over");
                    self.ignores = true;
                    Known::Ignored
                }
            }
        };
        self.relations.insert(seen.id, known);
        Ok(())
    }

    /// The marker of our own fence, if this row of `cutwater.fence` is one.
    fn fence(&self, row: &Row, [migration, nonce, state]: [usize; 3]) -> Option<Message> {
        let text = |index| row.get(index).and_then(Datum::bytes);
        if text(migration)? != self.migration.as_bytes() || text(state)? != b"armed" {
            return None;
        }
        Some(Message::Fence { nonce: String::from_utf8_lossy(text(nonce)?).into_owned() })
    }
}

fn not_asked_for(how: &str) -> Error {
    Error::new(Kind::Protocol, format!("the source sends a transaction {how}, which was not asked for"))
}

fn timestamp(micros: PgMicros) -> Result<Timestamp> {
    micros
        .checked_add(PG_EPOCH * 1_000_000)
        .and_then(|micros| Timestamp::from_microsecond(micros).ok())
        .ok_or_else(|| Error::new(Kind::Protocol, format!("a commit time of {micros} µs is out of range")))
}

/// A row that is too large for a message stays in the log, whatever becomes of it at the source.
fn for_good(error: Error) -> Error {
    if error.suggestion().is_some_and(|fix| fix.contains("more than 1 GB")) {
        return Error::new(error.kind(), error.why()).fix(
            "a change that made a row of more than 1 GB is in the log, and no stream gets past it: find the row by the \
             octet_length of its columns and make it smaller at the source; then cutwater teardown, and cutwater run copies \
             everything anew",
        );
    }
    error
}
