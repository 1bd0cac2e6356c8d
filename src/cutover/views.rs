//! The materialized views ([`crate::target::postgres::views`]): their rows are of the moment they were filled, and made
//! anew once the target is live. Not before: it would count as downtime, and nothing of the source's is missing without it.

use tokio_util::sync::CancellationToken;

use super::{CutoverReport, Parts, Progress, Reporter};
use crate::error::{Error, Kind, Result};
use crate::postgres::{Client, connect};
use crate::target::postgres::views::{self, View};

/// Only a Postgres target has them.
async fn target(parts: &Parts) -> Result<Option<Client>> {
    match parts.postgres_target() {
        Some(info) => Ok(Some(connect(info, &format!("cutwater_{}_views", parts.name())).await?)),
        None => Ok(None),
    }
}

/// Those that will be refreshed.
pub(super) async fn stale(parts: &Parts) -> Result<Vec<View>> {
    match target(parts).await? {
        Some(client) => parts.ends.state.stale_views(&client).await,
        None => Ok(Vec::new()),
    }
}

/// Refreshes them while clients work on the target. What fails is reported and is no error: the cutover is done.
pub(super) async fn refresh(
    parts: &Parts,
    done: &mut CutoverReport,
    report: Reporter<'_>,
    shutdown: &CancellationToken,
) -> Result<()> {
    let Some(client) = target(parts).await? else { return Ok(()) };
    let stale = parts.ends.state.stale_views(&client).await?;
    if stale.is_empty() {
        return Ok(());
    }
    report(&Progress::Refreshing(stale.len()));
    let silent = |_: &str, _: Option<bool>| {};
    let refreshed = tokio::select! {
        refreshed = views::refresh(&client, &parts.ends.state, &silent) => refreshed,
        () = shutdown.cancelled() => Err(Error::new(Kind::Interrupted, "interrupted")),
    };
    let (left, interrupted) = match refreshed {
        Ok(refreshed) => (refreshed.failed, None),
        // Which of them were done is in the state.
        Err(error) => (self::stale(parts).await.unwrap_or_else(|_| stale.clone()), Some(error.why().to_owned())),
    };
    done.views_refreshed = (stale.len() - left.len()) as u64;
    done.views_stale = left
        .iter()
        .map(|view| {
            let why = interrupted.as_deref().or(view.error.as_deref()).unwrap_or_default();
            format!("{}: {why}; on the target   {}", view.label(), view.statement())
        })
        .collect();
    Ok(())
}
