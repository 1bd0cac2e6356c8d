//! The publication, and the marker table of the fence.
//!
//! `cutwater_<name>` publishes exactly the migrated tables and `cutwater.fence`, partitions under their root's name.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{PgSource, given};
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::Client;
use crate::schema::{Ident, Relkind, ReplicaIdentity, TableName, TableSchema};

/// Makes the schema and the table of the fence's marker.
pub const FENCE_TABLE: &str = include_str!("fence_table.sql");

/// Makes the marker table and the publication, or makes them fit again.
pub(super) async fn prepare(source: &PgSource, client: &Client, tables: &[Arc<TableSchema>]) -> Result<()> {
    check_identities(client, tables).await?;
    fence_table(source, client).await?;
    if source.publication_is_given() {
        let names: Vec<TableName> = tables.iter().map(|table| table.name.clone()).collect();
        let objections = given::object_to_publication(client, source.publication_name(), &names).await?;
        return objections.into_iter().next().map_or(Ok(()), |objection| Err(objection.into()));
    }
    publication(source, client, tables).await
}

/// A published table without replica identity makes the *application's* updates and deletes fail (law 7).
async fn check_identities(client: &Client, tables: &[Arc<TableSchema>]) -> Result<()> {
    let mut statements = Vec::new();
    for table in tables {
        let usable = match table.replica_identity {
            ReplicaIdentity::Full => true,
            ReplicaIdentity::Default | ReplicaIdentity::Index => table.key.is_some(),
            ReplicaIdentity::Nothing => false,
        };
        if !usable {
            statements.push(format!("ALTER TABLE {} REPLICA IDENTITY FULL;", table.name.sql()));
        }
    }
    // The stream speaks of a partition's row in the root's terms: what it logs must be what the root says.
    let roots: Vec<u32> = tables.iter().filter(|t| t.kind == Relkind::Partitioned).map(|t| t.id).collect();
    for row in client.query(include_str!("partition_identity.sql"), &[&roots]).await? {
        let (leaf, identity): (String, &str) = (row.get("leaf"), row.get("identity"));
        statements.push(format!("ALTER TABLE {leaf} REPLICA IDENTITY {identity};"));
    }
    if statements.is_empty() {
        return Ok(());
    }
    let count = statements.len();
    Err(Error::new(
        Kind::Schema,
        format!(
            "{count} table(s) have no replica identity that the stream can use: once published, their updates and \
             deletes would fail in the application"
        ),
    )
    .fix(format!("add a primary key, or run on the source:  {}", statements.join("  "))))
}

async fn fence_table(source: &PgSource, client: &Client) -> Result<()> {
    let exists: bool =
        client.query_one("SELECT pg_catalog.to_regclass('cutwater.fence') IS NOT NULL", &[]).await?.get(0);
    if exists {
        return Ok(());
    }
    client
        .batch_execute(FENCE_TABLE)
        .await
        .map_err(|error| {
            let error = Error::from(error);
            if error.kind() != Kind::Privilege {
                return error;
            }
            let info = source.info();
            error.fix(format!(
                "GRANT CREATE ON DATABASE {} TO {};   or let an administrator make it: cutwater check --grants",
                Ident(&info.database),
                Ident(&info.user)
            ))
        })
        .context("creating cutwater.fence on the source")
}

async fn publication(source: &PgSource, client: &Client, tables: &[Arc<TableSchema>]) -> Result<()> {
    let name = source.publication_name();
    let doing = || format!("publishing {} tables as {name:?}", tables.len());
    let fence: u32 = client.query_one("SELECT 'cutwater.fence'::pg_catalog.regclass::oid", &[]).await?.get(0);
    let wanted: BTreeSet<u32> = tables.iter().map(|table| table.id).chain([fence]).collect();
    let mut list: Vec<String> = tables
        .iter()
        .map(|table| match table.kind {
            // ONLY: children by inheritance are tables of their own here.
            Relkind::Plain => format!("ONLY {}", table.name.sql()),
            Relkind::Partitioned => table.name.sql(),
        })
        .collect();
    list.push("ONLY cutwater.fence".into());
    let list = list.join(", ");
    let existing = client.query_opt(include_str!("publication.sql"), &[&name]).await?;
    let statement = match existing {
        None => format!(
            "CREATE PUBLICATION {} FOR TABLE {list} WITH (publish = 'insert, update, delete, truncate', \
             publish_via_partition_root = true)",
            Ident(name)
        ),
        Some(row) => {
            let has: BTreeSet<u32> = row.get::<_, Vec<u32>>("tables").into_iter().collect();
            if has == wanted && row.get("as_wanted") {
                return Ok(());
            }
            if row.get("all_tables") {
                return Err(Error::new(Kind::Schema, format!("a publication {name:?} FOR ALL TABLES exists"))
                    .fix(format!("DROP PUBLICATION {};  and run again", Ident(name)))
                    .context(doing()));
            }
            // Only what differs: what is written anew has another identity (`membership`).
            let options = "SET (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)";
            let set = format!("ALTER PUBLICATION {} SET TABLE {list}", Ident(name));
            if row.get("as_wanted") { set } else { format!("ALTER PUBLICATION {} {options}; {set}", Ident(name)) }
        }
    };
    client
        .batch_execute(&statement)
        .await
        .map_err(|error| {
            let error = Error::from(error);
            let info = source.info();
            match error.kind() {
                Kind::Privilege if error.why().contains("owner of table") => error.fix(format!(
                    "publishing a table takes its owner or a superuser: GRANT <owner of the tables> TO {};",
                    Ident(&info.user)
                )),
                Kind::Privilege => {
                    error.fix(format!("GRANT CREATE ON DATABASE {} TO {};", Ident(&info.database), Ident(&info.user)))
                }
                _ => error,
            }
        })
        .with_context(doing)
}

