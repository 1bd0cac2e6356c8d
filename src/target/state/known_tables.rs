//! The tables of the migration: which they are, and how far each is.

use std::collections::HashSet;

use super::access::State;
use super::db::{params, sql};
use super::{Lease, NewTable, TableStage, TableState};
use crate::error::Result;
use crate::schema::TableName;

impl State {
    /// The tables of the migration, in name order, without those that were removed from it.
    pub async fn tables(&self) -> Result<Vec<TableState>> {
        let mut tables = self.tables_ever().await?;
        tables.retain(|table| table.stage != TableStage::Removed);
        Ok(tables)
    }

    /// The tables that are or were part of the migration, in name order.
    pub async fn tables_ever(&self) -> Result<Vec<TableState>> {
        let rows = self.query("reading the tables' state", sql!("tables"), params![self.name()]).await?;
        rows.iter()
            .map(|row| {
                Ok(TableState {
                    source: row.name(0)?,
                    target: row.name(2)?,
                    stage: row.parse(4)?,
                    copied_at: row.parse_opt(5)?,
                    rows_estimate: row.get(6)?,
                    rows_copied: row.get(7)?,
                    bytes_estimate: row.get(8)?,
                    bytes_copied: row.get(9)?,
                    started_at: row.get(10)?,
                    finished_at: row.get(11)?,
                    waits_for: row.get(12)?,
                    rule: row.get(13)?,
                    error: row.get(14)?,
                    unfinished: row.get(15)?,
                })
            })
            .collect()
    }

    /// Adds the tables that are not there yet, as waiting. All or none: a run that is killed in between would leave a
    /// migration of fewer tables than were asked for, and its successor would take it for the whole.
    pub async fn add_tables(&self, lease: &Lease, tables: &[NewTable]) -> Result<()> {
        fn column<'a, T>(tables: &'a [NewTable], of: impl Fn(&'a NewTable) -> T) -> Vec<T> {
            tables.iter().map(of).collect()
        }
        let from_schemas = column(tables, |table| table.source.schema.as_str());
        let from_tables = column(tables, |table| table.source.table.as_str());
        let to_schemas = column(tables, |table| table.target.schema.as_str());
        let to_tables = column(tables, |table| table.target.table.as_str());
        let rows = column(tables, |table| table.rows);
        let bytes = column(tables, |table| table.bytes);
        let rules = column(tables, |table| table.rule.as_str());
        let params = params![
            self.name(),
            &from_schemas,
            &from_tables,
            &to_schemas,
            &to_tables,
            lease.epoch,
            &rows,
            &bytes,
            &rules
        ];
        self.execute("recording the migration's tables", sql!("add_tables"), params).await.map(drop)
    }

    /// The other migration of this target, and the table, if one of these target tables is already another's.
    pub async fn claimed(&self, targets: &[TableName]) -> Result<Option<(String, TableName)>> {
        let sql = "SELECT migration, target_schema, target_table FROM cutwater.table_state
                   WHERE migration <> $1 ORDER BY 1, 2, 3";
        let ours: HashSet<&TableName> = targets.iter().collect();
        for row in self.query("looking for other migrations", sql, params![self.name()]).await? {
            let table = row.name(1)?;
            if ours.contains(&table) {
                return Ok(Some((row.get(0)?, table)));
            }
        }
        Ok(None)
    }

    /// Reports how far a table's copy is, for `status`.
    pub async fn report_progress(
        &self,
        source: &TableName,
        rows: i64,
        bytes: i64,
        waits_for: Option<&str>,
    ) -> Result<()> {
        let sql = "INSERT INTO cutwater.table_progress
                          (migration, source_schema, source_table, rows_copied, bytes_copied, waits_for)
                   VALUES ($1, $2, $3, $4, $5, $6)
                   ON CONFLICT (migration, source_schema, source_table)
                   DO UPDATE SET rows_copied = $4, bytes_copied = $5, waits_for = $6";
        let params = params![self.name(), &source.schema, &source.table, rows, bytes, waits_for];
        self.execute("reporting progress", sql, params).await.map(drop)
    }
}
