//! The state's database in a Postgres target: schema `cutwater`, laid out by `install.sql`.
//!
//! In: statements of [`crate::target::state`]. Out: their rows. See [`crate::target::state::db`] for what this is behind.

mod bytes;

use tokio_postgres::types::ToSql;

use crate::error::{Error, Result};
use crate::postgres::{Client, ConnInfo, connect};
use crate::target::state::db::{Failed, How, Params, Row, Why};

/// A session with it.
pub(crate) struct Session {
    client: Client,
}

impl Session {
    pub async fn open(info: &ConnInfo, name: &str) -> Result<Session> {
        Ok(Session { client: connect(info, name).await? })
    }

    pub fn is_alive(&self) -> bool {
        !self.client.is_closed()
    }

    pub async fn execute(&self, sql: &str, params: Params<'_>) -> Result<u64, Failed> {
        Ok(self.client.execute(sql, &refs(params)).await?)
    }

    pub async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Failed> {
        let rows = self.client.query(sql, &refs(params)).await?;
        let row = |row: &tokio_postgres::Row| (0..row.len()).map(|at| row.try_get(at)).collect::<Result<_, _>>();
        Ok(rows.iter().map(|found| row(found).map(Row)).collect::<Result<_, _>>()?)
    }

    pub async fn begin(&self, how: How) -> Result<(), Failed> {
        let mut sql = "BEGIN".to_owned();
        if let Some(patience) = how.patience {
            sql.push_str(&format!("; SET LOCAL lock_timeout = {}", patience.as_millis()));
        }
        if how.flushed {
            sql.push_str("; SET LOCAL synchronous_commit = on");
        }
        Ok(self.client.batch_execute(&sql).await?)
    }

    pub async fn commit(&self) -> Result<(), Failed> {
        Ok(self.client.batch_execute("COMMIT").await?)
    }

    pub async fn rollback(&self) -> Result<(), Failed> {
        Ok(self.client.batch_execute("ROLLBACK").await?)
    }

    pub async fn install(&self) -> Result<(), Failed> {
        // Two first runs at once would both see no schema and one would fail: one at a time.
        let sql = concat!("BEGIN; SELECT pg_advisory_xact_lock(6001, 1);", include_str!("install.sql"), "COMMIT;");
        Ok(self.client.batch_execute(sql).await?)
    }

    /// The appliers' replication origins. Whoever could not make them cannot see to it either.
    pub async fn remove_origins(&self, migration: &str) {
        let sql = "SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin
                   WHERE roname = $1 OR starts_with(roname, $1 || '.')";
        if let Err(error) = self.client.execute(sql, &[&format!("cutwater_{migration}")]).await {
            tracing::debug!(error = Error::from(error).message(), "the replication origin was left at the target");
        }
    }

    pub async fn drop_layout(&self) -> Result<(), Failed> {
        Ok(self.client.batch_execute("DROP SCHEMA cutwater CASCADE").await?)
    }
}

fn refs<'a>(params: Params<'a>) -> Vec<&'a (dyn ToSql + Sync)> {
    params.iter().map(|param| param as &(dyn ToSql + Sync)).collect()
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        let why = match error.code().map(|code| code.code()) {
            // Of a table, of a schema.
            Some("42P01" | "3F000") => Why::NoTable,
            Some("42703") => Why::NoColumn,
            Some("55P03") => Why::Locked,
            _ => Why::Other,
        };
        Failed { why, error: error.into() }
    }
}
