//! What the catalogue says about columns beyond their description: numbers that survive renaming, the value that rows
//! from before a column have in it, and the files that hold the rows.

use std::collections::HashMap;

use super::{PgSource, publication};
use crate::change::{Lsn, Position};
use crate::error::{Context, Result};
use crate::postgres::Client;
use crate::schema::{Fact, Facts, TableName};

/// The facts of these tables, by id; a table that is gone has none.
pub(super) async fn facts(client: &Client, ids: &[u32]) -> Result<HashMap<u32, Facts>> {
    let mut facts: HashMap<u32, Facts> = HashMap::new();
    for row in client.query(include_str!("columns.sql"), &[&ids]).await? {
        facts.entry(row.get("relation")).or_default().columns.push(Fact {
            number: row.get("number"),
            name: row.get("name"),
            dropped: row.get("dropped"),
            type_oid: row.get("type_oid"),
            modifier: row.get("modifier"),
            not_null: row.get("not_null"),
            generated: row.get("generated"),
            missing: row.get("missing"),
            mixed: row.get("mixed"),
            default: row.get("default_expression"),
            collation: row.get("collation"),
        });
    }
    for row in client.query(include_str!("files.sql"), &[&ids]).await? {
        let root: u32 = row.get("root");
        facts.entry(root).or_default().files.insert(row.get("relation"), row.get("file"));
    }
    Ok(facts)
}

/// A fingerprint of the tables, and a place in the log after which the stream knows them like that.
pub(super) async fn look(source: &PgSource, ids: &[u32]) -> Result<(String, Position)> {
    let client = source.client().await?;
    publication::check_whole(&client, source.publication_name(), ids).await?;
    let row = client
        .query_one(include_str!("look.sql"), &[&ids])
        .await
        .with_context(|| source.on("looking whether a table was altered"))?;
    let part = |index: usize| row.get::<_, String>(index);
    let at: Lsn = part(3).parse()?;
    Ok((format!("{} {} {}", part(0), part(1), part(2)), at.into()))
}

/// What the table with this id is called now; `None` if it is gone.
pub(super) async fn name_of(client: &Client, id: u32) -> Result<Option<TableName>> {
    let sql = "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";
    let row = client.query_opt(sql, &[&id]).await?;
    Ok(row.map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))))
}
