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
//! What can go wrong: with one table (its target refuses a row or lacks a column, a privilege is missing): it is marked
//! `failed` with the reason, and the others go on without it; with an end or the lease: that ends all workers, and what
//! they had open is rolled back. A table that is skipped or removed on request while it is copied is left at once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::task::{self, AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::chunks;
use super::progress::{Progress, TableProgress};
use super::steering::Steering;
use crate::error::{Context, Error, Kind, Result};
use crate::schema::{Column, Patterns, TableName, TableSchema};
use crate::source::{CopyFormat, Part, Snapshot, Source};
use crate::target::postgres::State;
use crate::target::state::{Lease, TableAction, TableRequest, TableStage, TableState};
use crate::target::{LoadMode, Target};
use crate::telemetry;
use crate::transform::{Plan, TablePlan};

/// How often the state is told how far the tables are.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How often it is asked whether a table is to be left out.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// What a copy came to, beside the tables that are copied.
#[derive(Debug, Default)]
pub struct Copied {
    /// Tables that could not be copied. The state has them as failed.
    pub failed: Vec<(TableName, Error)>,
    /// Tables that were skipped or removed on request while they were to be copied.
    pub left: Vec<TableName>,
}

impl Copied {
    /// Whether this table is not among what was copied.
    pub fn is_without(&self, table: &TableName) -> bool {
        self.left.contains(table) || self.failed.iter().any(|(name, _)| name == table)
    }
}

/// Whether an error is about the one table that was copied, so that the others can go on.
pub fn is_about_a_table(error: &Error) -> bool {
    match error.kind() {
        Kind::Schema | Kind::BadRow | Kind::Privilege | Kind::NotEmpty | Kind::Divergence | Kind::Internal => true,
        Kind::Connection | Kind::Transient | Kind::SlotInUse | Kind::SlotLost | Kind::Authentication => false,
        Kind::Config | Kind::ServerSetting | Kind::Fenced | Kind::Protocol | Kind::Refused => false,
        Kind::Undone | Kind::Interrupted | Kind::Io => false,
    }
}

/// Copies every table of the plan that the state shows neither as copied nor as failed. `halt` ends it with
/// [`Kind::Interrupted`].
pub async fn copy<S: Snapshot, T: Target>(
    target: &T,
    snapshot: &Arc<S>,
    plan: &Plan,
    lease: &Lease,
    steering: &Arc<Steering>,
    progress: &Arc<Progress>,
    halt: &CancellationToken,
) -> Result<Copied> {
    let (tables, unfit) = tables_to_copy(target, plan, progress).await?;
    for (table, error) in &unfit {
        note_failure(target.state(), lease, table, error).await?;
    }
    let worker = Worker {
        target: target.clone(),
        snapshot: Arc::clone(snapshot),
        lease: Arc::new(lease.clone()),
        chunk_rows: steering.now().snapshot.chunk_rows.max(1),
        steering: Arc::clone(steering),
    };
    let reporter = tokio::spawn(report(target.state().clone(), Arc::clone(progress), Arc::clone(snapshot)));
    let copied = Driver::new(worker, tables).run(halt).await;
    reporter.abort();
    // The last second's counts, so that a finished table shows its rows.
    report_once(target.state(), progress, snapshot.as_ref(), &mut HashMap::new()).await;
    let mut copied = copied?;
    copied.failed.extend(unfit.into_iter().map(|(table, error)| (table.source().clone(), error)));
    Ok(copied)
}

