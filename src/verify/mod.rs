//! The comparison of both ends, while both are being written to.
//!
//! In: the plan's tables and the two databases. Out: a [`Report`] that counts, for every table, the rows that differ,
//! and names them. Nothing is changed at either end, except that a finished comparison is recorded in the state; only when
//! it is asked to ([`run_and_repair`]) does it write the source's version of what differs.
//!
//! A table is compared in three widening looks: one sum a bucket of keys; then the keys and row hashes of the buckets that
//! disagree; then the rows that still disagree, read again behind the stream: source, head, wait until the target has
//! applied it, target, source. A row differs only if both source reads agree and the target does not (TRAPS 24). Who
//! computes the hashes depends on the pair of engines ([`pair`]): between two Postgres servers they do it themselves
//! ([`postgres`]), between any others rows are streamed here and brought into one form ([`streamed`]). What a row that
//! disagrees comes to is the same for all ([`judge`]).
//!
//! What can go wrong: a table is missing at the target; nobody applies the stream, so that differences may only be
//! changes on their way ([`Report::behind`]); one of the ends goes away.

pub mod changed;
pub mod columns;
pub mod follower;
mod judge;
mod pair;
pub mod partitions;
mod postgres;
pub mod published;
pub mod repair;
mod streamed;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::pair::Pair;
use crate::change::Position;
use crate::error::{Context, Error, Kind, Result};
pub use crate::pipeline::behind;
use crate::postgres::connect;
use crate::schema::Leaves;
use crate::source::postgres::{PgSource, head};
use crate::source::{AnySource, Source};
use crate::target::postgres::PgTarget;
use crate::target::state::State;
use crate::target::{AnyTarget, Target};
use crate::transform::Plan;

/// How long statements under way may take to be ended at their servers.
const SETTLING: Duration = Duration::from_secs(6);

/// The two databases that are compared, and what the migration remembers.
#[derive(Clone)]
pub struct Ends {
    /// The source.
    pub source: AnySource,
    /// The target.
    pub target: AnyTarget,
    /// The state, in the target.
    pub state: State,
}

/// Two Postgres servers, for what is only done between such.
#[derive(Clone, Copy)]
pub(crate) struct PgEnds<'a> {
    pub(crate) source: &'a PgSource,
    pub(crate) target: &'a PgTarget,
}

impl Ends {
    /// The two ends, if both are Postgres servers.
    pub(crate) fn postgres(&self) -> Option<PgEnds<'_>> {
        match (&self.source, &self.target) {
            (AnySource::Postgres(source), AnyTarget::Postgres(target)) => Some(PgEnds { source, target }),
            _ => None,
        }
    }

    /// The same, for what needs them to be.
    pub(crate) fn need_postgres(&self, what: &str) -> Result<PgEnds<'_>> {
        self.postgres().ok_or_else(|| self.not_between(what))
    }

    pub(crate) fn not_between(&self, what: &str) -> Error {
        let (source, target) = (self.source.label(), self.target.label());
        Error::new(Kind::Refused, format!("{what} is not possible between {source} and {target}"))
    }
}

/// How to compare.
#[derive(Debug, Clone)]
pub struct Options {
    /// Tables compared at the same time; each uses one connection to each end.
    pub workers: usize,
    /// Nothing writes to the source and everything is applied: there is nothing to wait for.
    pub fenced: bool,
    /// Give up after this long; none by default.
    pub budget: Option<Duration>,
    /// Differing rows named for each table; all are counted.
    pub named_rows: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { workers: 3, fenced: false, budget: None, named_rows: 100 }
    }
}

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// One entry a table, in name order.
    pub tables: Vec<TableReport>,
    /// How long it took.
    pub duration_ms: u64,
    /// Set if the target could not be waited for: differences may be changes that are still on their way.
    pub behind: Option<String>,
}

/// What was found in one table.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TableReport {
    /// Its name at the source, `schema.table`.
    pub source: String,
    /// Its name at the target.
    pub target: String,
    /// Rows at the source, when it was counted.
    pub rows_source: u64,
    /// Rows at the target, at about the same moment.
    pub rows_target: u64,
    /// Buckets compared.
    pub buckets: u64,
    /// Buckets that disagreed at first, on a live source mostly because of changes on their way.
    pub buckets_differing: u64,
    /// Rows that were read again.
    pub rechecked: u64,
    /// Rows that differ.
    pub differing: u64,
    /// Rows that changed at every look and could not be judged; not counted as differing.
    pub unsettled: u64,
    /// More rows disagreed than are rechecked: `differing` counts the rest as they were first seen.
    pub too_many: bool,
    /// The first of the differing rows.
    pub rows: Vec<RowDifference>,
}

