//! Reading behind the stream: the wait for a position that covers what was just seen at the source
//! ([`crate::source::Source::head_of_seen`]).

use std::time::{Duration, Instant};

use crate::change::Position;
use crate::error::Result;
use crate::target::state::Health;
use crate::target::state::State;

/// A `run` whose heartbeat is older than this is taken for dead.
pub const ALIVE_SECONDS: f64 = 10.0;
/// A checkpoint that has not moved for this long will not move because we wait.
const STUCK: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Whether the target got there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// Everything up to the position is durable at the target.
    Yes,
    /// It is not, and nobody is going to change that soon; why.
    No(String),
}

/// Waits until the checkpoint has reached `head`, as long as a run is alive and moves.
pub async fn wait(state: &State, head: &Position) -> Result<Reached> {
    let mut last: Option<Position> = None;
    let mut moved = Instant::now();
    let mut asked: Option<Instant> = None;
    loop {
        let at = state.checkpoint().await?.map(|checkpoint| checkpoint.position);
        if at.as_ref().is_some_and(|at| at >= head) {
            return Ok(Reached::Yes);
        }
        if at != last {
            (last, moved) = (at.clone(), Instant::now());
        }
        let place = at.map_or_else(|| "nothing".to_owned(), |at| at.to_string());
        if moved.elapsed() > STUCK {
            return Ok(Reached::No(format!("the target has not moved for {} s: it is at {place}", STUCK.as_secs())));
        }
        if asked.is_none_or(|asked| asked.elapsed() > Duration::from_secs(1)) {
            if let Some(why) = not_running(state).await? {
                return Ok(Reached::No(format!("{why}, and the target is at {place} of {head}")));
            }
            if state.control().await?.apply_paused_at.is_some() {
                return Ok(Reached::No(format!("the run is paused (cutwater resume), and the target is at {place}")));
            }
            asked = Some(Instant::now());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Why nobody applies changes; `None` if a run is alive.
pub async fn not_running(state: &State) -> Result<Option<String>> {
    Ok(match state.run().await? {
        None => Some("no run is alive".into()),
        Some((_, age)) if age > ALIVE_SECONDS => Some(format!("no run is alive (last heard of {age:.0} s ago)")),
        Some((report, _)) => match report.health {
            Health::Ok | Health::Stalled | Health::Paused => None,
            Health::Stopped => Some("the run was stopped".into()),
            Health::Error => {
                let error = report.trouble.map_or_else(String::new, |trouble| format!(": {}", trouble.error));
                Some(format!("the run has ended with an error{error}"))
            }
        },
    })
}
