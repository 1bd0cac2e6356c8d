//! The shape each table was brought to: a column of `cutwater.table_state`.

use std::collections::HashMap;

use super::Lease;
use super::access::State;
use super::db::params;
use super::lease::expect_ours;
use super::migration::to_json;
use crate::error::Result;
use crate::schema::{Shape, TableName};

impl State {
    /// The shapes that are recorded, by the table's name at the source.
    pub async fn shapes(&self) -> Result<HashMap<TableName, Shape>> {
        let sql = "SELECT source_schema, source_table, shape FROM cutwater.table_state
                   WHERE migration = $1 AND shape IS NOT NULL";
        let rows = self.query("reading the tables' shapes", sql, params![self.name()]).await?;
        rows.iter().map(|row| Ok((row.name(0)?, row.json(2)?))).collect()
    }

    /// Records a shape outside of a batch: before anything of the table was copied.
    pub async fn set_shape(&self, lease: &Lease, source: &TableName, shape: &Shape) -> Result<()> {
        let sql = "UPDATE cutwater.table_state SET shape = $4
                   WHERE migration = $1 AND source_schema = $2 AND source_table = $3 AND epoch = $5";
        let shape = to_json(shape)?;
        let params = params![self.name(), &source.schema, &source.table, &shape, lease.epoch];
        expect_ours(self.execute("recording a table's shape", sql, params).await?, lease)
    }

    /// Forgets the shape of a table that was made anew at the source: its next copy records the new one.
    pub async fn forget_shape(&self, lease: &Lease, source: &TableName) -> Result<()> {
        let sql = "UPDATE cutwater.table_state SET shape = NULL
                   WHERE migration = $1 AND source_schema = $2 AND source_table = $3 AND epoch = $4";
        let params = params![self.name(), &source.schema, &source.table, lease.epoch];
        expect_ours(self.execute("forgetting a table's shape", sql, params).await?, lease)
    }
}
