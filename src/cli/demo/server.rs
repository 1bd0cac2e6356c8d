//! Throw-away Postgres servers, for the demo and for the tests.
//!
//! In: settings. Out: a running server of one's own on 127.0.0.1, with everything it has in one temporary folder
//! ([`Throwaway`]), which goes when the [`LocalPostgres`] is dropped. What can go wrong: no server is installed, or it
//! does not start; the error then holds the end of the server's own log.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::throwaway::Throwaway;
use crate::error::{Context, Error, Kind, Result};

/// The superuser that `initdb` makes.
pub const SUPERUSER: &str = "postgres";

/// Who may run the server when we are root.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];

/// What a server is started with.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    settings: Vec<(String, String)>,
    hba: Vec<String>,
    data_checksums: bool,
    programs: Option<PathBuf>,
}

impl ServerOptions {
    /// A server that can be a source and a target, and forgets everything in a power cut (`fsync = off`).
    pub fn new() -> Self {
        ServerOptions::default()
    }

    /// Adds a line to `postgresql.conf`; it wins over ours.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a line to `pg_hba.conf`, for TCP connections. Without any: everybody is trusted. The socket always trusts,
    /// so that [`LocalPostgres::execute`] works whatever is set here.
    #[must_use]
    pub fn hba(mut self, line: &str) -> Self {
        self.hba.push(line.to_owned());
        self
    }

    /// Uses the server in this folder (of `initdb` and `postgres`) instead of the one that [`find_programs`] finds.
    #[must_use]
    pub fn programs(mut self, folder: PathBuf) -> Self {
        self.programs = Some(folder);
        self
    }

    /// Makes the cluster with data checksums.
    #[must_use]
    pub fn data_checksums(mut self) -> Self {
        self.data_checksums = true;
        self
    }
}

/// How a server is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Sessions are ended, then a clean shutdown.
    Fast,
    /// As in a crash; the next start recovers.
    Immediate,
}

/// A server of one's own.
pub struct LocalPostgres {
    programs: PathBuf,
    server: Throwaway,
}

impl LocalPostgres {
    /// Makes a cluster and starts it. Takes about a second.
    pub async fn start(options: ServerOptions) -> Result<LocalPostgres> {
        tokio::task::spawn_blocking(move || LocalPostgres::start_blocking(&options))
            .await
            .map_err(|error| Error::new(Kind::Internal, error.to_string()))?
            .context("starting a throw-away Postgres server")
    }

    fn start_blocking(options: &ServerOptions) -> Result<LocalPostgres> {
        let programs = options.programs.clone().map_or_else(find_programs, Ok)?;
        let mut server = LocalPostgres { programs, server: Throwaway::new("cutwater-pg-", &ACCOUNTS, Signal::QUIT)? };
        server.make_cluster(options)?;
        let LocalPostgres { programs, server: process } = &mut server;
        process.launch_on_a_free_port(|process| launch(programs, process))?;
        Ok(server)
    }

