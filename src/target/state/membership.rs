//! By what each table was published when its copy began: a column of `cutwater.table_state`.

use std::collections::HashMap;

use super::Lease;
use super::access::State;
use super::db::{params, sql};
use super::lease::fenced;
use crate::error::Result;
use crate::schema::TableName;
use crate::source::postgres::membership::Membership;

impl State {
    /// What is recorded, by the table's name at the source.
    pub async fn memberships(&self) -> Result<HashMap<TableName, Membership>> {
        let sql = "SELECT source_schema, source_table, membership FROM cutwater.table_state
                   WHERE migration = $1 AND membership IS NOT NULL";
        let rows = self.query("reading by what the tables are published", sql, params![self.name()]).await?;
        rows.iter().map(|row| Ok((row.name(0)?, Membership::parse(&row.get::<String>(2)?)))).collect()
    }

    /// Records it, under the lease; or, after a comparison that proved that nothing is missing, without one.
    pub async fn set_memberships(&self, lease: Option<&Lease>, tables: &[(TableName, Membership)]) -> Result<()> {
        let schemas: Vec<&str> = tables.iter().map(|(name, _)| name.schema.as_str()).collect();
        let names: Vec<&str> = tables.iter().map(|(name, _)| name.table.as_str()).collect();
        let texts: Vec<String> = tables.iter().map(|(_, membership)| membership.to_string()).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let epoch = lease.map(|lease| lease.epoch);
        let params = params![self.name(), &schemas, &names, &texts, epoch];
        let doing = "recording by what the tables are published";
        let set = self.execute(doing, sql!("set_memberships"), params).await?;
        match lease {
            Some(lease) if set != tables.len() as u64 => Err(fenced(lease)),
            _ => Ok(()),
        }
    }
}
