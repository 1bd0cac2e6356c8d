//! One side copy: some tables, copied and brought up to the stream beside it. The order of the steps and why it is exact
//! stands in [`super`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::MainStream;
use crate::change::{Budget, ChangeEvent, Position};
use crate::error::{Context, Error, Kind, Result};
use crate::pipeline::batcher::Batcher;
use crate::pipeline::progress::Progress;
use crate::pipeline::schema::Schema;
use crate::pipeline::shapes::{self, Shapes};
use crate::pipeline::steering::Steering;
use crate::pipeline::stream::{Router, learn};
use crate::pipeline::{Job, membership, snapshot};
use crate::schema::{TableName, TableSchema};
use crate::source::{ChangeStream, Snapshot, Source, StreamItem};
use crate::target::state::Lease;
use crate::target::{Applier, SIDE, Target};

/// The stream is asked to stop once the side has needed less than this for what the stream was ahead.
const NEAR: Duration = Duration::from_millis(1500);
/// The stream stands still for at most about this long; then it goes on, and the hand-over is tried again later.
const STAND: Duration = Duration::from_secs(5);
/// A batch waits this long for more.
const LINGER: Duration = Duration::from_millis(20);
/// Changes in flight may hold this many batches' bytes.
const BATCHES_IN_FLIGHT: u64 = 2;

pub(super) struct Side {
    pub job: Job,
    pub lease: Lease,
    pub steering: Arc<Steering>,
    pub progress: Arc<Progress>,
    pub halt: CancellationToken,
    pub stream: MainStream,
    pub copying: Arc<AtomicBool>,
}

impl Side {
    /// Copies these tables and hands them over. An error leaves them as they were: to be copied again.
    pub(super) async fn run(self, tables: HashSet<TableName>) -> Result<()> {
        let Side { job, lease, halt, .. } = &self;
        let state = job.target.state();
        let whole = job.recorded_plan().await?.ok_or_else(|| Error::new(Kind::Fenced, "the migration is gone"))?;
        let mut plan = whole.only(|name| tables.contains(name));
        super::publish(job).await?;
        let sources: Vec<Arc<TableSchema>> = plan.tables().map(|table| Arc::clone(&table.source)).collect();
        membership::record(job, lease, &sources).await?;
        let known = state.shapes().await?;
        for table in plan.tables().map(|table| &table.source) {
            if known.get(&table.name).is_some_and(|shape| shape.id != table.id) {
                state.forget_shape(lease, &table.name).await?;
            }
        }
        shapes::settle(job, lease, &plan).await?;
        let work = Schema::of(job, &whole, &self.progress);
        work.create_some(&tables, halt).await?;

        let copy = Arc::new(unless(halt, job.source.temporary_snapshot()).await?);
        snapshot::check_unchanged(&job.source, &plan)
            .await
            .map_err(|error| Error::new(Kind::Transient, error.message()))?;
        let names: Vec<TableName> = plan.tables().map(|table| table.source.name.clone()).collect();
        state.begin_side(lease, &names, copy.position()).await?;
        let states = state.tables().await?;
        self.progress.again(&states.into_iter().filter(|table| names.contains(&table.source)).collect::<Vec<_>>());
        self.copying.store(true, Ordering::Relaxed);
        let copied = snapshot::copy(&job.target, &copy, &plan, lease, &self.steering, &self.progress, halt).await;
        self.copying.store(false, Ordering::Relaxed);
        let copied = copied?;
        plan = plan.only(|name| !copied.is_without(name));
        if plan.is_empty() {
            return state.end_side(lease).await;
        }
        let names: HashSet<TableName> = plan.tables().map(|table| table.source.name.clone()).collect();
        work.index_some(&names, halt).await?;

        // Until it has passed this place the side may hear of rows that a TRUNCATE hid from the copy (TRAPS 7).
        let copied_until = job.source.head().await?.position;
        let sources: Vec<Arc<TableSchema>> = plan.tables().map(|table| Arc::clone(&table.source)).collect();
        let apply = self.steering.now().apply;
        let budget = Budget::new(apply.batch_bytes.0.saturating_mul(BATCHES_IN_FLIGHT));
        let targets: Vec<TableName> = plan.tables().map(|table| table.shaped.name.clone()).collect();
        let there = job.target.tables(&targets).await?;
        let binary = job.source.may_be_binary(snapshot::all_binary(&plan, &there));
        let rules = (&job.config.transform[..], job.ddl());
        let shapes = Shapes::new(&job.source, rules, binary, &plan, state.shapes().await?, there);
        let stream = copy.follow(&sources, &budget, binary).await?;
        let copied_at = sources.iter().map(|table| (table.id, copy.position().clone())).collect();
        let mut following = Following {
            stream,
            applier: job.target.worker(lease, &apply, SIDE).await?,
            router: Router::new(copied_at, HashMap::new()),
            shapes,
            batcher: Batcher::new(apply.batch_rows, usize::try_from(apply.batch_bytes.0).unwrap_or(usize::MAX)),
            idle: None,
            copied_until: copied_until.clone(),
        };
        let go = self.meet(&mut following, &copied_until).await?;
        let Following { stream, applier, .. } = following;
        let at = applier.checkpoint().get().clone();
        drop(applier);
        let names: Vec<TableName> = names.into_iter().collect();
        state.hand_over(lease, &names, &at).await?;
        drop(go);
        tracing::info!(tables = %super::list(&names), %at, "handed over to the stream");
        for table in names.iter().filter_map(|name| self.progress.table(name)) {
            table.finish();
        }
        // Its slot goes with it.
        drop(stream);
        Ok(())
    }