/// A table that is not published is passed over by the server without a word: a stream without it would be a silent gap.
pub(super) async fn check_published(client: &Client, name: &str, tables: &[Arc<TableSchema>]) -> Result<()> {
    let rows = client.query(include_str!("published.sql"), &[&name]).await?;
    let published: BTreeSet<(String, String)> = rows.iter().map(|row| (row.get("schema"), row.get("table"))).collect();
    let missing: Vec<&TableSchema> = tables
        .iter()
        .map(AsRef::as_ref)
        .filter(|table| !published.contains(&(table.name.schema.clone(), table.name.table.clone())))
        .collect();
    let Some(first) = missing.first() else { return Ok(()) };
    let exists: bool = client
        .query_one("SELECT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = $1)", &[&name])
        .await?
        .get(0);
    if !exists {
        return Err(Error::new(Kind::Schema, format!("the publication {name:?} does not exist any more on the source"))
            .fix("its tables' changes since it went are not in the stream: begin again with cutwater teardown, then cutwater run"));
    }
    let others = match missing.len() {
        1 => String::new(),
        count => format!(" and {} other tables", count - 1),
    };
    let names: Vec<String> = missing.iter().map(|table| table.name.sql()).collect();
    Err(Error::new(
        Kind::Schema,
        format!(
            "the publication {name:?} does not publish {}{others}: changes made there are not in the stream",
            first.name
        ),
    )
    .fix(format!(
        "ALTER PUBLICATION {} ADD TABLE {};  and copy what was missed: cutwater tables resync {}",
        Ident(name),
        names.join(", "),
        first.name
    )))
}

/// A row filter, a column list or a kind of change that is switched off leaves a silent gap too. Looked at when the stream
/// starts, and now and then while it runs.
pub(super) async fn check_whole(client: &Client, name: &str, tables: &[u32]) -> Result<()> {
    let Some(row) = client.query_opt(&format!("{} LIMIT 1", include_str!("left_out.sql")), &[&name, &tables]).await?
    else {
        return Ok(());
    };
    let (table, what): (Option<&str>, &str) = (row.get(0), row.get(1));
    let publication = Ident(name);
    let (what, fix) = match table {
        Some(table) => (
            format!("leaves out {what} of {table}: what was written there since it does is not in the stream"),
            format!(
                "ALTER PUBLICATION {publication} DROP TABLE {table};  ALTER PUBLICATION {publication} ADD TABLE {table};  and copy \
                 what was missed: cutwater tables resync {table}"
            ),
        ),
        None => (
            "does not publish all four of insert, update, delete, truncate, by the partitions' root: what was written since \
             it does not is not in the stream"
                .to_owned(),
            format!(
                "ALTER PUBLICATION {publication} SET (publish = 'insert, update, delete, truncate', \
                 publish_via_partition_root = true);  and copy what was missed: cutwater tables resync <table>"
            ),
        ),
    };
    Err(Error::new(Kind::Schema, format!("the publication {name:?} {what}")).fix(fix))
}

/// Removes what [`prepare`] made; says what was removed.
pub(super) async fn remove(source: &PgSource, client: &Client) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    let name = source.publication_name();
    let ours = !source.publication_is_given();
    if ours && client.query_opt(include_str!("publication.sql"), &[&name]).await?.is_some() {
        client.batch_execute(&format!("DROP PUBLICATION IF EXISTS {}", Ident(name))).await?;
        removed.push(format!("publication {name}"));
    }
    let exists: bool =
        client.query_one("SELECT pg_catalog.to_regclass('cutwater.fence') IS NOT NULL", &[]).await?.get(0);
    if !exists {
        return Ok(removed);
    }
    client.execute("DELETE FROM cutwater.fence WHERE migration = $1", &[&source.migration()]).await?;
    // Other migrations of this database use the same table, and may not have armed their fence yet.
    let others: bool = client.query_one(include_str!("fence_used.sql"), &[]).await?.get(0);
    if others {
        return Ok(removed);
    }
    client.batch_execute("DROP TABLE IF EXISTS cutwater.fence").await?;
    removed.push("table cutwater.fence".into());
    // Without CASCADE: what else is in the schema is not ours to remove (the state, if this is a target too).
    if client.batch_execute("DROP SCHEMA cutwater").await.is_ok() {
        removed.push("schema cutwater".into());
    }
    Ok(removed)
}
