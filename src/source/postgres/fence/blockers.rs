//! Who is in the way of a fence: those whose locks it would wait for, and with it every writer behind it.

use std::fmt;

use super::triggers::Relation;
use crate::error::{Context, Result};
use crate::postgres::Client;

/// Somebody whose lock is in the fence's way.
#[derive(Debug, Clone, PartialEq)]
pub struct Blocker {
    /// Backend; `None` for a prepared transaction.
    pub pid: Option<i32>,
    /// Name of the prepared transaction.
    pub prepared: Option<String>,
    /// `client backend`, `autovacuum worker` …
    pub kind: String,
    /// Its role.
    pub role: String,
    /// Its `application_name`.
    pub application: String,
    /// Its address.
    pub client: String,
    /// The start of its statement.
    pub query: String,
    /// Seconds since its transaction began.
    pub open_seconds: f64,
    /// When its statement began.
    pub since: String,
    /// One of the tables.
    pub relation: String,
}

impl Blocker {
    /// An autovacuum that may be cancelled: not one against wraparound, which would only come back.
    fn is_ordinary_autovacuum(&self) -> bool {
        self.kind == "autovacuum worker" && !self.query.contains("to prevent wraparound")
    }

    /// What ends it.
    pub fn fix(&self) -> String {
        match (&self.prepared, self.pid) {
            (Some(gid), _) => {
                format!("let it end, or on the source   ROLLBACK PREPARED '{}';", gid.replace('\'', "''"))
            }
            (None, Some(pid)) => format!("let it end, or on the source   SELECT pg_terminate_backend({pid});"),
            (None, None) => "let it end".into(),
        }
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.prepared, self.pid) {
            (Some(gid), _) => write!(f, "prepared transaction {gid:?}")?,
            (None, Some(pid)) => write!(f, "pid {pid}, {}", self.kind)?,
            (None, None) => f.write_str(&self.kind)?,
        }
        write!(f, ", open {:.1} s, role {}", self.open_seconds, self.role)?;
        for (word, text) in [("", &self.application), ("", &self.client)] {
            if !text.is_empty() {
                write!(f, ", {word}{text:?}")?;
            }
        }
        write!(f, ", on {}", self.relation)?;
        if !self.query.is_empty() {
            write!(f, ", since {}: {}", self.since, self.query)?;
        }
        Ok(())
    }
}

/// Cancels ordinary autovacuums on the tables and says who else holds a lock that the fence needs.
pub(super) async fn clear_the_way(client: &Client, relations: &[Relation]) -> Result<Vec<Blocker>> {
    let oids: Vec<u32> = relations.iter().map(|relation| relation.oid).collect();
    let mut others = Vec::new();
    for blocker in blockers_of(client, &oids).await? {
        match blocker.pid {
            Some(pid) if blocker.is_ordinary_autovacuum() => {
                // Not permitted without pg_signal_backend or more: then it is named as a blocker like any other.
                match client.query_one("SELECT pg_cancel_backend($1)", &[&pid]).await {
                    Ok(_) => tracing::info!(%blocker, "cancelled an autovacuum in the way of the fence"),
                    Err(_) => others.push(blocker),
                }
            }
            _ => others.push(blocker),
        }
    }
    Ok(others)
}

/// Whoever holds or waits for a lock on the relations (OIDs) that conflicts with the fence's.
pub(super) async fn blockers_of(client: &Client, oids: &[u32]) -> Result<Vec<Blocker>> {
    let rows = client
        .query(include_str!("blockers.sql"), &[&oids])
        .await
        .context("looking for locks in the way of the fence")?;
    Ok(rows
        .iter()
        .map(|row| Blocker {
            pid: row.get(0),
            prepared: row.get(1),
            kind: row.get(2),
            role: row.get(3),
            application: row.get(4),
            client: row.get(5),
            query: row.get(6),
            open_seconds: row.get(7),
            since: row.get::<_, Option<String>>(8).unwrap_or_default(),
            relation: row.get(9),
        })
        .collect())
}
