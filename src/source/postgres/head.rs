//! An end of the log that holds what was just seen.

use std::time::{Duration, Instant};

use tokio_postgres::Row;

use crate::change::{Lsn, Position};
use crate::error::{Context, Result};
use crate::postgres::Client;

/// A position that every transaction visible so far lies before.
///
/// The head is the *flushed* end of the log, because the stream goes no further; but a transaction with
/// `synchronous_commit = off` is visible before it is flushed. So this waits for the flush of what is in the log now.
/// It gives up after a second (the WAL writer flushes three times as often), since the insert position may stand just
/// behind a page's header where no flush ever reaches on an idle server.
pub async fn of_seen(source: &Client) -> Result<Position> {
    let read = |row: &Row| row.get::<_, &str>(0).parse::<Lsn>();
    let doing = "reading the source's head";
    let row = source.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await.context(doing)?;
    let written = read(&row)?;
    let started = Instant::now();
    loop {
        let row = source.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.context(doing)?;
        let flushed = read(&row)?;
        if flushed >= written || started.elapsed() > Duration::from_secs(1) {
            return Ok(flushed.into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
