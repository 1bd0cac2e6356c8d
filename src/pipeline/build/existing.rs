//! What the target has of the plan's tables before anything is made there.

use std::collections::{HashMap, HashSet};

use crate::error::{Context, Error, Kind, Result};
use crate::postgres::Client;
use crate::schema::{Column, Ident, TableName};
use crate::transform::{Plan, TablePlan};

/// Which of the plan's tables exist. Refuses one that lacks a column; `type_of` says of which type it has to be.
pub(super) async fn tables(
    client: &Client,
    plan: &Plan,
    type_of: &(dyn Fn(&TablePlan, &Column) -> String + Sync),
) -> Result<HashSet<TableName>> {
    let (schemas, names) = target_names(plan);
    let doing = "looking for the tables at the target";
    let rows = client.query(include_str!("existing.sql"), &[&schemas, &names]).await.context(doing)?;
    let mut existing: HashMap<TableName, Vec<Option<String>>> = HashMap::new();
    for row in rows {
        let name = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        existing.insert(name, row.get(2));
    }
    for table in plan.tables() {
        let Some(columns) = existing.get(&table.shaped.name) else { continue };
        lacking(table, &|name| columns.iter().flatten().any(|column| column == name), type_of)?;
    }
    Ok(existing.into_keys().collect())
}

/// Refuses a table that is there and lacks a column of the plan.
pub(super) fn lacking(
    table: &TablePlan,
    has: &dyn Fn(&str) -> bool,
    type_of: &(dyn Fn(&TablePlan, &Column) -> String + Sync),
) -> Result<()> {
    let lacking = table.shaped.columns.iter().filter(|column| !has(&column.name));
    let lacking: Vec<String> = lacking.map(|c| format!("{:?} {}", c.name, type_of(table, c))).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let why = format!("{} exists at the target and lacks {}", table.shaped.name, lacking.join(", "));
    Err(Error::new(Kind::Schema, why).fix(
        "add the columns at the target, drop the table there if it is of no use, or leave them out in a [[transform]]",
    ))
}

/// Refuses triggers that would fire for what is applied (TRAPS 15).
pub(super) async fn refuse_firing_triggers(client: &Client, plan: &Plan) -> Result<()> {
    let (schemas, names) = target_names(plan);
    let rows = client
        .query(include_str!("firing_triggers.sql"), &[&schemas, &names])
        .await
        .context("looking for triggers at the target")?;
    let Some(row) = rows.first() else { return Ok(()) };
    let (table, trigger): (String, String) = (row.get(0), row.get(1));
    let why = format!(
        "trigger {trigger} on {table} at the target is ENABLE ALWAYS or REPLICA: it would fire for every change that \
         is applied"
    );
    let fix = format!("ALTER TABLE {table} DISABLE TRIGGER {};  at the target, until the cutover", Ident(&trigger));
    Err(Error::new(Kind::Schema, why).fix(fix))
}

fn target_names(plan: &Plan) -> (Vec<&str>, Vec<&str>) {
    plan.tables().map(|t| (t.shaped.name.schema.as_str(), t.shaped.name.table.as_str())).unzip()
}
