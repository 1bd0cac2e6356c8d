//! The set of tables, as it changes in mid-migration: what was asked for, and how far a table is that is copied beside
//! the running stream.
//!
//! In: requests of `cutwater tables`, which is another process. Out, by the run that holds the lease: stages. The rule
//! for everything here that a stream's exactness hangs on: it is one transaction that first locks the migration's row
//! under the lease's epoch, so that it is over before a successor takes the lease, or finds that it is too late
//! (TRAPS 1).

use tokio_postgres::Transaction;

use super::{Params, State, expect_ours, fenced};
use crate::change::Position;
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::connect;
use crate::schema::TableName;
use crate::target::state::{Lease, NewTable, Phase, TableAction, TableRequest, TableStage};

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

impl State {
    /// Writes requests down, unless a cutover is under way or done.
    pub async fn request(&self, requests: &[TableRequest]) -> Result<Requested> {
        let sql = "INSERT INTO cutwater.table_request (migration, source_schema, source_table, action)
                   SELECT name, $2, $3, $4 FROM cutwater.migration WHERE name = $1 AND phase = ANY($5) FOR SHARE
                   ON CONFLICT (migration, source_schema, source_table)
                   DO UPDATE SET action = excluded.action, at = excluded.at";
        let open: Vec<&str> = OPEN.iter().map(|phase| phase.as_str()).collect();
        let doing = "writing down what is wanted of the tables";
        let mut client = connect(&self.info, &format!("cutwater_{}", self.migration)).await?;
        let transaction = client.transaction().await.context(doing)?;
        for TableRequest { source, action } in requests {
            let params: Params<'_> = &[&self.migration, &source.schema, &source.table, &action.as_str(), &open];
            if transaction.execute(sql, params).await.context(doing)? == 0 {
                return Ok(Requested::Closed);
            }
        }
        transaction.commit().await.context(doing)?;
        Ok(Requested::Accepted)
    }

    /// What no run has taken note of yet, in name order.
    pub async fn requests(&self) -> Result<Vec<TableRequest>> {
        let sql = "SELECT source_schema, source_table, action FROM cutwater.table_request
                   WHERE migration = $1 ORDER BY 1, 2";
        let rows = self.query("reading what is wanted of the tables", sql, &[&self.migration]).await?;
        let request = |row: &tokio_postgres::Row| {
            let source = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
            Ok(TableRequest { source, action: row.get::<_, &str>(2).parse()? })
        };
        rows.iter().map(request).collect()
    }

    /// Takes note of requests: the tables have the stage that follows from them, and the requests are gone. `shapes` are
    /// those that are to be copied, as they are recorded. `false`: a cutover has come in between, and nothing was changed.
    pub async fn settle_requests(&self, lease: &Lease, requests: &[TableRequest], shapes: &[NewTable]) -> Result<bool> {
        let doing = "taking note of what is wanted of the tables";
        let mut client = connect(&self.info, &format!("cutwater_{}", self.migration)).await?;
        let transaction = client.transaction().await.context(doing)?;
        let phase = self.lock(&transaction, lease).await?;
        if !OPEN.contains(&phase) {
            return Ok(false);
        }
        for TableRequest { source, action } in requests {
            if let Some(NewTable { target, rows, bytes, rule, .. }) =
                shapes.iter().find(|shape| shape.source == *source)
            {
                let TableName { schema, table } = source;
                let params: Params<'_> =
                    &[&self.migration, schema, table, &target.schema, &target.table, &lease.epoch, rows, bytes, rule];
                transaction.execute(include_str!("shape.sql"), params).await.context(doing)?;
            }
            let stage = match action {
                TableAction::Add | TableAction::Resync => TableStage::Waiting,
                TableAction::Skip => TableStage::Skipped,
                TableAction::Remove => TableStage::Removed,
            };
            let sql = "UPDATE cutwater.table_state
                          SET stage = $5, side = false, unfinished = false, error = NULL, copied_at = NULL, worker = 0
                        WHERE migration = $1 AND source_schema = $2 AND source_table = $3 AND epoch = $4";
            let TableName { schema, table } = source;
            let params: Params<'_> = &[&self.migration, schema, table, &lease.epoch, &stage.as_str()];
            transaction.execute(sql, params).await.context(doing)?;
            let sql = "DELETE FROM cutwater.table_request
                        WHERE migration = $1 AND source_schema = $2 AND source_table = $3 AND action = $4";
            let params: Params<'_> = &[&self.migration, schema, table, &action.as_str()];
            transaction.execute(sql, params).await.context(doing)?;
        }
        transaction.commit().await.context(doing)?;
        Ok(true)
    }

    /// A request that cannot be met is taken back.
    pub async fn drop_request(&self, request: &TableRequest) -> Result<()> {
        let sql = "DELETE FROM cutwater.table_request
                    WHERE migration = $1 AND source_schema = $2 AND source_table = $3 AND action = $4";
        let TableName { schema, table } = &request.source;
        let params: Params<'_> = &[&self.migration, schema, table, &request.action.as_str()];
        self.execute("taking a request back", sql, params).await.map(drop)
    }

