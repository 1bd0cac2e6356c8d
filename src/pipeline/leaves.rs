//! What happens to partitions as a whole, which the stream does not tell.
//!
//! In: now and then, the source's catalogue; what it said when the two ends were last known to be the same. Out: a
//! warning for every partition that was emptied, attached or detached meanwhile. The cutover's gate finds the same by
//! comparing the catalogue with the last clean verify, and asks for another; only a partition that was empty when it came
//! asks for none, and that has to be seen in time: it is written down here.

use std::collections::HashMap;

use crate::error::Result;
use crate::schema::{Became, LeafChange, Leaves, Relkind, TableName};
use crate::source::{AnySource, Source};
use crate::target::state::State;
use crate::transform::Plan;

/// The plan's partitioned tables, by their ids.
pub fn partitioned(plan: &Plan) -> HashMap<u32, TableName> {
    let partitioned = plan.tables().filter(|table| table.source.kind == Relkind::Partitioned);
    partitioned.map(|table| (table.source.id, table.source.name.clone())).collect()
}

/// Looks again and again.
pub struct Watch {
    source: AnySource,
    state: State,
    tables: HashMap<u32, TableName>,
    seen: Leaves,
    /// The first look has the catalogue of the last clean verify to compare with; what is newer was written down.
    before: bool,
}

impl Watch {
    /// From what the last clean verify saw on.
    pub async fn new(source: &AnySource, state: &State, tables: HashMap<u32, TableName>) -> Result<Watch> {
        let verify = state.migration().await?.and_then(|migration| migration.verify);
        let seen = verify.and_then(|verify| verify.leaves).unwrap_or_default();
        Ok(Watch { source: source.clone(), state: state.clone(), tables, seen, before: true })
    }

    /// Says what happened since the last look.
    pub async fn look(&mut self) -> Result<()> {
        if self.tables.is_empty() {
            return Ok(());
        }
        let now = self.source.leaves(&self.tables).await?;
        let mut changes = self.seen.until(&now);
        if !changes.is_empty() {
            if std::mem::take(&mut self.before) {
                changes = self.state.without_known_leaves(changes).await?;
            }
            self.tell(&changes).await?;
        }
        self.before = false;
        self.seen = now;
        Ok(())
    }

    async fn tell(&self, changes: &[LeafChange]) -> Result<()> {
        let new: Vec<u32> =
            changes.iter().filter(|change| change.became == Became::Attached).map(|change| change.id).collect();
        let empty = if new.is_empty() { new } else { self.source.empty(&new).await? };
        for change in changes {
            if empty.contains(&change.id) {
                self.state.know_leaf(change).await?;
                continue;
            }
            let table = &change.table;
            tracing::warn!(
                "{change}. cutwater verify says what differs; cutwater tables resync '{table}' copies it again"
            );
        }
        Ok(())
    }
}
