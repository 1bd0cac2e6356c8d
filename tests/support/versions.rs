//! Postgres servers of every version we speak to, beside the one that is installed.
//!
//! Looked for in this order: `CUTWATER_TEST_PG<major>` in the environment (a folder of programs, or the URL of a running
//! server's superuser), programs on the machine, `target/servers/`, where `scripts/fetch-postgres.sh` puts them when they
//! are first asked for. A version that is to be had nowhere is said on stderr with the name of the test that did not run,
//! past the test harness's capture, and nothing fails. `CUTWATER_TEST_REQUIRE_VERSIONS=1` makes it a failure.
//!
//! ```ignore
//! support::on_every_version!(rows_arrive);        // mod rows_arrive { fn postgres_13() … fn postgres_18() }
//! async fn rows_arrive(server: support::Server) { … }
//! ```

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use cutwater::cli::demo::server::{LocalPostgres, SUPERUSER, ServerOptions};

/// The major versions that the tests want.
pub const VERSIONS: [u32; 6] = [13, 14, 15, 16, 17, 18];

/// A server of a version, which a test binary's tests share: our own, or one that the environment names.
#[derive(Clone)]
pub struct Server {
    /// Its major version.
    pub version: u32,
    place: Place,
}

#[derive(Clone)]
enum Place {
    /// Do not stop it: other tests run there.
    Own(Arc<LocalPostgres>),
    /// URL of its superuser, without a database.
    Given(String),
}

/// The server of this version that the binary's tests share, or `None` after saying that `test` does not run. It can
/// prepare transactions, and keeps little of one in memory.
pub async fn server_of(version: u32, test: &str) -> Option<Server> {
    static SERVERS: tokio::sync::Mutex<Option<HashMap<u32, Server>>> = tokio::sync::Mutex::const_new(None);
    let mut servers = SERVERS.lock().await;
    let servers = servers.get_or_insert_default();
    if let Some(server) = servers.get(&version) {
        return Some(server.clone());
    }
    let place = match given_url(version) {
        Some(url) => Place::Given(url),
        None => {
            // What a server sends of a transaction before its end, if it is let, begins past this much of it.
            let options = ServerOptions::new()
                .setting("max_prepared_transactions", "20")
                .setting("logical_decoding_work_mem", "64kB");
            Place::Own(Arc::new(postgres_of(version, options, test).await?))
        }
    };
    let server = Server { version, place };
    servers.insert(version, server.clone());
    Some(server)
}

/// A server of this version and of the test's own, which it may configure, stop and kill; or `None` after saying that
/// `test` does not run.
pub async fn postgres_of(version: u32, options: ServerOptions, test: &str) -> Option<LocalPostgres> {
    let programs = tokio::task::spawn_blocking(move || programs_of(version)).await.unwrap();
    match programs {
        Ok(programs) => Some(super::postgres_with(options.programs(programs)).await),
        Err(why) => {
            not_run(&format!("{test} on Postgres {version}: {why}"));
            None
        }
    }
}

/// Says what does not run and why; a failure where it must run.
pub fn not_run(what: &str) {
    // Not eprintln!, which the harness keeps to itself when the test passes.
    let _ = writeln!(std::io::stderr(), "\nNOT RUN: {what}\n");
    let required = std::env::var_os("CUTWATER_TEST_REQUIRE_VERSIONS").is_some();
    assert!(!required, "must run (CUTWATER_TEST_REQUIRE_VERSIONS): {what}");
}

/// The folder with `initdb` and `postgres` of this version, or why there is none.
pub fn programs_of(version: u32) -> Result<PathBuf, String> {
    static FOUND: Mutex<Option<HashMap<u32, Result<PathBuf, String>>>> = Mutex::new(None);
    // Held while fetching: the others would only wait for the same.
    let mut found = FOUND.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    found.get_or_insert_default().entry(version).or_insert_with(|| find(version)).clone()
}

fn variable(version: u32) -> Option<String> {
    std::env::var(format!("CUTWATER_TEST_PG{version}")).ok().filter(|value| !value.is_empty())
}

fn given_url(version: u32) -> Option<String> {
    variable(version).filter(|value| value.starts_with("postgres")).map(|url| url.trim_end_matches('/').to_owned())
}

