//! What a run knows about itself: lag, rates, trouble, once a second.
//!
//! In: samples of the source's head, durable positions, applied batches, errors. Out: the heartbeat row that `status`
//! reads, the metrics, and one message back: that a cutover has made the target live. The monitor outlives the tries of
//! the supervisor, so that lag goes on growing while an end is away (law 10).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use super::retained::{Retained, Verdict};
use super::steering::Steering;
use super::{Job, Outcome};
use crate::change::{Durable, Position};
use crate::error::{Error, Kind, Result};
use crate::source::{Head, Source};
use crate::target::state::State;
use crate::target::state::{Health, Lease, Phase, RunReport, Trouble};
use crate::target::{Applied, Target};
use crate::telemetry::{self, LagMeter, Trend};

/// How often the head is sampled and the heartbeat written.
const BEAT: Duration = Duration::from_secs(1);
/// A head or heartbeat that takes longer than this counts as unreachable for this beat.
const PATIENCE: Duration = Duration::from_secs(5);
/// A lag, in seconds, whose end is told before the next beat.
const LATE: f64 = 1.0;
/// Rates are over this many beats.
const RATE_BEATS: usize = 10;

/// Shared by the tries, the stream loop and the monitor.
#[derive(Debug)]
pub struct Vitals {
    migration: String,
    holder: String,
    started_at: Timestamp,
    changes: AtomicU64,
    transactions: AtomicU64,
    worked: AtomicBool,
    cut_over: AtomicBool,
    /// Told when both ends answer again after one of them did not.
    recovered: Notify,
    steering: Arc<Steering>,
    /// Cancelled when the slot is given up.
    abandon: CancellationToken,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    meter: LagMeter,
    head: Option<Head>,
    phase: Option<Phase>,
    trouble: Option<Trouble>,
    attached: bool,
    /// (when, changes, transactions) of the last beats.
    counts: VecDeque<(Instant, u64, u64)>,
    retained: Retained,
    lag_trend: Trend,
    /// The lag that was told last was [`LATE`].
    told_late: bool,
    source_away_since: Option<Timestamp>,
    given_up: Option<Error>,
}

