//! Loads the parts of a snapshot.
//!
//! In: rows as the source reads them. Out: rows in the table, by `LOAD DATA LOCAL INFILE` ([`super::infile`]) or, where the
//! server does not allow that (`local_infile = OFF`, as managed services have it), by INSERTs of many rows; and in the same
//! target transaction the mark in `cutwater.table_state` by which a successor knows that they are there. Every such
//! transaction begins by locking that row under the lease's epoch (TRAPS 1): for a whole table alone, for one of several
//! parts together with the others, which run side by side. A load that fails leaves nothing; one that the server warned of
//! has failed, for then a value or a row is not what the source has.
//!
//! Tables are emptied by DELETE: a TRUNCATE commits by itself, so nothing would keep a process that wakes up late from
//! emptying what its successor has filled. A large table is emptied in portions, each a transaction of its own under the
//! same lock, and is known as half-copied meanwhile.

use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;

use super::infile;
use super::session::{self, Expected, Failure, Script, warning};
use super::sql::Writer;
use super::tables::{Entry, Tables, no_table};
use crate::change::{ChunkMap, Position, Row};
use crate::config::Existing;
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{MyConnInfo, Session, my_table};
use crate::schema::TableName;
use crate::source::CopyStream;
use crate::target::state::{Lease, fenced};
use crate::target::{LoadMode, Loaded};

/// Up to this size a table is emptied in the transaction that fills it again: whoever reads it sees the old rows until the
/// new ones are there.
const AT_ONCE_BYTES: u64 = 1 << 30;
/// Rows of a portion otherwise.
const PORTION: u64 = 50_000;

/// What identifies a table's copy.
pub(super) struct Copying<'a> {
    pub info: &'a MyConnInfo,
    pub lease: &'a Lease,
    /// Name at the source, which names its row in the state.
    pub source: &'a TableName,
}

/// How a row of the state is locked.
#[derive(Clone, Copy)]
enum Lock {
    /// Alone.
    Alone,
    /// Beside others who do the same.
    Shared,
}

