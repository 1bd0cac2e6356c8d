//! The existing rows, consistent at a slot's consistent point.
//!
//! The connection that created the slot stays open and idle: the exported snapshot lives as long as it does. Each part
//! is copied by a connection of its own that imports the snapshot, in one transaction a part (TRAPS 10), with a short
//! lock timeout, so that no ALTER and no SELECT behind it ever waits for us long.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::stream;
use tokio::sync::Mutex as AsyncMutex;

use super::setup::Exported;
use super::{PgSource, PgStream};
use crate::change::{Budget, Chunk, Position};
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::{Client, Purpose, Wire, server_error};
use crate::schema::{Ident, Relkind, TableName, TableSchema};
use crate::source::{CopyChunk, CopyFormat, CopyStream, Part, Snapshot};

/// Bytes of a chunk handed on.
const CHUNK: usize = 256 << 10;
/// How long a copy waits for its table's lock before it steps back.
const LOCK_TIMEOUT: &str = "2s";
/// How often it tries again: about five minutes in all.
const LOCK_TRIES: u32 = 150;

/// A consistent view, kept by an idle connection.
pub struct PgSnapshot {
    source: PgSource,
    name: String,
    position: Position,
    /// The snapshot ends with its next command, or with it.
    exporter: AsyncMutex<Option<Wire>>,
    /// The slot, if it is a temporary one, which lives as long as the exporter's session.
    slot: Option<String>,
    client: Client,
    /// For a table in several parts, the file each was cut from: a rewrite (VACUUM FULL, CLUSTER) between two parts
    /// moves rows from one to the other.
    files: Mutex<HashMap<String, Cut>>,
    /// Whose lock each table's copy waits for.
    waits: Mutex<HashMap<TableName, String>>,
}

/// What a ctid range was cut from.
#[derive(Debug, Clone)]
struct Cut {
    relation: u32,
    name: TableName,
    file: u32,
}

/// A relation with storage: the table, or a leaf of it.
struct Leaf {
    id: u32,
    name: TableName,
    rows: u64,
    pages: u64,
    file: u32,
}

impl PgSnapshot {
    pub(super) async fn new(source: &PgSource, exported: Exported, slot: Option<String>) -> Result<PgSnapshot> {
        Ok(PgSnapshot {
            source: source.clone(),
            name: exported.snapshot,
            position: exported.consistent_point.into(),
            exporter: AsyncMutex::new(Some(exported.wire)),
            slot,
            client: source.connect().await?,
            files: Mutex::default(),
            waits: Mutex::default(),
        })
    }

    /// A view of now, for a look and not for a migration: made without a slot, so that nothing is made at the source, and
    /// therefore without an exact position (TRAPS 6).
    pub(super) async fn of_now(source: &PgSource) -> Result<PgSnapshot> {
        let mut wire = source.wire(Purpose::Sql).await?;
        wire.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let rows = wire.query("SELECT pg_catalog.pg_export_snapshot(), pg_catalog.pg_current_wal_lsn()").await?;
        match rows.into_iter().next().map(<[Option<String>; 2]>::try_from) {
            Some(Ok([Some(snapshot), Some(position)])) => {
                PgSnapshot::new(source, Exported { wire, consistent_point: position.parse()?, snapshot }, None).await
            }
            _ => Err(Error::new(Kind::Protocol, "the server answered without a snapshot")),
        }
    }

    async fn leaves(&self, table: &TableSchema) -> Result<Vec<Leaf>> {
        let rows = self
            .client
            .query(include_str!("leaves.sql"), &[&table.id])
            .await
            .with_context(|| format!("reading the size of {}", table.name))?;
        let count = |value: i64| u64::try_from(value).unwrap_or(0);
        Ok(rows
            .iter()
            .map(|row| Leaf {
                id: row.get("relation"),
                name: TableName::new(row.get::<_, String>("schema"), row.get::<_, String>("table")),
                rows: count(row.get("rows")),
                pages: count(row.get("pages")),
                file: row.get("file"),
            })
            .collect())
    }

