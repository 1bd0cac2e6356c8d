//! One try: from the lease to the end of the stream.
//!
//! In: the job and whatever earlier tries left in the state. Out: how the stream ended. Every step is skipped if the
//! state shows that it is done, and none leaves anything half done that the next try would not finish or repeat.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::leaves::{self, Watch};
use super::membership;
use super::preflight::{self, Verdict};
use super::progress::Progress;
use super::schema::Schema;
use super::shapes::{self, Shapes};
use super::stream::{Ended, Goal, Router, Terms, budget_for, follow};
use super::vitals::Vitals;
use super::{Job, Outcome, Until, belongs, chunks, snapshot, tables};
use crate::change::{Budget, Position};
use crate::error::{Context, Error, Kind, Result};
use crate::schema::{TableName, TableSchema};
use crate::source::{AnySnapshot, Snapshot, Source};
use crate::target::state::{Lease, Migration, NewTable, Phase, TableStage, TableState};
use crate::target::state::{LeaseOutcome, State};
use crate::target::{Applier, Target};
use crate::transform::Plan;

/// How long a lease is valid without a sign of life. A successor of a killed run waits this long.
const LEASE: Duration = Duration::from_secs(10);
/// How often it is renewed, and how often a waiting instance looks again.
const RENEW: Duration = Duration::from_secs(2);

/// Tries once. `stop` asks for a clean end.
pub async fn attempt(
    job: &Job,
    until: Until,
    goal: &mut Option<Position>,
    vitals: &Arc<Vitals>,
    progress: &Arc<Progress>,
    stop: &CancellationToken,
) -> Result<Outcome> {
    let state = job.target.state();
    let migration = enrol(job).await?;
    if migration.phase == Phase::TargetLive {
        return Ok(Outcome::CutOver);
    }
    let Some(lease) = take_lease(state, vitals.holder(), stop).await? else { return Ok(Outcome::Stopped) };
    belongs::upgrade(&job.config, state, &migration, &lease).await?;
    vitals.attach(state).await?;
    // At once, not with the next beat: who sees a phase in the state must also see who is at work on it.
    state.heartbeat(&vitals.report(progress, None)).await?;
    // Losing the lease ends the attempt at once; asking to stop ends it cleanly. Both cancel this token.
    let halt = stop.child_token();
    let keeper = keep_lease(state.clone(), lease.clone(), halt.clone());
    let result = work(job, until, goal, &lease, vitals, progress, &halt).await;
    let cut_over = vitals.cut_over();
    vitals.detach();
    if keeper.is_finished() && !stop.is_cancelled() && !cut_over {
        // The keeper ends by itself only when the lease is gone; its reason is the true one.
        keeper.await.map_err(|error| Error::new(Kind::Internal, error.to_string()))??;
    } else {
        keeper.abort();
    }
    // Whatever broke, a successor's epoch is the true reason: do not try again beside it.
    if result.is_err()
        && !cut_over
        && let Err(error) = state.renew_lease(&lease, LEASE).await
        && error.kind() == Kind::Fenced
    {
        return Err(error);
    }
    if let Err(error) = state.release_lease(&lease).await {
        tracing::debug!(%error, "could not release the lease; it ends by itself");
    }
    if cut_over { Ok(Outcome::CutOver) } else { result }
}

/// Finds the migration in the state or begins it, and refuses what does not belong together.
pub async fn enrol(job: &Job) -> Result<Migration> {
    let state = job.target.state();
    let identity = job.source.identity().await.context("asking the source who it is")?;
    if let Some(migration) = state.migration().await? {
        belongs::ends(&job.config, &migration)?;
    } else {
        if let Some(refusal) = preflight::poolers(job).await?.refusal() {
            return Err(refusal);
        }
        let plan = job.plan().await?;
        let targets: Vec<TableName> = plan.tables().map(|table| table.shaped.name.clone()).collect();
        belongs::unclaimed(state, &targets).await?;
        let report = preflight::inspect(job, &plan).await?;
        if let Some(refusal) = report.refusal() {
            return Err(refusal);
        }
        for note in report.of(Verdict::Note) {
            tracing::info!("{}: {}", note.end, note.text);
        }
        state.install().await?;
        state.begin(&job.config.fingerprint(), &identity, &job.source.label(), &job.target.label()).await?;
    }
    state.install().await?;
    let missing = || Error::new(Kind::Internal, "the migration's row was not written");
    let migration = state.migration().await?.ok_or_else(missing)?;
    let stored = &migration.source;
    if (&stored.system_id, stored.timeline, &stored.database)
        != (&identity.system_id, identity.timeline, &identity.database)
    {
        return Err(Error::new(
            Kind::SlotLost,
            format!(
                "the source is not the server this migration began on: system {} timeline {} database {:?}, was system \
                 {} timeline {} database {:?}",
                identity.system_id, identity.timeline, identity.database, stored.system_id, stored.timeline, stored.database
            ),
        )
        .fix("positions of one server mean nothing on another: connect to the old one, or begin again with cutwater teardown"));
    }
    Ok(migration)
}