    /// `postgres://user@127.0.0.1:port/database`.
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.server.port())
    }

    /// As [`LocalPostgres::url`], with a password.
    pub fn url_with_password(&self, user: &str, password: &str, database: &str) -> String {
        let password = percent_encoding::utf8_percent_encode(password, percent_encoding::NON_ALPHANUMERIC);
        format!("postgres://{user}:{password}@127.0.0.1:{}/{database}", self.server.port())
    }

    /// A URL that goes through the Unix socket.
    pub fn socket_url(&self, user: &str, database: &str) -> String {
        let host = percent_encoding::utf8_percent_encode(
            self.folder().to_str().expect("new_folder made a UTF-8 path"),
            percent_encoding::NON_ALPHANUMERIC,
        );
        format!("postgres://{user}@{host}:{}/{database}", self.server.port())
    }

    /// `postgres 127.0.0.1:40113`, for people.
    pub fn label(&self) -> String {
        format!("postgres 127.0.0.1:{}", self.server.port())
    }

    /// The port on 127.0.0.1; it stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// The folder that holds everything the server has; also the folder of its socket.
    pub fn folder(&self) -> &Path {
        self.server.folder()
    }

    /// Where the server's programs are (`postgres`, `initdb`; perhaps `pg_dump`, `psql`).
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// The data directory.
    pub fn data_directory(&self) -> PathBuf {
        self.server.data_directory()
    }

    /// Everything the server has logged so far.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// What is not Postgres about it.
    pub fn process(&self) -> &Throwaway {
        &self.server
    }

    /// A session as superuser, through the socket.
    pub async fn connect(&self, database: &str) -> Result<tokio_postgres::Client> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.folder()).port(self.port()).user(SUPERUSER).dbname(database);
        let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
        tokio::spawn(async move {
            // The client sees the same error on its next statement.
            let _ = connection.await;
        });
        Ok(client)
    }

    /// Runs SQL as superuser; several statements are one transaction.
    pub async fn execute(&self, database: &str, sql: &str) -> Result<()> {
        self.connect(database).await?.batch_execute(sql).await?;
        Ok(())
    }

    /// Whether the server's process is there.
    pub fn is_running(&mut self) -> bool {
        self.server.is_running()
    }

    /// Stops the server and waits for its end.
    pub fn stop(&mut self, mode: StopMode) -> Result<()> {
        let signal = match mode {
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
        };
        self.server.end(signal, Duration::from_secs(60))
    }

    /// Ends the server as the kernel's out-of-memory killer would.
    pub fn kill9(&mut self) -> Result<()> {
        self.server.end(Signal::KILL, Duration::from_secs(10))
    }

    /// Starts the server again, on its old port and data, and waits until it takes connections.
    pub fn start_again(&mut self) -> Result<()> {
        // After a kill -9 the old backends take a moment to notice, and hold the shared memory until then.
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let log_start = self.log().len();
            match launch(&self.programs, &mut self.server) {
                Err(_) if Instant::now() < deadline && self.log()[log_start..].contains("shared memory block") => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                result => return result,
            }
        }
    }

    /// Stops and starts.
    pub fn restart(&mut self, mode: StopMode) -> Result<()> {
        self.stop(mode)?;
        self.start_again()
    }

    fn make_cluster(&self, options: &ServerOptions) -> Result<()> {
        let mut initdb = self.program("initdb");
        initdb.args(["--username", SUPERUSER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync"]);
        if options.data_checksums {
            initdb.arg("--data-checksums");
        }
        let output = initdb.arg("-D").arg(self.data_directory()).output().context("running initdb")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::new(Kind::Io, said).context("initdb failed"));
        }
        let mut hba = String::from("local all all trust\nlocal replication all trust\n");
        if options.hba.is_empty() {
            hba += "host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n";
        }
        for line in &options.hba {
            hba = hba + line + "\n";
        }
        fs::write(self.data_directory().join("pg_hba.conf"), hba)?;

        let mut conf = OpenOptions::new().append(true).open(self.data_directory().join("postgresql.conf"))?;
        conf.write_all(include_bytes!("server.conf"))?;
        writeln!(conf, "unix_socket_directories = '{}'", self.folder().display())?;
        for (name, value) in &options.settings {
            writeln!(conf, "{name} = '{}'", value.replace('\'', "''"))?;
        }
        Ok(())
    }

    fn program(&self, name: &str) -> Command {
        self.server.program(&self.programs.join(name))
    }
}

/// The postmaster writes its state into line 8 of `postmaster.pid` (src/include/utils/pidfile.h): no session, and so no
/// rule of `pg_hba.conf`, stands between us and the answer.
fn launch(programs: &Path, server: &mut Throwaway) -> Result<()> {
    let mut postgres = server.program(&programs.join("postgres"));
    postgres.arg("-D").arg(server.data_directory()).args(["-p", &server.port().to_string()]);
    server.launch(postgres, Duration::from_secs(60), |server, _| {
        let state = fs::read_to_string(server.data_directory().join("postmaster.pid")).unwrap_or_default();
        let mut lines = state.lines().map(str::trim);
        lines.next() == server.pid().map(|pid| pid.to_string()).as_deref() && lines.nth(6) == Some("ready")
    })
}

/// Where `initdb` and `postgres` are: `CUTWATER_PG_BIN`, the newest under /usr/lib/postgresql, `PATH`, and
/// `target/servers/`, in this order.
pub fn find_programs() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("CUTWATER_PG_BIN") {
        let named = PathBuf::from(named);
        return if has_server(&named) {
            Ok(named)
        } else {
            Err(Error::new(Kind::Config, format!("CUTWATER_PG_BIN={} holds no initdb and postgres", named.display())))
        };
    }
    let path: OsString = std::env::var_os("PATH").unwrap_or_default();
    newest_version(Path::new("/usr/lib/postgresql"))
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(newest_version(Path::new("target/servers")))
        .find(|folder| has_server(folder))
        .and_then(|folder| folder.canonicalize().ok())
        .ok_or_else(|| {
            Error::new(Kind::Io, "no Postgres server is installed here (looked in CUTWATER_PG_BIN, /usr/lib/postgresql, PATH)")
                .fix("scripts/install-deps.sh   or   apt-get install postgresql   or set CUTWATER_PG_BIN to the folder of initdb")
        })
}

/// `<parent>/<version>/bin`, the highest version first.
fn newest_version(parent: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(f64, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let digits: String = name.chars().filter(|c| c.is_ascii_digit() || *c == '.').collect();
            (digits.parse().unwrap_or(0.0), entry.path().join("bin"))
        })
        .collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found.into_iter().map(|(_, path)| path).collect()
}

fn has_server(folder: &Path) -> bool {
    folder.join("initdb").is_file() && folder.join("postgres").is_file()
}
