//! Throw-away Postgres servers, for the demo and for the tests.
//!
//! In: settings. Out: a running server of one's own on 127.0.0.1, with everything it has in one temporary folder.
//! It ends and its folder goes when the [`LocalPostgres`] is dropped, and also when this process is killed with -9:
//! a watchdog (`watchdog.sh`) holds the other end of a pipe. What can go wrong: no server is installed, or it does not
//! start; the error then holds the end of the server's own log.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Context, Error, Kind, Result};

/// The superuser that `initdb` makes.
pub const SUPERUSER: &str = "postgres";

/// A path longer than this leaves no room for a socket's name (`sun_path` is 108 bytes).
const LONGEST_SOCKET_FOLDER: usize = 80;

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
    owner: Option<Owner>,
    port: u16,
    postmaster: Option<Child>,
    watchdog: Watchdog,
    // Declared last: dropped after the postmaster has ended.
    folder: tempfile::TempDir,
}

/// Who the server runs as, when we are root: Postgres refuses to be it.
#[derive(Debug, Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
}

struct Watchdog {
    process: Child,
    pipe: Option<ChildStdin>,
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
        let owner = Owner::unprivileged()?;
        let folder = new_folder()?;
        if let Some(owner) = owner {
            std::os::unix::fs::chown(folder.path(), Some(owner.uid), Some(owner.gid))?;
        }
        let watchdog = Watchdog::start(folder.path())?;
        let mut server = LocalPostgres { programs, owner, port: 0, postmaster: None, watchdog, folder };
        server.make_cluster(options)?;
        server.launch_on_a_free_port()?;
        Ok(server)
    }

    /// `postgres://user@127.0.0.1:port/database`.
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// As [`LocalPostgres::url`], with a password.
    pub fn url_with_password(&self, user: &str, password: &str, database: &str) -> String {
        let password = percent_encoding::utf8_percent_encode(password, percent_encoding::NON_ALPHANUMERIC);
        format!("postgres://{user}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// A URL that goes through the Unix socket.
    pub fn socket_url(&self, user: &str, database: &str) -> String {
        let host = percent_encoding::utf8_percent_encode(
            self.folder.path().to_str().expect("new_folder made a UTF-8 path"),
            percent_encoding::NON_ALPHANUMERIC,
        );
        format!("postgres://{user}@{host}:{}/{database}", self.port)
    }

    /// `postgres 127.0.0.1:40113`, for people.
    pub fn label(&self) -> String {
        format!("postgres 127.0.0.1:{}", self.port)
    }

    /// The port on 127.0.0.1; it stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder that holds everything the server has; also the folder of its socket.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the server's programs are (`postgres`, `initdb`; perhaps `pg_dump`, `psql`).
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// The data directory.
    pub fn data_directory(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Everything the server has logged so far.
    pub fn log(&self) -> String {
        fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// A session as superuser, through the socket.
    pub async fn connect(&self, database: &str) -> Result<tokio_postgres::Client> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.folder.path()).port(self.port).user(SUPERUSER).dbname(database);
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
        matches!(self.postmaster.as_mut().map(Child::try_wait), Some(Ok(None)))
    }

    /// Stops the server and waits for its end.
    pub fn stop(&mut self, mode: StopMode) -> Result<()> {
        let signal = match mode {
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
        };
        self.end_postmaster(signal, Duration::from_secs(60))
    }

    /// Ends the server as the kernel's out-of-memory killer would.
    pub fn kill9(&mut self) -> Result<()> {
        self.end_postmaster(Signal::KILL, Duration::from_secs(10))
    }

    /// Starts the server again, on its old port and data, and waits until it takes connections.
    pub fn start_again(&mut self) -> Result<()> {
        // After a kill -9 the old backends take a moment to notice, and hold the shared memory until then.
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let log_start = self.log().len();
            match self.launch() {
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

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
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
        writeln!(conf, "unix_socket_directories = '{}'", self.folder.path().display())?;
        for (name, value) in &options.settings {
            writeln!(conf, "{name} = '{}'", value.replace('\'', "''"))?;
        }
        Ok(())
    }

    /// Another process may take the port between our look and the server's: then the next one.
    fn launch_on_a_free_port(&mut self) -> Result<()> {
        let mut tries = 0;
        loop {
            self.port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
            tries += 1;
            match self.launch() {
                Err(_) if tries < 5 && self.log().contains("Address already in use") => {
                    fs::write(self.log_path(), "")?;
                }
                result => return result,
            }
        }
    }

    fn launch(&mut self) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let mut postgres = self.program("postgres");
        postgres.arg("-D").arg(self.data_directory()).args(["-p", &self.port.to_string()]);
        postgres.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.postmaster = Some(postgres.spawn().context("running postgres")?);
        self.wait_until_ready(Duration::from_secs(60))
    }

    /// The postmaster writes its state into line 8 of `postmaster.pid` (src/include/utils/pidfile.h): no session, and so
    /// no rule of `pg_hba.conf`, stands between us and the answer.
    fn wait_until_ready(&mut self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        let pid_file = self.data_directory().join("postmaster.pid");
        let pid = self.postmaster.as_ref().map(|child| child.id().to_string());
        loop {
            let state = fs::read_to_string(&pid_file).unwrap_or_default();
            let mut lines = state.lines().map(str::trim);
            if lines.next() == pid.as_deref() && lines.nth(6) == Some("ready") {
                return Ok(());
            }
            if !self.is_running() || Instant::now() > deadline {
                let _ = self.end_postmaster(Signal::KILL, Duration::from_secs(5));
                return Err(Error::new(
                    Kind::Io,
                    format!("the server did not start; its log ends with\n{}", self.tail()),
                ));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn end_postmaster(&mut self, signal: Signal, within: Duration) -> Result<()> {
        let Some(mut child) = self.postmaster.take() else { return Ok(()) };
        // A failure means that it has already ended, which try_wait then says.
        let _ = kill_process(Pid::from_child(&child), signal);
        let deadline = Instant::now() + within;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        // Its own process group: a Ctrl-C at the terminal is for us, and we stop the server when we are done with it.
        command.process_group(0).current_dir(self.folder.path()).env("LC_ALL", "C").env("TZ", "UTC");
        if let Some(owner) = self.owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        command
    }

    fn tail(&self) -> String {
        const KEPT: u64 = 4_000;
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(self.log_path())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(KEPT)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }
}

impl Drop for LocalPostgres {
    fn drop(&mut self) {
        // Nothing to do about a failure here; the watchdog tries again.
        let _ = self.end_postmaster(Signal::QUIT, Duration::from_secs(10));
        self.watchdog.end();
    }
}

impl Watchdog {
    fn start(folder: &Path) -> Result<Watchdog> {
        let mut process = Command::new("/bin/sh")
            .args(["-c", include_str!("watchdog.sh"), "cutwater-watchdog"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .context("running /bin/sh")?;
        let mut pipe = process.stdin.take().expect("stdin was asked to be a pipe");
        writeln!(pipe, "{}", folder.display())?;
        Ok(Watchdog { process, pipe: Some(pipe) })
    }

    /// Closes the pipe and waits until the folder is gone.
    fn end(&mut self) {
        drop(self.pipe.take());
        let _ = self.process.wait();
    }
}

impl Owner {
    /// `None` when we are not root and so run the server as ourselves.
    fn unprivileged() -> Result<Option<Owner>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let passwd = fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
        let find = |wanted: &str| {
            passwd.lines().find_map(|line| {
                let mut fields = line.split(':');
                let name = fields.next()?;
                let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
                (name == wanted).then_some(Owner { uid, gid })
            })
        };
        match find("postgres").or_else(|| find("nobody")) {
            Some(owner) => Ok(Some(owner)),
            None => {
                Err(Error::new(Kind::Io, "Postgres refuses to run as root, and there is no user postgres or nobody")
                    .fix("run as an ordinary user"))
            }
        }
    }
}

/// A folder under the temporary directory, or under /tmp where that one's name is too long for a socket.
fn new_folder() -> Result<tempfile::TempDir> {
    let mut place = std::env::temp_dir();
    if place.as_os_str().len() > LONGEST_SOCKET_FOLDER || place.to_str().is_none() {
        place = PathBuf::from("/tmp");
    }
    tempfile::Builder::new()
        .prefix("cutwater-pg-")
        .tempdir_in(&place)
        .with_context(|| format!("making a folder in {}", place.display()))
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
