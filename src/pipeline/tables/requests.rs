//! What `cutwater tables` asks for, taken note of by the run.
//!
//! In: rows of `cutwater.table_request`. Out: stages that say the same, in one transaction with the requests' end. The
//! stream is told after that: until it has read its set of tables again it goes on with a table that is to be copied
//! again or left out, which harms nothing, because the copy begins only then.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::{Worker, publish};
use crate::error::{Error, Kind, Result};
use crate::pipeline::Job;
use crate::pipeline::snapshot::is_about_a_table;
use crate::schema::{Patterns, TableName};
use crate::source::Source;
use crate::target::Target;
use crate::target::state::{Lease, NewTable, TableAction, TableRequest};
use crate::transform::Plan;

impl Worker {
    /// Takes note of requests and lets the stream know. `false`: there was none that could be met now.
    pub(super) async fn take_note(&mut self) -> Result<bool> {
        let state = self.job.target.state().clone();
        let mut requests = state.requests().await?;
        if requests.is_empty() {
            return Ok(false);
        }
        // A copy under way sees to those of its tables that are to be left; the rest of its tables need not suffer.
        if self.copying.load(Ordering::Relaxed) {
            let leaves = |request: &TableRequest| matches!(request.action, TableAction::Skip | TableAction::Remove);
            requests.retain(|request| !(leaves(request) && self.busy.contains(&request.source)));
        }
        if requests.is_empty() {
            return Ok(false);
        }
        if requests.iter().any(|request| self.busy.contains(&request.source)) {
            self.leave_side().await?;
        }
        let settled = settle(&self.job, &self.lease, requests).await?;
        if !settled.is_empty() {
            for request in &settled {
                self.unfinishable.remove(&request.source);
            }
            self.replan().await?;
            match publish(&self.job).await {
                // Of a table that is to be copied: its copy says so, and marks it.
                Err(error) if is_about_a_table(&error) => tracing::debug!(%error, "not published yet"),
                published => published?,
            }
        }
        Ok(!settled.is_empty())
    }
}

/// Takes note of what is asked before the stream is started: all but new tables, which are copied beside it later.
pub async fn early(job: &Job, lease: &Lease, published: bool) -> Result<()> {
    let mut requests = job.target.state().requests().await?;
    requests.retain(|request| request.action != TableAction::Add);
    if settle(job, lease, requests).await?.is_empty() || !published {
        return Ok(());
    }
    match publish(job).await {
        Err(error) if is_about_a_table(&error) => {
            tracing::debug!(%error, "not published yet");
            Ok(())
        }
        published => published,
    }
}

/// Takes note of requests; those it could.
async fn settle(job: &Job, lease: &Lease, requests: Vec<TableRequest>) -> Result<Vec<TableRequest>> {
    if requests.is_empty() {
        return Ok(requests);
    }
    let state = job.target.state();
    let (mut fit, mut shapes) = (Vec::new(), Vec::new());
    for request in requests {
        let made = async {
            let shape = match request.action {
                TableAction::Add | TableAction::Resync => shape(job, &request.source).await?,
                TableAction::Skip | TableAction::Remove => return Ok(None),
            };
            // Before the table is part of the migration: from then on its rows at the target are ours to replace.
            let there = job.target.tables(std::slice::from_ref(&shape.target)).await?;
            if request.action == TableAction::Add && there.iter().any(Option::is_some) {
                job.target.make_room(std::slice::from_ref(&shape.target), job.config.target.existing).await?;
            }
            Ok::<_, Error>(Some(shape))
        };
        match made.await {
            Ok(shape) => {
                shapes.extend(shape);
                fit.push(request);
            }
            Err(error) if is_about_a_table(&error) || error.kind() == Kind::Config => {
                tracing::error!("tables {} {}: {error}", request.action.as_str(), request.source);
                state.drop_request(&request).await?;
            }
            Err(error) => return Err(error),
        }
    }
    if fit.is_empty() || !state.settle_requests(lease, &fit, &shapes).await? {
        return Ok(Vec::new());
    }
    let mut words: HashMap<&str, Vec<String>> = HashMap::new();
    fit.iter().for_each(|request| words.entry(request.action.as_str()).or_default().push(request.source.to_string()));
    for (action, tables) in words {
        tracing::info!("tables {action}: {}", tables.join(", "));
    }
    Ok(fit)
}

/// A table that is to be copied, as the rules and the source make it now.
async fn shape(job: &Job, table: &TableName) -> Result<NewTable> {
    let known = job.target.state().tables_ever().await?;
    let mut tables = job.source.tables(&Patterns::default()).await?;
    tables.retain(|other| other.name == *table || known.iter().any(|known| known.source == other.name));
    let plan = job.between(Plan::compile(&job.config.transform, &tables)?).await?;
    let gone = || Error::new(Kind::Schema, format!("{table} is no longer at the source"));
    let planned = plan.get(table).ok_or_else(gone)?;
    let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    Ok(NewTable {
        source: table.clone(),
        target: planned.shaped.name.clone(),
        rows: count(planned.source.estimated_rows),
        bytes: count(planned.source.bytes),
        rule: job.config.rule_of(table),
    })
}
