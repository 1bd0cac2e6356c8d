//! Copying the existing rows: many parts at once, every table at one position.
//!
//! In: a [`Snapshot`], the plan and the state's list of what earlier tries finished. Out: every table of the plan in
//! stage `copied` at the snapshot's position, its rows exactly those of that position. Rows go from the source's COPY to
//! the target's as the bytes they are; here they are only counted and, on request, slowed down (law 7).
//!
//! Tables go largest first. One that is cut into parts is emptied by `begin_table`, its parts then run side by side and
//! among other tables', and `finish_table` follows the last. A crash in between leaves it `copying`, and the next try
//! begins it again from nothing: parts of different snapshots never meet in one table (TRAPS 6), except the ranges of a
//! very large one ([`super::chunks`]), of which each remembers its own. Nothing here decides
//! whether rows that were in a target table before may be thrown away: that is `make_room`, before the first copy.
//!
//! What can go wrong: a table changed at one of the ends since the plan ([`Kind::Schema`]), a lost connection or lease.
//! The first failure ends all workers; what they had open is rolled back.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::chunks;
use super::progress::{Progress, TableProgress};
use super::steering::Steering;
use crate::error::{Context, Error, Kind, Result};
use crate::schema::{Column, Patterns, TableName, TableSchema};
use crate::source::{CopyFormat, Part, Snapshot, Source};
use crate::target::postgres::State;
use crate::target::state::{Lease, TableStage};
use crate::target::{LoadMode, Target};
use crate::telemetry;
use crate::transform::{Plan, TablePlan};

/// How often the state is told how far the tables are.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Copies every table that the state does not show as copied. `halt` ends it with [`Kind::Interrupted`].
pub async fn copy<S: Snapshot, T: Target>(
    target: &T,
    snapshot: &Arc<S>,
    plan: &Plan,
    lease: &Lease,
    steering: &Arc<Steering>,
    progress: &Arc<Progress>,
    halt: &CancellationToken,
) -> Result<()> {
    let tables = tables_to_copy(target, plan, progress).await?;
    let worker = Worker {
        target: target.clone(),
        snapshot: Arc::clone(snapshot),
        lease: Arc::new(lease.clone()),
        chunk_rows: steering.now().snapshot.chunk_rows.max(1),
        steering: Arc::clone(steering),
    };
    let reporter = tokio::spawn(report(target.state().clone(), Arc::clone(progress)));
    let copied = Driver::new(worker, tables).run(halt).await;
    reporter.abort();
    // The last second's counts, so that a finished table shows its rows.
    report_once(target.state(), progress, &mut HashMap::new()).await;
    copied
}

/// Checks that the source's tables still look as the plan took them. To be asked after the snapshot was made: what
/// changes later is in the stream, what changed before would be missed.
pub async fn check_unchanged<S: Source>(source: &S, plan: &Plan) -> Result<()> {
    let now = source.tables(&Patterns::default()).await?;
    for planned in plan.tables() {
        let table = &planned.source;
        let why = match now.iter().find(|other| other.name == table.name) {
            None => "it no longer exists".to_owned(),
            Some(other) => match difference(table, other) {
                Some(difference) => difference,
                None => continue,
            },
        };
        return Err(Error::new(Kind::Schema, format!("{} changed at the source during the start: {why}", table.name))
            .fix("run the same command again once the change is complete"));
    }
    Ok(())
}

fn difference(planned: &TableSchema, now: &TableSchema) -> Option<String> {
    if planned.id != now.id {
        return Some("it was dropped and created again".to_owned());
    }
    for column in &planned.columns {
        match now.column(&column.name) {
            None => return Some(format!("column {:?} is gone", column.name)),
            Some(other) if (other.ty.oid, other.ty.modifier) != (column.ty.oid, column.ty.modifier) => {
                return Some(format!("column {:?} is now {}", column.name, other.ty.display));
            }
            Some(_) => {}
        }
    }
    let added = now.columns.iter().find(|column| planned.column(&column.name).is_none());
    added.map(|column| format!("column {:?} was added", column.name))
}

