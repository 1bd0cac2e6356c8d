//! A MySQL or MariaDB target: the state, the loader, the applier.
//!
//! | file | what it is |
//! |---|---|
//! | `state` | database `cutwater`, where [`crate::target::state`] is remembered |
//! | `load`, `infile` | the parts of a snapshot, by LOAD DATA or INSERT |
//! | `apply` | batches as sets of rows, in one transaction with the checkpoint |
//! | `replay` | the same row by row, when a set does not go through |
//! | `cascade` | what foreign keys do at a source that does not log it |
//! | `tables`, `sql`, `literal` | per table: its description, its statements, their values |
//! | `session` | how statements are sent, and in what kind of session |
//! | `cutover` | the fence's marker |
//! | `tracking` | keys of changed rows, for the final comparison of a cutover |
//!
//! Nothing may be written to a migrated table but in a transaction that has locked, under the lease's epoch, the
//! checkpoint (`apply`) or the table's row of the state (`load`).

mod apply;
mod cascade;
mod cutover;
mod infile;
mod literal;
mod load;
mod replay;
mod session;
mod sql;
pub(in crate::target) mod state;
mod tables;
mod tracking;

use std::sync::Arc;

use jiff::Timestamp;

pub use apply::MyApplier;

use crate::change::{ChunkMap, Position};
use crate::config::{ApplyConfig, Existing};
use crate::error::{Error, Kind, Result};
use crate::mysql::{MyConnInfo, Session, catalog, connect};
use crate::schema::{TableName, TableSchema};
use crate::source::{CopyFormat, CopyStream};
use crate::target::state::{Lease, State};
use crate::target::{LoadMode, Loaded, Standing, Target};
use load::Copying;

/// A MySQL or MariaDB server that a migration writes to.
#[derive(Clone)]
pub struct MyTarget {
    info: MyConnInfo,
    state: State,
}

impl MyTarget {
    /// The target of `migration` at `info`. Connects when first used.
    pub fn new(info: MyConnInfo, migration: &str) -> MyTarget {
        MyTarget { state: State::new(info.clone(), migration), info }
    }

    /// Where it is.
    pub fn info(&self) -> &MyConnInfo {
        &self.info
    }

    /// A session of one's own for reading and for DDL. It is not one that may write to a migrated table.
    pub async fn connect(&self) -> Result<Session> {
        connect(&self.info, &format!("cutwater_{}", self.state.name())).await
    }
}

impl Target for MyTarget {
    type Applier = MyApplier;

    fn label(&self) -> String {
        self.info.label()
    }

    fn state(&self) -> &State {
        &self.state
    }

    async fn tables(&self, names: &[TableName]) -> Result<Vec<Option<Arc<TableSchema>>>> {
        let mut session = self.connect().await?;
        let mut databases: Vec<String> = names.iter().map(|name| name.schema.clone()).collect();
        databases.sort();
        databases.dedup();
        if databases.is_empty() {
            return Ok(Vec::new());
        }
        let found = catalog::read(&mut session, &databases).await?;
        let find = |name: &TableName| found.tables.iter().find(|there| there.table.name == *name);
        Ok(names.iter().map(|name| find(name).map(|there| Arc::clone(&there.table))).collect())
    }

    async fn standing(&self) -> Result<Standing> {
        let mut session = connect(&self.info, "cutwater status").await?;
        let micros = session.value("SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)").await?;
        let micros = micros.and_then(|micros| micros.parse().ok()).unwrap_or_default();
        let now = Timestamp::from_microsecond(micros);
        let (major, minor, patch) = session.server().version;
        Ok(Standing {
            version: format!("{major}.{minor}.{patch}"),
            now: now.map_err(|error| Error::new(Kind::Internal, error.to_string()))?,
            // Foreign keys are there from the start: sessions that apply do not check them.
            waiting: None,
            not_validated: 0,
        })
    }

    async fn make_room(&self, tables: &[TableName], existing: Existing) -> Result<()> {
        let mut session = session::open(&self.info, self.state.name()).await?;
        load::make_room(&mut session, tables, existing).await
    }

    async fn alter(&self, table: &TableName, statements: &[&String]) -> Result<()> {
        let statements: Vec<&str> = statements.iter().map(|statement| statement.as_str()).collect();
        Err(apply::not_followed(table, &statements))
    }

    fn copy_formats(&self) -> &'static [CopyFormat] {
        &[CopyFormat::Rows]
    }

    async fn begin_table(&self, lease: &Lease, source: &TableName, table: &Arc<TableSchema>) -> Result<()> {
        Copying { info: &self.info, lease, source }.begin(&table.name).await
    }

    async fn begin_chunks(
        &self,
        lease: &Lease,
        source: &TableName,
        table: &Arc<TableSchema>,
        map: &ChunkMap,
    ) -> Result<()> {
        Copying { info: &self.info, lease, source }.begin_chunks(&table.name, map).await
    }

    async fn load(
        &self,
        lease: &Lease,
        source: &TableName,
        table: &Arc<TableSchema>,
        columns: &[String],
        format: CopyFormat,
        mode: LoadMode,
        copied_at: &Position,
        stream: CopyStream,
    ) -> Result<Loaded> {
        if format != CopyFormat::Rows {
            return Err(Error::new(Kind::Internal, format!("{format:?} cannot be loaded here")));
        }
        Copying { info: &self.info, lease, source }.load(&table.name, columns, mode, copied_at, stream).await
    }

    async fn finish_table(&self, lease: &Lease, source: &TableName, copied_at: &Position, rows: u64) -> Result<()> {
        Copying { info: &self.info, lease, source }.finish(copied_at, rows).await
    }

    async fn worker(&self, lease: &Lease, config: &ApplyConfig, number: i32) -> Result<MyApplier> {
        MyApplier::open(&self.info, lease, number, config).await
    }
}
