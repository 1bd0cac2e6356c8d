//! A connection pooler in the way: it cannot replicate, and where it lends server processes by the transaction, nothing
//! that belongs to a session holds (settings, prepared statements, the lease's locks).

use super::{End, Report};
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::{Client, ConnInfo, connect};

/// Looks at one end. Only simple statements: prepared ones are what a pooler breaks first.
pub(super) async fn look(end: End, info: &ConnInfo, report: &mut Report) -> Result<()> {
    let (first, second) = tokio::try_join!(connect(info, "cutwater check"), connect(info, "cutwater check"))?;
    let before = process(&first).await?;
    // The process that the first session has let go is the one that the second gets now, and keeps.
    second.batch_execute("BEGIN").await.context("looking for a pooler")?;
    let other = process(&second).await?;
    let after = process(&first).await?;
    second.batch_execute("ROLLBACK").await.context("looking for a pooler")?;
    if before == after && before != other {
        report.pass(end, "pooler", "no pooler is in the way");
        return Ok(());
    }
    let text =
        "a connection pooler is in the way: the server process changes between two statements of a session".to_owned();
    report
        .fail(end, "pooler", Kind::Config, text)
        .fix(format!("put the database server's own host and port into [{end}] url, instead of {}", info.label()));
    Ok(())
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