/// Takes the lease, waiting for another instance's to end. `None`: asked to stop meanwhile.
async fn take_lease(state: &State, holder: &str, stop: &CancellationToken) -> Result<Option<Lease>> {
    let mut told = String::new();
    loop {
        match state.take_lease(holder, LEASE, is_dead).await? {
            LeaseOutcome::Taken(lease) => {
                tracing::info!(epoch = lease.epoch, "took the lease of migration {:?}", lease.migration);
                return Ok(Some(lease));
            }
            LeaseOutcome::Held(other) if told != other => {
                tracing::warn!("migration {:?} is run by {other}; waiting for it to end", state.name());
                told = other;
            }
            LeaseOutcome::Held(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(RENEW) => {}
        }
    }
}

/// Whether `host pid 4121` is a process of this machine that is no more. Unknown counts as alive.
fn is_dead(holder: &str) -> bool {
    let Some((host, pid)) = holder.split_once(" pid ") else { return false };
    if host != super::vitals::host_name() {
        return false;
    }
    let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) else { return false };
    rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH)
}

/// Renews the lease until it is lost; then cancels `halt` and says why.
fn keep_lease(state: State, lease: Lease, halt: CancellationToken) -> JoinHandle<Result<()>> {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(RENEW).await;
            match state.renew_lease(&lease, LEASE).await {
                Err(error) if error.kind() == Kind::Fenced => {
                    halt.cancel();
                    return Err(error);
                }
                // The target is away: the applier notices too, and the epoch protects the data, not the lease.
                Err(error) => tracing::debug!(%error, "could not renew the lease"),
                Ok(()) => {}
            }
        }
    })
}

async fn work(
    job: &Job,
    until: Until,
    goal: &mut Option<Position>,
    lease: &Lease,
    vitals: &Arc<Vitals>,
    progress: &Arc<Progress>,
    halt: &CancellationToken,
) -> Result<Outcome> {
    let state = job.target.state();
    let mut phase = current_phase(state).await?;
    // A copy beside the stream does not survive its run: its slot was a temporary one.
    state.end_side(lease).await?;
    // Before the stream: it may be a table of it that ended the run before.
    tables::early(job, lease, phase >= Phase::CatchingUp).await?;
    let plan = settle_tables(job, lease).await?;
    // Of a table that failed it is looked at when it is copied again: what is wrong with it stops nobody.
    let states = state.tables().await?;
    let settled = plan.only(|name| {
        let stage = states.iter().find(|table| table.source == *name).map(|table| table.stage);
        stage == Some(TableStage::Copied) || (phase < Phase::CatchingUp && stage != Some(TableStage::Failed))
    });
    shapes::settle(job, lease, &settled).await?;
    progress.begin(&state.tables().await?);
    let work = Schema::of(job, &plan, progress);

    // Once there is a stream, tables that are missing are copied beside it.
    if phase < Phase::CatchingUp {
        copy(job, lease, &plan, &work, vitals, progress, halt).await?;
    }

    let tables = state.tables().await?;
    let consistent = tables.iter().filter_map(|table| table.copied_at.clone()).reduce(|a, b| a.join(&b));
    let following = Following { job, lease, plan: &plan, progress, vitals, halt };
    if phase < Phase::CatchingUp {
        vitals.set_phase(state, lease, progress, Phase::Indexing).await?;
        work.build_keys_and_indexes(halt).await?;
        vitals.set_phase(state, lease, progress, Phase::CatchingUp).await?;
        phase = Phase::CatchingUp;
    }
    if phase == Phase::CatchingUp {
        // Tables copied at different positions fit together only once the stream has passed the newest of them; foreign
        // keys would be refused before.
        if let Some(consistent) = consistent
            && following.run(&Goal::Position(consistent), None).await? == Ended::Stopped
        {
            return Ok(Outcome::Stopped);
        }
        work.finish_constraints(&tables::absent(&tables), halt).await?;
        work.fill_views(halt).await?;
    }
    // What was asked of the tables is done before the goal is reached that a script waits for.
    if phase > Phase::CatchingUp
        && until == Until::CaughtUp
        && following.run(&Goal::None, Some(tables::Until::Settled)).await? == Ended::Stopped
    {
        return Ok(Outcome::Stopped);
    }
    if goal.is_none() && (until == Until::CaughtUp || phase == Phase::CatchingUp) {
        *goal = Some(job.source.head().await?.position);
    }
    if let Some(head) = goal.clone().filter(|_| until == Until::CaughtUp || phase == Phase::CatchingUp) {
        if following.run(&Goal::Position(head), None).await? == Ended::Stopped {
            return Ok(Outcome::Stopped);
        }
        if phase == Phase::CatchingUp {
            vitals.set_phase(state, lease, progress, Phase::Streaming).await?;
        }
        if until == Until::CaughtUp {
            return all_there(state).await.map(|()| Outcome::CaughtUp);
        }
    }
    match following.run(&Goal::None, Some(tables::Until::Stopped)).await? {
        Ended::Stopped | Ended::GoalReached => Ok(Outcome::Stopped),
    }
}

