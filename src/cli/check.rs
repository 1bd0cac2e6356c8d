//! `cutwater check`: everything that would bite, each with its fix. The looking is [`crate::pipeline::preflight`].

use std::fmt::Write;

use serde_json::json;

use super::{Context, Ended, ends, output};
use crate::error::Result;
use crate::pipeline::preflight::{Report, Verdict, inspect};

pub(super) async fn run(context: &Context) -> Result<Ended> {
    let config = context.config()?;
    let report = inspect(&config, &ends::plan(&config).await?).await?;
    let blocked = report.of(Verdict::Fail).next().is_some();
    if context.global.json {
        output::print_json(&json!({ "blocked": blocked, "findings": report.findings }))?;
    } else {
        output::print(&render(&report, context.global.verbose > 0));
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
        out.push_str("all: cutwater check -v");
    }
    out
}
