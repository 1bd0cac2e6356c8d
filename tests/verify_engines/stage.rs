//! Two ends of different engines with a migration between them, filled without a run.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cutwater::change::{Datum, Row};
use cutwater::config::Config;
use cutwater::mysql::{Flavour, Session, canonical, is_binary, my_table};
use cutwater::pipeline::schema::Schema;
use cutwater::pipeline::{Job, Progress};
use cutwater::schema::TableSchema;
use cutwater::source::Source as _;
use cutwater::target::Target as _;
use cutwater::transform::{Plan, TablePlan};
use cutwater::verify::{DifferenceKind, Ends, Options, Report, TableReport, run};
use mysql_async::Value;
use mysql_async::prelude::Queryable as _;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::support::{Database, LocalMySql, MyOptions, my_server, postgres};

/// One server of each kind that can be had, shared by the tests of this binary.
pub async fn server(flavour: Flavour) -> Option<Arc<LocalMySql>> {
    type Servers = Vec<(Flavour, Option<Arc<LocalMySql>>)>;
    static SERVERS: Mutex<Servers> = Mutex::const_new(Vec::new());
    let mut servers = SERVERS.lock().await;
    if let Some((_, server)) = servers.iter().find(|(of, _)| *of == flavour) {
        return server.clone();
    }
    let server = my_server(flavour, MyOptions::new(), "verify_engines").await.map(Arc::new);
    servers.push((flavour, server.clone()));
    server
}