/// Whoever waits for the end of it is told that something is missing.
async fn all_there(state: &State) -> Result<()> {
    let tables = state.tables().await?;
    let failed: Vec<&TableState> = tables.iter().filter(|table| table.stage == TableStage::Failed).collect();
    let Some(first) = failed.first() else { return Ok(()) };
    let names: Vec<String> = failed.iter().map(|table| table.source.to_string()).collect();
    let reason = first.error.as_deref().unwrap_or("no reason was noted");
    let why = format!("caught up without {}: {}", names.join(", "), reason.lines().next().unwrap_or_default());
    Err(Error::new(Kind::BadRow, why).fix(format!(
        "remove the cause, then cutwater tables resync {0}   or go on without it: cutwater tables skip {0}",
        first.source.pattern()
    )))
}

async fn current_phase(state: &State) -> Result<Phase> {
    let missing = || Error::new(Kind::Fenced, "the migration's state was removed while it ran");
    Ok(state.migration().await?.ok_or_else(missing)?.phase)
}

/// The tables this migration is of, recorded by its first try.
async fn settle_tables(job: &Job, lease: &Lease) -> Result<Plan> {
    if let Some(plan) = job.recorded_plan().await? {
        return Ok(plan);
    }
    let plan = job.plan().await?;
    let rows = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let tables: Vec<_> = plan
        .tables()
        .map(|t| NewTable {
            source: t.source.name.clone(),
            target: t.shaped.name.clone(),
            rows: rows(t.source.estimated_rows),
            bytes: rows(t.source.bytes),
            rule: job.config.rule_of(&t.source.name),
        })
        .collect();
    if tables.is_empty() {
        return Err(Error::new(Kind::Config, format!("{} has no table to migrate", job.source.label())));
    }
    job.target.state().add_tables(lease, &tables).await?;
    Ok(plan)
}

/// Slot, snapshot and copy: whatever of it is still to be done.
async fn copy(
    job: &Job,
    lease: &Lease,
    plan: &Plan,
    work: &Schema<'_>,
    vitals: &Arc<Vitals>,
    progress: &Arc<Progress>,
    halt: &CancellationToken,
) -> Result<()> {
    let state = job.target.state();
    let missing = || Error::new(Kind::Fenced, "the migration's state was removed while it ran");
    let migration = state.migration().await?.ok_or_else(missing)?;
    let tables = state.tables().await?;
    let open = |table: &TableState| matches!(table.stage, TableStage::Waiting | TableStage::Copying);
    if migration.slot_position.is_some() && !tables.iter().any(open) {
        if migration.copied_until.is_none() {
            // A crash came between the last copy and its note.
            state.set_copied_until(lease, &job.source.head().await?.position).await?;
        }
        return Ok(());
    }
    let snapshot = match migration.slot_position {
        // The tables that are still missing are copied at a later position; the stream's older changes are skipped for
        // them (TRAPS 6). The stream itself needs the slot that was made first.
        Some(_) => {
            if job.source.slot().await?.is_none_or(|slot| slot.lost) {
                return Err(slot_gone(job));
            }
            let snapshot = unless(halt, job.source.temporary_snapshot()).await?;
            snapshot::check_unchanged(&job.source, plan).await?;
            snapshot
        }
        None => {
            work.create_tables(halt).await?;
            let targets: Vec<TableName> = plan.tables().map(|table| table.shaped.name.clone()).collect();
            job.target.make_room(&targets, job.config.target.existing).await?;
            let snapshot = unless(halt, first_slot(job, lease, plan, &migration, vitals, progress)).await?;
            // Tables altered between the plan and the slot would be copied in the old shape and followed in the new.
            snapshot::check_unchanged(&job.source, plan).await?;
            snapshot
        }
    };
    vitals.set_phase(state, lease, progress, Phase::Snapshot).await?;
    let snapshot = Arc::new(snapshot);
    let mut copied = snapshot::copy(&job.target, &snapshot, plan, lease, vitals.steering(), progress, halt).await?;
    // With nothing to follow there is nothing to go on with.
    if state.tables().await?.iter().all(|table| table.stage == TableStage::Failed)
        && let Some((_, error)) = copied.failed.pop()
    {
        return Err(error);
    }
    // Until the stream has passed this place it may tell of rows that a TRUNCATE hid from the copy (TRAPS 7).
    let head = job.source.head().await?.position;
    state.set_copied_until(lease, &head).await
}

