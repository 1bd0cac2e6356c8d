//! By what the publication publishes a table, in a form that shows whether it did so without a break.
//!
//! In: the catalogue. Out: the identity of the rows that make a table published: which they are, and which transaction
//! wrote them. A table that was taken out of the publication and put in again, one whose row filter or column list was
//! set and unset, and a publication whose options were changed for a while look as they did before, and have another
//! identity: the changes in between were never in the stream, and nothing else tells so.

use std::collections::HashMap;

use super::PgSource;
use super::publication::check_whole;
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::Client;
use crate::schema::TableName;
pub use crate::source::Membership;

/// Tables named in a message.
const NAMED: usize = 5;

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

/// The error that names those of `tables` that were not published all the time: they are published by something else `now`
/// than what was `recorded`.
pub fn unbroken(
    publication: &str,
    tables: &HashMap<u32, TableName>,
    recorded: &HashMap<TableName, Membership>,
    now: &HashMap<u32, Membership>,
) -> Result<()> {
    let differs = |id: &u32, name: &TableName| recorded.get(name).is_some_and(|then| now.get(id) != Some(then));
    let mut broken: Vec<(&TableName, u32)> =
        tables.iter().filter(|(id, name)| differs(id, name)).map(|(id, name)| (name, *id)).collect();
    broken.sort_unstable_by_key(|(name, _)| (&name.schema, &name.table));
    let Some((first, id)) = broken.first() else { return Ok(()) };
    let count = broken.len();
    let names: Vec<String> = broken.iter().take(NAMED).map(|(name, _)| name.to_string()).collect();
    let more = if count > NAMED { format!(" and {} more", count - NAMED) } else { String::new() };
    let names = format!("{}{more}", names.join(", "));
    let what = match now.get(id) {
        None => format!("the publication {publication:?} no longer publishes {names}"),
        Some(now) if recorded.get(*first).is_some_and(|then| !then.same_publication(now)) => {
            format!("the publication {publication:?} was altered or made anew while {names} were followed through it")
        }
        Some(_) => format!(
            "in the publication {publication:?} {names} was taken out and put in again, or for a while had a row filter \
             or a column list"
        ),
    };
    let patterns: Vec<String> = broken.iter().take(NAMED).map(|(name, _)| name.pattern()).collect();
    let fix = format!(
        "cutwater tables resync {}{}   or, without another copy: cutwater verify --repair",
        patterns.join(" "),
        if count > NAMED { " …" } else { "" }
    );
    Err(Error::new(Kind::Schema, format!("{what}: changes made meanwhile may not be in the stream")).fix(fix))
}

/// As [`read`]. An error if they are not published whole now: it says more than that something was altered.
pub(super) async fn of_whole(source: &PgSource, ids: &[u32]) -> Result<HashMap<u32, Membership>> {
    let client = source.client().await?;
    let found = read(&client, source.publication_name(), ids)
        .await
        .with_context(|| source.on("looking whether tables are published"))?;
    check_whole(&client, source.publication_name(), ids).await?;
    Ok(found)
}
