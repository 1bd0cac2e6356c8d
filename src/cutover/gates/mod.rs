//! What must be true before anything is touched.
//!
//! In: both databases and the state. Out: [`Gates`], each open or closed with what is wrong and what opens it. Nothing
//! is changed. A closed gate is the normal answer, not an error; an end that cannot be asked is.

mod checks;
mod definitions;
mod lag;
mod late;
mod mysql;
mod objects;
mod postgres;
mod views;

use std::fmt::Write as _;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{Options, Parts, Progress, Reporter};
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::{Client, connect};
use crate::source::AnySource;
use crate::target::AnyTarget;
use crate::target::state::Migration;
use crate::verify::changed::Scope;

/// Between two looks with `--wait`.
const PAUSE: Duration = Duration::from_secs(2);

/// One condition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gate {
    /// Its name: `long-transaction`.
    pub name: &'static str,
    /// What was found.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What a gate found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Verdict {
    /// Open, and what was seen: `lag 0.3 s`.
    Open {
        /// A few words.
        seen: String,
    },
    /// Closed.
    Closed {
        /// What is wrong, one line each; the last may say why it matters.
        details: Vec<String>,
        /// What opens it.
        fix: String,
    },
}

impl Verdict {
    pub(super) fn open(seen: impl Into<String>) -> Verdict {
        Verdict::Open { seen: seen.into() }
    }

    pub(super) fn closed(detail: impl Into<String>, fix: impl Into<String>) -> Verdict {
        Verdict::Closed { details: vec![detail.into()], fix: fix.into() }
    }

    /// Open with `seen` if nothing is wrong.
    fn of(details: Vec<String>, seen: impl Into<String>, fix: impl Into<String>) -> Verdict {
        if details.is_empty() { Verdict::open(seen) } else { Verdict::Closed { details, fix: fix.into() } }
    }
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gates {
    /// In the order they are shown.
    pub gates: Vec<Gate>,
    /// How long writes are expected to be refused, in seconds, from and to.
    pub expected_seconds: (f64, f64),
    /// `--max-downtime` in seconds.
    pub limit_seconds: f64,
}

impl Gates {
    /// The closed ones.
    pub fn closed(&self) -> impl Iterator<Item = (&'static str, &[String], &str)> {
        self.gates.iter().filter_map(|gate| match &gate.verdict {
            Verdict::Open { .. } => None,
            Verdict::Closed { details, fix } => Some((gate.name, details.as_slice(), fix.as_str())),
        })
    }

    /// Whether the cutover may begin.
    pub fn all_open(&self) -> bool {
        self.closed().next().is_none()
    }

    /// The screen of a refused cutover.
    pub fn refusal(&self, migration: &str) -> String {
        let mut text = format!("{migration}  CUTOVER REFUSED. Nothing was touched; the source is live.\n");
        for (name, details, fix) in self.closed() {
            for (n, detail) in details.iter().enumerate() {
                let _ = write!(text, "\n{:<17} {detail}", if n == 0 { name } else { "" });
            }
            let _ = write!(text, "\n  fix: {fix}\n");
        }
        let seen = self.gates.iter().filter_map(|gate| match &gate.verdict {
            Verdict::Open { seen } => Some(seen.as_str()),
            Verdict::Closed { .. } => None,
        });
        let (from, to) = self.expected_seconds;
        let _ = write!(
            text,
            "\npassed: {}.\nExpected downtime {from:.1}-{to:.1} s (limit {:.0} s)\n\n\
             Then run the same command again, or let it wait: add --wait",
            seen.collect::<Vec<_>>().join(", "),
            self.limit_seconds
        );
        text
    }
}

/// What the checks may look at.
struct Look<'a> {
    parts: &'a Parts,
    options: &'a Options,
    /// The source, if it is a Postgres server: the gates that use it are those of such a pair.
    source: Option<Client>,
    /// The same of the target.
    target: Option<Client>,
    migration: Migration,
    /// What the comparison behind the fence would read now.
    scope: Scope,
}

impl Look<'_> {
    fn source(&self) -> Result<&Client> {
        self.source.as_ref().ok_or_else(|| Error::new(Kind::Internal, "this gate is for a Postgres source"))
    }

    fn target(&self) -> Result<&Client> {
        self.target.as_ref().ok_or_else(|| Error::new(Kind::Internal, "this gate is for a Postgres target"))
    }
}

type Check = for<'a> fn(&'a Look<'_>) -> BoxFuture<'a, Result<Verdict>>;

/// The gates between two Postgres servers, in the order they are shown. The lag comes last, so that it was low just before
/// the fence is taken.
const POSTGRES: &[(&str, Check)] = &[
    ("snapshot", |look| Box::pin(checks::snapshot(look))),
    ("run-alive", |look| Box::pin(checks::run_alive(look))),
    ("paused", |look| Box::pin(checks::paused(look))),
    ("published", |look| Box::pin(postgres::published(look))),
    ("verify", |look| Box::pin(checks::verify(look))),
    ("dead-letters", |look| Box::pin(checks::dead_letters(look))),
    ("divergences", |look| Box::pin(checks::divergences(look))),
    ("fence", |look| Box::pin(postgres::fence_possible(look))),
    ("target-writable", |look| Box::pin(postgres::target_writable(look))),
    ("statistics", |look| Box::pin(postgres::statistics(look))),
    ("indexes", |look| Box::pin(postgres::indexes(look))),
    ("columns", |look| Box::pin(postgres::columns(look))),
    ("defaults", |look| Box::pin(definitions::alike(look))),
    ("constraints", |look| Box::pin(postgres::constraints(look))),
    ("objects", |look| Box::pin(objects::complete(look))),
    ("late-constraints", |look| Box::pin(late::can_be_made(look))),
    ("materialized-views", |look| Box::pin(views::filled(look))),
    ("sequences", |look| Box::pin(checks::sequences(look))),
    ("long-transaction", |look| Box::pin(postgres::long_transactions(look))),
    ("lag", |look| Box::pin(lag::low(look))),
];