    fn cut(&self, table: &Arc<TableSchema>, leaf: &Leaf, chunk_rows: u64, ranges: bool) -> Vec<Part> {
        let whole = format!("FROM ONLY {}", leaf.name.sql());
        let part = |selection, rows| Part { table: Arc::clone(table), selection, rows, chunk: None };
        let pieces = if ranges { leaf.rows.div_ceil(chunk_rows.max(1)).clamp(1, leaf.pages.max(1)) } else { 1 };
        if pieces == 1 {
            return vec![part(whole, leaf.rows)];
        }
        let bound = |piece: u64| leaf.pages * piece / pieces;
        let mut files = self.files.lock().expect("no panic while it is held");
        (0..pieces)
            .map(|piece| {
                // The last one is open: the table may have grown between the snapshot and now.
                let end = if piece + 1 == pieces {
                    String::new()
                } else {
                    format!(" AND ctid < '({},0)'::tid", bound(piece + 1))
                };
                let selection = format!("{whole} WHERE ctid >= '({},0)'::tid{end}", bound(piece));
                let cut = Cut { relation: leaf.id, name: leaf.name.clone(), file: leaf.file };
                files.insert(selection.clone(), cut);
                part(selection, leaf.rows / pieces)
            })
            .collect()
    }

    /// A transaction on the snapshot whose table is locked and still what was cut; `None`: the lock was not free.
    async fn begin(&self, wire: &mut Wire, part: &Part, cut: Option<&Cut>, command: &str) -> Result<()> {
        wire.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        if let Err(error) = wire.query(&format!("SET TRANSACTION SNAPSHOT '{}'", self.name)).await {
            // The snapshot goes with the session that exports it: a connection that broke, whatever the server's code
            // for it says (22023, as for a value that is wrong).
            return Err(if error.kind() == Kind::BadRow {
                Error::new(Kind::Connection, format!("the session that holds the snapshot is gone: {}", error.why()))
            } else {
                error
            });
        }
        wire.query(&format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")).await?;
        if let Some(cut) = cut {
            wire.query(&format!("LOCK TABLE ONLY {} IN ACCESS SHARE MODE", cut.name.sql())).await?;
            let rows = wire.query(&format!("SELECT pg_catalog.pg_relation_filenode({})", cut.relation)).await?;
            let file = rows.first().and_then(|row| row.first()).and_then(Option::as_deref);
            if file != Some(cut.file.to_string().as_str()) {
                return Err(Error::new(
                    Kind::Transient,
                    format!("{} was rewritten while it was copied in parts; it is copied again", part.table.name),
                ));
            }
        }
        wire.start_copy(command, b'H').await
    }

    /// Says who holds the lock a copy is waiting for.
    async fn name_blockers(&self, table: &TableName) {
        let rows = self.client.query(include_str!("blockers.sql"), &[&table.sql()]).await.unwrap_or_default();
        let who: Vec<String> = rows.iter().map(|row| row.get("who")).collect();
        let Some(first) = who.first() else { return };
        tracing::warn!(%table, "the copy waits for a lock: {}", who.join("; "));
        self.waits.lock().expect("no panic while it is held").insert(table.clone(), format!("a lock: {first}"));
    }
}

impl Snapshot for PgSnapshot {
    type Stream = PgStream;

    /// Out of its own temporary slot, which goes with the stream.
    async fn follow(&self, tables: &[Arc<TableSchema>], budget: &Budget, binary: bool) -> Result<PgStream> {
        let gone = || Error::new(Kind::Internal, "this snapshot has no temporary slot to follow");
        let wire = self.exporter.lock().await.take().ok_or_else(gone)?;
        let slot = self.slot.clone().ok_or_else(gone)?;
        let version = self.source.server_version(&self.client).await?;
        let form = (binary && version >= 140_000, version);
        PgStream::start(&self.source, self.position.lsn()?, tables, budget, form, Some((wire, slot))).await
    }

