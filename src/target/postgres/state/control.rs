//! The control row: what people ask of the run. Commands write it, the run takes it up and says so.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Params, State, from_json, micros, to_json};
use crate::error::{Context, Result};
use crate::target::state::{Control, Order};

impl State {
    /// What is asked of the run; everything at rest if nobody ever asked for anything.
    pub async fn control(&self) -> Result<Control> {
        let sql = "SELECT version, (extract(epoch FROM snapshot_paused_at) * 1000000)::bigint,
                          (extract(epoch FROM apply_paused_at) * 1000000)::bigint, paused_by, settings,
                          acknowledged, acknowledged_by
                   FROM cutwater.control WHERE migration = $1";
        let rows = self.query("reading what is asked of the run", sql, &[&self.migration]).await?;
        let Some(row) = rows.first() else { return Ok(Control::default()) };
        Ok(Control {
            version: row.get(0),
            snapshot_paused_at: row.get::<_, Option<i64>>(1).map(micros).transpose()?,
            apply_paused_at: row.get::<_, Option<i64>>(2).map(micros).transpose()?,
            paused_by: row.get(3),
            settings: from_json(row.get::<_, Value>(4))?,
            acknowledged: row.get(5),
            acknowledged_by: row.get(6),
        })
    }

    /// Asks for something; returns the version that the run will acknowledge.
    pub async fn order(&self, order: &Order, by: &str) -> Result<i64> {
        let doing = "writing what is asked of the run";
        // The state may have been begun before there was such a table.
        self.install().await?;
        let row = "INSERT INTO cutwater.control (migration) VALUES ($1) ON CONFLICT DO NOTHING";
        self.execute(doing, row, &[&self.migration]).await?;
        let settings: &BTreeMap<String, Option<String>> = &order.settings;
        let settings = to_json(settings)?;
        let params: Params<'_> = &[&self.migration, &order.snapshot_paused, &order.apply_paused, &by, &settings];
        let row = self.client().await?.query_one(include_str!("order.sql"), params).await.context(doing)?;
        Ok(row.get(0))
    }

    /// The run acts on this version.
    pub async fn acknowledge(&self, version: i64, by: &str) -> Result<()> {
        let sql = "UPDATE cutwater.control SET acknowledged = $2, acknowledged_by = $3 WHERE migration = $1";
        self.execute("acknowledging what is asked of the run", sql, &[&self.migration, &version, &by]).await.map(drop)
    }
}
