//! The partitions that were empty when they came: all their rows are in the stream.

use super::access::State;
use super::db::params;
use crate::error::Result;
use crate::schema::{Became, LeafChange};

impl State {
    /// Writes one down.
    pub async fn know_leaf(&self, change: &LeafChange) -> Result<()> {
        let sql = "INSERT INTO cutwater.empty_leaf (migration, relation, file, attached) VALUES ($1, $2, $3, $4)
                   ON CONFLICT DO NOTHING";
        let leaf = &change.leaf;
        let params = params![self.name(), change.id, leaf.file, &leaf.attached];
        self.execute("writing down a new partition", sql, params).await.map(drop)
    }

    /// The changes that are not such a partition's coming.
    pub async fn without_known_leaves(&self, mut changes: Vec<LeafChange>) -> Result<Vec<LeafChange>> {
        if changes.iter().any(|change| change.became == Became::Attached) {
            let sql = "SELECT relation, file, attached FROM cutwater.empty_leaf WHERE migration = $1";
            let rows = self.query("reading the new partitions", sql, params![self.name()]).await?;
            let known: Vec<(u32, u32, String)> =
                rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).collect::<Result<_>>()?;
            changes.retain(|change| {
                let this = (change.id, change.leaf.file, change.leaf.attached.clone());
                change.became != Became::Attached || !known.contains(&this)
            });
        }
        Ok(changes)
    }
}
