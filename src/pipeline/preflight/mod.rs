//! What would bite, found before anything is touched.
//!
//! In: a config and the plan of its tables. Out: [`Finding`]s, each with the command that fixes it. Settings are read,
//! privileges are *tried* in transactions that are rolled back: a catalogue does not know what a managed service adds
//! or takes away. `check` prints all of it; `run` refuses on the blocking ones. Nothing here changes anything. What is looked
//! at is a matter of the pair of engines, each in a folder of its own.

mod alike;
mod mysql;
mod postgres;
mod translated;

use std::fmt;

use serde::Serialize;

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::pipeline::Job;
use crate::source::{AnySource, Source};
use crate::target::{AnyTarget, Target};
use crate::transform::Plan;

/// So many things that stay behind are spelled out.
const NAMED: usize = 5;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Blocks the migration.
    Fail,
    /// Good to know.
    Note,
    /// As it should be.
    Pass,
}

/// Which end it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The old server.
    Source,
    /// The new server.
    Target,
    /// The machine this runs on.
    Here,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            End::Source => "source",
            End::Target => "target",
            End::Here => "here",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub verdict: Verdict,
    /// Where.
    pub end: End,
    /// Short and stable, for scripts: `wal-level`.
    pub name: &'static str,
    /// What is the case; may have several lines.
    pub text: String,
    /// What to do: statements and commands, one a line.
    pub fix: Vec<String>,
    /// The kind of error `run` ends with.
    #[serde(skip)]
    pub kind: Kind,
}

/// Everything that was found, in the order it was looked at.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Report {
    fn add(&mut self, verdict: Verdict, end: End, name: &'static str, text: impl Into<String>) -> &mut Finding {
        let finding = Finding { verdict, end, name, text: text.into(), fix: Vec::new(), kind: Kind::ServerSetting };
        self.findings.push(finding);
        self.findings.last_mut().expect("just pushed")
    }

    fn fail(&mut self, end: End, name: &'static str, kind: Kind, text: impl Into<String>) -> &mut Finding {
        let finding = self.add(Verdict::Fail, end, name, text);
        finding.kind = kind;
        finding
    }

    fn note(&mut self, end: End, name: &'static str, text: impl Into<String>) -> &mut Finding {
        self.add(Verdict::Note, end, name, text)
    }

    fn pass(&mut self, end: End, name: &'static str, text: impl Into<String>) {
        self.add(Verdict::Pass, end, name, text);
    }

    /// Something in which the file and a migration that has begun do not agree about the tables.
    pub fn set(&mut self, text: &str, fix: &str) {
        self.note(End::Here, "tables", text).fix(fix);
    }

    /// What keeps the tables from being looked at.
    pub fn unplannable(&mut self, error: &Error) {
        let finding = self.fail(End::Source, "tables", error.kind(), error.message());
        if let Some(fix) = error.suggestion() {
            finding.fix(fix);
        }
    }

    /// Findings of a verdict.
    pub fn of(&self, verdict: Verdict) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.verdict == verdict)
    }

    /// What blocks, as the error that `run` ends with: the first in full, the others counted.
    pub fn refusal(&self) -> Option<Error> {
        let mut fails = self.of(Verdict::Fail);
        let first = fails.next()?;
        let mut why = format!("{}: {}", first.end, first.text);
        match fails.count() {
            0 => {}
            more => why.push_str(&format!("\n  and {more} more: cutwater check")),
        }
        let error = Error::new(first.kind, why);
        Some(match &first.fix[..] {
            [] => error,
            fixes => error.fix(fixes.join("\n       ")),
        })
    }
}

impl Finding {
    fn fix(&mut self, line: impl Into<String>) -> &mut Self {
        self.fix.push(line.into());
        self
    }
}

/// Looks at both ends for a migration that has not begun. An end that cannot be reached is an error.
pub async fn inspect(job: &Job, plan: &Plan) -> Result<Report> {
    match (&job.source, &job.target) {
        (AnySource::Postgres(source), AnyTarget::Postgres(target)) => {
            postgres::between(&job.config, source, target, plan).await
        }
        (AnySource::MySql(source), AnyTarget::Postgres(target)) => translated::between(job, source, target, plan).await,
        (AnySource::MySql(source), AnyTarget::MySql(target)) => alike::between(job, source, target, plan).await,
        (AnySource::Postgres(_), AnyTarget::MySql(_)) => Err(job.not_between("a migration")),
    }
}

