//! Servers and databases for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Mutex;

use cutwater::cli::demo::server::{LocalPostgres, SUPERUSER, ServerOptions};

/// A server of the test's own, which it may stop, kill and configure.
pub async fn postgres() -> LocalPostgres {
    postgres_with(ServerOptions::new()).await
}

/// A server of the test's own with settings.
pub async fn postgres_with(options: ServerOptions) -> LocalPostgres {
    LocalPostgres::start(options).await.unwrap_or_else(|error| panic!("{error}"))
}

/// An empty database on a server that the tests of this binary share.
pub struct Database {
    /// The server. Do not stop it: other tests run there.
    pub server: Arc<LocalPostgres>,
    /// The database's name.
    pub name: String,
}

/// Two empty databases on two servers, source and target, shared with the binary's other tests: much faster than two
/// servers of one's own. The servers end with the process.
pub async fn pair() -> (Database, Database) {
    static SERVERS: Mutex<Option<(Arc<LocalPostgres>, Arc<LocalPostgres>)>> = Mutex::const_new(None);
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let (source, target) = {
        let mut servers = SERVERS.lock().await;
        if servers.is_none() {
            let (source, target) = tokio::join!(postgres(), postgres());
            *servers = Some((Arc::new(source), Arc::new(target)));
        }
        servers.clone().expect("just started")
    };
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    tokio::join!(Database::create(source, &name), Database::create(target, &name))
}

/// An empty database on a server that the binary's other tests share, beside ends of other engines.
pub async fn one() -> Database {
    static SERVER: Mutex<Option<Arc<LocalPostgres>>> = Mutex::const_new(None);
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let server = {
        let mut server = SERVER.lock().await;
        if server.is_none() {
            *server = Some(Arc::new(postgres().await));
        }
        server.clone().expect("just started")
    };
    Database::create(server, &format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed))).await
}

impl Database {
    async fn create(server: Arc<LocalPostgres>, name: &str) -> Database {
        server.execute("postgres", &format!("CREATE DATABASE {name}")).await.unwrap();
        Database { server, name: name.to_owned() }
    }

    /// URL of the superuser.
    pub fn url(&self) -> String {
        self.server.url(SUPERUSER, &self.name)
    }

    /// A session of the superuser.
    pub async fn connect(&self) -> tokio_postgres::Client {
        self.server.connect(&self.name).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs SQL; several statements are one transaction.
    pub async fn execute(&self, sql: &str) {
        self.server.execute(&self.name, sql).await.unwrap_or_else(|error| panic!("{error}\nin: {sql}"));
    }

    /// The single value that a query gives.
    pub async fn value<T: for<'a> tokio_postgres::types::FromSql<'a>>(&self, sql: &str) -> T {
        let rows = self.connect().await.query(sql, &[]).await.unwrap_or_else(|error| panic!("{error:?}\nin: {sql}"));
        assert_eq!(rows.len(), 1, "rows of: {sql}");
        rows[0].get(0)
    }
}
