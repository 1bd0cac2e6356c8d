//! Where the demo's database lives: a throw-away server of the engine that was asked for.

use std::fmt;
use std::path::{Path, PathBuf};

use super::my_programs;
use super::my_server::{self, LocalMySql, MyOptions};
use super::server::{LocalPostgres, SUPERUSER, ServerOptions};
use crate::error::Result;
use crate::mysql::Flavour;

/// The database's name on every server.
pub(super) const DATABASE: &str = my_server::DATABASE;

/// An engine that the demo can start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// A Postgres server
    Postgres,
    /// A MySQL server
    Mysql,
    /// A MariaDB server
    Mariadb,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Postgres => "Postgres",
            Kind::Mysql => "MySQL",
            Kind::Mariadb => "MariaDB",
        })
    }
}

/// A server with an empty database.
pub(super) enum Home {
    Postgres(LocalPostgres),
    MySql(Box<LocalMySql>),
}

impl Home {
    pub(super) async fn start(kind: Kind) -> Result<Home> {
        let flavour = match kind {
            Kind::Postgres => {
                let server = LocalPostgres::start(ServerOptions::new()).await?;
                server.execute("postgres", &format!("CREATE DATABASE {DATABASE}")).await?;
                return Ok(Home::Postgres(server));
            }
            Kind::Mysql => Flavour::MySql,
            Kind::Mariadb => Flavour::MariaDb,
        };
        let server = LocalMySql::start(my_programs::find(flavour)?, MyOptions::new()).await?;
        Ok(Home::MySql(Box::new(server)))
    }

    pub(super) fn url(&self) -> String {
        match self {
            Home::Postgres(server) => server.url(SUPERUSER, DATABASE),
            Home::MySql(server) => server.url(DATABASE),
        }
    }

    /// As the application connects.
    pub(super) fn application_url(&self) -> String {
        match self {
            Home::Postgres(server) => server.url(SUPERUSER, DATABASE),
            Home::MySql(server) => server.application_url(),
        }
    }

    pub(super) fn label(&self) -> String {
        match self {
            Home::Postgres(server) => server.label(),
            Home::MySql(server) => server.label(),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        match self {
            Home::Postgres(server) => server.folder(),
            Home::MySql(server) => server.folder(),
        }
    }

    /// Where the server's programs are, if they come with clients that a migration uses.
    pub(super) fn programs(&self) -> Option<PathBuf> {
        match self {
            Home::Postgres(server) => Some(server.programs().to_owned()),
            Home::MySql(_) => None,
        }
    }
}
