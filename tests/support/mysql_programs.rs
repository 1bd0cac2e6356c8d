//! Where the programs of a MySQL and of a MariaDB server are.
//!
//! Looked for in this order: `CUTWATER_TEST_MYSQL` or `CUTWATER_TEST_MARIADB` in the environment (a folder that holds
//! `mysqld` or `mariadbd`), the machine (`/usr/sbin`, PATH), and for MySQL `target/servers/mysql`, where
//! `scripts/fetch-mysql.sh` puts it when it is first asked for. `CUTWATER_TEST_MARIADB_PLUGINS` names MariaDB's folder of
//! plugins, which Debian has in another package than the server. What is to be had nowhere is said on stderr with the name
//! of the test that did not run, past the test harness's capture, and nothing fails.
//! `CUTWATER_TEST_REQUIRE_VERSIONS=1` makes it a failure.

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

/// A server of this flavour and of the test's own, or `None` after saying that `test` does not run.
pub async fn my_server(flavour: Flavour, options: MyOptions, test: &str) -> Option<LocalMySql> {
    match tokio::task::spawn_blocking(move || my_programs(flavour)).await.unwrap() {
        Ok(programs) => Some(LocalMySql::start(programs, options).await),
        Err(why) => {
            super::not_run(&format!("{test} on {flavour}: {why}"));
            None
        }
    }
}

/// The programs of this flavour, or why there are none.
pub fn my_programs(flavour: Flavour) -> Result<Programs, String> {
    static FOUND: Mutex<[Option<Result<Programs, String>>; 2]> = Mutex::new([None, None]);
    // Held while fetching: the others would only wait for the same.
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    found[usize::from(flavour == Flavour::MariaDb)].get_or_insert_with(|| find(flavour)).clone()
}

fn find(flavour: Flavour) -> Result<Programs, String> {
    let variable = match flavour {
        Flavour::MySql => "CUTWATER_TEST_MYSQL",
        Flavour::MariaDb => "CUTWATER_TEST_MARIADB",
    };
    if let Some(folder) = std::env::var_os(variable).filter(|value| !value.is_empty()) {
        let folder = PathBuf::from(folder);
        return in_folder(flavour, &folder)
            .ok_or_else(|| format!("{variable}={} holds no {flavour} server", folder.display()));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let machine = std::iter::once(PathBuf::from("/usr/sbin")).chain(std::env::split_paths(&path));
    if let Some(found) = machine.into_iter().find_map(|folder| in_folder(flavour, &folder)) {
        return Ok(found);
    }
    if flavour == Flavour::MariaDb {
        return Err(format!(
            "no such server is here (looked in {variable}, /usr/sbin, PATH); scripts/install-deps.sh tests installs it"
        ));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tree = root.join("target/servers/mysql");
    // Does nothing when it is there.
    let said = match Command::new(root.join("scripts/fetch-mysql.sh")).output() {
        Ok(output) if output.status.success() => String::new(),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    in_tree(&tree).ok_or_else(|| {
        format!("no such server is here (looked in {variable}, /usr/sbin, PATH, {}).\n{}", tree.display(), said.trim())
    })
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
fn in_tree(tree: &Path) -> Option<Programs> {
    let tree = tree.canonicalize().ok()?;
    let server = usable(Flavour::MySql, &tree.join("sbin/mysqld"))?;
    let arguments = [
        ("basedir", ""),
        ("lc-messages-dir", "share/mysql"),
        ("character-sets-dir", "share/mysql/charsets"),
        ("plugin-dir", "plugin"),
    ]
    .map(|(name, folder)| format!("--{name}={}", tree.join(folder).display()));
    Some(Programs { flavour: Flavour::MySql, server, install: None, arguments: arguments.into() })
}

/// The program, if it runs and is of this flavour: MariaDB's packages have a `mysqld` too.
fn usable(flavour: Flavour, program: &Path) -> Option<PathBuf> {
    let output = Command::new(program).args(["--no-defaults", "--version"]).output().ok()?;
    let mariadb = String::from_utf8_lossy(&output.stdout).contains("MariaDB");
    (output.status.success() && mariadb == (flavour == Flavour::MariaDb)).then(|| program.to_owned())
}
