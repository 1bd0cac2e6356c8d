//! The fence of a MySQL or MariaDB source.
//!
//! In: a migration, its tables, a nonce. Out: a source whose migrated tables stand still: until a deadline, for good, or no
//! longer ([`crate::source::AnyFence`]). Every way has two halves: one that lets go by itself, and one that outlives the
//! server's restart; the point of no return is the single statement that makes the second of the first.
//!
//! | way | holds until the deadline | the point of no return |
//! |---|---|---|
//! | `read-only` | a session with `FLUSH TABLES WITH READ LOCK` | that session's `SET PERSIST super_read_only` (MariaDB, which has none: `SET GLOBAL read_only`, then the accounts) |
//! | `accounts` | a session with `LOCK TABLES … READ` on the migrated tables | `ALTER USER … ACCOUNT LOCK`, then their sessions are ended |
//! | `command` | the user's command, which the next driver takes back if this one dies | the journal |
//!
//! The session ends, and the locks with it, when the driver dies; and by `wait_timeout` when it is frozen or cut off.
//! Behind the locks, and under `super_read_only`, nothing can be noted at the source. So the row (`cutwater.fence`) is
//! written before, and says which attempt it is and by which way; how far it is says the server itself (TRAPS 18):
//!
//! | row | in force at the server | journal | what a new driver finds |
//! |---|---|---|---|
//! | none, `lifted` | | | no fence |
//! | `armed` | no | | before the point: what is left of it is taken back |
//! | `armed` | yes | past the point | past the point |
//! | `armed` | yes | before the point | its sessions are ended; past the point if nothing is prepared and the log says that no migrated table has changed behind the fence, else before it |
//! | `permanent` | | | past the point |
//!
//! In force is: `read_only` is on; or all accounts of the row are locked; a command never is by itself.
//!
//! What can go wrong: somebody is in the way (named); a prepared XA transaction, which may be committed behind any fence, a
//! replica's threads, events (TRAPS 21: refused); an account that passes `read_only` (MariaDB: locked). Whatever does get
//! past is found in the log, before the point of no return and once more behind it.

mod accounts;
mod blockers;
mod command;
mod locks;
mod point;
mod possible;
mod row;
mod still;
mod way;

use std::time::{Duration, Instant};

use jiff::Timestamp;

pub use self::blockers::Blocker;
pub use self::possible::Obstacle;
use self::row::{FenceRow, Word};
use self::way::{Rights, Way};
use super::{MySource, log};
use crate::change::Position;
use crate::config::CutoverConfig;
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{Session, connect};
use crate::schema::{Patterns, TableName};
use crate::source::fence::{Armed, Behind, DrainedBy, FenceState, FenceStep, Journalled, Request, exactly};

/// How long one try for the locks may take. `FLUSH TABLES WITH READ LOCK` holds up every writer meanwhile.
const PATIENCE: Duration = Duration::from_millis(700);
/// `LOCK TABLES` holds up nobody while it waits.
const LONG_PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries: the writers that queued behind the last one go on.
const PAUSE: Duration = Duration::from_millis(200);
/// A statement that runs for longer than this is waited for without asking for locks (TRAPS 9).
const SHORT: f64 = 1.0;
/// A command's fence is proved by tables that stand still for this long.
const PROOF: Duration = Duration::from_millis(500);

/// A fence, and its two sessions.
pub struct MyFence {
    source: MySource,
    config: CutoverConfig,
    /// Asks, notes, locks accounts, ends sessions.
    driver: Session,
    /// Holds the locks, once they are taken.
    holder: Option<Session>,
    /// When the locks let go.
    until: Option<Instant>,
}

impl MyFence {
    /// Connects; takes nothing.
    pub async fn open(source: &MySource, config: &CutoverConfig) -> Result<MyFence> {
        let driver = connect(source.info(), &format!("cutwater_{}_fence", source.name())).await?;
        Ok(MyFence { source: source.clone(), config: config.clone(), driver, holder: None, until: None })
    }

