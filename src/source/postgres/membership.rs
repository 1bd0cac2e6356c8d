//! By what the publication publishes a table, in a form that shows whether it did so without a break.
//!
//! In: the catalogue. Out: the identity of the rows that make a table published: which they are, and which transaction
//! wrote them. A table that was taken out of the publication and put in again, one whose row filter or column list was
//! set and unset, and a publication whose options were changed for a while look as they did before, and have another
//! identity: the changes in between were never in the stream, and nothing else tells so.

use std::collections::HashMap;

use super::PgSource;
use super::publication::check_whole;
use crate::error::{Context, Result};
use crate::postgres::Client;

/// By what a table is published. Written to the state as text, and only ever compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The publication's own row: options, owner and name are in it.
    publication: String,
    /// What of it names the table: its row, its schema's row, `all`.
    listed: String,
}

impl Membership {
    /// Reads what [`Membership::to_string`] wrote.
    pub fn parse(text: &str) -> Membership {
        let (publication, listed) = text.split_once(' ').unwrap_or((text, ""));
        Membership { publication: publication.to_owned(), listed: listed.to_owned() }
    }

    /// Whether it is the same publication's, unchanged.
    pub fn same_publication(&self, other: &Membership) -> bool {
        self.publication == other.publication
    }
}

impl std::fmt::Display for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.publication, self.listed)
    }
}

/// By what the publication publishes the tables with these ids; nothing of those that it does not.
pub async fn read(client: &Client, publication: &str, ids: &[u32]) -> Result<HashMap<u32, Membership>> {
    let doing = || format!("looking at the publication {publication:?}");
    let version: i32 =
        client.query_one("SELECT current_setting('server_version_num')::int4", &[]).await.with_context(doing)?.get(0);
    let rows = client.query(include_str!("membership.sql"), &[&publication, &ids]).await.with_context(doing)?;
    let mut by_schema = HashMap::new();
    if version >= 150_000 {
        let sql = include_str!("membership_by_schema.sql");
        for row in client.query(sql, &[&publication, &ids]).await.with_context(doing)? {
            by_schema.insert(row.get::<_, u32>("id"), row.get::<_, String>("listed"));
        }
    }
    let of = |row: &tokio_postgres::Row| {
        let id = row.get("id");
        let by = [row.get("listed"), by_schema.get(&id).cloned()];
        let listed = by.into_iter().flatten().collect::<Vec<String>>().join(" ");
        (!listed.is_empty()).then(|| (id, Membership { publication: row.get("publication"), listed }))
    };
    Ok(rows.iter().filter_map(of).collect())
}

impl PgSource {
    /// As [`read`]. An error if they are not published whole now: it says more than that something was altered.
    pub async fn memberships(&self, ids: &[u32]) -> Result<HashMap<u32, Membership>> {
        let client = self.client().await?;
        let found = read(&client, self.publication_name(), ids)
            .await
            .with_context(|| self.on("looking whether tables are published"))?;
        check_whole(&client, self.publication_name(), ids).await?;
        Ok(found)
    }
}