    /// Follows until it is near the stream, stops the stream, and goes on to where that stands, or a little further. The
    /// stream stands still until what is returned is dropped.
    async fn meet<S: ChangeStream, A: Applier>(
        &self,
        following: &mut Following<S, A>,
        copied_until: &Position,
    ) -> Result<tokio::sync::oneshot::Sender<()>> {
        let state = self.job.target.state();
        loop {
            while self.steering.apply_paused() {
                let pause = async {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    Ok(())
                };
                unless(&self.halt, pause).await?;
            }
            let missing = || Error::new(Kind::Fenced, "the migration's checkpoint is gone");
            let ahead = state.checkpoint().await?.ok_or_else(missing)?.position;
            let goal = ahead.join(copied_until);
            let begun = Instant::now();
            unless(&self.halt, following.until(&goal, None)).await?;
            if begun.elapsed() > NEAR {
                continue;
            }
            let (at, go) = self.stream.stop().await?;
            if following.until(&at, Some(Instant::now() + STAND)).await? {
                return Ok(go);
            }
            tracing::info!(stream = %at, "the tables beside the stream are not near enough yet: it goes on");
        }
    }
}

/// The changes of the tables beside the stream, on their way to the target.
struct Following<S, A> {
    stream: S,
    applier: A,
    router: Router,
    shapes: Shapes,
    batcher: Batcher,
    /// The newest position up to which the source has nothing for us.
    idle: Option<Position>,
    copied_until: Position,
}

impl<S: ChangeStream, A: Applier> Following<S, A> {
    /// Applies until everything up to `goal` is durable; `false`: the time was over before.
    async fn until(&mut self, goal: &Position, deadline: Option<Instant>) -> Result<bool> {
        loop {
            if self.applier.checkpoint().get() >= goal {
                return Ok(true);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
            if self.batcher.is_idle()
                && let Some(idle) = self.idle.take()
                && idle > *self.applier.checkpoint().get()
            {
                let durable = self.applier.advance(&idle).await?;
                self.stream.confirm(&durable);
                continue;
            }
            let linger = self.batcher.has_complete().then(|| Instant::now() + LINGER);
            let wake = linger.into_iter().chain(deadline).min();
            let item = match wake {
                Some(at) => tokio::time::timeout_at(at, self.stream.next()).await.ok(),
                None => Some(self.stream.next().await),
            };
            match item.transpose()? {
                Some(StreamItem::Idle(position)) => self.idle = Some(position),
                Some(StreamItem::Events(chunk)) => {
                    self.idle = None;
                    for event in chunk.events {
                        // A fence's marker is the stream's to find.
                        if matches!(event, ChangeEvent::Message(_)) {
                            continue;
                        }
                        learn(&mut self.router, &mut self.shapes, &event, &mut self.batcher).await?;
                        if let Some(event) = self.router.route(event)? {
                            self.batcher.push(event);
                        }
                    }
                    self.batcher.hold(chunk.share);
                    if !self.batcher.is_full() {
                        continue;
                    }
                }
                None => {}
            }
            self.apply().await?;
        }
    }

    async fn apply(&mut self) -> Result<()> {
        while let Some((mut batch, shares)) = self.batcher.take() {
            batch.tolerate_missing = *self.applier.checkpoint().get() < self.copied_until;
            let applied = self.applier.apply(batch).await.context("applying changes of tables beside the stream")?;
            drop(shares);
            if let Some(durable) = &applied.durable {
                self.stream.confirm(durable);
            }
            if !self.batcher.is_full() {
                break;
            }
        }
        Ok(())
    }
}

/// What is waited for need not be waited for by whoever asks for an end.
async fn unless<T>(halt: &CancellationToken, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        done = work => done,
        () = halt.cancelled() => Err(Error::new(Kind::Interrupted, "asked to stop")),
    }
}
