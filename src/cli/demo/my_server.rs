//! Throw-away MySQL and MariaDB servers, for the demo and for the tests.
//!
//! In: which [`Programs`], and options. Out: a server of one's own, ended and removed as the Postgres ones are
//! ([`Throwaway`]). It can be a source and a target: a binary log of rows with GTIDs, full images and names, LOAD DATA
//! LOCAL allowed. It forgets what it did not write in a power cut, not what was committed before a kill -9.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::my_programs::Programs;
use super::throwaway::Throwaway;
use crate::config::Url;
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{Flavour, MyConnInfo, Session};

/// The account that may do everything, from everywhere; its password is its name.
pub const ADMIN: &str = "admin";
/// The account of an application, which may read and write rows of [`DATABASE`]; its password is its name.
pub const APPLICATION: &str = "application";
/// The database that is there.
pub const DATABASE: &str = "shop";
/// The account that Cutwater runs the server as when it is root.
const ACCOUNTS: [&str; 2] = ["mysql", "nobody"];

/// What a server is started with.
#[derive(Debug, Clone, Default)]
pub struct MyOptions {
    arguments: Vec<String>,
}

impl MyOptions {
    /// A server that can be a source and a target.
    pub fn new() -> Self {
        MyOptions::default()
    }

    /// A setting of one's own, which wins over ours: `("gtid-mode", "OFF")`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.arguments.push(format!("--{name}={value}"));
        self
    }

    /// MySQL: without GTIDs. MariaDB has them always; there the order of their numbers is no longer enforced.
    #[must_use]
    pub fn without_gtids(self, flavour: Flavour) -> Self {
        match flavour {
            Flavour::MySql => self.setting("gtid-mode", "OFF").setting("enforce-gtid-consistency", "OFF"),
            Flavour::MariaDb => self.setting("gtid-strict-mode", "OFF"),
        }
    }

    /// MySQL: JSON documents are logged as what changed in them.
    #[must_use]
    pub fn partial_json(self) -> Self {
        self.setting("binlog-row-value-options", "PARTIAL_JSON")
    }

    /// Transactions (MySQL), or their events (MariaDB), are logged compressed.
    #[must_use]
    pub fn compressed(self, flavour: Flavour) -> Self {
        match flavour {
            Flavour::MySql => self.setting("binlog-transaction-compression", "ON"),
            Flavour::MariaDb => self.setting("log-bin-compress", "ON").setting("log-bin-compress-min-len", "10"),
        }
    }

    /// `FULL`, `MINIMAL` or `NOBLOB` rows.
    #[must_use]
    pub fn row_image(self, image: &str) -> Self {
        self.setting("binlog-row-image", image)
    }

    /// Without the names of columns in the binary log.
    #[must_use]
    pub fn no_names(self) -> Self {
        self.setting("binlog-row-metadata", "MINIMAL")
    }

    /// TLS with a certificate of one's own; clients' certificates are checked with `ca`.
    #[must_use]
    pub fn tls(self, ca: &str, cert: &str, key: &str) -> Self {
        self.setting("ssl-ca", ca).setting("ssl-cert", cert).setting("ssl-key", key)
    }
}

/// A server of one's own.
pub struct LocalMySql {
    programs: Programs,
    options: MyOptions,
    server: Throwaway,
}

impl LocalMySql {
    /// Makes a data directory and starts a server over it. Takes a few seconds.
    pub async fn start(programs: Programs, options: MyOptions) -> Result<LocalMySql> {
        let flavour = programs.flavour;
        tokio::task::spawn_blocking(move || LocalMySql::start_blocking(programs, options))
            .await
            .map_err(|error| Error::new(Kind::Internal, error.to_string()))?
            .with_context(|| format!("starting a throw-away {flavour} server"))
    }

    fn start_blocking(programs: Programs, options: MyOptions) -> Result<LocalMySql> {
        let server = Throwaway::new("cutwater-my-", &ACCOUNTS, Signal::KILL)?;
        let mut local = LocalMySql { programs, options, server };
        local.initialize()?;
        local.write_init_file()?;
        let LocalMySql { programs, options, server } = &mut local;
        server.launch_on_a_free_port(|server| launch(programs, options, server))?;
        Ok(local)
    }

