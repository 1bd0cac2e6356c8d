//! From a config to what the commands work on.

use crate::config::Config;
use crate::error::Result;
use crate::pipeline::Job;
use crate::target::Target;
use crate::target::state::State;
use crate::target::state::{Phase, TableStage};
use crate::transform::Plan;
use crate::verify::Ends;

/// Both databases and the state, for what compares and cuts over. Connects to nothing.
pub fn ends(config: &Config) -> Result<Ends> {
    let job = Job::open(config.clone())?;
    let state = job.target.state().clone();
    Ok(Ends { source: job.source, target: job.target, state })
}

/// `[source] tables`, without the tables that were left out by `tables skip` and `tables remove`: those are known. The
/// skipped ones are named in the log, as what a cutover does not carry.
pub async fn patterns(config: &Config, state: &State) -> Result<Vec<String>> {
    let mut patterns = config.source.tables.clone();
    for table in state.tables_ever().await?.iter().filter(|table| !table.stage.is_carried()) {
        if table.stage == TableStage::Skipped {
            tracing::warn!("{} is not carried: it was skipped, and what the target has of it is stale", table.source);
        }
        patterns.push(format!("!{}", table.source.sql()));
    }
    Ok(patterns)
}

/// The tables of the migration that are at the target, as far as that can be said: those that are still being copied
/// beside the stream, or could not be, would only be found to differ. They are named in the log.
pub async fn comparable(config: &Config) -> Result<Plan> {
    let all = plan(config).await?;
    let state = ends(config)?.state;
    if state.migration().await?.is_none_or(|migration| migration.phase < Phase::CatchingUp) {
        return Ok(all);
    }
    let tables = state.tables().await?;
    for table in tables.iter().filter(|table| table.stage != TableStage::Copied) {
        tracing::warn!("{} is not compared: it is {}", table.source, table.stage.as_str());
    }
    Ok(all.only(|name| tables.iter().any(|table| table.source == *name && table.stage == TableStage::Copied)))
}

/// The tables of the migration, through the rules: those it began with or, before it has begun, those that match.
pub async fn plan(config: &Config) -> Result<Plan> {
    let job = Job::open(config.clone())?;
    match job.recorded_plan().await? {
        Some(plan) => Ok(plan),
        None => job.plan().await,
    }
}
