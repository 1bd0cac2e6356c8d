//! The lag, measured end to end: how long until what is at the source now is durable at the target.

use std::time::{Duration, Instant};

use super::{Look, Verdict};
use crate::error::Result;
use crate::source::Source;

/// How long the hold may be looked for, beyond its own length.
const PATIENCE: Duration = Duration::from_secs(5);

/// Below `--max-lag` without a break for `--hold`.
pub(super) async fn low(look: &Look<'_>) -> Result<Verdict> {
    let (limit, hold) = (look.options.max_lag, look.options.hold);
    let give_up = Instant::now() + hold + PATIENCE;
    let mut since = Instant::now();
    let mut worst = Duration::ZERO;
    loop {
        match sample(look, limit).await? {
            Some(lag) => {
                worst = worst.max(lag);
                if since.elapsed() >= hold {
                    return Ok(Verdict::open(format!("lag {:.1} s", worst.as_secs_f64())));
                }
                tokio::time::sleep(Duration::from_millis(100).min(hold)).await;
            }
            None => {
                (since, worst) = (Instant::now(), Duration::ZERO);
                if Instant::now() >= give_up {
                    return closed(look, limit, hold).await;
                }
            }
        }
        if Instant::now() >= give_up + hold {
            return closed(look, limit, hold).await;
        }
    }
}

async fn closed(look: &Look<'_>, limit: Duration, hold: Duration) -> Result<Verdict> {
    let reported = look.parts.ends.state.run().await?.and_then(|(report, _)| report.lag_seconds);
    let now = reported.map_or_else(String::new, |lag| format!(" (the run says {lag:.1} s)"));
    let limit = limit.as_secs_f64();
    Ok(Verdict::closed(
        format!("the lag does not stay below {limit:.1} s for {:.1} s{now}", hold.as_secs_f64()),
        "cutwater status shows why; or allow more: --max-lag",
    ))
}

/// Takes the source's head and the time until the checkpoint has reached it; `None` if that takes longer than `limit`.
async fn sample(look: &Look<'_>, limit: Duration) -> Result<Option<Duration>> {
    let head = look.parts.ends.source.head_of_seen().await?;
    let started = Instant::now();
    loop {
        let checkpoint = look.parts.ends.state.checkpoint().await?;
        if checkpoint.is_some_and(|checkpoint| checkpoint.position.reaches(&head)) {
            return Ok(Some(started.elapsed()).filter(|lag| *lag <= limit));
        }
        if started.elapsed() > limit {
            return Ok(None);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
