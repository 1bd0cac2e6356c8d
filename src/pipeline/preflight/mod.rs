//! What would bite, found before anything is touched.
//!
//! In: a config and the plan of its tables. Out: [`Finding`]s, each with the command that fixes it. Settings are read,
//! privileges are *tried* in transactions that are rolled back: a catalogue does not know what a managed service adds
//! or takes away. `check` prints all of it; `run` refuses on the blocking ones. Nothing here changes anything.

mod grants;
mod late;
mod not_carried;
mod pooler;
mod source;
mod standby;
mod target;
mod types;
mod views;

use std::fmt;

pub use grants::{Grant, Grants, grants};
use serde::Serialize;

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::pipeline::Job;
use crate::pipeline::dump::PgDump;
use crate::postgres::connect;
use crate::source::AnySource;
use crate::source::postgres::PgSource;
use crate::target::AnyTarget;
use crate::target::postgres::PgTarget;
use crate::transform::Plan;

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
            between_postgres(&job.config, source, target, plan).await
        }
    }
}

async fn between_postgres(config: &Config, given: &PgSource, target: &PgTarget, plan: &Plan) -> Result<Report> {
    let (from, to) = (given.info(), target.info());
    let application = format!("cutwater_{}", config.migration.name);
    let (old, new) = tokio::try_join!(connect(from, "cutwater check"), connect(to, "cutwater check"))?;
    let mut report = Report::default();
    let facts = source::settings(&old, config, &application, &mut report).await?;
    source::tables(&old, &from.user, plan, &mut report).await?;
    types::columns(&old, plan, &mut report).await?;
    source::privileges(&old, given, plan, &facts, &mut report).await?;
    source::transactions(&old, &mut report).await?;
    target::server(&new, &to.user, from, to, &facts, &mut report).await?;
    types::at_target(&old, &new, plan, &mut report).await?;
    late::look(&old, &new, &to.user, plan, &mut report).await?;
    let absent = target::tables(&new, config, plan, &mut report).await?;
    programs(&facts, absent, &mut report).await;
    views::look(&old, &mut report).await?;
    if config.apply.workers > 1 {
        let text = format!(
            "{} workers apply the changes ([apply] workers): a reader of the target may see a transaction of several tables \
             in part.\nA cutover ends as exact as with one",
            config.apply.workers
        );
        report.note(End::Target, "workers", text);
    }
    not_carried::list(&old, given.slot_name(), &mut report).await?;
    Ok(report)
}

/// Looks for a connection pooler in the way of either end: before everything else, because nothing else works behind one.
pub async fn poolers(job: &Job) -> Result<Report> {
    let mut report = Report::default();
    match &job.source {
        AnySource::Postgres(source) => pooler::look(End::Source, source.info(), &mut report).await?,
    }
    match &job.target {
        AnyTarget::Postgres(target) => pooler::look(End::Target, target.info(), &mut report).await?,
    }
    Ok(report)
}

/// What the source has and no migration of tables carries over.
pub async fn left_behind(job: &Job) -> Result<Vec<String>> {
    match &job.source {
        AnySource::Postgres(source) => not_carried::not_carried(&source.connect().await?, source.slot_name()).await,
    }
}

/// `pg_dump` is needed where tables are to be made.
async fn programs(source: &source::SourceFacts, absent: usize, report: &mut Report) {
    match PgDump::find(u32::try_from(source.version_num / 10_000).unwrap_or_default()).await {
        Ok(found) => report.pass(End::Here, "pg_dump", format!("pg_dump {} ({})", found.major, found.path.display())),
        Err(_) if absent == 0 => report.pass(End::Here, "pg_dump", "pg_dump is not needed: every table is there"),
        Err(error) => {
            let finding = report.fail(End::Here, "pg_dump", error.kind(), error.why());
            if let Some(fix) = error.suggestion() {
                finding.fix(fix);
            }
        }
    }
}
