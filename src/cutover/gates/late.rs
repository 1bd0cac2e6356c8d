//! What has to wait for the cutover can be made behind the fence: tried, and rolled back.

use std::time::Duration;

use super::{Look, Verdict};
use crate::error::Result;
use crate::target::postgres::late;

/// How long one look at the gates may search for rows without a parent. What was found to hold is not searched again.
const PROOF: Duration = Duration::from_secs(60);

/// Whether all of it can be made, in the time that is allowed.
pub(super) async fn can_be_made(look: &Look<'_>) -> Result<Verdict> {
    let state = &look.parts.ends.state;
    let waiting = state.late().await?;
    let trial = late::trial(look.target()?, state, &waiting, PROOF).await?;
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
    if took > look.options.max_downtime.as_secs_f64() * 0.5 {
        let why = format!("making {words} behind the fence takes about {took:.1} s");
        return Ok(Verdict::closed(why, format!("--max-downtime {:.0}s", (took * 4.0).ceil())));
    }
    let later = match trial.unproved {
        0 => String::new(),
        many => format!(" ({many} too large to look through now: validated once live)"),
    };
    Ok(Verdict::open(format!("{words} can be made{later}")))
}
