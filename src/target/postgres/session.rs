//! The sessions that write: what they must be, and by what their transactions are told apart.

use std::sync::Once;
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use super::late;
use crate::error::{Error, Kind, Result};
use crate::postgres::{Client, ConnInfo, connect};

/// A session that holds the origin and is a predecessor's has this long to end by itself …
const GRACE: Duration = Duration::from_millis(500);
/// … and any other this long, before the attempt is given up and made again.
const HELD: Duration = Duration::from_secs(5);

/// Opens a session in which foreign keys and triggers are off, or absent where that is not permitted ([`super::late`]):
/// the rows already hold what the source's did. Commits are
/// flushed before they return (law 1), and every statement is planned for the rows it is given. A process that hangs in
/// mid-transaction loses its session after a minute: its successor waits for the rows it has locked.
///
/// `random_page_cost`: with the default, which is that of disks, an update of a few per cent of a large table would read
/// all of it. The rows are mostly in memory, where the copy or the application has just put them: by the key's index.
pub(super) async fn open(info: &ConnInfo, migration: &str) -> Result<Client> {
    let client = connect(info, &format!("cutwater_{migration}")).await?;
    client
        .batch_execute(
            "SET synchronous_commit = on; SET default_transaction_isolation = 'read committed';
             SET plan_cache_mode = force_custom_plan; SET random_page_cost = 1.1; SET jit = off;
             SET idle_in_transaction_session_timeout = '60s'",
        )
        .await?;
    if let Err(error) = client.batch_execute("SET session_replication_role = replica").await {
        let error = Error::from(error);
        if error.kind() != Kind::Privilege {
            return Err(error);
        }
        // What cannot be switched off must not be there: it is made at the cutover.
        late::refuse_acting(&client, migration).await?;
    }
    Ok(client)
}

/// Marks the session's transactions with the origin `cutwater_<migration>`, so that a stream in the other direction can
/// tell them from the application's. Only where origins are not permitted, or the server has no room for
/// one, the run goes on unmarked, and says what is lost.
///
/// An origin has one session at a time. That of a predecessor which froze, or whose machine is gone without a word, would
/// hold it for hours: under our lease it can do nothing any more, and is ended. Call it only under the current epoch.
/// Whoever else holds it is named, and waited for: [`Kind::Transient`].
pub(super) async fn set_origin(client: &Client, migration: &str, session: &str) -> Result<()> {
    static WARNED: Once = Once::new();
    let name = format!("cutwater_{migration}");
    let begun = Instant::now();
    let mut ended = false;
    let error = loop {
        let error = match try_origin(client, &name).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if !in_use(&error) {
            // No room for one more at this server: waiting makes none.
            let full = error.code() == Some(&SqlState::CONFIGURATION_LIMIT_EXCEEDED);
            let error = Error::from(error);
            if !full && matches!(error.kind(), Kind::Connection | Kind::Transient) {
                return Err(error.context("setting the replication origin"));
            }
            break error;
        }
        // Most often it is just ending.
        let holder = holder(&error);
        if let Some(pid) = holder.filter(|_| !ended && begun.elapsed() > GRACE) {
            ended = client.query_opt(include_str!("end_holder.sql"), &[&pid, &session]).await?.is_some();
            if ended {
                tracing::info!(origin = name, pid, "ended the session of a predecessor that still held the origin");
            }
        }
        if begun.elapsed() > HELD {
            let who = holder.map_or_else(|| "another session".to_owned(), |pid| format!("process {pid} of the target"));
            let why = format!("the replication origin {name:?} is held by {who}");
            let fix = holder.map_or_else(String::new, |pid| format!("end it: SELECT pg_terminate_backend({pid});"));
            return Err(Error::new(Kind::Transient, why).fix(fix));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    WARNED.call_once(|| {
        tracing::warn!(
            origin = name,
            error = error.message(),
            "transactions at the target carry no replication origin: logical subscribers of the target cannot tell them \
             from the application's (grant EXECUTE on pg_replication_origin_create, _session_setup to change that, or \
             raise max_replication_slots at the target)"
        );
    });
    Ok(())
}

/// `replication origin with ID 1 is already active for PID 4711`, in whatever language.
fn holder(error: &tokio_postgres::Error) -> Option<i32> {
    let message = error.as_db_error()?.message();
    message.rsplit(|c: char| !c.is_ascii_digit()).find(|number| !number.is_empty())?.parse().ok()
}

async fn try_origin(client: &Client, name: &str) -> Result<(), tokio_postgres::Error> {
    let exists = "SELECT 1 FROM pg_replication_origin WHERE roname = $1";
    if client.query_opt(exists, &[&name]).await?.is_none() {
        client.execute("SELECT pg_replication_origin_create($1)", &[&name]).await?;
    }
    client.execute("SELECT pg_replication_origin_session_setup($1)", &[&name]).await.map(drop)
}

fn in_use(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::OBJECT_IN_USE)
}
