//! Writes the source's version of the rows that differ, while a run applies the stream.
//!
//! In: the keys that a comparison found to differ. Out: [`Repaired`], and a target that holds the source's version of
//! them. A row is written only when its version at the source is certain to be the one that belongs to the target's
//! checkpoint, or the stream's changes of before would be applied on top of those of after:
//!
//! ```text
//! read target · read source · head · wait until checkpoint ≥ head
//! BEGIN; lock the checkpoint     -- from here no batch is applied
//! read target: the same version as before?   -- then the stream has not touched the row in between
//! read source: the same version as before?   -- then it is the one of the checkpoint, for nobody has written it since
//! write · COMMIT
//! ```
//!
//! Versions are told apart by the transaction that wrote them (`xmin`). A row that changes under our eyes is looked at
//! again, at most [`ROUNDS`] times; one that shows a state the source had is no difference. At the end every row that was
//! written is looked at once more.
//!
//! What can go wrong: no run is alive to bring the target up to the source (the caller starts one); a row that the target
//! refuses ([`Repaired::refused`]: named, the others go on); commits at the source that wait for a synchronous standby,
//! which are in the stream before they can be seen; a table without a key, whose rows cannot be told apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::postgres::selection;
use super::{Ends, Report, TableReport, behind, interrupted};
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::{Client, Equality, connect};
use crate::source::postgres::head;
use crate::target::postgres::{Reader, Ready, Repairer, Rows, Writes};
use crate::target::state::Phase;
use crate::transform::{Plan, TablePlan};

/// Rows of one transaction: it holds up the stream for as long as it takes.
const AT_ONCE: usize = 500;
/// Times a row that changes under our eyes is looked at again.
const ROUNDS: usize = 20;

/// What was repaired in one table.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TableRepair {
    /// Its name at the source.
    pub source: String,
    /// Rows the target lacked.
    pub inserted: u64,
    /// Rows that had other values.
    pub updated: u64,
    /// Rows the source did not have.
    pub deleted: u64,
    /// Rows that changed at every look: still to be judged.
    pub unsettled: u64,
    /// Rows that the target refuses, and why.
    pub refused: Vec<RefusedRow>,
    /// Why nothing of it was repaired.
    pub left: Option<String>,
}

/// A row that the target refuses.
#[derive(Debug, Clone, Serialize)]
pub struct RefusedRow {
    /// Its key, as `(1, north)`.
    pub key: String,
    /// What the target said.
    pub why: String,
    /// The key's values.
    #[serde(skip)]
    key_values: Vec<String>,
}

/// What was repaired.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Repaired {
    /// The tables that had differing rows.
    pub tables: Vec<TableRepair>,
    /// Every row that differed is as at the source now.
    pub complete: bool,
}

impl Repaired {
    /// Rows that still differ, or may.
    pub fn left(&self, found: &Report) -> u64 {
        let of = |table: &TableRepair| match table.left {
            Some(_) => found.tables.iter().find(|t| t.source == table.source).map_or(0, |t| t.differing),
            None => table.unsettled + table.refused.len() as u64,
        };
        self.tables.iter().map(of).sum()
    }

    /// Rows written.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.inserted + table.updated + table.deleted).sum()
    }
}

/// Called after each piece: the table, rows done, rows in all.
pub type Progress<'a> = &'a (dyn Fn(&str, usize, usize) + Send + Sync);

/// Refuses where rows cannot be written one by one, or the target does not follow the source: before the copy is done, and
/// once a cutover has begun. After it the source's version would be the old one.
pub async fn allowed(ends: &Ends) -> Result<()> {
    if ends.postgres().is_none() {
        return Err(ends.not_between("a repair of single rows").fix(
            "cutwater verify names the tables that differ; cutwater tables resync TABLE copies one again, beside the others",
        ));
    }
    let refused = |why: String| Err(Error::new(Kind::Refused, why).fix("cutwater status"));
    match ends.state.migration().await?.map(|migration| migration.phase) {
        None => refused("nothing was migrated yet: there is nothing to repair".into()),
        Some(Phase::CatchingUp | Phase::Streaming) => Ok(()),
        Some(phase) => refused(format!("the migration is in phase {phase}: rows are not repaired in it")),
    }
}

