//! The source's schema, as `pg_dump` writes it.
//!
//! In: where the source is. Out: its objects as [`DumpEntry`]s, and from them, for one plan, a [`Carried`]: what goes
//! over, in which order, and by name what does not. What can go wrong: no `pg_dump` on this machine that is as new as
//! the server ([`Kind::Config`], with the package to install), a privilege that the dump needs, a table lock that
//! somebody else holds ([`Kind::Transient`]: the dump does not queue behind it).
//!
//! | option | why |
//! |---|---|
//! | `--quote-all-identifiers` | a word that is a keyword in the target's version only stays a name; and every object that an entry is about can be read off it |
//! | `--no-owner`, `--no-privileges` | roles belong to the server, not to the database; the one who connects owns what is made |
//! | `--no-tablespaces` | paths of the other machine |
//! | `--no-publications`, `--no-subscriptions`, `--no-security-labels` | they are about the old server's surroundings |
//! | `--exclude-schema=cutwater` | our own |
//! | `--lock-wait-timeout` | never queue behind an ALTER, and let nobody queue behind us (law 7) |

mod carried;
mod find;
pub mod reshape;
mod script;

use std::ffi::OsString;
use std::process::Stdio;

use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret;
use tokio::process::Command;

pub use carried::Carried;
pub use find::PgDump;
pub use script::{DumpEntry, Script, Token, tokens};

use crate::config::Url;
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::{ConnInfo, Host, SslMode};

/// How long the dump waits for a table's lock.
const LOCK_WAIT: &str = "--lock-wait-timeout=10s";

/// URL parameters that libpq also takes from the environment.
const PARAMETERS: [(&str, &str); 7] = [
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
];

impl PgDump {
    /// Dumps the schema of the database at `url`, whose server is of this major version.
    pub async fn schema(&self, url: &Url, server: u32) -> Result<Script> {
        let info = ConnInfo::parse(url)?;
        let mut command = Command::new(&self.path);
        command
            .args(["--schema-only", "--section=pre-data", "--section=post-data", "--no-password", LOCK_WAIT])
            .args(["--quote-all-identifiers", "--no-owner", "--no-privileges", "--no-tablespaces"])
            .args(["--no-publications", "--no-subscriptions", "--no-security-labels"])
            .args(["--encoding=UTF8", "--exclude-schema=cutwater"])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        // A setting of the user's shell must not send the dump to another server than the one we follow.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C").envs(environment(&info, url, server));
        let doing = || format!("reading the schema of {} with {}", info.label(), self.path.display());
        let output = command.output().await.with_context(doing)?;
        if !output.status.success() {
            return Err(refusal(&String::from_utf8_lossy(&output.stderr)).context(doing()));
        }
        let script = String::from_utf8(output.stdout)
            .map_err(|_| Error::new(Kind::Protocol, "pg_dump did not write UTF-8").context(doing()))?;
        Ok(Script::parse(&script))
    }
}

/// libpq's environment: nothing of it shows in `ps`.
fn environment(info: &ConnInfo, url: &Url, server: u32) -> Vec<(&'static str, OsString)> {
    let mut environment: Vec<(&'static str, OsString)> = Vec::new();
    let list = |part: fn(&Host) -> OsString| info.hosts.iter().map(part).collect::<Vec<_>>().join(&OsString::from(","));
    environment.push((
        "PGHOST",
        list(|host| match host {
            Host::Tcp(name, _) => name.into(),
            Host::Unix(path, _) => path.into(),
        }),
    ));
    environment.push((
        "PGPORT",
        list(|host| match host {
            Host::Tcp(_, port) | Host::Unix(_, port) => port.to_string().into(),
        }),
    ));
    environment.push(("PGUSER", info.user.as_str().into()));
    environment.push(("PGDATABASE", info.database.as_str().into()));
    environment.push(("PGAPPNAME", "cutwater_schema".into()));
    if let Some(password) = &info.password {
        environment.push(("PGPASSWORD", password.expose_secret().into()));
    }
    let query = url.expose().split_once('?').map_or("", |(_, query)| query);
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        if let Some((_, variable)) = PARAMETERS.iter().find(|(parameter, _)| *parameter == name) {
            environment.push((variable, percent_decode_str(value).decode_utf8_lossy().into_owned().into()));
        }
    }
    environment.extend(as_strict_as_we_are(info));
    // pg_dump switches the role's time-outs off by statements, which a short one ends.
    let mut options = info.options.clone().unwrap_or_default();
    options.push_str(" -c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0");
    if server >= 14 {
        options.push_str(" -c idle_session_timeout=0");
    }
    if server >= 17 {
        options.push_str(" -c transaction_timeout=0");
    }
    environment.push(("PGOPTIONS", options.into()));
    environment
}

