//! Making what waited, past the point of no return, and validating it while the target is live.

use tokio_util::sync::CancellationToken;

use super::{Late, LateKind, foreign_key, missing};
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::Client;

/// Nobody writes yet: what holds a lock is a reader's ALTER, or autovacuum, which gives way after `deadlock_timeout`.
const LOCK_TIMEOUT: &str = "3s";
/// How often a lock that is not free is asked for again.
const TRIES: u32 = 20;

/// The statements that make one, without those that are not needed any more.
pub(super) async fn statements(client: &Client, late: &Late) -> Result<Vec<String>> {
    match late.kind {
        LateKind::ForeignKey => foreign_key::statements(client, late).await,
        _ => Ok(vec![late.sql.clone()]),
    }
}

/// Whether the error says that a lock was not free.
pub(super) fn is_locked(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| matches!(code.code(), "55P03" | "40P01"))
}

/// Makes everything that is not there; returns how many were made.
pub async fn make(client: &Client, late: &[Late]) -> Result<u64> {
    let mut made = 0;
    for late in &missing(client, late).await? {
        let statements = statements(client, late).await?;
        if statements.is_empty() {
            continue;
        }
        let sql = format!("BEGIN; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; {}; COMMIT", statements.join("; "));
        let mut tries = 0;
        while let Err(error) = client.batch_execute(&sql).await {
            client.batch_execute("ROLLBACK").await.context("making what the copy left out")?;
            if late.kind == LateKind::Comment {
                tracing::warn!("{}: {}", late.label(), Error::from(error).why());
                break;
            }
            tries += 1;
            if !is_locked(&error) || tries >= TRIES {
                return Err(Error::from(error).context(format!("making {}", late.label())));
            }
            tracing::warn!(tries, "{} waits for a lock at the target", late.label());
        }
        made += u64::from(late.kind != LateKind::Comment);
    }
    Ok(made)
}

/// Foreign keys that hold for new rows, and of which the rows from before are not validated though the source's are.
pub async fn unvalidated(client: &Client, late: &[Late]) -> Result<Vec<Late>> {
    let mut open = Vec::new();
    for late in late.iter().filter(|late| late.kind == LateKind::ForeignKey && late.validated) {
        if !foreign_key::validations(client, late).await?.is_empty() {
            open.push(late.clone());
        }
    }
    Ok(open)
}

/// What came of the validation.
#[derive(Debug, Clone, Default)]
pub struct Validated {
    /// Foreign keys validated now.
    pub done: u64,
    /// Those that were not, and why.
    pub open: Vec<String>,
}

/// Validates foreign keys one after the other, each under a lock that lets readers and writers pass. Stops between two,
/// or in the middle of one, when asked to; running it again goes on with those that are left.
pub async fn validate(client: &Client, late: &[Late], halt: &CancellationToken) -> Result<Validated> {
    let mut result = Validated::default();
    let open = unvalidated(client, late).await?;
    for late in &open {
        if halt.is_cancelled() {
            result.open.push(format!("{}: interrupted", late.label()));
            continue;
        }
        let work = async {
            for statement in foreign_key::validations(client, late).await? {
                client.batch_execute(&statement).await?;
            }
            Ok::<_, Error>(())
        };
        tokio::select! {
            done = work => match done {
                Ok(()) => result.done += 1,
                Err(error) if error.kind() == Kind::Connection => return Err(error.context(format!("validating {}", late.label()))),
                Err(error) => result.open.push(format!("{}: {}", late.label(), error.why())),
            },
            // The server finishes this one by itself, or takes it back when the connection is gone.
            () = halt.cancelled() => result.open.push(format!("{}: interrupted", late.label())),
        }
    }
    Ok(result)
}
