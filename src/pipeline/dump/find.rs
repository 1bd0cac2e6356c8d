//! Finding a `pg_dump` that understands the source.
//!
//! In: the server's major version. Out: the newest `pg_dump` of this machine, if it is at least as new as the server:
//! an older one refuses. `CUTWATER_PG_DUMP` names one and nothing else is looked at.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::error::{Error, Kind, Result};

/// Names a `pg_dump` to use.
const OVERRIDE: &str = "CUTWATER_PG_DUMP";

/// A `pg_dump` of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgDump {
    /// Where it is.
    pub path: PathBuf,
    /// Its major version.
    pub major: u32,
}

impl PgDump {
    /// Finds one for a server of version `server` (major).
    pub async fn find(server: u32) -> Result<PgDump> {
        let (places, by_hand) = match std::env::var_os(OVERRIDE) {
            Some(path) => (vec![PathBuf::from(path)], true),
            None => (places(), false),
        };
        let mut newest: Option<PgDump> = None;
        for path in places {
            if let Some(major) = version(&path).await
                && newest.as_ref().is_none_or(|known| major > known.major)
            {
                newest = Some(PgDump { path, major });
            }
        }
        let why = match newest {
            Some(found) if found.major >= server => return Ok(found),
            Some(found) => format!(
                "{} is of version {} and cannot read the schema of a server of version {server}",
                found.path.display(),
                found.major
            ),
            None if by_hand => format!("{OVERRIDE} names no pg_dump that runs"),
            None => "no pg_dump was found on this machine".to_owned(),
        };
        Err(Error::new(Kind::Config, why).fix(format!(
            "install the client programs of Postgres {server} or newer (Debian: apt-get install \
             postgresql-client-{server}), or set {OVERRIDE}; or create the tables at the target yourself: tables that \
             exist are used as they are"
        )))
    }
}

/// Where a `pg_dump` may be: the PATH and the packagers' folders.
fn places() -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).map(|folder| folder.join("pg_dump")).collect())
        .unwrap_or_default();
    let packaged =
        [("/usr/lib/postgresql", "bin/pg_dump"), ("/opt/homebrew/opt", "bin/pg_dump"), ("/usr", "bin/pg_dump")];
    for (folder, inside) in packaged {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        let versions = entries.filter_map(Result::ok).filter(|entry| {
            let name = entry.file_name();
            folder == "/usr/lib/postgresql"
                || ["pgsql-", "postgresql@"].iter().any(|start| name.to_string_lossy().starts_with(start))
        });
        places.extend(versions.map(|entry| entry.path().join(inside)));
    }
    places.retain(|path| path.is_file());
    places
}

async fn version(path: &Path) -> Option<u32> {
    let output = Command::new(path).arg("--version").kill_on_drop(true).output().await.ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// `pg_dump (PostgreSQL) 15.18 (Debian …)`, `… 19devel`.
fn parse_version(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("(PostgreSQL) ")?;
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_packagers_print_them() {
        assert_eq!(parse_version("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_version("pg_dump (PostgreSQL) 19devel\n"), Some(19));
        assert_eq!(parse_version("something else"), None);
    }

    #[tokio::test]
    async fn a_server_newer_than_every_pg_dump_names_what_to_install() {
        let error = PgDump::find(999).await.expect_err("nothing is that new");
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.suggestion().is_some_and(|fix| fix.contains("postgresql-client-999")), "{error}");
    }
}
