//! `cutwater teardown`: removes what the migration made at both ends. The data stays where it is.
//!
//! Refused while a run is alive, and after a cutover unless asked for by name: with the fence gone the old source would
//! accept writes again, and they would be lost. The source goes first: if it cannot be reached the state stays, and the
//! same command finishes the work later.

use serde_json::json;

use super::args::TeardownArgs;
use super::{Context, Ended, event, output};
use crate::error::{Context as _, Error, Kind, Result};
use crate::pipeline::{Job, belongs};
use crate::source::{Source, fence};
use crate::target::Target;
use crate::target::state::State;
use crate::target::state::{CutoverStep, Phase};

pub(super) async fn run(context: &Context, args: &TeardownArgs) -> Result<Ended> {
    let config = context.config()?;
    let name = &config.migration.name;
    let Job { source, target, .. } = Job::open(config.clone())?;
    let state = target.state();
    let migration = state.migration().await.context("looking at the target's state")?;
    if let Some(migration) = &migration {
        belongs::ends(&config, migration)?;
        may(state, args).await?;
    }
    let mut listed = fence::made(&source, &config.cutover).await?;
    listed.extend(source.made().await?);
    if migration.is_some() {
        listed.push(target_state(name));
    }
    if args.dry_run {
        return say(context, "would remove", &listed, "Nothing was changed.");
    }
    if migration.is_some() {
        event::record(state, "teardown", "started").await;
    }
    let mut removed = fence::remove(&source, &config.cutover).await.context("tearing down the source")?;
    removed.extend(source.teardown().await.context("tearing down the source")?);
    // With the last migration the record of who did what goes too: it is handed out.
    let events = state.events().await?;
    state.remove().await?;
    // Stays where other migrations are left.
    if state.has_layout().await? {
        event::record(state, "teardown", "done").await;
    }
    if migration.is_some() {
        removed.push(target_state(name));
    }
    if context.global.json {
        output::print_json(&json!({ "removed": removed, "events": events }))?;
        return Ok(Ended::Done);
    }
    say(context, "removed", &removed, "The data at both ends was not touched.")
}

fn target_state(name: &str) -> String {
    format!("state of {name} in schema cutwater on the target")
}

/// Whether nobody needs what would go.
async fn may(state: &State, args: &TeardownArgs) -> Result<()> {
    let Some(migration) = state.migration().await? else { return Ok(()) };
    if migration.lease_valid {
        let holder = migration.lease_holder.unwrap_or_else(|| "another process".to_owned());
        return Err(Error::new(
            Kind::Refused,
            format!("a run of {:?} is alive: {holder}. Nothing was touched", migration.name),
        )
        .fix("stop it first (Ctrl-C, or SIGTERM to its pid), then run the same command again"));
    }
    let switching = state.cutover().await?.is_some_and(|cutover| cutover.step == CutoverStep::Switching);
    if (migration.phase == Phase::TargetLive || switching) && !args.release_source {
        let why =
            "the target is live, and without its fence the old source would accept writes again. Nothing was touched";
        return Err(Error::new(Kind::Refused, why)
            .fix("when no client writes to the old source any more: cutwater teardown --release-source"));
    }
    Ok(())
}

fn say(context: &Context, verb: &str, what: &[String], last: &str) -> Result<Ended> {
    if context.global.json {
        output::print_json(&json!({ verb.replace(' ', "_"): what }))?;
    } else if what.is_empty() {
        output::print(&format!("There is nothing to remove. {last}"));
    } else {
        let list: String = what.iter().map(|item| format!("{verb} {item}\n")).collect();
        output::print(&format!("{list}\n{last}"));
    }
    Ok(Ended::Done)
}
