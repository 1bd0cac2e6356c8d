//! A connection pooler in the way: it cannot replicate, and where it lends server processes by the transaction, nothing
//! that belongs to a session holds (settings, prepared statements, the lease's locks).

use super::{End, Report};
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::{Client, ConnInfo, connect};

/// Looks at one end. Only simple statements: prepared ones are what a pooler breaks first.
pub(in crate::pipeline::preflight) async fn look(end: End, info: &ConnInfo, report: &mut Report) -> Result<()> {
    match changes_process(info).await {
        Ok(false) => {
            report.pass(end, "pooler", "no pooler is in the way");
            return Ok(());
        }
        Ok(true) => {}
        // The session could not even be set up: what went wrong is what goes wrong behind one.
        Err(error) if error.suggestion().is_some_and(|fix| fix.contains("connection pooler")) => {}
        Err(error) => return Err(error),
    }
    let text = "a connection pooler is in the way: the server process changes between two statements of a session";
    report
        .fail(end, "pooler", Kind::Config, text)
        .fix(format!("put the database server's own host and port into [{end}] url, instead of {}", info.label()));
    Ok(())
}

/// Times it is looked: a pooler with processes to spare may happen to give each session the same one again.
const LOOKS: usize = 5;

/// Whether another server process answers from one statement to the next, or one answers for two sessions.
async fn changes_process(info: &ConnInfo) -> Result<bool> {
    for _ in 0..LOOKS {
        if changed_process(info).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn changed_process(info: &ConnInfo) -> Result<bool> {
    let (first, second) = tokio::try_join!(connect(info, "cutwater check"), connect(info, "cutwater check"))?;
    let before = process(&first).await?;
    // The process that the first session has let go is the one that the second gets now, and keeps.
    second.batch_execute("BEGIN").await.context("looking for a pooler")?;
    let other = process(&second).await?;
    let after = process(&first).await?;
    second.batch_execute("ROLLBACK").await.context("looking for a pooler")?;
    Ok(before != after || before == other)
}

async fn process(client: &Client) -> Result<String> {
    let rows = client.simple_query("SELECT pg_catalog.pg_backend_pid()").await.context("looking for a pooler")?;
    rows.iter()
        .find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
        .ok_or_else(|| Error::new(Kind::Protocol, "the server did not say which process answers"))
}