    /// Records that a table could not be copied.
    pub async fn set_failed(&self, lease: &Lease, source: &TableName, error: &Error) -> Result<()> {
        let sql = "UPDATE cutwater.table_state SET stage = 'failed', side = false, error = $5
                    WHERE migration = $1 AND source_schema = $2 AND source_table = $3 AND epoch = $4";
        let params: Params<'_> = &[&self.migration, &source.schema, &source.table, &lease.epoch, &error.to_string()];
        expect_ours(self.execute("recording a table's failure", sql, params).await?, lease)
    }

    /// Forgets a side copy that did not come to its end: its temporary slot is gone, and with it its changes. Waits for a
    /// transaction of it that is still open.
    pub async fn end_side(&self, lease: &Lease) -> Result<()> {
        let doing = "forgetting an unfinished side copy";
        let mut client = connect(&self.info, &format!("cutwater_{}", self.migration)).await?;
        let transaction = client.transaction().await.context(doing)?;
        self.lock(&transaction, lease).await?;
        // The last copy may have its COMMIT on the way: its row says so once it can be locked.
        let sql = "DELETE FROM cutwater.checkpoint WHERE migration = $1 AND worker < 0";
        transaction.execute(sql, &[&self.migration]).await.context(doing)?;
        let sql = "UPDATE cutwater.table_state SET stage = 'waiting', side = false, copied_at = NULL
                    WHERE migration = $1 AND side AND stage IN ('waiting', 'copying', 'catching-up')";
        transaction.execute(sql, &[&self.migration]).await.context(doing)?;
        transaction.commit().await.context(doing)
    }

    /// Begins a side copy of these tables at `position`.
    pub async fn begin_side(&self, lease: &Lease, tables: &[TableName], position: &Position) -> Result<()> {
        let doing = "beginning a side copy";
        let mut client = connect(&self.info, &format!("cutwater_{}", self.migration)).await?;
        let transaction = client.transaction().await.context(doing)?;
        self.lock(&transaction, lease).await?;
        let (schemas, names) = unzip(tables);
        let params: Params<'_> = &[&self.migration, &lease.epoch, &position.to_string(), &schemas, &names];
        let begun = transaction.execute(include_str!("begin_side.sql"), params).await.context(doing)?;
        if begun != tables.len() as u64 {
            return Err(Error::new(Kind::Fenced, "a table of the side copy left the migration meanwhile"));
        }
        transaction.commit().await.context(doing)
    }

    /// Hands tables over to the stream, exact at `position`, where their own stream ended. The stream must stand still:
    /// its checkpoint's row is locked before anything else, so that it is started again only when this is decided.
    pub async fn hand_over(&self, lease: &Lease, tables: &[TableName], position: &Position) -> Result<()> {
        let doing = "handing tables over to the stream";
        let mut client = connect(&self.info, &format!("cutwater_{}", self.migration)).await?;
        client.batch_execute("SET synchronous_commit = on").await.context(doing)?;
        let transaction = client.transaction().await.context(doing)?;
        self.lock(&transaction, lease).await?;
        let sql = "SELECT 1 FROM cutwater.checkpoint WHERE migration = $1 AND worker = 0 AND epoch = $2 FOR UPDATE";
        let row = transaction.query_opt(sql, &[&self.migration, &lease.epoch]).await.context(doing)?;
        row.ok_or_else(|| fenced(lease))?;
        let (schemas, names) = unzip(tables);
        let params: Params<'_> = &[&self.migration, &lease.epoch, &position.to_string(), &schemas, &names];
        let row = transaction.query_one(include_str!("hand_over.sql"), params).await.context(doing)?;
        if row.get::<_, i64>(0) != tables.len() as i64 {
            return Err(fenced(lease));
        }
        transaction.commit().await.context(doing)
    }

    /// A table has everything.
    pub async fn set_finished(&self, lease: &Lease, source: &TableName) -> Result<()> {
        let sql = "UPDATE cutwater.table_state SET unfinished = false, error = NULL
                    WHERE migration = $1 AND source_schema = $2 AND source_table = $3 AND epoch = $4";
        let params: Params<'_> = &[&self.migration, &source.schema, &source.table, &lease.epoch];
        expect_ours(self.execute("recording a finished table", sql, params).await?, lease)
    }

    /// Notes what keeps a table from being finished; its stage stays.
    pub async fn set_error(&self, lease: &Lease, source: &TableName, error: &Error) -> Result<()> {
        let sql = "UPDATE cutwater.table_state SET error = $5
                    WHERE migration = $1 AND source_schema = $2 AND source_table = $3 AND epoch = $4";
        let params: Params<'_> = &[&self.migration, &source.schema, &source.table, &lease.epoch, &error.to_string()];
        expect_ours(self.execute("recording a table's failure", sql, params).await?, lease)
    }

    /// Locks the migration's row under our epoch; the phase it is in.
    pub(super) async fn lock(&self, transaction: &Transaction<'_>, lease: &Lease) -> Result<Phase> {
        let sql = "SELECT phase FROM cutwater.migration WHERE name = $1 AND epoch = $2 FOR SHARE";
        let row = transaction.query_opt(sql, &[&self.migration, &lease.epoch]).await;
        let row = row.context("locking the migration's row")?.ok_or_else(|| fenced(lease))?;
        row.get::<_, &str>(0).parse()
    }
}

fn unzip(tables: &[TableName]) -> (Vec<&str>, Vec<&str>) {
    tables.iter().map(|name| (name.schema.as_str(), name.table.as_str())).unzip()
}
