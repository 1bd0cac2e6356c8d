//! A Postgres target: the state, the loader, the applier.
//!
//! | file | what it is |
//! |---|---|
//! | `state` | schema `cutwater`, where [`crate::target::state`] is remembered |
//! | `load` | the parts of a snapshot, by COPY |
//! | `apply` | batches as sets of rows, in one transaction with the checkpoint |
//! | `replay`, `deferred` | the same row by row, when a set does not go through; what a deferred constraint refuses |
//! | `repair` | rows of the source, written for `verify --repair` |
//! | `tables`, `sql`, `encode` | per table: its description, its statements, their bytes |
//! | `pipeline`, `session` | how statements are sent, and in what kind of session |
//! | `worker` | what an applier needs to be one of several |
//! | `alter` | a table's new shape, in the batch's transaction |
//! | `cutover` | the fence's marker |
//! | `tracking` | keys of changed rows, for the final comparison of a cutover |
//! | `late` | foreign keys and triggers that may not exist while changes are applied |
//! | `views` | materialized views, filled after the copy and again once live |
//!
//! Nothing may be written to a migrated table but in a transaction that has locked, under the lease's epoch, the
//! checkpoint (`apply`, `repair`) or the table's row of the state (`load`).

mod alter;
mod apply;
mod catalog;
mod cutover;
mod deferred;
mod encode;
pub mod late;
mod load;
mod pipeline;
mod repair;
mod replay;
mod session;
mod single;
mod sql;
pub(in crate::target) mod state;
mod tables;
mod tracking;
mod trouble;
mod truncate;
pub mod views;
mod worker;

use std::sync::Arc;

use jiff::Timestamp;

pub use apply::PgApplier;
pub use repair::{Reader, Ready, Repairer, RowVersion, Rows, Writes};

use crate::change::{ChunkMap, Position};
use crate::config::{ApplyConfig, Existing};
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::{Client, ConnInfo, connect};
use crate::schema::{TableName, TableSchema};
use crate::source::{CopyFormat, CopyStream};
use crate::target::state::{Lease, State};
use crate::target::{LoadMode, Loaded, Standing, Target};
use load::Copying;

/// A Postgres database that a migration writes to.
#[derive(Clone)]
pub struct PgTarget {
    info: ConnInfo,
    state: State,
}

impl PgTarget {
    /// The target of `migration` at `info`. Connects when first used.
    pub fn new(info: ConnInfo, migration: &str) -> Self {
        PgTarget { state: State::new(info.clone(), migration), info }
    }

    /// Where it is.
    pub fn info(&self) -> &ConnInfo {
        &self.info
    }

    /// A session of one's own for reading and for DDL. It is not one that may write to a migrated table.
    pub async fn connect(&self) -> Result<Client> {
        connect(&self.info, &format!("cutwater_{}", self.state.name())).await
    }
}

impl Target for PgTarget {
    type Applier = PgApplier;

    fn label(&self) -> String {
        self.info.label()
    }

    fn state(&self) -> &State {
        &self.state
    }

    async fn tables(&self, names: &[TableName]) -> Result<Vec<Option<Arc<TableSchema>>>> {
        let client = self.connect().await?;
        let all = crate::postgres::catalog::tables(&client).await?;
        Ok(names.iter().map(|name| all.iter().find(|table| table.name == *name).cloned()).collect())
    }

    async fn standing(&self) -> Result<Standing> {
        let client = connect(&self.info, "cutwater status").await?;
        let sql = "SELECT split_part(current_setting('server_version'), ' ', 1),
                          (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
        let row = client.query_one(sql, &[]).await?;
        let now = Timestamp::from_microsecond(row.get(1));
        let made_late = self.state.late().await?;
        Ok(Standing {
            version: row.get(0),
            now: now.map_err(|error| Error::new(Kind::Internal, error.to_string()))?,
            waiting: late::count(&late::missing(&client, &made_late).await?),
            not_validated: late::unvalidated(&client, &made_late).await?.len() as u64,
        })
    }

    async fn make_room(&self, tables: &[TableName], existing: Existing) -> Result<()> {
        load::make_room(&self.connect().await?, tables, existing).await
    }

    async fn alter(&self, table: &TableName, statements: &[&String]) -> Result<()> {
        let client = self.connect().await?;
        for statement in statements {
            client.batch_execute(statement).await.with_context(|| format!("altering {table}"))?;
        }
        Ok(())
    }

    fn copy_formats(&self) -> &'static [CopyFormat] {
        &[CopyFormat::PgBinary, CopyFormat::PgText, CopyFormat::Rows]
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
        Copying { info: &self.info, lease, source }.load(&table.name, columns, format, mode, copied_at, stream).await
    }

    async fn finish_table(&self, lease: &Lease, source: &TableName, copied_at: &Position, rows: u64) -> Result<()> {
        Copying { info: &self.info, lease, source }.finish(copied_at, rows).await
    }

    async fn worker(&self, lease: &Lease, config: &ApplyConfig, number: i32) -> Result<PgApplier> {
        PgApplier::open(&self.info, lease, number, config).await
    }
}
