//! Between any other two engines: rows are streamed here, brought into one form, and hashed.
//!
//! ```text
//! source ─ SELECT in the form of the copy ─► Convert (as the copy) ─┐
//!                                                                   ├─► canon ─► hashes ─► buckets ─► rows
//! target ─ SELECT as it prints its values ──────────────────────────┘
//! ```
//!
//! A table is compared in three widening looks. First both ends are read once, at the same time, each in whatever order
//! costs it least, and all that is kept is a count and a sum of hashes a bucket of keys ([`sink::Tally`]). Then both are read
//! again for the rows of the buckets that disagree, the target once it has applied what the source had. Then the rows that
//! still disagree are read by their keys, behind the stream.
//!
//! **Nothing is read in key order.** An order that two engines have in common would have to be sorted at both of them for
//! every key that is not a plain number: their collations differ, and what a value is converted to may sort otherwise than
//! the value. On the source that is a sort on disk of a table that may be larger than what is free there (law 7). Hashes
//! need no order, no index and no collation, are the same for tables without a key, and take 32 bytes a bucket whatever the
//! rows are. What it costs is the second reading where something disagrees.
//!
//! **Memory is bounded**: [`MAX_BUCKETS`] buckets an end, then [`ROWS_AT_ONCE`] rows an end; buckets that disagree are
//! looked at in as many readings as that takes, at most [`MOST_PASSES`]. What is beyond is counted by buckets.
//!
//! **A row that was written between the two looks at the source** may look as before, while the target rightly shows what
//! was between (TRAPS 24). There is nothing like Postgres' `xmin` in a row of MySQL. But the target's applier keeps the keys
//! of what it changes, in the transaction that changes it. So each round begins to keep them anew, and after the second
//! look at the source waits until the target has applied everything up to there: a key that was not kept was not written at
//! the source since the round began, and its row is what both looks saw. Where keys cannot be kept, a row differs if in
//! [`SURE`] rounds, one after the other, both ends showed the same two versions.
//!
//! What can go wrong: a value that cannot be converted (the error names it); a statement that runs into the limit of time;
//! whoever asked goes away. A statement under way is then ended at its server.

mod canon;
mod end;
mod form;
mod key;
mod recheck;
mod sink;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use self::end::End;
use self::form::Form;
use self::key::ByKey;
use self::sink::{Entries, Sink, Tally, bucket};
use super::judge::{Candidate, Found, certain, keep, kind_of};
use super::postgres::selection;
use super::{DifferenceKind, Look, TableReport};
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{canonical, is_binary, my_table};
use crate::schema::{Column, Ident, TableName, TableSchema};
use crate::source::{AnySource, Source};
use crate::target::{AnyTarget, Target};
use crate::transform::{Plan, TablePlan};

/// Rows of a bucket, about: so few that a row that is on its way takes few others with it.
const BUCKET_ROWS: u64 = 32;
/// 8 MiB an end.
const MAX_BUCKETS: u64 = 1 << 18;
/// Rows of the second look that are held at once, an end.
const ROWS_AT_ONCE: u64 = 250_000;
/// Readings of the second look.
const MOST_PASSES: usize = 16;
/// Rounds in which a row has to differ alike where it cannot be known whether it was written in between.
const SURE: u32 = 3;

/// Both connections of one worker.
pub(super) struct Pair {
    source: Side,
    target: Side,
    plan: Plan,
    /// The tables at the target.
    there: HashMap<TableName, Arc<TableSchema>>,
}

/// One of them.
struct Side {
    /// Away while it is read from.
    end: Option<End>,
    tracker: TaskTracker,
}

/// A table as it is asked for at one end.
struct Statement {
    /// `SELECT … FROM table t`
    select: String,
    /// Which columns are bytes.
    binary: Vec<bool>,
    /// What makes the rows look as they do at the target.
    converts: bool,
    by_key: Option<ByKey>,
}

