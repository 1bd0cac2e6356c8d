//! `cutwater run`: prepares, copies, follows, until it is stopped, caught up or cut over.
//!
//! The work is [`crate::pipeline::run`]; here are the screen beside it and the line after it.

mod screen;

use std::sync::Arc;

use serde_json::json;

use super::args::{RunArgs, UntilArg};
use super::{Context, Ended, event, output, status};
use crate::config::Config;
use crate::error::Result;
use crate::pipeline::progress::Progress;
use crate::pipeline::{self, Disagreement, Job, Outcome, Until};
use crate::target::Target;
use crate::telemetry;

pub(super) async fn run(context: &Context, args: &RunArgs) -> Result<Ended> {
    let config = context.config()?;
    let job = Job::open(config.clone())?;
    let until = match args.until {
        Some(UntilArg::CaughtUp) => Until::CaughtUp,
        None => Until::Stopped,
    };
    // Before anything else, so that what does not belong together is refused, and the first event has a place to stand in.
    pipeline::enrol(&job).await?;
    for Disagreement { text, fix } in job.disagreement().await? {
        tracing::warn!("{text}\n  do: {fix}");
    }
    if let Some(listen) = config.telemetry.listen {
        telemetry::serve(listen, facts(&config), context.shutdown.clone()).await?;
    }
    let state = job.target.state();
    event::record(state, "run", "started").await;
    let progress = Arc::new(Progress::new());
    let screen = tokio::spawn(screen::draw(Arc::clone(&progress), config.clone()));
    let result = pipeline::run(&job, until, context.shutdown.clone(), Arc::clone(&progress)).await;
    screen.abort();
    // Bars must be gone before the last line.
    let _ = screen.await;
    screen::clear();
    let outcome = event::ended(state, "run", result).await?;
    say(context, &config, outcome)
}

/// What `/status` answers with.
fn facts(config: &Config) -> telemetry::http::Report {
    let config = Arc::new(config.clone());
    Arc::new(move || {
        let config = Arc::clone(&config);
        Box::pin(async move {
            match status::gather(&config).await {
                Ok(facts) => serde_json::to_value(facts).unwrap_or_default(),
                Err(error) => json!({ "error": { "kind": error.kind().label(), "message": error.message() } }),
            }
        })
    })
}

fn say(context: &Context, config: &Config, outcome: Outcome) -> Result<Ended> {
    let name = &config.migration.name;
    let (word, text) = match outcome {
        Outcome::Stopped => ("stopped", "STOPPED cleanly. cutwater run goes on from here."),
        Outcome::CaughtUp => ("caught-up", "CAUGHT UP with the head as it was at the start."),
        Outcome::CutOver => ("cut-over", "CUT OVER. The target is live; there is nothing left to follow."),
    };
    if context.global.json {
        output::print_json(&json!({ "migration": name, "outcome": word }))?;
    } else {
        output::print(&format!("{name}  {text}"));
    }
    Ok(Ended::Done)
}
