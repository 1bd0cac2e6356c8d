//! Brings the target's tables to another shape, inside the transaction that moves the checkpoint on.
//!
//! Postgres' DDL is transactional: the column, its existing rows' value, the shape in the state and the checkpoint become
//! visible together, or not at all. The column comes before any row of the batch: a row of the older shape takes the value
//! the column was added with, as it did at the source. Its default for rows to come is set after the batch's rows.

use std::sync::Arc;

use serde_json::Value;

use super::apply::PgApplier;
use crate::change::ChangeEvent;
use crate::error::{Context, Error, Kind, Result};
use crate::schema::ShapeChange;
use crate::target::state::fenced;

/// How long an ALTER waits for readers of the target before the batch is tried again: everybody who reads the table
/// queues up behind it.
const LOCK_TIMEOUT: &str = "10s";

impl PgApplier {
    /// Carries out the changes of shape among `events`, in the transaction that is open.
    pub(super) async fn alter_tables(&mut self, events: &[ChangeEvent]) -> Result<()> {
        for event in events {
            if let ChangeEvent::Alter(change) = event {
                self.alter_table(change).await?;
            }
        }
        Ok(())
    }

    /// What remains to be done once the rows of the batch are written.
    pub(super) async fn alter_afterwards(&mut self, events: &[ChangeEvent]) -> Result<()> {
        for event in events {
            if let ChangeEvent::Alter(change) = event {
                self.run_statements(change, &change.afterwards).await?;
            }
        }
        Ok(())
    }

    async fn run_statements(&mut self, change: &ShapeChange, statements: &[String]) -> Result<()> {
        if statements.is_empty() {
            return Ok(());
        }
        let sql =
            format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; {}; SET LOCAL lock_timeout = 0", statements.join("; "));
        let explain = |error| {
            let error = Error::from(error);
            if error.kind() == Kind::Transient {
                return error;
            }
            error.fix(format!(
                "make what is missing at the target, or run there what suits you:  {};  then run again",
                statements.join("; ")
            ))
        };
        let doing = || format!("following an ALTER of {} at the target", change.source);
        self.client.batch_execute(&sql).await.map_err(explain).with_context(doing)
    }

    async fn alter_table(&mut self, change: &ShapeChange) -> Result<()> {
        self.tables.forget(&change.target);
        self.run_statements(change, &change.statements).await?;
        let sql = "UPDATE cutwater.table_state SET shape = $4
                   WHERE migration = $1 AND source_schema = $2 AND source_table = $3";
        let shape: Value =
            serde_json::to_value(&change.shape).map_err(|error| Error::new(Kind::Internal, error.to_string()))?;
        let (schema, table) = (&change.source.schema, &change.source.table);
        self.client
            .execute(sql, &[&self.lease.migration, schema, table, &shape])
            .await
            .context("recording a table's shape")
            .map(drop)
    }

    /// Carries out changes of shape that no row has followed yet, in a transaction of their own.
    pub(super) async fn alter_alone(&mut self, changes: &[Arc<ShapeChange>]) -> Result<()> {
        let doing = "following an ALTER at the target";
        self.client.batch_execute("BEGIN").await.context(doing)?;
        if self.lock_checkpoint().await? != 1 {
            return Err(fenced(&self.lease));
        }
        for change in changes {
            self.alter_table(change).await?;
            self.run_statements(change, &change.afterwards).await?;
        }
        self.client.batch_execute("COMMIT").await.context(doing)
    }
}
