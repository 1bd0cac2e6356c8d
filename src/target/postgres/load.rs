//! Loads the parts of a snapshot.
//!
//! In: COPY data as the source sent it, passed on chunk by chunk, or rows, which are written as COPY text. Out: rows in the table, and in the same target
//! transaction the mark in `cutwater.table_state` by which a successor knows that they are there. Every such transaction
//! begins by locking that row under the lease's epoch (TRAPS 1): for a whole table alone, for one of several parts
//! together with the others, which run side by side. A load that fails leaves nothing.

use futures::{SinkExt, StreamExt};

use super::catalog::{TargetTable, describe};
use super::encode::{CopyEncoder, Form};
use super::session;
use super::sql::{copy_list, no_table};
use crate::change::{ChunkMap, Position, Row};
use crate::config::Existing;
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::{Client, ConnInfo};
use crate::schema::{Ident, Relkind, TableName};
use crate::source::{CopyFormat, CopyStream};
use crate::target::batch::not_empty;
use crate::target::state::{Lease, fenced};
use crate::target::{LoadMode, Loaded};

/// What identifies a table's copy.
pub(super) struct Copying<'a> {
    pub info: &'a ConnInfo,
    pub lease: &'a Lease,
    /// Name at the source, which names its row in the state.
    pub source: &'a TableName,
}

