//! A fence's session, and what is asked of it by whoever cuts over ([`crate::source::AnyFence`]).

use jiff::Timestamp;

use super::{FenceState, Outcome, Request};
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::{Client, ConnInfo, connect};
use crate::schema::TableName;
use crate::source::fence::{Armed, DrainedBy};

/// The session that arms a fence and makes it permanent.
pub struct PgFence {
    client: Client,
    migration: String,
}

impl PgFence {
    /// Connects. The session's name tells it from every other of ours ([`super::end_session`]).
    pub async fn open(info: &ConnInfo, migration: &str) -> Result<PgFence> {
        let client = connect(info, &session_name(migration)).await?;
        Ok(PgFence { client, migration: migration.to_owned() })
    }

    /// The session.
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub(in crate::source) async fn clock(&self) -> Result<Timestamp> {
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
        let row = self.client.query_one(sql, &[]).await.context("reading the source's clock")?;
        Timestamp::from_microsecond(row.get(0)).map_err(|e| Error::new(Kind::Internal, e.to_string()))
    }

    pub(in crate::source) async fn arm(&self, request: &Request<'_>) -> Result<Armed> {
        let super::Armed { deadline, since, tries, relations, .. } = super::arm(&self.client, request).await?;
        Ok(Armed { drained_by: DrainedBy::Marker, deadline, since, tries, relations })
    }

    pub(in crate::source) async fn make_permanent(&self, request: &Request<'_>) -> Result<Outcome> {
        let Request { migration, nonce, epoch, target, .. } = request;
        let passed = super::make_permanent(&self.client, migration, nonce, *epoch, target).await?;
        Ok(if passed { Outcome::Permanent(None) } else { Outcome::Expired })
    }

    /// A session of the attempt may still be there (a stopped process, a half-open connection): what it has not
    /// committed by now it must never commit.
    pub(in crate::source) async fn end_others(&self) -> Result<()> {
        let others = "SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND pid <> pg_backend_pid()
                         AND datname = current_database()";
        let session = session_name(&self.migration);
        for row in self.client.query(others, &[&session]).await.context("looking for the attempt's session")? {
            super::end_session(&self.client, row.get(0), &session).await?;
        }
        Ok(())
    }

    pub(in crate::source) async fn lift(&self, nonce: &str) -> Result<()> {
        self.end_others().await?;
        super::disarm(&self.client, &self.migration, nonce).await
    }

    pub(in crate::source) async fn state(&self) -> Result<Option<FenceState>> {
        super::state(&self.client, &self.migration).await
    }

    pub(in crate::source) async fn words(&self, tables: &[TableName]) -> Result<String> {
        Ok(format!("{} tables and partitions", super::relation_count(&self.client, tables).await?))
    }

    pub(in crate::source) async fn blockers(&self, tables: &[TableName]) -> Result<Vec<String>> {
        Ok(super::blockers(&self.client, tables).await?.iter().map(ToString::to_string).collect())
    }
}

fn session_name(migration: &str) -> String {
    format!("cutwater_{migration}_fence")
}