/// One row that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowDifference {
    /// Its key, as `(1, north)`; without a key the start of the row's text.
    pub key: String,
    /// How it differs.
    pub kind: DifferenceKind,
    /// The key's values, for repair; empty without a key.
    #[serde(skip)]
    pub key_values: Vec<String>,
}

/// How a row differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DifferenceKind {
    /// The target lacks it (or has too few of it, in a table without a key).
    Missing,
    /// The source does not have it.
    Extra,
    /// Both have it, with different values.
    Different,
}

impl Report {
    /// Rows that differ, over all tables.
    pub fn differences(&self) -> u64 {
        self.tables.iter().map(|table| table.differing).sum()
    }

    /// Rows at the source, over all tables.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows_source).sum()
    }

    /// Whether both ends hold the same.
    pub fn clean(&self) -> bool {
        self.differences() == 0
    }
}

/// Called after each table: its report, tables done, tables in all.
pub type Progress<'a> = &'a (dyn Fn(&TableReport, usize, usize) + Send + Sync);

/// What the comparison of any table needs.
pub(crate) struct Look<'a> {
    ends: &'a Ends,
    options: &'a Options,
    seed: i64,
    /// Why the target could not be waited for.
    behind: &'a Mutex<Option<String>>,
    /// What still ends statements that nobody waits for.
    tracker: &'a TaskTracker,
}

impl Look<'_> {
    /// Waits until the target has applied everything up to `head`.
    async fn catch_up(&self, head: &Position) -> Result<()> {
        if let behind::Reached::No(why) = behind::wait(&self.ends.state, head).await? {
            self.behind.lock().expect("no holder panics").get_or_insert(why);
        }
        Ok(())
    }
}

/// Compares all tables of the plan. Records the outcome in the state, unless differences may be changes on their way.
pub async fn run(
    ends: &Ends,
    plan: &Plan,
    options: &Options,
    progress: Progress<'_>,
    shutdown: &CancellationToken,
) -> Result<Report> {
    let leaves = partitions::now(ends, plan).await?;
    let (report, generation) = compare(ends, plan, options, progress, shutdown).await?;
    if report.clean() || report.behind.is_none() {
        record(ends, &report, report.differences(), generation, leaves).await?;
    }
    Ok(report)
}

async fn record(ends: &Ends, report: &Report, differences: u64, generation: Option<i64>, leaves: Leaves) -> Result<()> {
    let tables = report.tables.len() as u64;
    ends.state.set_verify(tables, differences, report.duration_ms, generation, Some(leaves)).await
}

/// Compares all tables and writes the source's version of what differs ([`repair`]). A run has to be alive
/// ([`follower`]). What the run had set aside is settled if in the end nothing differs.
pub async fn run_and_repair(
    ends: &Ends,
    plan: &Plan,
    options: &Options,
    progress: Progress<'_>,
    repairing: repair::Progress<'_>,
    shutdown: &CancellationToken,
) -> Result<(Report, repair::Repaired)> {
    let stuck = |why: String| {
        Error::new(Kind::Transient, format!("the target could not be waited for: {why}"))
            .fix("cutwater status says why; then run the same command again")
    };
    // What is set aside from here on may be of a table that was compared before: it stays.
    let source =
        connect(ends.need_postgres("a repair")?.source.info(), &format!("cutwater_{}_verify", ends.state.name()))
            .await?;
    let head = head::of_seen(&source).await?;
    let reached = tokio::select! {
        reached = behind::wait(&ends.state, &head) => reached?,
        () = shutdown.cancelled() => return Err(interrupted()),
    };
    if let behind::Reached::No(why) = reached {
        return Err(stuck(why));
    }
    let aside = ends.state.set_aside().await?;
    let leaves = partitions::now(ends, plan).await?;
    let published = published::now(&source, ends, plan).await?;
    let all = Options { named_rows: usize::MAX, ..options.clone() };
    let (mut report, generation) = compare(ends, plan, &all, progress, shutdown).await?;
    if let Some(why) = report.behind.clone().filter(|_| !report.clean()) {
        return Err(stuck(why));
    }
    let repaired = repair::repair(ends, plan, &report, repairing, shutdown).await?;
    let unsettled: u64 = report.tables.iter().map(|table| table.unsettled).sum();
    record(ends, &report, if repaired.complete { 0 } else { repaired.left(&report) }, generation, leaves).await?;
    if repaired.complete && unsettled == 0 {
        ends.state.settle(aside).await?;
        // Whatever the stream lacked from before this began is there now.
        ends.state.set_memberships(None, &published).await?;
    }
    for table in &mut report.tables {
        table.rows.truncate(options.named_rows);
    }
    Ok((report, repaired))
}

