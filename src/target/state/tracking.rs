//! What changed since a verify: turned on here, written by the applier, read by the final comparison of a cutover.
//!
//! In: the generation a clean verify ran under. Out: the keys that changed since, or why they are not known (TRAPS 24).
//! The rule that makes it whole: what changed since generation g is what stands under g and all later ones, and nothing
//! is missing from that as long as g's row is there, has not overflown, and tracking is on.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::LOCK_ALL;
use super::access::State;
use super::db::{Failed, How, Row, Sql, Why, params};
use crate::error::{Context, Error, Result};
use crate::schema::TableName;

/// How long turning it on waits for the batch under way.
const PATIENCE: Duration = Duration::from_secs(30);

/// The keys since $2, counted.
const CHANGED: Sql<'_> = Sql {
    postgres: "SELECT k.generation, k.tbl, count(*), min(cardinality(k.key)), max(cardinality(k.key))
                 FROM cutwater.changed_key AS k WHERE k.migration = $1 AND k.generation >= $2
                GROUP BY 1, 2 ORDER BY 1, 2",
    mysql: "SELECT k.generation, k.tbl, count(*), min(json_length(k.key)), max(json_length(k.key))
              FROM cutwater.changed_key AS k WHERE k.migration = $1 AND k.generation >= $2
             GROUP BY 1, 2 ORDER BY 1, 2",
};

/// The keys of table $2, each as JSON.
const KEYS: Sql<'_> = Sql {
    postgres: "SELECT array_to_json(k.key)::text FROM cutwater.changed_key AS k
                WHERE k.migration = $1 AND k.tbl = $2 AND k.generation BETWEEN $3 AND $4
                  AND k.hash BETWEEN $5 AND $6",
    mysql: "SELECT k.key FROM cutwater.changed_key AS k
             WHERE k.migration = $1 AND k.tbl = $2 AND k.generation BETWEEN $3 AND $4
               AND k.hash BETWEEN $5 AND $6",
};

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

/// Which rows of a table changed since a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// Those with these keys, by the texts of the target.
    Keys(Vec<Vec<String>>),
    /// Any of them may have.
    Any,
}

impl State {
    /// Keeps the keys of all rows that change from now on, under a new generation. Every change that is not kept is
    /// visible at the target when this returns. `None` if that cannot be promised: tables are still being copied, the
    /// state is older than this binary, or a batch is under way that does not end.
    pub async fn begin_tracking(&self) -> Result<Option<i64>> {
        match self.try_begin_tracking().await {
            Err(Failed { why: Why::NoTable | Why::NoColumn | Why::Locked, error }) => {
                tracing::info!(error = error.message(), "what changes is not tracked");
                Ok(None)
            }
            begun => begun.context("keeping the keys of what changes"),
        }
    }

    async fn try_begin_tracking(&self) -> Result<Option<i64>, Failed> {
        let doing = "keeping the keys of what changes";
        let how = How { patience: Some(PATIENCE), ..How::default() };
        let mut transaction = self.begin_with(doing, how).await?;
        // Worker 0's row keeps a live run from beginning a batch; the others' may be held by what a dead one has left. The
        // next batch locks it too, and sees the new value in it.
        transaction.try_query(LOCK_ALL, params![self.name()]).await?;
        // Copies write rows whose keys nobody keeps.
        let sql = "UPDATE cutwater.checkpoint SET tracking = generations + 1, generations = generations + 1
                    WHERE migration = $1 AND worker = 0
                      AND NOT EXISTS (SELECT 1 FROM cutwater.table_state
                                       WHERE migration = $1 AND stage IN ('waiting', 'copying', 'catching-up'))";
        if transaction.try_execute(sql, params![self.name()]).await? == 0 {
            return Ok(None);
        }
        let sql = "INSERT INTO cutwater.tracking (migration, generation)
                   SELECT migration, tracking FROM cutwater.checkpoint WHERE migration = $1 AND worker = 0";
        transaction.try_execute(sql, params![self.name()]).await?;
        let sql = "SELECT tracking FROM cutwater.checkpoint WHERE migration = $1 AND worker = 0";
        let rows = transaction.try_query(sql, params![self.name()]).await?;
        let generation = rows.first().map(|row| row.get(0)).transpose()?;
        transaction.commit(doing).await?;
        Ok(generation)
    }

