//! What an attempt leaves behind, read back: the journal in the target and the fence's row at the source.

use std::time::{Duration, Instant};

use super::{Parts, Progress, Reporter};
use crate::error::{Context, Error, Kind, Result};
use crate::mysql;
use crate::postgres;
use crate::source::AnyFence;
use crate::source::fence::FenceStep;
use crate::target::AnyTarget;
use crate::target::state::{CutoverStep, Phase};

/// Where a new driver finds itself.
pub(super) enum Standing {
    /// Nothing is under way (any more).
    Clear,
    /// An attempt is past its point of no return and not finished.
    PastThePoint(String),
    /// The target is live.
    Done(String),
}

/// Steps from which an attempt is undone.
pub(super) const BEFORE_THE_POINT: [CutoverStep; 4] =
    [CutoverStep::Fencing, CutoverStep::Fenced, CutoverStep::Drained, CutoverStep::Verified];

/// Whether an attempt at this step may still be undone.
pub(super) fn unfinished(step: CutoverStep) -> bool {
    BEFORE_THE_POINT.contains(&step)
}

/// How long the session of a driver that has just died may take to be noticed by the target.
const LAST_BREATH: Duration = Duration::from_secs(5);

/// A session at the target that holds the lock by which a driver is the only one.
pub(super) enum Alone {
    Postgres(postgres::Client),
    MySql(Box<mysql::Session>),
}

impl Alone {
    async fn open(parts: &Parts) -> Result<Alone> {
        let name = format!("cutwater_{}_cutover", parts.name());
        Ok(match &parts.ends.target {
            AnyTarget::Postgres(target) => Alone::Postgres(postgres::connect(target.info(), &name).await?),
            AnyTarget::MySql(target) => Alone::MySql(Box::new(mysql::connect(target.info(), &name).await?)),
        })
    }

    async fn try_lock(&mut self, migration: &str) -> Result<bool> {
        match self {
            Alone::Postgres(client) => {
                let sql = "SELECT pg_try_advisory_lock(6002, hashtext($1))";
                Ok(client.query_one(sql, &[&migration]).await?.get(0))
            }
            Alone::MySql(session) => {
                let rows =
                    session.rows_with("SELECT GET_LOCK(?, 0)", (format!("cutwater_{migration}_cutover"),)).await?;
                Ok(rows.first().and_then(|row| row.first().cloned().flatten()).as_deref() == Some("1"))
            }
        }
    }
}

/// Makes this driver the only one, as long as the session lives.
pub(super) async fn alone(parts: &Parts) -> Result<Alone> {
    let mut session = Alone::open(parts).await?;
    let begun = Instant::now();
    loop {
        if session.try_lock(parts.name()).await.context("looking for another cutover")? {
            return Ok(session);
        }
        if begun.elapsed() > LAST_BREATH {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(Error::new(Kind::Refused, "another cutwater cutover of this migration is running")
        .fix("wait for it, or take it back: cutwater cutover --abort"))
}

/// Finds out what became of the last attempt, and undoes it if it stopped before its point of no return. The source's
/// row decides: a driver may have died between making the fence permanent and journalling that.
pub(super) async fn settle(parts: &Parts, dry_run: bool, report: Reporter<'_>) -> Result<Standing> {
    let mut source = parts.fence().await?;
    let attempt = parts.ends.state.cutover().await?;
    let fence = source.state(parts.journalled(attempt.as_ref()).as_ref()).await?;
    let permanent = fence.as_ref().filter(|fence| fence.step == FenceStep::Permanent);
    if let Some(fence) = permanent {
        return match attempt {
            Some(attempt) if attempt.nonce != fence.nonce => Err(Error::new(
                Kind::Internal,
                format!("the source is fenced for good by attempt {}, the journal's is {}", fence.nonce, attempt.nonce),
            )
            .fix("the target's state was restored from before the cutover: do not go on without knowing which side is live")),
            Some(attempt) if attempt.step == CutoverStep::Done => Ok(Standing::Done(attempt.nonce)),
            Some(attempt) => {
                report(&Progress::Settled("an attempt is past its point of no return: going forward"));
                Ok(Standing::PastThePoint(attempt.nonce))
            }
            None => Err(Error::new(Kind::Internal, "the source is fenced for good, and the target knows of no cutover")
                .fix("is [target] url the target of this migration?")),
        };
    }
    if let Some(attempt) = attempt.as_ref().filter(|a| matches!(a.step, CutoverStep::Switching | CutoverStep::Done)) {
        return Err(Error::new(
            Kind::Internal,
            format!("the journal says {} and the source's fence is not permanent", attempt.step.as_str()),
        )
        .fix("the source was restored or failed over after the cutover: it may take writes; do not go on before that is clear"));
    }
    let armed = fence.filter(|fence| fence.step == FenceStep::Armed).map(|fence| fence.nonce);
    let open = attempt.filter(|attempt| unfinished(attempt.step)).map(|attempt| attempt.nonce);
    let left: Vec<String> = armed.into_iter().chain(open).collect();
    if left.is_empty() {
        return Ok(Standing::Clear);
    }
    if dry_run {
        report(&Progress::Would("undo an earlier attempt that stopped before its point of no return"));
        return Ok(Standing::Clear);
    }
    for nonce in left {
        undo(parts, &mut source, &nonce, "its driver ended before the point of no return").await?;
    }
    report(&Progress::Settled("an earlier attempt had stopped before its point of no return: it was undone"));
    Ok(Standing::Clear)
}

/// Lifts the fence, then journals that: in this order, so that an undone attempt never has a fence.
pub(super) async fn undo(parts: &Parts, source: &mut AnyFence, nonce: &str, why: &str) -> Result<()> {
    source.lift(nonce).await?;
    note_undone(parts, nonce, why).await
}

/// Journals that an attempt was taken back. The phase goes first: a driver that dies between the two leaves an attempt
/// that the next one undoes again, and not a migration that drains for nobody.
pub(super) async fn note_undone(parts: &Parts, nonce: &str, why: &str) -> Result<()> {
    let state = &parts.ends.state;
    state.move_phase(&[Phase::Draining], Phase::Streaming).await?;
    state.move_cutover(nonce, &BEFORE_THE_POINT, CutoverStep::Undone, Some(why)).await?;
    Ok(())
}