/// What the comparison of one table needs.
struct Work<'a> {
    look: &'a Look<'a>,
    plan: Arc<TablePlan>,
    form: Arc<Form>,
    at_source: Statement,
    at_target: Statement,
}

impl Pair {
    pub(super) async fn open(look: &Look<'_>, plan: &Plan, name: &str) -> Result<Pair> {
        let (options, tracker) = (look.options, look.tracker);
        let (source, target) = match (&look.ends.source, &look.ends.target) {
            (AnySource::MySql(source), AnyTarget::Postgres(target)) => (
                End::mysql(source.info(), name, options, tracker).await?,
                End::postgres(target.info(), name, options, tracker).await?,
            ),
            (AnySource::MySql(source), AnyTarget::MySql(target)) => (
                End::mysql(source.info(), name, options, tracker).await?,
                End::mysql(target.info(), name, options, tracker).await?,
            ),
            (AnySource::Postgres(_), _) => {
                return Err(look.ends.not_between("a comparison"));
            }
        };
        let names: Vec<TableName> = plan.tables().map(|table| table.shaped.name.clone()).collect();
        let there = look.ends.target.tables(&names).await?;
        let there = names.into_iter().zip(there).filter_map(|(name, table)| Some((name, table?))).collect();
        let side = |end| Side { end: Some(end), tracker: tracker.clone() };
        Ok(Pair { source: side(source), target: side(target), plan: plan.clone(), there })
    }

    /// Compares a table.
    pub(super) async fn compare(&mut self, look: &Look<'_>, plan: &Arc<TablePlan>) -> Result<TableReport> {
        let work = self.work(look, plan).await?;
        let rows = plan.source.estimated_rows;
        let buckets = (rows / BUCKET_ROWS).next_power_of_two().clamp(1, MAX_BUCKETS);
        let mut report = TableReport {
            source: plan.source.name.to_string(),
            target: plan.shaped.name.to_string(),
            buckets,
            ..TableReport::default()
        };
        let tally = Tally::new(buckets as usize);
        // Both ends at the same moment: what disagrees on a live source is then what changed within the lag.
        let (at_source, at_target) = tokio::try_join!(
            self.source.read(&work.at_source, &work.at_source.select, &work.form, tally.clone(), None),
            self.target.read(&work.at_target, &work.at_target.select, &work.form, tally, None),
        )?;
        (report.rows_source, report.rows_target) = (at_source.rows(), at_target.rows());
        let mut differing: Vec<(usize, u64)> = Vec::new();
        for (at, (here, there)) in at_source.0.iter().zip(&at_target.0).enumerate() {
            if here != there {
                differing.push((at, here.0.max(there.0)));
            }
        }
        report.buckets_differing = differing.len() as u64;
        if differing.is_empty() {
            return Ok(report);
        }
        let mut candidates = Vec::new();
        let mut passes = passes(&differing).into_iter();
        for some in passes.by_ref().take(MOST_PASSES) {
            self.rows_of(&work, buckets as usize, &some, &mut candidates, &mut report).await?;
        }
        for at in passes.flatten() {
            let difference = at_source.0[at].0.abs_diff(at_target.0[at].0);
            report.too_many = true;
            report.differing += difference.max(1);
        }
        if look.options.fenced {
            // What was read twice stood still.
            certain(candidates, work.form.keyed(), look.options.named_rows, &mut report);
        } else {
            self.recheck(&work, &candidates, &mut report).await?;
        }
        Ok(report)
    }

