//! A connection pooler between us and a server.
//!
//! PgBouncer is looked for on the machine, then in `target/servers/`, where `scripts/fetch-pgbouncer.sh` puts it when it is
//! first asked for.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::Database;

/// A pooler that lends server processes by the transaction.
pub struct Pooler {
    child: Child,
    _folder: tempfile::TempDir,
    port: u16,
}

impl Pooler {
    /// In front of a database's server; `None`, said loudly, where none is to be had.
    pub fn start(database: &Database) -> Option<Pooler> {
        let found = match find() {
            Ok(found) => found,
            Err(why) => {
                // Past the harness, which would keep it to itself in a test that succeeds.
                let _ = writeln!(std::io::stderr(), "\nNOT RUN: what needs a connection pooler: {why}\n");
                return None;
            }
        };
        let folder = tempfile::Builder::new().prefix("cutwater-pooler-").tempdir().unwrap();
        // It refuses to be root, and the user it runs as instead may not be able to look into our folders.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut program = found.clone();
        if let Some(fetched) = found.parent().filter(|parent| parent.ends_with("servers/pgbouncer")) {
            for file in fs::read_dir(fetched).unwrap() {
                let file = file.unwrap();
                fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
            }
            program = folder.path().join("pgbouncer");
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (ini, users) = (folder.path().join("pgbouncer.ini"), folder.path().join("users.txt"));
        fs::write(&users, "\"postgres\" \"\"\n").unwrap();
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             auth_type = trust\nauth_file = {}\npool_mode = transaction\nunix_socket_dir =\n",
            database.server.port(),
            users.display()
        );
        fs::write(&ini, settings).unwrap();
        let mut command = Command::new("setpriv");
        if rustix::process::getuid().is_root() {
            command.args(["--reuid=nobody", "--clear-groups"]);
        }
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = command
            .arg(program)
            .arg(&ini)
            .env("LD_LIBRARY_PATH", folder.path())
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Some(Pooler { child, _folder: folder, port })
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, or why there is none.
fn find() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fetched = root.join("target/servers/pgbouncer/pgbouncer");
    let places = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"].map(PathBuf::from);
    if let Some(found) = places.into_iter().chain([fetched.clone()]).find(|path| path.is_file()) {
        return Ok(found);
    }
    let output = Command::new(root.join("scripts/fetch-pgbouncer.sh")).output().map_err(|error| error.to_string())?;
    if fetched.is_file() {
        return Ok(fetched);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("there is no pgbouncer on this machine (Debian: apt-get install pgbouncer)\n{said}"))
}
