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

/// Who runs statements, on as many sessions as there are workers.
pub trait Builder: Clone + Send + 'static {
    /// One session.
    type Session: Send;

    /// Opens one.
    fn open(&self) -> impl Future<Output = Result<Self::Session>> + Send;

    /// Runs a statement; what exists already counts as done.
    fn build(&self, session: &mut Self::Session, statement: &Statement) -> impl Future<Output = Result<()>> + Send;
}

/// Runs all at a Postgres server, on `workers` connections.
pub async fn side_by_side(
    info: &ConnInfo,
    statements: Vec<Statement>,
    settings: &[String],
    workers: usize,
    progress: Option<&Arc<Progress>>,
    halt: &CancellationToken,
) -> Result<()> {
    let builder = AtPostgres { info: info.clone(), settings: settings.to_vec() };
    built_by(&builder, statements, workers, progress, halt).await
}

/// Runs all, on `workers` sessions. The first failure ends the others.
pub async fn built_by<B: Builder>(
    builder: &B,
    statements: Vec<Statement>,
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
        let builder = builder.clone();
        let (queue, progress) = (Arc::clone(&queue), progress.cloned());
        running.spawn(Box::pin(async move {
            let mut session = builder.open().await?;
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(statement) = next else { return Ok(()) };
                if let Some(progress) = &progress {
                    progress.index_begun(&statement.label);
                }
                let built = builder.build(&mut session, &statement).await;
                if let Some(progress) = &progress {
                    progress.index_ended(&statement.label, built.is_ok());
                }
                built?;
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

#[derive(Clone)]
struct AtPostgres {
    info: ConnInfo,
    settings: Vec<String>,
}

impl Builder for AtPostgres {
    type Session = Client;

    async fn open(&self) -> Result<Client> {
        let client = connect(&self.info, "cutwater_build").await?;
        prepare_session(&client, &self.settings).await?;
        Ok(client)
    }

    async fn build(&self, client: &mut Client, Statement { label, sql }: &Statement) -> Result<()> {
        let mut tries = 0;
        loop {
            tries += 1;
            match client.batch_execute(sql).await {
                Err(error) if already_there(&error, sql) => {
                    tracing::debug!("{label}: {error}");
                    return Ok(());
                }
                Err(error) if tries < DEADLOCK_TRIES && error.code().is_some_and(|code| code.code() == "40P01") => {}
                Err(error) => return Err(explain(error, "").context(format!("building {label}"))),
                Ok(()) => return Ok(()),
            }
        }
    }
}
