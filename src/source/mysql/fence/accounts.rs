//! The accounts that write to the migrated tables: which they are, locking them, and ending their sessions.
//!
//! `ACCOUNT LOCK` refuses new sessions and leaves open ones writing (TRAPS 21), so one without the other is no fence. An
//! account is taken for one that writes if it has any right to change something, on the server, in a migrated database or on
//! a table of it, or has a role or runs routines, which may write for it. One too many is locked rather than one too few.
//! Never locked are our own, those that the servers reserve, `root` on the server itself, and what the config names.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::way::Rights;
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{MyText, Session, TextRow};
use crate::schema::TableName;

/// How long an ended session may take to be gone: a large transaction is rolled back.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// Names that the servers and the managed services reserve.
const RESERVED: &[&str] =
    &["mysql.sys", "mysql.session", "mysql.infoschema", "mariadb.sys", "rdsadmin", "rdsrepladmin", "azure_superuser"];
/// From where an administrator works on the server itself.
const LOCAL: &[&str] = &["localhost", "127.0.0.1", "::1"];

/// `'app'@'%'`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Account {
    pub user: String,
    pub host: String,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.host)
    }
}

impl Account {
    fn sql(&self) -> String {
        format!("{}@{}", MyText(&self.user), MyText(&self.host))
    }
}

/// One of them, and what it may do.
pub(super) struct Writer {
    pub account: Account,
    /// It passes `read_only` (and would pass `super_read_only`, if anybody did).
    pub writes_through: bool,
    /// MySQL: only who is a `SYSTEM_USER` may lock it or end its sessions.
    pub of_the_system: bool,
    /// It stays as it is.
    pub kept: bool,
}

/// Who may write to the migrated tables, other than we. Locked accounts are not among them.
pub(super) async fn writers(session: &mut Session, tables: &[TableName], keep: &[String]) -> Result<Vec<Writer>> {
    let databases: BTreeSet<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    let sql = if session.server().is_mariadb() {
        include_str!("accounts_mariadb.sql")
    } else {
        include_str!("accounts_mysql.sql")
    };
    let list = databases.iter().map(|name| MyText(name).to_string()).collect::<Vec<_>>().join(", ");
    let rows = session.rows(sql.replace("{databases}", &list)).await.context("looking for accounts that may write")?;
    let own = session.value("SELECT CURRENT_USER()").await?.unwrap_or_default();
    let this = session.server().variable("hostname").unwrap_or_default().to_owned();
    let mut writers = Vec::new();
    for row in rows {
        let [Some(user), Some(host), Some(through), Some(system)] = &row[..] else { continue };
        let account = Account { user: user.clone(), host: host.clone() };
        let name = account.to_string();
        if name == own || RESERVED.contains(&user.as_str()) {
            continue;
        }
        let local = user == "root" && (LOCAL.contains(&host.as_str()) || *host == this);
        let kept = local || keep.iter().any(|keep| *keep == name || keep == user);
        writers.push(Writer { account, writes_through: through == "1", of_the_system: system == "1", kept });
    }
    Ok(writers)
}

/// Locks them, all in one statement, which in MySQL is one step: all or none.
pub(super) async fn lock(session: &mut Session, accounts: &[Account], locked: bool) -> Result<()> {
    if accounts.is_empty() {
        return Ok(());
    }
    let names = accounts.iter().map(Account::sql).collect::<Vec<_>>().join(", ");
    let word = if locked { "LOCK" } else { "UNLOCK" };
    session
        .execute(format!("ALTER USER IF EXISTS {names} ACCOUNT {word}"))
        .await
        .map(drop)
        .with_context(|| format!("{}ing accounts at the source", word.to_lowercase()))
}