/// Repairs what `found` names. `found` must name every differing row ([`super::Options::named_rows`]).
pub async fn repair(
    ends: &Ends,
    plan: &Plan,
    found: &Report,
    progress: Progress<'_>,
    shutdown: &CancellationToken,
) -> Result<Repaired> {
    let mut repaired = Repaired { tables: Vec::new(), complete: true };
    let tables: BTreeMap<String, &Arc<TablePlan>> =
        plan.tables().map(|table| (table.source.name.to_string(), table)).collect();
    let name = format!("cutwater_{}_repair", ends.state.name());
    let both = ends.need_postgres("a repair")?;
    let source = connect(both.source.info(), &name).await?;
    let writer = both.target.repairer().await?;
    for report in found.tables.iter().filter(|table| table.differing > 0) {
        let Some(table) = tables.get(&report.source) else { continue };
        let mut outcome = TableRepair { source: report.source.clone(), ..TableRepair::default() };
        if let Some(why) = cannot(table, report) {
            outcome.left = Some(why);
        } else {
            let work = Work::open(ends, table, &source, &writer).await?;
            tokio::select! {
                done = work.table(report, progress, &mut outcome) => done.with_context(|| format!("repairing {}", report.source))?,
                () = shutdown.cancelled() => return Err(interrupted()),
            }
        }
        repaired.complete &= outcome.left.is_none() && outcome.unsettled == 0 && outcome.refused.is_empty();
        repaired.tables.push(outcome);
    }
    Ok(repaired)
}

fn cannot(table: &TablePlan, report: &TableReport) -> Option<String> {
    let resync = format!("cutwater tables resync {} copies it again", report.source);
    if table.shaped.key.is_none() {
        return Some(format!("it has no key by which a row could be told from another: {resync}"));
    }
    if report.too_many || (report.rows.len() as u64) < report.differing {
        return Some(format!("too many rows differ to write them one by one: {resync}"));
    }
    None
}

struct Work<'a> {
    ends: &'a Ends,
    table: &'a TablePlan,
    source: &'a Client,
    writer: &'a Repairer,
    at_source: Reader,
    at_target: Reader,
    into: String,
}

/// What came of a piece.
#[derive(Default)]
struct Looked {
    writes: Writes,
    /// Keys to be looked at once more.
    again: Vec<Vec<String>>,
}

