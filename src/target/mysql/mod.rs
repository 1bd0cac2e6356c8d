//! A MySQL or MariaDB target.
//!
//! | file | what it is |
//! |---|---|
//! | `state` | database `cutwater`, where [`crate::target::state`] is remembered |
//! | `apply` | batches as sets of rows, in one transaction with the checkpoint |

mod apply;
pub(in crate::target) mod state;

use std::sync::Arc;

pub use apply::MyApplier;

use crate::change::{ChunkMap, Position};
use crate::config::{ApplyConfig, Existing};
use crate::error::{Error, Kind, Result};
use crate::mysql::MyConnInfo;
use crate::schema::{TableName, TableSchema};
use crate::source::{CopyFormat, CopyStream};
use crate::target::state::{Lease, State};
use crate::target::{LoadMode, Loaded, Standing, Target};

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

    fn not_written_to(&self) -> Error {
        Error::new(Kind::Refused, format!("{} cannot be written to yet", self.info.label()))
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

    async fn tables(&self, _: &[TableName]) -> Result<Vec<Option<Arc<TableSchema>>>> {
        Err(self.not_written_to())
    }

    async fn standing(&self) -> Result<Standing> {
        Err(self.not_written_to())
    }

    async fn make_room(&self, _: &[TableName], _: Existing) -> Result<()> {
        Err(self.not_written_to())
    }

    async fn alter(&self, _: &TableName, _: &[&String]) -> Result<()> {
        Err(self.not_written_to())
    }

    fn copy_formats(&self) -> &'static [CopyFormat] {
        &[CopyFormat::Rows]
    }

    async fn begin_table(&self, _: &Lease, _: &TableName, _: &Arc<TableSchema>) -> Result<()> {
        Err(self.not_written_to())
    }

    async fn begin_chunks(&self, _: &Lease, _: &TableName, _: &Arc<TableSchema>, _: &ChunkMap) -> Result<()> {
        Err(self.not_written_to())
    }

    async fn load(
        &self,
        _: &Lease,
        _: &TableName,
        _: &Arc<TableSchema>,
        _: &[String],
        _: CopyFormat,
        _: LoadMode,
        _: &Position,
        _: CopyStream,
    ) -> Result<Loaded> {
        Err(self.not_written_to())
    }

    async fn finish_table(&self, _: &Lease, _: &TableName, _: &Position, _: u64) -> Result<()> {
        Err(self.not_written_to())
    }

    async fn worker(&self, _: &Lease, _: &ApplyConfig, _: i32) -> Result<MyApplier> {
        Err(self.not_written_to())
    }
}
