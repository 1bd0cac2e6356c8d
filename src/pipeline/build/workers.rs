//! Running statements side by side, one connection a worker.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::errors::{already_there, explain};
use super::{interrupted, prepare_session};
use crate::error::{Error, Kind, Result};
use crate::pipeline::dump::DumpEntry;
use crate::pipeline::progress::Progress;
use crate::postgres::{Client, ConnInfo, connect};

/// How often a dead-lock victim is tried again: two builders met on a table and its parent.
const DEADLOCK_TRIES: u32 = 5;

/// One statement, or several that are one transaction.
#[derive(Debug, Clone)]
pub struct Statement {
    /// `index public.orders_customer_idx`
    pub label: String,
    /// What to run.
    pub sql: String,
}

impl Statement {
    /// Of an entry.
    pub fn of(entry: &DumpEntry) -> Statement {
        Statement { label: entry.label(), sql: entry.sql.clone() }
    }
}

/// Runs all, on `workers` connections; what exists already counts as done. The first failure ends the others.
pub async fn side_by_side(
    info: &ConnInfo,
    statements: Vec<Statement>,
    settings: &[String],
    workers: usize,
    progress: Option<&Arc<Progress>>,
    halt: &CancellationToken,
) -> Result<()> {
    let workers = workers.clamp(1, statements.len().max(1));
    if statements.is_empty() {
        return Ok(());
    }
    let queue = Arc::new(Mutex::new(VecDeque::from(statements)));
    let mut running = JoinSet::new();
    for _ in 0..workers {
        let (info, settings) = (info.clone(), settings.to_vec());
        let (queue, progress) = (Arc::clone(&queue), progress.cloned());
        running.spawn(Box::pin(async move {
            let client = connect(&info, "cutwater_build").await?;
            prepare_session(&client, &settings).await?;
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(statement) = next else { return Ok(()) };
                build_one(&client, &statement, progress.as_deref()).await?;
            }
        }));
    }
    loop {
        let joined = tokio::select! {
            biased;
            () = halt.cancelled() => Some(Ok(Err(interrupted("building indexes and constraints")))),
            joined = running.join_next() => joined,
        };
        let failed = match joined {
            None => return Ok(()),
            Some(Ok(Ok(()))) => continue,
            Some(Ok(Err(error))) => error,
            Some(Err(panic)) => Error::new(Kind::Internal, panic.to_string()),
        };
        running.shutdown().await;
        return Err(failed);
    }
}

async fn build_one(client: &Client, statement: &Statement, progress: Option<&Progress>) -> Result<()> {
    let label = &statement.label;
    if let Some(progress) = progress {
        progress.index_begun(label);
    }
    let mut tries = 0;
    let result = loop {
        tries += 1;
        match client.batch_execute(&statement.sql).await {
            Err(error) if already_there(&error, &statement.sql) => {
                tracing::debug!("{label}: {error}");
                break Ok(());
            }
            Err(error) if tries < DEADLOCK_TRIES && error.code().is_some_and(|code| code.code() == "40P01") => {}
            Err(error) => break Err(explain(error, "").context(format!("building {label}"))),
            Ok(()) => break Ok(()),
        }
    };
    if let Some(progress) = progress {
        progress.index_ended(label, result.is_ok());
    }
    result
}
