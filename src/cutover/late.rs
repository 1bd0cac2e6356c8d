//! The foreign keys and triggers that the copy left out, because nothing could have switched them off
//! ([`crate::target::postgres::late`]): proved before the fence, made past the point of no return, validated while the
//! target is live.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::gates::Verdict;
use super::{CutoverReport, Parts, Progress, Reporter};
use crate::error::{Context, Result};
use crate::postgres::{Client, connect};
use crate::target::postgres::late;

/// How long one look at the gates may search for rows without a parent. What was found to hold is not searched again.
const PROOF: Duration = Duration::from_secs(60);

async fn target(parts: &Parts) -> Result<Client> {
    connect(&parts.ends.target, &format!("cutwater_{}_late", parts.name())).await
}

/// Whether all of it can be made, in the time that is allowed.
pub(super) async fn gate(parts: &Parts, client: &Client, max_downtime: Duration) -> Result<Verdict> {
    let state = &parts.ends.state;
    let waiting = state.late().await?;
    let trial = late::trial(client, state, &waiting, PROOF).await?;
    let Some(words) = trial.waiting else { return Ok(Verdict::open("foreign keys and triggers")) };
    if !trial.refused.is_empty() {
        let fix = "on the target, give the role of [target] url what is missing; or wait for the lock";
        return Ok(Verdict::Closed { details: trial.refused, fix: fix.into() });
    }
    if !trial.orphans.is_empty() {
        let fix = "the source holds such rows too: correct them there, or make its foreign key NOT VALID";
        return Ok(Verdict::Closed { details: trial.orphans, fix: fix.into() });
    }
    let took = trial.took.as_secs_f64();
    if took > max_downtime.as_secs_f64() * 0.5 {
        let why = format!("making {words} behind the fence takes about {took:.1} s");
        return Ok(Verdict::closed(why, format!("--max-downtime {:.0}s", (took * 4.0).ceil())));
    }
    let later = match trial.unproved {
        0 => String::new(),
        many => format!(" ({many} too large to look through now: validated once live)"),
    };
    Ok(Verdict::open(format!("{words} can be made{later}")))
}

/// What would be made now, in words.
pub(super) async fn waiting(parts: &Parts) -> Result<Option<String>> {
    let client = target(parts).await?;
    let missing = late::missing(&client, &parts.ends.state.late().await?).await?;
    Ok(late::count(&missing))
}

/// Makes them: the target holds all there is, nothing is applied any more, and no client writes to it yet.
pub(super) async fn make(parts: &Parts, done: &mut CutoverReport, report: Reporter<'_>) -> Result<()> {
    let waiting = parts.ends.state.late().await?;
    if waiting.is_empty() {
        return Ok(());
    }
    done.late_made = late::make(&target(parts).await?, &waiting).await.context("making foreign keys and triggers")?;
    report(&Progress::LateMade(done.late_made));
    Ok(())
}

/// Validates what was made, while clients work on the target. What cannot be validated is reported and is no error: the
/// cutover is done, and every new row is checked.
pub(super) async fn validate(
    parts: &Parts,
    done: &mut CutoverReport,
    report: Reporter<'_>,
    shutdown: &CancellationToken,
) -> Result<()> {
    let made = parts.ends.state.late().await?;
    if made.is_empty() {
        return Ok(());
    }
    let client = target(parts).await?;
    let open = late::unvalidated(&client, &made).await?;
    if open.is_empty() {
        return Ok(());
    }
    report(&Progress::Validating(open.len()));
    match late::validate(&client, &made, shutdown).await {
        Ok(validated) => {
            done.validated = validated.done;
            done.not_validated = validated.open;
        }
        Err(error) => {
            done.not_validated = open.iter().map(|late| format!("{}: {}", late.label(), error.why())).collect();
        }
    }
    Ok(())
}