    fn position(&self) -> &Position {
        &self.position
    }

    fn waits_for(&self, table: &TableName) -> Option<String> {
        self.waits.lock().expect("no panic while it is held").get(table).cloned()
    }

    async fn parts(&self, table: &Arc<TableSchema>, chunk_rows: u64) -> Result<Vec<Part>> {
        // A ctid range is a scan of its own pages only since 14; before, each range reads the whole table.
        let ranges = self.source.server_version(&self.client).await? >= 140_000;
        let leaves = self.leaves(table).await?;
        Ok(leaves.iter().flat_map(|leaf| self.cut(table, leaf, chunk_rows, ranges)).collect())
    }

    async fn key_bounds(&self, table: &Arc<TableSchema>, chunk_rows: u64) -> Result<Option<(String, Vec<i64>)>> {
        let doing = || format!("cutting {} by its key", table.name);
        let row = self.client.query_opt(include_str!("key_bounds.sql"), &[&table.id]).await.with_context(doing)?;
        // Only what the stream always tells of a row can say which range it is in.
        let Some(row) = row.filter(|row| table.key_columns().any(|column| column.name == row.get::<_, &str>("name")))
        else {
            return Ok(None);
        };
        let name: String = row.get("name");
        let pieces = usize::try_from(table.estimated_rows.div_ceil(chunk_rows.max(1))).unwrap_or(usize::MAX).max(2);
        let histogram: Vec<i64> = row.get::<_, Option<Vec<i64>>>("histogram").unwrap_or_default();
        if histogram.len() > 2 {
            let pieces = pieces.min(histogram.len() - 1);
            return Ok(Some((
                name,
                (1..pieces).map(|piece| histogram[(histogram.len() - 1) * piece / pieces]).collect(),
            )));
        }
        // Never analyzed: ranges of one width.
        let column = Ident(&name);
        let sql = format!("SELECT min({column})::int8, max({column})::int8 FROM {}", from(table));
        let ends = self.client.query_one(&sql, &[]).await.with_context(doing)?;
        let (Some(least), Some(most)) = (ends.get::<_, Option<i64>>(0), ends.get::<_, Option<i64>>(1)) else {
            return Ok(None);
        };
        let width = (i128::from(most) - i128::from(least)) / pieces as i128;
        let bound = |piece: usize| i64::try_from(i128::from(least) + width * piece as i128).unwrap_or(most);
        Ok((width > 0).then(|| (name, (1..pieces).map(bound).collect())))
    }

    fn key_range(&self, table: &Arc<TableSchema>, column: &str, chunk: &Chunk) -> Part {
        let selection = format!("FROM {} WHERE {}", from(table), chunk.condition(&Ident(column)));
        Part { table: Arc::clone(table), selection, rows: 0, chunk: Some(chunk.number) }
    }

    fn copy_formats(&self) -> &'static [CopyFormat] {
        &[CopyFormat::PgBinary, CopyFormat::PgText]
    }