/// A slot waits for every transaction that is open at the source: whoever asks for an end need not wait with it.
async fn unless<T>(halt: &CancellationToken, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        done = work => done,
        () = halt.cancelled() => Err(Error::new(Kind::Interrupted, "asked to stop")),
    }
}

fn slot_gone(job: &Job) -> Error {
    let name = job.target.state().name();
    Error::new(
        Kind::SlotLost,
        format!("the slot of migration {name:?} is gone from {}, and changes with it", job.source.label()),
    )
    .fix("begin again: cutwater teardown, then cutwater run")
}

async fn first_slot(
    job: &Job,
    lease: &Lease,
    plan: &Plan,
    migration: &Migration,
    vitals: &Vitals,
    progress: &Progress,
) -> Result<AnySnapshot> {
    let state = job.target.state();
    let tables: Vec<Arc<TableSchema>> = plan.tables().map(|table| Arc::clone(&table.source)).collect();
    if !job.source.slot_is_given() && job.source.slot().await?.is_some() {
        // The phase is written before the slot is made: with it, the slot is what a crashed try of ours left, and
        // nothing was copied by it. Without it, it belongs to somebody else.
        if migration.phase == Phase::New {
            return Err(Error::new(
                Kind::Config,
                format!(
                    "{} already has a slot for a migration called {:?}, and this target knows nothing of it",
                    job.source.label(),
                    state.name()
                ),
            )
            .fix("give this migration another [migration] name, or end the other one with cutwater teardown"));
        }
        job.source.drop_slot().await?;
    }
    vitals.set_phase(state, lease, progress, Phase::Snapshot).await?;
    job.source.prepare(&tables).await?;
    membership::record(job, lease, &tables).await?;
    let snapshot = job.source.create_slot().await?;
    state.set_slot_position(lease, snapshot.position()).await?;
    vitals.begun_at(snapshot.position());
    tracing::info!(position = %snapshot.position(), "created the slot; the copy is of this position");
    Ok(snapshot)
}

/// What the stream needs each time it is started.
struct Following<'a> {
    job: &'a Job,
    lease: &'a Lease,
    plan: &'a Plan,
    progress: &'a Arc<Progress>,
    vitals: &'a Arc<Vitals>,
    halt: &'a CancellationToken,
}