/// Compares all tables of the plan; the generation under which what changes meanwhile is kept.
async fn compare(
    ends: &Ends,
    plan: &Plan,
    options: &Options,
    progress: Progress<'_>,
    shutdown: &CancellationToken,
) -> Result<(Report, Option<i64>)> {
    let started = Instant::now();
    columns::arrived(ends, plan).await?;
    let generation = generation(ends, options, shutdown).await?;
    let total = plan.len();
    let done = Mutex::new(Vec::with_capacity(total));
    let queue: Mutex<VecDeque<_>> = Mutex::new(plan.tables().cloned().collect());
    let behind = Mutex::new(None);
    let seed: i64 = rand::random();
    let tracker = TaskTracker::new();
    let look = Look { ends, options, seed, behind: &behind, tracker: &tracker };
    let worker = async || {
        let mut pair = Pair::open(&look, plan).await?;
        loop {
            let next = queue.lock().expect("no holder panics").pop_front();
            let Some(table) = next else { return Ok(()) };
            let report =
                pair.compare(&look, &table).await.with_context(|| format!("comparing {}", table.source.name))?;
            let mut done = done.lock().expect("no holder panics");
            done.push(report);
            progress(&done[done.len() - 1], done.len(), total);
        }
    };
    let workers = options.workers.clamp(1, total.max(1));
    let work = futures::future::try_join_all((0..workers).map(|_| worker()));
    let limit = async {
        match options.budget {
            Some(budget) => tokio::time::sleep(budget).await,
            None => std::future::pending().await,
        }
    };
    let outcome: Result<_> = tokio::select! {
        outcome = work => outcome.map(drop),
        () = shutdown.cancelled() => Err(interrupted()),
        () = limit => {
            let names: Vec<String> = done.lock().expect("no holder panics").iter().map(|t: &TableReport| t.source.clone()).collect();
            let left = plan.tables().map(|t| t.source.name.to_string()).filter(|name| !names.contains(name));
            Err(unfinished(&left.collect::<Vec<_>>(), options.budget.unwrap_or_default()))
        }
    };
    settled(&tracker).await;
    outcome?;
    let mut tables = done.into_inner().expect("no holder panics");
    tables.sort_by(|a, b| a.source.cmp(&b.source));
    let behind = behind.into_inner().expect("no holder panics");
    Ok((Report { tables, duration_ms: started.elapsed().as_millis() as u64, behind }, generation))
}

/// Under which the target keeps the keys of what changes from here on, so that this comparison, if it ends clean, need
/// not be made again for anything else. Behind a fence nothing changes: what was changed since the last one still is.
async fn generation(ends: &Ends, options: &Options, shutdown: &CancellationToken) -> Result<Option<i64>> {
    if options.fenced {
        return Ok(ends.state.migration().await?.and_then(|m| m.verify).and_then(|verify| verify.generation));
    }
    tokio::select! {
        generation = ends.state.begin_tracking() => generation,
        () = shutdown.cancelled() => Err(interrupted()),
    }
}

/// Waits until no statement of ours is under way at a server any more.
async fn settled(tracker: &TaskTracker) {
    tracker.close();
    if tokio::time::timeout(SETTLING, tracker.wait()).await.is_err() {
        tracing::warn!("a statement of the comparison may still be under way at a server");
    }
}

fn interrupted() -> Error {
    Error::new(Kind::Interrupted, "the comparison was interrupted")
}

fn unfinished(left: &[String], budget: Duration) -> Error {
    let named = left.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    let more = if left.len() > 5 { format!(" and {} more", left.len() - 5) } else { String::new() };
    let why = format!("{:.1} s were not enough to compare {named}{more}", budget.as_secs_f64());
    Error::new(Kind::Transient, why).fix("allow more time: a larger --max-downtime")
}
