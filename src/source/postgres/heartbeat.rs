//! Heartbeats: a slot moves on while the rest of the server is busy elsewhere.
//!
//! The server reads all of its log for our slot, also the part that other databases write, and keeps everything from the
//! place we confirmed last. Where nothing is for us, three things tell how far it has read:
//!
//! - its keepalives, when it has nothing left to read;
//! - its answer to ours, asked for after some seconds of silence: on every version, and without any right;
//! - from version 14 on, **heartbeats**: a message that we write into the log ourselves and that comes back through the
//!   stream in its place, also while the server still has much to read.
//!
//! A heartbeat is `pg_logical_emit_message` outside of any transaction, some 60 bytes, prefix `cutwater`. It touches no
//! table. None is written while nobody else writes, to a standby, to a server that takes no writes, behind the fence of a
//! cutover, before version 14 (whose pgoutput passes messages over), or without the right to call the function: there the
//! other two have to do, and the log says so once.

use std::sync::Mutex;
use std::sync::PoisonError;

use super::PgSource;
use crate::change::Lsn;
use crate::error::{Error, Kind, Result};
use crate::postgres::Client;

/// What a message of ours begins with.
pub(super) const PREFIX: &str = "cutwater";

/// Log that others must have written since the last heartbeat for another to be of use, in bytes.
const WORTH: u64 = 64 << 10;

/// What is remembered between two heartbeats.
#[derive(Debug, Default)]
pub(super) struct Heartbeats {
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    /// Where the last one ended.
    at: Option<Lsn>,
    /// Why there was none, the last time there was a reason.
    told: Option<String>,
}

/// Writes one if it is of use and may be; where it ended.
pub(super) async fn write(source: &PgSource, client: &Client, memory: &Heartbeats) -> Result<Option<Lsn>> {
    let row = client.query_one(include_str!("heartbeat.sql"), &[]).await?;
    let mut objection: Option<String> = row.get("objection");
    if objection.is_none() && row.get("has_fence") && fenced(source, client).await? {
        objection = Some("the source is fenced".into());
    }
    let head: Option<Lsn> = row.get::<_, Option<&str>>("head").map(str::parse).transpose()?;
    if let Some(objection) = objection {
        let mut last = memory.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.told.as_ref() != Some(&objection) {
            tracing::info!("no heartbeats are written to the source: {objection}; its keepalives have to do");
            last.told = Some(objection);
        }
        return Ok(None);
    }
    let last = memory.last.lock().unwrap_or_else(PoisonError::into_inner).at;
    if let (Some(last), Some(head)) = (last, head)
        && head.0.saturating_sub(last.0) < WORTH
    {
        return Ok(None);
    }
    let emit = "SELECT pg_catalog.pg_logical_emit_message(false, $1, $2)::text";
    let row = client.query_one(emit, &[&PREFIX, &source.migration()]).await?;
    let at: Lsn = row.get::<_, &str>(0).parse()?;
    let mut last = memory.last.lock().unwrap_or_else(PoisonError::into_inner);
    last.at = Some(at);
    last.told = None;
    Ok(Some(at))
}

/// Behind our fence nothing is written, not even this.
async fn fenced(source: &PgSource, client: &Client) -> Result<bool> {
    let fence = "SELECT EXISTS (SELECT FROM cutwater.fence WHERE migration = $1 AND state <> 'lifted')";
    match client.query_one(fence, &[&source.migration()]).await.map_err(Error::from) {
        Ok(row) => Ok(row.get(0)),
        // What we may not look at, we take for a fence.
        Err(error) if error.kind() == Kind::Privilege => Ok(true),
        Err(error) => Err(error),
    }
}