impl Copying<'_> {
    async fn client(&self) -> Result<Client> {
        session::open(self.info, &self.lease.migration).await
    }

    /// Locks the table's row of the state under our epoch; [`Kind::Fenced`] if that is over. Returns whether the copy is
    /// made beside the running stream.
    async fn lock(&self, client: &Client, strength: &str) -> Result<bool> {
        let sql = format!(
            "SELECT side FROM cutwater.table_state
              WHERE migration = $1 AND source_schema = $2 AND source_table = $3 AND epoch = $4 FOR {strength}"
        );
        let TableName { schema, table } = self.source;
        let row = client.query_opt(&sql, &[&self.lease.migration, schema, table, &self.lease.epoch]).await?;
        row.map(|row| row.get(0)).ok_or_else(|| fenced(self.lease))
    }

    async fn mark(&self, client: &Client, set: &str, copied_at: Option<&Position>, rows: Option<u64>) -> Result<()> {
        let sql = format!(
            "UPDATE cutwater.table_state SET {set}
              WHERE migration = $1 AND source_schema = $2 AND source_table = $3 AND epoch = $4"
        );
        let TableName { schema, table } = self.source;
        let (at, rows) = (copied_at.map(Position::to_string), rows.map(|rows| rows as i64));
        let mut params: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
            vec![&self.lease.migration, schema, table, &self.lease.epoch];
        if at.is_some() {
            params.extend([&at as &(dyn tokio_postgres::types::ToSql + Sync), &rows]);
        }
        if client.execute(&sql, &params).await? == 1 { Ok(()) } else { Err(fenced(self.lease)) }
    }

    async fn mark_copying(&self, client: &Client) -> Result<()> {
        let set = "stage = 'copying', started_at = clock_timestamp(), finished_at = NULL, copied_at = NULL, rows_final = NULL";
        self.mark(client, set, None, None).await?;
        let sql = "DELETE FROM cutwater.table_chunk WHERE migration = $1 AND source_schema = $2 AND source_table = $3";
        let TableName { schema, table } = self.source;
        client.execute(sql, &[&self.lease.migration, schema, table]).await?;
        Ok(())
    }

    /// Marks a range as copied, in its own transaction.
    async fn mark_chunk(&self, client: &Client, number: i32, at: &Position, rows: u64) -> Result<()> {
        let sql = "UPDATE cutwater.table_chunk SET copied_at = $5, rows = $6
                   WHERE migration = $1 AND source_schema = $2 AND source_table = $3 AND number = $4
                     AND copied_at IS NULL";
        let TableName { schema, table } = self.source;
        let (at, rows) = (at.to_string(), rows as i64);
        let marked = client.execute(sql, &[&self.lease.migration, schema, table, &number, &at, &rows]).await?;
        if marked == 1 {
            return Ok(());
        }
        Err(Error::new(Kind::Internal, format!("range {number} of {} was copied already", self.source)))
    }

    /// Where the newest of the table's ranges was read, and their rows; `None` if it has no ranges. Ranges of one
    /// position need not be remembered: the table is one copy.
    async fn join_chunks(&self, client: &Client) -> Result<Option<(Position, u64)>> {
        let sql = "SELECT copied_at, sum(rows)::int8 FROM cutwater.table_chunk
                   WHERE migration = $1 AND source_schema = $2 AND source_table = $3 GROUP BY copied_at";
        let TableName { schema, table } = self.source;
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&self.lease.migration, schema, table];
        let mut newest: Option<Position> = None;
        let mut rows = 0;
        let positions = client.query(sql, &params).await?;
        for row in &positions {
            let missing = || Error::new(Kind::Internal, format!("a range of {} was not copied", self.source));
            let at: Position = row.get::<_, Option<&str>>(0).ok_or_else(missing)?.parse()?;
            rows += u64::try_from(row.get::<_, i64>(1)).unwrap_or(0);
            newest = Some(newest.filter(|newest| *newest > at).unwrap_or(at));
        }
        if positions.len() == 1 {
            let sql =
                "DELETE FROM cutwater.table_chunk WHERE migration = $1 AND source_schema = $2 AND source_table = $3";
            client.execute(sql, &params).await?;
        }
        Ok(newest.map(|newest| (newest, rows)))
    }

    async fn mark_copied(&self, client: &Client, at: &Position, rows: u64) -> Result<()> {
        // Beside the running stream it only counts as copied once its own stream has brought it up to that.
        let set = "stage = CASE WHEN side THEN 'catching-up' ELSE 'copied' END, copied_at = $5::text,
                   rows_final = $6::bigint, finished_at = clock_timestamp(), error = NULL";
        self.mark(client, set, Some(at), Some(rows)).await
    }

    /// Begins a copy in parts: empties the table.
    pub(super) async fn begin(&self, table: &TableName) -> Result<()> {
        self.begin_chunks(table, &ChunkMap { column: String::new(), chunks: Vec::new() }).await
    }

    /// Begins a copy in ranges of the key: empties the table and records them.
    pub(super) async fn begin_chunks(&self, table: &TableName, map: &ChunkMap) -> Result<()> {
        let work = async {
            let client = self.client().await?;
            let target = one(&client, table).await?;
            client.batch_execute("BEGIN").await?;
            self.mark_copying(&client).await?;
            empty(&client, &target, false).await?;
            let TableName { schema, table } = self.source;
            for chunk in &map.chunks {
                client
                    .execute(
                        "INSERT INTO cutwater.table_chunk
                                (migration, source_schema, source_table, number, key_column, lower, upper)
                         VALUES ($1, $2, $3, $4, $5, $6, $7)",
                        &[&self.lease.migration, schema, table, &chunk.number, &map.column, &chunk.lower, &chunk.upper],
                    )
                    .await?;
            }
            client.batch_execute("COMMIT").await.map_err(Error::from)
        };
        work.await.with_context(|| format!("beginning the copy of {table}"))
    }

    /// Ends a copy in parts.
    pub(super) async fn finish(&self, copied_at: &Position, rows: u64) -> Result<()> {
        let work = async {
            let client = self.client().await?;
            client.batch_execute("BEGIN").await?;
            self.lock(&client, "UPDATE").await?;
            let (copied_at, rows) = self.join_chunks(&client).await?.unwrap_or((copied_at.clone(), rows));
            self.mark_copied(&client, &copied_at, rows).await?;
            client.batch_execute("COMMIT").await.map_err(Error::from)
        };
        work.await.with_context(|| format!("ending the copy of {}", self.source))
    }

    /// Loads one part.
    pub(super) async fn load(
        &self,
        table: &TableName,
        columns: &[String],
        format: CopyFormat,
        mode: LoadMode,
        copied_at: &Position,
        stream: CopyStream,
    ) -> Result<Loaded> {
        let work = async {
            let client = self.client().await?;
            let target = one(&client, table).await?;
            let mut freeze = false;
            if mode == LoadMode::Whole {
                // In a transaction of its own, so that status sees it.
                self.mark_copying(&client).await?;
            }
            client.batch_execute("BEGIN").await?;
            match mode {
                LoadMode::Whole => {
                    let gently = self.lock(&client, "UPDATE").await?;
                    freeze = empty(&client, &target, gently).await? && target.kind == Relkind::Plain;
                }
                LoadMode::Append | LoadMode::Chunk(_) => drop(self.lock(&client, "SHARE").await?),
            }
            let loaded = copy(&client, &target, columns, format, freeze, stream).await?;
            if mode == LoadMode::Whole {
                self.mark_copied(&client, copied_at, loaded.rows).await?;
            }
            if let LoadMode::Chunk(number) = mode {
                self.mark_chunk(&client, number, copied_at, loaded.rows).await?;
            }
            client.batch_execute("COMMIT").await?;
            Ok::<_, Error>(loaded)
        };
        // Whoever copies says which table of the source it is.
        match work.await {
            Err(error) if table != self.source => Err(error.context(format!("into {table}"))),
            loaded => loaded,
        }
    }
}

async fn one(client: &Client, table: &TableName) -> Result<TargetTable> {
    describe(client, &[table]).await?.remove(table).ok_or_else(|| no_table(table))
}

