//! Both ends as they are at the moment of the switch, compared without Cutwater's own verify.
//!
//! At that moment the source takes no writes any more and the target none yet. Two transactions freeze what each then
//! holds, which takes a millisecond; the writer may move on, and the sums are made afterwards, at leisure.

use serde::Serialize;
use tokio_postgres::Client;

use super::workload::Workload;
use crate::error::{Context, Result};

/// A frozen view of one end.
pub(super) struct Frozen(Client);

/// One table at both ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct TableSum {
    pub table: &'static str,
    pub rows: i64,
    pub equal: bool,
}

impl Frozen {
    /// Takes the view: what is committed now is in it, and nothing later.
    pub(super) async fn take(client: Client) -> Result<Frozen> {
        client
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1 FROM pg_catalog.pg_class LIMIT 1")
            .await
            .context("freezing a view")?;
        Ok(Frozen(client))
    }

    /// Rows, and the sum of a strong hash of each, which does not depend on their order.
    async fn sum(&self, table: &str) -> Result<(i64, String)> {
        let query =
            format!("SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text FROM {table} t");
        let row = self.0.query_one(&query, &[]).await.with_context(|| format!("summing {table}"))?;
        Ok((row.get(0), row.get(1)))
    }
}

/// Every table at both ends.
pub(super) async fn compare(source: &Frozen, target: &Frozen) -> Result<Vec<TableSum>> {
    let mut sums = Vec::new();
    for table in Workload::TABLES {
        let (at_source, at_target) = futures::future::try_join(source.sum(table), target.sum(table)).await?;
        sums.push(TableSum { table, rows: at_target.0, equal: at_source == at_target });
    }
    Ok(sums)
}
