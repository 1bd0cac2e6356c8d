//! Every right this migration needs at both ends, as statements an administrator can paste.
//!
//! In: the plan and both databases, seen through the roles of the URLs, which need no right but to connect. Out:
//! [`Grants`]: exact for these tables, schemas and roles, whatever they may do already. Nothing is granted here.

use tokio_postgres::Row;

use super::{Grant, Grants};
use crate::config::Config;
use crate::error::{Context, Result};
use crate::postgres::{Client, ConnInfo, connect};
use crate::schema::{Ident, TableName};
use crate::transform::Plan;

fn grant(list: &mut Vec<Grant>, sql: impl Into<String>, why: &'static str) {
    list.push(Grant { sql: sql.into(), why });
}

/// Asks both ends and writes them down.
pub(in crate::pipeline::preflight) async fn grants(
    config: &Config,
    (from, to): (&ConnInfo, &ConnInfo),
    plan: &Plan,
) -> Result<Grants> {
    let (old, new) = tokio::try_join!(connect(from, "cutwater check"), connect(to, "cutwater check"))?;
    let source = Box::pin(at_source(config, &old, plan)).await.context("working out the source's grants")?;
    let doing = "working out the target's grants";
    let schemas = old.query(include_str!("user_schemas.sql"), &[]).await.context(doing)?;
    let sql = "SELECT extname::text FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1";
    let extensions = old.query(sql, &[]).await.context(doing)?;
    let names = |rows: Vec<Row>| rows.iter().map(|row| row.get(0)).collect();
    let target = Box::pin(at_target(&new, plan, names(schemas), &names(extensions))).await.context(doing)?;
    Ok(Grants { source, target })
}

/// Schemas and names, side by side.
fn sides<'a>(names: impl Iterator<Item = &'a TableName>) -> (Vec<&'a str>, Vec<&'a str>) {
    names.map(|name| (name.schema.as_str(), name.table.as_str())).unzip()
}

/// A session's role and database, quoted.
async fn who(client: &Client) -> Result<(String, String, i32)> {
    let sql = "SELECT format('%I', current_user), format('%I', current_database()), current_setting('server_version_num')::int";
    let row = client.query_one(sql, &[]).await?;
    Ok((row.get(0), row.get(1), row.get(2)))
}

async fn at_source(config: &Config, client: &Client, plan: &Plan) -> Result<Vec<Grant>> {
    let (role, database, _) = who(client).await?;
    let (schemas, names) = sides(plan.tables().map(|table| &table.source.name));
    let mut list = Vec::new();
    let has = |role: &'static str| async move {
        let row = client.query_opt("SELECT FROM pg_roles WHERE rolname = $1", &[&role]).await?;
        Ok::<_, crate::error::Error>(row.is_some())
    };
    if has("rds_replication").await? {
        grant(&mut list, format!("GRANT rds_replication TO {role};"), "reads the log");
    } else {
        grant(&mut list, format!("ALTER ROLE {role} REPLICATION;"), "reads the log");
    }
    let own_publication = config.source.publication.is_none();
    let database_rights = if own_publication { "CONNECT, CREATE" } else { "CONNECT" };
    let why = if own_publication { "makes the publication and the schema cutwater" } else { "connects" };
    grant(&mut list, format!("GRANT {database_rights} ON DATABASE {database} TO {role};"), why);
    for row in client
        .query(
            concat!(include_str!("../../../postgres/tree.sql"), include_str!("grants_source.sql")),
            &[&schemas, &names],
        )
        .await?
    {
        let (kind, what): (&str, &str) = (row.get(0), row.get(1));
        match kind {
            "schema" => grant(&mut list, format!("GRANT USAGE ON SCHEMA {what} TO {role};"), "reads its tables"),
            "table" => grant(&mut list, format!("GRANT SELECT ON {what} TO {role};"), "copies and compares it"),
            "sequence" => {
                grant(&mut list, format!("GRANT SELECT ON SEQUENCE {what} TO {role};"), "carries its value over");
            }
            "other" => grant(
                &mut list,
                format!("GRANT SELECT ON {what} TO {role};"),
                "not migrated, but pg_dump locks every table while it reads the schema",
            ),
            "owner" => grant(
                &mut list,
                format!("GRANT {what} TO {role};"),
                "owns migrated tables: only an owner may publish them and fence them off at the cutover",
            ),
            "super" => grant(
                &mut list,
                format!("GRANT {what} TO {role};"),
                "owns migrated tables and is a superuser: rather give the tables another owner first",
            ),
            _ => grant(&mut list, format!("ALTER ROLE {role} BYPASSRLS;"), "row-level security would hide rows"),
        }
    }
    grant(&mut list, format!("GRANT pg_read_all_stats TO {role};"), "sees which transaction is in the way");
    made_by_hand(config, client, &role, plan, &mut list).await?;
    Ok(list)
}

