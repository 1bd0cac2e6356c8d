//! The set of tables, as it changes in mid-migration: what was asked for, and how far a table is that is copied beside
//! the running stream.
//!
//! In: requests of `cutwater tables`, which is another process. Out, by the run that holds the lease: stages. The rule
//! for everything here that a stream's exactness hangs on: it is one transaction that first locks the migration's row
//! under the lease's epoch, so that it is over before a successor takes the lease, or finds that it is too late
//! (TRAPS 1).

use super::access::State;
use super::db::{How, params};
use super::lease::{expect_ours, fenced};
use super::migration::words;
use super::{Lease, NewTable, Phase, TableAction, TableRequest, TableStage};
use crate::change::Position;
use crate::error::{Error, Kind, Result};
use crate::schema::TableName;

/// Phases in which the set may change.
const OPEN: [Phase; 5] = [Phase::New, Phase::Snapshot, Phase::Indexing, Phase::CatchingUp, Phase::Streaming];

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requested {
    /// It is written down; a run takes note of it.
    Accepted,
    /// A cutover is under way or done: the set stays as it is.
    Closed,
}

/// A table's row, if it is ours under this epoch ($4).
const OF_TABLE: &str = "migration = $1 AND source_schema = $2 AND source_table = $3 AND epoch = $4";

impl State {
    /// Writes requests down, unless a cutover is under way or done.
    pub async fn request(&self, requests: &[TableRequest]) -> Result<Requested> {
        let doing = "writing down what is wanted of the tables";
        let mut transaction = self.transaction(doing).await?;
        let sql = format!(
            "SELECT 1 FROM cutwater.migration WHERE name = $1 AND phase IN ({}) FOR SHARE",
            words(OPEN.iter().map(|phase| phase.as_str()))
        );
        if transaction.query(doing, sql.as_str(), params![self.name()]).await?.is_empty() {
            return Ok(Requested::Closed);
        }
        for TableRequest { source, action } in requests {
            let sql = "INSERT INTO cutwater.table_request (migration, source_schema, source_table, action)
                       VALUES ($1, $2, $3, $4)
                       ON CONFLICT (migration, source_schema, source_table)
                       DO UPDATE SET action = $4, at = clock_timestamp()";
            let params = params![self.name(), &source.schema, &source.table, action.as_str()];
            transaction.execute(doing, sql, params).await?;
        }
        transaction.commit(doing).await?;
        Ok(Requested::Accepted)
    }

    /// What no run has taken note of yet, in name order.
    pub async fn requests(&self) -> Result<Vec<TableRequest>> {
        let sql = "SELECT source_schema, source_table, action FROM cutwater.table_request
                   WHERE migration = $1 ORDER BY 1, 2";
        let rows = self.query("reading what is wanted of the tables", sql, params![self.name()]).await?;
        rows.iter().map(|row| Ok(TableRequest { source: row.name(0)?, action: row.parse(2)? })).collect()
    }