/// Those from MySQL or MariaDB to Postgres. What is published, and what the catalogues of two Postgres servers have in
/// common, cannot be asked of such a source.
const MYSQL_TO_POSTGRES: &[(&str, Check)] = &[
    ("snapshot", |look| Box::pin(checks::snapshot(look))),
    ("run-alive", |look| Box::pin(checks::run_alive(look))),
    ("paused", |look| Box::pin(checks::paused(look))),
    ("verify", |look| Box::pin(checks::verify(look))),
    ("dead-letters", |look| Box::pin(checks::dead_letters(look))),
    ("divergences", |look| Box::pin(checks::divergences(look))),
    ("fence", |look| Box::pin(mysql::fence_possible(look))),
    ("target-writable", |look| Box::pin(postgres::target_writable(look))),
    ("statistics", |look| Box::pin(postgres::statistics(look))),
    ("indexes", |look| Box::pin(postgres::indexes(look))),
    ("columns", |look| Box::pin(postgres::columns(look))),
    ("constraints", |look| Box::pin(postgres::all_validated(look))),
    ("late-constraints", |look| Box::pin(late::can_be_made(look))),
    ("sequences", |look| Box::pin(checks::sequences(look))),
    ("long-transaction", |look| Box::pin(mysql::long_transactions(look))),
    ("lag", |look| Box::pin(lag::low(look))),
];

/// Those between two servers of MySQL or MariaDB.
const MYSQL: &[(&str, Check)] = &[
    ("snapshot", |look| Box::pin(checks::snapshot(look))),
    ("run-alive", |look| Box::pin(checks::run_alive(look))),
    ("paused", |look| Box::pin(checks::paused(look))),
    ("verify", |look| Box::pin(checks::verify(look))),
    ("dead-letters", |look| Box::pin(checks::dead_letters(look))),
    ("divergences", |look| Box::pin(checks::divergences(look))),
    ("fence", |look| Box::pin(mysql::fence_possible(look))),
    ("target-writable", |look| Box::pin(mysql::target_writable(look))),
    ("sequences", |look| Box::pin(checks::sequences(look))),
    ("long-transaction", |look| Box::pin(mysql::long_transactions(look))),
    ("lag", |look| Box::pin(lag::low(look))),
];

/// The gates of a pair.
fn gates_of(parts: &Parts) -> Result<&'static [(&'static str, Check)]> {
    match (&parts.ends.source, &parts.ends.target) {
        (AnySource::Postgres(_), AnyTarget::Postgres(_)) => Ok(POSTGRES),
        (AnySource::MySql(_), AnyTarget::Postgres(_)) => Ok(MYSQL_TO_POSTGRES),
        (AnySource::MySql(_), AnyTarget::MySql(_)) => Ok(MYSQL),
        (AnySource::Postgres(_), AnyTarget::MySql(_)) => Err(parts.not_between()),
    }
}

/// Looks at every gate once.
pub async fn look(parts: &Parts, options: &Options) -> Result<Gates> {
    let migration = parts.ends.state.migration().await?;
    let migration = migration.ok_or_else(|| {
        Error::new(Kind::Refused, "nothing was migrated yet").fix("cutwater run, and let it catch up")
    })?;
    let checks = gates_of(parts)?;
    let source = match &parts.ends.source {
        AnySource::Postgres(source) => Some(connect(source.info(), &format!("cutwater_{}_fence", parts.name())).await?),
        AnySource::MySql(_) => None,
    };
    let target = match parts.postgres_target() {
        Some(info) => Some(connect(info, &format!("cutwater_{}_gates", parts.name())).await?),
        None => None,
    };
    let scope = Scope::of(&parts.ends, &parts.plan, migration.verify.as_ref()).await?;
    let look = Look { parts, options, source, target, migration, scope };
    let mut gates = Vec::with_capacity(checks.len());
    for &(name, check) in checks {
        let verdict = check(&look).await.with_context(|| format!("gate {name}"))?;
        gates.push(Gate { name, verdict });
    }
    // Fence, drain and switch take a few round trips.
    let verify = look.migration.verify.as_ref().map_or(0.0, |last| look.scope.seconds(&parts.plan, last));
    let expected_seconds = (0.1 + verify * 0.5, 0.5 + verify * 1.2 + options.max_lag.as_secs_f64().min(1.0) * 0.5);
    Ok(Gates { gates, expected_seconds, limit_seconds: options.max_downtime.as_secs_f64() })
}

/// Looks until all gates are open; without `wait`, once.
pub(super) async fn open(
    parts: &Parts,
    options: &Options,
    report: Reporter<'_>,
    shutdown: &CancellationToken,
) -> Result<Gates> {
    let interrupted = || Error::new(Kind::Interrupted, "interrupted before anything was touched");
    loop {
        let gates = tokio::select! {
            gates = look(parts, options) => gates?,
            () = shutdown.cancelled() => return Err(interrupted()),
        };
        if gates.all_open() {
            return Ok(gates);
        }
        if !options.wait {
            return Err(Error::new(Kind::Refused, gates.refusal(parts.name())));
        }
        report(&Progress::Waiting(&gates));
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = shutdown.cancelled() => return Err(interrupted()),
        }
    }
}