    fn migration(&self) -> &str {
        self.source.name()
    }

    /// The source's clock.
    pub async fn clock(&mut self) -> Result<Timestamp> {
        let micros = self.driver.value("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)").await;
        let micros = micros.context("reading the source's clock")?.and_then(|micros| micros.parse().ok());
        let time = micros.and_then(|micros| Timestamp::from_microsecond(micros).ok());
        time.ok_or_else(|| Error::new(Kind::Protocol, "the source's clock is out of range"))
    }

    /// Takes it: [`crate::source::AnyFence::arm`].
    pub async fn arm(&mut self, request: &Request<'_>) -> Result<Armed> {
        self.take(request).await.context("taking the fence")
    }

    async fn take(&mut self, request: &Request<'_>) -> Result<Armed> {
        let until = Instant::now() + request.budget;
        if !locks::mark(&mut self.driver, request.migration, "driver").await? {
            return Err(Error::new(Kind::Refused, "another cutover of this migration is at work at the source"));
        }
        let (way, accounts) = self.plan(request.tables).await?;
        row::install(&mut self.driver).await?;
        // The latest that it can be; the session that holds the locks ends by its own.
        let latest = self.clock().await? + request.budget + request.max_downtime;
        let row = FenceRow {
            nonce: request.nonce.to_owned(),
            epoch: request.epoch,
            word: Word::Armed,
            way,
            deadline: latest.as_microsecond(),
            accounts,
        };
        row::arm(&mut self.driver, request.migration, &row).await?;
        let mut tries = 0;
        loop {
            tries += 1;
            let in_the_way = match way {
                Way::ReadOnly => blockers::of(&mut self.driver, way, SHORT).await?,
                Way::Accounts | Way::Command => Vec::new(),
            };
            if in_the_way.is_empty() {
                let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(10));
                if let Some(armed) = self.try_to_arm(request, way, tries, left).await? {
                    return Ok(armed);
                }
            }
            if Instant::now() >= until {
                let in_the_way = blockers::of(&mut self.driver, way, 0.0).await?;
                return Err(blocked(&in_the_way, request.budget, tries));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn try_to_arm(
        &mut self,
        request: &Request<'_>,
        way: Way,
        tries: u32,
        left: Duration,
    ) -> Result<Option<Armed>> {
        let mut holder = connect(self.source.info(), &format!("cutwater_{}_fence", self.migration())).await?;
        if !locks::mark(&mut holder, request.migration, "holder").await? {
            // The last try's session is on its way out.
            return Ok(None);
        }
        locks::expire_after(&mut holder, request.max_downtime).await?;
        // The deadline counts from before the locks are asked for: writers wait from then on.
        let (since, now) = (Instant::now(), self.clock().await?);
        let patience = if way == Way::ReadOnly { PATIENCE } else { LONG_PATIENCE };
        if !locks::take(&mut holder, &mut self.driver, way, request.tables, patience.min(left)).await? {
            holder.close().await?;
            return Ok(None);
        }
        if way == Way::Command {
            self.command("fence_command", self.config.fence_command.clone(), now + request.max_downtime).await?;
        }
        // Writers wait, so what took its time counts: the server lets go no later than the deadline.
        locks::expire_after(&mut holder, request.max_downtime.saturating_sub(since.elapsed())).await?;
        self.holder = Some(holder);
        self.until = Some(since + request.max_downtime);
        if let Some(gid) = locks::prepared(&mut self.driver).await?.first() {
            return Err(Error::new(Kind::Transient, format!("XA transaction {gid} was prepared meanwhile")));
        }
        self.unchanged(request.tables, request.patterns).await?;
        let position = match way {
            Way::Command => self.proved(request, left).await?,
            Way::ReadOnly | Way::Accounts => log::look(&mut self.driver).await?.head,
        };
        Ok(Some(Armed {
            drained_by: DrainedBy::Position(position),
            deadline: now + request.max_downtime,
            since,
            tries,
            relations: request.tables.len(),
        }))
    }

    /// A position behind which the migrated tables stand still.
    async fn proved(&mut self, request: &Request<'_>, left: Duration) -> Result<Position> {
        let begun = Instant::now();
        let tables = self.source.described(request.tables).await?;
        loop {
            let position = log::look(&mut self.driver).await?.head;
            tokio::time::sleep(PROOF).await;
            let behind = Behind { position, tables: tables.clone() };
            match still::first_change(&self.source, &behind).await? {
                None => return Ok(behind.position),
                Some(what) if begun.elapsed() > left => {
                    let why = format!("fence_command has ended well, and writes go on: {what}");
                    return Err(Error::new(Kind::Transient, why).fix("what it does must stop every writer"));
                }
                Some(_) => {}
            }
        }
    }

    async fn command(&self, key: &str, text: Option<String>, deadline: Timestamp) -> Result<()> {
        let Some(text) = text else {
            return Err(Error::new(Kind::Config, format!("[cutover] {key} is not set")));
        };
        let facts = [("CUTWATER_MIGRATION", self.migration().to_owned()), ("CUTWATER_DEADLINE", deadline.to_string())];
        command::run(key, &text, self.source.info(), &facts).await
    }

    /// What would be done with these tables: the way, and the accounts it would lock.
    async fn plan(&mut self, tables: &[TableName]) -> Result<(Way, Vec<accounts::Account>)> {
        let rights = Rights::of(&mut self.driver).await?;
        let writers = self.writers(tables).await?;
        let through = self.through(&writers);
        let way = way::choose(self.config.fence, &rights, through).map_err(|missing| {
            Error::new(Kind::Privilege, format!("our account at the source lacks {}", missing.join(", ")))
                .fix(possible::grant(&missing))
        })?;
        let lock = match way {
            Way::Accounts => true,
            // `SET GLOBAL` is forgotten when the server starts again: the accounts are not.
            Way::ReadOnly => self.driver.server().is_mariadb() && rights.may_lock_accounts(),
            Way::Command => false,
        };
        let accounts = writers.into_iter().filter(|writer| lock && !writer.kept).map(|writer| writer.account);
        Ok((way, accounts.collect()))
    }

    /// Who may write, as far as we may look: without a right to lock accounts nobody has to be known.
    async fn writers(&mut self, tables: &[TableName]) -> Result<Vec<accounts::Writer>> {
        match accounts::writers(&mut self.driver, tables, &self.config.keep_accounts).await {
            Err(error) if error.kind() == Kind::Privilege => Ok(Vec::new()),
            writers => writers,
        }
    }

    /// Whether an account that is not kept passes what this server has of `read_only`.
    fn through(&self, writers: &[accounts::Writer]) -> bool {
        self.driver.server().is_mariadb() && writers.iter().any(|writer| writer.writes_through && !writer.kept)
    }

    /// Whether the migrated tables are still the ones that match.
    async fn unchanged(&mut self, tables: &[TableName], patterns: &Patterns) -> Result<()> {
        let only = self.source.info().database.clone().filter(|_| patterns.name_nothing());
        let rows = self.driver.rows(include_str!("tables_now.sql")).await.context("looking for new tables")?;
        let name = |row: crate::mysql::TextRow| match &row[..] {
            [Some(schema), Some(table)] => Some(TableName::new(schema.as_str(), table.as_str())),
            _ => None,
        };
        let now = rows.into_iter().filter_map(name);
        let now: Vec<TableName> = now.filter(|table| only.as_ref().is_none_or(|only| *only == table.schema)).collect();
        exactly(&now, tables, patterns)
    }

    /// The first change of a migrated table behind the fence, or what else did not stay as it was.
    pub async fn broken(&mut self, behind: &Behind) -> Result<Option<String>> {
        if let Some(gid) = locks::prepared(&mut self.driver).await?.first() {
            return Ok(Some(format!("XA transaction {gid} was prepared")));
        }
        still::first_change(&self.source, behind).await
    }

    /// Ends other sessions of an attempt: [`crate::source::AnyFence::end_others`].
    pub async fn end_others(&mut self) -> Result<()> {
        let rights = Rights::of(&mut self.driver).await?;
        let migration = self.migration().to_owned();
        let own = [self.driver.id().to_string(), self.holder.as_ref().map_or_else(String::new, |h| h.id().to_string())];
        for role in locks::ROLES {
            let begun = Instant::now();
            while let Some(id) = locks::marked(&mut self.driver, &migration, role).await?.filter(|id| !own.contains(id))
            {
                if begun.elapsed() > Duration::from_secs(10) {
                    return Err(Error::new(Kind::Transient, format!("session {id} at the source does not end")));
                }
                accounts::kill(&mut self.driver, &rights, &id).await?;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }

    /// Takes an attempt back: [`crate::source::AnyFence::lift`].
    pub async fn lift(&mut self, nonce: &str) -> Result<()> {
        self.end_others().await?;
        if let Some(holder) = self.holder.take() {
            holder.close().await?;
        }
        let migration = self.migration().to_owned();
        let Some(row) = row::read(&mut self.driver, &migration).await?.filter(|row| row.nonce == nonce) else {
            return Ok(());
        };
        match row.word {
            Word::Lifted => Ok(()),
            Word::Permanent => {
                Err(Error::new(Kind::Refused, "the fence is permanent: this cutover is past its point of no return")
                    .fix("run cutwater cutover again: it goes forward"))
            }
            Word::Armed => {
                self.let_go(&row).await.context("lifting the fence")?;
                row::write(&mut self.driver, &migration, nonce, Word::Lifted).await
            }
        }
    }

    /// Removes all of it, whatever its state, and says what was removed. For `teardown`.
    pub async fn remove(&mut self) -> Result<Vec<String>> {
        let migration = self.migration().to_owned();
        let Some(row) = row::read(&mut self.driver, &migration).await? else { return Ok(Vec::new()) };
        self.end_others().await?;
        if row.word != Word::Lifted {
            self.let_go(&row).await.context("lifting the fence")?;
        }
        row::remove(&mut self.driver, &migration).await
    }

    /// What [`MyFence::remove`] would remove.
    pub async fn made(&mut self) -> Result<Vec<String>> {
        let migration = self.migration().to_owned();
        let row = row::read(&mut self.driver, &migration).await?;
        Ok(row.map(|_| format!("the fence of {migration} at the source")).into_iter().collect())
    }

    /// What the source says: [`crate::source::AnyFence::state`].
    pub async fn state(&mut self, journalled: Option<&Journalled>) -> Result<Option<FenceState>> {
        let migration = self.migration().to_owned();
        let Some(row) = row::read(&mut self.driver, &migration).await? else { return Ok(None) };
        let journalled = journalled.filter(|journalled| journalled.nonce == row.nonce);
        let step = match row.word {
            Word::Lifted => FenceStep::Lifted,
            Word::Permanent => FenceStep::Permanent,
            Word::Armed if self.is_past(&row, journalled).await.context("reading the fence's state")? => {
                FenceStep::Permanent
            }
            Word::Armed => FenceStep::Armed,
        };
        let held = locks::marked(&mut self.driver, &migration, "holder").await?.is_some();
        let refuses = step != FenceStep::Lifted && (held || self.in_force(&row).await?);
        let deadline = Timestamp::from_microsecond(row.deadline).ok();
        Ok(Some(FenceState { nonce: row.nonce, step, deadline, refuses }))
    }
}

fn blocked(blockers: &[Blocker], budget: Duration, tries: u32) -> Error {
    let names: Vec<String> = blockers.iter().map(ToString::to_string).collect();
    let who = if names.is_empty() { "short transactions, one after the other".to_owned() } else { names.join("; ") };
    let why = format!("no locks within {:.1} s and {tries} tries; in the way: {who}", budget.as_secs_f64());
    let error = Error::new(Kind::Transient, why);
    match blockers.first() {
        Some(blocker) => error.fix(blocker.fix()),
        None => error,
    }
}