/// What stays behind, as far as it is spelled out.
fn not_carried(left: &[String], report: &mut Report) {
    if left.is_empty() {
        return report.pass(End::Source, "not-carried", "nothing is left behind");
    }
    let named = left.len().min(NAMED);
    let more = left.len() - named;
    let more = if more > 0 { format!("\nand {more} more: cutwater schema lists them") } else { String::new() };
    report.note(End::Source, "not-carried", format!("not carried: {}{more}", left[..named].join("\n")));
}

/// What several workers give up.
fn workers(config: &Config, report: &mut Report) {
    if config.apply.workers > 1 {
        let text = format!(
            "{} workers apply the changes ([apply] workers): a reader of the target may see a transaction of several tables \
             in part.\nA cutover ends as exact as with one",
            config.apply.workers
        );
        report.note(End::Target, "workers", text);
    }
}

/// One statement and what it is for.
#[derive(Debug, Clone, Serialize)]
pub struct Grant {
    /// The statement, with its semicolon.
    pub sql: String,
    /// What it is for, in a few words.
    pub why: &'static str,
}

/// Every right that a migration needs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Grants {
    /// For an administrator of the source, connected to its database.
    pub source: Vec<Grant>,
    /// For an administrator of the target, connected to its database.
    pub target: Vec<Grant>,
}

impl Grants {
    /// One script with both parts. Each part is for its own server.
    pub fn script(&self, job: &Job) -> String {
        let mut text = String::new();
        let ends = [("source", job.source.label(), &self.source), ("target", job.target.label(), &self.target)];
        for (end, label, list) in ends {
            text.push_str(&format!("-- on the {end}, {label}, as an administrator\n"));
            let mut why = "";
            for grant in list {
                if grant.why != why {
                    why = grant.why;
                    text.push_str(&format!("-- {why}\n"));
                }
                text.push_str(&grant.sql);
                text.push('\n');
            }
            text.push('\n');
        }
        text.trim_end().to_owned()
    }
}

/// Asks both ends for the rights that are needed, and writes them down.
pub async fn grants(job: &Job, plan: &Plan) -> Result<Grants> {
    match (&job.source, &job.target) {
        (AnySource::Postgres(source), AnyTarget::Postgres(target)) => {
            postgres::grants(&job.config, (source.info(), target.info()), plan).await
        }
        (AnySource::MySql(source), AnyTarget::Postgres(target)) => translated::grants(job, source, target, plan).await,
        (AnySource::MySql(source), AnyTarget::MySql(target)) => alike::grants(source, target, plan).await,
        (AnySource::Postgres(_), AnyTarget::MySql(_)) => Err(job.not_between("a migration")),
    }
}

/// Looks for a connection pooler in the way of either end: before everything else, because nothing else works behind one.
pub async fn poolers(job: &Job) -> Result<Report> {
    let mut report = Report::default();
    match &job.source {
        AnySource::Postgres(source) => postgres::pooler::look(End::Source, source.info(), &mut report).await?,
        AnySource::MySql(_) => {}
    }
    match &job.target {
        AnyTarget::Postgres(target) => postgres::pooler::look(End::Target, target.info(), &mut report).await?,
        AnyTarget::MySql(_) => {}
    }
    Ok(report)
}

/// What the source has and no migration of tables carries over.
pub async fn left_behind(job: &Job) -> Result<Vec<String>> {
    if let AnySource::Postgres(source) = &job.source {
        return postgres::left_behind(source).await;
    }
    let plan = match job.recorded_plan().await? {
        Some(plan) => plan,
        None => job.plan().await?,
    };
    match &job.target {
        AnyTarget::Postgres(_) => translated::left_behind(job, &plan).await,
        AnyTarget::MySql(_) => alike::left_behind(job, &plan).await,
    }
}
