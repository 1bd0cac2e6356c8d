//! Whether everything that waits can be made: tried while the stream runs, and rolled back.

use std::time::{Duration, Instant};

use super::make::{is_locked, statements};
use super::{Late, LateKind, State, count, foreign_key, missing};
use crate::error::{Error, Result};
use crate::postgres::Client;

/// Well below `deadlock_timeout`: should the applier and a trial meet, the trial steps back before either is a victim.
const LOCK_TIMEOUT: &str = "250ms";
/// How often a trial is made again that met a lock.
const TRIES: u32 = 5;

/// What the trials showed.
#[derive(Debug, Clone, Default)]
pub struct Trial {
    /// `41 foreign keys and 6 triggers`; `None` if nothing waits.
    pub waiting: Option<String>,
    /// What could not be made, and why.
    pub refused: Vec<String>,
    /// Foreign keys with a row that has no parent, and that row's key.
    pub orphans: Vec<String>,
    /// Foreign keys whose rows were not all looked at within the budget.
    pub unproved: usize,
    /// How long making all of them took.
    pub took: Duration,
}

/// Makes each of `late` in a transaction that is rolled back, and looks for rows without a parent, for at most `budget`
/// in all. A foreign key that was found to hold within the last day is not looked at again: the source holds it.
pub async fn trial(client: &Client, state: &State, late: &[Late], budget: Duration) -> Result<Trial> {
    let until = Instant::now() + budget;
    let missing = missing(client, late).await?;
    let proofs = state.late_proofs().await?;
    let mut found = Trial { waiting: count(&missing), ..Trial::default() };
    for late in missing.iter().filter(|late| late.kind != LateKind::Comment) {
        let started = Instant::now();
        let queries = match made_and_rolled_back(client, late).await {
            Ok(queries) => queries,
            Err(error) => {
                found.refused.push(format!("{}: {}", late.label(), error.why()));
                continue;
            }
        };
        found.took += started.elapsed();
        // What the source has not validated may have orphans, there and here.
        if queries.is_empty() || !late.validated || proofs.contains(&(late.table.clone(), late.name.clone())) {
            continue;
        }
        match orphan(client, state, &queries, until).await? {
            Looked::Orphan(key) => found.orphans.push(format!("{}: {key} has no parent", late.label())),
            Looked::TooLong => found.unproved += 1,
            Looked::None => state.late_proved(late).await?,
        }
    }
    Ok(found)
}

/// Makes one and takes it back; returns the queries for its orphans.
async fn made_and_rolled_back(client: &Client, late: &Late) -> Result<Vec<String>> {
    let statements = statements(client, late).await?;
    if statements.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!("BEGIN; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; {}", statements.join("; "));
    let mut tries = 0;
    loop {
        tries += 1;
        let made = client.batch_execute(&sql).await;
        let queries = match (&made, late.kind) {
            (Ok(()), LateKind::ForeignKey) => foreign_key::orphans(client, late).await,
            _ => Ok(Vec::new()),
        };
        client.batch_execute("ROLLBACK").await?;
        match made {
            Ok(()) => return queries,
            Err(error) if is_locked(&error) && tries < TRIES => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => return Err(Error::from(error)),
        }
    }
}

enum Looked {
    None,
    Orphan(String),
    TooLong,
}

async fn orphan(client: &Client, state: &State, queries: &[String], until: Instant) -> Result<Looked> {
    for query in queries {
        let mut found = look(client, query, until, None).await?;
        // Between the commits of two workers a child may be there before its parent.
        if matches!(found, Looked::Orphan(_)) && state.workers().await?.len() > 1 {
            found = look(client, query, until, Some(state)).await?;
        }
        if !matches!(found, Looked::None) {
            return Ok(found);
        }
    }
    Ok(Looked::None)
}

/// Looks once; with `state`, at the target between two batches.
async fn look(client: &Client, query: &str, until: Instant, state: Option<&State>) -> Result<Looked> {
    let left = until.saturating_duration_since(Instant::now()).as_millis();
    if left == 0 {
        return Ok(Looked::TooLong);
    }
    let held = match state {
        Some(state) => Some(state.hold_workers().await?),
        None => None,
    };
    // Its first statement decides what it sees.
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    client.batch_execute(&format!("{begin}; SET LOCAL statement_timeout = {left}; SELECT")).await?;
    drop(held);
    let found = client.query_opt(query, &[]).await;
    client.batch_execute("ROLLBACK").await?;
    match found {
        Ok(None) => Ok(Looked::None),
        Ok(Some(row)) => Ok(Looked::Orphan(row.get(0))),
        Err(error) if error.code().is_some_and(|code| code.code() == "57014") => Ok(Looked::TooLong),
        Err(error) => Err(Error::from(error)),
    }
}
