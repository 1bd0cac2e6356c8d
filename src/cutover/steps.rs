//! The steps of an attempt, and the order they have.
//!
//! [`carry_out`] knows the order and nothing else; [`Real`] does the steps, [`super::rehearsal::Rehearsal`] says what it
//! would do. So `--dry-run` cannot drift from the truth.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{CutoverReport, FinalVerify, Options, Parts, Progress, Reporter, journal, late, sequences, switch, views};
use crate::error::{Context, Error, Kind, Result};
use crate::schema::TableName;
use crate::source::AnyFence;
use crate::source::fence::{Armed, Behind, DrainedBy, FenceStep, Outcome, Request};
use crate::source::postgres::head;
use crate::target::Target;
use crate::target::state::{CutoverStep, Phase, TableStage};
use crate::verify::changed::{self, Scope};
use crate::verify::{self, behind, published};

const POLL: Duration = Duration::from_millis(10);
/// Between two tries to undo.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a target that may have died is tried to be told that the attempt was undone. Nothing depends on it.
const TELLING: Duration = Duration::from_secs(3);

/// What an attempt is made of.
pub(super) trait Steps {
    /// Journals the attempt, before anything is touched.
    async fn begin(&mut self) -> Result<()>;
    /// The source refuses writes, until the deadline.
    async fn fence(&mut self) -> Result<()>;
    /// How long everything up to the point of no return may take from here.
    fn time_left(&self) -> Duration;
    /// Waits until everything before the fence is durable at the target.
    async fn drain(&mut self) -> Result<()>;
    /// Compares both ends, which stand still.
    async fn verify(&mut self) -> Result<()>;
    /// Makes sure that no write came past the fence.
    async fn unbroken(&mut self) -> Result<()>;
    /// Sets the target's sequences past the source's.
    async fn sequences(&mut self) -> Result<()>;
    /// Makes the fence permanent.
    async fn point_of_no_return(&mut self) -> Result<Passed>;
    /// Moves the clients, and records that the target is live.
    async fn switch(&mut self, shutdown: &CancellationToken) -> Result<()>;
    /// Takes everything back; returns the error that ends the attempt.
    async fn undo(&mut self, why: Error) -> Error;
    /// What was done.
    fn report(self) -> CutoverReport;
}

/// How the point of no return went.
pub(super) enum Passed {
    /// It is passed.
    Yes,
    /// It is not, and never will be in this attempt.
    No(Error),
}

/// Carries an attempt out.
pub(super) async fn carry_out<S: Steps>(mut steps: S, shutdown: &CancellationToken) -> Result<CutoverReport> {
    let before = async {
        steps.begin().await?;
        steps.fence().await?;
        let limit = steps.time_left();
        let behind_the_fence = async {
            steps.drain().await?;
            steps.verify().await?;
            steps.unbroken().await?;
            steps.sequences().await
        };
        tokio::time::timeout(limit, behind_the_fence)
            .await
            .unwrap_or_else(|_| Err(Error::new(Kind::Transient, "the time allowed by --max-downtime was used up")))
    };
    let outcome = tokio::select! {
        outcome = before => outcome,
        () = shutdown.cancelled() => Err(Error::new(Kind::Interrupted, "interrupted")),
    };
    if let Err(why) = outcome {
        return Err(steps.undo(why).await);
    }
    // From here on nothing is dropped half-way: whether the source has passed the point must be known.
    match steps.point_of_no_return().await? {
        Passed::Yes => {}
        Passed::No(why) => return Err(steps.undo(why).await),
    }
    steps.switch(shutdown).await?;
    Ok(steps.report())
}

/// Does it.
pub(super) struct Real<'a> {
    parts: &'a Parts,
    options: &'a Options,
    report: Reporter<'a>,
    done: CutoverReport,
    epoch: i64,
    /// The sessions that arm the fence and make it permanent.
    fence: Option<AnyFence>,
    armed: Option<Armed>,
    /// What was read behind it, where that says when everything is drained.
    behind: Option<Behind>,
    /// When the fence's locks were first asked for: before it nothing was refused.
    asked: Option<Instant>,
}

