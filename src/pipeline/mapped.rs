//! The plan of a migration from MySQL or MariaDB to Postgres: names, types, and what converts the values.
//!
//! In: the plan that the rules make of the source's tables, and the definitions of these tables. Out: the same plan with
//! the target's names, which converts. Whoever makes the target's tables starts from the same definitions.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::Config;
use crate::error::{Context, Result};
use crate::mysql::{MyConnInfo, catalog, connect};
use crate::schema::mapping::Mapping;
use crate::schema::{OtherObject, TableDefinition};
use crate::transform::Plan;
use crate::transform::convert::MySqlToPostgres;

/// What the source's catalogue says of the plan's tables, and of what else is in their databases.
pub struct Definitions {
    /// The tables, in name order.
    pub tables: Vec<TableDefinition>,
    /// Views, triggers, routines …
    pub others: Vec<OtherObject>,
    database: String,
}

impl Definitions {
    /// Asks the source.
    pub async fn read(config: &Config, plan: &Plan) -> Result<Definitions> {
        let info = MyConnInfo::parse(&config.source.url)?;
        let database = info.database.clone().unwrap_or_default();
        let databases: BTreeSet<String> = plan.tables().map(|table| table.source.name.schema.clone()).collect();
        if databases.is_empty() {
            return Ok(Definitions { tables: Vec::new(), others: Vec::new(), database });
        }
        let databases: Vec<String> = databases.into_iter().collect();
        let mut session = connect(&info, &format!("cutwater_{}", config.migration.name)).await?;
        let mut found = catalog::read(&mut session, &databases).await.context("reading the source's tables")?;
        found.tables.retain(|definition| plan.get(&definition.table.name).is_some());
        Ok(Definitions { tables: found.tables, others: found.others, database })
    }

    /// Their names and types at the target, before the rules' names.
    pub fn mapping(&self, config: &Config) -> Result<Mapping> {
        Mapping::compile(&self.tables, &config.schema.rules()?, &config.schema.naming(&self.database))
    }
}

/// The plan with the target's names and what converts.
pub async fn plan(config: &Config, plan: Plan) -> Result<Plan> {
    let mut mapping = Definitions::read(config, &plan).await?.mapping(config)?;
    Ok(plan.mapped(&mut mapping)?.converting(Arc::new(MySqlToPostgres(config.values))))
}
