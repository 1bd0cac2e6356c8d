//! What a server is and how it is set, asked for once when a session begins.
//!
//! In: the answer to `variables.sql`, which names every variable that any part of Cutwater goes by. Out: [`Server`]. A
//! variable that a server does not have is `None`: older versions and the other flavour lack some.

use std::collections::BTreeMap;

use crate::error::{Error, Kind, Result};

/// Whose server it is. What was made from MySQL and calls itself so (Percona Server, Aurora) counts as MySQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// MySQL.
    MySql,
    /// MariaDB.
    MariaDb,
}

/// Major, minor, patch.
pub type Version = (u16, u16, u16);

/// What a server is and how it was set when the session began.
#[derive(Debug, Clone)]
pub struct Server {
    /// MySQL or MariaDB.
    pub flavour: Flavour,
    /// `(10, 11, 6)`
    pub version: Version,
    /// What the server says of its version: `10.11.6-MariaDB-0+deb12u1-log`.
    pub version_text: String,
    variables: BTreeMap<String, String>,
}

impl std::fmt::Display for Flavour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Flavour::MySql => "MySQL",
            Flavour::MariaDb => "MariaDB",
        })
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (major, minor, patch) = self.version;
        write!(f, "{} {major}.{minor}.{patch}", self.flavour)
    }
}

impl Server {
    /// From the rows of `variables.sql`: name and value, the names in lower case.
    pub fn new(variables: BTreeMap<String, String>) -> Result<Server> {
        let get = |name: &str| variables.get(name).map(String::as_str).unwrap_or_default();
        let version_text = get("version").to_owned();
        let version = version(&version_text).ok_or_else(|| {
            Error::new(Kind::Protocol, format!("the server's version {version_text:?} is not understood"))
        })?;
        let mariadb = version_text.contains("MariaDB") || get("version_comment").contains("MariaDB");
        let flavour = if mariadb { Flavour::MariaDb } else { Flavour::MySql };
        Ok(Server { flavour, version, version_text, variables })
    }

    /// A variable of `variables.sql`, as the server prints it. `None`: this server does not have it.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Whether a switch is on; one that the server does not have is off.
    pub fn is_on(&self, name: &str) -> bool {
        self.variable(name).is_some_and(|value| value.eq_ignore_ascii_case("on") || value == "1")
    }

    /// A variable that is a whole number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.variable(name)?.parse().ok()
    }

    /// Whether it is MariaDB.
    pub fn is_mariadb(&self) -> bool {
        self.flavour == Flavour::MariaDb
    }

    /// `server_id`: 0 where none is set.
    pub fn server_id(&self) -> u32 {
        self.number("server_id").and_then(|id| u32::try_from(id).ok()).unwrap_or_default()
    }

    /// `server_uuid`: MySQL's own name for itself, for ever.
    pub fn server_uuid(&self) -> Option<&str> {
        self.variable("server_uuid")
    }

    /// Whether transactions have GTIDs: always in MariaDB, in MySQL with `gtid_mode = ON`.
    pub fn has_gtids(&self) -> bool {
        self.is_mariadb() || self.variable("gtid_mode") == Some("ON")
    }

    /// Whether there is a binary log.
    pub fn logs(&self) -> bool {
        self.is_on("log_bin")
    }

    /// How long binary logs are kept at least, in seconds; `None` or 0: until somebody purges them.
    pub fn keeps_logs_for(&self) -> Option<u64> {
        // Both exist in MariaDB ≥ 10.6 and MySQL 8.0; the one in seconds wins when it is set.
        let days = self.variable("expire_logs_days").and_then(|days| days.parse::<f64>().ok());
        let seconds = self.number("binlog_expire_logs_seconds").filter(|seconds| *seconds > 0);
        seconds.or(days.map(|days| (days * 86_400.0) as u64))
    }

    /// Whether it refuses writes of ordinary accounts.
    pub fn is_read_only(&self) -> bool {
        // MariaDB 12 has levels: NO_LOCK, NO_LOCK_NO_ADMIN.
        ["read_only", "super_read_only", "innodb_read_only"]
            .into_iter()
            .any(|name| self.variable(name).is_some_and(|value| !value.eq_ignore_ascii_case("off") && value != "0"))
    }

    /// The largest statement or row in bytes that it takes over one connection.
    pub fn max_allowed_packet(&self) -> u64 {
        self.number("max_allowed_packet").unwrap_or(4 << 20)
    }
}

/// The first three numbers of `8.0.36-28.1`, `10.11.6-MariaDB-log`, `5.7.mysql_aurora.2.11`.
fn version(text: &str) -> Option<Version> {
    // What a MariaDB server says to replicas that know only MySQL.
    let text = text.strip_prefix("5.5.5-").filter(|rest| rest.contains("MariaDB")).unwrap_or(text);
    let mut numbers = text.split(['.', '-', '+', ' ']);
    let mut next = || numbers.next().and_then(|number| number.parse::<u16>().ok());
    let (major, minor) = (next()?, next()?);
    Some((major, minor, next().unwrap_or_default()))
}

/// A server that has these variables.
#[cfg(test)]
pub(super) fn server(variables: &[(&str, &str)]) -> Server {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Server::new(variables.collect()).expect("a version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_what_it_says() {
        for (text, comment, flavour, version) in [
            ("10.11.6-MariaDB-0+deb12u1-log", "Debian 12", Flavour::MariaDb, (10, 11, 6)),
            ("5.5.5-10.5.1-MariaDB", "", Flavour::MariaDb, (10, 5, 1)),
            ("11.4.5-log", "MariaDB Server", Flavour::MariaDb, (11, 4, 5)),
            ("8.0.36-28", "Percona Server (GPL), Release 28", Flavour::MySql, (8, 0, 36)),
            ("5.7.mysql_aurora.2.11.4", "", Flavour::MySql, (5, 7, 0)),
            ("9.7.0", "(Debian)", Flavour::MySql, (9, 7, 0)),
        ] {
            let server = server(&[("version", text), ("version_comment", comment)]);
            assert_eq!((server.flavour, server.version), (flavour, version), "{text}");
        }
        assert!(Server::new(BTreeMap::new()).is_err());
    }

    #[test]
    fn what_a_server_does_not_have_is_off() {
        let bare = server(&[("version", "5.6.24")]);
        assert!(!bare.logs() && !bare.has_gtids() && !bare.is_read_only());
        assert_eq!((bare.server_id(), bare.server_uuid(), bare.keeps_logs_for()), (0, None, None));
        let set = server(&[
            ("version", "8.0.36"),
            ("log_bin", "ON"),
            ("gtid_mode", "ON_PERMISSIVE"),
            ("super_read_only", "ON"),
            ("server_id", "4294967295"),
            ("expire_logs_days", "0.5"),
            ("binlog_expire_logs_seconds", "0"),
        ]);
        assert!(set.logs() && !set.has_gtids() && set.is_read_only());
        assert_eq!((set.server_id(), set.keeps_logs_for()), (u32::MAX, Some(43_200)));
    }
}