    /// Reads the rows of some buckets at both ends, and keeps those that disagree.
    async fn rows_of(
        &mut self,
        work: &Work<'_>,
        buckets: usize,
        some: &[usize],
        candidates: &mut Vec<Candidate>,
        report: &mut TableReport,
    ) -> Result<()> {
        let mut chosen = vec![false; buckets];
        some.iter().for_each(|&at| chosen[at] = true);
        let chosen: Arc<[bool]> = chosen.into();
        let entries = || {
            let chosen = Arc::clone(&chosen);
            Entries::new(move |order| chosen[bucket(order, chosen.len())])
        };
        let (begun, began) = oneshot::channel();
        let Pair { source, target, .. } = self;
        let at_source = source.read(&work.at_source, &work.at_source.select, &work.form, entries(), Some(begun));
        let at_target = async {
            // The source's statement has its snapshot. Once the target has applied that, whatever the source had then is
            // there, and the candidates are only what changed since.
            let _ = began.await;
            work.catch_up().await?;
            target.read(&work.at_target, &work.at_target.select, &work.form, entries(), None).await
        };
        let (at_source, mut at_target) = tokio::try_join!(at_source, at_target)?;
        for (order, entry) in at_source.found {
            let kind = match at_target.found.remove(&order) {
                None => DifferenceKind::Missing,
                Some(other) if (other.hash, other.count) == (entry.hash, entry.count) => continue,
                Some(other) => kind_of(&entry, &other),
            };
            keep(candidates, entry, kind, report);
        }
        for entry in at_target.found.into_values() {
            keep(candidates, entry, DifferenceKind::Extra, report);
        }
        Ok(())
    }

    async fn work<'a>(&self, look: &'a Look<'a>, plan: &Arc<TablePlan>) -> Result<Work<'a>> {
        let missing =
            || Error::new(Kind::Schema, format!("there is no table {}", plan.shaped.name)).context("at the target");
        let there = Arc::clone(self.there.get(&plan.shaped.name).ok_or_else(missing)?);
        let plan = self.plan.fitted(plan, &there)?;
        let form = Arc::new(Form::new(&plan, &there, look.seed)?);
        let here: Vec<&Column> = plan.columns.iter().map(|&index| &plan.source.columns[index]).collect();
        // The form has found all of them.
        let beyond: Vec<&Column> = plan.shaped.columns.iter().filter_map(|column| there.column(&column.name)).collect();
        let places = plan.shaped.key.as_ref().map(|key| key.columns.as_slice());
        let key = places.map(|places| (picked(&here, places), picked(&beyond, places)));
        let at_source =
            self.source.statement(&plan.source.name, &here, key.as_ref(), true).await.context("at the source")?;
        let at_target =
            self.target.statement(&there.name, &beyond, key.as_ref(), false).await.context("at the target")?;
        Ok(Work { look, plan, form, at_source, at_target })
    }
}

fn picked<'a>(columns: &[&'a Column], places: &[usize]) -> Vec<&'a Column> {
    places.iter().map(|&place| columns[place]).collect()
}

/// Buckets that are looked at in one reading, and the next.
fn passes(differing: &[(usize, u64)]) -> Vec<Vec<usize>> {
    let mut passes: Vec<Vec<usize>> = Vec::new();
    let mut rows = 0;
    for &(at, more) in differing {
        rows += more;
        match passes.last_mut() {
            Some(pass) if rows <= ROWS_AT_ONCE => pass.push(at),
            _ => {
                passes.push(vec![at]);
                rows = more;
            }
        }
    }
    passes
}

impl Side {
    /// How a table is asked for. `key` are the columns of its key, at the source and at the target.
    async fn statement(
        &self,
        table: &TableName,
        columns: &[&Column],
        key: Option<&(Vec<&Column>, Vec<&Column>)>,
        at_source: bool,
    ) -> Result<Statement> {
        let end = self.end.as_ref().ok_or_else(lost)?;
        let (list, from, by_key) = match end {
            End::Postgres(end) => {
                let list: Vec<String> = columns.iter().map(|column| format!("t.{}", Ident(&column.name))).collect();
                let by_key = match key {
                    Some((_, there)) => Some(ByKey::postgres(&end.client, table, there).await?),
                    None => None,
                };
                (list, selection(&end.client, table).await?, by_key)
            }
            End::MySql(_) => {
                let list: Vec<String> = columns.iter().map(|column| canonical(column)).collect();
                let by_key = key.and_then(|(here, there)| ByKey::mysql(if at_source { here } else { there }, there));
                (list, my_table(table), by_key)
            }
        };
        // A table of which nothing travels still has rows.
        let list = if list.is_empty() { "NULL".to_owned() } else { list.join(", ") };
        let binary = columns.iter().map(|column| is_binary(column)).collect();
        Ok(Statement { select: format!("SELECT {list} FROM {from} t"), binary, converts: at_source, by_key })
    }

