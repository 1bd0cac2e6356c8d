//! What changed since a verify: turned on here, written by the applier, read by the final comparison of a cutover.
//!
//! In: the generation a clean verify ran under. Out: the keys that changed since, or why they are not known (TRAPS 24).
//! The rule that makes it whole: what changed since generation g is what stands under g and all later ones, and nothing
//! is missing from that as long as g's row is there, has not overflown, and tracking is on.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::workers::LOCK_ALL;
use super::{State, is_missing};
use crate::error::{Context, Error, Result};
use crate::postgres::connect;

/// How long turning it on waits for the batch under way.
const PATIENCE: Duration = Duration::from_secs(30);

/// What changed since a verify.
#[derive(Debug, Clone, Default)]
pub struct Changed {
    /// Keys, by table and generation.
    pub keys: Vec<ChangedKeys>,
    /// Tables any row of which may have changed, and why that is not known better: (quoted name at the target, why).
    pub whole: Vec<(String, String)>,
}

/// Keys of one table that changed under one generation.
#[derive(Debug, Clone)]
pub struct ChangedKeys {
    /// The generation.
    pub generation: i64,
    /// The table at the target, quoted.
    pub table: String,
    /// How many.
    pub count: u64,
    /// Columns of the keys; all the same unless the table's key was changed.
    pub columns: RangeInclusive<i32>,
}

/// What is known of what changed.
#[derive(Debug, Clone)]
pub enum Tracked {
    /// This, and nothing else.
    Whole(Changed),
    /// Not enough; why.
    Lost(String),
}

impl State {
    /// Keeps the keys of all rows that change from now on, under a new generation. Every change that is not kept is
    /// visible at the target when this returns. `None` if that cannot be promised: tables are still being copied, the
    /// state is older than this binary, or a batch is under way that does not end.
    pub async fn begin_tracking(&self) -> Result<Option<i64>> {
        let doing = "keeping the keys of what changes";
        // A connection of its own: the time-out would be everybody's on the shared one.
        let mut client = connect(&self.info, &format!("cutwater_{}", self.migration)).await?;
        client.batch_execute(&format!("SET lock_timeout = {}", PATIENCE.as_millis())).await.context(doing)?;
        let begun = async {
            let transaction = client.transaction().await?;
            // Worker 0's row keeps a live run from beginning a batch; the others' may be held by what a dead one has left.
            transaction.execute(LOCK_ALL, &[&self.migration]).await?;
            let row = transaction.query_opt(include_str!("begin_tracking.sql"), &[&self.migration]).await?;
            transaction.commit().await?;
            Ok::<_, tokio_postgres::Error>(row)
        };
        match begun.await {
            Ok(row) => Ok(row.map(|row| row.get(0))),
            // 55P03: lock_timeout; 42703: a column is missing.
            Err(error)
                if is_missing(&error) || error.code().is_some_and(|c| ["55P03", "42703"].contains(&c.code())) =>
            {
                let error = Error::from(error);
                tracing::info!(error = error.message(), "what changes is not tracked");
                Ok(None)
            }
            Err(error) => Err(Error::from(error).context(doing)),
        }
    }

    /// Forgets what changed before `generation`.
    pub(super) async fn forget_before(&self, generation: i64) -> Result<()> {
        for table in ["changed_key", "changed_table", "tracking"] {
            let sql = format!("DELETE FROM cutwater.{table} WHERE migration = $1 AND generation < $2");
            self.execute("forgetting what changed before the verify", &sql, &[&self.migration, &generation]).await?;
        }
        Ok(())
    }

    /// What changed since `generation`.
    pub async fn changed_since(&self, generation: i64) -> Result<Tracked> {
        let doing = "reading what changed since the verify";
        let sql = "SELECT t.overflow, c.tracking IS NOT NULL, t.key_limit
                     FROM cutwater.tracking t JOIN cutwater.checkpoint c ON c.migration = t.migration AND c.worker = 0
                    WHERE t.migration = $1 AND t.generation = $2";
        let rows = self.query(doing, sql, &[&self.migration, &generation]).await?;
        match rows.first().map(|row| (row.get(0), row.get(1), row.get::<_, i64>(2))) {
            Some((false, true, _)) => {}
            Some((true, _, limit)) => return Ok(Tracked::Lost(format!("more than {limit} rows changed since then"))),
            _ => return Ok(Tracked::Lost("what changed since then was not kept".into())),
        }
        let sql = "SELECT generation, tbl, count(*), min(cardinality(key)), max(cardinality(key))
                     FROM cutwater.changed_key WHERE migration = $1 AND generation >= $2 GROUP BY 1, 2 ORDER BY 1, 2";
        let rows = self.query(doing, sql, &[&self.migration, &generation]).await?;
        let keys = rows.iter().map(|row| ChangedKeys {
            generation: row.get(0),
            table: row.get(1),
            count: row.get::<_, i64>(2) as u64,
            columns: row.get(3)..=row.get(4),
        });
        let keys = keys.collect();
        let sql = "SELECT tbl, min(why) FROM cutwater.changed_table
                    WHERE migration = $1 AND generation >= $2 GROUP BY 1 ORDER BY 1";
        let rows = self.query(doing, sql, &[&self.migration, &generation]).await?;
        let whole = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        Ok(Tracked::Whole(Changed { keys, whole }))
    }
}
