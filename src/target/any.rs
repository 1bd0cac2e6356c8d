//! The target of a migration, of whichever engine it is.
//!
//! In: a config, whose URL's scheme chooses. Out: a [`Target`]. Each call goes to the engine as it is, in one `match`.

use std::sync::Arc;

use super::mysql::{MyApplier, MyTarget};
use super::parallel::Worker;
use super::postgres::{PgApplier, PgTarget};
use super::state::{Lease, State};
use super::{Applied, Applier, Batch, LoadMode, Loaded, Standing, Target};
use crate::change::{ChunkMap, Durable, Position};
use crate::config::{ApplyConfig, Config, Existing};
use crate::error::Result;
use crate::mysql::MyConnInfo;
use crate::postgres::ConnInfo;
use crate::schema::{ShapeChange, TableName, TableSchema};
use crate::source::{CopyFormat, CopyStream};

/// A target of any engine.
#[derive(Clone)]
pub enum AnyTarget {
    /// `postgres://`
    Postgres(PgTarget),
    /// `mysql://`
    MySql(MyTarget),
}

/// Its applier.
pub enum AnyApplier {
    /// Of a Postgres server.
    Postgres(PgApplier),
    /// Of a MySQL or MariaDB server.
    MySql(MyApplier),
}

impl AnyTarget {
    /// The target that a config names. Connects when first used.
    pub fn of(config: &Config) -> Result<AnyTarget> {
        let url = config.target.url.expose();
        if ["mysql://", "mariadb://"].iter().any(|scheme| url.starts_with(scheme)) {
            let info = MyConnInfo::parse(&config.target.url)?;
            return Ok(AnyTarget::MySql(MyTarget::new(info, &config.migration.name)));
        }
        let info = ConnInfo::parse(&config.target.url)?;
        Ok(AnyTarget::Postgres(PgTarget::new(info, &config.migration.name)))
    }
}

/// Asks the engine.
macro_rules! ask {
    ($any:ident, $end:ident => $answer:expr) => {
        match $any {
            Self::Postgres($end) => $answer,
            Self::MySql($end) => $answer,
        }
    };
}

impl Target for AnyTarget {
    type Applier = AnyApplier;

    fn label(&self) -> String {
        ask!(self, target => target.label())
    }

    fn state(&self) -> &State {
        ask!(self, target => target.state())
    }

    async fn tables(&self, names: &[TableName]) -> Result<Vec<Option<Arc<TableSchema>>>> {
        ask!(self, target => target.tables(names).await)
    }

    async fn standing(&self) -> Result<Standing> {
        ask!(self, target => target.standing().await)
    }

    async fn make_room(&self, tables: &[TableName], existing: Existing) -> Result<()> {
        ask!(self, target => target.make_room(tables, existing).await)
    }

    async fn alter(&self, table: &TableName, statements: &[&String]) -> Result<()> {
        ask!(self, target => target.alter(table, statements).await)
    }

    fn copy_formats(&self) -> &'static [CopyFormat] {
        ask!(self, target => target.copy_formats())
    }

    async fn begin_table(&self, lease: &Lease, source: &TableName, table: &Arc<TableSchema>) -> Result<()> {
        ask!(self, target => target.begin_table(lease, source, table).await)
    }

    async fn begin_chunks(
        &self,
        lease: &Lease,
        source: &TableName,
        table: &Arc<TableSchema>,
        map: &ChunkMap,
    ) -> Result<()> {
        ask!(self, target => target.begin_chunks(lease, source, table, map).await)
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
        ask!(self, target => target.load(lease, source, table, columns, format, mode, copied_at, stream).await)
    }

    async fn finish_table(&self, lease: &Lease, source: &TableName, copied_at: &Position, rows: u64) -> Result<()> {
        ask!(self, target => target.finish_table(lease, source, copied_at, rows).await)
    }

    async fn worker(&self, lease: &Lease, config: &ApplyConfig, number: i32) -> Result<AnyApplier> {
        match self {
            AnyTarget::Postgres(target) => Ok(AnyApplier::Postgres(target.worker(lease, config, number).await?)),
            AnyTarget::MySql(target) => Ok(AnyApplier::MySql(target.worker(lease, config, number).await?)),
        }
    }
}

impl Applier for AnyApplier {
    fn checkpoint(&self) -> Durable<Position> {
        ask!(self, applier => applier.checkpoint())
    }

    async fn apply(&mut self, batch: Batch) -> Result<Applied> {
        ask!(self, applier => applier.apply(batch).await)
    }

    async fn alter(&mut self, changes: &[Arc<ShapeChange>]) -> Result<()> {
        ask!(self, applier => applier.alter(changes).await)
    }

    async fn advance(&mut self, to: &Position) -> Result<Durable<Position>> {
        ask!(self, applier => applier.advance(to).await)
    }
}

impl Worker for AnyApplier {
    async fn stay(&self) -> Result<()> {
        ask!(self, applier => applier.stay().await)
    }

    fn passed(&mut self, nonce: &str) {
        ask!(self, applier => applier.passed(nonce));
    }
}
