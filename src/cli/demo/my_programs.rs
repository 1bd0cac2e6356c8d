//! Where the programs of a MySQL and of a MariaDB server are.
//!
//! Looked for on the machine (`/usr/sbin`, PATH), then in `target/servers/`, where `scripts/fetch-mysql.sh` puts them for
//! systems that do not package them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Kind, Result};
use crate::mysql::Flavour;

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

/// The programs of a server that this machine has.
pub fn find(flavour: Flavour) -> Result<Programs> {
    let name = match flavour {
        Flavour::MySql => "mysql",
        Flavour::MariaDb => "mariadb-11",
    };
    let fetched = || in_tree(flavour, &Path::new("target/servers").join(name));
    installed(flavour, |_| true).or_else(fetched).ok_or_else(|| {
        Error::new(
            Kind::Io,
            format!("no {flavour} server is installed here (looked in /usr/sbin, PATH, target/servers)"),
        )
        .fix(match flavour {
            Flavour::MySql => "scripts/fetch-mysql.sh mysql",
            Flavour::MariaDb => {
                "scripts/install-deps.sh tests   or   apt-get install mariadb-server-core mariadb-client-core"
            }
        })
    })
}

/// The machine's own server, if it is one that will do.
pub fn installed(flavour: Flavour, will_do: impl Fn(&Programs) -> bool) -> Option<Programs> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(PathBuf::from("/usr/sbin")).chain(std::env::split_paths(&path));
    folders.into_iter().find_map(|folder| in_folder(flavour, &folder).filter(&will_do))
}

/// The first number of the server's version: `mariadbd  Ver 11.8.3-MariaDB for …`
pub fn major(program: &Path) -> Option<u32> {
    let output = Command::new(program).args(["--no-defaults", "--version"]).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.split_once("Ver ")?.1.split('.').next()?.trim().parse().ok()
}

/// An installed server.
pub fn in_folder(flavour: Flavour, folder: &Path) -> Option<Programs> {
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
    Some(Programs { flavour, server, install, arguments: Vec::new() })
}

/// What `scripts/fetch-mysql.sh` made.
pub fn in_tree(flavour: Flavour, tree: &Path) -> Option<Programs> {
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