/// A table still to be copied, and all that its parts share.
struct Table {
    plan: Arc<TablePlan>,
    /// Names at the target, in the stream's order.
    columns: Vec<String>,
    format: CopyFormat,
    progress: Arc<TableProgress>,
}

impl Table {
    fn source(&self) -> &TableName {
        &self.plan.source.name
    }
}

/// Largest first, so that the longest copy does not begin last.
async fn tables_to_copy<T: Target>(target: &T, plan: &Plan, progress: &Progress) -> Result<VecDeque<Arc<Table>>> {
    let states = target.state().tables().await?;
    let copied: Vec<&TableName> =
        states.iter().filter(|state| state.stage == TableStage::Copied).map(|state| &state.source).collect();
    let waiting: Vec<&Arc<TablePlan>> = plan.tables().filter(|table| !copied.contains(&&table.source.name)).collect();
    let names: Vec<TableName> = waiting.iter().map(|table| table.shaped.name.clone()).collect();
    let there = target.tables(&names).await?;
    let mut tables = Vec::with_capacity(waiting.len());
    for (plan, there) in waiting.into_iter().zip(there) {
        let name = &plan.source.name;
        let format = format_for(plan, there.as_deref())?;
        let counters = progress.table(name);
        let missing = || Error::new(Kind::Internal, format!("{name} is not in the state's list of tables"));
        tables.push(Arc::new(Table {
            columns: plan.shaped.columns.iter().map(|column| column.name.clone()).collect(),
            format,
            progress: counters.ok_or_else(missing)?,
            plan: Arc::clone(plan),
        }));
    }
    tables.sort_by_key(|table| std::cmp::Reverse((table.plan.source.bytes, table.plan.source.estimated_rows)));
    Ok(tables.into())
}

/// Whether every value of every table means the same in binary form at both ends. A stream has one form for all of them.
/// A column that is still to come at the target (`shapes`) will be of the source's type. `there`: in the plan's order.
pub fn all_binary(plan: &Plan, there: &[Option<Arc<TableSchema>>]) -> bool {
    let carried = |column: &Column, other: Option<&Column>| {
        column.ty.portable_binary
            && other.is_none_or(|other| {
                other.ty.portable_binary && (&column.ty.schema, &column.ty.name) == (&other.ty.schema, &other.ty.name)
            })
    };
    plan.tables().zip(there).all(|(table, there)| {
        let other = |column: &Column| there.as_ref().and_then(|there| there.column(&column.name));
        table.shaped.columns.iter().all(|column| carried(column, other(column)))
    })
}

/// Binary where every value means the same on both servers, else text. Refuses a target that lacks a column.
fn format_for(plan: &TablePlan, there: Option<&TableSchema>) -> Result<CopyFormat> {
    let there = there.ok_or_else(|| {
        Error::new(Kind::Schema, format!("{} does not exist at the target", plan.shaped.name))
            .fix("cutwater schema --apply")
    })?;
    let mut format = CopyFormat::PgBinary;
    for column in &plan.shaped.columns {
        let Some(other) = there.column(&column.name) else {
            let why = format!("{} at the target has no column {:?}", plan.shaped.name, column.name);
            return Err(Error::new(Kind::Schema, why)
                .fix("add the column at the target, or leave it out by columns = [\"!…\"] in a [[transform]]"));
        };
        let same = (&column.ty.schema, &column.ty.name) == (&other.ty.schema, &other.ty.name);
        if !same || !column.ty.portable_binary || !other.ty.portable_binary {
            format = CopyFormat::PgText;
        }
    }
    Ok(format)
}

/// What every step of the copy needs.
struct Worker<S, T> {
    target: T,
    snapshot: Arc<S>,
    lease: Arc<Lease>,
    chunk_rows: u64,
    steering: Arc<Steering>,
}

