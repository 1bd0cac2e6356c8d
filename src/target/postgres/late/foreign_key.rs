//! A foreign key as the statements that make it without reading a row, and as those that validate it afterwards.

use super::Late;
use crate::error::{Context, Result};
use crate::postgres::Client;
use crate::schema::Ident;

/// A place where the key has to be: the table, or a leaf of it.
struct Place {
    /// Quoted.
    table: String,
    there: bool,
    validated: bool,
    part: bool,
}

async fn places(client: &Client, late: &Late) -> Result<(Vec<Place>, bool)> {
    let version: i32 = client.query_one("SELECT current_setting('server_version_num')::int", &[]).await?.get(0);
    let parent_first = version >= 180_000;
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&late.table.schema, &late.table.table, &late.name, &parent_first];
    let rows = client
        .query(include_str!("foreign_key.sql"), &params)
        .await
        .with_context(|| format!("looking at {}", late.label()))?;
    let places: Vec<Place> = rows
        .iter()
        .map(|row| Place { table: row.get(0), there: row.get(1), validated: row.get(2), part: row.get(3) })
        .collect();
    let parts = places.iter().any(|place| place.part);
    Ok((places, parts))
}

/// The statements that make it, `NOT VALID`, wherever it is not there yet.
pub(super) async fn statements(client: &Client, late: &Late) -> Result<Vec<String>> {
    let (places, parts) = places(client, late).await?;
    if places.iter().any(|place| !place.part && place.there) {
        return Ok(Vec::new());
    }
    let partitioned_alone = !parts && is_partitioned(client, late).await?;
    let wanted = places.iter().filter(|place| place.part == parts && !place.there);
    Ok(wanted
        .map(|place| {
            // A partitioned table without partitions holds no row to validate, and takes no NOT VALID before 18.
            let later = if partitioned_alone { "" } else { " NOT VALID" };
            format!("ALTER TABLE {} {}{later}", place.table, late.sql)
        })
        .collect())
}

/// The statements that validate it, in order; none if it is validated.
pub(super) async fn validations(client: &Client, late: &Late) -> Result<Vec<String>> {
    let (places, parts) = places(client, late).await?;
    let name = Ident(&late.name);
    let mut statements: Vec<String> = places
        .iter()
        .filter(|place| place.there && !place.validated)
        .map(|place| format!("ALTER TABLE {} VALIDATE CONSTRAINT {name}", place.table))
        .collect();
    let own = places.iter().find(|place| !place.part);
    if let Some(own) = own.filter(|own| parts && !own.there) {
        statements.push(format!("ALTER TABLE {} {}", own.table, late.sql));
    }
    Ok(statements)
}

/// Queries that find a row without a parent; only in a transaction in which the key was made.
pub(super) async fn orphans(client: &Client, late: &Late) -> Result<Vec<String>> {
    let rows = client
        .query(include_str!("orphans.sql"), &[&late.table.schema, &late.table.table, &late.name])
        .await
        .with_context(|| format!("looking at {}", late.label()))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn is_partitioned(client: &Client, late: &Late) -> Result<bool> {
    let sql = "SELECT c.relkind = 'p' AND current_setting('server_version_num')::int < 180000
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2";
    let row = client.query_opt(sql, &[&late.table.schema, &late.table.table]).await?;
    Ok(row.is_some_and(|row| row.get(0)))
}
