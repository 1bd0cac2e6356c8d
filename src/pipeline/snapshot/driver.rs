//! What is copied next, and what becomes of a table that fails or is no longer wanted.
//!
//! In: the tables, largest first, and the steps' reports. Out: steps of the [`Worker`], as many at a time as are allowed,
//! and in the end what became of all. A step that fails gives up its table; an error that is not about the table, and a
//! request to stop, end everything.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{self, AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Copied, Done, Table, Worker, is_about_a_table, note_failure};
use crate::error::{Context, Error, Kind, Result};
use crate::source::{Part, Snapshot};
use crate::target::Target;
use crate::target::state::{TableAction, TableRequest};

/// How often it is asked whether a table is to be left out.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Decides what is done next. All its state is its own: the steps report back to it.
pub(super) struct Driver<S, T> {
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
    pub(super) fn new(worker: Worker<S, T>, waiting: VecDeque<Arc<Table>>) -> Self {
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

    pub(super) async fn run(mut self, halt: &CancellationToken) -> Result<Copied> {
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