impl Copying<'_> {
    async fn session(&self) -> Result<Session> {
        session::open(self.info, &self.lease.migration).await
    }

    /// Begins a transaction.
    async fn begin_transaction(&self, session: &mut Session) -> Result<()> {
        let sql = session::begin(session);
        session.execute(sql).await.map(drop)
    }

    async fn commit(&self, session: &mut Session) -> Result<()> {
        let sql = session::commit(session);
        session.execute(sql).await.map(drop)
    }

    /// Locks the table's row of the state under our epoch; [`Kind::Fenced`] if that is over.
    async fn lock(&self, session: &mut Session, how: Lock) -> Result<()> {
        let how = match how {
            Lock::Alone => "FOR UPDATE",
            Lock::Shared => "LOCK IN SHARE MODE",
        };
        let sql = format!(
            "SELECT 1 FROM cutwater.table_state
              WHERE migration = ? AND source_schema = ? AND source_table = ? AND epoch = ? {how}"
        );
        let TableName { schema, table } = self.source;
        let rows = session.rows_with(sql, (&self.lease.migration, schema, table, self.lease.epoch)).await?;
        if rows.is_empty() { Err(fenced(self.lease)) } else { Ok(()) }
    }

    async fn mark_copying(&self, session: &mut Session) -> Result<()> {
        let sql = "UPDATE cutwater.table_state
                      SET stage = 'copying', started_at = SYSDATE(6), finished_at = NULL, copied_at = NULL, rows_final = NULL
                    WHERE migration = ? AND source_schema = ? AND source_table = ? AND epoch = ?";
        let TableName { schema, table } = self.source;
        let name = &self.lease.migration;
        if session.execute_with(sql, (name, schema, table, self.lease.epoch)).await? != 1 {
            return Err(fenced(self.lease));
        }
        let sql = "DELETE FROM cutwater.table_chunk WHERE migration = ? AND source_schema = ? AND source_table = ?";
        session.execute_with(sql, (name, schema, table)).await.map(drop)
    }

    /// Marks a range as copied, in its own transaction.
    async fn mark_chunk(&self, session: &mut Session, number: i32, at: &Position, rows: u64) -> Result<()> {
        let sql = "UPDATE cutwater.table_chunk SET copied_at = ?, `rows` = ?
                    WHERE migration = ? AND source_schema = ? AND source_table = ? AND number = ?
                      AND copied_at IS NULL";
        let TableName { schema, table } = self.source;
        let values = (at.to_string(), rows, &self.lease.migration, schema, table, number);
        if session.execute_with(sql, values).await? == 1 {
            return Ok(());
        }
        Err(Error::new(Kind::Internal, format!("range {number} of {} was copied already", self.source)))
    }

    /// Where the newest of the table's ranges was read, and their rows; `None` if it has no ranges. Ranges of one
    /// position need not be remembered: the table is one copy.
    async fn join_chunks(&self, session: &mut Session) -> Result<Option<(Position, u64)>> {
        let sql = "SELECT copied_at, sum(`rows`) FROM cutwater.table_chunk
                    WHERE migration = ? AND source_schema = ? AND source_table = ? GROUP BY copied_at";
        let TableName { schema, table } = self.source;
        let names = (&self.lease.migration, schema, table);
        let mut newest: Option<Position> = None;
        let mut rows = 0;
        let positions = session.rows_with(sql, names).await?;
        for row in &positions {
            let missing = || Error::new(Kind::Internal, format!("a range of {} was not copied", self.source));
            let at: Position = row.first().and_then(Option::as_deref).ok_or_else(missing)?.parse()?;
            rows += row.get(1).and_then(Option::as_deref).and_then(|rows| rows.parse::<u64>().ok()).unwrap_or(0);
            newest = Some(newest.filter(|newest| *newest > at).unwrap_or(at));
        }
        if positions.len() == 1 {
            let sql = "DELETE FROM cutwater.table_chunk WHERE migration = ? AND source_schema = ? AND source_table = ?";
            session.execute_with(sql, names).await?;
        }
        Ok(newest.map(|newest| (newest, rows)))
    }

    async fn mark_copied(&self, session: &mut Session, at: &Position, rows: u64) -> Result<()> {
        // Beside the running stream it only counts as copied once its own stream has brought it up to that.
        let sql = "UPDATE cutwater.table_state
                      SET stage = CASE WHEN side THEN 'catching-up' ELSE 'copied' END, copied_at = ?, rows_final = ?,
                          finished_at = SYSDATE(6), error = NULL
                    WHERE migration = ? AND source_schema = ? AND source_table = ? AND epoch = ?";
        let TableName { schema, table } = self.source;
        let values = (at.to_string(), rows, &self.lease.migration, schema, table, self.lease.epoch);
        if session.execute_with(sql, values).await? == 1 { Ok(()) } else { Err(fenced(self.lease)) }
    }

    /// Empties a large table in portions, before the transaction that goes on with it.
    async fn empty_first(&self, session: &mut Session, there: &Destination) -> Result<()> {
        if there.bytes <= AT_ONCE_BYTES {
            return Ok(());
        }
        loop {
            self.begin_transaction(session).await?;
            self.lock(session, Lock::Alone).await?;
            let gone = session.execute(format!("DELETE FROM {} LIMIT {PORTION}", there.entry.sql)).await?;
            self.commit(session).await?;
            if gone < PORTION {
                return Ok(());
            }
        }
    }

    /// Begins a copy in parts: empties the table.
    pub(super) async fn begin(&self, table: &TableName) -> Result<()> {
        self.begin_chunks(table, &ChunkMap { column: String::new(), chunks: Vec::new() }).await
    }

    /// Begins a copy in ranges of the key: empties the table and records them.
    pub(super) async fn begin_chunks(&self, table: &TableName, map: &ChunkMap) -> Result<()> {
        let work = async {
            let mut session = self.session().await?;
            let there = Destination::of(&mut session, table, None).await?;
            // In a transaction of its own: from here on it is half-copied.
            self.mark_copying(&mut session).await?;
            self.empty_first(&mut session, &there).await?;
            self.begin_transaction(&mut session).await?;
            self.lock(&mut session, Lock::Alone).await?;
            session.execute(format!("DELETE FROM {}", there.entry.sql)).await?;
            let TableName { schema, table } = self.source;
            for chunk in &map.chunks {
                let sql = "INSERT INTO cutwater.table_chunk
                                  (migration, source_schema, source_table, number, key_column, lower, upper)
                           VALUES (?, ?, ?, ?, ?, ?, ?)";
                let name = &self.lease.migration;
                let values = (name, schema, table, chunk.number, &map.column, chunk.lower, chunk.upper);
                session.execute_with(sql, values).await?;
            }
            self.commit(&mut session).await
        };
        work.await.with_context(|| format!("beginning the copy of {table}"))
    }

    /// Ends a copy in parts.
    pub(super) async fn finish(&self, copied_at: &Position, rows: u64) -> Result<()> {
        let work = async {
            let mut session = self.session().await?;
            self.begin_transaction(&mut session).await?;
            self.lock(&mut session, Lock::Alone).await?;
            let (copied_at, rows) = self.join_chunks(&mut session).await?.unwrap_or((copied_at.clone(), rows));
            self.mark_copied(&mut session, &copied_at, rows).await?;
            self.commit(&mut session).await
        };
        work.await.with_context(|| format!("ending the copy of {}", self.source))
    }

    /// Loads one part.
    pub(super) async fn load(
        &self,
        table: &TableName,
        columns: &[String],
        mode: LoadMode,
        copied_at: &Position,
        stream: CopyStream,
    ) -> Result<Loaded> {
        let work = async {
            let mut session = self.session().await?;
            let there = Destination::of(&mut session, table, Some(columns)).await?;
            if mode == LoadMode::Whole {
                // In a transaction of its own, so that status sees it.
                self.mark_copying(&mut session).await?;
                self.empty_first(&mut session, &there).await?;
            }
            self.begin_transaction(&mut session).await?;
            match mode {
                LoadMode::Whole => {
                    self.lock(&mut session, Lock::Alone).await?;
                    session.execute(format!("DELETE FROM {}", there.entry.sql)).await?;
                }
                LoadMode::Append | LoadMode::Chunk(_) => self.lock(&mut session, Lock::Shared).await?,
            }
            let loaded = if session.server().is_on("local_infile") {
                by_file(&mut session, &there.entry, stream).await?
            } else {
                by_inserts(&mut session, &there.entry, stream).await?
            };
            if mode == LoadMode::Whole {
                self.mark_copied(&mut session, copied_at, loaded.rows).await?;
            }
            if let LoadMode::Chunk(number) = mode {
                self.mark_chunk(&mut session, number, copied_at, loaded.rows).await?;
            }
            self.commit(&mut session).await?;
            Ok::<_, Error>(loaded)
        };
        // Whoever copies says which table of the source it is.
        match work.await {
            Err(error) if table != self.source => Err(error.context(format!("into {table}"))),
            loaded => loaded,
        }
    }
}

