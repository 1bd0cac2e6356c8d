//! Copying the existing rows: many parts at once, every table at one position.
//!
//! In: a [`Snapshot`], the plan and the state's list of what earlier tries finished. Out: every table of the plan in
//! stage `copied` at the snapshot's position, its rows exactly those of that position. Between two servers of one engine
//! rows go from one to the other as the bytes they are; here they are only counted and, on request, slowed down (law 7).
//! Between others they pass through the plan's conversion.
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

mod driver;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use self::driver::Driver;
use super::chunks;
use super::progress::{Progress, TableProgress};
use super::steering::Steering;
use crate::error::{Error, Kind, Result};
use crate::schema::{Column, Patterns, TableName, TableSchema};
use crate::source::{CopyChunk, CopyFormat, Part, Snapshot, Source};
use crate::target::state::State;
use crate::target::state::{Lease, TableStage, TableState};
use crate::target::{LoadMode, Target};
use crate::telemetry;
use crate::transform::{Plan, TablePlan};

/// How often the state is told how far the tables are.
const REPORT_EVERY: Duration = Duration::from_secs(1);

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
    let (tables, unfit) = tables_to_copy(target, snapshot.copy_formats(), plan, progress).await?;
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
            Some(other)
                if (other.ty.oid, other.ty.modifier) != (column.ty.oid, column.ty.modifier)
                    || (other.ty.oid == 0 && other.ty.display != column.ty.display) =>
            {
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
    given: &[CopyFormat],
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
    for (planned, there) in waiting.into_iter().zip(there) {
        let name = &planned.source.name;
        let format = format_for(planned, there.as_deref(), (given, target.copy_formats()));
        let fitted = match &there {
            Some(there) if format.is_ok() => plan.fitted(planned, there),
            _ => Ok(Arc::clone(planned)),
        };
        let counters = progress.table(name);
        let missing = || Error::new(Kind::Internal, format!("{name} is not in the state's list of tables"));
        let table = |plan: Arc<TablePlan>, format| {
            Ok::<_, Error>(Arc::new(Table {
                columns: plan.shaped.columns.iter().map(|column| column.name.clone()).collect(),
                format,
                progress: counters.ok_or_else(missing)?,
                plan,
            }))
        };
        match format.and_then(|format| Ok((format, fitted?))) {
            Ok((format, plan)) => tables.push(table(plan, format)?),
            Err(error) => unfit.push((table(Arc::clone(planned), CopyFormat::Rows)?, error)),
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

/// The form that the source can give and the target can take: binary where every value means the same on both servers,
/// else text; rows where the engines differ. Refuses a target that lacks a column.
fn format_for(
    plan: &TablePlan,
    there: Option<&TableSchema>,
    (given, taken): (&[CopyFormat], &[CopyFormat]),
) -> Result<CopyFormat> {
    let there = there.ok_or_else(|| {
        Error::new(Kind::Schema, format!("{} does not exist at the target", plan.shaped.name))
            .fix("cutwater schema --apply")
    })?;
    let mut alike = true;
    for column in &plan.shaped.columns {
        let Some(other) = there.column(&column.name) else {
            let why = format!("{} at the target has no column {:?}", plan.shaped.name, column.name);
            return Err(Error::new(Kind::Schema, why)
                .fix("add the column at the target, or leave it out by columns = [\"!…\"] in a [[transform]]"));
        };
        let same = (&column.ty.schema, &column.ty.name) == (&other.ty.schema, &other.ty.name);
        alike &= same && column.ty.portable_binary && other.ty.portable_binary;
    }
    let forms = [CopyFormat::PgBinary, CopyFormat::PgText, CopyFormat::Rows];
    let fits = |form: &CopyFormat| given.contains(form) && taken.contains(form);
    let none = || Error::new(Kind::Internal, "the source gives its rows in no form that the target takes");
    forms.into_iter().filter(|form| alike || *form != CopyFormat::PgBinary).find(fits).ok_or_else(none)
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
        let converting = Arc::clone(&table.plan);
        let rows = rows.map(move |chunk| {
            let chunk = chunk?;
            Ok::<_, Error>(CopyChunk { bytes: converting.convert_rows(chunk.bytes)?, rows: chunk.rows })
        });
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
