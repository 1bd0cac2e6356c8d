//! What happened to partitions since the last clean verify, which neither the stream nor the comparison behind the fence
//! would tell: a TRUNCATE of one, and rows that came or went with ATTACH and DETACH.
//!
//! In: the source's catalogue, now and as the verify found it when it began. Out: the tables that have to be compared
//! again, and why.

use super::Ends;
use crate::error::Result;
use crate::pipeline::leaves::partitioned;
use crate::schema::Leaves;
use crate::source::Source;
use crate::target::state::VerifyRecord;
use crate::transform::Plan;

/// All partitions of the plan's tables.
pub(super) async fn now(ends: &Ends, plan: &Plan) -> Result<Leaves> {
    let tables = partitioned(plan);
    if tables.is_empty() {
        return Ok(Leaves::default());
    }
    ends.source.leaves(&tables).await
}

/// The tables of which a partition was changed as a whole since `last`, each with what happened: one entry a change.
pub async fn changed(ends: &Ends, plan: &Plan, last: &VerifyRecord) -> Result<Vec<(String, String)>> {
    let now = now(ends, plan).await?;
    let Some(then) = &last.leaves else {
        let unknown =
            now.0.into_keys().map(|table| (table.clone(), format!("the partitions of {table} were not looked at")));
        return Ok(unknown.collect());
    };
    let changes = ends.state.without_known_leaves(then.until(&now)).await?;
    Ok(changes.into_iter().map(|change| (change.table.clone(), change.to_string())).collect())
}
