//! Wiring: reader → transform → batcher → applier, and what happens around them.
//!
//! [`run`] is the life of a migration: take the lease, copy what is there, build the indexes, follow what changes, until
//! it is asked to stop, has caught up, or was cut over. Each step looks at what the state says and does what is missing,
//! so the same call resumes after any crash (law 9). [`run`] supervises: an error whose kind can be waited out drops
//! everything in memory and starts the attempt again from the checkpoint, with backoff.
//!
//! It is the same for every engine. A [`Job`] holds an [`AnySource`] and an [`AnyTarget`], and what is a matter of one of
//! them is asked of it through its trait. What is a matter of both (`schema`, `preflight`, `estimate`) is a `match` over
//! the pair, once, at its entrance, so that the compiler names every place at which another pair has to be thought of.
//!
//! | file | is |
//! |---|---|
//! | `attempt` | one try, from the lease to the end of the stream |
//! | `belongs` | whether config and state are of one migration |
//! | `preflight` | what would bite, looked for before anything is changed |
//! | `estimate` | how long it would take, from a copy of a few seconds |
//! | `snapshot` | the copy |
//! | `schema`, `build` | tables, keys, indexes, constraints: by which way, and that between two Postgres servers |
//! | `mapped` | the plan between two engines |
//! | `chunks` | very large tables, copied in ranges of their key |
//! | `dump` | a Postgres source's schema, through `pg_dump` |
//! | `shapes` | columns that come, go or change in mid-stream |
//! | `tables` | tables that join, leave, or are copied again while the others are followed |
//! | `stream`, `batcher` | the loop; whole transactions into bounded batches |
//! | `steering`, `ask` | pauses and settings of a live run |
//! | `membership` | whether the source published every table without a break |
//! | `leaves` | what is done to partitions as a whole, which the stream does not tell |
//! | `retained` | the log the source keeps for us, and its limits |
//! | `vitals`, `progress` | lag, heartbeat, rates: what `status` and the metrics show |

pub mod ask;
mod attempt;
mod batcher;
pub mod behind;
pub mod belongs;
pub mod build;
mod chunks;
pub mod dump;
pub mod estimate;
pub mod leaves;
mod mapped;
pub mod membership;
pub mod preflight;
pub mod progress;
mod retained;
pub mod schema;
mod shapes;
pub mod snapshot;
pub mod steering;
mod stream;
pub mod tables;
mod vitals;

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio_util::sync::CancellationToken;

use self::vitals::Vitals;
use crate::config::{Config, Ddl};
use crate::error::{Disposition, Error, Kind, Result};
use crate::schema::{Patterns, TableName};
use crate::source::{AnySource, Source};
use crate::target::state::TableState;
use crate::target::{AnyTarget, Target};
use crate::telemetry;
use crate::transform::Plan;

pub use self::attempt::enrol;
pub use self::progress::Progress;

/// First and longest pause between two tries.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// A migration's config and its two ends.
#[derive(Clone)]
pub struct Job {
    /// What was asked for.
    pub config: Config,
    /// Where changes come from.
    pub source: AnySource,
    /// Where they go.
    pub target: AnyTarget,
    /// It is followed so that a repair can bring what is missing: that something may be stops nobody.
    pub mends: bool,
}

impl Job {
    /// Reads the two URLs. Connects to nothing.
    pub fn open(config: Config) -> Result<Job> {
        let source = AnySource::of(&config)?;
        let target = AnyTarget::of(&config)?;
        Ok(Job { source, target, config, mends: false })
    }

    /// What is done when the source's tables are altered. Statements of one engine are none of another's.
    pub fn ddl(&self) -> Ddl {
        match (&self.source, &self.target) {
            (AnySource::Postgres(_), AnyTarget::Postgres(_)) => self.config.apply.ddl,
            (AnySource::MySql(_), _) | (_, AnyTarget::MySql(_)) => Ddl::Stop,
        }
    }

