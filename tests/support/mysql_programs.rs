//! Where the programs of a MySQL and of a MariaDB server are.
//!
//! Looked for in this order: `CUTWATER_TEST_MYSQL`, `CUTWATER_TEST_MARIADB` or `CUTWATER_TEST_MARIADB11` in the
//! environment (a folder that holds `mysqld` or `mariadbd`), the machine (`/usr/sbin`, PATH), and for MySQL and MariaDB
//! 11 `target/servers/`, where `scripts/fetch-mysql.sh` puts them when they are first asked for. `CUTWATER_TEST_MARIADB_PLUGINS` names MariaDB's folder of
//! plugins, which Debian has in another package than the server. What is to be had nowhere is said on stderr with the name
//! of the test that did not run, past the test harness's capture, and nothing fails.
//! `CUTWATER_TEST_REQUIRE_VERSIONS=1` makes it a failure.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

pub use cutwater::cli::demo::my_programs::Programs;
use cutwater::cli::demo::my_programs::{in_folder, in_tree, installed, major};
use cutwater::mysql::Flavour;

use super::mysql::{LocalMySql, MyOptions};

/// Which server a test wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// The machine's MySQL, or the newest.
    MySql,
    /// The machine's MariaDB.
    MariaDb,
    /// MariaDB 11 or newer.
    MariaDb11,
}

impl From<Flavour> for Wanted {
    fn from(flavour: Flavour) -> Wanted {
        match flavour {
            Flavour::MySql => Wanted::MySql,
            Flavour::MariaDb => Wanted::MariaDb,
        }
    }
}

impl Wanted {
    /// MySQL or MariaDB.
    pub fn flavour(self) -> Flavour {
        if self == Wanted::MySql { Flavour::MySql } else { Flavour::MariaDb }
    }

    fn variable(self) -> &'static str {
        match self {
            Wanted::MySql => "CUTWATER_TEST_MYSQL",
            Wanted::MariaDb => "CUTWATER_TEST_MARIADB",
            Wanted::MariaDb11 => "CUTWATER_TEST_MARIADB11",
        }
    }

    /// What `fetch-mysql.sh` calls it.
    fn fetched(self) -> Option<&'static str> {
        match self {
            Wanted::MySql => Some("mysql"),
            Wanted::MariaDb => None,
            Wanted::MariaDb11 => Some("mariadb-11"),
        }
    }
}

/// A server of the test's own, or `None` after saying that `test` does not run.
pub async fn my_server(wanted: impl Into<Wanted>, options: MyOptions, test: &str) -> Option<LocalMySql> {
    let wanted = wanted.into();
    match tokio::task::spawn_blocking(move || my_programs(wanted)).await.unwrap() {
        Ok(programs) => Some(LocalMySql::start(programs, options).await),
        Err(why) => {
            super::not_run(&format!("{test} on {wanted:?}: {why}"));
            None
        }
    }
}

/// The programs, or why there are none.
pub fn my_programs(wanted: impl Into<Wanted>) -> Result<Programs, String> {
    static FOUND: Mutex<Option<HashMap<Wanted, Result<Programs, String>>>> = Mutex::new(None);
    let wanted = wanted.into();
    // Held while fetching: the others would only wait for the same.
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    found.get_or_insert_default().entry(wanted).or_insert_with(|| find(wanted)).clone()
}

fn find(wanted: Wanted) -> Result<Programs, String> {
    let (flavour, variable) = (wanted.flavour(), wanted.variable());
    if let Some(folder) = std::env::var_os(variable).filter(|value| !value.is_empty()) {
        let folder = PathBuf::from(folder);
        return in_folder(flavour, &folder)
            .map(with_plugins)
            .ok_or_else(|| format!("{variable}={} holds no {flavour} server", folder.display()));
    }
    let new_enough = |programs: &Programs| wanted != Wanted::MariaDb11 || major(&programs.server) >= Some(11);
    if let Some(found) = installed(flavour, new_enough) {
        return Ok(with_plugins(found));
    }
    let Some(name) = wanted.fetched() else {
        return Err(format!(
            "no such server is here (looked in {variable}, /usr/sbin, PATH); scripts/install-deps.sh tests installs it"
        ));
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tree = root.join("target/servers").join(name);
    // Does nothing when it is there.
    let said = match Command::new(root.join("scripts/fetch-mysql.sh")).arg(name).output() {
        Ok(output) if output.status.success() => String::new(),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    in_tree(flavour, &tree).ok_or_else(|| {
        format!("no such server is here (looked in {variable}, /usr/sbin, PATH, {}).\n{}", tree.display(), said.trim())
    })
}

/// An installed MariaDB, with its folder of plugins if that is named.
fn with_plugins(mut programs: Programs) -> Programs {
    let named = std::env::var("CUTWATER_TEST_MARIADB_PLUGINS").ok().filter(|_| programs.flavour == Flavour::MariaDb);
    programs.arguments.extend(named.map(|folder| format!("--plugin-dir={folder}")));
    programs
}
