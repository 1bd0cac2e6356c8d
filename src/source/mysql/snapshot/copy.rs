//! The rows of a part.
//!
//! In: a session of the snapshot, the columns, and the `FROM … WHERE` of a part. Out: the rows in the layout of
//! [`Row`](crate::change::Row), one behind the other, in chunks of some hundred kilobytes that are cut between rows. A task
//! reads them and is at most [`AHEAD`] chunks ahead of whoever takes them; then the server waits.
//!
//! What can go wrong: the table was altered since the snapshot (error 1412), and no chunk of it is of use then; the
//! connection breaks, and that session is gone. Whoever drops the stream ends the statement at the server, and the session
//! goes on.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use futures::stream;
use mysql_async::prelude::Queryable;
use mysql_async::{Row, Value};
use tokio::sync::mpsc;

use super::pool::Lent;
use crate::error::{Error, Kind, Result};
use crate::mysql::{canonical, is_binary};
use crate::schema::{TableName, TableSchema};
use crate::source::mysql::MySource;
use crate::source::{CopyChunk, CopyStream};

/// Bytes of a chunk handed on; a row that is larger is one of its own.
const CHUNK: usize = 256 << 10;
/// Chunks that are read before anybody asks for them.
const AHEAD: usize = 2;

/// A part that is being read.
pub(super) struct CopyOut {
    source: MySource,
    lent: Lent,
    table: TableName,
    sql: String,
    /// The letter of each column's fields: `b` binary, `t` text.
    letters: Vec<u8>,
}

impl CopyOut {
    pub(super) fn new(
        source: &MySource,
        lent: Lent,
        table: &Arc<TableSchema>,
        columns: &[usize],
        selection: &str,
    ) -> Self {
        let columns = columns.iter().map(|&index| &table.columns[index]);
        let mut sql = String::from("SELECT ");
        for (at, column) in columns.clone().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            let _ = write!(sql, "{comma}{}", canonical(column));
        }
        // A table of which nothing travels still has rows.
        sql += if columns.len() == 0 { "NULL " } else { " " };
        sql += selection;
        let letters = columns.map(|column| if is_binary(column) { b'b' } else { b't' }).collect();
        CopyOut { source: source.clone(), lent, table: table.name.clone(), sql, letters }
    }

    /// Begins to read.
    pub(super) fn start(self) -> CopyStream {
        let (chunks, taken) = mpsc::channel(AHEAD);
        tokio::spawn(self.run(chunks));
        Box::pin(stream::unfold(taken, |mut taken| async move { Some((taken.recv().await?, taken)) }))
    }

    async fn run(self, chunks: mpsc::Sender<Result<CopyChunk>>) {
        let CopyOut { source, mut lent, table, sql, letters } = self;
        let id = lent.session.id();
        let read = {
            let read = read(&mut lent, &sql, &letters, &chunks);
            tokio::pin!(read);
            tokio::select! {
                read = &mut read => read,
                () = chunks.closed() => {
                    // The statement alone: its transaction, and the snapshot with it, stays.
                    if let Err(error) = kill(&source, id).await {
                        tracing::debug!(%error, "a copy that nobody wants is read to its end");
                    }
                    let _ = read.await;
                    Ok(())
                }
            }
        };
        let broken = matches!(&read, Err(error) if error.kind() == Kind::Connection);
        // Before the last word, so that who waits for it finds the session free.
        if !broken {
            lent.back().await;
        }
        if let Err(error) = read {
            let error = explained(&table, error).context(format!("copying {table}"));
            let _ = chunks.send(Err(error)).await;
        }
    }
}

/// Reads all rows, or until nobody wants them.
async fn read(lent: &mut Lent, sql: &str, letters: &[u8], chunks: &mpsc::Sender<Result<CopyChunk>>) -> Result<()> {
    let mut result = lent.session.conn().query_iter(sql).await?;
    let mut out = BytesMut::with_capacity(CHUNK + CHUNK / 8);
    let mut rows = 0;
    while let Some(row) = result.next().await? {
        put(&mut out, &row, letters)?;
        rows += 1;
        if out.len() >= CHUNK {
            let bytes = std::mem::replace(&mut out, BytesMut::with_capacity(CHUNK + CHUNK / 8)).freeze();
            if chunks.send(Ok(CopyChunk { bytes, rows: std::mem::take(&mut rows) })).await.is_err() {
                return Ok(());
            }
        }
    }
    if rows > 0 {
        let _ = chunks.send(Ok(CopyChunk { bytes: out.freeze(), rows })).await;
    }
    Ok(())
}

/// Appends a row in the layout of [`crate::change::Row`].
fn put(out: &mut BytesMut, row: &Row, letters: &[u8]) -> Result<()> {
    out.put_u16(letters.len() as u16);
    for (at, letter) in letters.iter().enumerate() {
        match row.as_ref(at) {
            Some(Value::NULL) => out.put_u8(b'n'),
            Some(Value::Bytes(bytes)) => {
                out.put_u8(*letter);
                out.put_u32(bytes.len() as u32);
                out.put_slice(bytes);
            }
            _ => return Err(Error::new(Kind::Protocol, "the server's answer is not text")),
        }
    }
    Ok(())
}

async fn kill(source: &MySource, id: u32) -> Result<()> {
    let mut kept = source.kept().await?;
    kept.session().execute(format!("KILL QUERY {id}")).await?;
    kept.keep();
    Ok(())
}

/// What an ALTER, TRUNCATE or RENAME behind the snapshot looks like.
fn explained(table: &TableName, error: Error) -> Error {
    if error.kind() == Kind::Transient && error.why().contains("(error 1412)") {
        let why = format!(
            "{table} was altered at the source since the snapshot was made: the copy begins again with a new one"
        );
        return Error::new(Kind::Transient, why);
    }
    error
}
