//! Which layouts of the state this binary works with: asked on every new connection to the state, so that no command can
//! forget it.

use super::access::State;
use super::db::{Session, Sql, Why, params, sql};
use super::lease::expect_ours;
use super::{FORMAT, Lease};
use crate::error::{Context, Error, Kind, Result};

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
pub(super) async fn check(session: &mut Session, migration: &str) -> Result<()> {
    let sql = "SELECT format FROM cutwater.migration WHERE name = $1";
    known(migration, found(session, sql.into(), params![migration]).await?)
}

/// The newest format of any migration in this target: an older binary must not lay its tables over a newer layout.
pub(super) async fn check_layout(session: &mut Session, migration: &str) -> Result<()> {
    let sql = "SELECT max(format) FROM cutwater.migration";
    known(migration, found(session, sql.into(), &[]).await?)
}

/// A format; ours if there is none.
async fn found(session: &mut Session, sql: Sql<'_>, params: super::db::Params<'_>) -> Result<i32> {
    match session.query(sql, params).await {
        Ok(rows) => Ok(rows.first().map_or(Ok(None), |row| row.get(0))?.unwrap_or(FORMAT)),
        Err(failed) if failed.why == Why::NoTable => Ok(FORMAT),
        failed => failed.context("reading the state's format").map(|_| FORMAT),
    }
}

impl State {
    /// Whether the layout is there, with a migration in it.
    pub async fn has_layout(&self) -> Result<bool> {
        let rows = self.query("looking for the state", "SELECT 1 FROM cutwater.migration LIMIT 1", &[]).await?;
        Ok(!rows.is_empty())
    }

    /// Makes a state of an older format, whose tables [`State::install`] has brought to this one, say so. `rules` is what
    /// the config makes of each table: the caller has made sure that it is the config of before. All or nothing: a state
    /// says format 2 only with every table's rule in it.
    pub async fn upgrade(&self, lease: &Lease, fingerprint: &str, rules: &[(String, String, String)]) -> Result<()> {
        let doing = "upgrading the state";
        let mut transaction = self.transaction(doing).await?;
        let sql = "UPDATE cutwater.migration SET format = $3, fingerprint = $4 WHERE name = $1 AND epoch = $2";
        let params = params![self.name(), lease.epoch, FORMAT, fingerprint];
        expect_ours(transaction.execute(doing, sql, params).await?, lease)?;
        let column = |of: fn(&(String, String, String)) -> &str| rules.iter().map(of).collect::<Vec<_>>();
        let (schemas, names, rules) = (column(|rule| &rule.0), column(|rule| &rule.1), column(|rule| &rule.2));
        let params = params![self.name(), &schemas, &names, &rules];
        transaction.execute(doing, sql!("set_rules"), params).await?;
        transaction.commit(doing).await
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
