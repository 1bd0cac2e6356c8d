//! A session of the application, at whichever engine its database lives.
//!
//! In: an address, whose scheme names the engine, and the engine that the database came from: a database that has moved
//! still has the tables of its first home, as far as the new one has such types. Out: the writes of the workload, and
//! answers as text. What can go wrong with a statement is one of two things, and the record hangs on the difference: the
//! server has answered that it failed, or nobody knows ([`Broken`]).

mod mysql;
mod postgres;

use crate::error::{Context, Error, Kind, Result};

use mysql::MySession;
use postgres::PgSession;

/// Which SQL a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// `postgres://`
    Postgres,
    /// `mysql://`, `mariadb://`
    MySql,
}

impl Engine {
    /// The engine of an address.
    pub fn of(url: &str) -> Engine {
        if url.starts_with("postgres") { Engine::Postgres } else { Engine::MySql }
    }
}

/// What one statement of a write is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    /// writer, sequence
    Journal,
    /// id, balance, version
    Transfer,
    /// account, total in cents, writer → id
    NewOrder,
    /// order, lines
    NewItems,
    /// id, version
    ChangeOrder,
    /// id
    DeleteOrder,
    /// id; the text is its body
    NewDocument,
    /// id, version
    ChangeDocument,
    /// id, version, new id
    MoveDocument,
    /// how many → ids
    NewEvents,
    /// id
    DeleteEvent,
}

/// A statement that did not work.
#[derive(Debug)]
pub(super) struct Broken {
    pub error: Error,
    /// The server has said so: the session is there, and the statement did nothing.
    pub answered: bool,
}

impl From<Broken> for Error {
    fn from(broken: Broken) -> Error {
        broken.error
    }
}

pub(super) type Answer<T> = std::result::Result<T, Broken>;

/// Rows as text.
pub type Rows = Vec<Vec<Option<String>>>;

/// A session.
pub struct Session {
    at: At,
    /// Where the tables were made.
    origin: Engine,
}

enum At {
    Postgres(Box<PgSession>),
    MySql(Box<MySession>),
}

macro_rules! ask {
    ($session:expr, $at:ident => $answer:expr) => {
        match &mut $session.at {
            At::Postgres($at) => $answer,
            At::MySql($at) => $answer,
        }
    };
}

impl Session {
    /// A session at `url`, with a database whose tables were made by `origin`.
    pub async fn connect(url: &str, origin: Engine) -> Result<Session> {
        let at = match Engine::of(url) {
            Engine::Postgres => At::Postgres(Box::new(PgSession::connect(url).await?)),
            Engine::MySql => At::MySql(Box::new(MySession::connect(url).await?)),
        };
        Ok(Session { at, origin })
    }

    /// The engine that it is a session of.
    pub fn engine(&self) -> Engine {
        match &self.at {
            At::Postgres(_) => Engine::Postgres,
            At::MySql(_) => Engine::MySql,
        }
    }

    /// The engine that the tables were made by.
    pub fn origin(&self) -> Engine {
        self.origin
    }

    /// What tells it from every other session, to ask later whether it is still there.
    pub(super) fn name(&self) -> String {
        match &self.at {
            At::Postgres(session) => session.name(),
            At::MySql(session) => session.name(),
        }
    }

    /// Whether the session of this name, of another or an earlier connection to this server, is still there.
    pub(super) async fn is_there(&mut self, name: &str) -> Result<bool> {
        ask!(self, at => at.is_there(name).await)
    }

    pub(super) fn is_closed(&self) -> bool {
        match &self.at {
            At::Postgres(session) => session.is_closed(),
            At::MySql(session) => session.is_closed(),
        }
    }

    /// Makes the workload's tables, empty.
    pub(super) async fn make_tables(&mut self) -> Result<()> {
        let sql = match self.engine() {
            Engine::Postgres => include_str!("../postgres/schema.sql"),
            Engine::MySql => include_str!("../mysql/schema.sql"),
        };
        self.execute(sql).await.context("making the workload's tables")
    }

    /// The statements that fill them, but for the documents.
    pub(super) fn preload(&self) -> &'static str {
        match self.engine() {
            Engine::Postgres => include_str!("../postgres/preload.sql"),
            Engine::MySql => include_str!("../mysql/preload.sql"),
        }
    }

    /// Runs statements.
    pub async fn execute(&mut self, sql: &str) -> Result<()> {
        Ok(ask!(self, at => at.execute(sql).await)?)
    }

    /// As [`Session::execute`], telling how it went wrong.
    pub(super) async fn control(&mut self, sql: &str) -> Answer<()> {
        ask!(self, at => at.execute(sql).await)
    }

    /// Commits. An error that was not answered leaves it open whether it has happened.
    pub(super) async fn commit(&mut self) -> Answer<()> {
        ask!(self, at => at.commit().await)
    }

    /// The rows of an answer, as text.
    pub async fn rows(&mut self, sql: &str) -> Result<Rows> {
        Ok(ask!(self, at => at.rows(sql).await)?)
    }

    /// The first row of an answer, all of whose columns are whole numbers.
    pub async fn numbers(&mut self, sql: &str) -> Result<Vec<i64>> {
        let wrong = || Error::new(Kind::Protocol, format!("no row of numbers: {sql}"));
        let row = self.rows(sql).await?.into_iter().next().ok_or_else(wrong)?;
        row.into_iter().map(|text| text.and_then(|text| text.parse().ok()).ok_or_else(wrong)).collect()
    }

    /// Carries out one statement of a write; returns the ids that it made.
    pub(super) async fn write(&mut self, write: Write, values: &[i64], text: &str) -> Answer<Vec<i64>> {
        match &mut self.at {
            At::Postgres(session) => session.write(write, self.origin, values, text).await,
            At::MySql(session) => session.write(write, values, text).await,
        }
    }
}