impl<'a> Work<'a> {
    async fn open(ends: &'a Ends, table: &'a TablePlan, source: &'a Client, writer: &'a Repairer) -> Result<Work<'a>> {
        let names: Vec<&str> = table.columns.iter().map(|&index| table.source.columns[index].name.as_str()).collect();
        let shaped: Vec<&str> = table.shaped.columns.iter().map(|column| column.name.as_str()).collect();
        let from = selection(source, &table.source.name).await.context("at the source")?;
        let into = selection(writer.client(), &table.shaped.name).await.context("at the target")?;
        let equal = Equality::of(source, &table.source.name, &names).await?;
        let at_source = Reader::new(&names, &table.shaped, &from, &equal);
        let equal = Equality::of(writer.client(), &table.shaped.name, &shaped).await?;
        let at_target = Reader::new(&shaped, &table.shaped, &into, &equal);
        Ok(Work { ends, table, source, writer, at_source, at_target, into })
    }

    async fn table(&self, report: &TableReport, progress: Progress<'_>, outcome: &mut TableRepair) -> Result<()> {
        // Rows that should not be there first: a row to be inserted may need their place in a unique index.
        let mut rows: Vec<_> = report.rows.iter().collect();
        rows.sort_by_key(|row| row.kind != super::DifferenceKind::Extra);
        let keys: Vec<Vec<String>> = rows.iter().map(|row| row.key_values.clone()).collect();
        // The second pass finds what the first has done, and gives rows that were in each other's way another chance.
        for pass in 0..2 {
            let refused: Vec<Vec<String>> = outcome.refused.drain(..).map(|row| row.key_values).collect();
            outcome.unsettled = 0;
            for together in refused.chunks(AT_ONCE) {
                self.piece(together, outcome).await?;
            }
            outcome.refused.clear();
            for (n, piece) in keys.chunks(AT_ONCE).enumerate() {
                self.piece(piece, outcome).await?;
                if pass == 0 {
                    progress(&report.source, (n * AT_ONCE + piece.len()).min(keys.len()), keys.len());
                }
            }
        }
        Ok(())
    }

    /// Repairs these rows, looking again at those that change.
    async fn piece(&self, keys: &[Vec<String>], outcome: &mut TableRepair) -> Result<()> {
        let mut open = keys.to_vec();
        for _ in 0..ROUNDS {
            if open.is_empty() {
                return Ok(());
            }
            open = self.round(&open, outcome).await?;
        }
        outcome.unsettled += open.len() as u64;
        Ok(())
    }

    async fn round(&self, keys: &[Vec<String>], outcome: &mut TableRepair) -> Result<Vec<Vec<String>>> {
        let migration = self.ends.state.migration().await?;
        let epoch = migration.ok_or_else(|| Error::new(Kind::Refused, "nothing was migrated yet"))?.epoch;
        let target_before = self.at_target.read(self.writer.client(), keys).await?;
        let before = self.at_source.read(self.source, keys).await?;
        // A commit that waits for a standby is in the stream and not yet to be seen.
        if self.commits_wait().await? {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            return Ok(keys.to_vec());
        }
        let head = head::of_seen(self.source).await?;
        if let behind::Reached::No(why) = behind::wait(&self.ends.state, &head).await? {
            return Err(Error::new(Kind::Transient, why).fix("cutwater run, and then this again"));
        }
        if let Ready::No(why) = self.writer.begin(epoch, &self.table.source.name).await? {
            tracing::debug!(why, "looking again");
            self.writer.rollback().await?;
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            return Ok(keys.to_vec());
        }
        let target_now = self.at_target.read(self.writer.client(), keys).await?;
        let now = self.at_source.read(self.source, keys).await?;
        let looked = judge(keys, (&before, &now), (&target_before, &target_now));
        if looked.writes.is_empty() {
            self.writer.rollback().await?;
            return Ok(looked.again);
        }
        match self.writer.write(&self.table.shaped, &self.into, &looked.writes).await {
            Ok(()) => self.writer.commit().await?,
            Err(error) => {
                self.writer.rollback().await?;
                if !matches!(error.kind(), Kind::BadRow | Kind::Divergence | Kind::Schema | Kind::Internal) {
                    return Err(error);
                }
                return self.smaller(&looked, &error, outcome).await;
            }
        }
        outcome.inserted += looked.writes.insert.len() as u64;
        outcome.updated += looked.writes.update.len() as u64;
        outcome.deleted += looked.writes.delete.len() as u64;
        Ok(looked.again)
    }

    /// Something among these rows is refused: halves of them, down to the row itself.
    async fn smaller(&self, looked: &Looked, error: &Error, outcome: &mut TableRepair) -> Result<Vec<Vec<String>>> {
        let writes = &looked.writes;
        let written = writes.insert.iter().chain(&writes.update).map(|(key, _)| key);
        let mut keys: Vec<Vec<String>> = writes.delete.iter().chain(written).cloned().collect();
        if let [key] = &keys[..] {
            let (key_values, why) = (key.clone(), error.why().to_owned());
            outcome.refused.push(RefusedRow { key: format!("({})", key.join(", ")), why, key_values });
            return Ok(looked.again.clone());
        }
        let second = keys.split_off(keys.len() / 2);
        let mut again = looked.again.clone();
        for half in [keys, second] {
            again.extend(Box::pin(self.round(&half, outcome)).await?);
        }
        Ok(again)
    }

    async fn commits_wait(&self) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')";
        Ok(self.source.query_one(sql, &[]).await?.get(0))
    }
}