/// A database of its own at the Postgres server that the tests share.
pub async fn database() -> Database {
    static SERVER: Mutex<Option<Arc<crate::support::LocalPostgres>>> = Mutex::const_new(None);
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let server = {
        let mut server = SERVER.lock().await;
        if server.is_none() {
            *server = Some(Arc::new(postgres().await));
        }
        server.clone().unwrap()
    };
    let name = format!("verify_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    server.execute("postgres", &format!("CREATE DATABASE {name}")).await.unwrap();
    Database { server, name }
}

/// A MySQL or MariaDB database and a Postgres database, and what is between them.
pub struct Stage {
    pub source: Arc<LocalMySql>,
    pub target: Database,
    pub name: String,
    pub job: Job,
    pub plan: Plan,
    pub ends: Ends,
}

/// The URL as a config has it.
pub fn url(server: &LocalMySql, database: &str) -> String {
    server.url(database).replace("mariadb://", "mysql://")
}

pub async fn ends(job: &Job) -> Ends {
    let state = job.target.state().clone();
    state.install().await.unwrap();
    let identity = job.source.identity().await.unwrap();
    state.begin("fingerprint", &identity, "source", "target").await.unwrap();
    Ends { source: job.source.clone(), target: job.target.clone(), state }
}

/// An empty database at the server.
pub async fn my_database(server: &LocalMySql, name: &str, sql: &[&str]) {
    let mut session = server.connect("").await;
    session.execute(format!("CREATE DATABASE {name} CHARACTER SET utf8mb4")).await.unwrap();
    session.execute(format!("USE {name}")).await.unwrap();
    for sql in sql {
        session.execute(sql).await.unwrap_or_else(|error| panic!("{error}\nin: {sql}"));
    }
}

impl Stage {
    /// Runs `sql` at the source, makes its tables at the target, and copies the rows. `rules` is TOML.
    pub async fn of(flavour: Flavour, name: &str, rules: &str, sql: &[&str]) -> Option<Stage> {
        let stage = Stage::empty(flavour, name, rules, sql).await?;
        stage.copy().await;
        Some(stage)
    }

    /// The same without the rows.
    pub async fn empty(flavour: Flavour, name: &str, rules: &str, sql: &[&str]) -> Option<Stage> {
        let source = server(flavour).await?;
        my_database(&source, name, sql).await;
        let target = database().await;
        let toml = format!(
            "[migration]\nname = \"shop\"\n[source]\nurl = \"{}\"\n[target]\nurl = \"{}\"\n{rules}",
            url(&source, name),
            target.url()
        );
        let config: Config = toml::from_str(&toml).unwrap_or_else(|error| panic!("{error}\n{toml}"));
        let job = Job::open(config).unwrap();
        let plan = job.plan().await.unwrap_or_else(|error| panic!("{error}"));
        let progress = Arc::new(Progress::default());
        let schema = Schema::of(&job, &plan, &progress);
        let never = CancellationToken::new();
        schema.create_tables(&never).await.unwrap_or_else(|error| panic!("{error}"));
        schema.build_keys_and_indexes(&never).await.unwrap_or_else(|error| panic!("{error}"));
        let ends = ends(&job).await;
        Some(Stage { source, target, name: name.to_owned(), job: job.clone(), plan, ends })
    }

    pub async fn session(&self) -> Session {
        self.source.connect(&self.name).await
    }

    /// Copies the rows of every table, in the form in which a copy takes them.
    async fn copy(&self) {
        let mut session = self.session().await;
        let client = self.target.connect().await;
        for table in self.plan.tables() {
            let there = self.job.target.tables(std::slice::from_ref(&table.shaped.name)).await.unwrap();
            let there = there[0].clone().unwrap_or_else(|| panic!("{} is not there", table.shaped.name));
            let fitted = self.plan.fitted(table, &there).unwrap();
            let rows = rows(&mut session, &fitted).await;
            for some in rows.chunks(500) {
                let sql = insert(&there, &fitted, some);
                client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{error:?}\nin: {sql}"));
            }
        }
    }

    /// Compares everything; nothing is waited for.
    pub async fn verify(&self) -> Report {
        verify(&self.ends, &self.plan).await
    }
}

pub async fn verify(ends: &Ends, plan: &Plan) -> Report {
    let options = Options { fenced: true, ..Options::default() };
    let never = CancellationToken::new();
    run(ends, plan, &options, &|_, _, _| {}, &never).await.unwrap_or_else(|error| panic!("{error}"))
}

async fn rows(session: &mut Session, plan: &TablePlan) -> Vec<Row> {
    let columns: Vec<_> = plan.columns.iter().map(|&index| &plan.source.columns[index]).collect();
    let list: Vec<String> = columns.iter().map(|column| canonical(column)).collect();
    let sql = format!("SELECT {} FROM {}", list.join(", "), my_table(&plan.source.name));
    let rows: Vec<mysql_async::Row> = session.conn().query(&sql).await.unwrap();
    let row = |row: mysql_async::Row| {
        let values = row.unwrap();
        let row: Row = values
            .iter()
            .zip(&columns)
            .map(|(value, column)| match value {
                Value::NULL => Datum::Null,
                Value::Bytes(bytes) if is_binary(column) => Datum::Binary(bytes),
                Value::Bytes(bytes) => Datum::Text(bytes),
                other => panic!("{other:?}"),
            })
            .collect();
        match &plan.convert {
            Some(convert) => convert.row(&row).unwrap_or_else(|error| panic!("{error}")),
            None => row,
        }
    };
    rows.into_iter().map(row).collect()
}

fn insert(there: &TableSchema, plan: &TablePlan, rows: &[Row]) -> String {
    let columns: Vec<String> = plan.shaped.columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
    let mut sql = format!("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ", there.name.sql(), columns.join(", "));
    for (at, row) in rows.iter().enumerate() {
        sql.push_str(if at > 0 { ", (" } else { "(" });
        for (at, datum) in row.fields().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            match datum.bytes() {
                None => write!(sql, "{comma}NULL").unwrap(),
                Some(bytes) => {
                    let text = std::str::from_utf8(bytes).unwrap();
                    write!(sql, "{comma}'{}'", text.replace('\'', "''")).unwrap();
                }
            }
        }
        sql.push(')');
    }
    sql
}

pub fn table<'a>(report: &'a Report, name: &str) -> &'a TableReport {
    report.tables.iter().find(|table| table.source == name).unwrap_or_else(|| panic!("{name}: {report:?}"))
}

/// What was found in a table, by key.
pub fn found<'a>(report: &'a Report, name: &str) -> Vec<(&'a str, DifferenceKind)> {
    let mut rows: Vec<_> = table(report, name).rows.iter().map(|row| (row.key.as_str(), row.kind)).collect();
    rows.sort_by_key(|row| row.0);
    rows
}
