//! Which layouts of the state this binary works with: asked on every new connection to the state, so that no command can
//! forget it.

use super::{State, is_missing};
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::Client;
use crate::target::state::{FORMAT, Lease};

/// Refuses a newer layout.
pub(super) fn known(migration: &str, format: i32) -> Result<()> {
    if format <= FORMAT {
        return Ok(());
    }
    let why = format!(
        "the state of {migration:?} has format {format}, and this cutwater ({}) knows formats up to {FORMAT}. Nothing was touched",
        env!("CARGO_PKG_VERSION")
    );
    Err(Error::new(Kind::Config, why).fix("use the newer cutwater that began or upgraded this migration"))
}

/// The same of what a connection finds.
pub(super) async fn check(client: &Client, migration: &str) -> Result<()> {
    let sql = "SELECT format FROM cutwater.migration WHERE name = $1";
    match client.query_opt(sql, &[&migration]).await {
        Ok(row) => known(migration, row.map_or(FORMAT, |row| row.get(0))),
        Err(error) if is_missing(&error) => Ok(()),
        Err(error) => Err(Error::from(error).context("reading the state's format")),
    }
}

impl State {
    /// The newest format of any migration in this target: an older binary must not lay its tables over a newer layout.
    pub(super) async fn check_layout(&self, client: &Client) -> Result<()> {
        match client.query_one("SELECT max(format) FROM cutwater.migration", &[]).await {
            Ok(row) => known(self.name(), row.get::<_, Option<i32>>(0).unwrap_or(FORMAT)),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(Error::from(error).context("reading the state's format")),
        }
    }

    /// Whether the schema `cutwater` is there.
    pub async fn has_layout(&self) -> Result<bool> {
        let rows = self.query("looking for the state", "SELECT 1 FROM cutwater.migration LIMIT 1", &[]).await?;
        Ok(!rows.is_empty())
    }

    /// Makes a state of an older format, whose tables [`State::install`] has brought to this one, say so. `rules` is what
    /// the config makes of each table: the caller has made sure that it is the config of before.
    pub async fn upgrade(&self, lease: &Lease, fingerprint: &str, rules: &[(String, String, String)]) -> Result<()> {
        let mut columns: [Vec<&str>; 3] = Default::default();
        for (schema, table, rule) in rules {
            columns[0].push(schema);
            columns[1].push(table);
            columns[2].push(rule);
        }
        let sql = include_str!("upgrade.sql");
        let client = self.client().await?;
        let row = client
            .query_one(sql, &[&self.name(), &lease.epoch, &FORMAT, &fingerprint, &columns[0], &columns[1], &columns[2]])
            .await
            .context("upgrading the state")?;
        super::expect_ours(row.get::<_, i64>(0) as u64, lease)
    }

    /// Refuses to write into a state that `run` has not brought to this format yet.
    pub async fn require_current(&self) -> Result<()> {
        match self.migration().await? {
            Some(migration) if migration.format < FORMAT => {
                let why = format!(
                    "the state of {:?} has format {}, which an older cutwater wrote; this one works with {FORMAT}",
                    self.name(),
                    migration.format
                );
                Err(Error::new(Kind::Config, why)
                    .fix("stop the old run, then cutwater run: it upgrades the state and goes on where it was"))
            }
            _ => Ok(()),
        }
    }
}
