//! Which changes of a source transaction a deferred constraint of the target refuses.
//!
//! In: a source transaction that went through row by row, and at whose end a constraint is violated; the target's
//! transaction. Out: everything of it that the target can take is applied, and the rest is in the dead letters, by name.
//!
//! The server names the constraint and no row of the stream, and what is violated half-way may be right in the end
//! (TRAPS 13). So the transaction is taken back and put together again of its rows' histories ([`Unit`]: all changes of
//! one row, with those of a row whose key it took), each time with the constraints checked:
//!
//! 1. all that fits by itself, in halves of halves: where few are to blame few tries are needed; to and fro, because in
//!    `u = u + 1` each row fits only once the next one has moved;
//! 2. of those that fit only together (two rows that swap a value), all but a few, ever fewer: what is left out then is to
//!    blame;
//! 3. failing that, pairs; and then the first is to blame, and it begins again without it.
//!
//! The third step may blame a row that would have fitted with others: there are as many ways to choose as there are sets,
//! and what is set aside is named. A transaction whose beginning was applied as an earlier part, and is what is violated,
//! or one with a TRUNCATE in it, is not taken apart: it stops the run ([`super::replay`]).

use std::collections::HashMap;

use super::apply::PgApplier;
use super::trouble::is_about_a_row;
use crate::change::{Op, RowChange};
use crate::error::{Error, Kind, Result};
use crate::target::batch::replay::{Blocked, Carried, Replayed, RowByRow, Tried, judge};

/// Of more units than this that fit only together no single one is looked for: they are to blame as a whole.
const MOST: usize = 64;
/// … and of more than this no pairs.
const PAIRS: usize = 16;

/// Checks what is deferred, and defers again.
const CHECK: &str = "SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED";

/// Changes that stand or fall together, by their place in the transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Unit(Vec<usize>);

/// The transaction that is put together again.
pub(super) struct Puzzle<'a> {
    /// Its changes, in order.
    pub changes: Vec<&'a RowChange>,
    pub tolerate_missing: bool,
    pub carried: &'a Carried,
}

impl PgApplier {
    /// Puts the transaction together again, from the savepoint before it. `false`: what is violated is not of it, and
    /// nothing of it is applied.
    pub(super) async fn put_together(&mut self, puzzle: &Puzzle<'_>, done: &mut Replayed) -> Result<bool> {
        if self.check().await?.is_some() {
            return Ok(false);
        }
        let mut rest = units(&puzzle.changes);
        let mut why: HashMap<usize, Error> = HashMap::new();
        let (mut forward, mut stuck) = (true, 0);
        while !rest.is_empty() {
            let before = rest.len();
            rest = self.take_in(puzzle, rest, forward, &mut why, done).await?;
            forward = !forward;
            stuck = if rest.len() == before { stuck + 1 } else { 0 };
            if rest.is_empty() || (stuck < 2 && rest.len() > 1) {
                continue;
            }
            stuck = 0;
            if rest.len() > 1 && self.together(puzzle, &mut rest, done).await? {
                continue;
            }
            let blamed = if rest.len() > MOST { rest.len() } else { 1 };
            for unit in rest.drain(..blamed) {
                let unknown = || Error::new(Kind::Internal, "a change was refused without a reason");
                let error = why.remove(&unit.0[0]).unwrap_or_else(unknown);
                for &at in &unit.0 {
                    let tried = Tried::Refused { error: error.clone(), for_now: false };
                    judge(self, puzzle.changes[at], tried, puzzle.tolerate_missing, puzzle.carried, done).await?;
                }
            }
        }
        Ok(true)
    }

    /// Applies whatever fits by itself; returns the others, in order, and notes why.
    async fn take_in(
        &mut self,
        puzzle: &Puzzle<'_>,
        units: Vec<Unit>,
        forward: bool,
        why: &mut HashMap<usize, Error>,
        done: &mut Replayed,
    ) -> Result<Vec<Unit>> {
        let mut refused = Vec::new();
        let mut sets = vec![units];
        while let Some(mut set) = sets.pop() {
            let Some(error) = self.fits(puzzle, &set, done).await? else { continue };
            if set.len() == 1 {
                why.insert(set[0].0[0], error);
                refused.append(&mut set);
                continue;
            }
            let second = set.split_off(set.len() / 2);
            sets.extend(if forward { [second, set] } else { [set, second] });
        }
        refused.sort_unstable_by_key(|unit| unit.0[0]);
        Ok(refused)
    }