impl<'a> Real<'a> {
    pub(super) fn new(parts: &'a Parts, options: &'a Options, report: Reporter<'a>) -> Self {
        let done = CutoverReport {
            nonce: format!("{:016x}", rand::random::<u64>()),
            max_downtime_ms: options.max_downtime.as_millis() as u64,
            ..CutoverReport::default()
        };
        Real { parts, options, report, done, epoch: 0, fence: None, armed: None, behind: None, asked: None }
    }

    fn fence(&mut self) -> Result<&mut AnyFence> {
        self.fence.as_mut().ok_or_else(|| Error::new(Kind::Internal, "the fence's session was never opened"))
    }

    /// Journals a step, unless somebody else has taken the attempt over.
    async fn journal(&self, from: CutoverStep, to: CutoverStep) -> Result<()> {
        if self.parts.ends.state.move_cutover(&self.done.nonce, &[from], to, None).await? {
            return Ok(());
        }
        Err(Error::new(Kind::Fenced, "another cutwater cutover has taken this attempt over or back"))
    }
}

impl Steps for Real<'_> {
    async fn begin(&mut self) -> Result<()> {
        let state = &self.parts.ends.state;
        let mut fence = self.parts.fence().await?;
        let now = fence.clock().await?;
        self.fence = Some(fence);
        let migration = state.migration().await?;
        self.epoch = migration.ok_or_else(|| Error::new(Kind::Refused, "nothing was migrated yet"))?.epoch;
        // The locks may take as long as the downtime itself; the armed row holds the exact deadline.
        let latest = now + 2 * self.options.max_downtime;
        state.begin_cutover(&self.done.nonce, latest).await?;
        // Only from here: a run that is catching up writes `streaming` when it is done, and would write over `draining`.
        if !state.move_phase(&[Phase::Streaming], Phase::Draining).await? {
            return Err(
                Error::new(Kind::Refused, "the migration is no longer in phase streaming").fix("cutwater status")
            );
        }
        // A request that a run took note of between the gates and here: from `draining` on none is.
        let tables = state.tables().await?;
        let carried = || tables.iter().filter(|table| table.stage.is_carried());
        let same = self.parts.covers(carried().map(|table| &table.source));
        if !same || carried().any(|table| table.stage != TableStage::Copied || table.unfinished) {
            return Err(Error::new(Kind::Refused, "the set of tables changed after the gates were looked at")
                .fix("run the same command again"));
        }
        (self.report)(&Progress::Fencing);
        Ok(())
    }

    async fn fence(&mut self) -> Result<()> {
        self.asked = Some(Instant::now());
        let (tables, target) = (self.parts.tables(), self.parts.ends.target.label());
        let nonce = self.done.nonce.clone();
        let request = request(self.parts, (&tables, &target), &nonce, self.epoch, self.options.max_downtime);
        let armed = self.fence()?.arm(&request).await?;
        if let DrainedBy::Position(position) = &armed.drained_by {
            self.behind = Some(self.parts.behind(position.clone()));
        }
        self.done.fence_tries = armed.tries;
        let (relations, tries) = (armed.relations, armed.tries);
        self.armed = Some(armed);
        self.journal(CutoverStep::Fencing, CutoverStep::Fenced).await?;
        (self.report)(&Progress::Fenced { relations, tries });
        Ok(())
    }

    fn time_left(&self) -> Duration {
        // A little is kept for the point of no return itself.
        let kept = (self.options.max_downtime / 10).min(Duration::from_secs(1));
        let used = self.armed.as_ref().map_or(Duration::ZERO, |armed| armed.since.elapsed());
        self.options.max_downtime.saturating_sub(used + kept)
    }

    async fn drain(&mut self) -> Result<()> {
        let state = &self.parts.ends.state;
        let started = Instant::now();
        let mut asked = started;
        loop {
            let attempt = state.cutover().await?.filter(|attempt| attempt.nonce == self.done.nonce);
            let attempt = attempt.ok_or_else(|| Error::new(Kind::Fenced, "another attempt was begun"))?;
            not_broken(attempt.broken)?;
            let drained = match &self.behind {
                None => attempt.drained_at.is_some(),
                Some(behind) => {
                    let checkpoint = state.checkpoint().await?;
                    checkpoint.is_some_and(|checkpoint| checkpoint.position.reaches(&behind.position))
                }
            };
            if drained {
                break;
            }
            if asked.elapsed() > Duration::from_secs(1) {
                asked = Instant::now();
                if let Some(why) = behind::not_running(state).await? {
                    return Err(Error::new(Kind::Transient, why).context("draining"));
                }
            }
            tokio::time::sleep(POLL).await;
        }
        if let Some(behind) = &self.behind {
            state.note_drained(&self.done.nonce, &behind.position).await?;
        }
        // This commit flushes the target's log, the applier's commits before it included (TRAPS 19).
        self.journal(CutoverStep::Fenced, CutoverStep::Drained).await?;
        self.done.drain_ms = Some(started.elapsed().as_millis() as u64);
        (self.report)(&Progress::Drained(started.elapsed()));
        Ok(())
    }

    async fn verify(&mut self) -> Result<()> {
        let options =
            verify::Options { fenced: true, workers: 4, budget: Some(self.time_left()), ..verify::Options::default() };
        let report = self.report;
        let progress = |_: &verify::TableReport, done: usize, total: usize| report(&Progress::Verifying(done, total));
        let Parts { ends, plan, .. } = self.parts;
        let last = ends.state.migration().await?.and_then(|migration| migration.verify);
        let found = match Scope::of(ends, plan, last.as_ref()).await? {
            Scope::Changed { keys, whole } => {
                self.done.final_verify = Some(FinalVerify::Changed);
                changed::run(ends, plan, &keys, &whole, &options, &progress).await
            }
            Scope::All(why) => {
                tracing::info!(why, "all rows are compared");
                self.done.final_verify = Some(FinalVerify::Full);
                // Interrupting it is carry_out's business.
                verify::run(ends, plan, &options, &progress, &CancellationToken::new()).await
            }
        };
        let found = found.context("comparing both ends behind the fence")?;
        self.done.verify_ms = Some(found.duration_ms);
        self.done.tables = found.tables.len() as u64;
        self.done.rows = found.rows();
        let unsettled: u64 = found.tables.iter().map(|table| table.unsettled).sum();
        if !found.clean() || unsettled > 0 {
            let tables = found.tables.iter().filter(|table| table.differing + table.unsettled > 0);
            let named = tables.map(|table| format!("{} ({})", table.source, table.differing)).collect::<Vec<_>>();
            let why = format!("{} rows differ between the ends: {}", found.differences(), named.join(", "));
            return Err(Error::new(Kind::Divergence, why).fix("cutwater verify names the rows"));
        }
        (self.report)(&Progress::Verified { tables: self.done.tables, rows: self.done.rows });
        Ok(())
    }

    async fn unbroken(&mut self) -> Result<()> {
        let behind = self.behind.clone();
        let Parts { ends, plan, .. } = self.parts;
        let fence = match self.fence()? {
            AnyFence::Postgres(fence) => fence,
            AnyFence::MySql(fence) => {
                let behind = behind.ok_or_else(|| Error::new(Kind::Internal, "nothing was read behind the fence"))?;
                return match fence.broken(&behind).await? {
                    None => Ok(()),
                    Some(what) => Err(broken(&what, "find out who wrote to the source in spite of it")),
                };
            }
        };
        let head = head::of_seen(fence.client()).await?;
        if let behind::Reached::No(why) = behind::wait(&ends.state, &head).await? {
            return Err(Error::new(Kind::Transient, why).context("reading on behind the fence"));
        }
        published::unbroken(fence.client(), ends, plan).await?;
        let attempt = ends.state.cutover().await?.filter(|attempt| attempt.nonce == self.done.nonce);
        not_broken(attempt.and_then(|attempt| attempt.broken))
    }

    async fn sequences(&mut self) -> Result<()> {
        self.done.sequences = sequences::carry_over(self.parts).await?;
        self.journal(CutoverStep::Drained, CutoverStep::Verified).await?;
        (self.report)(&Progress::Sequences(self.done.sequences));
        Ok(())
    }

    async fn point_of_no_return(&mut self) -> Result<Passed> {
        let (tables, target) = (self.parts.tables(), self.parts.ends.target.label());
        let (nonce, behind) = (self.done.nonce.clone(), self.behind.clone());
        let request = request(self.parts, (&tables, &target), &nonce, self.epoch, self.options.max_downtime);
        match self.fence()?.make_permanent(&request, behind.as_ref()).await {
            Ok(Outcome::Permanent(note)) => self.done.notes.extend(note),
            Ok(Outcome::Expired) => {
                let why = "the fence had expired, or was lifted by somebody else, before it could be made permanent";
                return Ok(Passed::No(Error::new(Kind::Transient, why)));
            }
            Ok(Outcome::Broken(what)) => {
                return Ok(Passed::No(broken(&what, "find out who wrote to the source in spite of it")));
            }
            Err(error) => {
                // The COMMIT may or may not have happened. Once the session is gone the row says which.
                let unknown = |e: Error| {
                    e.context(format!("{error}; whether the point of no return is passed is not known yet"))
                        .fix("run cutwater cutover again once the source answers: its fence's row decides")
                };
                let mut fence = self.parts.fence().await.map_err(unknown)?;
                fence.end_others().await.map_err(unknown)?;
                let attempt = self.parts.ends.state.cutover().await.map_err(unknown)?;
                let found = fence.state(self.parts.journalled(attempt.as_ref()).as_ref()).await.map_err(unknown)?;
                if !found.is_some_and(|f| f.step == FenceStep::Permanent && f.nonce == nonce) {
                    return Ok(Passed::No(error));
                }
            }
        }
        (self.report)(&Progress::Permanent);
        Ok(Passed::Yes)
    }

    async fn switch(&mut self, shutdown: &CancellationToken) -> Result<()> {
        let since = self.armed.as_ref().map(|armed| armed.since);
        go_forward(self.parts, &mut self.done, since, self.report, shutdown).await
    }

    async fn undo(&mut self, why: Error) -> Error {
        self.fence = None;
        let (parts, note, nonce) = (self.parts, why.message(), &self.done.nonce);
        // The source first: it refuses writes until its fence is lifted. The target may be what died.
        let lifted = insist(self.options.max_downtime.min(Duration::from_secs(20)), || async {
            parts.fence().await?.lift(nonce).await
        })
        .await;
        let refused = match (&self.armed, self.asked) {
            (Some(armed), _) => format!("writes were refused for {:.1} s", armed.since.elapsed().as_secs_f64()),
            (None, Some(_)) => "no write was refused".into(),
            (None, None) => "nothing was touched".into(),
        };
        let text = match lifted {
            Ok(()) => {
                let text = format!("{note}; {refused}, and the source takes them again");
                match insist(TELLING, || journal::note_undone(parts, nonce, &note)).await {
                    Ok(()) => text,
                    Err(error) => format!(
                        "{text}; the target could not be told ({}): the next cutwater cutover, or --abort, does it",
                        error.message()
                    ),
                }
            }
            Err(error) if error.kind() == Kind::Refused => return error,
            Err(error) => {
                let deadline = self.armed.as_ref().map_or_else(String::new, |armed| format!(" at {}", armed.deadline));
                format!("{note}; the fence could not be lifted ({}) and lets go by itself{deadline}", error.message())
            }
        };
        (self.report)(&Progress::Undone(&text));
        let undone = Error::new(Kind::Undone, text).context("the cutover was undone");
        match why.suggestion() {
            Some(fix) => undone.fix(fix),
            None => undone,
        }
    }

    fn report(self) -> CutoverReport {
        self.done
    }
}