fn find(version: u32) -> Result<PathBuf, String> {
    if let Some(folder) = variable(version).filter(|value| value.starts_with('/')) {
        return usable(Path::new(&folder), version)
            .ok_or_else(|| format!("CUTWATER_TEST_PG{version}={folder} holds no Postgres {version}"));
    }
    let machine = PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fetched = root.join(format!("target/servers/postgres-{version}/bin"));
    if let Some(found) = usable(&machine, version).or_else(|| usable(&fetched, version)) {
        return Ok(found);
    }
    let output = Command::new(root.join("scripts/fetch-postgres.sh")).arg(version.to_string()).output();
    let said = match output {
        Ok(output) if output.status.success() => String::new(),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    usable(&fetched, version).ok_or_else(|| {
        format!(
            "no such server is here (CUTWATER_TEST_PG{version}, {}, {}).\n{}",
            machine.display(),
            fetched.display(),
            said.trim()
        )
    })
}

/// The folder's real path, if its server is of this version.
fn usable(folder: &Path, version: u32) -> Option<PathBuf> {
    let folder = folder.canonicalize().ok().filter(|folder| folder.join("initdb").is_file())?;
    let output = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
    // `postgres (PostgreSQL) 16.10`, `18beta1`
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let number: String = said.split_whitespace().nth(2)?.chars().take_while(char::is_ascii_digit).collect();
    (number == version.to_string()).then_some(folder)
}

impl Place {
    fn url(&self, database: &str) -> String {
        match self {
            Place::Own(server) => server.url(SUPERUSER, database),
            Place::Given(url) => format!("{url}/{database}"),
        }
    }
}

impl Server {
    /// URL of the superuser for a database.
    pub fn url(&self, database: &str) -> String {
        self.place.url(database)
    }

    /// A session of the superuser.
    pub async fn connect(&self, database: &str) -> tokio_postgres::Client {
        let url = cutwater::config::Url::new(self.url(database));
        let info = cutwater::postgres::ConnInfo::parse(&url).unwrap();
        cutwater::postgres::connect(&info, "cutwater test").await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs SQL as superuser; several statements are one transaction. `public` is on the search path.
    pub async fn execute(&self, database: &str, sql: &str) {
        let client = self.connect(database).await;
        client.batch_execute("RESET search_path").await.unwrap();
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?}\nin: {sql}"));
    }

    /// An empty database with a name of its own (`test_13_4711_1`), fit for a migration's name too.
    pub async fn database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{}_{number}", self.version, std::process::id());
        self.execute("postgres", &format!("CREATE DATABASE {name}")).await;
        name
    }
}

/// A database on a server of any version: one end of a migration.
pub struct Site {
    place: Place,
    /// The database's name.
    pub name: String,
}

/// An empty database on the shared server of this version, or `None` after saying that `test` does not run.
pub async fn site_of(version: u32, test: &str) -> Option<Site> {
    let server = server_of(version, test).await?;
    Some(Site { name: server.database().await, place: server.place })
}

impl From<super::Database> for Site {
    fn from(database: super::Database) -> Site {
        Site { place: Place::Own(database.server), name: database.name }
    }
}

impl Site {
    /// URL of the superuser.
    pub fn url(&self) -> String {
        self.place.url(&self.name)
    }

    /// URL of a role that needs no password.
    pub fn url_of(&self, role: &str) -> String {
        let url = self.url();
        let (_, place) = url.rsplit_once('@').unwrap();
        format!("postgres://{role}@{place}")
    }

    /// A session of the superuser, with the database's own settings.
    pub async fn connect(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.url(), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Runs SQL as superuser; several statements are one transaction.
    pub async fn execute(&self, sql: &str) {
        self.connect().await.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?}\nin: {sql}"));
    }

    /// The single value that a query gives.
    pub async fn value<T: for<'a> tokio_postgres::types::FromSql<'a>>(&self, sql: &str) -> T {
        let row = self.connect().await.query_one(sql, &[]).await;
        row.unwrap_or_else(|error| panic!("{error:?}\nin: {sql}")).get(0)
    }
}

/// A module named as the test, with one test for each version: `cargo test rows_arrive::postgres_13`.
macro_rules! on_every_version {
    ($test:ident) => {
        mod $test {
            crate::support::on_every_version!(@ $test, postgres_13 13, postgres_14 14, postgres_15 15, postgres_16 16,
                postgres_17 17, postgres_18 18);
        }
    };
    (@ $test:ident, $($name:ident $version:literal),+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let name = concat!(stringify!($test), "::", stringify!($name));
                let server = crate::support::server_of($version, name).await;
                if let Some(server) = server {
                    super::$test(server).await;
                }
            }
        )+
    };
}

pub(crate) use on_every_version;