/// Those of them that are locked.
pub(super) async fn locked(session: &mut Session, accounts: &[Account]) -> Result<Vec<Account>> {
    if accounts.is_empty() {
        return Ok(Vec::new());
    }
    let sql = if session.server().is_mariadb() {
        "SELECT user, host FROM mysql.global_priv WHERE coalesce(json_value(priv, '$.account_locked'), 0)"
    } else {
        "SELECT user, host FROM mysql.user WHERE account_locked = 'Y'"
    };
    let rows = session.rows(sql).await.context("looking at locked accounts")?;
    let account = |row: TextRow| match &row[..] {
        [Some(user), Some(host)] => Some(Account { user: user.clone(), host: host.clone() }),
        _ => None,
    };
    let locked: BTreeSet<Account> = rows.into_iter().filter_map(account).collect();
    Ok(accounts.iter().filter(|account| locked.contains(account)).cloned().collect())
}

/// Whether all of them are, of which there must be one.
pub(super) async fn are_locked(session: &mut Session, accounts: &[Account]) -> Result<bool> {
    Ok(!accounts.is_empty() && locked(session, accounts).await?.len() == accounts.len())
}

/// Ends every session of theirs and waits until there is none.
pub(super) async fn end_sessions(session: &mut Session, rights: &Rights, accounts: &[Account]) -> Result<()> {
    let begun = Instant::now();
    loop {
        let own = session.id();
        let rows = session.rows("SHOW FULL PROCESSLIST").await.context("looking for sessions to end")?;
        let mut left = Vec::new();
        for row in &rows {
            let [Some(id), Some(user), host, ..] = &row[..] else { continue };
            let host = host.as_deref().unwrap_or_default();
            if accounts.iter().any(|account| account.user == *user)
                && !kept(accounts, user, host)
                && *id != own.to_string()
            {
                left.push(id.clone());
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            let why = format!("sessions {} at the source do not end", left.join(", "));
            return Err(Error::new(Kind::Transient, why));
        }
        for id in &left {
            kill(session, rights, id).await?;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Whether a session at this place is not of one of these accounts but of one with the same name for the server itself.
fn kept(accounts: &[Account], user: &str, host: &str) -> bool {
    host == "localhost"
        && !accounts.iter().any(|a| a.user == user && (LOCAL.contains(&a.host.as_str()) || a.host == "%"))
}

/// Ends the sessions with a transaction open that has written, other than ours: what they have not committed by now they
/// never will. Also an XA transaction, which a read-only server would let be prepared and committed. Which they are:
/// behind a lock of ours they may be gone only once it is ([`gone`]). `Err`: one that we may not end.
pub(super) async fn end_transactions(session: &mut Session, rights: &Rights) -> Result<Vec<String>> {
    let sql = "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx
                WHERE trx_rows_modified > 0 AND trx_mysql_thread_id NOT IN (0, CONNECTION_ID())";
    let rows = session.rows(sql).await.context("looking for transactions that have written")?;
    let ids: Vec<String> = rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
    for id in &ids {
        kill(session, rights, id).await?;
    }
    Ok(ids)
}

/// Waits until these sessions are gone, which they are when they are rolled back. Not asked of `innodb_trx`: that is as it
/// was until nobody has looked for a tenth of a second.
pub(super) async fn gone(session: &mut Session, ids: &[String]) -> Result<()> {
    let begun = Instant::now();
    while !ids.is_empty() {
        let rows = session.rows("SHOW FULL PROCESSLIST").await.context("looking for ended sessions")?;
        let there = rows.into_iter().filter_map(|row| row.into_iter().next().flatten());
        let left: Vec<String> = there.filter(|id| ids.contains(id)).collect();
        if left.is_empty() {
            break;
        }
        if begun.elapsed() > PATIENCE {
            return Err(Error::new(Kind::Transient, format!("sessions {} at the source do not end", left.join(", "))));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Ends one session; one that has ended meanwhile is no error.
pub(super) async fn kill(session: &mut Session, rights: &Rights, id: &str) -> Result<()> {
    let killed = match session.execute(format!("KILL {id}")).await {
        Err(error) if error.kind() == Kind::Privilege && rights.rds_kill => {
            session.execute(format!("CALL mysql.rds_kill({id})")).await
        }
        killed => killed,
    };
    match killed {
        Ok(_) => Ok(()),
        // ER_NO_SUCH_THREAD
        Err(error) if error.why().contains("(error 1094)") => Ok(()),
        Err(error) => Err(error.context(format!("ending session {id} at the source"))),
    }
}
