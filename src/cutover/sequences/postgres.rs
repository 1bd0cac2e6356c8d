//! Between two Postgres servers: the sequences of the migrated schemas, those of identity and serial columns included.

use std::collections::BTreeSet;

use super::super::Parts;
use super::{Move, Sequence, SequencePlan, set};
use crate::error::{Context, Result};
use crate::postgres::{Client, connect};
use crate::schema::TableName;
use crate::verify::PgEnds;

async fn open(parts: &Parts, ends: PgEnds<'_>) -> Result<(Client, Client)> {
    let name = format!("cutwater_{}_sequences", parts.name());
    Ok((connect(ends.source.info(), &name).await?, connect(ends.target.info(), &name).await?))
}

/// Looks at both ends; changes nothing.
pub(super) async fn plan(parts: &Parts, ends: PgEnds<'_>) -> Result<SequencePlan> {
    let (source, target) = open(parts, ends).await?;
    read(parts, &source, &target).await.context("comparing the sequences of both ends")
}

/// Sets the target's sequences; returns how many.
pub(super) async fn carry_over(parts: &Parts, ends: PgEnds<'_>) -> Result<u64> {
    let (source, target) = open(parts, ends).await?;
    let plan = read(parts, &source, &target).await.context("reading the sequences behind the fence")?;
    set(&target, &plan).await
}

async fn read(parts: &Parts, source: &Client, target: &Client) -> Result<SequencePlan> {
    let tables: Vec<_> = parts.plan.tables().collect();
    let schemas: BTreeSet<&str> = tables.iter().map(|table| table.source.name.schema.as_str()).collect();
    let schemas: Vec<&str> = schemas.into_iter().collect();
    let rows = source.query(include_str!("at_source.sql"), &[&schemas]).await?;

    // Where each should be at the target: (owning table and column, or nothing), and the name to fall back on.
    let (mut owner_tables, mut owner_columns, mut fallbacks) = (Vec::new(), Vec::new(), Vec::new());
    let mut kept = Vec::new();
    for row in &rows {
        let name = TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1));
        let owner = row
            .get::<_, Option<&str>>(6)
            .zip(row.get(7))
            .map(|(schema, table): (&str, &str)| TableName::new(schema, table));
        let planned = owner.as_ref().and_then(|owner| parts.plan.get(owner));
        if owner.is_some() && planned.is_none() {
            // The sequence of a table that is not migrated stays with it.
            continue;
        }
        let column = row.get::<_, Option<&str>>(8).unwrap_or_default();
        let index = planned.and_then(|plan| plan.columns.iter().position(|&at| plan.source.columns[at].name == column));
        if planned.is_some() && index.is_none() {
            // Its column does not travel.
            continue;
        }
        let shaped = planned.zip(index).map(|(plan, index)| (&plan.shaped.name, &plan.shaped.columns[index].name));
        owner_tables.push(shaped.map(|(table, _)| table.sql()).unwrap_or_default());
        owner_columns.push(shaped.map(|(_, column)| column.clone()).unwrap_or_default());
        let schema = shaped.map_or(name.schema.as_str(), |(table, _)| table.schema.as_str());
        fallbacks.push(TableName::new(schema, name.table.as_str()).sql());
        kept.push((name, row));
    }
    let found = target.query(include_str!("at_target.sql"), &[&owner_tables, &owner_columns, &fallbacks]).await?;

    let at_source = values(source, &kept.iter().map(|(name, _)| name.sql()).collect::<Vec<_>>()).await?;
    let here: Vec<Option<String>> = found.iter().map(|row| row.get(0)).collect();
    let at_target = values(target, &here.iter().flatten().cloned().collect::<Vec<_>>()).await?;
    let mut at_target = at_target.into_iter();
    let mut plan = SequencePlan::default();
    for (((name, row), (last, is_called)), here) in kept.iter().zip(at_source).zip(here) {
        let Some(here) = here else {
            plan.missing.push(name.to_string());
            continue;
        };
        let sequence =
            Sequence { last, is_called, increment: row.get(2), min: row.get(3), max: row.get(4), cycle: row.get(5) };
        let (there, called_there) = at_target.next().unwrap_or((last, is_called));
        let (value, is_called) = sequence.past(parts.config.sequence_margin, there, called_there);
        plan.moves.push(Move { target: here, value, is_called });
    }
    Ok(plan)
}

/// `last_value` and `is_called` of each, in order.
pub(super) async fn values(client: &Client, names: &[String]) -> Result<Vec<(i64, bool)>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let each = names.iter().enumerate().map(|(n, name)| format!("SELECT {n} AS n, last_value, is_called FROM {name}"));
    let sql = format!("{} ORDER BY n", each.collect::<Vec<_>>().join(" UNION ALL "));
    let rows = client.query(&sql, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(1), row.get(2))).collect())
}