/// A table that is filled.
struct Destination {
    entry: Entry,
    /// About.
    bytes: u64,
}

impl Destination {
    /// With these columns, in this order; `None`: all.
    async fn of(session: &mut Session, table: &TableName, columns: Option<&[String]>) -> Result<Destination> {
        let mut tables = Tables::default();
        tables.read_some(session, std::slice::from_ref(&table.schema)).await?;
        let entry = tables.entry_of(table, columns)?;
        let bytes = tables.definition(table).map_or(0, |definition| definition.table.bytes);
        Ok(Destination { entry, bytes })
    }
}

/// The rows as the file of a LOAD DATA.
async fn by_file(session: &mut Session, entry: &Entry, stream: CopyStream) -> Result<Loaded> {
    let sent = Arc::new(Mutex::new(infile::Sent::default()));
    let done = session.load(infile::statement(entry), infile::data(stream, Arc::clone(&sent))).await;
    let infile::Sent { loaded, error } = std::mem::take(&mut *sent.lock().unwrap_or_else(PoisonError::into_inner));
    // The source's own error says more than that the file ended early.
    if let Some(error) = error {
        return Err(error);
    }
    let rows = done?;
    if session.conn().get_warnings() > 0
        && let Some(error) = warning(session).await?
    {
        return Err(refused(entry, &error));
    }
    if rows != loaded.rows {
        return Err(Error::new(
            Kind::Protocol,
            format!("the target has taken {rows} rows and the source has sent {}", loaded.rows),
        ));
    }
    Ok(loaded)
}

