//! The partitions of the migrated tables, as the source's catalogue has them now.

use std::collections::HashMap;

use tokio_postgres::SimpleQueryMessage;

use crate::error::{Context, Result};
use crate::postgres::Client;
use crate::schema::{Leaf, Leaves, TableName};

/// The partitions below the tables with these ids and names; nothing is said of tables that are not partitioned.
pub async fn read(client: &Client, tables: &HashMap<u32, TableName>) -> Result<Leaves> {
    let ids: Vec<u32> = tables.keys().copied().collect();
    let rows = client.query(include_str!("partitions.sql"), &[&ids]).await.context("looking at the partitions")?;
    let mut leaves = Leaves::default();
    for row in rows {
        let Some(table) = tables.get(&row.get::<_, u32>("root")) else { continue };
        let below = leaves.0.entry(table.to_string()).or_default();
        if let (Some(id), Some(attached)) = (row.get("relation"), row.get("attached")) {
            below.insert(id, Leaf { name: row.get("name"), file: row.get("file"), attached });
        }
    }
    Ok(leaves)
}

/// Which of these partitions hold nothing at all; none if that cannot be told without waiting for a lock.
pub(super) async fn empty(client: &Client, ids: &[u32]) -> Vec<u32> {
    let list = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    // One message is one transaction: the limit ends with it, and nothing of another question comes between.
    let sql = format!(
        "SELECT pg_catalog.set_config('lock_timeout', '200ms', true);
         SELECT r::text FROM pg_catalog.unnest('{{{list}}}'::oid[]) AS r WHERE pg_catalog.pg_relation_size(r) = 0"
    );
    let Ok(messages) = client.simple_query(&sql).await else { return Vec::new() };
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    });
    rows.collect()
}