/// Tries until it works, is refused, or the time is over. The last try's error tells why.
async fn insist<F: Future<Output = Result<()>>>(time: Duration, attempt: impl Fn() -> F) -> Result<()> {
    let until = tokio::time::Instant::now() + time;
    let mut last = Error::new(Kind::Transient, "no answer in time");
    loop {
        match tokio::time::timeout_at(until, attempt()).await {
            Ok(Err(error)) if error.kind() != Kind::Refused => last = error,
            Ok(done) => return done,
            Err(_) => return Err(last),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn not_broken(what: Option<String>) -> Result<()> {
    match what {
        None => Ok(()),
        Some(what) => Err(broken(&what, "find out who wrote to the source without passing its triggers")),
    }
}

fn broken(what: &str, fix: &str) -> Error {
    Error::new(Kind::Divergence, format!("a write came past the fence: {what}")).fix(fix)
}

fn request<'a>(
    parts: &'a Parts,
    (tables, target): (&'a [TableName], &'a str),
    nonce: &'a str,
    epoch: i64,
    max_downtime: Duration,
) -> Request<'a> {
    Request {
        migration: parts.name(),
        tables,
        patterns: &parts.patterns,
        nonce,
        epoch,
        max_downtime,
        budget: max_downtime,
        target,
    }
}

/// From the point of no return to the end. Every part may be repeated.
pub(super) async fn go_forward(
    parts: &Parts,
    done: &mut CutoverReport,
    since: Option<Instant>,
    report: Reporter<'_>,
    shutdown: &CancellationToken,
) -> Result<()> {
    let forward = |error: Error| {
        error
            .context("past the point of no return, the source refuses writes for good")
            .fix("run cutwater cutover again: it goes forward from here")
    };
    let state = &parts.ends.state;
    let before = [journal::BEFORE_THE_POINT.as_slice(), &[CutoverStep::Switching]].concat();
    let journalled = state.move_cutover(&done.nonce, &before, CutoverStep::Switching, None).await.map_err(forward)?;
    if !journalled {
        return Err(forward(Error::new(Kind::Internal, "the journal does not know this attempt any more")));
    }
    late::make(parts, done, report).await.map_err(forward)?;
    report(&Progress::Switching(parts.config.switch_command.as_deref()));
    switch::run(parts, done, shutdown).await.map_err(forward)?;
    let downtime = since.map(|since| since.elapsed());
    done.downtime_ms = downtime.map(|downtime| downtime.as_millis() as u64);
    let from = [Phase::Draining, Phase::Streaming, Phase::CatchingUp];
    state.move_phase(&from, Phase::TargetLive).await.map_err(forward)?;
    let note = done.downtime_ms.map(|ms| format!("writes refused for {ms} ms"));
    state
        .move_cutover(&done.nonce, &[CutoverStep::Switching], CutoverStep::Done, note.as_deref())
        .await
        .map_err(forward)?;
    report(&Progress::Done(downtime));
    tidy_up(parts, done, report, shutdown).await.map_err(|error| {
        error.context("the target is live").fix("run cutwater cutover again: it goes on with what is left to do")
    })
}

/// What is better done while the target is live than while writes wait. May be repeated.
pub(super) async fn tidy_up(
    parts: &Parts,
    done: &mut CutoverReport,
    report: Reporter<'_>,
    shutdown: &CancellationToken,
) -> Result<()> {
    views::refresh(parts, done, report, shutdown).await?;
    late::validate(parts, done, report, shutdown).await
}
