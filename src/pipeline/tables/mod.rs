//! The set of tables in mid-migration: tables that join, leave, or are copied again, while the others are followed.
//!
//! In: requests of `cutwater tables` in the target's state, and tables that the state shows as not copied although the
//! stream runs. Out: the same state, in which those tables are `copied`, exact at a position the stream goes on from.
//!
//! A table is copied as Postgres' own subscriptions do it, without upserts and without stopping the stream ([`side`]):
//!
//! | step | durable as | a run that dies after it |
//! |---|---|---|
//! | the stream leaves the table alone | stage `waiting` | the next run copies it |
//! | publication, table at the target | they are there | found there |
//! | a temporary slot, its exact position P, its exported snapshot | `side`, a checkpoint of its own (worker -1) at P | the slot is gone with it: copied again |
//! | copy under the snapshot; keys, indexes | stage `catching-up`, not yet `copied` | the same |
//! | the slot's own changes are followed, through an applier of its own, until it is near the stream | its checkpoint | the same |
//! | **hand-over**: the stream is stopped at C, between two transactions; the side goes on to S >= C | one transaction: `copied_at` = S, stage `copied`, the side's checkpoint gone | before it: copied again; after it: nothing is missing |
//! | the stream goes on from C, and skips what committed before S for this table | — | the same, from its checkpoint |
//! | foreign keys, triggers, once the stream has passed S | `unfinished` = false | done then |
//!
//! Why it is exact: the table holds every transaction whose commit starts below S and no other, and the stream gives it
//! every one that starts at S or later: the rule by which the first copy fits the stream too. Why nothing gets lost
//! between: a copy that is not handed over never counts as copied, whatever dies when; and the stream, before it starts
//! again, waits for the row that the hand-over holds. All of it is under the lease's epoch (TRAPS 1, 4).
//!
//! What can go wrong: with the table: it is marked as failed, with the reason, and the stream goes on without it; with an
//! end: it is tried again; the lease is lost: the attempt ends.

mod requests;
mod side;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use self::side::Side;
use super::Job;
use super::progress::Progress;
use super::schema::Schema;
use super::snapshot::is_about_a_table;
use super::steering::Steering;
use crate::change::Position;
use crate::error::{Disposition, Error, Kind, Result};
use crate::schema::TableName;
use crate::source::Source;
use crate::target::Target;
use crate::target::state::{Lease, TableStage, TableState};

pub use self::requests::early;

/// How often the state is asked for requests.
const LOOK: Duration = Duration::from_secs(1);
/// First and longest pause before a side copy that broke off is tried again.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// When the work beside the stream ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Never.
    Stopped,
    /// When there is nothing left to do.
    Settled,
}

/// A wish that the stream stand still for a moment.
pub struct Ask {
    stopped: oneshot::Sender<Position>,
    go: oneshot::Receiver<()>,
}

impl Ask {
    /// The stream stands at `checkpoint`: waits until it may go on. What it is made of is to be read again then.
    pub async fn stand(self, checkpoint: Position, halt: &CancellationToken) {
        if self.stopped.send(checkpoint).is_err() {
            return;
        }
        tokio::select! {
            _ = self.go => {}
            () = halt.cancelled() => {}
        }
    }
}

/// The stream, as the work beside it sees it.
#[derive(Clone)]
struct MainStream(mpsc::Sender<Ask>);

impl MainStream {
    /// Stops it between two transactions: its checkpoint, and what lets it go on when it is dropped or told.
    async fn stop(&self) -> Result<(Position, oneshot::Sender<()>)> {
        let (stopped, at) = oneshot::channel();
        let (go, gone) = oneshot::channel();
        let ended = || Error::new(Kind::Interrupted, "the stream has ended");
        self.0.send(Ask { stopped, go: gone }).await.map_err(|_| ended())?;
        Ok((at.await.map_err(|_| ended())?, go))
    }
}

/// The work beside a stream, in a task of its own that ends with this.
pub struct Beside {
    task: JoinHandle<Result<()>>,
}

