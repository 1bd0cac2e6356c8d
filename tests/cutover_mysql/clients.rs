//! Applications that never stop writing, each in its own way: an ordinary one, one that passes `read_only`, one in
//! transactions, one with a prepared statement, one that opens a new session for each row.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cutwater::error::Result;
use cutwater::mysql::Session;
use mysql_async::prelude::Queryable;

use crate::support::mysql::{DATABASE, connect};
use crate::support::{LocalMySql, wait_for};

const MINUTE: Duration = Duration::from_secs(60);
/// The ways, and the account of each.
const WAYS: [(&str, &str); 5] =
    [("plain", "app"), ("through", "boss"), ("transaction", "boss"), ("prepared", "app"), ("again", "app")];

pub struct Clients {
    stop: Arc<AtomicBool>,
    names: Vec<&'static str>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    /// XA transactions that have written and are neither prepared nor gone.
    _open: Vec<Session>,
}

impl Clients {
    /// Starts them; returns when each has written.
    pub async fn start(server: &LocalMySql) -> Clients {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut tasks, mut names) = (Vec::new(), Vec::new());
        for (way, user) in WAYS {
            let url = server.url_of(user, user, DATABASE);
            if connect(&url).await.is_err() {
                continue;
            }
            names.push(way);
            let stop = Arc::clone(&stop);
            tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let Ok(session) = connect(&url).await else {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    };
                    // Whatever happens to the session: a new one.
                    let _ = write(session, way, &stop).await;
                }
            }));
        }
        let clients = Clients { stop, names, tasks, _open: Vec::new() };
        clients.all_write(server, "nothing stops them").await;
        clients
    }

    /// Waits until each has written once more.
    pub async fn all_write(&self, server: &LocalMySql, why: &str) {
        let mut session = server.connect(DATABASE).await;
        let from = session.value("SELECT coalesce(max(id), 0) FROM plain").await.unwrap().unwrap();
        for name in &self.names {
            let sql = format!("SELECT 1 FROM plain WHERE id > {from} AND client = '{name}' LIMIT 1");
            wait_for(&format!("{name} to write: {why}"), MINUTE, async || {
                server.connect(DATABASE).await.value(&sql).await.unwrap().is_some()
            })
            .await;
        }
    }

    /// Lets them try for a while.
    pub async fn nobody_writes(&self, server: &LocalMySql, rows: i64) {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let sql = "SELECT client FROM plain ORDER BY id DESC LIMIT 3";
            let mut session = server.connect(DATABASE).await;
            let count = session.value("SELECT count(*) FROM plain").await.unwrap().unwrap();
            assert_eq!(count, rows.to_string(), "the last: {:?}", session.rows(sql).await.unwrap());
        }
    }

    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
    }
}

/// Writes one row in a new session, which does not wait for long.
pub async fn write_once(url: &str) -> Result<()> {
    let mut session = connect(url).await?;
    session.execute("SET SESSION lock_wait_timeout = 3").await?;
    session.execute("INSERT INTO plain (client, v) VALUES ('once', 1)").await.map(drop)
}

async fn write(mut session: Session, way: &str, stop: &AtomicBool) -> Result<()> {
    let insert = format!("INSERT INTO plain (client, v) VALUES ('{way}', 1)");
    let prepared = session.conn().prep("INSERT INTO plain (client, v) VALUES (?, ?)").await?;
    while !stop.load(Ordering::Relaxed) {
        match way {
            "prepared" => session.conn().exec_drop(&prepared, (way, 1)).await?,
            "transaction" => {
                session.execute("BEGIN").await?;
                session.execute(&insert).await?;
                tokio::time::sleep(Duration::from_millis(30)).await;
                session.execute("COMMIT").await?;
            }
            _ => {
                session.execute(&insert).await?;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        if way == "again" {
            return Ok(());
        }
    }
    Ok(())
}
