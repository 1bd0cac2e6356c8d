//! `cutwater schema`: the DDL the target needs; with `--apply` the tables are made, and `run` makes the rest after the
//! copy, when it is cheaper.

use std::sync::Arc;

use serde_json::json;

use super::args::SchemaArgs;
use super::{Context, Ended, ends, event, output};
use crate::error::Result;
use crate::pipeline::Job;
use crate::pipeline::progress::Progress;
use crate::pipeline::schema::Schema;

pub(super) async fn run(context: &Context, args: &SchemaArgs) -> Result<Ended> {
    let config = context.config()?;
    let plan = ends::plan(&config).await?;
    let progress = Arc::new(Progress::new());
    let job = Job::open(config.clone())?;
    let work = Schema::of(&job, &plan, &progress);
    if args.apply {
        let state = ends::ends(&config)?.state;
        // Before the first run there is no place yet where an event could stand.
        state.require_current().await?;
        state.install().await?;
        event::record(&state, "schema --apply", "started").await;
        let made = work.create_tables(&context.shutdown).await;
        event::ended(&state, "schema --apply", made).await?;
        if context.global.json {
            output::print_json(&json!({ "applied": true, "tables": plan.len() }))?;
        } else {
            output::print(&format!(
                "{} tables are at the target. Indexes and constraints follow after the copy.",
                plan.len()
            ));
        }
        return Ok(Ended::Done);
    }
    let ddl = work.ddl_text().await?;
    let not_carried = work.not_carried().await?;
    if context.global.json {
        output::print_json(&json!({ "ddl": ddl, "not_carried": not_carried }))?;
    } else {
        let comments: String = not_carried.iter().map(|line| format!("-- not carried: {line}\n")).collect();
        output::print(&format!("{comments}{ddl}"));
    }
    Ok(Ended::Done)
}