/// What the administrator makes, where `[source] slot` or `publication` say so.
async fn made_by_hand(config: &Config, client: &Client, role: &str, plan: &Plan, list: &mut Vec<Grant>) -> Result<()> {
    let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
    if let Some(publication) = &config.source.publication {
        let why = "the marker by which a cutover knows where the fence is in the log";
        grant(list, format!("CREATE SCHEMA IF NOT EXISTS cutwater AUTHORIZATION {role};"), why);
        grant(list, crate::source::postgres::FENCE_TABLE.trim().to_owned(), why);
        grant(list, format!("ALTER TABLE cutwater.fence OWNER TO {role};"), why);
        let tables: Vec<String> = plan
            .tables()
            .map(|table| table.source.name.sql())
            .chain(std::iter::once("cutwater.fence".to_owned()))
            .collect();
        let exists = client.query_opt("SELECT FROM pg_publication WHERE pubname = $1", &[publication]).await?;
        let verb = if exists.is_some() { "ALTER" } else { "CREATE" };
        let how = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true";
        let name = Ident(publication);
        let why = "[source] publication";
        if exists.is_some() {
            grant(list, format!("{verb} PUBLICATION {name} SET ({how});"), why);
            grant(list, format!("{verb} PUBLICATION {name} SET TABLE {};", tables.join(", ")), why);
        } else {
            grant(list, format!("{verb} PUBLICATION {name} FOR TABLE {} WITH ({how});", tables.join(", ")), why);
        }
    }
    if let Some(slot) = &config.source.slot {
        let slot = literal(slot);
        grant(
            list,
            format!(
                "SELECT pg_create_logical_replication_slot({slot}, 'pgoutput') \
                 WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {slot});"
            ),
            "[source] slot",
        );
    }
    Ok(())
}

/// What the role needs at the target. `schemas` are those that the source has besides the plan's, `extensions` those it
/// needs.
pub(in crate::pipeline::preflight) async fn at_target(
    new: &Client,
    plan: &Plan,
    schemas: Vec<String>,
    extensions: &Vec<String>,
) -> Result<Vec<Grant>> {
    let (role, database, version) = who(new).await?;
    let mut list = Vec::new();
    let why = "makes schemas and tables, and the schema cutwater, which remembers where the migration is";
    grant(&mut list, format!("GRANT CONNECT, CREATE ON DATABASE {database} TO {role};"), why);
    // Of a schema that does not exist the role will be the owner.
    let user_schemas: Vec<String> =
        schemas.into_iter().chain(plan.tables().map(|table| table.shaped.name.schema.clone())).collect();
    let (schemas, names) = sides(plan.tables().map(|table| &table.shaped.name));
    for row in new.query(include_str!("grants_target.sql"), &[&schemas, &names, &user_schemas]).await? {
        let (kind, what): (&str, &str) = (row.get(0), row.get(1));
        if kind == "schema" {
            grant(&mut list, format!("GRANT USAGE, CREATE ON SCHEMA {what} TO {role};"), "makes what is in it");
        } else {
            grant(
                &mut list,
                format!("GRANT {what} TO {role};"),
                "owns tables that are there: loads, indexes and analyzes them",
            );
        }
    }
    if version >= 150_000 {
        grant(
            &mut list,
            format!("GRANT SET ON PARAMETER session_replication_role TO {role};"),
            "optional: foreign keys and triggers can be there before the cutover, switched off for us alone",
        );
    }
    if version >= 140_000 {
        for function in [
            "pg_replication_origin_create(text)",
            "pg_replication_origin_session_setup(text)",
            "pg_replication_origin_drop(text)",
        ] {
            grant(
                &mut list,
                format!("GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {role};"),
                "optional: marks what we write, so that other subscribers can tell it from the application's",
            );
        }
    }
    for name in extensions {
        let sql = "SELECT bool_or(trusted), EXISTS (SELECT FROM pg_extension WHERE extname = $1)
                     FROM pg_available_extension_versions WHERE name = $1";
        let found = new.query_one(sql, &[name]).await?;
        if !found.get::<_, bool>(1) && found.get::<_, Option<bool>>(0) != Some(true) {
            grant(
                &mut list,
                format!("CREATE EXTENSION IF NOT EXISTS {};", Ident(name)),
                "the source has it, and only an administrator may install it",
            );
        }
    }
    Ok(list)
}
