//! The locks that hold writers up until the fence is permanent, or for good if it never is.
//!
//! They are a session's, so the server itself lets them go: at once when the driver dies, and after `wait_timeout` when it
//! is frozen or cut off. `FLUSH TABLES WITH READ LOCK` holds up the whole server and can be followed by `read_only` in the
//! same session, so that nothing comes between; `LOCK TABLES … READ` holds up the migrated tables, also for those that pass
//! `read_only`, and lets the driver's other session write.

use std::time::Duration;

use super::way::Way;
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{Session, my_table};
use crate::schema::TableName;

/// Asks for the locks, for as long as `patience`. `false`: they were not to be had.
///
/// The server's own time-outs count for each table anew and in whole seconds, so the statement is cancelled from outside.
pub(super) async fn take(
    holder: &mut Session,
    other: &mut Session,
    way: Way,
    tables: &[TableName],
    patience: Duration,
) -> Result<bool> {
    let sql = match way {
        Way::ReadOnly => "FLUSH TABLES WITH READ LOCK".to_owned(),
        Way::Accounts => {
            let each = tables.iter().map(|table| format!("{} READ", my_table(table)));
            format!("LOCK TABLES {}", each.collect::<Vec<_>>().join(", "))
        }
        Way::Command => return Ok(true),
    };
    let id = holder.id();
    let locked = {
        let locking = holder.execute(&sql);
        tokio::pin!(locking);
        tokio::select! {
            locked = &mut locking => locked,
            () = tokio::time::sleep(patience) => {
                other.execute(format!("KILL QUERY {id}")).await?;
                locking.await
            }
        }
    };
    match locked {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == Kind::Transient => {
            // MySQL keeps the first half of a FLUSH TABLES WITH READ LOCK that was cancelled in its second.
            release(holder).await?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Lets them go.
pub(super) async fn release(holder: &mut Session) -> Result<()> {
    holder.execute("UNLOCK TABLES").await.map(drop).context("letting the fence's locks go")
}

/// The server ends the session, and with it the locks, when nothing was heard from it for this long.
pub(super) async fn expire_after(holder: &mut Session, time: Duration) -> Result<()> {
    holder.execute(format!("SET SESSION wait_timeout = {}", time.as_secs().max(1))).await.map(drop)
}

/// The names of an attempt's two sessions, as locks by which they are found: a name is a session's as long as it lives.
pub(super) const ROLES: [&str; 2] = ["driver", "holder"];

fn name(migration: &str, role: &str) -> String {
    format!("cutwater_{migration}_{role}")
}

/// Marks a session as this one of the migration's. `false`: there is another.
pub(super) async fn mark(session: &mut Session, migration: &str, role: &str) -> Result<bool> {
    let rows = session.rows_with("SELECT GET_LOCK(?, 0)", (name(migration, role),)).await?;
    Ok(rows.first().and_then(|row| row.first()).cloned().flatten().as_deref() == Some("1"))
}

/// The session that is marked as this one, if there is one.
pub(super) async fn marked(session: &mut Session, migration: &str, role: &str) -> Result<Option<String>> {
    let rows = session.rows_with("SELECT IS_USED_LOCK(?)", (name(migration, role),)).await?;
    Ok(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
}

/// Prepared XA transactions: they may be committed behind any fence (TRAPS 21).
pub(super) async fn prepared(session: &mut Session) -> Result<Vec<String>> {
    let rows = session.rows("XA RECOVER CONVERT XID").await.map_err(|error| {
        if error.why().contains("1401") {
            let why = "prepared XA transactions may not be looked at";
            return Error::new(Kind::Privilege, why)
                .fix("on the source   GRANT XA_RECOVER_ADMIN ON *.* TO <our account>;");
        }
        error
    });
    let rows = match rows {
        // MariaDB says it otherwise.
        Err(error) if error.why().contains("(error 1064)") => session.rows("XA RECOVER FORMAT='SQL'").await?,
        rows => rows.context("looking for prepared XA transactions")?,
    };
    Ok(rows.into_iter().filter_map(|row| row.into_iter().last().flatten()).collect())
}