    /// Applies units that fit only together, if some are found, and leaves the others in `rest`.
    async fn together(&mut self, puzzle: &Puzzle<'_>, rest: &mut Vec<Unit>, done: &mut Replayed) -> Result<bool> {
        let (mut blocks, count) = (2, rest.len());
        loop {
            let size = count.div_ceil(blocks);
            for at in (0..count).step_by(size) {
                let mut others = rest.clone();
                let block: Vec<Unit> = others.drain(at..(at + size).min(count)).collect();
                if self.fits(puzzle, &others, done).await?.is_none() {
                    *rest = block;
                    return Ok(true);
                }
            }
            if size == 1 || blocks >= MOST {
                break;
            }
            blocks *= 2;
        }
        for a in 0..if count > PAIRS { 0 } else { count } {
            for b in a + 1..count {
                if self.fits(puzzle, &[rest[a].clone(), rest[b].clone()], done).await?.is_none() {
                    rest.remove(b);
                    rest.remove(a);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Applies units and checks the constraints. `None`: they stay; else why not, and nothing of them has.
    async fn fits(&mut self, puzzle: &Puzzle<'_>, units: &[Unit], done: &mut Replayed) -> Result<Option<Error>> {
        let mut order: Vec<usize> = units.iter().flat_map(|unit| unit.0.iter().copied()).collect();
        order.sort_unstable();
        let changes: Vec<&RowChange> = order.into_iter().map(|at| puzzle.changes[at]).collect();
        let before = *done;
        self.run_sql("SAVEPOINT cutwater_unit").await?;
        let mut refused = None;
        if !matches!(self.attempt(&changes).await?, Tried::Applied) {
            for change in changes {
                match self.attempt(&[change]).await? {
                    Tried::Refused { error, for_now: true } => {
                        refused = Some(error);
                        break;
                    }
                    // Bad by itself, whatever the others do.
                    tried => judge(self, change, tried, puzzle.tolerate_missing, puzzle.carried, done).await?,
                }
            }
        }
        if refused.is_none() {
            refused = self.check().await?;
        }
        if refused.is_some() {
            *done = before;
            self.run_sql("ROLLBACK TO SAVEPOINT cutwater_unit").await?;
        }
        self.run_sql("RELEASE SAVEPOINT cutwater_unit").await?;
        Ok(refused)
    }

    /// Why what is applied so far violates a deferred constraint; the transaction is at its last savepoint then.
    async fn check(&mut self) -> Result<Option<Error>> {
        self.run_sql("SAVEPOINT cutwater_check").await?;
        let refused = match self.client.batch_execute(CHECK).await {
            Ok(()) => None,
            Err(error) if is_about_a_row(&error) => Some(Error::from(error)),
            Err(error) => return Err(Error::from(error).context("replaying a batch")),
        };
        if refused.is_some() {
            self.run_sql("ROLLBACK TO SAVEPOINT cutwater_check").await?;
        }
        self.run_sql("RELEASE SAVEPOINT cutwater_check").await?;
        Ok(refused)
    }
}

/// The transaction's changes by row, in the order of their first changes. Of a table without key nothing tells its rows
/// apart but their order, so it is one unit; new rows alone need no order.
fn units(changes: &[&RowChange]) -> Vec<Unit> {
    let keyless = |change: &RowChange| change.table.key.is_none();
    let in_order = |change: &RowChange| {
        changes.iter().any(|other| other.table.name == change.table.name && other.op != Op::Insert)
    };
    let mut ordered: HashMap<&crate::schema::TableName, bool> = HashMap::new();
    let mut units: Vec<Unit> = Vec::new();
    let mut of_key = HashMap::new();
    for (at, &change) in changes.iter().enumerate() {
        if keyless(change) && !*ordered.entry(&change.table.name).or_insert_with(|| in_order(change)) {
            units.push(Unit(vec![at]));
            continue;
        }
        let keys: Vec<_> = Blocked::keys(change).collect();
        let mut met: Vec<usize> = keys.iter().filter_map(|key| of_key.get(key).copied()).collect();
        met.sort_unstable();
        met.dedup();
        let unit = met.first().copied().unwrap_or_else(|| {
            units.push(Unit::default());
            units.len() - 1
        });
        for &other in met.iter().skip(1) {
            let moved = std::mem::take(&mut units[other].0);
            units[unit].0.extend(moved);
            of_key.values_mut().filter(|unit| **unit == other).for_each(|of| *of = unit);
        }
        units[unit].0.push(at);
        units[unit].0.sort_unstable();
        of_key.extend(keys.into_iter().map(|key| (key, unit)));
    }
    units.retain(|unit| !unit.0.is_empty());
    units
}