impl Vitals {
    /// Of a run that starts now.
    pub fn new(job: &Job) -> Self {
        let host = host_name();
        Vitals {
            migration: job.config.migration.name.clone(),
            holder: format!("{host} pid {}", std::process::id()),
            started_at: Timestamp::now(),
            changes: AtomicU64::new(0),
            transactions: AtomicU64::new(0),
            worked: AtomicBool::new(false),
            cut_over: AtomicBool::new(false),
            recovered: Notify::new(),
            steering: Arc::new(Steering::new(&job.config)),
            abandon: CancellationToken::new(),
            inner: Mutex::new(Inner { retained: Retained::new(&job.config.source), ..Inner::default() }),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic while holding it leaves figures, not invariants: they are as good as before.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The migration's name.
    pub fn migration(&self) -> &str {
        &self.migration
    }

    /// `host pid 4121`: who holds the lease.
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// What the run is asked to do.
    pub fn steering(&self) -> &Arc<Steering> {
        &self.steering
    }

    /// Takes up what is asked of the run, and says so in the state.
    async fn obey(&self, state: &State) -> Result<()> {
        let control = state.control().await?;
        self.steering.take_up(&control);
        if control.acknowledged < control.version {
            state.acknowledge(control.version, &self.holder).await?;
        }
        Ok(())
    }

    /// A try has the lease: heartbeats are ours to write. The first try takes up what the last run knew of the lag, so
    /// that it is true from the first second on.
    pub async fn attach(&self, state: &State) -> Result<()> {
        let first = !self.worked.swap(true, Ordering::Relaxed);
        let earlier = if first { state.run().await?.and_then(|(report, _)| report.caught_up_at) } else { None };
        let checkpoint = state.checkpoint().await?;
        // Before any work: a pause outlives the process that was paused.
        self.obey(state).await?;
        let mut inner = self.inner();
        if earlier.is_some() {
            inner.meter = LagMeter::new(earlier);
        }
        if let Some(checkpoint) = checkpoint {
            inner.meter.durable(&checkpoint.position, checkpoint.commit_time);
        }
        inner.attached = true;
        Ok(())
    }

    /// Waits until both ends answer again after one of them did not.
    pub async fn recovered(&self) {
        self.recovered.notified().await;
    }

    /// The try is over.
    pub fn detach(&self) {
        self.inner().attached = false;
    }

    /// Both ends answer and the stream runs: whatever was in the way is gone.
    pub fn working(&self) {
        self.inner().trouble = None;
    }

    /// Whether any try has come as far as the lease.
    pub fn has_worked(&self) -> bool {
        self.worked.load(Ordering::Relaxed)
    }

    /// Whether the target has become live.
    pub fn cut_over(&self) -> bool {
        self.cut_over.load(Ordering::Relaxed)
    }

    /// Notes an error that will be waited out; returns the pause before the next try.
    pub fn stumbled(&self, error: &Error, limits: (Duration, Duration)) -> Duration {
        let mut inner = self.inner();
        let now = Timestamp::now();
        let tries = inner.trouble.as_ref().map_or(0, |trouble| trouble.tries);
        let first_at = inner.trouble.as_ref().map_or(now, |trouble| trouble.first_at);
        let pause = super::backoff(tries, limits);
        inner.trouble = Some(Trouble {
            error: error.to_string(),
            kind: error.kind().label().to_owned(),
            first_at,
            tries: tries + 1,
            next_try_at: now.checked_add(pause).ok(),
        });
        pause
    }

    /// Records the phase in the state, and for screens and metrics.
    pub async fn set_phase(&self, state: &State, lease: &Lease, progress: &Progress, phase: Phase) -> Result<()> {
        state.set_phase(lease, phase).await?;
        tracing::info!(%phase, "phase");
        progress.set_phase(phase);
        self.inner().phase = Some(phase);
        if phase != Phase::Snapshot {
            self.steering.step_back(false);
        }
        telemetry::record_phase(&self.migration, phase);
        Ok(())
    }

    /// The checkpoint is here; the newest transaction in it committed at `commit_time`.
    pub fn durable(&self, durable: &Durable<Position>, commit_time: Option<Timestamp>) {
        let mut inner = self.inner();
        inner.meter.durable(durable.get(), commit_time);
        if !inner.told_late {
            return;
        }
        // Who watches the end of an outage hears of it at once, and not with the next beat.
        let reading = inner.meter.reading(Instant::now());
        if let (Some(seconds), Some(bytes)) = (reading.seconds, reading.bytes)
            && seconds < LATE
        {
            inner.told_late = false;
            telemetry::record_lag(&self.migration, seconds, bytes);
        }
    }

    /// The migration begins here: what came before is in the copy. From now on whatever happens at the source is pending
    /// until the stream, which starts after the copy, has brought it over (law 10).
    pub fn begun_at(&self, position: &Position) {
        self.inner().meter.durable(position, None);
    }

    /// A batch was applied.
    pub fn applied(&self, applied: &Applied) {
        self.changes.fetch_add(applied.rows.values().sum(), Ordering::Relaxed);
        self.transactions.fetch_add(applied.transactions, Ordering::Relaxed);
        for ((table, op), rows) in &applied.rows {
            telemetry::record_rows(&self.migration, table, *op, *rows);
        }
        if applied.replayed {
            tracing::warn!("a batch was refused as a whole and was applied row by row");
        }
        if let Some(nonce) = &applied.fence {
            tracing::info!(nonce, "the fence's marker is durable: the source is drained");
        }
    }

    fn sampled(&self, head: Head) -> Verdict {
        let mut guard = self.inner();
        let inner = &mut *guard;
        let now = Instant::now();
        inner.source_away_since = None;
        inner.meter.log_is(&head.files);
        inner.meter.sample(head.time, &head.position, now);
        let reading = inner.meter.reading(now);
        if let Some(bytes) = reading.bytes {
            inner.lag_trend.sample(bytes, now);
        }
        let safe = match (inner.meter.durable_position(), reading.caught_up_at) {
            (Some(position), Some(at)) => format!("{position} ({at})"),
            (Some(position), None) => position.to_string(),
            (None, _) => "its beginning".to_owned(),
        };
        let verdict = inner.retained.judge(&head, &safe, now);
        inner.head = Some(head);
        verdict
    }

    /// The source did not answer.
    fn source_away(&self) {
        self.inner().source_away_since.get_or_insert_with(Timestamp::now);
    }

    /// What `[source] on_limit` asks for, if it is ours to do.
    fn enforce(&self, verdict: Verdict, halt: &CancellationToken) {
        // Only the first copy holds the stream up; tables that are copied beside it do not.
        let copying = self.inner().phase == Some(Phase::Snapshot);
        self.steering.step_back(copying && matches!(verdict, Verdict::StepBack));
        let Verdict::GiveUp(error) = verdict else { return };
        let mut inner = self.inner();
        // Only while the migration is ours to run, and never in a cutover: that ends by itself, and soon.
        let ours = inner.attached || inner.trouble.is_some();
        let late = inner.phase.is_some_and(|phase| phase >= Phase::Draining);
        if ours && !late && inner.given_up.is_none() {
            tracing::error!(%error, "giving the slot up");
            inner.given_up = Some(error);
            halt.cancel();
            self.abandon.cancel();
        }
    }

    /// The error that the run ends with, if the slot was given up.
    pub fn given_up(&self) -> Option<Error> {
        self.inner().given_up.clone()
    }

    /// Returns when the slot was given up and what was under way has had its time to end.
    pub async fn abandoned(&self) {
        self.abandon.cancelled().await;
        tokio::time::sleep(PATIENCE).await;
    }

    /// The report of this moment.
    pub fn report(&self, progress: &Progress, health: Option<Health>) -> RunReport {
        let mut inner = self.inner();
        let changes = self.changes.load(Ordering::Relaxed);
        let transactions = self.transactions.load(Ordering::Relaxed);
        inner.counts.push_back((Instant::now(), changes, transactions));
        if inner.counts.len() > RATE_BEATS {
            inner.counts.pop_front();
        }
        let (since, first_changes, first_transactions) = inner.counts[0];
        let seconds = since.elapsed().as_secs_f64().max(0.001);
        let lag = inner.meter.reading(Instant::now());
        inner.told_late = lag.seconds.is_some_and(|seconds| seconds >= LATE);
        let copy = progress.view();
        RunReport {
            host: self.holder.split(" pid ").next().unwrap_or_default().to_owned(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            health: health.unwrap_or(match (&inner.trouble, self.rests(inner.phase)) {
                (Some(_), _) => Health::Stalled,
                (None, true) => Health::Paused,
                (None, false) => Health::Ok,
            }),
            caught_up_at: lag.caught_up_at,
            source_head: inner.head.as_ref().map(|head| head.position.clone()),
            lag_seconds: lag.seconds,
            lag_bytes: lag.bytes,
            worst_lag_seconds: lag.worst_seconds,
            worst_lag_at: lag.worst_at,
            retained_bytes: inner.head.as_ref().and_then(|head| head.retained_bytes),
            retained_limit: inner.retained.limit(),
            retained_growth: inner.retained.growth(),
            retained_room: inner.retained.room(),
            lag_growth: inner.lag_trend.per_second(),
            max_rows_per_second: self.steering.now().snapshot.max_rows_per_second,
            stepped_back: self.steering.stepped_back(),
            source_away_since: inner.source_away_since,
            changes_per_second: (changes - first_changes) as f64 / seconds,
            transactions_per_second: (transactions - first_transactions) as f64 / seconds,
            copy_rows_per_second: copy.rows_per_second,
            copy_bytes_per_second: copy.bytes_per_second,
            indexes_done: copy.indexes_done,
            indexes_total: copy.indexes_total,
            trouble: inner.trouble.clone(),
        }
    }

    /// Whether what this phase is about is paused.
    fn rests(&self, phase: Option<Phase>) -> bool {
        let orders = self.steering.now();
        match phase {
            Some(Phase::New | Phase::Snapshot | Phase::Indexing) => orders.snapshot_paused.is_some(),
            _ => orders.apply_paused.is_some(),
        }
    }

    /// Leaves the reason of the end where `status` finds it.
    pub async fn last_words(&self, job: &Job, progress: &Progress, result: &Result<Outcome>) {
        if !self.has_worked() {
            return;
        }
        let health = match result {
            Ok(_) => Health::Stopped,
            Err(error) => {
                self.stumbled(error, super::BACKOFF);
                Health::Error
            }
        };
        if matches!(result, Err(error) if error.kind() == Kind::Fenced) {
            // The row belongs to the instance that took over.
            return;
        }
        let report = self.report(progress, Some(health));
        let state = job.target.state();
        if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, state.heartbeat(&report)).await {
            tracing::debug!(%error, "could not leave a last report");
        }
    }
}

/// Samples and reports once a second until it is dropped; cancels `halt` when the target has become live.
pub async fn monitor(job: Job, vitals: Arc<Vitals>, progress: Arc<Progress>, halt: CancellationToken) {
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let state = job.target.state();
    let mut away = false;
    let mut beaten = Instant::now();
    loop {
        beat.tick().await;
        let mut answers = 0;
        let heartbeat = job.config.source.heartbeat.0;
        let streams = vitals.inner().phase.is_some_and(|phase| phase >= Phase::CatchingUp && phase < Phase::Draining);
        if streams && !heartbeat.is_zero() && beaten.elapsed() >= heartbeat {
            beaten = Instant::now();
            if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, job.source.heartbeat()).await {
                tracing::debug!(%error, "no heartbeat at the source");
            }
        }
        match tokio::time::timeout(PATIENCE, job.source.head()).await {
            Ok(Ok(head)) => {
                answers += 1;
                let verdict = vitals.sampled(head);
                vitals.enforce(verdict, &halt);
            }
            Ok(Err(error)) => {
                vitals.source_away();
                tracing::debug!(%error, "could not sample the source's head");
            }
            Err(_) => {
                vitals.source_away();
                tracing::debug!("the source did not answer in time");
            }
        }
        let (attached, phase) = {
            let inner = vitals.inner();
            (inner.attached, inner.phase)
        };
        let report = vitals.report(&progress, None);
        expose(vitals.migration(), &report, phase, &progress);
        if !attached && report.trouble.is_none() {
            continue; // waiting for the lease: the row is the other instance's
        }
        let told = async {
            state.heartbeat(&report).await?;
            vitals.obey(state).await?;
            state.migration().await
        };
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(Some(migration))) => {
                answers += 1;
                vitals.inner().phase = Some(migration.phase);
                progress.set_phase(migration.phase);
                if migration.phase == Phase::TargetLive {
                    vitals.cut_over.store(true, Ordering::Relaxed);
                    halt.cancel();
                }
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "could not write the heartbeat"),
            Err(_) => tracing::debug!("the target did not answer in time"),
        }
        // An outage that is over need not be waited out to the end of a long pause.
        if answers == 2 && away {
            vitals.recovered.notify_waiters();
        }
        away = answers < 2;
    }
}

/// This machine's name.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The report's numbers, for Prometheus.
fn expose(migration: &str, report: &RunReport, phase: Option<Phase>, progress: &Progress) {
    if let (Some(seconds), Some(bytes)) = (report.lag_seconds, report.lag_bytes) {
        telemetry::record_lag(migration, seconds, bytes);
    }
    if let Some(bytes) = report.retained_bytes {
        telemetry::record_retained(migration, bytes);
    }
    if let Some(phase) = phase {
        telemetry::record_phase(migration, phase);
    }
    if let Some(limit) = report.retained_limit {
        telemetry::record_retained_limit(migration, limit);
    }
    telemetry::record_room(migration, report.retained_room);
    telemetry::record_paused(migration, report.health == Health::Paused);
    telemetry::record_snapshot_progress(migration, progress.view().fraction());
}