/// Up to this size a table that is copied again is emptied by DELETE: whoever reads it sees the old rows until the new ones
/// are there. A larger one would be written twice and stay twice as large for that.
const GENTLY_BYTES: i64 = 1 << 30;

/// Empties a table inside the open transaction. Returns whether it was truncated, which FREEZE needs: TRUNCATE refuses a
/// table that others refer to, whether they have rows or not, and it locks readers out for as long as the copy takes.
async fn empty(client: &Client, table: &TargetTable, gently: bool) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM pg_constraint f WHERE f.contype = 'f' AND f.conrelid <> f.confrelid
                              AND f.confrelid = pg_catalog.to_regclass($1)),
                      (SELECT sum(pg_relation_size(relid))::bigint FROM
                        (SELECT relid FROM pg_partition_tree(pg_catalog.to_regclass($1))
                         UNION SELECT pg_catalog.to_regclass($1)) AS part)";
    let row = client.query_one(sql, &[&table.name.sql()]).await?;
    let (referenced, bytes): (bool, i64) = (row.get(0), row.get::<_, Option<i64>>(1).unwrap_or(0));
    let delete = referenced || (gently && bytes > 0 && bytes <= GENTLY_BYTES);
    let sql = if delete { format!("DELETE FROM {}", table.only()) } else { format!("TRUNCATE {}", table.only()) };
    client.batch_execute(&sql).await?;
    Ok(!delete)
}

async fn copy(
    client: &Client,
    table: &TargetTable,
    columns: &[String],
    format: CopyFormat,
    freeze: bool,
    mut stream: CopyStream,
) -> Result<Loaded> {
    let names: Vec<String> = columns.iter().map(|column| Ident(column).to_string()).collect();
    let (form, mut rows) = match format {
        CopyFormat::PgBinary => ("binary", None),
        CopyFormat::PgText => ("text", None),
        CopyFormat::Rows => ("text", Some(CopyEncoder::new(Form::Text))),
    };
    let freeze = if freeze { ", FREEZE" } else { "" };
    let list = copy_list(&names.join(", "));
    let sql = format!("COPY {}{list} FROM STDIN (FORMAT {form}{freeze})", table.name.sql());
    let mut sink = Box::pin(client.copy_in(&sql).await?);
    let mut sent = Loaded::default();
    while let Some(chunk) = stream.next().await {
        // An error here drops the sink, which makes the server fail the COPY, and the session with its transaction.
        let chunk = chunk?;
        sent.rows += chunk.rows;
        sent.bytes += chunk.bytes.len() as u64;
        let Some(encoder) = &mut rows else {
            sink.send(chunk.bytes).await?;
            continue;
        };
        let mut rest = chunk.bytes;
        while !rest.is_empty() {
            let cut = || Error::new(Kind::Protocol, "the source has cut a row in two");
            let row = Row::split_from(&mut rest).ok_or_else(cut)?;
            if let Some(full) = encoder.push(&row)? {
                sink.send(full).await?;
            }
        }
    }
    if let Some(encoder) = rows {
        sink.send(encoder.finish()).await?;
    }
    let rows = sink.as_mut().finish().await?;
    if rows != sent.rows {
        return Err(Error::new(
            Kind::Protocol,
            format!("the target has taken {rows} rows and the source has sent {}", sent.rows),
        ));
    }
    Ok(sent)
}

/// Checks that the tables are empty, or empties them.
pub(super) async fn make_room(client: &Client, tables: &[TableName], existing: Existing) -> Result<()> {
    let names: Vec<&TableName> = tables.iter().collect();
    let found = describe(client, &names).await?;
    let mut full = Vec::new();
    for name in tables {
        let target = found.get(name).ok_or_else(|| no_table(name))?;
        // Asking for one row first: an empty table answers at once, and only full ones are counted.
        let any = format!("SELECT EXISTS (SELECT FROM {})", target.only());
        if !client.query_one(&any, &[]).await.context("looking into the target's tables")?.get::<_, bool>(0) {
            continue;
        }
        full.push(target);
    }
    if full.is_empty() {
        return Ok(());
    }
    match existing {
        Existing::Stop => {
            let mut lines = Vec::new();
            for target in full {
                let count = format!("SELECT count(*) FROM {}", target.only());
                let rows: i64 = client.query_one(&count, &[]).await.context("counting the target's rows")?.get(0);
                lines.push((&target.name, rows));
            }
            Err(not_empty(&lines))
        }
        Existing::Truncate => {
            let list: Vec<String> = full.iter().map(|target| target.only()).collect();
            // All in one statement, so that foreign keys between them do not matter.
            client
                .batch_execute(&format!("TRUNCATE {}", list.join(", ")))
                .await
                .context("emptying the target's tables, as [target] existing = \"truncate\" says")
        }
    }
}
