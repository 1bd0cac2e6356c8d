//! A MySQL or MariaDB server of a test's own, on a socket alone, ended with the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    MySql,
    MariaDb,
}

pub struct Server {
    process: Child,
    folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where MySQL's programs are: `CUTWATER_TEST_MYSQL` (the server's folder), the machine's own, or what was fetched.
fn mysqld() -> Option<PathBuf> {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers/mysql/sbin/mysqld");
    let named = std::env::var_os("CUTWATER_TEST_MYSQL").map(|folder| PathBuf::from(folder).join("mysqld"));
    named.into_iter().chain([fetched, PathBuf::from("/usr/sbin/mysqld")]).find(|path| {
        let version = Command::new(path).arg("--version").output();
        version.is_ok_and(|out| !String::from_utf8_lossy(&out.stdout).contains("MariaDB") && out.status.success())
    })
}

impl Server {
    /// Starts one with `options`; `None` if this machine has none, which is said on stderr.
    pub fn start(engine: Engine, options: &[&str]) -> Option<Server> {
        let folder = tempfile::Builder::new().prefix("cutwater-binlog-").tempdir().unwrap();
        let data = folder.path().join("data");
        let program = match engine {
            Engine::MariaDb => PathBuf::from("mariadbd"),
            Engine::MySql => match mysqld() {
                Some(program) => program,
                None => {
                    eprintln!(
                        "NOT RUN: no MySQL server on this machine (scripts/fetch-mysql.sh, or CUTWATER_TEST_MYSQL)"
                    );
                    return None;
                }
            },
        };
        let mut common = vec![format!("--datadir={}", data.display()), "--user=root".to_owned()];
        // A server that does not stand where it was built for is told where its texts are.
        let share = program.parent().and_then(Path::parent).map(|base| base.join("share/mysql"));
        if let (Engine::MySql, Some(share)) = (engine, share.filter(|share| share.is_dir())) {
            common.push(format!("--lc-messages-dir={}", share.display()));
            common.push(format!("--character-sets-dir={}", share.join("charsets").display()));
        }
        let made = match engine {
            Engine::MySql => {
                Command::new(&program).arg("--no-defaults").args(&common).arg("--initialize-insecure").output()
            }
            Engine::MariaDb => Command::new("mariadb-install-db")
                .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
                .args(&common)
                .output(),
        };
        let made = made.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // It ends with this thread, also when the test is killed.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(&program)
            .arg("--no-defaults")
            .args(&common)
            .args(["--character-set-server=utf8mb4", "--secure-file-priv="])
            .args(["--skip-networking", "--server-id=1", "--log-bin=binlog", "--binlog-format=ROW"])
            .arg(format!("--socket={}", folder.path().join("s").display()))
            .arg(format!("--pid-file={}", folder.path().join("pid").display()))
            .args(["--innodb-flush-log-at-trx-commit=0", "--sync-binlog=0", "--innodb-buffer-pool-size=64M"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut server = Server { process, folder };
        let deadline = Instant::now() + Duration::from_secs(120);
        while server.run("SELECT 1").is_err() {
            let ended = server.process.try_wait().unwrap();
            let log = || std::fs::read_to_string(server.folder.path().join("log")).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "the server did not start: {}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(server)
    }

    fn run(&self, sql: &str) -> Result<String, String> {
        use std::io::Write;
        let mut client = Command::new("mariadb")
            .args(["--no-defaults", "-uroot", "-N", "-B", "--default-character-set=utf8mb4"])
            .arg(format!("--socket={}", self.folder.path().join("s").display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut stdin = client.stdin.take().unwrap();
        let sql = sql.to_owned();
        let feeder = std::thread::spawn(move || {
            let _ = stdin.write_all(sql.as_bytes());
        });
        let out = client.wait_with_output().map_err(|error| error.to_string())?;
        feeder.join().unwrap();
        if out.status.success() {
            Ok(String::from_utf8(out.stdout).unwrap())
        } else {
            Err(String::from_utf8_lossy(&out.stderr).into_owned())
        }
    }

    /// Runs statements in one session and gives back what they print, a line each.
    pub fn sql(&self, sql: &str) -> Vec<String> {
        let out =
            self.run(sql).unwrap_or_else(|error| panic!("{error}\n{}", sql.chars().take(2000).collect::<String>()));
        out.lines().map(str::to_owned).collect()
    }

    /// The bytes of every binlog file, the oldest first.
    pub fn binlogs(&self) -> Vec<Vec<u8>> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(self.folder.path().join("data"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_stem().is_some_and(|stem| stem == "binlog"))
            .filter(|path| path.extension().is_some_and(|end| end.to_string_lossy().parse::<u32>().is_ok()))
            .collect();
        files.sort();
        files.iter().map(|path| std::fs::read(path).unwrap()).collect()
    }
}
