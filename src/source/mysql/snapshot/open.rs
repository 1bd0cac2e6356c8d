//! Begins a snapshot: several sessions that see the same rows, and the position in the log that is exactly theirs.
//!
//! Only a lock under which nothing commits makes the two meet (TRAPS 9):
//!
//! | server | lock | waits for |
//! |---|---|---|
//! | MySQL, MariaDB before 10.4 | `FLUSH TABLES WITH READ LOCK` | every statement that runs, SELECTs too |
//! | MariaDB | `BACKUP STAGE BLOCK_COMMIT` | commits and DDL that run |
//!
//! While the first kind waits, everybody who writes waits behind it. So it is asked for only while no long statement runs,
//! waits a second at most, and is tried again later. Once it is had, all sessions begin their transactions at once, the
//! position is read, and it is let go: some milliseconds. If this process stops in between, the server ends the session that
//! holds it after [`HOLDS`].
//!
//! The position is read under the lock by the session that holds it: file, offset and, of MySQL, `Executed_Gtid_Set` come
//! in one answer. Of MariaDB the GTIDs are `@@gtid_binlog_pos`: what this server's own log has, domain by domain.
//! (`gtid_current_pos` also has what it applied as a replica and may not have logged; `BINLOG_GTID_POS` gives the same by
//! reading the whole file.) MariaDB tells each transaction the place in the log that it sees (`binlog_snapshot_position`),
//! which is compared.
//!
//! What can go wrong: a right is missing; the lock is not had in [`PATIENCE`], then the error names who was in the way; XA
//! transactions are prepared, whose rows would be in no snapshot and in no stream (TRAPS 3).

use std::time::{Duration, Instant};

use futures::future::try_join_all;

use super::pool::SAVEPOINT;
use crate::change::Position;
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{Role, Session, connect_as};
use crate::source::mysql::{MySource, log};

/// How long it is tried in all.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two tries. A try holds writers up for a second at most, so they come seldom.
const AGAIN: Duration = Duration::from_secs(5);
/// Between two looks at who is in the way.
const LOOK: Duration = Duration::from_secs(1);
/// Seconds after which the server ends the session that holds the lock if nothing is heard of it.
const HOLDS: u32 = 10;
/// What is done under the lock may take this long.
const UNDER_LOCK: Duration = Duration::from_secs(5);
/// No session of a snapshot is ended for being idle or slow for less than a year, which is the most that a server takes.
const FOR_EVER: &str = "SET SESSION net_write_timeout = 31536000, net_read_timeout = 31536000, wait_timeout = 31536000";
const BEGIN: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

/// Sessions of one snapshot.
pub(super) struct Opened {
    pub sessions: Vec<Session>,
    pub position: Position,
}

