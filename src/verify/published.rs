//! By what the tables are published, asked in a session that is there already: behind a fence, and around a repair. What it
//! is for stands in [`crate::pipeline::membership`].

use std::collections::HashMap;

use super::Ends;
use crate::error::Result;
use crate::postgres::Client;
use crate::schema::TableName;
use crate::source::Membership;
use crate::source::postgres::membership;
use crate::transform::Plan;

const PUBLISHED: &str = "a look at what is published";

/// By what the plan's tables are published now.
pub async fn now(source: &Client, ends: &Ends, plan: &Plan) -> Result<Vec<(TableName, Membership)>> {
    let ids: Vec<u32> = plan.tables().map(|table| table.source.id).collect();
    let publication = ends.need_postgres(PUBLISHED)?.source.publication_name();
    let mut now = membership::read(source, publication, &ids).await?;
    Ok(plan.tables().filter_map(|table| Some((table.source.name.clone(), now.remove(&table.source.id)?))).collect())
}

/// The error that names tables of which the stream may lack changes.
pub async fn unbroken(source: &Client, ends: &Ends, plan: &Plan) -> Result<()> {
    let recorded = ends.state.memberships().await?;
    let tables: HashMap<u32, TableName> =
        plan.tables().map(|table| (table.source.id, table.source.name.clone())).collect();
    let ids: Vec<u32> = tables.keys().copied().collect();
    let publication = ends.need_postgres(PUBLISHED)?.source.publication_name();
    let now = membership::read(source, publication, &ids).await?;
    membership::unbroken(publication, &tables, &recorded, &now)
}
