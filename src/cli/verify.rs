//! `cutwater verify`: compares both ends and names the rows that differ. Changes nothing but its own record, unless it is
//! asked to repair.

use std::fmt::Write;

use serde_json::json;

use super::args::VerifyArgs;
use super::{Context, Ended, ends, event, human, output};
use crate::config::Config;
use crate::error::Result;
use crate::pipeline::Job;
use crate::transform::Plan;
use crate::verify::follower::Follower;
use crate::verify::repair::{self, Repaired, TableRepair};
use crate::verify::{self, DifferenceKind, Options, Report, TableReport};

/// Differing rows printed for each table.
const NAMED: usize = 10;

pub(super) async fn run(context: &Context, args: &VerifyArgs) -> Result<Ended> {
    let config = context.config()?;
    let ends = ends::ends(&config)?;
    let plan = ends::comparable(&config).await?;
    ends.state.require_current().await?;
    if args.repair {
        event::record(&ends.state, "verify --repair", "started").await;
        let done = repairing(context, &config, &ends, &plan).await;
        return event::ended(&ends.state, "verify --repair", done).await;
    }
    let report = verify::run(&ends, &plan, &Options::default(), &progress, &context.shutdown).await?;
    if context.global.json {
        output::print_json(&report)?;
    } else {
        output::print(&render(&config.migration.name, &report));
    }
    Ok(if report.clean() { Ended::Done } else { Ended::No })
}

fn progress(table: &TableReport, done: usize, total: usize) {
    tracing::info!(table = %table.source, rows = table.rows_source, differing = table.differing, "compared {done} of {total}");
}

async fn repairing(context: &Context, config: &Config, ends: &verify::Ends, plan: &Plan) -> Result<Ended> {
    repair::allowed(ends).await?;
    let follower = Follower::start(&Job::open(config.clone())?).await?;
    let repairing = |table: &str, done: usize, total: usize| tracing::info!(table, "repaired {done} of {total} rows");
    let options = Options::default();
    let done = verify::run_and_repair(ends, plan, &options, &progress, &repairing, &context.shutdown).await;
    if let Some(follower) = follower {
        let ended = follower.end().await;
        // Why it ended is why the repair could not go on.
        if done.is_err() {
            ended?;
        }
    }
    let (found, repaired) = done?;
    if context.global.json {
        output::print_json(&json!({ "found": found, "repaired": repaired }))?;
    } else {
        output::print(&render_repair(&config.migration.name, &found, &repaired));
    }
    Ok(if repaired.complete { Ended::Done } else { Ended::No })
}

fn render_repair(name: &str, found: &Report, repaired: &Repaired) -> String {
    if found.clean() {
        return render(name, found);
    }
    let mut out = String::new();
    let rows = human::plural(repaired.rows(), "row");
    let word = if repaired.complete { "REPAIRED" } else { "NOT ALL REPAIRED" };
    let differed = human::count(found.differences());
    let _ = writeln!(out, "{name}  {word}: {differed} differed, {rows} written as they are at the source\n");
    for table in &repaired.tables {
        let TableRepair { source, inserted, updated, deleted, unsettled, .. } = table;
        match &table.left {
            Some(why) => {
                let _ = writeln!(out, "{source}   left as it is: {why}");
            }
            None => {
                let _ = writeln!(out, "{source}   {inserted} inserted, {updated} updated, {deleted} deleted");
            }
        }
        for row in table.refused.iter().take(NAMED) {
            let _ = writeln!(out, "    {}  refused by the target: {}", row.key, row.why);
        }
        if table.refused.len() > NAMED {
            let _ = writeln!(out, "    and {} more: --json names them", table.refused.len() - NAMED);
        }
        if *unsettled > 0 {
            let _ = writeln!(out, "    {unsettled} changed at every look: run the same command again");
        }
    }
    out
}

fn render(name: &str, report: &Report) -> String {
    let mut out = String::new();
    let took = human::seconds(report.duration_ms as f64 / 1000.0);
    let tables = human::plural(report.tables.len() as u64, "table");
    let rows = human::plural(report.rows(), "row");
    if report.clean() {
        let _ = writeln!(out, "{name}  IDENTICAL: {tables}, {rows}, 0 differ ({took})");
    } else {
        let differ = human::plural(report.differences(), "row");
        let _ = writeln!(out, "{name}  DIFFERENT: {differ} of {rows} in {tables} ({took})\n");
    }
    for table in report.tables.iter().filter(|table| table.differing > 0) {
        let (source, target) = (human::count(table.rows_source), human::count(table.rows_target));
        let _ = writeln!(
            out,
            "{}   {} differ, rows {source} at the source, {target} at the target",
            table.source, table.differing
        );
        for row in table.rows.iter().take(NAMED) {
            let how = match row.kind {
                DifferenceKind::Missing => "missing at the target",
                DifferenceKind::Extra => "only at the target",
                DifferenceKind::Different => "different values",
            };
            let _ = writeln!(out, "    {}  {how}", row.key);
        }
        if table.rows.len() > NAMED {
            let _ = writeln!(out, "    and more: --json names up to 100");
        }
    }
    let unsettled: u64 = report.tables.iter().map(|table| table.unsettled).sum();
    if unsettled > 0 {
        let _ = writeln!(out, "{unsettled} rows changed at every look and could not be judged; they are not counted");
    }
    if let Some(behind) = &report.behind {
        let _ =
            writeln!(out, "\nThe target could not be waited for: {behind}\nDifferences may be changes on their way.");
    }
    out
}
