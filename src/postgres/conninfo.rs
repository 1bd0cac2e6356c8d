//! `postgres://` URLs with libpq's parameters.

use secrecy::SecretString;

use crate::config::Url;
use crate::error::{Error, Kind, Result};

/// Where and as whom to connect.
#[derive(Debug, Clone)]
pub struct ConnInfo {
    /// Servers to try, in order.
    pub hosts: Vec<Host>,
    /// Role.
    pub user: String,
    /// Its password, if the URL has one.
    pub password: Option<SecretString>,
    /// Database.
    pub database: String,
}

/// One address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// Name or address, and port.
    Tcp(String, u16),
    /// Folder of a Unix socket, and port.
    Unix(std::path::PathBuf, u16),
}

impl ConnInfo {
    /// Reads a URL.
    pub fn parse(url: &Url) -> Result<ConnInfo> {
        let bad = |why: String| Error::new(Kind::Config, why);
        let config: tokio_postgres::Config = url.expose().parse().map_err(|_| bad("the URL cannot be read".into()))?;
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let hosts = config
            .get_hosts()
            .iter()
            .map(|host| match host {
                tokio_postgres::config::Host::Tcp(name) => Host::Tcp(name.clone(), port),
                tokio_postgres::config::Host::Unix(path) => Host::Unix(path.clone(), port),
            })
            .collect();
        let user = config.get_user().ok_or_else(|| bad("the URL names no user".into()))?.to_owned();
        let database = config.get_dbname().unwrap_or(&user).to_owned();
        let password = config.get_password().map(|p| SecretString::from(String::from_utf8_lossy(p).into_owned()));
        Ok(ConnInfo { hosts, user, password, database })
    }

    /// `old:5432`, for people.
    pub fn address(&self) -> String {
        self.hosts
            .iter()
            .map(|host| match host {
                Host::Tcp(name, port) => format!("{name}:{port}"),
                Host::Unix(path, port) => format!("{}:{port}", path.display()),
            })
            .collect::<Vec<_>>()
            .join(",")
    }

    /// `postgres old:5432/shop`, for people.
    pub fn label(&self) -> String {
        format!("postgres {}/{}", self.address(), self.database)
    }
}
