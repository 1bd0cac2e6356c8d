//! Rows that were set aside and rows that were not found: how many there are, and when they are of the past.

use super::{Params, State};
use crate::error::{Context, Result};
use crate::postgres::connect;

/// How many dead letters and divergences there were at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetAside {
    newest: i64,
    divergences: i64,
}

impl State {
    /// The newest dead letter and the divergences so far.
    pub async fn set_aside(&self) -> Result<SetAside> {
        let sql = "SELECT coalesce((SELECT max(id) FROM cutwater.dead_letter WHERE migration = $1), 0),
                          coalesce((SELECT sum(divergences)::bigint FROM cutwater.checkpoint WHERE migration = $1 AND worker >= 0), 0)";
        let rows = self.query("counting the dead letters", sql, &[&self.migration]).await?;
        Ok(rows.first().map_or(SetAside { newest: 0, divergences: 0 }, |row| SetAside {
            newest: row.get(0),
            divergences: row.get(1),
        }))
    }

    /// Forgets what had been set aside at that moment: since then every row of every table was found to be, or made, the
    /// same at both ends. Later ones stay.
    pub async fn settle(&self, until: SetAside) -> Result<()> {
        let doing = "settling the dead letters";
        let mut client = connect(&self.info, &format!("cutwater_{}", self.migration)).await?;
        let transaction = client.transaction().await.context(doing)?;
        self.lock_checkpoints(&transaction).await?;
        let params: Params<'_> = &[&self.migration, &until.newest, &until.divergences];
        transaction.execute(include_str!("settle.sql"), params).await.context(doing)?;
        transaction.commit().await.context(doing)
    }
}
