//! Who the server is, in the best way it lets us ask (TRAPS 2).
//!
//! In: a source. Out: a [`SourceIdentity`]. A position means nothing on another server or timeline, and a server that was
//! restored from a backup looks just like the old one. What can go wrong: a managed service permits neither question.
//!
//! | way | tells another server by | needs |
//! |---|---|---|
//! | `pg_control_system()` | its system identifier and timeline | a function that a DBA may have revoked |
//! | `IDENTIFY_SYSTEM` | the same two | a replication connection, which the stream needs too |
//! | the catalogue | the OIDs of database and role, and the timeline in the name of the current WAL file | nothing |
//!
//! The last is weaker: two servers set up by the same script may agree. What then still refuses another server is the
//! slot: it is not there, or it is ahead of the checkpoint.

use super::PgSource;
use crate::error::{Error, Kind, Result};
use crate::postgres::{Client, Purpose};
use crate::source::SourceIdentity;

/// Asks in each way until one is permitted.
pub(super) async fn identity(source: &PgSource, client: &Client) -> Result<SourceIdentity> {
    let row = match client.query_one(include_str!("identity.sql"), &[]).await.map_err(Error::from) {
        Ok(row) => row,
        Err(error) if error.kind() == Kind::Privilege => {
            let (system_id, timeline) = match identify_system(source).await {
                Ok(known) => known,
                // A refusal alone: a connection that broke must not make the server look like another one.
                Err(error) if matches!(error.kind(), Kind::Privilege | Kind::Authentication) => {
                    tracing::warn!(%error, "the server does not say who it is: told by its catalogue alone");
                    by_catalogue(client).await?
                }
                Err(error) => return Err(error),
            };
            let about = "SELECT pg_catalog.current_setting('server_version'), pg_catalog.current_database()::text";
            let row = client.query_one(about, &[]).await?;
            return Ok(made(row.get(0), system_id, timeline, row.get(1)));
        }
        Err(error) => return Err(error),
    };
    let timeline: i32 = row.get("timeline");
    Ok(made(row.get("version"), row.get("system_id"), timeline.unsigned_abs(), row.get("database")))
}

fn made(version: String, system_id: String, timeline: u32, database: String) -> SourceIdentity {
    SourceIdentity { engine: "postgres".into(), version, system_id, timeline, database }
}

/// <https://www.postgresql.org/docs/current/protocol-replication.html>: `systemid`, `timeline`, `xlogpos`, `dbname`.
async fn identify_system(source: &PgSource) -> Result<(String, u32)> {
    let rows = source.wire(Purpose::Replication).await?.query("IDENTIFY_SYSTEM").await?;
    let field = |index: usize| rows.first().and_then(|row| row.get(index)).and_then(Option::as_deref);
    match (field(0), field(1).and_then(|timeline| timeline.parse().ok())) {
        (Some(system_id), Some(timeline)) => Ok((system_id.to_owned(), timeline)),
        _ => Err(Error::new(Kind::Protocol, "IDENTIFY_SYSTEM answered without a system identifier")),
    }
}

async fn by_catalogue(client: &Client) -> Result<(String, u32)> {
    let row = client.query_one(include_str!("identity_by_catalogue.sql"), &[]).await?;
    let timeline: String = row.get("timeline");
    let timeline = u32::from_str_radix(&timeline, 16)
        .map_err(|_| Error::new(Kind::Protocol, format!("{timeline:?} is no timeline")))?;
    Ok((row.get("system_id"), timeline))
}
