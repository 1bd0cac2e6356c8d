//! `cutwater verify`: compares both ends and names the rows that differ. Changes nothing but its own record.

use std::fmt::Write;

use super::{Context, Ended, ends, human, output};
use crate::error::Result;
use crate::verify::{self, DifferenceKind, Options, Report, TableReport};

/// Differing rows printed for each table.
const NAMED: usize = 10;

pub(super) async fn run(context: &Context) -> Result<Ended> {
    let config = context.config()?;
    let ends = ends::ends(&config)?;
    let plan = ends::plan(&config).await?;
    ends.state.require_current().await?;
    let progress = |table: &TableReport, done: usize, total: usize| {
        tracing::info!(table = %table.source, rows = table.rows_source, differing = table.differing, "compared {done} of {total}");
    };
    let report = verify::run(&ends, &plan, &Options::default(), &progress, &context.shutdown).await?;
    if context.global.json {
        output::print_json(&report)?;
    } else {
        output::print(&render(&config.migration.name, &report));
    }
    Ok(if report.clean() { Ended::Done } else { Ended::No })
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
