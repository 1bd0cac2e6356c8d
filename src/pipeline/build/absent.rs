//! Partitions of the source that the target does not have.
//!
//! Where somebody made a table at the target beforehand, it may be one table there, or be cut in another way. Keys,
//! indexes and triggers of the source's partitions then have no place at the target; those of the root do.

use std::collections::HashSet;

use crate::error::{Context, Result};
use crate::pipeline::dump::{Carried, DumpEntry};
use crate::postgres::Client;
use crate::schema::TableName;

/// The source's partitions, and the indexes on them, that are not at the target.
pub(super) struct Absent(HashSet<TableName>);

impl Absent {
    /// Asks the target.
    pub(super) async fn find(client: &Client, carried: &Carried) -> Result<Absent> {
        let attached = carried.before.iter().filter(|entry| entry.kind == "TABLE ATTACH");
        let partitions: Vec<TableName> = attached.filter_map(|entry| entry.names().get(1).cloned()).collect();
        Ok(Absent(missing(client, partitions).await?))
    }

    /// The entries that have a place at the target; the others are told.
    pub(super) fn leave_out<'a>(&self, entries: &'a [DumpEntry]) -> impl Iterator<Item = &'a DumpEntry> {
        entries.iter().filter(|entry| {
            let name = entry.names().into_iter().find(|name| self.0.contains(name));
            if let Some(name) = &name {
                tracing::info!("left out: {}: the target has no table {name}", entry.label());
            }
            name.is_none()
        })
    }
}

/// Joins of an index to its parent's of which both are there.
pub(super) async fn joinable<'a>(client: &Client, attaches: &'a [DumpEntry]) -> Result<Vec<&'a DumpEntry>> {
    let missing = missing(client, attaches.iter().flat_map(DumpEntry::names).collect()).await?;
    Ok(attaches.iter().filter(|entry| !entry.names().iter().any(|name| missing.contains(name))).collect())
}

async fn missing(client: &Client, names: Vec<TableName>) -> Result<HashSet<TableName>> {
    if names.is_empty() {
        return Ok(HashSet::new());
    }
    let quoted: Vec<String> = names.iter().map(TableName::sql).collect();
    let sql = "SELECT place::int8 FROM unnest($1::text[]) WITH ORDINALITY AS w(name, place)
                WHERE pg_catalog.to_regclass(name) IS NULL";
    let rows = client.query(sql, &[&quoted]).await.context("looking for partitions at the target")?;
    Ok(rows.iter().filter_map(|row| names.get(usize::try_from(row.get::<_, i64>(0)).ok()? - 1).cloned()).collect())
}
