//! The servers that the claims of `state.rs` are put to, each with the few words a test says to it beside the state.

use std::sync::Arc;
use std::time::Duration;

use cutwater::change::{Lsn, Position};
use cutwater::config::Url;
use cutwater::mysql::{self, Flavour, MyConnInfo};
use cutwater::postgres::ConnInfo;
use cutwater::schema::TableName;
use cutwater::source::SourceIdentity;
use cutwater::target::state::{Lease, LeaseOutcome, NewTable, State};
use tokio::sync::{Mutex, OnceCell, OwnedMutexGuard};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::support::mysql::DATABASE;
use crate::support::{LocalMySql, MyOptions, my_server, pair, wait_for};

pub const TTL: Duration = Duration::from_secs(600);

/// A target in which nothing is remembered yet.
pub enum Target {
    Postgres(String),
    MySql(String),
}

/// Puts a claim to every engine, one after the other.
#[allow(clippy::print_stdout, reason = "shown with a failure: which engine it was")]
pub async fn everywhere(claim: impl AsyncFn(&Target)) {
    let (_source, target) = pair().await;
    println!("on Postgres");
    claim(&Target::Postgres(target.url())).await;
    for flavour in [Flavour::MySql, Flavour::MariaDb] {
        println!("on {flavour}");
        let turn = turn(flavour).await;
        let Some(server) = &*turn else { continue };
        let target = Target::MySql(server.url(DATABASE));
        target.execute("DROP DATABASE IF EXISTS cutwater").await;
        claim(&target).await;
    }
}

/// A server that the claims share. Its state is the server's: one claim at a time.
async fn turn(flavour: Flavour) -> OwnedMutexGuard<Option<LocalMySql>> {
    type Shared = OnceCell<Arc<Mutex<Option<LocalMySql>>>>;
    static SERVERS: [Shared; 2] = [const { OnceCell::const_new() }; 2];
    let shared = SERVERS[usize::from(flavour == Flavour::MariaDb)].get_or_init(move || async move {
        Arc::new(Mutex::new(my_server(flavour, MyOptions::new(), "what is remembered").await))
    });
    Arc::clone(shared.await).lock_owned().await
}

impl Target {
    /// Access of a process of its own.
    pub fn state(&self, migration: &str) -> State {
        match self {
            Target::Postgres(url) => State::new(ConnInfo::parse(&Url::new(url.as_str())).unwrap(), migration),
            Target::MySql(url) => State::new(MyConnInfo::parse(&Url::new(url.as_str())).unwrap(), migration),
        }
    }

    /// A session beside.
    pub async fn session(&self) -> Session {
        match self {
            Target::Postgres(url) => {
                let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
                tokio::spawn(connection);
                Session::Postgres(client)
            }
            Target::MySql(url) => Session::MySql(
                mysql::connect(&MyConnInfo::parse(&Url::new(url.as_str())).unwrap(), "beside").await.unwrap(),
            ),
        }
    }

    /// Runs a statement; how many rows it touched.
    pub async fn execute(&self, sql: &str) -> u64 {
        self.session().await.execute(sql).await
    }

    /// The number that a query gives.
    pub async fn number(&self, sql: &str) -> i64 {
        match self.session().await {
            Session::Postgres(client) => {
                let rows = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{error:?}\nin: {sql}"));
                let value = rows.iter().find_map(|message| match message {
                    SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                });
                value.expect("a row").parse().unwrap()
            }
            Session::MySql(mut session) => session.value(sql).await.unwrap().expect("a row").parse().unwrap(),
        }
    }

    /// Ends every session of the state, and waits for their end.
    pub async fn end_sessions(&self) {
        wait_for("the end of the sessions", Duration::from_secs(90), async || match self.session().await {
            Session::Postgres(client) => {
                let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                            WHERE application_name LIKE 'cutwater%' AND datname = current_database()";
                let found = client.simple_query(sql).await.unwrap();
                !found.iter().any(|message| matches!(message, SimpleQueryMessage::Row(_)))
            }
            Session::MySql(mut session) => {
                let sql = "SELECT id FROM information_schema.processlist
                            WHERE id <> connection_id() AND user = SUBSTRING_INDEX(USER(), '@', 1)";
                let found = session.rows(sql).await.unwrap();
                for row in &found {
                    // It may have ended by itself.
                    let _ = session.execute(format!("KILL {}", row[0].as_deref().unwrap())).await;
                }
                found.is_empty()
            }
        })
        .await;
    }

    /// How many rows there are of a migration, in all tables but the event log.
    pub async fn rows_of(&self, migration: &str) -> i64 {
        let mut rows =
            self.number(&format!("SELECT count(*) FROM cutwater.migration WHERE name = '{migration}'")).await;
        for table in TABLES {
            let sql = format!("SELECT count(*) FROM cutwater.{table} WHERE migration = '{migration}'");
            rows += self.number(&sql).await;
        }
        rows
    }
}

/// Tables whose rows end with the migration's.
pub const TABLES: [&str; 13] = [
    "checkpoint",
    "tracking",
    "changed_key",
    "changed_table",
    "table_state",
    "table_chunk",
    "table_request",
    "empty_leaf",
    "table_progress",
    "run",
    "cutover",
    "dead_letter",
    "control",
];

pub enum Session {
    Postgres(Client),
    MySql(mysql::Session),
}

impl Session {
    /// Runs a statement; how many rows it touched.
    pub async fn execute(&mut self, sql: &str) -> u64 {
        match self {
            Session::Postgres(client) => {
                client.execute(sql, &[]).await.unwrap_or_else(|error| panic!("{error:?}\nin: {sql}"))
            }
            Session::MySql(session) => {
                session.execute(sql).await.unwrap_or_else(|error| panic!("{error:?}\nin: {sql}"))
            }
        }
    }
}

/// A place in the log.
pub fn at(lsn: u64) -> Position {
    Position::from(Lsn(lsn))
}

pub fn name(table: &str) -> TableName {
    TableName::new("shop", table)
}

pub fn new_table(source: &TableName, bytes: i64) -> NewTable {
    NewTable { source: source.clone(), target: source.clone(), rows: 5, bytes, rule: "{}".into() }
}

/// A migration that has begun, with these tables; its lease is `host pid 1`'s.
pub async fn begun(target: &Target, migration: &str, tables: &[&str]) -> (State, Lease) {
    let state = target.state(migration);
    state.install().await.unwrap();
    state.begin("the ends", &source(), "postgres old:5432/shop", "the target").await.unwrap();
    let lease = taken(&state, "host pid 1").await;
    let tables: Vec<NewTable> = tables.iter().map(|table| new_table(&name(table), 0)).collect();
    state.add_tables(&lease, &tables).await.unwrap();
    state.set_slot_position(&lease, &at(100)).await.unwrap();
    (state, lease)
}

pub async fn taken(state: &State, holder: &str) -> Lease {
    match state.take_lease(holder, TTL, |_| false).await.unwrap() {
        LeaseOutcome::Taken(lease) => lease,
        LeaseOutcome::Held(by) => panic!("held by {by}"),
    }
}

pub fn source() -> SourceIdentity {
    SourceIdentity {
        engine: "postgres".into(),
        version: "15.8 (Größe \"’\\)".into(),
        system_id: "7".into(),
        timeline: 3,
        database: "shop".into(),
    }
}