impl<S, T: Clone> Clone for Worker<S, T> {
    fn clone(&self) -> Self {
        Worker {
            target: self.target.clone(),
            snapshot: Arc::clone(&self.snapshot),
            lease: Arc::clone(&self.lease),
            chunk_rows: self.chunk_rows,
            steering: Arc::clone(&self.steering),
        }
    }
}

/// What a step has done.
enum Done {
    /// The table was begun; these parts are to be copied.
    Cut(Arc<Table>, Vec<Part>),
    /// One of its parts is durable.
    Part(Arc<Table>, u64),
    /// The table is copied.
    Table,
}

impl<S: Snapshot, T: Target> Worker<S, T> {
    /// Cuts a table into parts and empties it, or copies it at once if it is one part.
    async fn begin(self, table: Arc<Table>) -> Result<Done> {
        let config = self.steering.now().snapshot.clone();
        let ranges = chunks::still_to_copy(&self.target, &*self.snapshot, &self.lease, &table.plan, &config).await?;
        if let Some((parts, rows)) = ranges {
            table.progress.begin();
            table.progress.add(rows, 0);
            return Ok(Done::Cut(table, parts));
        }
        let mut parts = self.snapshot.parts(&table.plan.source, self.chunk_rows).await?;
        table.progress.begin();
        if parts.len() == 1 {
            let part = parts.remove(0);
            self.load(&table, &part, LoadMode::Whole).await?;
            table.progress.finish();
            return Ok(Done::Table);
        }
        self.target.begin_table(&self.lease, table.source(), &table.plan.shaped).await?;
        Ok(Done::Cut(table, parts))
    }

    async fn part(self, table: Arc<Table>, part: Part) -> Result<Done> {
        let rows = self.load(&table, &part, part.chunk.map_or(LoadMode::Append, LoadMode::Chunk)).await?;
        Ok(Done::Part(table, rows))
    }

    async fn finish(self, table: Arc<Table>, rows: u64) -> Result<Done> {
        self.target.finish_table(&self.lease, table.source(), self.snapshot.position(), rows).await?;
        table.progress.finish();
        Ok(Done::Table)
    }

    async fn load(&self, table: &Arc<Table>, part: &Part, mode: LoadMode) -> Result<u64> {
        let rows = self.snapshot.copy(part, &table.plan.columns, table.format).await?;
        let counters = Arc::clone(&table.progress);
        let steering = Arc::clone(&self.steering);
        let counted = rows.then(move |chunk| {
            let (counters, steering) = (Arc::clone(&counters), Arc::clone(&steering));
            async move {
                let chunk = chunk?;
                steering.pass(chunk.rows).await;
                counters.add(chunk.rows, chunk.bytes.len() as u64);
                Ok(chunk)
            }
        });
        let (source, shaped) = (table.source(), &table.plan.shaped);
        let (position, stream) = (self.snapshot.position(), Box::pin(counted));
        let loaded =
            self.target.load(&self.lease, source, shaped, &table.columns, table.format, mode, position, stream).await?;
        telemetry::record_copied(&self.lease.migration, source, loaded.rows);
        Ok(loaded.rows)
    }
}

/// Decides what is done next. All its state is its own: the steps report back to it.
struct Driver<S, T> {
    worker: Worker<S, T>,
    waiting: VecDeque<Arc<Table>>,
    /// Tables in parts, in the order they were begun.
    open: Vec<Open>,
    running: JoinSet<Result<Done>>,
}

/// A table of which parts are still to be copied or being copied.
struct Open {
    table: Arc<Table>,
    parts: VecDeque<Part>,
    running: usize,
    rows: u64,
}

impl<S: Snapshot, T: Target> Driver<S, T> {
    fn new(worker: Worker<S, T>, waiting: VecDeque<Arc<Table>>) -> Self {
        Driver { worker, waiting, open: Vec::new(), running: JoinSet::new() }
    }