    /// Takes note of requests: the tables have the stage that follows from them, and the requests are gone. `shapes` are
    /// those that are to be copied, as they are recorded. `false`: a cutover has come in between, and nothing was changed.
    pub async fn settle_requests(&self, lease: &Lease, requests: &[TableRequest], shapes: &[NewTable]) -> Result<bool> {
        let doing = "taking note of what is wanted of the tables";
        let mut transaction = self.transaction(doing).await?;
        let phase = self.lock(&mut transaction, lease).await?;
        if !OPEN.contains(&phase) {
            return Ok(false);
        }
        for request @ TableRequest { source: TableName { schema, table }, action } in requests {
            if let Some(shape) = shapes.iter().find(|shape| shape.source == request.source) {
                let NewTable { target, rows, bytes, rule, .. } = shape;
                let sql = "INSERT INTO cutwater.table_state
                                  (migration, source_schema, source_table, epoch, target_schema, target_table,
                                   rows_estimate, bytes_estimate, rule)
                           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
                           ON CONFLICT (migration, source_schema, source_table)
                           DO UPDATE SET target_schema = $5, target_table = $6, rows_estimate = $7,
                                         bytes_estimate = $8, rule = $9";
                let TableName { schema: to_schema, table: to_table } = target;
                let params = params![self.name(), schema, table, lease.epoch, to_schema, to_table, *rows, *bytes, rule];
                transaction.execute(doing, sql, params).await?;
            }
            let stage = match action {
                TableAction::Add | TableAction::Resync => TableStage::Waiting,
                TableAction::Skip => TableStage::Skipped,
                TableAction::Remove => TableStage::Removed,
            };
            let sql = format!(
                "UPDATE cutwater.table_state
                    SET stage = $5, side = false, unfinished = false, error = NULL, copied_at = NULL, worker = 0
                  WHERE {OF_TABLE}"
            );
            let params = params![self.name(), schema, table, lease.epoch, stage.as_str()];
            transaction.execute(doing, sql.as_str(), params).await?;
            let params = params![self.name(), schema, table, action.as_str()];
            transaction.execute(doing, DROP_REQUEST, params).await?;
        }
        transaction.commit(doing).await?;
        Ok(true)
    }

    /// A request that cannot be met is taken back.
    pub async fn drop_request(&self, request: &TableRequest) -> Result<()> {
        let TableName { schema, table } = &request.source;
        let params = params![self.name(), schema, table, request.action.as_str()];
        self.execute("taking a request back", DROP_REQUEST, params).await.map(drop)
    }

    /// Records that a table could not be copied.
    pub async fn set_failed(&self, lease: &Lease, source: &TableName, error: &Error) -> Result<()> {
        let sql =
            format!("UPDATE cutwater.table_state SET stage = 'failed', side = false, error = $5 WHERE {OF_TABLE}");
        let error = error.to_string();
        let params = params![self.name(), &source.schema, &source.table, lease.epoch, &error];
        expect_ours(self.execute("recording a table's failure", sql.as_str(), params).await?, lease)
    }

    /// Forgets a side copy that did not come to its end: its temporary slot is gone, and with it its changes. Waits for a
    /// transaction of it that is still open.
    pub async fn end_side(&self, lease: &Lease) -> Result<()> {
        let doing = "forgetting an unfinished side copy";
        let mut transaction = self.transaction(doing).await?;
        self.lock(&mut transaction, lease).await?;
        // The last copy may have its COMMIT on the way: its row says so once it can be locked.
        let sql = "DELETE FROM cutwater.checkpoint WHERE migration = $1 AND worker < 0";
        transaction.execute(doing, sql, params![self.name()]).await?;
        let sql = "UPDATE cutwater.table_state SET stage = 'waiting', side = false, copied_at = NULL
                    WHERE migration = $1 AND side AND stage IN ('waiting', 'copying', 'catching-up')";
        transaction.execute(doing, sql, params![self.name()]).await?;
        transaction.commit(doing).await
    }

    /// Begins a side copy of these tables at `position`: with a checkpoint of its own, and the mark on its tables by which
    /// their copies do not yet count as the stream's.
    pub async fn begin_side(&self, lease: &Lease, tables: &[TableName], position: &Position) -> Result<()> {
        let doing = "beginning a side copy";
        let mut transaction = self.transaction(doing).await?;
        self.lock(&mut transaction, lease).await?;
        let sql = "INSERT INTO cutwater.checkpoint (migration, worker, epoch, position) VALUES ($1, -1, $2, $3)";
        let position = position.to_string();
        let params = params![self.name(), lease.epoch, &position];
        transaction.execute(doing, sql, params).await?;
        let sql = format!(
            "UPDATE cutwater.table_state
                SET side = true, stage = 'waiting', error = NULL, copied_at = NULL, rows_final = NULL, finished_at = NULL
              WHERE {OF_TABLE}"
        );
        for TableName { schema, table } in tables {
            let params = params![self.name(), schema, table, lease.epoch];
            if transaction.execute(doing, sql.as_str(), params).await? != 1 {
                return Err(Error::new(Kind::Fenced, "a table of the side copy left the migration meanwhile"));
            }
        }
        transaction.commit(doing).await
    }