/// Begins it with `sessions` sessions.
pub(super) async fn open(source: &MySource, sessions: usize) -> Result<Opened> {
    let mut holder = source.session().await?;
    log::look(&mut holder).await?;
    refuse_prepared(&mut holder).await?;
    let lock = Lock::of(&holder);
    // The shortest there is.
    holder.execute(format!("SET SESSION lock_wait_timeout = 1, wait_timeout = {HOLDS}")).await?;
    let mut readers = readers(source, sessions).await?;
    let begun = Instant::now();
    let mut told = String::new();
    loop {
        let mut in_the_way = match lock {
            Lock::Tables => busy(&mut holder).await?,
            Lock::Commits => Vec::new(),
        };
        if in_the_way.is_empty() {
            match under_lock(lock, &mut holder, &mut readers).await {
                Ok((position, held)) => {
                    tracing::info!(%position, sessions, held_ms = held.as_millis() as u64, "the snapshot is made");
                    return Ok(Opened { sessions: readers, position });
                }
                Err(error) if error.kind() == Kind::Transient && error.why().contains("(error 1205)") => {
                    in_the_way = busy(&mut holder).await?;
                    if in_the_way.is_empty() {
                        in_the_way.push(format!("somebody who holds {}", lock.against()));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let list = in_the_way.join("; ");
        if begun.elapsed() >= PATIENCE {
            let why = format!("no snapshot could be made in {} minutes: in the way is {list}", PATIENCE.as_secs() / 60);
            return Err(Error::new(Kind::Transient, why)
                .fix("let them end, or end them (KILL QUERY <id>), or begin when the source is less busy"));
        }
        if told != in_the_way[0] {
            told.clone_from(&in_the_way[0]);
            tracing::warn!("the snapshot waits for {list}");
        }
        let tried = matches!(lock, Lock::Commits) || list.starts_with("somebody");
        tokio::time::sleep(if tried { AGAIN } else { LOOK }).await;
    }
}

/// Sessions that are to see it.
async fn readers(source: &MySource, count: usize) -> Result<Vec<Session>> {
    let reader = || async {
        let mut session = connect_as(&source.inner.info, &source.application_name(), Role::Reader).await?;
        session.execute(FOR_EVER).await?;
        if session.server().is_mariadb() {
            // Only a session that does not log lets the lock of a table go while its transaction goes on
            // (`trans_rollback_to_savepoint`, sql/transaction.cc). Without the right to it the locks stay until the end.
            if let Err(error) = session.execute("SET SESSION sql_log_bin = 0").await {
                tracing::info!(%error, "an ALTER of a copied table will wait for the end of the copy");
            }
        }
        Ok(session)
    };
    try_join_all((0..count.max(1)).map(|_| reader())).await
}

/// Sessions that each see the rows as they are now, and a position that is about theirs.
pub(super) async fn of_now(source: &MySource, sessions: usize) -> Result<Opened> {
    let mut holder = source.session().await?;
    let position = log::look(&mut holder).await?.head;
    let mut readers = readers(source, sessions).await?;
    try_join_all(readers.iter_mut().map(begin)).await?;
    Ok(Opened { sessions: readers, position })
}

async fn begin(session: &mut Session) -> Result<()> {
    session.execute(BEGIN).await?;
    session.execute(format!("SAVEPOINT {SAVEPOINT}")).await?;
    Ok(())
}

/// What makes commits wait.
#[derive(Debug, Clone, Copy)]
enum Lock {
    Tables,
    Commits,
}

impl Lock {
    fn of(session: &Session) -> Lock {
        let server = session.server();
        if server.is_mariadb() && server.version >= (10, 4, 1) { Lock::Commits } else { Lock::Tables }
    }

    fn take(self) -> &'static [&'static str] {
        match self {
            Lock::Tables => &["FLUSH TABLES WITH READ LOCK"],
            Lock::Commits => &["BACKUP STAGE START", "BACKUP STAGE BLOCK_COMMIT"],
        }
    }

    fn release(self) -> &'static str {
        match self {
            Lock::Tables => "UNLOCK TABLES",
            Lock::Commits => "BACKUP STAGE END",
        }
    }

    fn against(self) -> &'static str {
        match self {
            Lock::Tables => "a table locked (LOCK TABLES), or alters one",
            Lock::Commits => "a commit or a table up (DDL, another backup)",
        }
    }
}

/// Takes the lock, begins all transactions, reads the position, lets the lock go. Also how long it was held.
async fn under_lock(lock: Lock, holder: &mut Session, readers: &mut [Session]) -> Result<(Position, Duration)> {
    let taken = async {
        for sql in lock.take() {
            holder.execute(sql).await?;
        }
        Ok::<_, Error>(Instant::now())
    };
    let made = match taken.await {
        Err(error) => Err(explained(lock, error)),
        Ok(since) => {
            let work = async {
                try_join_all(readers.iter_mut().map(begin)).await?;
                let position = log::now(holder).await?;
                refuse_prepared(holder).await?;
                Ok((position, since))
            };
            let late =
                || Error::new(Kind::Connection, "the source did not answer in time while its commits waited for us");
            tokio::time::timeout(UNDER_LOCK, work).await.unwrap_or_else(|_| Err(late()))
        }
    };
    if matches!(&made, Err(error) if error.kind() == Kind::Connection) {
        // With its session the lock ends too.
        return made.map(|(position, _)| (position, Duration::ZERO));
    }
    let released = holder.execute(lock.release()).await;
    let (position, since) = made?;
    let held = since.elapsed();
    released.context("letting the source's commits go on")?;
    for reader in readers {
        check_place(reader, &position).await?;
    }
    Ok((position, held))
}

/// MariaDB says where in the log a transaction's snapshot stands.
async fn check_place(reader: &mut Session, position: &Position) -> Result<()> {
    let Position::MariaDb(position) = position else { return Ok(()) };
    let rows = reader.rows("SHOW STATUS LIKE 'binlog_snapshot_%'").await?;
    let find = |name: &str| {
        let row = rows.iter().find(|row| row[0].as_deref().is_some_and(|found| found.eq_ignore_ascii_case(name)));
        row.and_then(|row| row.get(1).cloned().flatten()).unwrap_or_default()
    };
    let seen = format!("{}:{}", find("binlog_snapshot_file"), find("binlog_snapshot_position"));
    if seen.len() > 1 && seen != position.at.to_string() {
        let why =
            format!("a snapshot is of {seen} in the log, and the position that was read with it is {}", position.at);
        return Err(Error::new(Kind::Transient, why));
    }
    Ok(())
}

/// Who has run for a while, longest first.
async fn busy(session: &mut Session) -> Result<Vec<String>> {
    let rows = session.rows(include_str!("busy.sql")).await.context("looking for long statements")?;
    let text = |value: Option<&Option<String>>| value.cloned().flatten().unwrap_or_default();
    let who = |row: Vec<Option<String>>| {
        let [id, user, seconds, sql] = [0, 1, 2, 3].map(|at| text(row.get(at)));
        format!("statement {id} of {user:?}, which has run for {seconds} s: {sql}")
    };
    Ok(rows.into_iter().map(who).collect())
}

/// What was prepared before would be in no snapshot, and only its end in the stream (TRAPS 3).
pub(in crate::source::mysql) async fn refuse_prepared(session: &mut Session) -> Result<()> {
    // formatID, gtrid_length, bqual_length, data
    let rows = match session.rows("XA RECOVER CONVERT XID").await {
        Ok(rows) => rows,
        // Who may not see them learns of them from the stream, which stops at their end.
        Err(error) if error.why().contains("(error 1401)") || error.kind() == Kind::Privilege => return Ok(()),
        // MariaDB calls it otherwise.
        Err(_) => session.rows("XA RECOVER FORMAT='SQL'").await.context("asking for prepared XA transactions")?,
    };
    let Some(first) = rows.first() else { return Ok(()) };
    let id = first.get(3).cloned().flatten().unwrap_or_default();
    let why = match rows.len() {
        1 => format!("an XA transaction is prepared at the source ({id})"),
        many => format!("{many} XA transactions are prepared at the source ({id} …)"),
    };
    Err(Error::new(Kind::Refused, format!("{why}: its rows are in no snapshot, and only its end will be in the log"))
        .fix("commit or roll them back at the source (XA RECOVER lists them), then run the same command again"))
}

fn explained(lock: Lock, error: Error) -> Error {
    let denied = matches!(error.kind(), Kind::Privilege | Kind::Authentication);
    if !denied {
        return error.context("making the source's commits wait for a moment");
    }
    let what = lock.take().join(", ");
    Error::new(Kind::Privilege, format!("{what}: {}", error.why()))
        .fix("GRANT RELOAD ON *.* TO the account at the source: the snapshot needs a moment without commits")
}
