//! What `pause`, `resume` and `set` share: the order, the answer, the line about what holds now.

use std::fmt::Write;

use serde_json::json;

use super::{Context, Ended, event, output};
use crate::error::Result;
use crate::pipeline::ask::{self, Asked};
use crate::target::state::State;
use crate::target::state::{Control, Order};
use crate::target::{AnyTarget, Target};

/// Asks, waits for the run, prints `headline` and what holds now.
pub(super) async fn give(context: &Context, command: &str, order: &Order, headline: &str) -> Result<Ended> {
    let config = context.config()?;
    let state = state(context)?;
    let me = event::event(command, "");
    let asked = ask::ask(&state, order, &format!("{}@{}", me.os_user, me.host), ask::PATIENCE).await;
    let asked = event::ended(&state, command, asked).await?;
    if context.global.json {
        output::print_json(&json!({
            "migration": config.migration.name,
            "command": command,
            "accepted": asked.taken_by.is_some(),
            "run": asked.taken_by,
            "snapshot_paused_at": asked.control.snapshot_paused_at,
            "apply_paused_at": asked.control.apply_paused_at,
            "paused_by": asked.control.paused_by,
            "settings": asked.control.settings,
        }))?;
    } else {
        output::print(&render(&config.migration.name, headline, &asked));
    }
    Ok(Ended::Done)
}

/// The state of the config's migration.
pub(super) fn state(context: &Context) -> Result<State> {
    Ok(AnyTarget::of(&context.config()?)?.state().clone())
}

fn render(name: &str, headline: &str, asked: &Asked) -> String {
    let taken = match &asked.taken_by {
        Some(run) => format!("accepted by the run on {run}"),
        None => "no run is alive: the next one takes it up before it begins".to_owned(),
    };
    format!("{name}  {headline}: {taken}\n\n{}", holds(&asked.control))
}

/// What is asked of the run, in a few lines.
pub(super) fn holds(control: &Control) -> String {
    let mut out = String::new();
    for (what, since) in [("copy", control.snapshot_paused_at), ("apply", control.apply_paused_at)] {
        if let Some(since) = since {
            let by = control.paused_by.as_deref().unwrap_or("somebody");
            let _ = writeln!(out, "{what:<9} paused since {} UTC by {by}", since.strftime("%Y-%m-%d %H:%M:%S"));
        }
    }
    for (key, value) in &control.settings {
        let _ = writeln!(out, "set       {key} = {value}   (before the file's)");
    }
    if out.is_empty() {
        out.push_str("Nothing is paused, and every setting is the file's.");
    } else if control.snapshot_paused_at.is_some() || control.apply_paused_at.is_some() {
        out.push_str("\nIt survives a restart of run. It goes on with: cutwater resume");
    }
    out
}
