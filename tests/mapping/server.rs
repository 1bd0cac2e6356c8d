//! The servers that the tests of this binary share: one of each kind that can be had. They end with the process.

use std::sync::Arc;

use cutwater::mysql::{Flavour, Session};
use tokio::sync::Mutex;

use super::support::{LocalMySql, LocalPostgres, MyOptions, my_server};

/// A session in an empty database of this name at a MySQL and at a MariaDB server.
pub async fn sites(database: &str) -> Vec<Session> {
    static SERVERS: Mutex<Option<Vec<LocalMySql>>> = Mutex::const_new(None);
    let mut servers = SERVERS.lock().await;
    if servers.is_none() {
        let start = |flavour| my_server(flavour, MyOptions::new(), "mapping");
        let (mysql, mariadb) = tokio::join!(start(Flavour::MySql), start(Flavour::MariaDb));
        *servers = Some([mysql, mariadb].into_iter().flatten().collect());
    }
    let mut sessions = Vec::new();
    for server in servers.iter().flatten() {
        let mut session = server.connect("").await;
        session.execute(format!("CREATE DATABASE {database} CHARACTER SET utf8mb4")).await.unwrap();
        session.execute(format!("USE {database}")).await.unwrap();
        sessions.push(session);
    }
    sessions
}

/// A session at a Postgres server; the tests keep to schemas of their own.
pub async fn postgres() -> tokio_postgres::Client {
    static SERVER: Mutex<Option<Arc<LocalPostgres>>> = Mutex::const_new(None);
    let server = {
        let mut server = SERVER.lock().await;
        if server.is_none() {
            *server = Some(Arc::new(super::support::postgres().await));
        }
        server.clone().expect("just started")
    };
    let client = server.connect("postgres").await.unwrap();
    client.batch_execute("SET TIME ZONE 'UTC'").await.unwrap();
    client
}