    /// Hands tables over to the stream, exact at `position`, where their own stream ended. The stream must stand still:
    /// its checkpoint's row is locked before anything else, so that it is started again only when this is decided.
    pub async fn hand_over(&self, lease: &Lease, tables: &[TableName], position: &Position) -> Result<()> {
        let doing = "handing tables over to the stream";
        let mut transaction = self.begin_with(doing, How { flushed: true, ..How::default() }).await?;
        self.lock(&mut transaction, lease).await?;
        let sql =
            "SELECT tracking FROM cutwater.checkpoint WHERE migration = $1 AND worker = 0 AND epoch = $2 FOR UPDATE";
        let rows = transaction.query(doing, sql, params![self.name(), lease.epoch]).await?;
        let tracking: Option<i64> = rows.first().ok_or_else(|| fenced(lease))?.get(0)?;
        let position = position.to_string();
        let sql =
            "DELETE FROM cutwater.checkpoint WHERE migration = $1 AND worker = -1 AND epoch = $2 AND position = $3";
        let params = params![self.name(), lease.epoch, &position];
        expect_ours(transaction.execute(doing, sql, params).await?, lease)?;
        for TableName { schema, table } in tables {
            // They are worker 0's, because another one may be further than the stream: it would pass for having applied
            // what came in between.
            let sql = format!(
                "UPDATE cutwater.table_state
                    SET stage = 'copied', side = false, unfinished = true, error = NULL, worker = 0, copied_at = $5,
                        finished_at = clock_timestamp()
                  WHERE {OF_TABLE}"
            );
            let params = params![self.name(), schema, table, lease.epoch, &position];
            expect_ours(transaction.execute(doing, sql.as_str(), params).await?, lease)?;
            // Any of their rows may have changed while nobody kept keys, so a comparison of what changed takes them whole.
            let Some(generation) = tracking else { continue };
            let sql = "SELECT target_schema, target_table FROM cutwater.table_state
                       WHERE migration = $1 AND source_schema = $2 AND source_table = $3";
            let rows = transaction.query(doing, sql, params![self.name(), schema, table]).await?;
            let target = rows.first().ok_or_else(|| fenced(lease))?.name(0)?.sql();
            let sql = "INSERT INTO cutwater.changed_table (migration, generation, tbl, why)
                       VALUES ($1, $2, $3, 'it was copied again') ON CONFLICT DO NOTHING";
            transaction.execute(doing, sql, params![self.name(), generation, &target]).await?;
        }
        transaction.commit(doing).await
    }

    /// A table has everything.
    pub async fn set_finished(&self, lease: &Lease, source: &TableName) -> Result<()> {
        let sql = format!("UPDATE cutwater.table_state SET unfinished = false, error = NULL WHERE {OF_TABLE}");
        let params = params![self.name(), &source.schema, &source.table, lease.epoch];
        expect_ours(self.execute("recording a finished table", sql.as_str(), params).await?, lease)
    }

    /// Notes what keeps a table from being finished; its stage stays.
    pub async fn set_error(&self, lease: &Lease, source: &TableName, error: &Error) -> Result<()> {
        let sql = format!("UPDATE cutwater.table_state SET error = $5 WHERE {OF_TABLE}");
        let error = error.to_string();
        let params = params![self.name(), &source.schema, &source.table, lease.epoch, &error];
        expect_ours(self.execute("recording a table's failure", sql.as_str(), params).await?, lease)
    }
}

/// A request that has been changed meanwhile stays.
const DROP_REQUEST: &str = "DELETE FROM cutwater.table_request
                             WHERE migration = $1 AND source_schema = $2 AND source_table = $3 AND action = $4";
