//! Whether every column that travels is at the target: one that was added at the source in mid-migration may still be on
//! its way.

use std::collections::{HashMap, HashSet};

use super::Ends;
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::{Client, connect};
use crate::schema::TableName;
use crate::target::{AnyTarget, Target};
use crate::transform::Plan;

/// The columns of the plan that the target lacks, a line a table.
pub async fn missing(target: &Client, plan: &Plan) -> Result<Vec<String>> {
    let names = plan.tables().map(|table| &table.shaped.name);
    let (schemas, tables): (Vec<&str>, Vec<&str>) =
        names.map(|name| (name.schema.as_str(), name.table.as_str())).unzip();
    let rows = target
        .query(include_str!("columns.sql"), &[&schemas, &tables])
        .await
        .context("reading the columns of the target's tables")?;
    let held: HashMap<TableName, HashSet<String>> = rows
        .iter()
        .map(|row| {
            let columns: Vec<String> = row.get(2);
            (TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)), columns.into_iter().collect())
        })
        .collect();
    Ok(lacking(plan, &held))
}

/// The columns of the plan that are not among those that the target's tables hold.
fn lacking(plan: &Plan, held: &HashMap<TableName, HashSet<String>>) -> Vec<String> {
    let lacking = plan.tables().filter_map(|table| {
        // A table that is not there at all is told by whoever reads it.
        let held = held.get(&table.shaped.name)?;
        let columns = table.shaped.columns.iter().filter(|column| !held.contains(&column.name));
        let columns: Vec<String> = columns.map(|column| format!("{:?}", column.name)).collect();
        (!columns.is_empty())
            .then(|| format!("{}: {} has not arrived at the target", table.source.name, columns.join(", ")))
    });
    lacking.collect()
}

/// Refuses to compare what cannot be the same yet.
pub(super) async fn arrived(ends: &Ends, plan: &Plan) -> Result<()> {
    let lines = match &ends.target {
        AnyTarget::Postgres(target) => {
            let name = format!("cutwater_{}_verify", ends.state.name());
            missing(&connect(target.info(), &name).await?, plan).await?
        }
        other => {
            let names: Vec<TableName> = plan.tables().map(|table| table.shaped.name.clone()).collect();
            let there = other.tables(&names).await?;
            let held = there
                .into_iter()
                .flatten()
                .map(|table| (table.name.clone(), table.columns.iter().map(|column| column.name.clone()).collect()));
            lacking(plan, &held.collect())
        }
    };
    match lines {
        lines if lines.is_empty() => Ok(()),
        lines => Err(Error::new(Kind::Schema, lines.join("; ")).fix(FIX)),
    }
}

/// What brings a column there.
pub const FIX: &str = "it was added at the source: a live run adds it within seconds, or says why it cannot";