    /// The error of two ends between which this cannot be done.
    pub fn not_between(&self, what: &str) -> Error {
        let (source, target) = (self.source.label(), self.target.label());
        Error::new(Kind::Refused, format!("{what} is not possible between {source} and {target}"))
    }

    /// The source's tables that match `[source] tables`, through the rules.
    pub async fn plan(&self) -> Result<Plan> {
        let patterns = Patterns::parse(&self.config.source.tables)?;
        let tables = self.source.tables(&patterns).await?;
        let names: Vec<TableName> = tables.iter().map(|table| table.name.clone()).collect();
        if let [first, ..] = patterns.without_match(&names)[..] {
            return Err(Error::new(
                Kind::Config,
                format!("[source] tables: {first:?} matches no table of {}", self.source.label()),
            ));
        }
        self.between(Plan::compile(&self.config.transform, &tables)?).await
    }

    /// What the rules made of the source's tables, as the target's engine has it.
    pub async fn between(&self, plan: Plan) -> Result<Plan> {
        match (&self.source, &self.target) {
            (AnySource::Postgres(_), AnyTarget::Postgres(_)) | (AnySource::MySql(_), AnyTarget::MySql(_)) => Ok(plan),
            (AnySource::MySql(_), AnyTarget::Postgres(_)) => mapped::plan(&self.config, plan).await,
            (AnySource::Postgres(_), AnyTarget::MySql(_)) => Err(self.not_between("a migration")),
        }
    }

    /// The tables that are carried, whatever `[source] tables` matches by now: those the migration began with, with what
    /// `cutwater tables` changed since; `None` before it has begun.
    pub async fn recorded_plan(&self) -> Result<Option<Plan>> {
        let state = self.target.state();
        if let Some(migration) = state.migration().await? {
            belongs::ends(&self.config, &migration)?;
        }
        let recorded = state.tables_ever().await?;
        let carried: Vec<_> = recorded.iter().filter(|table| table.stage.is_carried()).cloned().collect();
        belongs::rules(&self.config, &carried)?;
        if recorded.is_empty() {
            return Ok(None);
        }
        let mut known = self.source.tables(&Patterns::default()).await?;
        known.retain(|table| recorded.iter().any(|known| known.source == table.name));
        let carried = |name: &TableName| recorded.iter().any(|t| t.source == *name && t.stage.is_carried());
        let here = |name: &TableName| known.iter().any(|table| table.name == *name);
        if let Some(gone) = recorded.iter().find(|table| carried(&table.source) && !here(&table.source)) {
            let known = self.target.state().shapes().await?.get(&gone.source).map(|shape| shape.id);
            let now = match known {
                Some(id) => self.source.name_of(id).await?,
                None => None,
            };
            return Err(shapes::no_longer_there(&gone.source, now.as_ref()));
        }
        // Through the rules with those that were left out, or a rule that is about them alone would match nothing.
        let plan = Plan::recompile(&self.config.transform, &known)?;
        Ok(Some(self.between(plan.only(carried)).await?))
    }

    /// In what the file and the migration do not agree about the tables, with the command that changes it; nothing before
    /// the migration has begun.
    pub async fn disagreement(&self) -> Result<Vec<Disagreement>> {
        let recorded = self.target.state().tables_ever().await?;
        if recorded.is_empty() {
            return Ok(Vec::new());
        }
        let patterns = Patterns::parse(&self.config.source.tables)?;
        let here = self.source.tables(&Patterns::default()).await?;
        let mut lines = Vec::new();
        let mut disagree = |text: String, fix: String| lines.push(Disagreement { text, fix });
        for TableState { source: name, .. } in recorded.iter().filter(|table| table.stage.is_carried()) {
            let command = format!("cutwater tables remove {}", name.pattern());
            if !here.iter().any(|table| table.name == *name) {
                disagree(format!("{name} is part of the migration and no longer at the source"), command);
            } else if !patterns.includes(name) {
                let text = format!("{name} is part of the migration and [source] tables does not match it");
                disagree(text, format!("{command}   or put it into the list"));
            }
        }
        let new = self.source.tables(&patterns).await?;
        for name in
            new.iter().map(|table| &table.name).filter(|name| !recorded.iter().any(|table| table.source == **name))
        {
            let text = format!("{name} matches [source] tables and is not part of the migration");
            disagree(text, format!("cutwater tables add {}", name.pattern()));
        }
        Ok(lines)
    }
}

