//! From a config to what the commands work on.

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::postgres::ConnInfo;
use crate::schema::{Patterns, TableName};
use crate::source::Source;
use crate::source::postgres::PgSource;
use crate::target::postgres::State;
use crate::transform::Plan;
use crate::verify::Ends;

/// Both databases and the state. Connects to nothing.
pub fn ends(config: &Config) -> Result<Ends> {
    let target = ConnInfo::parse(&config.target.url)?;
    let state = State::new(target.clone(), config.migration.name.as_str());
    Ok(Ends { source: ConnInfo::parse(&config.source.url)?, target, state })
}

/// The source's tables that match `[source] tables`, through the rules.
pub async fn plan(config: &Config) -> Result<Plan> {
    let source = PgSource::new(ConnInfo::parse(&config.source.url)?, &config.migration.name);
    let patterns = Patterns::parse(&config.source.tables)?;
    let tables = source.tables(&patterns).await?;
    let names: Vec<TableName> = tables.iter().map(|table| table.name.clone()).collect();
    if let Some(pattern) = patterns.without_match(&names).first() {
        let why = format!("[source] tables: {pattern:?} matches no table of {}", source.label());
        return Err(Error::new(Kind::Config, why));
    }
    Plan::compile(&config.transform, &tables)
}
