//! Who is in the way of a fence.

use std::fmt;

use super::way::Way;
use crate::error::{Context, Result};
use crate::mysql::Session;

/// Somebody the fence would wait for, and with it every writer behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct Blocker {
    /// The session, as `KILL` takes it.
    pub id: String,
    /// `app@10.2.0.7:51234`
    pub who: String,
    /// What it does, and for how long.
    pub what: String,
    /// Seconds.
    pub seconds: f64,
}

impl Blocker {
    /// What ends it.
    pub fn fix(&self) -> String {
        format!("let it end, or on the source   KILL {};", self.id)
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} of {}, {}", self.id, self.who, self.what)
    }
}

/// Those that this way would wait for. `FLUSH TABLES WITH READ LOCK` waits for statements, and everybody behind it;
/// `LOCK TABLES` for transactions that have written, and stands in nobody's way meanwhile.
pub(super) async fn of(session: &mut Session, way: Way, seconds: f64) -> Result<Vec<Blocker>> {
    let found = match way {
        Way::ReadOnly => statements(session).await?,
        Way::Accounts => transactions(session).await?,
        Way::Command => Vec::new(),
    };
    Ok(found.into_iter().filter(|blocker| blocker.seconds >= seconds).collect())
}

/// Transactions that have written or locked rows, oldest first.
pub(super) async fn transactions(session: &mut Session) -> Result<Vec<Blocker>> {
    let rows = session.rows(include_str!("transactions.sql")).await.context("looking for open transactions")?;
    Ok(rows
        .into_iter()
        .filter_map(|row| match &row[..] {
            [Some(id), user, host, Some(seconds), Some(rows), query] => {
                let doing = query.as_deref().map_or_else(String::new, |query| format!(": {query}"));
                let seconds: f64 = seconds.parse().ok()?;
                Some(Blocker {
                    id: id.clone(),
                    who: who(user.as_deref(), host.as_deref()),
                    what: format!("its transaction is open for {seconds:.1} s and has changed {rows} rows{doing}"),
                    seconds,
                })
            }
            _ => None,
        })
        .collect())
}

/// Statements that run, longest first. Of connections, not of the server's own threads, and not of replicas.
pub(super) async fn statements(session: &mut Session) -> Result<Vec<Blocker>> {
    let own = session.id().to_string();
    let rows = session.rows("SHOW FULL PROCESSLIST").await.context("looking for statements that run")?;
    let mut found: Vec<Blocker> = rows
        .into_iter()
        .filter_map(|row| match &row[..] {
            [Some(id), user, host, _, Some(command), Some(time), _, query, ..]
                if *id != own && matches!(command.as_str(), "Query" | "Execute" | "Long Data" | "Fetch") =>
            {
                let query: String = query.as_deref()?.chars().take(120).collect();
                let seconds: f64 = time.parse().ok()?;
                Some(Blocker {
                    id: id.clone(),
                    who: who(user.as_deref(), host.as_deref()),
                    what: format!("its statement has run for {seconds:.0} s: {query}"),
                    seconds,
                })
            }
            _ => None,
        })
        .collect();
    found.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    Ok(found)
}

fn who(user: Option<&str>, host: Option<&str>) -> String {
    format!("{}@{}", user.unwrap_or("?"), host.unwrap_or("?"))
}