    /// Forgets what changed before `generation`.
    pub(super) async fn forget_before(&self, generation: i64) -> Result<()> {
        for table in ["changed_key", "changed_table", "tracking"] {
            let sql = format!("DELETE FROM cutwater.{table} WHERE migration = $1 AND generation < $2");
            let params = params![self.name(), generation];
            self.execute("forgetting what changed before the verify", sql.as_str(), params).await?;
        }
        Ok(())
    }

    /// The keys of a table that were kept under this generation with a hash in this range, by the texts of the target.
    pub async fn changed_keys(
        &self,
        generation: i64,
        table: &TableName,
        hashes: RangeInclusive<i64>,
    ) -> Result<Vec<Vec<String>>> {
        self.keys(table, generation..=generation, hashes).await
    }

    /// Those that were kept under this generation or a later one, and whether any row of the table may have changed since.
    pub async fn touched_since(&self, generation: i64, table: &TableName) -> Result<Touched> {
        if let Tracked::Whole(changed) = self.changed_since(generation).await? {
            let name = table.sql();
            if !changed.whole.iter().any(|(whole, _)| *whole == name) {
                return Ok(Touched::Keys(self.keys(table, generation..=i64::MAX, i64::MIN..=i64::MAX).await?));
            }
        }
        Ok(Touched::Any)
    }

    async fn keys(
        &self,
        table: &TableName,
        generations: RangeInclusive<i64>,
        hashes: RangeInclusive<i64>,
    ) -> Result<Vec<Vec<String>>> {
        let name = table.sql();
        let (since, until) = (*generations.start(), *generations.end());
        let params = params![self.name(), &name, since, until, *hashes.start(), *hashes.end()];
        let rows = self.query("reading the keys of what changed", KEYS, params).await?;
        rows.iter().map(|row| row.json(0)).collect()
    }

    /// What changed since `generation`.
    pub async fn changed_since(&self, generation: i64) -> Result<Tracked> {
        let doing = "reading what changed since the verify";
        let params = params![self.name(), generation];
        let sql = "SELECT t.overflow, c.tracking IS NOT NULL, t.key_limit
                     FROM cutwater.tracking t JOIN cutwater.checkpoint c ON c.migration = t.migration AND c.worker = 0
                    WHERE t.migration = $1 AND t.generation = $2";
        let rows = self.query(doing, sql, params).await?;
        let told = |row: &Row| Ok::<_, Error>((row.get(0)?, row.get(1)?, row.get::<i64>(2)?));
        match rows.first().map(told).transpose()? {
            Some((false, true, _)) => {}
            Some((true, _, limit)) => return Ok(Tracked::Lost(format!("more than {limit} rows changed since then"))),
            _ => return Ok(Tracked::Lost("what changed since then was not kept".into())),
        }
        let rows = self.query(doing, CHANGED, params).await?;
        let keys = rows.iter().map(|row| {
            Ok(ChangedKeys {
                generation: row.get(0)?,
                table: row.get(1)?,
                count: row.get::<i64>(2)? as u64,
                columns: row.get(3)?..=row.get(4)?,
            })
        });
        let keys = keys.collect::<Result<_>>()?;
        let sql = "SELECT tbl, min(why) FROM cutwater.changed_table
                    WHERE migration = $1 AND generation >= $2 GROUP BY 1 ORDER BY 1";
        let rows = self.query(doing, sql, params).await?;
        let whole = rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect::<Result<_>>()?;
        Ok(Tracked::Whole(Changed { keys, whole }))
    }
}
