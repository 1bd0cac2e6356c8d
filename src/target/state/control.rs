//! The control row: what people ask of the run. Commands write it, the run takes it up and says so.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::access::State;
use super::db::{Row, params};
use super::migration::to_json;
use super::{Control, Order};
use crate::error::{Error, Kind, Result};

/// The columns that [`read`] reads.
const COLUMNS: &str =
    "version, snapshot_paused_at, apply_paused_at, paused_by, settings, acknowledged, acknowledged_by";

fn read(row: &Row) -> Result<Control> {
    Ok(Control {
        version: row.get(0)?,
        snapshot_paused_at: row.get(1)?,
        apply_paused_at: row.get(2)?,
        paused_by: row.get(3)?,
        settings: row.json(4)?,
        acknowledged: row.get(5)?,
        acknowledged_by: row.get(6)?,
    })
}

impl State {
    /// What is asked of the run; everything at rest if nobody ever asked for anything.
    pub async fn control(&self) -> Result<Control> {
        let sql = format!("SELECT {COLUMNS} FROM cutwater.control WHERE migration = $1");
        let rows = self.query("reading what is asked of the run", sql.as_str(), params![self.name()]).await?;
        rows.first().map_or_else(|| Ok(Control::default()), read)
    }

    /// Asks for something; returns the version that the run will acknowledge.
    pub async fn order(&self, order: &Order, by: &str) -> Result<i64> {
        let doing = "writing what is asked of the run";
        // The state may have been begun before there was such a table.
        self.install().await?;
        let sql = "INSERT INTO cutwater.control (migration, settings) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        let nothing = to_json(&BTreeMap::<String, String>::new())?;
        self.execute(doing, sql, params![self.name(), &nothing]).await?;

        let mut transaction = self.short_transaction(doing).await?;
        let sql = format!("SELECT {COLUMNS}, clock_timestamp() FROM cutwater.control WHERE migration = $1 FOR UPDATE");
        let rows = transaction.query(doing, sql.as_str(), params![self.name()]).await?;
        let row = rows.first().ok_or_else(|| Error::new(Kind::Internal, "the control row is gone"))?;
        let control = ordered(read(row)?, order, by, row.get(7)?);
        let settings = to_json(&control.settings)?;
        let params = params![
            self.name(),
            control.version,
            control.snapshot_paused_at,
            control.apply_paused_at,
            control.paused_by.as_deref(),
            &settings
        ];
        let sql = "UPDATE cutwater.control
                      SET version = $2, snapshot_paused_at = $3, apply_paused_at = $4, paused_by = $5, settings = $6
                    WHERE migration = $1";
        transaction.execute(doing, sql, params).await?;
        transaction.commit(doing).await?;
        Ok(control.version)
    }

    /// The run acts on this version.
    pub async fn acknowledge(&self, version: i64, by: &str) -> Result<()> {
        let sql = "UPDATE cutwater.control SET acknowledged = $2, acknowledged_by = $3 WHERE migration = $1";
        self.execute("acknowledging what is asked of the run", sql, params![self.name(), version, by]).await.map(drop)
    }
}

/// What is asked of the run when this is asked too. A pause that lasts keeps its beginning.
fn ordered(mut control: Control, order: &Order, by: &str, now: Timestamp) -> Control {
    let since = |paused: Option<bool>, since: Option<Timestamp>| match paused {
        Some(true) => since.or(Some(now)),
        Some(false) => None,
        None => since,
    };
    control.version += 1;
    control.snapshot_paused_at = since(order.snapshot_paused, control.snapshot_paused_at);
    control.apply_paused_at = since(order.apply_paused, control.apply_paused_at);
    if [order.snapshot_paused, order.apply_paused].contains(&Some(true)) {
        control.paused_by = Some(by.to_owned());
    }
    for (key, value) in &order.settings {
        match value {
            Some(value) => control.settings.insert(key.clone(), value.clone()),
            None => control.settings.remove(key),
        };
    }
    control
}