/// libpq takes any certificate unless told otherwise, and knows the system's authorities only from version 16 on.
fn as_strict_as_we_are(info: &ConnInfo) -> Vec<(&'static str, OsString)> {
    const BUNDLES: [&str; 3] =
        ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
    let verifies = |host| matches!(info.ssl_mode(host), SslMode::VerifyCa | SslMode::VerifyFull);
    let Some(host) = info.hosts.iter().find(|host| verifies(host)) else { return Vec::new() };
    let mode = if info.ssl_mode(host) == SslMode::VerifyCa { "verify-ca" } else { "verify-full" };
    let bundle = BUNDLES.into_iter().find(|bundle| std::path::Path::new(bundle).is_file());
    match (&info.tls.root_cert, bundle) {
        (Some(_), _) => vec![("PGSSLMODE", mode.into())],
        (None, Some(bundle)) => vec![("PGSSLMODE", mode.into()), ("PGSSLROOTCERT", bundle.into())],
        // Our own sessions have seen that it is the right server; this one is at least encrypted.
        (None, None) => vec![("PGSSLMODE", "require".into())],
    }
}

/// What `pg_dump` said, without the noise around it.
fn refusal(stderr: &str) -> Error {
    let why = stderr
        .lines()
        .map(|line| line.trim_start_matches("pg_dump: ").trim_start_matches("error: "))
        .filter(|line| !line.starts_with("detail: Command was") && !line.starts_with("warning: "))
        .collect::<Vec<_>>()
        .join("; ");
    let has = |text: &str| why.contains(text);
    if has("permission denied") {
        return Error::new(Kind::Privilege, why).fix("GRANT pg_read_all_data TO the role of [source] url;  or dump and load the schema yourself: tables that exist are used as they are");
    }
    if has("statement timeout") || has("lock timeout") {
        return Error::new(Kind::Transient, format!("a table is locked by somebody else: {why}"));
    }
    if has("could not connect") || has("connection to server") || has("server closed the connection") {
        return Error::new(Kind::Connection, why);
    }
    Error::new(Kind::Schema, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_goes_through_the_environment() {
        let url = Url::new("postgres://u:p%40ss@h1:5433/db?sslmode=require");
        let info = ConnInfo::parse(&url).expect("valid");
        let environment = environment(&info, &url, 13);
        let get = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_str());
        assert_eq!(get("PGPASSWORD"), Some(Some("p@ss")));
        assert_eq!(get("PGHOST"), Some(Some("h1")));
        assert_eq!(get("PGPORT"), Some(Some("5433")));
        assert!(get("PGOPTIONS").flatten().is_some_and(|options| options.contains("-c statement_timeout=0")));
        assert_eq!(get("PGSSLMODE"), Some(Some("require")));
    }

    #[test]
    fn a_lock_that_somebody_holds_is_worth_another_try() {
        let error = refusal(
            "pg_dump: error: query failed: ERROR:  canceling statement due to lock timeout\npg_dump: detail: Query was: LOCK TABLE \"a\".\"b\"\n",
        );
        assert_eq!(error.kind(), Kind::Transient);
    }
}
