//! What the catalogue says about columns beyond their description: numbers that survive renaming, the value that rows
//! from before a column have in it, and the files that hold the rows.

use std::collections::HashMap;

use super::{PgSource, publication};
use crate::change::{Lsn, Position};
use crate::error::{Context, Result};
use crate::schema::{Fact, Facts, TableName};

impl PgSource {
    /// The facts of these tables, by id; a table that is gone has none.
    pub async fn facts(&self, ids: &[u32]) -> Result<HashMap<u32, Facts>> {
        let client = self.client().await?;
        let doing = || self.on("reading the columns of the tables");
        let mut facts: HashMap<u32, Facts> = HashMap::new();
        for row in client.query(include_str!("columns.sql"), &[&ids]).await.with_context(doing)? {
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
        for row in client.query(include_str!("files.sql"), &[&ids]).await.with_context(doing)? {
            let root: u32 = row.get("root");
            facts.entry(root).or_default().files.insert(row.get("relation"), row.get("file"));
        }
        Ok(facts)
    }

    /// A fingerprint of the columns, keys and names of these tables: another one says that something was altered. And a
    /// place in the log after which the stream knows them like that. An error if they are no longer published whole.
    pub async fn look(&self, ids: &[u32]) -> Result<(String, Position)> {
        let client = self.client().await?;
        publication::check_whole(&client, self.publication_name(), ids).await?;
        let row = client
            .query_one(include_str!("look.sql"), &[&ids])
            .await
            .with_context(|| self.on("looking whether a table was altered"))?;
        let part = |index: usize| row.get::<_, String>(index);
        let at: Lsn = part(3).parse()?;
        Ok((format!("{} {} {}", part(0), part(1), part(2)), at.into()))
    }

    /// What the table with this id is called now; `None` if it is gone.
    pub async fn name_of(&self, id: u32) -> Result<Option<TableName>> {
        let client = self.client().await?;
        let sql = "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";
        let row = client.query_opt(sql, &[&id]).await.with_context(|| self.on("looking for a table"))?;
        Ok(row.map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))))
    }
}
