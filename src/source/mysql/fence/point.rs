//! The point of no return, what is in force at the server, and taking it back.

use std::time::Instant;

use super::row::{self, FenceRow, Word};
use super::way::{Rights, Way};
use super::{MyFence, accounts, locks, still};
use crate::error::{Context, Error, Kind, Result};
use crate::source::fence::{Behind, Journalled, Outcome, Request};

/// What MariaDB needs a hand for.
const NOTE: &str = "MariaDB forgets read_only when it starts again: write read_only = 1 into its option file, or end the \
                    applications' accounts";

impl MyFence {
    /// Passes it: [`crate::source::AnyFence::make_permanent`].
    pub async fn make_permanent(&mut self, request: &Request<'_>, behind: &Behind) -> Result<Outcome> {
        self.pass(request, behind).await.context("making the fence permanent")
    }

    async fn pass(&mut self, request: &Request<'_>, behind: &Behind) -> Result<Outcome> {
        let row = row::read(&mut self.driver, request.migration).await?;
        let ours = |row: &FenceRow| row.nonce == request.nonce && row.epoch == request.epoch && row.word == Word::Armed;
        let Some(row) = row.filter(ours) else { return Ok(Outcome::Expired) };
        if self.until.is_none_or(|until| Instant::now() >= until) {
            return Ok(Outcome::Expired);
        }
        let held = locks::marked(&mut self.driver, request.migration, "holder").await?;
        if held.is_none() || held != self.holder.as_ref().map(|holder| holder.id().to_string()) {
            return Ok(Outcome::Expired);
        }
        if row.way == Way::ReadOnly {
            let mariadb = self.driver.server().is_mariadb();
            let Some(holder) = self.holder.as_mut() else { return Ok(Outcome::Expired) };
            let sql = if mariadb {
                "SET GLOBAL read_only = ON"
            } else {
                "SET PERSIST read_only = ON, PERSIST super_read_only = ON"
            };
            // The session that holds the locks: if it has none any more, it is gone, and this fails.
            match holder.execute(sql).await {
                Err(error) if error.kind() == Kind::Connection => {
                    return if self.in_force(&row).await? { Err(error) } else { Ok(Outcome::Expired) };
                }
                done => done?,
            };
        }
        match self.hold(&row).await {
            Err(error) if error.kind() != Kind::Connection => return Ok(Outcome::Broken(error.why().to_owned())),
            held => held?,
        }
        if let Some(what) = self.broken(behind).await? {
            return Ok(Outcome::Broken(what));
        }
        self.note_permanent(&row).await?;
        if let Some(holder) = self.holder.take() {
            holder.close().await?;
        }
        let forgets = row.way == Way::ReadOnly && self.driver.server().is_mariadb() && row.accounts.is_empty();
        Ok(Outcome::Permanent(forgets.then(|| NOTE.to_owned())))
    }

    /// Makes what is in force hold without the locks, and against those who wrote before it. May be repeated.
    async fn hold(&mut self, row: &FenceRow) -> Result<()> {
        let rights = Rights::of(&mut self.driver).await?;
        if row.way == Way::ReadOnly {
            // A read-only server lets what was written before be prepared and committed by XA. Who is ended is done with,
            // and rolls back when our lock is gone; nor can accounts be locked behind that.
            let ended = accounts::end_transactions(&mut self.driver, &rights).await?;
            if let Some(holder) = self.holder.take() {
                holder.close().await?;
            }
            accounts::gone(&mut self.driver, &ended).await?;
            if row.accounts.is_empty() {
                return Ok(());
            }
        }
        if row.way == Way::Command {
            return Ok(());
        }
        accounts::lock(&mut self.driver, &row.accounts, true).await?;
        accounts::end_sessions(&mut self.driver, &rights, &row.accounts).await
    }

    /// Notes it, where the fence lets us.
    async fn note_permanent(&mut self, row: &FenceRow) -> Result<()> {
        let migration = self.source.name().to_owned();
        match row::write(&mut self.driver, &migration, &row.nonce, Word::Permanent).await {
            // `super_read_only`, or whatever a command did: it says so itself.
            Err(error) if row.way != Way::Accounts && error.kind() != Kind::Connection => Ok(()),
            noted => noted,
        }
    }

    /// Whether what outlives the locks is there.
    pub(super) async fn in_force(&mut self, row: &FenceRow) -> Result<bool> {
        match row.way {
            Way::ReadOnly => {
                let name = if self.driver.server().is_mariadb() { "read_only" } else { "super_read_only" };
                let value = self.driver.value(format!("SELECT @@GLOBAL.{name}")).await?;
                Ok(value.is_some_and(|value| !matches!(value.to_uppercase().as_str(), "0" | "OFF")))
            }
            Way::Accounts => accounts::are_locked(&mut self.driver, &row.accounts).await,
            Way::Command => Ok(false),
        }
    }

    /// Whether an attempt that was begun is past its point of no return. One that died in between is judged by what has
    /// been written since; its sessions are ended first.
    pub(super) async fn is_past(&mut self, row: &FenceRow, journalled: Option<&Journalled>) -> Result<bool> {
        let Some(journalled) = journalled else { return Ok(false) };
        if row.way == Way::Command {
            return Ok(journalled.passed);
        }
        if !self.in_force(row).await? {
            return Ok(false);
        }
        if journalled.passed {
            return Ok(true);
        }
        let Some(behind) = &journalled.behind else { return Ok(false) };
        self.end_others().await?;
        self.hold(row).await?;
        if !locks::prepared(&mut self.driver).await?.is_empty()
            || still::first_change(&self.source, behind).await?.is_some()
        {
            return Ok(false);
        }
        self.note_permanent(row).await?;
        Ok(true)
    }

    /// Takes back what is in force.
    pub(super) async fn let_go(&mut self, row: &FenceRow) -> Result<()> {
        if row.way == Way::Command {
            let deadline = jiff::Timestamp::from_microsecond(row.deadline)
                .map_err(|error| Error::new(Kind::Internal, error.to_string()))?;
            return self.command("unfence_command", self.config.unfence_command.clone(), deadline).await;
        }
        if row.way == Way::ReadOnly && self.in_force(row).await? {
            if self.driver.server().is_mariadb() {
                self.driver.execute("SET GLOBAL read_only = OFF").await?;
            } else {
                self.driver.execute("SET GLOBAL super_read_only = OFF, GLOBAL read_only = OFF").await?;
                for name in ["super_read_only", "read_only"] {
                    self.driver.execute(format!("RESET PERSIST IF EXISTS {name}")).await?;
                }
            }
        }
        let locked = accounts::locked(&mut self.driver, &row.accounts).await?;
        accounts::lock(&mut self.driver, &locked, false).await
    }
}