impl Following<'_> {
    /// Follows the tables that are copied; with `beside`, the others are copied meanwhile, and join.
    async fn run(&self, goal: &Goal, beside: Option<tables::Until>) -> Result<Ended> {
        let Following { job, lease, progress, vitals, halt, .. } = self;
        let (asks, mut asked) = mpsc::channel(1);
        let mut beside =
            beside.map(|until| tables::Beside::start(job, lease, vitals.steering(), progress, halt, until, asks));
        let mut plan = self.plan.clone();
        loop {
            let pause = halt.child_token();
            let mut ask = None;
            let mut settled = false;
            let once = self.once(&mut plan, goal, &pause);
            tokio::pin!(once);
            let ended = loop {
                let aside = async {
                    match beside.as_mut().filter(|_| !settled) {
                        Some(beside) => beside.ended().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    ended = &mut once => break ended?,
                    Some(asked) = asked.recv(), if ask.is_none() => {
                        ask = Some(asked);
                        pause.cancel();
                    }
                    ended = aside => {
                        if !halt.is_cancelled() {
                            ended?;
                        }
                        settled = true;
                        pause.cancel();
                    }
                }
            };
            if settled {
                return Ok(if halt.is_cancelled() { Ended::Stopped } else { Ended::GoalReached });
            }
            let Some(ask) = ask else { return Ok(ended) };
            let missing = || Error::new(Kind::Fenced, "the migration's checkpoint is gone");
            let checkpoint = job.target.state().checkpoint().await?.ok_or_else(missing)?;
            ask.stand(checkpoint.position, halt).await;
        }
    }

    /// Starts the stream and follows it to its end. `plan` grows by the tables that have joined.
    async fn once(&self, plan: &mut Plan, goal: &Goal, stop: &CancellationToken) -> Result<Ended> {
        loop {
            // Workers that are apart, after a crash, keep their tables until they are together again.
            if let Some(ended) = Box::pin(self.stretch(plan, goal, stop)).await? {
                return Ok(ended);
            }
        }
    }

    /// The same; `None`: the workers are together, and may be others from here on.
    async fn stretch(&self, plan: &mut Plan, goal: &Goal, stop: &CancellationToken) -> Result<Option<Ended>> {
        let Following { job, lease, vitals, .. } = self;
        // Before anything else is read: it waits for a hand-over whose end is not known.
        let config = vitals.steering().now().apply;
        let routing = job.target.state().route(lease, config.workers).await?;
        let applier = job.target.workers(lease, &config, &routing).await?;
        let from = applier.checkpoint();
        // Known from here on, also if the stream never starts: lag that nobody can tell would read as none.
        vitals.durable(&from, None);
        let together = routing.furthest_beyond().map(Goal::Position);
        if let Goal::Position(goal) = goal
            && together.is_none()
            && from.get().reaches(goal)
        {
            return Ok(Some(Ended::GoalReached));
        }
        let tables = job.target.state().tables().await?;
        let copied = tables.into_iter().filter(|table| table.stage == TableStage::Copied);
        let copied_at: HashMap<TableName, Position> = copied.filter_map(|t| Some((t.source, t.copied_at?))).collect();
        *plan = plan.only(|name| copied_at.contains_key(name));
        if copied_at.keys().any(|name| plan.get(name).is_none()) {
            let all = job.recorded_plan().await?.unwrap_or_default();
            plan.join(&all.only(|name| copied_at.contains_key(name)));
        }
        let sources: Vec<Arc<TableSchema>> = plan.tables().map(|table| Arc::clone(&table.source)).collect();
        let budget = Budget::new(budget_for(&vitals.steering().now().apply));
        let names: Vec<TableName> = plan.tables().map(|table| table.shaped.name.clone()).collect();
        let there = job.target.tables(&names).await?;
        let binary = job.source.set_binary(snapshot::all_binary(plan, &there));
        let rules = (&job.config.transform[..], job.ddl());
        let mut shapes = Shapes::new(&job.source, rules, binary, plan, job.target.state().shapes().await?, there);
        let partitions = Watch::new(&job.source, job.target.state(), leaves::partitioned(plan)).await?;
        let stream = job.source.stream(from.get(), &sources, &budget).await?;
        shapes = shapes.watching(partitions, membership::Watch::begin(job, lease, plan).await?);
        tracing::info!(from = %from.get(), workers = routing.workers(), "following the source");
        let copied_at = copied_at.into_iter().filter_map(|(name, at)| Some((plan.get(&name)?.source.id, at)));
        let mut copied_at: HashMap<u32, Position> = copied_at.collect();
        let mixed = chunks::mixed(job.target.state(), plan).await?;
        copied_at.extend(mixed.iter().map(|(id, (oldest, _))| (*id, oldest.clone())));
        for table in plan.tables().map(|table| &table.source) {
            if let Some(beyond) = routing.beyond(&table.name) {
                let at = copied_at.entry(table.id).or_insert_with(|| beyond.clone());
                *at = at.join(beyond);
            }
        }
        let mut router = Router::new(copied_at, mixed.into_iter().map(|(id, (_, mixed))| (id, mixed)).collect())
            .naming(plan.tables().map(|table| (table.source.id, table.shaped.name.clone())).collect());
        let settling = chunks::Settling { source: &job.source, state: job.target.state(), lease };
        let copied_until = job.target.state().migration().await?.and_then(|migration| migration.copied_until);
        vitals.working();
        let terms =
            Terms { goal: together.as_ref().unwrap_or(goal), copied_until, budget: &budget, settling: &settling };
        let ended = follow(stream, applier, (&mut router, &mut shapes), &terms, vitals, stop).await?;
        Ok((ended == Ended::Stopped || together.is_none()).then_some(ended))
    }
}