/// The rows as INSERTs.
async fn by_inserts(session: &mut Session, entry: &Entry, mut stream: CopyStream) -> Result<Loaded> {
    let mut loaded = Loaded::default();
    let writer = Writer::new(session);
    let mut script = Script::new(writer.largest());
    let mut rows = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        loaded.rows += chunk.rows;
        loaded.bytes += chunk.bytes.len() as u64;
        let mut rest = chunk.bytes;
        rows.clear();
        while !rest.is_empty() {
            rows.push(Row::split_from(&mut rest).ok_or_else(infile::cut_in_two)?);
        }
        for statement in writer.insert(entry, rows.iter())? {
            let expected = Expected::Rows(statement.rows);
            let sent = script.push(session, &statement.sql, expected).await;
            explained(session, entry, sent).await?;
        }
        let sent = script.flush(session).await;
        explained(session, entry, sent).await?;
    }
    Ok(loaded)
}

/// What kept rows from being inserted, as an error.
async fn explained(session: &mut Session, entry: &Entry, sent: Result<(), Failure>) -> Result<()> {
    match sent {
        Ok(()) => Ok(()),
        Err(Failure::Sql(error)) => Err(error.into()),
        Err(Failure::Warned) => match warning(session).await? {
            Some(error) => Err(refused(entry, &error)),
            None => Ok(()),
        },
        Err(Failure::Count { affected }) => {
            Err(Error::new(Kind::Protocol, format!("the target has taken {affected} rows of a statement with more")))
        }
        Err(Failure::Fenced) => Err(Error::new(Kind::Internal, "a load has no checkpoint")),
    }
}

fn refused(entry: &Entry, error: &Error) -> Error {
    let why = format!("{} at the target does not take the rows as they are: {}", entry.schema.name, error.why());
    Error::new(Kind::BadRow, why).fix("make the column as wide as the source's, or correct the row at the source")
}

/// Checks that the tables are empty, or empties them.
pub(super) async fn make_room(session: &mut Session, tables: &[TableName], existing: Existing) -> Result<()> {
    let mut known = Tables::default();
    let mut schemas: Vec<String> = tables.iter().map(|name| name.schema.clone()).collect();
    schemas.sort();
    schemas.dedup();
    known.read_some(session, &schemas).await?;
    let mut full = Vec::new();
    for name in tables {
        known.definition(name).ok_or_else(|| no_table(name))?;
        // Asking for one row first: an empty table answers at once, and only full ones are counted.
        let any = format!("SELECT EXISTS (SELECT 1 FROM {})", my_table(name));
        if session.value(any).await.context("looking into the target's tables")?.as_deref() == Some("1") {
            full.push(name);
        }
    }
    if full.is_empty() {
        return Ok(());
    }
    match existing {
        Existing::Stop => {
            let mut lines = Vec::new();
            for name in full {
                let count = format!("SELECT count(*) FROM {}", my_table(name));
                let rows = session.value(count).await.context("counting the target's rows")?.unwrap_or_default();
                lines.push((name, rows.parse().unwrap_or(0)));
            }
            Err(crate::target::batch::not_empty(&lines))
        }
        Existing::Truncate => {
            for name in full {
                // Foreign keys are not checked in this session, so the order does not matter.
                let sql = format!("TRUNCATE TABLE {}", my_table(name));
                let doing = "emptying the target's tables, as [target] existing = \"truncate\" says";
                session.execute(sql).await.context(doing)?;
            }
            Ok(())
        }
    }
}