    async fn copy(&self, part: &Part, columns: &[usize], format: CopyFormat) -> Result<CopyStream> {
        let doing = || format!("copying {}", part.table.name);
        let names: Vec<String> =
            columns.iter().map(|&index| Ident(&part.table.columns[index].name).to_string()).collect();
        let format_name = match format {
            CopyFormat::PgBinary => "binary",
            CopyFormat::PgText => "text",
            CopyFormat::Rows => {
                return Err(Error::new(Kind::Internal, "a Postgres server does not give rows as they are"));
            }
        };
        let command = format!("COPY (SELECT {} {}) TO STDOUT (FORMAT {format_name})", names.join(", "), part.selection);
        let cut = self.files.lock().expect("no panic while it is held").get(&part.selection).cloned();
        let mut wire = self.source.wire(Purpose::Sql).await.with_context(doing)?;
        let mut tries = 0;
        loop {
            let error = match self.begin(&mut wire, part, cut.as_ref(), &command).await {
                Ok(()) => {
                    self.waits.lock().expect("no panic while it is held").remove(&part.table.name);
                    break;
                }
                Err(error) => error,
            };
            tries += 1;
            let locked = error.kind() == Kind::Transient && error.why().contains("lock timeout");
            if !locked || tries >= LOCK_TRIES {
                return Err(error.context(doing()));
            }
            self.name_blockers(&part.table.name).await;
            wire.query("ROLLBACK").await.with_context(doing)?;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let table = part.table.name.clone();
        let state = Some(CopyOut { wire, binary: format == CopyFormat::PgBinary, first: true, missing: 0 });
        Ok(Box::pin(stream::try_unfold(state, move |state| {
            let doing = format!("copying {table}");
            async move {
                let Some(mut copy) = state else { return Ok(None) };
                match copy.chunk().await.context(doing)? {
                    (Some(chunk), true) => Ok(Some((chunk, None))),
                    (Some(chunk), false) => Ok(Some((chunk, Some(copy)))),
                    (None, _) => Ok(None),
                }
            }
        })))
    }
}

fn from(table: &TableSchema) -> String {
    match table.kind {
        Relkind::Plain => format!("ONLY {}", table.name.sql()),
        Relkind::Partitioned => table.name.sql(),
    }
}

/// A COPY that is being read.
struct CopyOut {
    wire: Wire,
    binary: bool,
    first: bool,
    missing: usize,
}

impl CopyOut {
    /// The next chunk, and whether it was the last.
    async fn chunk(&mut self) -> Result<(Option<CopyChunk>, bool)> {
        let mut out = BytesMut::with_capacity(CHUNK + CHUNK / 8);
        let mut rows = 0;
        loop {
            let (frames, missing) = self.wire.take_frames(CHUNK)?;
            self.missing = missing;
            if frames.is_empty() {
                if out.len() >= CHUNK / 4 {
                    return Ok((Some(CopyChunk { bytes: out.freeze(), rows }), false));
                }
                self.wire.read(self.missing).await?;
                continue;
            }
            if self.take(frames, &mut out, &mut rows)? {
                self.end().await?;
                let chunk = CopyChunk { bytes: out.freeze(), rows };
                return Ok((Some(chunk).filter(|chunk| !chunk.bytes.is_empty()), true));
            }
            if out.len() >= CHUNK {
                return Ok((Some(CopyChunk { bytes: out.freeze(), rows }), false));
            }
        }
    }

    /// Strips the frames off; `true` once the server has ended the COPY and is ready again. All frames are taken:
    /// what says so may have come in the same read as the last row.
    fn take(&mut self, mut frames: Bytes, out: &mut BytesMut, rows: &mut u64) -> Result<bool> {
        while frames.len() >= 5 {
            let tag = frames.get_u8();
            let length = (frames.get_u32() as usize).saturating_sub(4);
            let body = frames.get(..length).ok_or_else(|| Error::new(Kind::Protocol, "a frame is cut short"))?;
            match tag {
                b'd' => {
                    // The server sends one message a row; in binary the header (19 bytes) comes with the first, and
                    // the trailer (-1) is a message of its own.
                    let row = if self.binary && self.first { body.get(19..).unwrap_or_default() } else { body };
                    self.first = false;
                    if !(self.binary && row == [0xff, 0xff]) {
                        *rows += 1;
                    }
                    out.extend_from_slice(body);
                }
                b'E' => return Err(server_error(body)),
                b'Z' => return Ok(true),
                _ => {}
            }
            frames.advance(length);
        }
        Ok(false)
    }

    async fn end(&mut self) -> Result<()> {
        self.wire.query("COMMIT").await.map(drop)
    }
}