impl Beside {
    /// Starts it. What it wants of the stream comes through `asks`.
    pub fn start(
        job: &Job,
        lease: &Lease,
        steering: &Arc<Steering>,
        progress: &Arc<Progress>,
        halt: &CancellationToken,
        until: Until,
        asks: mpsc::Sender<Ask>,
    ) -> Beside {
        let worker = Worker {
            job: job.clone(),
            lease: lease.clone(),
            steering: Arc::clone(steering),
            progress: Arc::clone(progress),
            halt: halt.clone(),
            stream: MainStream(asks),
            sides: JoinSet::new(),
            busy: HashSet::new(),
            copying: Arc::default(),
            unfinishable: HashSet::new(),
            tries: 0,
            not_before: tokio::time::Instant::now(),
        };
        Beside { task: tokio::spawn(worker.run(until)) }
    }

    /// Waits for its end: settled, or the reason why the attempt must end.
    pub async fn ended(&mut self) -> Result<()> {
        (&mut self.task).await.unwrap_or_else(|error| Err(Error::new(Kind::Internal, error.to_string())))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Worker {
    job: Job,
    lease: Lease,
    steering: Arc<Steering>,
    progress: Arc<Progress>,
    halt: CancellationToken,
    stream: MainStream,
    /// At most one at a time; its tables are `busy`.
    sides: JoinSet<Result<()>>,
    busy: HashSet<TableName>,
    /// Whether its copy is under way, which heeds requests itself.
    copying: Arc<AtomicBool>,
    /// Tables whose constraints could not be made: not tried again by this run.
    unfinishable: HashSet<TableName>,
    tries: u32,
    not_before: tokio::time::Instant,
}

impl Worker {
    async fn run(mut self, until: Until) -> Result<()> {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let settled = tokio::select! {
                biased;
                Some(ended) = self.sides.join_next() => {
                    let ended = ended.unwrap_or_else(|error| Err(Error::new(Kind::Internal, error.to_string())));
                    self.side_ended(ended).await?;
                    continue;
                }
                _ = tick.tick() => match self.look().await {
                    Ok(settled) => settled,
                    // An end that is away: the stream notices too, and what it cannot wait out ends the attempt.
                    Err(error) if error.kind().disposition() == Disposition::Retry => {
                        tracing::debug!(%error, "could not look after the set of tables");
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            if settled && until == Until::Settled {
                return Ok(());
            }
        }
    }

    /// Looks once for something to do, and begins it. `true`: there is nothing, and nothing is under way.
    async fn look(&mut self) -> Result<bool> {
        if self.take_note().await? {
            return Ok(false);
        }
        let tables = self.job.target.state().tables().await?;
        self.finish(&tables).await?;
        if !self.sides.is_empty() {
            return Ok(false);
        }
        let open = |table: &&TableState| {
            matches!(table.stage, TableStage::Waiting | TableStage::Copying | TableStage::CatchingUp)
        };
        let todo: Vec<TableName> = tables.iter().filter(open).map(|table| table.source.clone()).collect();
        if todo.is_empty() {
            return Ok(!tables.iter().any(|table| self.is_to_finish(table)));
        }
        if tokio::time::Instant::now() >= self.not_before {
            self.begin_side(todo).await?;
        }
        Ok(false)
    }

    async fn begin_side(&mut self, tables: Vec<TableName>) -> Result<()> {
        // What an earlier side copy left is decided first, under the locks it may still hold.
        self.job.target.state().end_side(&self.lease).await?;
        tracing::info!(tables = %list(&tables), "copying beside the stream");
        self.busy = tables.into_iter().collect();
        let side = Side {
            job: self.job.clone(),
            lease: self.lease.clone(),
            steering: Arc::clone(&self.steering),
            progress: Arc::clone(&self.progress),
            halt: self.halt.clone(),
            stream: self.stream.clone(),
            copying: Arc::clone(&self.copying),
        };
        let tables = self.busy.clone();
        self.sides.spawn(Box::pin(async move { side.run(tables).await }));
        Ok(())
    }

    /// A side copy is over: its tables are handed over, to be tried again, or marked as failed.
    async fn side_ended(&mut self, ended: Result<()>) -> Result<()> {
        self.copying.store(false, Ordering::Relaxed);
        let busy = std::mem::take(&mut self.busy);
        let error = match ended {
            Ok(()) => {
                self.tries = 0;
                return Ok(());
            }
            Err(error) if matches!(error.kind(), Kind::Fenced | Kind::Interrupted) => return Err(error),
            Err(error) => error,
        };
        if error.kind().disposition() == Disposition::Retry {
            self.tries += 1;
            let pause = super::backoff(self.tries, AGAIN);
            tracing::warn!(%error, pause_seconds = pause.as_secs_f64(), "the copy beside the stream begins again");
            self.not_before = tokio::time::Instant::now() + pause;
            return Ok(());
        }
        let state = self.job.target.state();
        // Decided under the locks it held: a hand-over whose answer was lost may have happened.
        state.end_side(&self.lease).await?;
        for table in state.tables().await?.iter().filter(|table| busy.contains(&table.source)) {
            if matches!(table.stage, TableStage::Waiting | TableStage::Copying) {
                tracing::error!("{} is left out for now, the other tables go on: {error}", table.source);
                state.set_failed(&self.lease, &table.source, &error).await?;
            }
        }
        Ok(())
    }

    /// Ends the side copy under way, if it is of one of these tables.
    async fn leave_side(&mut self) -> Result<()> {
        self.sides.shutdown().await;
        self.busy.clear();
        self.copying.store(false, Ordering::Relaxed);
        self.job.target.state().end_side(&self.lease).await
    }

    /// Lets the stream read the set of its tables again.
    async fn replan(&self) -> Result<()> {
        let (_, go) = self.stream.stop().await?;
        drop(go);
        Ok(())
    }

    fn is_to_finish(&self, table: &TableState) -> bool {
        table.unfinished && table.stage == TableStage::Copied && !self.unfinishable.contains(&table.source)
    }

    /// Makes the foreign keys and triggers of tables that were handed over, once the stream has passed the place where.
    async fn finish(&mut self, tables: &[TableState]) -> Result<()> {
        let late: Vec<&TableState> = tables.iter().filter(|table| self.is_to_finish(table)).collect();
        let Some(newest) = late.iter().filter_map(|table| table.copied_at.clone()).reduce(|a, b| a.join(&b)) else {
            return Ok(());
        };
        let state = self.job.target.state();
        let passed = state.checkpoint().await?.is_some_and(|checkpoint| checkpoint.position.reaches(&newest));
        let Some(plan) = self.job.recorded_plan().await?.filter(|_| passed) else { return Ok(()) };
        // Between the commits of several workers a child may be there before its parent: the stream stands meanwhile.
        let several = state.workers().await?.len() > 1;
        let standing = if several { Some(self.stream.stop().await?) } else { None };
        let at = state.workers().await?;
        if at.iter().any(|worker| *worker > at[0]) {
            return Ok(());
        }
        let names: HashSet<TableName> = late.iter().map(|table| table.source.clone()).collect();
        let absent = absent(tables);
        let work = Schema::of(&self.job, &plan, &self.progress);
        let made = work.finish_some(&names, &absent, &self.halt).await;
        drop(standing);
        match made {
            Ok(()) => {
                for name in &names {
                    state.set_finished(&self.lease, name).await?;
                }
                work.fill_views(&self.halt).await?;
                tracing::info!(tables = %list(names.iter()), "the tables have everything they have at the source");
            }
            Err(error) if is_about_a_table(&error) => {
                tracing::error!("foreign keys or triggers are missing at the target: {error}");
                for name in names {
                    state.set_error(&self.lease, &name, &error).await?;
                    self.unfinishable.insert(name);
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// The tables whose rows are not all at the target, now.
pub fn absent(tables: &[TableState]) -> HashSet<TableName> {
    tables.iter().filter(|table| table.stage != TableStage::Copied).map(|table| table.source.clone()).collect()
}

fn list<'a>(tables: impl IntoIterator<Item = &'a TableName>) -> String {
    tables.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Publishes exactly the tables that are carried; one that failed is not, or what is wrong with it would be in the way of
/// the others.
async fn publish(job: &Job) -> Result<()> {
    let Some(plan) = job.recorded_plan().await? else { return Ok(()) };
    let states = job.target.state().tables().await?;
    let failed = |name: &TableName| states.iter().any(|t| t.source == *name && t.stage == TableStage::Failed);
    let tables: Vec<_> = plan.only(|name| !failed(name)).tables().map(|table| Arc::clone(&table.source)).collect();
    job.source.prepare(&tables).await
}
