//! The sessions that write: what they must be, and by what their transactions are told apart.

use std::sync::Once;
use std::time::Duration;

use super::late;
use crate::error::{Error, Kind, Result};
use crate::postgres::{Client, ConnInfo, connect};

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
/// tell them from the application's. Where that is not permitted, the run goes on and says what is lost.
pub(super) async fn set_origin(client: &Client, migration: &str) {
    static WARNED: Once = Once::new();
    let name = format!("cutwater_{migration}");
    let mut tries = 0;
    let error = loop {
        match try_origin(client, &name).await {
            Ok(()) => return,
            // The predecessor's session may still be ending.
            Err(error) if in_use(&error) && tries < 10 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => break Error::from(error),
        }
    };
    WARNED.call_once(|| {
        tracing::warn!(
            origin = name,
            error = error.message(),
            "transactions at the target carry no replication origin: logical subscribers of the target cannot tell them \
             from the application's (grant EXECUTE on pg_replication_origin_create, _session_setup to change that)"
        );
    });
}

async fn try_origin(client: &Client, name: &str) -> Result<(), tokio_postgres::Error> {
    let exists = "SELECT 1 FROM pg_replication_origin WHERE roname = $1";
    if client.query_opt(exists, &[&name]).await?.is_none() {
        client.execute("SELECT pg_replication_origin_create($1)", &[&name]).await?;
    }
    client.execute("SELECT pg_replication_origin_session_setup($1)", &[&name]).await.map(drop)
}

fn in_use(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&tokio_postgres::error::SqlState::OBJECT_IN_USE)
}