    fn initialize(&self) -> Result<()> {
        let mut command = match &self.programs.install {
            Some(install) => {
                let mut command = self.server.program(install);
                command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
                command
            }
            None => {
                let mut command = self.server.program(&self.programs.server);
                command.args(["--no-defaults", "--initialize-insecure", "--innodb-redo-log-capacity=16M"]);
                command
            }
        };
        command.args(&self.programs.arguments).arg(format!("--datadir={}", self.server.data_directory().display()));
        // Not /tmp: a server that starts removes what others have there of temporary tables.
        command.arg(format!("--tmpdir={}", self.server.folder().display()));
        let output = command.output().with_context(|| format!("running {}", command.get_program().display()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(Error::new(Kind::Io, String::from_utf8_lossy(&said).trim().to_owned()).context("the data directory"))
    }

    /// Runs before the server answers anybody, at every start. A statement a line.
    fn write_init_file(&self) -> Result<()> {
        let path = self.init_file();
        std::fs::write(
            &path,
            format!(
                "SET sql_log_bin = 0;\n\
                 CREATE USER IF NOT EXISTS '{ADMIN}'@'%' IDENTIFIED BY '{ADMIN}';\n\
                 GRANT ALL ON *.* TO '{ADMIN}'@'%' WITH GRANT OPTION;\n\
                 CREATE DATABASE IF NOT EXISTS {DATABASE};\n\
                 CREATE USER IF NOT EXISTS '{APPLICATION}'@'%' IDENTIFIED BY '{APPLICATION}';\n\
                 GRANT SELECT, INSERT, UPDATE, DELETE ON {DATABASE}.* TO '{APPLICATION}'@'%';\n"
            ),
        )?;
        self.server.give(&path)
    }

    fn init_file(&self) -> PathBuf {
        self.server.folder().join("init.sql")
    }

    /// MySQL or MariaDB.
    pub fn flavour(&self) -> Flavour {
        self.programs.flavour
    }

    /// The port on 127.0.0.1; it stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// The file of its Unix socket.
    pub fn socket(&self) -> PathBuf {
        socket(&self.server)
    }

    /// The data directory.
    pub fn data_directory(&self) -> PathBuf {
        self.server.data_directory()
    }

    /// Everything the server has logged so far.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// The administrator's URL.
    pub fn url(&self, database: &str) -> String {
        self.url_of(ADMIN, ADMIN, database)
    }

    /// The application's URL.
    pub fn application_url(&self) -> String {
        self.url_of(APPLICATION, APPLICATION, DATABASE)
    }

    /// The URL of another account.
    pub fn url_of(&self, user: &str, password: &str, database: &str) -> String {
        let scheme = if self.flavour() == Flavour::MariaDb { "mariadb" } else { "mysql" };
        let password = percent_encoding::utf8_percent_encode(password, percent_encoding::NON_ALPHANUMERIC);
        format!("{scheme}://{user}:{password}@127.0.0.1:{}/{database}", self.port())
    }

    /// `mysql 127.0.0.1:40113`, for people.
    pub fn label(&self) -> String {
        format!("{} 127.0.0.1:{}", self.flavour().to_string().to_lowercase(), self.port())
    }

    /// The folder that holds everything the server has.
    pub fn folder(&self) -> &Path {
        self.server.folder()
    }

    /// A session of the administrator.
    pub async fn connect(&self, database: &str) -> Result<Session> {
        crate::mysql::connect(&MyConnInfo::parse(&Url::new(self.url(database)))?, "cutwater_test").await
    }

    /// Stops the server as an administrator would, and waits for its end.
    pub fn stop(&mut self) -> Result<()> {
        self.server.end(Signal::TERM, Duration::from_secs(60))
    }

    /// Ends the server as the kernel's out-of-memory killer would.
    pub fn crash(&mut self) -> Result<()> {
        self.server.end(Signal::KILL, Duration::from_secs(10))
    }

    /// Starts the server again, on its old port and data.
    pub fn start_again(&mut self) -> Result<()> {
        launch(&self.programs, &self.options, &mut self.server)
    }

    /// Other options from the next start on.
    pub fn set(&mut self, options: MyOptions) {
        self.options = options;
    }

    /// What is not MySQL about it.
    pub fn process(&self) -> &Throwaway {
        &self.server
    }
}

fn socket(server: &Throwaway) -> PathBuf {
    server.folder().join("my.sock")
}

fn launch(programs: &Programs, options: &MyOptions, server: &mut Throwaway) -> Result<()> {
    let command = command(programs, options, server);
    server.launch(command, Duration::from_secs(120), |_, log| log.contains("ready for connections"))
}

fn command(programs: &Programs, options: &MyOptions, server: &Throwaway) -> Command {
    let mut command = server.program(&programs.server);
    let path = |name: &str, path: PathBuf| format!("--{name}={}", path.display());
    command.arg("--no-defaults").args(&programs.arguments).args([
        path("datadir", server.data_directory()),
        path("socket", socket(server)),
        path("pid-file", server.folder().join("pid")),
        path("init-file", server.folder().join("init.sql")),
        path("tmpdir", server.folder().to_owned()),
        format!("--port={}", server.port()),
    ]);
    command.args([
        "--bind-address=127.0.0.1",
        "--server-id=1",
        "--log-bin=binlog",
        "--binlog-format=ROW",
        "--binlog-row-image=FULL",
        "--binlog-row-metadata=FULL",
        "--sync-binlog=0",
        // Written at every commit, flushed to the disk once a second: it survives a kill, not a power cut.
        "--innodb-flush-log-at-trx-commit=2",
        "--innodb-buffer-pool-size=64M",
        "--local-infile=ON",
        "--character-set-server=utf8mb4",
        "--max-connections=150",
    ]);
    command.args(match programs.flavour {
        Flavour::MySql => &[
            "--gtid-mode=ON",
            "--enforce-gtid-consistency=ON",
            "--mysqlx=OFF",
            "--performance-schema=OFF",
            "--secure-file-priv=",
            "--innodb-redo-log-capacity=64M",
        ][..],
        Flavour::MariaDb => &["--gtid-strict-mode=ON", "--log-slave-updates=ON", "--innodb-log-file-size=32M"][..],
    });
    command.args(&options.arguments);
    command
}