    async fn run(mut self, halt: &CancellationToken) -> Result<()> {
        let mut orders = self.worker.steering.watch();
        let result = loop {
            orders.mark_unchanged();
            let workers = self.worker.steering.copy_workers();
            while self.running.len() < workers && self.start_one(workers) {}
            if self.running.is_empty() && self.waiting.is_empty() && self.open.is_empty() {
                return Ok(());
            }
            let joined = tokio::select! {
                biased;
                () = halt.cancelled() => {
                    let why = "stopped during the copy; the same command goes on with the tables that are missing";
                    break Err(Error::new(Kind::Interrupted, why));
                }
                _ = orders.changed() => continue,
                joined = self.running.join_next(), if !self.running.is_empty() => joined.expect("it is not empty"),
            };
            match joined.unwrap_or_else(|panic| Err(Error::new(Kind::Internal, panic.to_string()))) {
                Ok(done) => self.take_in(done),
                Err(error) => break Err(error),
            }
        };
        // What the others have open is rolled back with their connections; a COMMIT already under way is found by the
        // next try in the state, which it reads only after taking the lease's row locks.
        self.running.shutdown().await;
        result
    }

    /// Starts the next step; `false` if there is none that could be started now.
    fn start_one(&mut self, workers: usize) -> bool {
        // Half of the workers on one table is enough while others wait: a table's extension lock is its bottleneck.
        let share = if self.waiting.is_empty() { workers } else { workers.div_ceil(2) };
        let free = self.open.iter_mut().filter(|open| !open.parts.is_empty() && open.running < share);
        if let Some(open) = free.min_by_key(|open| open.running) {
            let part = open.parts.pop_front().expect("chosen because it has one");
            open.running += 1;
            let table = Arc::clone(&open.table);
            let worker = self.worker.clone();
            self.spawn(Arc::clone(&table), worker.part(table, part));
            return true;
        }
        let Some(table) = self.waiting.pop_front() else { return false };
        let worker = self.worker.clone();
        self.spawn(Arc::clone(&table), worker.begin(table));
        true
    }

    fn spawn(&mut self, table: Arc<Table>, step: impl Future<Output = Result<Done>> + Send + 'static) {
        // Boxed: the steps hold a whole COPY's state, and the JoinSet moves them.
        let step = Box::pin(step);
        self.running.spawn(async move { step.await.with_context(|| format!("copying {}", table.source())) });
    }

    fn take_in(&mut self, done: Done) {
        match done {
            Done::Table => {}
            Done::Cut(table, parts) => {
                let open = Open { table, parts: parts.into(), running: 0, rows: 0 };
                if open.parts.is_empty() {
                    let (worker, table) = (self.worker.clone(), Arc::clone(&open.table));
                    self.spawn(open.table, worker.finish(table, 0));
                } else {
                    self.open.push(open);
                }
            }
            Done::Part(table, rows) => {
                let at = self.open.iter().position(|open| Arc::ptr_eq(&open.table, &table));
                let at = at.expect("a part belongs to an open table");
                let open = &mut self.open[at];
                open.running -= 1;
                open.rows += rows;
                if open.running == 0 && open.parts.is_empty() {
                    let open = self.open.remove(at);
                    let worker = self.worker.clone();
                    self.spawn(open.table, worker.finish(table, open.rows));
                }
            }
        }
    }
}

/// Tells the state once a second how far the tables are.
async fn report(state: State, progress: Arc<Progress>) {
    let mut told = HashMap::new();
    let mut tick = tokio::time::interval(REPORT_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        report_once(&state, &progress, &mut told).await;
    }
}

async fn report_once(state: &State, progress: &Progress, told: &mut HashMap<TableName, (u64, u64)>) {
    for table in progress.tables() {
        let copied = table.copied();
        if table.stage() == TableStage::Waiting || told.get(&table.name) == Some(&copied) {
            continue;
        }
        let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        match state.report_progress(&table.name, count(copied.0), count(copied.1), None).await {
            Ok(()) => drop(told.insert(table.name.clone(), copied)),
            // It is for the eyes only; if the target is in trouble, a copy says so.
            Err(error) => tracing::debug!(%error, "could not report the copy's progress"),
        }
    }
}
