//! The fence of a source, whichever engine it is of: what makes it refuse writes during a cutover, and lets go by itself.
//!
//! In: a migration, its tables, a nonce. Out: a source that takes no writes until a deadline ([`AnyFence::arm`]), for good
//! ([`AnyFence::make_permanent`]: the point of no return), or no longer ([`AnyFence::lift`]). The truth about it is at the
//! source (TRAPS 18): what a driver that comes later finds is asked of [`AnyFence::state`]. How it is made, and what a
//! crash leaves, is each engine's own: [`super::postgres::fence`], [`super::mysql::fence`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::AnySource;
use super::mysql::fence::MyFence;
use super::postgres::fence::PgFence;
use crate::change::Position;
use crate::config::CutoverConfig;
use crate::error::{Error, Kind, Result};
use crate::schema::{Patterns, TableName, TableSchema};

/// What is to be fenced.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The migration.
    pub migration: &'a str,
    /// Its tables at the source, without partitions.
    pub tables: &'a [TableName],
    /// What decides whether a new table belongs to it.
    pub patterns: &'a Patterns,
    /// Names this attempt.
    pub nonce: &'a str,
    /// The migration's epoch when the attempt began.
    pub epoch: i64,
    /// How long the fence holds, counted from the try that succeeds.
    pub max_downtime: Duration,
    /// How long all tries together may take.
    pub budget: Duration,
    /// Where the database moves to, for the application's error message.
    pub target: &'a str,
}

/// An armed fence.
#[derive(Debug, Clone)]
pub struct Armed {
    /// By what it is known that everything before the fence is durable at the target.
    pub drained_by: DrainedBy,
    /// When it lets go by itself, by the source's clock.
    pub deadline: Timestamp,
    /// When the successful try began to ask for locks: from here on writers waited or were refused.
    pub since: Instant,
    /// Tries it took.
    pub tries: u32,
    /// Relations that carry it, partitions included.
    pub relations: usize,
}

/// What says that everything before a fence is durable at the target.
#[derive(Debug, Clone, PartialEq)]
pub enum DrainedBy {
    /// A marker in the stream, of which the applier takes note.
    Marker,
    /// The checkpoint, when it has reached this position, which was read behind the fence.
    Position(Position),
}

/// The word in `cutwater.fence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceStep {
    /// Refuses until the deadline.
    Armed,
    /// Refuses for good: the cutover is past its point of no return.
    Permanent,
    /// Was taken back.
    Lifted,
}

/// What the source says of a fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FenceState {
    /// Which attempt.
    pub nonce: String,
    /// What it is.
    pub step: FenceStep,
    /// When an armed one lets go, by the source's clock.
    pub deadline: Option<Timestamp>,
    /// Whether writes are refused now.
    pub refuses: bool,
}

/// What is behind the fence: the position that was read there, and the tables that must not change after it.
#[derive(Debug, Clone)]
pub struct Behind {
    /// Everything before the fence.
    pub position: Position,
    /// The migrated tables.
    pub tables: Vec<Arc<TableSchema>>,
}

/// What the journal, which is at the target, knows of the newest attempt: for an engine whose source cannot say all of it.
#[derive(Debug, Clone)]
pub struct Journalled {
    /// Which attempt.
    pub nonce: String,
    /// It says that the point of no return is passed.
    pub passed: bool,
    /// What was behind its fence, if it got as far as being drained.
    pub behind: Option<Behind>,
}

/// How the point of no return went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is passed. What somebody should do, if the fence needs a hand to outlive the server's restart.
    Permanent(Option<String>),
    /// It is not: the fence had expired, was lifted, or is another attempt's. Nothing was changed.
    Expired,
    /// It is not: this came past the fence. [`AnyFence::lift`] takes back what was changed.
    Broken(String),
}

/// A fence, and the sessions that take and hold it.
pub enum AnyFence {
    /// Of a Postgres server.
    Postgres(PgFence),
    /// Of a MySQL or MariaDB server.
    MySql(Box<MyFence>),
}

/// Asks the engine.
macro_rules! ask {
    ($any:ident, $fence:ident => $answer:expr) => {
        match $any {
            AnyFence::Postgres($fence) => $answer,
            AnyFence::MySql($fence) => $answer,
        }
    };
}

impl AnyFence {
    /// Connects; takes nothing yet.
    pub async fn open(source: &AnySource, migration: &str, config: &CutoverConfig) -> Result<AnyFence> {
        Ok(match source {
            AnySource::Postgres(source) => AnyFence::Postgres(PgFence::open(source.info(), migration).await?),
            AnySource::MySql(source) => AnyFence::MySql(Box::new(MyFence::open(source, config).await?)),
        })
    }

