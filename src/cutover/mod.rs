//! The guarded switch from source to target.
//!
//! In: a migration that streams, and how long writes may be refused. Out: a target that is live, or a source that takes
//! writes as before; never both, never neither for longer than was allowed. `cutover` drives and `run` only replicates:
//! they meet in the target's state and in the fence's marker, which travels through the stream.
//!
//! | step | durable as | a driver that dies after it |
//! |---|---|---|
//! | gates ([`gates`]) | nothing | nothing happened |
//! | journal | `cutwater.cutover`: fencing | undone by the next driver |
//! | fence ([`fence`]) | armed row and triggers at the source; fenced | expires by itself; undone by the next driver |
//! | drain | `drained_at`, by the applier; drained | the same |
//! | verify, unbroken, sequences | verified | the same |
//! | **point of no return** | permanent row at the source | the next driver goes forward |
//! | foreign keys and triggers that had to wait (`late`) | switching | what is there is skipped |
//! | switch | switching | the command is run again: it is idempotent |
//! | done | done, phase `target-live` | the same command refreshes materialized views and validates what waited |
//!
//! The truth about a fence is at the source (TRAPS 18): a driver that finds an unfinished attempt reads that row first.
//! Before the point of no return every error, the time limit and Ctrl-C undo everything ([`Kind::Undone`]); after it
//! nothing does.

pub mod gates;
mod journal;
mod late;
mod rehearsal;
mod sequences;
mod steps;
mod switch;
mod views;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::change::Position;
use crate::config::CutoverConfig;
use crate::error::{Error, Kind, Result};
use crate::postgres::ConnInfo;
use crate::schema::{Patterns, TableName};
use crate::source::fence::{Behind, FenceStep, Journalled};
use crate::source::{AnyFence, Source};
use crate::target::state::{Cutover, CutoverStep};
use crate::target::{AnyTarget, Target};
use crate::transform::Plan;
use crate::verify::Ends;

pub use gates::{Gate, Gates, Verdict};

/// What is cut over.
#[derive(Clone)]
pub struct Parts {
    /// Both databases and the state.
    pub ends: Ends,
    /// The tables.
    pub plan: Plan,
    /// Which tables belong to the migration, to notice new ones.
    pub patterns: Patterns,
    /// `[cutover]`
    pub config: CutoverConfig,
}

impl Parts {
    pub(crate) fn tables(&self) -> Vec<TableName> {
        self.plan.tables().map(|table| table.source.name.clone()).collect()
    }

    /// Whether these are exactly the tables that are cut over.
    pub(crate) fn covers<'a>(&self, tables: impl Iterator<Item = &'a TableName>) -> bool {
        let tables: Vec<_> = tables.collect();
        tables.len() == self.plan.len() && tables.iter().all(|name| self.plan.get(name).is_some())
    }

    pub(crate) fn name(&self) -> &str {
        self.ends.state.name()
    }

    async fn fence(&self) -> Result<AnyFence> {
        AnyFence::open(&self.ends.source, self.name(), &self.config).await
    }

    fn behind(&self, position: Position) -> Behind {
        Behind { position, tables: self.plan.tables().map(|table| Arc::clone(&table.source)).collect() }
    }

    /// What the fence is told of an attempt.
    fn journalled(&self, attempt: Option<&Cutover>) -> Option<Journalled> {
        attempt.map(|attempt| Journalled {
            nonce: attempt.nonce.clone(),
            passed: matches!(attempt.step, CutoverStep::Switching | CutoverStep::Done),
            behind: attempt.drained_at.clone().map(|position| self.behind(position)),
        })
    }

    /// The error of two ends between which there is no cutover.
    fn not_between(&self) -> Error {
        let (source, target) = (self.ends.source.label(), self.ends.target.label());
        Error::new(Kind::Refused, format!("a cutover is not possible between {source} and {target}"))
    }

    /// The target's address, if it is a Postgres server.
    fn postgres_target(&self) -> Option<&ConnInfo> {
        match &self.ends.target {
            AnyTarget::Postgres(target) => Some(target.info()),
            AnyTarget::MySql(_) => None,
        }
    }
}

/// How to cut over.
#[derive(Debug, Clone)]
pub struct Options {
    /// The lag must stay below this …
    pub max_lag: Duration,
    /// … for this long.
    pub hold: Duration,
    /// Writes are refused for this long at most; then everything is undone.
    pub max_downtime: Duration,
    /// Keep trying until the gates are open.
    pub wait: bool,
    /// Go through all steps and change nothing.
    pub dry_run: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            max_lag: Duration::from_secs(1),
            hold: Duration::from_secs(2),
            max_downtime: Duration::from_secs(30),
            wait: false,
            dry_run: false,
        }
    }
}

/// A cutover that was carried out (or, with `dry_run`, rehearsed).
#[derive(Debug, Clone, Default, Serialize)]
pub struct CutoverReport {
    /// Names the attempt.
    pub nonce: String,
    /// How long writes waited or were refused: from the moment the fence asked for its locks to the end of the switch
    /// command. `None` if a driver before this one took the fence, or nothing was done.
    pub downtime_ms: Option<u64>,
    /// What was allowed.
    pub max_downtime_ms: u64,
    /// Tries the fence's locks took.
    pub fence_tries: u32,
    /// From the fence to the drain.
    pub drain_ms: Option<u64>,
    /// How long the final comparison took.
    pub verify_ms: Option<u64>,
    /// What was compared behind the fence; `None` if a driver before this one did it, or nothing was done.
    pub final_verify: Option<FinalVerify>,
    /// Tables of which rows were compared behind the fence.
    pub tables: u64,
    /// Rows at the source compared behind the fence.
    pub rows: u64,
    /// Sequences set.
    pub sequences: u64,
    /// Foreign keys and triggers that waited for the cutover and were made by it.
    pub late_made: u64,
    /// Foreign keys of them validated since.
    pub validated: u64,
    /// Foreign keys of them that are not validated yet, and why: they hold for every new row. Running the same command
    /// again goes on with them.
    pub not_validated: Vec<String>,
    /// Materialized views made anew from the target's rows, once it was live.
    pub views_refreshed: u64,
    /// Those that still hold the rows of the moment `run` filled them: why, and the statement. Running the same command
    /// again goes on with them.
    pub views_stale: Vec<String>,
    /// What somebody should do so that the source's fence outlives a restart of its server.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What stayed behind on the source.
    pub not_carried: Vec<String>,
    /// This driver went on from the point of no return of one before it.
    pub resumed: bool,
    /// The target was live already: nothing was done.
    pub was_done: bool,
    /// It was a rehearsal: what would have been done.
    pub rehearsed: Vec<String>,
}

