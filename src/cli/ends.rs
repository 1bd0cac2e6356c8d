//! From a config to what the commands work on.

use crate::config::Config;
use crate::error::Result;
use crate::pipeline::Job;
use crate::postgres::ConnInfo;
use crate::target::postgres::State;
use crate::transform::Plan;
use crate::verify::Ends;

/// Both databases and the state. Connects to nothing.
pub fn ends(config: &Config) -> Result<Ends> {
    let target = ConnInfo::parse(&config.target.url)?;
    let state = State::new(target.clone(), config.migration.name.as_str());
    Ok(Ends { source: ConnInfo::parse(&config.source.url)?, target, state })
}

/// The tables of the migration, through the rules: those it began with or, before it has begun, those that match.
pub async fn plan(config: &Config) -> Result<Plan> {
    let job = Job::open(config.clone())?;
    match job.recorded_plan().await? {
        Some(plan) => Ok(plan),
        None => job.plan().await,
    }
}