/// What is to be done about each row: the source before and after the checkpoint was locked, the target likewise.
fn judge(keys: &[Vec<String>], source: (&Rows, &Rows), target: (&Rows, &Rows)) -> Looked {
    let mut looked = Looked::default();
    for key in keys {
        let (before, now, here) = (source.0.get(key), source.1.get(key), target.1.get(key));
        let values = |row: Option<&crate::target::postgres::RowVersion>| row.map(|row| row.values.clone());
        if values(here) == values(before) || values(here) == values(now) {
            // The target shows a state that the source had.
            continue;
        }
        if before != now || target.0.get(key) != here {
            looked.again.push(key.clone());
            continue;
        }
        match (now, here) {
            (Some(row), None) => looked.writes.insert.push((key.clone(), row.values.clone())),
            (Some(row), Some(_)) => looked.writes.update.push((key.clone(), row.values.clone())),
            (None, Some(_)) => looked.writes.delete.push(key.clone()),
            (None, None) => {}
        }
    }
    looked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::postgres::RowVersion;

    fn rows(of: &[(&str, &str, &str)]) -> Rows {
        let row = |(key, xmin, value): &(&str, &str, &str)| {
            let version = RowVersion { xmin: (*xmin).into(), values: vec![Some((*value).into())] };
            (vec![(*key).to_owned()], version)
        };
        of.iter().map(row).collect()
    }

    fn judged(source: (&Rows, &Rows), target: (&Rows, &Rows)) -> (usize, usize, usize, usize) {
        let looked = judge(&[vec!["k".to_owned()]], source, target);
        (looked.writes.insert.len(), looked.writes.update.len(), looked.writes.delete.len(), looked.again.len())
    }

    #[test]
    fn a_row_that_stood_still_at_both_ends_is_written() {
        let (a, b, none) = (rows(&[("k", "1", "a")]), rows(&[("k", "9", "b")]), rows(&[]));
        assert_eq!(judged((&a, &a), (&none, &none)), (1, 0, 0, 0));
        assert_eq!(judged((&a, &a), (&b, &b)), (0, 1, 0, 0));
        assert_eq!(judged((&none, &none), (&b, &b)), (0, 0, 1, 0));
    }

    #[test]
    fn a_row_that_moved_at_either_end_is_looked_at_again() {
        let (a, newer) = (rows(&[("k", "1", "a")]), rows(&[("k", "2", "c")]));
        let (b, touched, none) = (rows(&[("k", "9", "b")]), rows(&[("k", "10", "b")]), rows(&[]));
        assert_eq!(judged((&a, &newer), (&b, &b)), (0, 0, 0, 1));
        assert_eq!(judged((&a, &a), (&b, &touched)), (0, 0, 0, 1));
        assert_eq!(judged((&none, &none), (&none, &b)), (0, 0, 0, 1), "the stream has just brought it");
        // Written again with the same values: another version all the same.
        let rewritten = rows(&[("k", "3", "a")]);
        assert_eq!(judged((&a, &rewritten), (&b, &b)), (0, 0, 0, 1));
    }

    #[test]
    fn a_row_that_shows_what_the_source_had_is_left_alone() {
        let (a, newer, old) = (rows(&[("k", "1", "a")]), rows(&[("k", "2", "c")]), rows(&[("k", "9", "a")]));
        assert_eq!(judged((&a, &newer), (&old, &old)), (0, 0, 0, 0));
    }
}
