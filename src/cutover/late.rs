//! The foreign keys and triggers that the copy left out, because nothing could have switched them off
//! ([`crate::target::postgres::late`]): proved before the fence ([`super::gates`]), made past the point of no return, validated while the
//! target is live.

use tokio_util::sync::CancellationToken;

use super::{CutoverReport, Parts, Progress, Reporter};
use crate::error::{Context, Result};
use crate::postgres::{Client, connect};
use crate::target::postgres::late;

/// What waits is of a Postgres target; for another one nothing was recorded.
async fn target(parts: &Parts) -> Result<Option<Client>> {
    match parts.postgres_target() {
        Some(info) => Ok(Some(connect(info, &format!("cutwater_{}_late", parts.name())).await?)),
        None => Ok(None),
    }
}

/// What would be made now, in words.
pub(super) async fn waiting(parts: &Parts) -> Result<Option<String>> {
    let Some(client) = target(parts).await? else { return Ok(None) };
    let missing = late::missing(&client, &parts.ends.state.late().await?).await?;
    Ok(late::count(&missing))
}

/// Makes them: the target holds all there is, nothing is applied any more, and no client writes to it yet.
pub(super) async fn make(parts: &Parts, done: &mut CutoverReport, report: Reporter<'_>) -> Result<()> {
    let Some(client) = target(parts).await? else { return Ok(()) };
    let waiting = parts.ends.state.late().await?;
    if waiting.is_empty() {
        return Ok(());
    }
    done.late_made = late::make(&client, &waiting).await.context("making foreign keys and triggers")?;
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
    let Some(client) = target(parts).await? else { return Ok(()) };
    let made = parts.ends.state.late().await?;
    if made.is_empty() {
        return Ok(());
    }
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