async fn note_failure(state: &State, lease: &Lease, table: &Table, error: &Error) -> Result<()> {
    let name = table.source();
    tracing::error!("{name} is left out for now, the other tables go on: {error}");
    state.set_failed(lease, name, error).await?;
    table.progress.fail();
    Ok(())
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

/// Tables that do not fit their target, and why.
type Unfit = Vec<(Arc<Table>, Error)>;

/// Largest first, so that the longest copy does not begin last; and those that do not fit.
async fn tables_to_copy<T: Target>(
    target: &T,
    plan: &Plan,
    progress: &Progress,
) -> Result<(VecDeque<Arc<Table>>, Unfit)> {
    let states = target.state().tables().await?;
    let open = |state: &&TableState| matches!(state.stage, TableStage::Waiting | TableStage::Copying);
    let wanted: Vec<&TableName> = states.iter().filter(open).map(|state| &state.source).collect();
    let waiting: Vec<&Arc<TablePlan>> = plan.tables().filter(|table| wanted.contains(&&table.source.name)).collect();
    let names: Vec<TableName> = waiting.iter().map(|table| table.shaped.name.clone()).collect();
    let there = target.tables(&names).await?;
    let (mut tables, mut unfit) = (Vec::with_capacity(waiting.len()), Vec::new());
    for (plan, there) in waiting.into_iter().zip(there) {
        let name = &plan.source.name;
        let format = format_for(plan, there.as_deref());
        let counters = progress.table(name);
        let missing = || Error::new(Kind::Internal, format!("{name} is not in the state's list of tables"));
        let table = |format| {
            Ok::<_, Error>(Arc::new(Table {
                columns: plan.shaped.columns.iter().map(|column| column.name.clone()).collect(),
                format,
                progress: counters.ok_or_else(missing)?,
                plan: Arc::clone(plan),
            }))
        };
        match format {
            Ok(format) => tables.push(table(format)?),
            Err(error) => unfit.push((table(CopyFormat::PgText)?, error)),
        }
    }
    tables.sort_by_key(|table| std::cmp::Reverse((table.plan.source.bytes, table.plan.source.estimated_rows)));
    Ok((tables.into(), unfit))
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
    /// Whether any table was.
    begun: bool,
    /// Tables in parts, in the order they were begun.
    open: Vec<Open>,
    running: JoinSet<Result<Done>>,
    /// What each running step is of.
    steps: HashMap<task::Id, (Arc<Table>, AbortHandle)>,
    /// Tables that are given up once their last step has ended, and why.
    giving_up: Vec<(Arc<Table>, GivenUp)>,
    copied: Copied,
}

/// Why a table is no longer copied.
enum GivenUp {
    Failed(Error),
    Asked(TableRequest),
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
        Driver {
            worker,
            waiting,
            begun: false,
            open: Vec::new(),
            running: JoinSet::new(),
            steps: HashMap::new(),
            giving_up: Vec::new(),
            copied: Copied::default(),
        }
    }

    async fn run(mut self, halt: &CancellationToken) -> Result<Copied> {
        let mut orders = self.worker.steering.watch();
        let mut asked = tokio::time::interval(ASK_EVERY);
        asked.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let result = loop {
            orders.mark_unchanged();
            let workers = self.worker.steering.copy_workers();
            while self.running.len() < workers && self.start_one(workers) {}
            if self.running.is_empty() && self.open.is_empty() && (self.waiting.is_empty() || self.steps_back()) {
                if !self.waiting.is_empty() {
                    let tables = self.waiting.len();
                    tracing::warn!(
                        tables,
                        "the copy steps back: these are copied beside the stream, which frees the source's log"
                    );
                }
                return Ok(self.copied);
            }
            let joined = tokio::select! {
                biased;
                () = halt.cancelled() => {
                    let why = "stopped during the copy; the same command goes on with the tables that are missing";
                    break Err(Error::new(Kind::Interrupted, why));
                }
                _ = asked.tick() => {
                    if let Err(error) = self.heed_requests().await {
                        break Err(error);
                    }
                    continue;
                }
                _ = orders.changed() => continue,
                joined = self.running.join_next_with_id(), if !self.running.is_empty() => joined.expect("it is not empty"),
            };
            if let Err(error) = self.ended(joined).await {
                break Err(error);
            }
        };
        // What the others have open is rolled back with their connections; a COMMIT already under way is found by the
        // next try in the state, which it reads only after taking the lease's row locks.
        self.running.shutdown().await;
        result.map(|()| self.copied)
    }

    /// A step has ended: its table goes on, or is given up. An error that is not about the table ends everything.
    async fn ended(&mut self, joined: Result<(task::Id, Result<Done>), task::JoinError>) -> Result<()> {
        let (id, result) = match joined {
            Ok((id, result)) => (id, Some(result)),
            Err(error) if error.is_cancelled() => (error.id(), None),
            Err(panic) => return Err(Error::new(Kind::Internal, panic.to_string())),
        };
        let (table, _) = self.steps.remove(&id).expect("every step is entered when it is spawned");
        match result {
            Some(Ok(done)) if !self.gives_up(&table) => self.take_in(done),
            Some(Err(error)) if !is_about_a_table(&error) => return Err(error),
            Some(Err(error)) => self.give_up(&table, GivenUp::Failed(error)),
            Some(Ok(_)) | None => {}
        }
        self.bury(&table).await
    }

    fn gives_up(&self, table: &Arc<Table>) -> bool {
        self.giving_up.iter().any(|(other, _)| Arc::ptr_eq(other, table))
    }

    /// Starts nothing more for a table, and ends what runs.
    fn give_up(&mut self, table: &Arc<Table>, why: GivenUp) {
        if self.gives_up(table) {
            return;
        }
        self.waiting.retain(|other| !Arc::ptr_eq(other, table));
        self.open.retain(|open| !Arc::ptr_eq(&open.table, table));
        self.steps.values().filter(|(other, _)| Arc::ptr_eq(other, table)).for_each(|(_, step)| step.abort());
        self.giving_up.push((Arc::clone(table), why));
    }

    /// Records what became of a table that is given up, once none of its steps runs: each of them has the state's row.
    async fn bury(&mut self, table: &Arc<Table>) -> Result<()> {
        if self.steps.values().any(|(other, _)| Arc::ptr_eq(other, table)) {
            return Ok(());
        }
        let Some(at) = self.giving_up.iter().position(|(other, _)| Arc::ptr_eq(other, table)) else { return Ok(()) };
        let (_, why) = self.giving_up.swap_remove(at);
        let (state, lease) = (self.worker.target.state(), &*self.worker.lease);
        match why {
            GivenUp::Failed(error) => {
                note_failure(state, lease, table, &error).await?;
                self.copied.failed.push((table.source().clone(), error));
            }
            GivenUp::Asked(request) => {
                state.settle_requests(lease, std::slice::from_ref(&request), &[]).await?;
                tracing::info!("{}: no longer copied, as asked by tables {}", request.source, request.action.as_str());
                table.progress.fail();
                self.copied.left.push(request.source);
            }
        }
        Ok(())
    }

    /// Leaves tables that are to be skipped or removed. Whatever else is wanted waits for the end of the copy.
    async fn heed_requests(&mut self) -> Result<()> {
        // Unreadable now is readable in a second; if the target is gone, a copy says so.
        let requests = self.worker.target.state().requests().await.unwrap_or_default();
        for request in requests {
            if !matches!(request.action, TableAction::Skip | TableAction::Remove) {
                continue;
            }
            let tables = self.waiting.iter().chain(self.steps.values().map(|(table, _)| table));
            let tables = tables.chain(self.open.iter().map(|open| &open.table));
            let wanted = tables.into_iter().find(|table| *table.source() == request.source);
            let Some(table) = wanted.cloned() else { continue };
            self.give_up(&table, GivenUp::Asked(request));
            self.bury(&table).await?;
        }
        Ok(())
    }

    /// Whether no further table is to be begun (`on_limit = "pause-snapshot"`). One at least is: a stream of nothing would
    /// free the log and bring nobody further.
    fn steps_back(&self) -> bool {
        self.begun && self.worker.steering.stepped_back()
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
        if self.steps_back() {
            return false;
        }
        let Some(table) = self.waiting.pop_front() else { return false };
        self.begun = true;
        let worker = self.worker.clone();
        self.spawn(Arc::clone(&table), worker.begin(table));
        true
    }

    fn spawn(&mut self, table: Arc<Table>, step: impl Future<Output = Result<Done>> + Send + 'static) {
        // Boxed: the steps hold a whole COPY's state, and the JoinSet moves them.
        let step = Box::pin(step);
        let name = table.source().clone();
        let handle = self.running.spawn(async move { step.await.with_context(|| format!("copying {name}")) });
        self.steps.insert(handle.id(), (table, handle));
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
async fn report<S: Snapshot>(state: State, progress: Arc<Progress>, snapshot: Arc<S>) {
    let mut told = HashMap::new();
    let mut tick = tokio::time::interval(REPORT_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        report_once(&state, &progress, snapshot.as_ref(), &mut told).await;
    }
}

/// What was last told of a table: rows, bytes, what it waits for.
type Told = (u64, u64, Option<String>);

async fn report_once<S: Snapshot>(
    state: &State,
    progress: &Progress,
    snapshot: &S,
    told: &mut HashMap<TableName, Told>,
) {
    for table in progress.tables() {
        let (rows, bytes) = table.copied();
        let news = (rows, bytes, snapshot.waits_for(&table.name));
        if table.stage() == TableStage::Waiting || told.get(&table.name) == Some(&news) {
            continue;
        }
        let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        match state.report_progress(&table.name, count(rows), count(bytes), news.2.as_deref()).await {
            Ok(()) => drop(told.insert(table.name.clone(), news)),
            // It is for the eyes only; if the target is in trouble, a copy says so.
            Err(error) => tracing::debug!(%error, "could not report the copy's progress"),
        }
    }
}