/// Something in which the file and the migration do not agree about the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disagreement {
    /// What is the case.
    pub text: String,
    /// The command that makes the migration follow the file.
    pub fix: String,
}

/// When a run ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When it is asked to, or the migration is cut over.
    Stopped,
    /// When everything is durable that the source had when the run began.
    CaughtUp,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Asked to; the same command goes on from here.
    Stopped,
    /// Caught up.
    CaughtUp,
    /// The target is live: there is nothing left to replicate.
    CutOver,
}

/// Runs the migration. `stop` asks for a clean end: the batch under way is finished and confirmed.
pub async fn run(job: &Job, until: Until, stop: CancellationToken, progress: Arc<Progress>) -> Result<Outcome> {
    let vitals = Arc::new(Vitals::new(job));
    // The heartbeat outlives every try, so that lag grows and the trouble shows while the target or source is away.
    let halt = stop.child_token();
    let monitor = tokio::spawn(vitals::monitor(job.clone(), Arc::clone(&vitals), Arc::clone(&progress), halt.clone()));
    let result = tokio::select! {
        result = supervise(job, until, &vitals, &progress, &halt) => result,
        // A batch that hangs at the target must not keep the source's disk filling.
        () = vitals.abandoned() => Ok(Outcome::Stopped),
    };
    let result = match vitals.given_up() {
        Some(why) => Err(give_up(job, why).await),
        None => result,
    };
    monitor.abort();
    vitals.last_words(job, &progress, &result).await;
    result
}

/// Drops the slot, as `[source] on_limit = "drop-slot"` says; returns the error that the run ends with.
async fn give_up(job: &Job, why: Error) -> Error {
    match job.source.drop_slot().await {
        Ok(()) => why,
        Err(error) => Error::new(Kind::SlotLost, format!("{}; but the slot could not be dropped: {error}", why.why()))
            .fix(format!("on the source: {}", job.source.drop_slot_by_hand())),
    }
}

async fn supervise(
    job: &Job,
    until: Until,
    vitals: &Arc<Vitals>,
    progress: &Arc<Progress>,
    stop: &CancellationToken,
) -> Result<Outcome> {
    let mut goal = None;
    loop {
        let error = match attempt::attempt(job, until, &mut goal, vitals, progress, stop).await {
            Ok(outcome) => return Ok(outcome),
            Err(_) if stop.is_cancelled() && vitals.cut_over() => return Ok(Outcome::CutOver),
            Err(error) if stop.is_cancelled() && error.kind() == Kind::Interrupted => return Ok(Outcome::Stopped),
            Err(error) => error,
        };
        telemetry::record_error(vitals.migration(), error.kind());
        // Before the first success a failure is most likely a mistake in the config: say so at once instead of waiting.
        if error.kind().disposition() == Disposition::Stop || !vitals.has_worked() {
            return Err(error);
        }
        let pause = vitals.stumbled(&error, BACKOFF);
        tracing::warn!(%error, pause_seconds = pause.as_secs_f64(), "trying again");
        tokio::select! {
            () = stop.cancelled() => return Ok(Outcome::Stopped),
            () = vitals.recovered() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The pause before try number `tries`: doubling, at most `longest`, with jitter so that instances do not march in step.
fn backoff(tries: u32, (first, longest): (Duration, Duration)) -> Duration {
    let doubled = first.saturating_mul(1 << tries.min(16)).min(longest);
    doubled.mul_f64(rand::rng().random_range(0.75..1.25))
}
