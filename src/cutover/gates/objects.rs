//! Indexes, constraints, triggers and labels of enums that the source has and the target has not: what the application
//! would miss.

use std::collections::HashSet;

use super::{Look, Verdict};
use crate::error::{Context, Result};
use crate::postgres::Client;
use crate::schema::TableName;

/// So many are spelled out.
const NAMED: usize = 5;

/// One of them.
struct Object {
    kind: String,
    table: TableName,
    name: String,
    /// What it is but for its name.
    shape: String,
}

/// The target has what the source has, or it waits for the cutover. Tables that a rule reshapes are not compared.
pub(super) async fn complete(look: &Look<'_>) -> Result<Verdict> {
    let tables: Vec<TableName> =
        look.parts.plan.tables().filter(|table| !table.reshaped).map(|table| table.source.name.clone()).collect();
    let (wanted, found) = (objects(look.source()?, &tables).await?, objects(look.target()?, &tables).await?);
    let mut there: HashSet<(&str, &TableName, &str)> = HashSet::new();
    for object in &found {
        there.insert((&object.kind, &object.table, &object.name));
        there.insert((&object.kind, &object.table, &object.shape));
    }
    let waiting = look.parts.ends.state.late().await?;
    let waits = |object: &Object| waiting.iter().any(|late| late.name == object.name && late.table == object.table);
    let missing: Vec<String> = wanted
        .iter()
        .filter(|o| !there.contains(&(&o.kind, &o.table, &o.name)) && !there.contains(&(&o.kind, &o.table, &o.shape)))
        .filter(|object| !waits(object))
        .map(|object| format!("{} {} of {}", object.kind, object.name, object.table))
        .collect();
    if missing.is_empty() {
        return Ok(Verdict::open(format!("{} indexes, constraints, triggers and labels are there", wanted.len())));
    }
    let more = if missing.len() > NAMED { format!(" and {} more", missing.len() - NAMED) } else { String::new() };
    let list = missing[..missing.len().min(NAMED)].join(", ");
    Ok(Verdict::closed(
        format!("the source has, the target has not: {list}{more}"),
        "make them at the target (cutwater schema prints the statements), or drop at the source what is of no use",
    ))
}

async fn objects(client: &Client, tables: &[TableName]) -> Result<Vec<Object>> {
    let (schemas, names): (Vec<&str>, Vec<&str>) =
        tables.iter().map(|name| (name.schema.as_str(), name.table.as_str())).unzip();
    let sql = concat!(include_str!("../../postgres/tree.sql"), include_str!("objects.sql"));
    let rows =
        client.query(sql, &[&schemas, &names]).await.context("comparing indexes, constraints, triggers and labels")?;
    Ok(rows
        .iter()
        .map(|row| Object {
            kind: row.get(0),
            table: TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
            name: row.get(3),
            shape: row.get(4),
        })
        .collect())
}
