//! Before the copy and the stream: every table has a shape that is remembered.
//!
//! In: the plan, of the source's catalogue now, and the state. Out: a state that knows the shape of every table. A table
//! whose copy is still to come is brought to the shape it has now, because its rows will be those of now; a table that
//! was copied keeps the shape it has, and the stream changes it at the right place.

use std::collections::HashMap;

use super::{Known, Shapes, no_longer_there, stopped, tell};
use crate::error::Result;
use crate::pipeline::Job;
use crate::schema::{Shape, TableName};
use crate::source::Source as _;
use crate::target::Target as _;
use crate::target::state::{Lease, TableStage};
use crate::transform::Plan;

/// Records what is not recorded yet, and brings the tables that wait for their copy to the shape they have now.
pub async fn settle(job: &Job, lease: &Lease, plan: &Plan) -> Result<()> {
    let state = job.target.state();
    let mut stored = state.shapes().await?;
    let copied: HashMap<TableName, bool> =
        state.tables().await?.into_iter().map(|table| (table.source, table.stage == TableStage::Copied)).collect();
    let ids: Vec<u32> = plan.tables().map(|table| table.source.id).collect();
    let mut facts = job.source.facts(&ids).await?;
    let mut behind = Vec::new();
    for table in plan.tables() {
        let name = &table.source.name;
        match stored.remove(name) {
            None => {
                let facts = facts.remove(&table.source.id).unwrap_or_default();
                state.set_shape(lease, name, &Shape::of(&table.source, &facts)).await?;
            }
            Some(shape) if shape.id != table.source.id => {
                let now = job.source.name_of(shape.id).await?;
                return Err(no_longer_there(name, now.as_ref()));
            }
            Some(shape) if !copied.get(name).copied().unwrap_or(false) && !shape.is_of(&table.source) => {
                // Ranges of two shapes do not make one table.
                state.forget_chunks(name).await?;
                behind.push((table, shape));
            }
            Some(_) => {}
        }
    }
    if behind.is_empty() {
        return Ok(());
    }
    let names: Vec<TableName> = behind.iter().map(|(table, _)| table.shaped.name.clone()).collect();
    let there = job.target.tables(&names).await?;
    let mut shapes =
        Shapes::new(&job.source, (&job.config.transform, job.ddl()), false, &Plan::default(), HashMap::new(), vec![]);
    for ((table, shape), there) in behind.into_iter().zip(there) {
        let name = table.source.name.clone();
        let facts = facts.remove(&table.source.id).unwrap_or_default();
        // Not made yet: it will be made as it is now.
        if let Some(target) = there {
            shapes.tables.insert(name.clone(), Known { plan: table.clone(), shape, target: (*target).clone() });
            let decision = shapes.decide(&name, &table.source, &facts, false)?;
            if !decision.stops.is_empty() {
                let (what, fix) = tell(&decision.stops);
                return Err(stopped(&(format!("{name} was altered at the source before its copy: {what}"), fix), None));
            }
            let statements: Vec<&String> = decision.statements.iter().chain(&decision.afterwards).collect();
            for statement in &statements {
                tracing::info!("{name} was altered at the source before its copy; the target follows: {statement}");
            }
            job.target.alter(&table.shaped.name, &statements).await?;
        }
        state.set_shape(lease, &name, &Shape::of(&table.source, &facts)).await?;
    }
    Ok(())
}
