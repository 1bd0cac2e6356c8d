//! Between two Postgres servers: both compute the same hashes, and rows stay where they are.
//!
//! A table is compared in three widening looks ([`table`]): one aggregate a bucket of keys, computed inside both
//! databases at the same moment; then the keys and row hashes of the buckets that disagree, merged as they stream; then
//! ([`recheck`]) the rows that still disagree, read again behind the stream: source, head, wait until the target has
//! applied it, target, source.

mod keys;
mod recheck;
mod sql;
mod table;

use super::{Look, Options, PgEnds, TableReport};
use crate::error::{Error, Kind, Result};
use crate::postgres::{Client, connect};
use crate::schema::TableName;
use crate::transform::TablePlan;
use table::Work;

/// Both connections of one worker.
pub(super) struct Pair {
    source: Client,
    target: Client,
    /// For the source's head: `source` may be held up by a stream of rows that waits for us.
    head: Client,
    /// The two servers store text in different encodings: hash it as UTF-8.
    recode: bool,
}

impl Pair {
    pub(super) async fn open(both: PgEnds<'_>, name: &str, options: &Options) -> Result<Pair> {
        let source = connect(both.source.info(), name).await?;
        let target = connect(both.target.info(), name).await?;
        let head = connect(both.source.info(), name).await?;
        let mut encodings = Vec::new();
        for client in [&source, &target] {
            read_only(client, options).await?;
            let row = client.query_one("SELECT current_setting('server_encoding')", &[]).await?;
            encodings.push(row.get::<_, String>(0));
        }
        let recode = encodings[0] != encodings[1];
        Ok(Pair { source, target, head, recode })
    }

    /// Compares a table.
    pub(super) async fn compare(&self, look: &Look<'_>, plan: &TablePlan) -> Result<TableReport> {
        Work { look, pair: self, plan }.compare().await
    }

    /// Compares the rows under these keys.
    pub(super) async fn compare_keys(
        &self,
        look: &Look<'_>,
        plan: &TablePlan,
        keys: &[Vec<String>],
        report: &mut TableReport,
    ) -> Result<()> {
        Work { look, pair: self, plan }.compare_keys(keys, report).await
    }
}

/// Makes a session one that only reads, and not for longer than was allowed.
pub(super) async fn read_only(client: &Client, options: &Options) -> Result<()> {
    client.batch_execute("SET default_transaction_read_only = on").await?;
    // Postgres 14: a scan whose reader has gone ends, instead of running to its end for nobody.
    let _ = client.batch_execute("SET client_connection_check_interval = '1s'").await;
    if let Some(budget) = options.budget {
        client.batch_execute(&format!("SET statement_timeout = {}", budget.as_millis().max(1))).await?;
    }
    Ok(())
}

/// The name, and whether rows of tables that inherit from it are its own (a partitioned parent) or not.
pub(super) async fn selection(client: &Client, table: &TableName) -> Result<String> {
    let sql = "SELECT c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')";
    let row = client.query_opt(sql, &[&table.schema, &table.table]).await?;
    let row = row.ok_or_else(|| Error::new(Kind::Schema, format!("there is no table {table}")))?;
    let only = if row.get::<_, &str>(0) == "r" { "ONLY " } else { "" };
    Ok(format!("{only}{}", table.sql()))
}
