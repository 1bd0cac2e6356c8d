//! Columns whose values cannot be carried, or only by name, or whose types the target does not have.

use std::collections::{BTreeMap, BTreeSet};

use super::{End, Report};
use crate::error::{Context, Kind, Result};
use crate::postgres::Client;
use crate::schema::{Ident, TableName};
use crate::transform::Plan;

pub(super) async fn columns(client: &Client, plan: &Plan, report: &mut Report) -> Result<()> {
    let ids: Vec<u32> = plan.tables().map(|table| table.source.id).collect();
    let rows = client.query(include_str!("types.sql"), &[&ids]).await.context("reading the types of the columns")?;
    let (mut refused, mut by_name) = (Vec::new(), Vec::new());
    for row in &rows {
        let (table, column): (u32, &str) = (row.get(0), row.get(1));
        let Some(plan) = plan.tables().find(|plan| plan.source.id == table) else { continue };
        // A rule may leave the column out.
        if !plan.columns.iter().any(|&index| plan.source.columns[index].name == column) {
            continue;
        }
        let what = format!("{}.{} ({})", plan.source.name, Ident(column), row.get::<_, &str>(2));
        if row.get(3) { refused.push((plan.source.name.to_string(), column, what)) } else { by_name.push(what) }
    }
    if refused.is_empty() {
        report.pass(End::Source, "types", "every column's type can be carried");
    } else {
        let list: Vec<&str> = refused.iter().map(|(_, _, what)| what.as_str()).collect();
        let text = format!("no server takes a value of these types, so they cannot be carried:\n{}", list.join(", "));
        let finding = report.fail(End::Source, "types", Kind::Schema, text);
        for (table, column, _) in &refused {
            finding.fix(format!("[[transform]] match = \"{table}\", columns = [\"*\", \"!{column}\"]"));
        }
    }
    let encoding: String = client.query_one("SELECT current_setting('server_encoding')", &[]).await?.get(0);
    if encoding == "SQL_ASCII" {
        let text = "the source's encoding is SQL_ASCII, so nothing is known of its texts: they are taken for UTF-8,\n\
                    and one that is not stops the run";
        report.note(End::Source, "encoding", text);
    }
    if !by_name.is_empty() {
        let text = format!(
            "object names in {}: carried as names, and each must exist at the target when its row arrives",
            by_name.join(", ")
        );
        report.note(End::Source, "object-names", text);
    }
    Ok(())
}

/// Columns, each with its table.
type Columns<'a> = Vec<(&'a TableName, &'a str)>;

/// Types that the target lacks and that no schema brings there. A table that is there already has the types it has.
pub(super) async fn at_target(old: &Client, new: &Client, plan: &Plan, report: &mut Report) -> Result<()> {
    let doing = "looking for the types of the columns at the target";
    let names: Vec<String> = plan.tables().map(|table| table.shaped.name.sql()).collect();
    let sql = "SELECT coalesce(array_agg(n), '{}') FROM unnest($1::text[]) AS n WHERE to_regclass(n) IS NULL";
    let absent: Vec<String> = new.query_one(sql, &[&names]).await.context(doing)?.get(0);
    let ids: Vec<u32> = plan.tables().map(|table| table.source.id).collect();
    let needed = old.query(include_str!("types_needed.sql"), &[&ids]).await.context(doing)?;
    let types: BTreeSet<&str> = needed.iter().map(|row| row.get(2)).collect();
    let types: Vec<&str> = types.into_iter().collect();
    let extensions: Vec<Option<&str>> = types
        .iter()
        .map(|ty| needed.iter().find(|row| row.get::<_, &str>(2) == *ty).and_then(|row| row.get(3)))
        .collect();
    // An extension that can be made there is made.
    let sql = "SELECT coalesce(array_agg(t), '{}') FROM unnest($1::text[], $2::text[]) AS needed (t, e)
                WHERE to_regtype(t) IS NULL AND NOT EXISTS (SELECT FROM pg_available_extensions WHERE name = e)";
    let missing: Vec<String> = new.query_one(sql, &[&types, &extensions]).await.context(doing)?.get(0);
    let mut lacking: BTreeMap<(&str, Option<&str>), Columns<'_>> = BTreeMap::new();
    for row in &needed {
        let (table, column, ty): (u32, &str, &str) = (row.get(0), row.get(1), row.get(2));
        let Some(plan) = plan.tables().find(|plan| plan.source.id == table) else { continue };
        let travels = plan.columns.iter().any(|&index| plan.source.columns[index].name == column);
        if travels && missing.iter().any(|m| m == ty) && absent.contains(&plan.shaped.name.sql()) {
            lacking.entry((ty, row.get(3))).or_default().push((&plan.source.name, column));
        }
    }
    if lacking.is_empty() {
        report.pass(End::Target, "types-there", "every column's type is there, or comes with the schema");
        return Ok(());
    }
    for ((ty, extension), columns) in lacking {
        let of = extension.map_or(String::new(), |name| format!(", and no package of its extension {name}"));
        let list: Vec<String> = columns.iter().map(|(table, column)| format!("{table}.{}", Ident(column))).collect();
        let text = format!("the target has no type {ty}{of}: {}", list.join(", "));
        let finding = report.fail(End::Target, "types-there", Kind::Schema, text);
        if let Some(name) = extension {
            finding.fix(format!("install the package of the extension {name} on the target's server"));
        }
        for (table, column) in columns {
            finding.fix(format!("[[transform]] match = \"{table}\", columns = [\"*\", \"!{column}\"]"));
        }
        finding.fix("or make the table at the target yourself, with a type there that reads the same text");
    }
    Ok(())
}
