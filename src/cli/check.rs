//! `cutwater check`: everything that would bite, each with its fix. The looking is [`crate::pipeline::preflight`].

use std::fmt::Write;

use serde_json::json;

use super::args::CheckArgs;
use super::{Context, Ended, ends, output};
use crate::error::{Kind, Result};
use crate::pipeline::preflight::{Report, Verdict, grants, inspect, poolers};
use crate::pipeline::{Job, estimate};

pub(super) async fn run(context: &Context, args: &CheckArgs) -> Result<Ended> {
    let config = context.config()?;
    let job = Job::open(config.clone())?;
    let mut report = poolers(&job).await?;
    let mut plan = None;
    if report.of(Verdict::Fail).next().is_none() {
        let disagreement = job.disagreement().await?;
        for finding in &disagreement {
            report.set(&finding.text, &finding.fix);
        }
        match ends::plan(&config).await {
            Ok(found) => {
                let plan = plan.insert(found);
                if args.grants {
                    let grants = grants(&job, plan).await?;
                    if context.global.json {
                        output::print_json(&grants)?;
                    } else {
                        output::print(&grants.script(&job));
                    }
                    return Ok(Ended::Done);
                }
                report.findings.extend(inspect(&job, plan).await?.findings);
            }
            // A table that is gone is one of them, and nothing else can be looked at then.
            Err(error) if error.kind() == Kind::Schema && !disagreement.is_empty() => report.unplannable(&error),
            Err(error) => return Err(error),
        }
    }
    let blocked = report.of(Verdict::Fail).next().is_some();
    let estimate = match &plan {
        Some(plan) if args.estimate => Some(estimate::estimate(&job, plan, estimate::SAMPLE).await?),
        _ => None,
    };
    if context.global.json {
        output::print_json(&json!({ "blocked": blocked, "findings": report.findings, "estimate": estimate }))?;
    } else {
        output::print(&render(&report, context.global.verbose > 0));
        if let Some(estimate) = estimate {
            output::print(&format!("\n{}", super::estimate::render(&estimate)));
        }
    }
    Ok(if blocked { Ended::No } else { Ended::Done })
}

/// The screen: what blocks, what to know, what passed (if asked for), and the sum.
fn render(report: &Report, passed: bool) -> String {
    let mut out = String::new();
    for (verdict, word) in [(Verdict::Fail, "FAIL"), (Verdict::Note, "note"), (Verdict::Pass, "pass")] {
        if verdict == Verdict::Pass && !passed {
            continue;
        }
        for finding in report.of(verdict) {
            let _ = writeln!(out, "{word}  {}: {}", finding.end, finding.text.replace('\n', "\n      "));
            for fix in &finding.fix {
                let indent = if fix.starts_with("or ") || fix.starts_with("and ") { "      " } else { "        " };
                let _ = writeln!(out, "{indent}{fix}");
            }
            if verdict == Verdict::Fail {
                out.push('\n');
            }
        }
    }
    if !out.is_empty() && !out.ends_with("\n\n") {
        out.push('\n');
    }
    let count = |verdict| report.of(verdict).count();
    let (fail, note, pass) = (count(Verdict::Fail), count(Verdict::Note), count(Verdict::Pass));
    let _ = writeln!(out, "{fail} to fix, {note} to know, {pass} passed. Nothing was changed.");
    if !passed {
        out.push_str("all: cutwater check -v        every grant at once: cutwater check --grants");
    }
    out
}
