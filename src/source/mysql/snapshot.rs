//! The existing rows, consistent at one position of the log.
//!
//! In: how many sessions. Out: a [`MySnapshot`] whose sessions all see the rows of one moment ([`open`]); parts of tables by
//! ranges of their key ([`cut`]); their rows as they stand in a [`Row`](crate::change::Row) ([`copy`]).
//!
//! A snapshot of these servers is a transaction, which no other session can join. So the sessions that copy are there from
//! the beginning ([`pool`]), and a copy that finds none free waits. What a copy locks of its table goes with the copy.
//!
//! What can go wrong: a table is altered meanwhile (error 1412): its rows of that moment are gone, and the copy begins again
//! with a new snapshot. The server keeps old versions of rows for as long as the copy takes, and its log must be there from
//! the position on.

mod copy;
mod cut;
mod open;
mod pool;

use std::sync::Arc;

use self::copy::CopyOut;
pub(super) use self::open::refuse_prepared;
use self::pool::Pool;
use super::{MySource, MyStream};
use crate::change::{Budget, Chunk, Position};
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::MyIdent;
use crate::schema::{MySqlKind, TableSchema};
use crate::source::{CopyFormat, CopyStream, Part, Snapshot};

/// The existing rows.
pub struct MySnapshot {
    source: MySource,
    position: Position,
    pool: Pool,
    /// Its position is only about.
    loose: bool,
}

impl MySnapshot {
    /// At the position where the log ends now, exactly.
    pub(super) async fn begin(source: &MySource) -> Result<MySnapshot> {
        let opened = open::open(source, source.inner.workers).await;
        let opened = opened.with_context(|| format!("making a snapshot of {}", source.inner.info.label()))?;
        Ok(MySnapshot::of(source, opened, false))
    }

    /// For a look: without a lock, and therefore at no exact position.
    pub(super) async fn of_now(source: &MySource) -> Result<MySnapshot> {
        let opened = open::of_now(source, source.inner.workers).await;
        let opened = opened.with_context(|| format!("looking at the rows of {}", source.inner.info.label()))?;
        Ok(MySnapshot::of(source, opened, true))
    }

    fn of(source: &MySource, opened: open::Opened, loose: bool) -> MySnapshot {
        let open::Opened { sessions, position } = opened;
        MySnapshot { source: source.clone(), position, pool: Pool::new(sessions), loose }
    }
}

impl Snapshot for MySnapshot {
    type Stream = MyStream;

    fn position(&self) -> &Position {
        &self.position
    }

    async fn parts(&self, table: &Arc<TableSchema>, chunk_rows: u64) -> Result<Vec<Part>> {
        let mut lent = self.pool.take().await?;
        let cut = cut::cut(&mut lent.session, table, chunk_rows).await;
        lent.back().await;
        let selections = cut.with_context(|| format!("cutting {}", table.name))?;
        let rows = table.estimated_rows / selections.len().max(1) as u64;
        let part = |selection| Part { table: Arc::clone(table), selection, rows, chunk: None };
        Ok(selections.into_iter().map(part).collect())
    }

    /// Only where every change says everything of its row, as far as the server's setting goes: what is left out of one that
    /// moves between two ranges cannot be read again (TRAPS 6, 11), and ends the stream.
    async fn key_bounds(&self, table: &Arc<TableSchema>, chunk_rows: u64) -> Result<Option<(String, Vec<i64>)>> {
        let mut lent = self.pool.take().await?;
        let bounds = key_bounds(&mut lent.session, table, chunk_rows).await;
        lent.back().await;
        bounds.with_context(|| format!("cutting {} by its key", table.name))
    }

    fn key_range(&self, table: &Arc<TableSchema>, column: &str, chunk: &Chunk) -> Part {
        let name = MyIdent(column);
        let lower = chunk.lower.map(|lower| format!("{name} >= {lower}"));
        let upper = chunk.upper.map(|upper| format!("{name} < {upper}"));
        let conditions: Vec<String> = lower.into_iter().chain(upper).collect();
        let mut selection = cut::whole(table);
        if !conditions.is_empty() {
            selection += &format!(" WHERE {}", conditions.join(" AND "));
        }
        Part { table: Arc::clone(table), selection, rows: 0, chunk: Some(chunk.number) }
    }

    fn copy_formats(&self) -> &'static [CopyFormat] {
        &[CopyFormat::Rows]
    }

    async fn copy(&self, part: &Part, columns: &[usize], format: CopyFormat) -> Result<CopyStream> {
        if format != CopyFormat::Rows {
            return Err(Error::new(Kind::Internal, "a MySQL server gives rows in one form alone"));
        }
        let lent = self.pool.take().await.with_context(|| format!("copying {}", part.table.name))?;
        Ok(CopyOut::new(&self.source, lent, &part.table, columns, &part.selection).start())
    }

    async fn follow(&self, tables: &[Arc<TableSchema>], budget: &Budget, _: bool) -> Result<MyStream> {
        if self.loose {
            return Err(Error::new(Kind::Internal, "a snapshot without an exact position cannot be followed"));
        }
        self.pool.close().await;
        MyStream::beside(&self.source, &self.position, tables, budget).await
    }
}

async fn key_bounds(
    session: &mut crate::mysql::Session,
    table: &Arc<TableSchema>,
    chunk_rows: u64,
) -> Result<Option<(String, Vec<i64>)>> {
    // Only what the log always tells of a row can say which range it is in, and only as far as the ranges' bounds go.
    let whole_images = session.value("SELECT @@GLOBAL.binlog_row_image").await?;
    let index = cut::key_index(session, table).await?;
    let fits = |ty: &crate::schema::MySqlType| ty.is_integer() && !(ty.unsigned && ty.kind == MySqlKind::BigInt);
    let column = index.and_then(|index| index.first()).filter(|column| column.ty.mysql.as_deref().is_some_and(fits));
    let Some(column) = column.filter(|_| whole_images.as_deref() == Some("FULL")) else { return Ok(None) };
    let pieces = table.estimated_rows.div_ceil(chunk_rows.max(1)).max(2);
    let bounds = cut::integer_bounds(session, table, column, pieces).await?;
    let bounds: Vec<i64> = bounds.into_iter().filter_map(|bound| i64::try_from(bound).ok()).collect();
    Ok((!bounds.is_empty()).then(|| (column.name.clone(), bounds)))
}