    /// Reads rows in a task of its own, so that both ends and all workers are read at once. `begun` is told when the first
    /// row is there.
    async fn read<S: Sink>(
        &mut self,
        statement: &Statement,
        sql: &str,
        form: &Arc<Form>,
        mut sink: S,
        mut begun: Option<oneshot::Sender<()>>,
    ) -> Result<S> {
        let mut end = self.end.take().ok_or_else(lost)?;
        let (sql, form) = (sql.to_owned(), Arc::clone(form));
        let (binary, converts) = (statement.binary.clone(), statement.converts);
        let task = async move {
            let mut scratch = Vec::new();
            let read = end.scan(&sql, &binary, |row| {
                if let Some(begun) = begun.take() {
                    let _ = begun.send(());
                }
                let row = if converts { form.converted(row)? } else { row };
                let digest = form.digest(&row, &mut scratch);
                sink.take(&row, digest, &form);
                Ok(())
            });
            let read = read.await;
            (end, read.map(|()| sink))
        };
        let task = AbortOnDropHandle::new(tokio::spawn(self.tracker.track_future(task)));
        let (end, read) = task.await.map_err(|error| Error::new(Kind::Internal, error.to_string()))?;
        self.end = Some(end);
        read
    }

    /// Reads the rows of these hashes and keys.
    async fn read_some(
        &mut self,
        statement: &Statement,
        form: &Arc<Form>,
        wanted: &[(i64, &[String])],
    ) -> Result<Found> {
        let Some(by_key) = &statement.by_key else { return self.search(statement, form, wanted).await };
        let keys: Vec<&[String]> = wanted.iter().map(|(_, key)| *key).collect();
        let Some(condition) = by_key.condition(&keys) else { return Ok(Found::new()) };
        let sql = format!("{}{condition}", statement.select);
        let orders: HashSet<i64> = wanted.iter().map(|(order, _)| *order).collect();
        let entries = Entries::new(move |order| orders.contains(&order));
        Ok(self.read(statement, &sql, form, entries, None).await?.found())
    }

    /// The same, by reading the whole table.
    async fn search(&mut self, statement: &Statement, form: &Arc<Form>, wanted: &[(i64, &[String])]) -> Result<Found> {
        let orders: HashSet<i64> = wanted.iter().map(|(order, _)| *order).collect();
        let entries = Entries::new(move |order| orders.contains(&order));
        Ok(self.read(statement, &statement.select, form, entries, None).await?.found())
    }
}

fn lost() -> Error {
    Error::new(Kind::Internal, "a session of the comparison is gone")
}

impl Work<'_> {
    /// Waits until the target has applied what is at the source now.
    async fn catch_up(&self) -> Result<()> {
        if self.look.options.fenced {
            return Ok(());
        }
        self.look.catch_up(&self.look.ends.source.head_of_seen().await?).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_reading_holds_more_rows_than_it_may_and_none_is_left_out() {
        let differing: Vec<(usize, u64)> = (0..1000).map(|at| (at, 1 + at as u64 * 7)).collect();
        let passes = passes(&differing);
        assert_eq!(passes.concat(), (0..1000).collect::<Vec<_>>());
        assert!(passes.len() > 10);
        for pass in &passes {
            assert!(pass.iter().map(|&at| differing[at].1).sum::<u64>() <= ROWS_AT_ONCE);
        }
        // One that holds more by itself is looked at alone.
        assert_eq!(super::passes(&[(0, 1), (1, ROWS_AT_ONCE + 1), (2, 1)]), [vec![0], vec![1], vec![2]]);
    }
}