/// What the comparison behind the fence read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FinalVerify {
    /// The rows that changed since the last clean verify, and all rows of tables of which that is not known.
    Changed,
    /// All rows of all tables.
    Full,
}

/// What happens, for whoever watches.
#[derive(Debug)]
pub enum Progress<'a> {
    /// An unfinished attempt was found, and what was done about it.
    Settled(&'a str),
    /// Some gates are closed; they are tried again.
    Waiting(&'a Gates),
    /// All gates are open.
    GatesOpen(&'a Gates),
    /// The attempt is journalled; the locks are asked for.
    Fencing,
    /// The source refuses writes.
    Fenced {
        /// Tables and partitions.
        relations: usize,
        /// Tries it took.
        tries: u32,
    },
    /// Everything before the fence is durable at the target.
    Drained(Duration),
    /// Tables compared, tables in all.
    Verifying(usize, usize),
    /// Both ends hold the same rows.
    Verified {
        /// Tables compared.
        tables: u64,
        /// Rows compared.
        rows: u64,
    },
    /// Sequences were set.
    Sequences(u64),
    /// The point of no return is passed.
    Permanent,
    /// Foreign keys and triggers that waited were made.
    LateMade(u64),
    /// So many foreign keys are validated now, while the target is live.
    Validating(usize),
    /// So many materialized views are refreshed now, while the target is live.
    Refreshing(usize),
    /// The switch command starts.
    Switching(Option<&'a str>),
    /// The target is live.
    Done(Option<Duration>),
    /// It was taken back.
    Undone(&'a str),
    /// A rehearsal says what would be done.
    Would(&'a str),
}

/// Who watches.
pub type Reporter<'a> = &'a (dyn Fn(&Progress<'_>) + Send + Sync);

/// Cuts over, or goes on with what a driver before this one began.
///
/// Errors: [`Kind::Refused`] with the closed gates, nothing touched; [`Kind::Undone`] with the reason and how long writes
/// were refused; anything else past the point of no return, where running again goes forward.
pub async fn drive(
    parts: &Parts,
    options: &Options,
    report: Reporter<'_>,
    shutdown: &CancellationToken,
) -> Result<CutoverReport> {
    let max_downtime_ms = options.max_downtime.as_millis() as u64;
    // Held until this driver ends: a second one must not take a living driver's attempt for an abandoned one.
    let _alone = journal::alone(parts).await?;
    match journal::settle(parts, options.dry_run, report).await? {
        journal::Standing::Clear => {}
        journal::Standing::Done(nonce) => {
            let mut done = CutoverReport { nonce, was_done: true, max_downtime_ms, ..CutoverReport::default() };
            if !options.dry_run {
                steps::tidy_up(parts, &mut done, report, shutdown).await?;
            }
            return Ok(done);
        }
        journal::Standing::PastThePoint(nonce) => {
            let mut done = CutoverReport { nonce, resumed: true, max_downtime_ms, ..CutoverReport::default() };
            if options.dry_run {
                done.rehearsed.push("go on from the point of no return: run the switch command".into());
                return Ok(done);
            }
            steps::go_forward(parts, &mut done, None, report, shutdown).await?;
            return Ok(done);
        }
    }
    let gates = gates::open(parts, options, report, shutdown).await?;
    report(&Progress::GatesOpen(&gates));
    if options.dry_run {
        steps::carry_out(rehearsal::Rehearsal::new(parts, options, report), shutdown).await
    } else {
        steps::carry_out(steps::Real::new(parts, options, report), shutdown).await
    }
}

/// Takes an unfinished attempt back. Refused past the point of no return, and if there is nothing to take back.
pub async fn abort(parts: &Parts, report: Reporter<'_>) -> Result<()> {
    let attempt = parts.ends.state.cutover().await?;
    let mut source = parts.fence().await?;
    let fence = source.state(parts.journalled(attempt.as_ref()).as_ref()).await?;
    if fence.as_ref().is_some_and(|fence| fence.step == FenceStep::Permanent) {
        return Err(Error::new(
            Kind::Refused,
            "the cutover is past its point of no return: the target is or will be live",
        )
        .fix("run cutwater cutover again: it goes forward"));
    }
    let armed = fence.as_ref().is_some_and(|fence| fence.step == FenceStep::Armed);
    if !armed && !attempt.as_ref().is_some_and(|attempt| journal::unfinished(attempt.step)) {
        return Err(Error::new(Kind::Refused, "no cutover is under way: there is nothing to take back"));
    }
    let nonces = [attempt.map(|attempt| attempt.nonce), fence.map(|fence| fence.nonce)];
    for nonce in nonces.into_iter().flatten() {
        journal::undo(parts, &mut source, &nonce, "taken back by cutover --abort").await?;
    }
    report(&Progress::Undone("taken back: the source takes writes"));
    Ok(())
}