    /// The source's clock.
    pub async fn clock(&mut self) -> Result<Timestamp> {
        ask!(self, fence => fence.clock().await)
    }

    /// Takes the fence, in as many tries as the budget allows; then [`Kind::Transient`], naming who is in the way.
    ///
    /// Dropping the future leaves the sessions in an unknown place: [`AnyFence::lift`] of another one ends them.
    pub async fn arm(&mut self, request: &Request<'_>) -> Result<Armed> {
        ask!(self, fence => fence.arm(request).await)
    }

    /// The point of no return. An error may mean that the outcome is unknown: end the sessions
    /// ([`AnyFence::end_others`] of another one) and read [`AnyFence::state`].
    pub async fn make_permanent(&mut self, request: &Request<'_>, behind: Option<&Behind>) -> Result<Outcome> {
        match self {
            AnyFence::Postgres(fence) => fence.make_permanent(request).await,
            AnyFence::MySql(fence) => {
                let missing = || Error::new(Kind::Internal, "what is behind the fence was never noted");
                fence.make_permanent(request, behind.ok_or_else(missing)?).await
            }
        }
    }

    /// Ends every other session of an attempt, and waits until they are gone: what they have not done by then they never
    /// will.
    pub async fn end_others(&mut self) -> Result<()> {
        ask!(self, fence => fence.end_others().await)
    }

    /// Takes an attempt's fence back: writes pass from here on. Refused if it is permanent; nothing to do if another
    /// attempt has taken over or none was armed. Sessions of it that may still be there are ended first.
    pub async fn lift(&mut self, nonce: &str) -> Result<()> {
        ask!(self, fence => fence.lift(nonce).await)
    }

    /// What the source says about the migration's fence; `None` if there never was one.
    pub async fn state(&mut self, journalled: Option<&Journalled>) -> Result<Option<FenceState>> {
        match self {
            AnyFence::Postgres(fence) => fence.state().await,
            AnyFence::MySql(fence) => fence.state(journalled).await,
        }
    }

    /// In words, what it would be made of.
    pub async fn words(&mut self, tables: &[TableName]) -> Result<String> {
        ask!(self, fence => fence.words(tables).await)
    }

    /// In words, who is in its way.
    pub async fn blockers(&mut self, tables: &[TableName]) -> Result<Vec<String>> {
        ask!(self, fence => fence.blockers(tables).await)
    }
}

/// What [`remove`] would remove.
pub async fn made(source: &AnySource, config: &CutoverConfig) -> Result<Vec<String>> {
    match source {
        // Part of `Source::teardown`.
        AnySource::Postgres(_) => Ok(Vec::new()),
        AnySource::MySql(source) => MyFence::open(source, config).await?.made().await,
    }
}

/// Removes a fence that takes a command of the config to be removed, whatever its state, and says what was removed.
pub async fn remove(source: &AnySource, config: &CutoverConfig) -> Result<Vec<String>> {
    match source {
        AnySource::Postgres(_) => Ok(Vec::new()),
        AnySource::MySql(source) => MyFence::open(source, config).await?.remove().await,
    }
}

/// Whether the catalogue holds exactly the migrated tables: one that matches the patterns and was not copied would be
/// writable through the fence, and lost (TRAPS 19).
pub(super) fn exactly(now: &[TableName], tables: &[TableName], patterns: &Patterns) -> Result<()> {
    let commands = |tables: &[&TableName]| tables.iter().map(|t| t.pattern()).collect::<Vec<_>>().join(" ");
    let names = |tables: Vec<&TableName>| tables.iter().map(|t| t.to_string()).collect::<Vec<_>>().join(", ");
    let new: Vec<_> = now.iter().filter(|t| patterns.includes(t) && !tables.contains(t)).collect();
    if !new.is_empty() {
        let why = format!("new since the migration began, and not migrated: {}", names(new.clone()));
        return Err(Error::new(Kind::Schema, why)
            .fix(format!("cutwater tables add {}   or exclude them in [source] tables", commands(&new))));
    }
    let gone: Vec<_> = tables.iter().filter(|t| !now.contains(t)).collect();
    if !gone.is_empty() {
        let fix = format!("cutwater tables remove {}", commands(&gone));
        let why = format!("gone from the source since the migration began: {}", names(gone));
        return Err(Error::new(Kind::Schema, why).fix(fix));
    }
    Ok(())
}
