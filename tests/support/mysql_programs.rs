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

use cutwater::mysql::Flavour;

use super::mysql::{LocalMySql, MyOptions};

/// A server's programs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// MySQL or MariaDB.
    pub flavour: Flavour,
    /// `mysqld` or `mariadbd`.
    pub server: PathBuf,
    /// MariaDB: what makes a data directory.
    pub install: Option<PathBuf>,
    /// Where a server that is not installed finds its own files.
    pub arguments: Vec<String>,
}

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
            .ok_or_else(|| format!("{variable}={} holds no {flavour} server", folder.display()));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let machine = std::iter::once(PathBuf::from("/usr/sbin")).chain(std::env::split_paths(&path));
    let new_enough = |programs: &Programs| wanted != Wanted::MariaDb11 || major(&programs.server) >= Some(11);
    if let Some(found) = machine.into_iter().find_map(|folder| in_folder(flavour, &folder).filter(new_enough)) {
        return Ok(found);
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

/// `mariadbd  Ver 11.8.3-MariaDB for …`
fn major(program: &Path) -> Option<u32> {
    let output = Command::new(program).args(["--no-defaults", "--version"]).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.split_once("Ver ")?.1.split('.').next()?.trim().parse().ok()
}

/// An installed server.
fn in_folder(flavour: Flavour, folder: &Path) -> Option<Programs> {
    let name = match flavour {
        Flavour::MySql => "mysqld",
        Flavour::MariaDb => "mariadbd",
    };
    let server = usable(flavour, &folder.join(name))?;
    let install = match flavour {
        Flavour::MySql => None,
        Flavour::MariaDb => {
            let beside = [folder.join("mariadb-install-db"), folder.join("../bin/mariadb-install-db")];
            Some(beside.into_iter().find(|path| path.is_file())?)
        }
    };
    let plugins = std::env::var("CUTWATER_TEST_MARIADB_PLUGINS").ok().filter(|_| flavour == Flavour::MariaDb);
    let arguments = plugins.map(|folder| format!("--plugin-dir={folder}")).into_iter().collect();
    Some(Programs { flavour, server, install, arguments })
}

/// What `fetch-mysql.sh` made.
fn in_tree(flavour: Flavour, tree: &Path) -> Option<Programs> {
    let tree = tree.canonicalize().ok()?;
    let argument = |name: &str, folder: &str| format!("--{name}={}", tree.join(folder).display());
    let mut arguments = vec![argument("basedir", ""), argument("plugin-dir", "plugin")];
    match flavour {
        Flavour::MySql => {
            arguments.push(argument("lc-messages-dir", "share/mysql"));
            arguments.push(argument("character-sets-dir", "share/mysql/charsets"));
            let server = usable(flavour, &tree.join("sbin/mysqld"))?;
            Some(Programs { flavour, server, install: None, arguments })
        }
        Flavour::MariaDb => {
            arguments.push(argument("lc-messages-dir", "share/mariadb"));
            arguments.push(argument("character-sets-dir", "share/mariadb/charsets"));
            let server = usable(flavour, &tree.join("sbin/mariadbd"))?;
            Some(Programs { flavour, server, install: Some(tree.join("bin/mariadb-install-db")), arguments })
        }
    }
}

/// The program, if it runs and is of this flavour: MariaDB's packages have a `mysqld` too.
fn usable(flavour: Flavour, program: &Path) -> Option<PathBuf> {
    let output = Command::new(program).args(["--no-defaults", "--version"]).output().ok()?;
    let mariadb = String::from_utf8_lossy(&output.stdout).contains("MariaDB");
    (output.status.success() && mariadb == (flavour == Flavour::MariaDb)).then(|| program.to_owned())
}
