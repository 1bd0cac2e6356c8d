//! The gates that are questions to a Postgres server: one function each.

use tokio_postgres::types::ToSql;

use super::checks::few;
use super::{Look, Verdict};
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::Client;
use crate::source::postgres::fence;
use crate::verify::{columns, published};

/// A question about the tables and every partition below them.
macro_rules! of_tree {
    ($file:literal) => {
        concat!(include_str!("../../postgres/tree.sql"), include_str!($file))
    };
}

/// A transaction open for longer than this would make the fence, and every writer behind it, wait.
const LONG_SECONDS: f64 = 3.0;

const VALIDATE: &str = "on the target   ALTER TABLE … VALIDATE CONSTRAINT …;";

/// Every table was published without a break since its copy.
pub(super) async fn published(look: &Look<'_>) -> Result<Verdict> {
    match published::unbroken(look.source()?, &look.parts.ends, &look.parts.plan).await {
        Ok(()) => Ok(Verdict::open("published")),
        Err(error) if error.kind() == Kind::Schema => {
            Ok(Verdict::closed(error.message(), error.suggestion().unwrap_or_default()))
        }
        Err(error) => Err(error),
    }
}

/// Every column that was added at the source is at the target.
pub(super) async fn columns(look: &Look<'_>) -> Result<Verdict> {
    Ok(Verdict::of(columns::missing(look.target()?, &look.parts.plan).await?, "columns", columns::FIX))
}

/// We may fence the tables, and they are still the ones that were migrated.
pub(super) async fn fence_possible(look: &Look<'_>) -> Result<Verdict> {
    let tables = look.parts.tables();
    if let Err(error) = fence::unchanged(look.source()?, &tables, &look.parts.patterns).await {
        if error.kind() == Kind::Schema {
            return Ok(Verdict::closed(error.message(), error.suggestion().unwrap_or_default()));
        }
        return Err(error);
    }
    let names = names(tables.iter().map(|table| (table.schema.as_str(), table.table.as_str())));
    let denied = texts(look.source()?, of_tree!("fence_denied.sql"), &[&names.0, &names.1]).await?;
    let fix = "on the source   GRANT <owner of the tables> TO <role of the source url>;   a fence is made of triggers";
    Ok(Verdict::of(denied, "fence possible", fix))
}

/// The target takes writes.
pub(super) async fn target_writable(look: &Look<'_>) -> Result<Verdict> {
    // What the setting is for the application: our own sessions may have changed theirs.
    let sql =
        "SELECT pg_is_in_recovery(), reset_val = 'on' FROM pg_settings WHERE name = 'default_transaction_read_only'";
    let row = look.target()?.query_one(sql, &[]).await?;
    if row.get(0) {
        return Ok(Verdict::closed(
            "the target is a standby",
            "SELECT pg_promote();   or point [target] url elsewhere",
        ));
    }
    if row.get(1) {
        let fix = "ALTER SYSTEM SET default_transaction_read_only = off;   (or the role's, or the database's)";
        return Ok(Verdict::closed("the target's sessions are read-only by default", fix));
    }
    Ok(Verdict::open("target writable"))
}

/// The target's planner knows its tables: without statistics the first minutes after the switch are the worst.
pub(super) async fn statistics(look: &Look<'_>) -> Result<Verdict> {
    let missing = at_target(look, of_tree!("no_statistics.sql")).await?;
    Ok(Verdict::of(few(&missing, "never analyzed"), "statistics", "on the target   ANALYZE;"))
}

/// Every index of the target can be used.
pub(super) async fn indexes(look: &Look<'_>) -> Result<Verdict> {
    let invalid = at_target(look, of_tree!("invalid_indexes.sql")).await?;
    Ok(Verdict::of(few(&invalid, "invalid"), "indexes", "on the target   REINDEX INDEX CONCURRENTLY <index>;"))
}

/// Every constraint of the target is validated that is validated at the source.
pub(super) async fn constraints(look: &Look<'_>) -> Result<Verdict> {
    let sql = of_tree!("unvalidated.sql");
    let tables = look.parts.tables();
    let wanted = names(tables.iter().map(|table| (table.schema.as_str(), table.table.as_str())));
    let at_source = texts(look.source()?, sql, &[&wanted.0, &wanted.1]).await?;
    let mut open = at_target(look, sql).await?;
    open.retain(|constraint| !at_source.contains(constraint));
    Ok(Verdict::of(few(&open, "not validated"), "constraints", VALIDATE))
}

/// Every constraint of the target is validated; for a source that has none which are not.
pub(super) async fn all_validated(look: &Look<'_>) -> Result<Verdict> {
    let open = at_target(look, of_tree!("unvalidated.sql")).await?;
    Ok(Verdict::of(few(&open, "not validated"), "constraints", VALIDATE))
}

/// Nobody holds locks, or has written, for long: the fence would wait behind it and all writes with it. A transaction
/// that only reads is no obstacle: readers do not conflict with the fence, and what they try to write later is refused.
pub(super) async fn long_transactions(look: &Look<'_>) -> Result<Verdict> {
    let blockers = fence::blockers(look.source()?, &look.parts.tables()).await?;
    let long: Vec<_> = blockers.iter().filter(|b| b.open_seconds > LONG_SECONDS || b.prepared.is_some()).collect();
    let mut details: Vec<String> = long.iter().map(ToString::to_string).collect();
    let mut fix = long.first().map(|blocker| blocker.fix()).unwrap_or_default();
    let known: Vec<i32> = blockers.iter().filter_map(|blocker| blocker.pid).collect();
    let rows = look.source()?.query(include_str!("long_writers.sql"), &[&LONG_SECONDS, &known]).await?;
    for row in &rows {
        details.push(row.get(0));
        if fix.is_empty() {
            fix = row.get(1);
        }
    }
    if !details.is_empty() {
        details.push("the fence would wait behind it, and all writes with it".into());
    }
    Ok(Verdict::of(details, "long transactions 0", fix))
}

/// Schemas and names side by side, as the statements take them.
pub(super) fn names<'a>(tables: impl Iterator<Item = (&'a str, &'a str)>) -> (Vec<&'a str>, Vec<&'a str>) {
    tables.unzip()
}

async fn at_target(look: &Look<'_>, sql: &str) -> Result<Vec<String>> {
    let tables = look.parts.plan.tables();
    let names = names(tables.map(|table| (table.shaped.name.schema.as_str(), table.shaped.name.table.as_str())));
    texts(look.target()?, sql, &[&names.0, &names.1]).await
}

async fn texts(client: &Client, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<String>> {
    let rows = client.query(sql, params).await.map_err(Error::from).context("looking at the catalogue")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
