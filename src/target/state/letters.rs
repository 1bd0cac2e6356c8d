//! Rows that were set aside and rows that were not found: how many there are, and when they are of the past.

use super::LOCK_ALL;
use super::access::State;
use super::db::params;
use crate::error::Result;

/// How many dead letters and divergences there were at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetAside {
    newest: i64,
    divergences: i64,
}

impl State {
    /// How many dead letters there are.
    pub async fn dead_letters(&self) -> Result<u64> {
        let sql = "SELECT count(*) FROM cutwater.dead_letter WHERE migration = $1";
        let rows = self.query("counting the dead letters", sql, params![self.name()]).await?;
        rows.first().map_or(Ok(0), |row| row.get::<i64>(0).map(|count| count as u64))
    }

    /// The newest dead letter and the divergences so far.
    pub async fn set_aside(&self) -> Result<SetAside> {
        let sql = "SELECT divergences, coalesce((SELECT max(id) FROM cutwater.dead_letter WHERE migration = $1), 0)
                     FROM cutwater.checkpoint WHERE migration = $1 AND worker >= 0";
        let rows = self.query("counting the dead letters", sql, params![self.name()]).await?;
        let divergences = rows.iter().map(|row| row.get::<i64>(0)).sum::<Result<i64>>()?;
        Ok(SetAside { newest: rows.first().map_or(Ok(0), |row| row.get(1))?, divergences })
    }

    /// Forgets what had been set aside at that moment: since then every row of every table was found to be, or made, the
    /// same at both ends. Later ones stay.
    pub async fn settle(&self, until: SetAside) -> Result<()> {
        let doing = "settling the dead letters";
        let mut transaction = self.transaction(doing).await?;
        transaction.query("locking the checkpoints", LOCK_ALL, params![self.name()]).await?;
        let sql = "SELECT worker, divergences FROM cutwater.checkpoint WHERE migration = $1 AND worker >= 0
                   ORDER BY worker";
        // What is taken off is taken from one worker after the other.
        let mut left = until.divergences;
        for row in transaction.query(doing, sql, params![self.name()]).await? {
            let (worker, divergences): (i32, i64) = (row.get(0)?, row.get(1)?);
            let taken = left.min(divergences);
            left -= taken;
            let sql = "UPDATE cutwater.checkpoint SET divergences = divergences - $3
                       WHERE migration = $1 AND worker = $2";
            if taken > 0 {
                transaction.execute(doing, sql, params![self.name(), worker, taken]).await?;
            }
        }
        let sql = "DELETE FROM cutwater.dead_letter WHERE migration = $1 AND id <= $2";
        transaction.execute(doing, sql, params![self.name(), until.newest]).await?;
        transaction.commit(doing).await
    }
}
