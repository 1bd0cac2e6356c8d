//! The fence: what makes a source refuse writes during a cutover, and lets go by itself.
//!
//! In: a migration, its tables, a nonce. Out: triggers on every table and partition that refuse writes until a deadline
//! ([`arm`]), for good ([`make_permanent`]: the point of no return), or no longer ([`disarm`]). The truth about it is one
//! row and the triggers, both *on the source* (TRAPS 18). What can go wrong: somebody holds a lock (named), the catalogue
//! is no longer what the migration copied (refused), the deadline passed or another attempt took over (refused).
//!
//! | state of `cutwater.fence` | writes | left by |
//! |---|---|---|
//! | `armed`, before the deadline | refused | `make_permanent`, `disarm`, time |
//! | `armed`, after the deadline | pass | `disarm` |
//! | `permanent` | refused | `drop_all` |
//! | `lifted` | pass | `arm` |

mod blockers;
mod session;
mod triggers;

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::change::Lsn;
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::Client;
use crate::schema::{Patterns, TableName};
use crate::source::fence::exactly;
pub use crate::source::fence::{FenceState, FenceStep, Outcome, Request};

pub use self::blockers::Blocker;
use self::blockers::{blockers_of, clear_the_way};
pub use self::session::PgFence;
use self::triggers::{Relation, drop_triggers, function_name, function_sql, relations, trigger_names, trigger_sql};

/// How much of `deadlock_timeout` a try for the locks may take, all locks together. Below it, the application's
/// transaction is never the one that the server's dead-lock detector kills because of us (TRAPS 20).
const SHARE_OF_DEADLOCK_TIMEOUT: f64 = 0.7;
/// Pause after a try that got nothing, in which the writers that queued behind it go on.
const PAUSE: Duration = Duration::from_millis(150);
/// A transaction open for longer than this is waited for without asking for locks: asking would stall every writer.
const SHORT: f64 = 0.5;

/// An armed fence.
#[derive(Debug, Clone)]
pub struct Armed {
    /// Every change to the tables, and the marker, is in the log before this.
    pub head: Lsn,
    /// When it lets go by itself, by the source's clock.
    pub deadline: Timestamp,
    /// When the successful try began to ask for locks: from here on writers waited or were refused.
    pub since: Instant,
    /// Tries it took.
    pub tries: u32,
    /// Relations that carry it, partitions included.
    pub relations: usize,
}

