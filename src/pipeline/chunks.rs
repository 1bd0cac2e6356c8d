//! Very large tables: copied in ranges of their key, so that a crash costs a range and not the table.
//!
//! In: a table larger than `[snapshot] resume_rows`, and what the state remembers of its ranges. Out: the ranges that are
//! still to be read ([`still_to_copy`]); and, while the stream passes the positions they were read at, what each change
//! comes to ([`settle`], by the rules of [`ChunkMap`]).
//!
//! What can go wrong: the table's shape changes between two tries. Then it is copied from the beginning, because ranges
//! of two shapes do not make one table.

use std::collections::HashMap;
use std::sync::Arc;

use crate::change::{ChunkMap, CommitStart, Op, Position, Row, RowChange, Verdict, beginning_of, end_of};
use crate::config::SnapshotConfig;
use crate::error::Result;
use crate::source::{AnySource, Part, Snapshot, Source};
use crate::target::Target;
use crate::target::plan::complete_from_old;
use crate::target::state::State;
use crate::target::state::{Lease, TableStage};
use crate::transform::{Plan, TablePlan};

/// The parts of the table that are still to be copied, if it is copied in ranges; and the rows of those that are there.
pub async fn still_to_copy<S: Snapshot, T: Target>(
    target: &T,
    snapshot: &S,
    lease: &Lease,
    table: &TablePlan,
    config: &SnapshotConfig,
) -> Result<Option<(Vec<Part>, u64)>> {
    let (source, state) = (&table.source, target.state());
    let begun = state.tables().await?.iter().any(|t| t.source == source.name && t.stage == TableStage::Copying);
    let map = match state.chunks().await?.remove(&source.name).filter(|_| begun) {
        Some(map) => map,
        None if source.estimated_rows > config.resume_rows => {
            let Some((column, bounds)) = snapshot.key_bounds(source, config.chunk_rows).await? else { return Ok(None) };
            let map = ChunkMap::between(&column, &bounds);
            target.begin_chunks(lease, &source.name, &table.shaped, &map).await?;
            map
        }
        None => return Ok(None),
    };
    let (there, missing): (Vec<_>, Vec<_>) = map.chunks.iter().partition(|chunk| chunk.copied_at.is_some());
    if !there.is_empty() {
        tracing::info!(
            "{}: {} of {} ranges are there, the others are copied",
            source.name,
            there.len(),
            map.chunks.len()
        );
    }
    let rows = there.iter().map(|chunk| u64::try_from(chunk.rows).unwrap_or(0)).sum();
    Ok(Some((missing.into_iter().map(|chunk| snapshot.key_range(source, &map.column, chunk)).collect(), rows)))
}

/// A table whose ranges were read at different positions.
#[derive(Debug, Clone)]
pub struct Mixed {
    /// Its ranges.
    pub map: Arc<ChunkMap>,
    /// What the ranges' column is called at the target.
    pub column: String,
}

/// What the stream needs while it passes the positions of ranges.
pub struct Settling<'a> {
    /// Where values are read again.
    pub source: &'a AnySource,
    /// Where it is remembered until when that may show.
    pub state: &'a State,
    /// Our right to write there.
    pub lease: &'a Lease,
}

impl Settling<'_> {
    /// What a change of a mixed table that was committed at `t` by `xid` comes to. Moves `until` on where a value was
    /// read of a later state.
    pub async fn settle(
        &self,
        mixed: &Mixed,
        change: RowChange,
        (t, xid): (&CommitStart, u32),
        until: &mut Option<Position>,
    ) -> Result<Vec<RowChange>> {
        let (verdict, moves) = mixed.map.judge(&change, t)?;
        let (ends, begins) = match verdict {
            Verdict::Skip => return Ok(Vec::new()),
            Verdict::Apply if !moves => return Ok(vec![change]),
            Verdict::Apply => (true, true),
            Verdict::OnlyOld => (true, false),
            Verdict::OnlyNew if change.op == Op::Insert => return Ok(vec![change]),
            Verdict::OnlyNew => (false, true),
        };
        let mut comes_to = Vec::with_capacity(2);
        if ends {
            comes_to.push(end_of(&change));
        }
        if begins && let Some(row) = self.complete(&change, xid, until).await? {
            comes_to.push(beginning_of(&change, row));
        }
        Ok(comes_to)
    }

    async fn complete(&self, change: &RowChange, xid: u32, until: &mut Option<Position>) -> Result<Option<Row>> {
        let Some(new) = complete_from_old(change) else { return Ok(None) };
        if !new.has_unchanged() {
            return Ok(Some((*new).clone()));
        }
        let read = self.source.reread(&change.table, &new, xid).await?;
        if let Some(later) =
            read.changed_before.filter(|later| until.as_ref().is_none_or(|until| !until.reaches(later)))
        {
            // Before anything that depends on it becomes durable.
            self.state.set_copied_until(self.lease, &later).await?;
            *until = Some(later);
        }
        Ok(read.row)
    }
}

/// The tables of which the stream still has to pass the position of a range, by the source's id, each with the position
/// of its oldest.
pub async fn mixed(state: &State, plan: &Plan) -> Result<HashMap<u32, (Position, Mixed)>> {
    let mut mixed = HashMap::new();
    for (name, map) in state.chunks().await? {
        let (Some(table), Some(oldest)) = (plan.get(&name), map.oldest()) else { continue };
        let Some(column) = table.target_name(&map.column).map(str::to_owned) else { continue };
        mixed.insert(table.source.id, (oldest, Mixed { map: Arc::new(map), column }));
    }
    Ok(mixed)
}
