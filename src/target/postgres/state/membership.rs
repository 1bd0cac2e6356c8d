//! By what each table was published when its copy began: a column of `cutwater.table_state`.

use std::collections::HashMap;

use super::{State, fenced};
use crate::error::Result;
use crate::schema::TableName;
use crate::source::postgres::membership::Membership;
use crate::target::state::Lease;

impl State {
    /// What is recorded, by the table's name at the source.
    pub async fn memberships(&self) -> Result<HashMap<TableName, Membership>> {
        let sql = "SELECT source_schema, source_table, membership FROM cutwater.table_state
                   WHERE migration = $1 AND membership IS NOT NULL";
        let rows = self.query("reading by what the tables are published", sql, &[&self.migration]).await?;
        let of = |row: &tokio_postgres::Row| {
            let name = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
            (name, Membership::parse(row.get(2)))
        };
        Ok(rows.iter().map(of).collect())
    }

    /// Records it, under the lease; or, after a comparison that proved that nothing is missing, without one.
    pub async fn set_memberships(&self, lease: Option<&Lease>, tables: &[(TableName, Membership)]) -> Result<()> {
        let sql = "UPDATE cutwater.table_state t SET membership = n.membership
                     FROM unnest($2::text[], $3::text[], $4::text[]) AS n(nsp, rel, membership)
                    WHERE t.migration = $1 AND t.source_schema = n.nsp AND t.source_table = n.rel
                      AND ($5::bigint IS NULL OR t.epoch = $5)";
        let schemas: Vec<&str> = tables.iter().map(|(name, _)| name.schema.as_str()).collect();
        let names: Vec<&str> = tables.iter().map(|(name, _)| name.table.as_str()).collect();
        let texts: Vec<String> = tables.iter().map(|(_, membership)| membership.to_string()).collect();
        let epoch = lease.map(|lease| lease.epoch);
        let params: super::Params<'_> = &[&self.migration, &schemas, &names, &texts, &epoch];
        let set = self.execute("recording by what the tables are published", sql, params).await?;
        match lease {
            Some(lease) if set != tables.len() as u64 => Err(fenced(lease)),
            _ => Ok(()),
        }
    }
}