/// Takes the fence: locks all tables at once, checks the catalogue, makes triggers, function and marker, in one
/// transaction. Tries again until `budget` is used up; then [`Kind::Transient`], naming who is in the way.
///
/// Dropping the future leaves the session in an unknown place: end the session ([`end_session`]) before [`disarm`].
pub async fn arm(client: &Client, request: &Request<'_>) -> Result<Armed> {
    let until = Instant::now() + request.budget;
    let deadlock_ms: i64 = client
        .query_one("SELECT setting::bigint FROM pg_settings WHERE name = 'deadlock_timeout'", &[])
        .await
        .context("reading deadlock_timeout")?
        .get(0);
    let patience = Duration::from_millis((deadlock_ms as f64 * SHARE_OF_DEADLOCK_TIMEOUT).max(10.0) as u64);
    let mut tries = 0;
    loop {
        tries += 1;
        let relations = relations(client, request.tables).await?;
        let in_the_way = clear_the_way(client, &relations).await?;
        if in_the_way.iter().all(|blocker| blocker.open_seconds < SHORT) {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(10));
            let since = Instant::now();
            match try_to_arm(client, request, &relations, patience.min(left)).await {
                Ok(Some(deadline)) => {
                    let sql = "SELECT pg_current_wal_flush_lsn()::text";
                    let head = client.query_one(sql, &[]).await.context("reading the source's head")?;
                    let head = head.get::<_, &str>(0).parse()?;
                    return Ok(Armed { head, deadline, since, tries, relations: relations.len() });
                }
                Ok(None) => client.batch_execute("ROLLBACK").await.context("letting the fence's locks go")?,
                Err(error) => {
                    // Best effort: the error that brought us here says more than a failing ROLLBACK.
                    let _ = client.batch_execute("ROLLBACK").await;
                    return Err(error.context("taking the fence"));
                }
            }
        }
        if Instant::now() >= until {
            return Err(blocked(&clear_the_way(client, &relations).await?, request.budget, tries));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn blocked(blockers: &[Blocker], budget: Duration, tries: u32) -> Error {
    let names: Vec<String> = blockers.iter().map(ToString::to_string).collect();
    let who = if names.is_empty() { "short transactions, one after the other".to_owned() } else { names.join("; ") };
    let why =
        format!("no lock on all tables within {:.1} s and {tries} tries; in the way: {who}", budget.as_secs_f64());
    let error = Error::new(Kind::Transient, why).context("taking the fence");
    match blockers.first() {
        Some(blocker) => error.fix(blocker.fix()),
        None => error,
    }
}

/// One try. `None`: the locks were not to be had, or the set of partitions changed meanwhile.
async fn try_to_arm(
    client: &Client,
    request: &Request<'_>,
    relations: &[Relation],
    patience: Duration,
) -> Result<Option<Timestamp>> {
    // The deadline counts from before the locks are asked for: writers wait from then on. `local`, because a dead
    // synchronous standby must not hang the fence; what matters is that the log up to it is flushed here.
    client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = 'local'").await?;
    let now: i64 =
        client.query_one("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint", &[]).await?.get(0);
    let deadline = now + request.max_downtime.as_micros() as i64;
    // `lock_timeout` would be granted anew for each of the tables; the statement as a whole must stay below
    // deadlock_timeout.
    let tables: Vec<&str> = relations.iter().map(|relation| relation.sql.as_str()).collect();
    let ms = patience.as_millis().max(1);
    let lock =
        format!("SET LOCAL statement_timeout = {ms}; LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", tables.join(", "));
    if let Err(error) = client.batch_execute(&lock).await {
        let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
        return if matches!(code.as_str(), "57014" | "55P03" | "40P01" | "42P01") {
            Ok(None)
        } else {
            Err(error.into())
        };
    }
    client.batch_execute(&format!("SET LOCAL statement_timeout = {}", request.max_downtime.as_millis().max(1))).await?;
    let again = triggers::relations(client, request.tables).await?;
    if again.iter().map(|r| r.oid).ne(relations.iter().map(|r| r.oid)) {
        return Ok(None);
    }
    unchanged(client, request.tables, request.patterns).await?;
    let until = Timestamp::from_microsecond(deadline).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
    let condition = format!("pg_catalog.clock_timestamp() OPERATOR(pg_catalog.<) '{until}'::pg_catalog.timestamptz");
    let message = format!(
        "cutwater: this database is being cut over to {}; writes are refused until {until} at the latest",
        request.target
    );
    let hint = "try again in a few seconds: by then the new database is live, or this one takes writes again";
    client.batch_execute(&function_sql(request.migration, &condition, &message, hint)).await?;
    client.batch_execute(&trigger_sql(client, request.migration, &again).await?).await?;
    let marked = client
        .execute(include_str!("fence/mark.sql"), &[&request.migration, &request.nonce, &request.epoch, &deadline])
        .await?;
    if marked != 1 {
        return Err(Error::new(Kind::Refused, "the fence of an earlier cutover is permanent: the target is live")
            .fix("cutwater status"));
    }
    client.batch_execute("COMMIT").await?;
    Ok(Some(until))
}

/// Whether the catalogue still holds exactly the migrated tables: one that matches the patterns and was not copied would be writable through the fence, and lost (TRAPS 19).
pub async fn unchanged(client: &Client, tables: &[TableName], patterns: &Patterns) -> Result<()> {
    let rows = client.query(include_str!("fence/tables_now.sql"), &[]).await?;
    let now: Vec<TableName> =
        rows.iter().map(|row| TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1))).collect();
    exactly(&now, tables, patterns)
}

/// Who holds a lock on the tables (or a partition of them) that a fence would wait for.
pub async fn blockers(client: &Client, tables: &[TableName]) -> Result<Vec<Blocker>> {
    let oids: Vec<u32> = relations(client, tables).await?.iter().map(|relation| relation.oid).collect();
    blockers_of(client, &oids).await
}

/// How many tables and partitions a fence would cover.
pub async fn relation_count(client: &Client, tables: &[TableName]) -> Result<usize> {
    Ok(relations(client, tables).await?.len())
}

/// The point of no return: from an armed fence that expires to one that never does. `false`: it had expired, was lifted
/// or belongs to another attempt, and nothing was changed.
///
/// All tables are locked again, so that no writer is between its own look at the clock and this commit: a commit that
/// takes longer than the time left cannot let one through. An error may mean that the outcome is unknown: end the
/// session ([`end_session`]) and read [`state`].
pub async fn make_permanent(client: &Client, migration: &str, nonce: &str, epoch: i64, target: &str) -> Result<bool> {
    let doing = "making the fence permanent";
    let (statement, row) = trigger_names(migration);
    let fenced = client.query(include_str!("fence/triggers.sql"), &[&statement, &row]).await.context(doing)?;
    let mut tables: Vec<&str> = fenced.iter().map(|trigger| trigger.get(0)).collect();
    tables.dedup();
    if tables.is_empty() {
        return Ok(false);
    }
    let begin = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = 'local'; SET LOCAL statement_timeout = 600;
         LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE",
        tables.join(", ")
    );
    client.batch_execute(&begin).await.context(doing)?;
    let ours =
        client.execute(include_str!("fence/make_permanent.sql"), &[&migration, &nonce, &epoch]).await.context(doing)?;
    if ours != 1 {
        client.batch_execute("ROLLBACK").await.context(doing)?;
        return Ok(false);
    }
    let message = format!("cutwater: this database was cut over to {target}; it takes no more writes");
    let function = function_sql(migration, "true", &message, "connect to the new database");
    client.batch_execute(&function).await.context(doing)?;
    client.batch_execute("COMMIT").await.context(doing)?;
    Ok(true)
}

