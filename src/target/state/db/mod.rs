//! The seam between what is remembered and the database that it is remembered in.
//!
//! In: statements with their parameters, each to be run by itself or in a transaction. Out: rows of [`Value`]s, or how
//! many rows a statement touched. What can go wrong: a [`Failed`], which says as far as the state's logic needs to know
//! what it was.
//!
//! Everything above this is written once: the logic, the laws, the reading of rows. Below it each engine has a room with
//! what only it can know: how to connect, how values are put into bytes, the layout, and the few statements that it says
//! in its own words (`state/*.sql` in the engine's room). All others are written once, in the words of Postgres.

mod value;

pub(in crate::target) use value::params;
pub(crate) use value::{Param, Params, Row, Value};

use std::time::Duration;

use crate::error::Error;
use crate::mysql::MyConnInfo;
use crate::postgres::ConnInfo;
use crate::target::mysql::state as mysql;
use crate::target::postgres::state as postgres;

/// A statement, as each engine is told it.
///
/// Where a parameter is a list, the statement is run for each of its rows: by one `unnest` in Postgres, once a row in MySQL,
/// in one transaction all the same.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sql<'a> {
    pub postgres: &'a str,
    /// May use those words of Postgres that its room understands.
    pub mysql: &'a str,
}

impl<'a> From<&'a str> for Sql<'a> {
    fn from(both: &'a str) -> Self {
        Sql { postgres: both, mysql: both }
    }
}

/// The statement `state/<name>.sql` of each engine's room.
macro_rules! sql {
    ($name:literal) => {
        $crate::target::state::db::Sql {
            postgres: include_str!(concat!("../postgres/state/", $name, ".sql")),
            mysql: include_str!(concat!("../mysql/state/", $name, ".sql")),
        }
    };
}
pub(super) use sql;

/// Where the state is.
#[derive(Debug, Clone)]
pub enum Database {
    /// A Postgres database: schema `cutwater`.
    Postgres(ConnInfo),
    /// A MySQL or MariaDB server: database `cutwater`.
    MySql(MyConnInfo),
}

impl From<ConnInfo> for Database {
    fn from(info: ConnInfo) -> Self {
        Database::Postgres(info)
    }
}

impl From<MyConnInfo> for Database {
    fn from(info: MyConnInfo) -> Self {
        Database::MySql(info)
    }
}

/// What kept a statement from being run.
pub(crate) struct Failed {
    pub why: Why,
    pub error: Error,
}

/// As far as the state's logic tells one trouble from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The state, or this table of it, is not there.
    NoTable,
    /// The state is of an older layout.
    NoColumn,
    /// Somebody holds a lock for longer than we would wait, or waits for us.
    Locked,
    /// Anything else.
    Other,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed { why: Why::Other, error }
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

/// How a transaction is to be.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct How {
    /// How long it waits for a lock; `None`: for as long as it takes.
    pub patience: Option<Duration>,
    /// Its commit is flushed, whatever the server's default is.
    pub flushed: bool,
}

/// A session with the database. Dropped in mid-transaction, or in mid-statement, it leaves nothing of it.
pub(crate) enum Session {
    Postgres(postgres::Session),
    MySql(Box<mysql::Session>),
}

impl Session {
    /// Connects, under this name.
    pub async fn open(database: &Database, name: &str) -> Result<Session, Error> {
        Ok(match database {
            Database::Postgres(info) => Session::Postgres(postgres::Session::open(info, name).await?),
            Database::MySql(info) => Session::MySql(Box::new(mysql::Session::open(info, name).await?)),
        })
    }

    /// Whether it is worth being used again.
    pub async fn is_alive(&mut self) -> bool {
        match self {
            Session::Postgres(session) => session.is_alive(),
            Session::MySql(session) => session.is_alive().await,
        }
    }

    /// Runs a statement; how many rows it touched, or found.
    pub async fn execute(&mut self, sql: Sql<'_>, params: Params<'_>) -> Result<u64, Failed> {
        match self {
            Session::Postgres(session) => session.execute(sql.postgres, params).await,
            Session::MySql(session) => session.execute(sql.mysql, params).await,
        }
    }

    /// The rows a statement finds.
    pub async fn query(&mut self, sql: Sql<'_>, params: Params<'_>) -> Result<Vec<Row>, Failed> {
        match self {
            Session::Postgres(session) => session.query(sql.postgres, params).await,
            Session::MySql(session) => session.query(sql.mysql, params).await,
        }
    }

    /// Begins a transaction, in which each statement sees what was committed before it.
    pub async fn begin(&mut self, how: How) -> Result<(), Failed> {
        match self {
            Session::Postgres(session) => session.begin(how).await,
            Session::MySql(session) => session.begin(how).await,
        }
    }

    /// Ends it.
    pub async fn commit(&mut self) -> Result<(), Failed> {
        match self {
            Session::Postgres(session) => session.commit().await,
            Session::MySql(session) => session.commit().await,
        }
    }

    /// Takes it back.
    pub async fn rollback(&mut self) -> Result<(), Failed> {
        match self {
            Session::Postgres(session) => session.rollback().await,
            Session::MySql(session) => session.rollback().await,
        }
    }

    /// Makes the layout, or brings it to this one.
    pub async fn install(&mut self) -> Result<(), Failed> {
        match self {
            Session::Postgres(session) => session.install().await,
            Session::MySql(session) => session.install().await,
        }
    }

    /// Removes what the migration's appliers have left at the server beside the state.
    pub async fn remove_traces(&mut self, migration: &str) {
        match self {
            Session::Postgres(session) => session.remove_origins(migration).await,
            // There are none.
            Session::MySql(_) => {}
        }
    }

    /// Drops the layout, and everything in it.
    pub async fn drop_layout(&mut self) -> Result<(), Failed> {
        match self {
            Session::Postgres(session) => session.drop_layout().await,
            Session::MySql(session) => session.drop_layout().await,
        }
    }
}
