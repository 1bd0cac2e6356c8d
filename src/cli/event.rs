//! Who did what: one row in `cutwater.event` when a command that changes something starts, and one when it ends.

use crate::error::{Error, Kind, Result};
use crate::target::state::Event;
use crate::target::state::State;

/// Writes a row. A command never fails because its row could not be written: the log says so instead.
pub async fn record(state: &State, command: &str, outcome: &str) {
    if let Err(error) = state.record(&event(command, outcome)).await {
        tracing::debug!(%error, command, outcome, "could not write the event log");
    }
}

/// Writes how a command ended, and hands its result on.
pub async fn ended<T>(state: &State, command: &str, result: Result<T>) -> Result<T> {
    record(state, command, &result.as_ref().map_or_else(outcome, |_| "done".to_owned())).await;
    result
}

fn outcome(error: &Error) -> String {
    match error.kind() {
        Kind::Refused => "refused".to_owned(),
        Kind::Undone => "undone".to_owned(),
        _ => format!("error: {}", error.message()),
    }
}

/// A row of this process.
pub fn event(command: &str, outcome: &str) -> Event {
    let os_user = std::env::var("USER")
        .ok()
        .filter(|user| !user.is_empty())
        .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    Event {
        at: None,
        os_user,
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: command.to_owned(),
        outcome: outcome.to_owned(),
    }
}