/// Takes an attempt's fence back: writes pass from its commit on. Refused if it is permanent; nothing to do if another
/// attempt has taken over or none was armed. The triggers, which then let everything pass, are dropped as far as their
/// locks are to be had without making anybody wait.
pub async fn disarm(client: &Client, migration: &str, nonce: &str) -> Result<()> {
    let doing = "lifting the fence";
    let Some(found) = state(client, migration).await? else { return Ok(()) };
    if found.nonce != nonce {
        return Ok(());
    }
    client.batch_execute("BEGIN; SET LOCAL synchronous_commit = 'local'; SET LOCAL lock_timeout = '5s'").await?;
    let sql = "UPDATE cutwater.fence SET state = 'lifted' WHERE migration = $1 AND nonce = $2 AND state <> 'permanent'";
    let lifted = client.execute(sql, &[&migration, &nonce]).await.context(doing)?;
    if lifted != 1 {
        client.batch_execute("ROLLBACK").await.context(doing)?;
        return Err(Error::new(Kind::Refused, "the fence is permanent: this cutover is past its point of no return")
            .fix("run cutwater cutover again: it goes forward"));
    }
    // Replacing the function needs no lock on any table, so that writes go on at once whoever reads what.
    client.batch_execute(&function_sql(migration, "false", "", "")).await.context(doing)?;
    client.batch_execute("COMMIT").await.context(doing)?;
    if let Err(error) = drop_triggers(client, migration, "100ms").await {
        tracing::info!(%error, "some triggers of the lifted fence stay for now; they let everything pass");
    }
    Ok(())
}

/// What the source says about the migration's fence; `None` if there never was one.
pub async fn state(client: &Client, migration: &str) -> Result<Option<FenceState>> {
    let sql = "SELECT nonce, state, (extract(epoch FROM deadline) * 1000000)::bigint,
                      state = 'permanent' OR (state = 'armed' AND clock_timestamp() < deadline)
                 FROM cutwater.fence WHERE migration = $1";
    let row = match client.query_opt(sql, &[&migration]).await {
        Ok(row) => row,
        Err(error) if error.code().is_some_and(|c| matches!(c.code(), "42P01" | "3F000")) => None,
        Err(error) => return Err(Error::from(error).context("reading the fence's state")),
    };
    let Some(row) = row else { return Ok(None) };
    let step = match row.get(1) {
        "armed" => FenceStep::Armed,
        "permanent" => FenceStep::Permanent,
        _ => FenceStep::Lifted,
    };
    let deadline = row.get::<_, Option<i64>>(2).and_then(|micros| Timestamp::from_microsecond(micros).ok());
    Ok(Some(FenceState { nonce: row.get(0), step, deadline, refuses: row.get(3) }))
}

/// Removes triggers, function and row, whatever their state; says what was removed. For `teardown`.
pub async fn drop_all(client: &Client, migration: &str) -> Result<Vec<String>> {
    let mut removed = drop_triggers(client, migration, "5s").await?;
    let sql = "SELECT to_regproc($1) IS NOT NULL";
    if client.query_one(sql, &[&function_name(migration)]).await.context("removing the fence")?.get(0) {
        client.batch_execute(&format!("DROP FUNCTION {}()", function_name(migration))).await?;
        removed.push(format!("function {}", function_name(migration)));
    }
    if state(client, migration).await?.is_some() {
        client.execute("DELETE FROM cutwater.fence WHERE migration = $1", &[&migration]).await?;
    }
    Ok(removed)
}

/// Ends the session of an attempt whose outcome is unknown and waits until it is gone: what it had not committed by
/// then it never will.
pub async fn end_session(client: &Client, pid: i32, application_name: &str) -> Result<()> {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND application_name = $2";
    let until = Instant::now() + Duration::from_secs(10);
    while !client.query(sql, &[&pid, &application_name]).await.context("ending the fence's session")?.is_empty() {
        if Instant::now() > until {
            return Err(Error::new(Kind::Transient, format!("backend {pid} on the source does not end")));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
