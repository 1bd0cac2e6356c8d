//! A database on each of the two servers, with a migration's state beside it, and the words a test says to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cutwater::change::{Begin, ChangeEvent, Commit, Datum, Lsn, Op, Position, Row, RowChange, Truncate};
use cutwater::config::{ApplyConfig, OnError, Url};
use cutwater::error::Error;
use cutwater::mysql::{Flavour, MyConnInfo, Session};
use cutwater::schema::{MySqlKind, TableName, TableSchema};
use cutwater::source::{CopyChunk, CopyFormat, CopyStream, SourceIdentity};
use cutwater::target::mysql::{MyApplier, MyTarget};
use cutwater::target::state::{Lease, LeaseOutcome, NewTable};
use cutwater::target::{Applied, Applier, Batch, BatchEnd, LoadMode, Loaded, Target};
use jiff::Timestamp;
use mysql_async::Value;
use mysql_async::prelude::Queryable;
use tokio::sync::{Mutex, OnceCell};

use crate::support::{LocalMySql, MyOptions, my_server};

/// A database with the state of a migration whose stream begins at 0/100.
pub struct Fixture {
    pub server: Arc<LocalMySql>,
    pub database: String,
    pub target: MyTarget,
    pub lease: Lease,
    pub next: AtomicU64,
}

pub fn at(lsn: u64) -> Position {
    Lsn(lsn).into()
}

/// Puts a claim to both servers.
pub async fn on_both(ddl: &str, claim: impl AsyncFn(Fixture)) {
    on_both_from("postgres", ddl, claim).await;
}

/// The same, with changes of a source of this engine.
#[allow(clippy::print_stdout, reason = "shown with a failure: which server it was")]
pub async fn on_both_from(engine: &str, ddl: &str, claim: impl AsyncFn(Fixture)) {
    type Shared = OnceCell<Option<Arc<LocalMySql>>>;
    static SERVERS: [Shared; 2] = [const { OnceCell::const_new() }; 2];
    for flavour in [Flavour::MySql, Flavour::MariaDb] {
        println!("on {flavour}");
        let server = SERVERS[usize::from(flavour == Flavour::MariaDb)]
            .get_or_init(async || my_server(flavour, MyOptions::new(), "the target of MySQL").await.map(Arc::new));
        let Some(server) = server.await.clone() else { continue };
        claim(Fixture::of(server, ddl, engine, "8.0.36").await).await;
    }
}

impl Fixture {
    /// `engine` and `version` are the source's.
    pub async fn of(server: Arc<LocalMySql>, ddl: &str, engine: &str, version: &str) -> Fixture {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let database = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut session = server.connect("").await;
        session.execute(format!("CREATE DATABASE {database}")).await.unwrap();
        for statement in ddl.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()) {
            session.execute(format!("USE {database}")).await.unwrap();
            session.execute(statement).await.unwrap_or_else(|error| panic!("{error}\nin: {statement}"));
        }
        let info = MyConnInfo::parse(&Url::new(server.url(&database))).unwrap();
        // The state is the server's: each test is a migration of its own.
        let target = MyTarget::new(info, &database);
        static INSTALLING: Mutex<()> = Mutex::const_new(());
        let installing = INSTALLING.lock().await;
        target.state().install().await.unwrap();
        drop(installing);
        let source = SourceIdentity {
            engine: engine.into(),
            version: version.into(),
            system_id: "1".into(),
            timeline: 0,
            database: "shop".into(),
        };
        target.state().begin("f", &source, "old", "new").await.unwrap();
        let lease = take_lease(&target, "first").await;
        target.state().set_slot_position(&lease, &at(0x100)).await.unwrap();
        Fixture { server, database, target, lease, next: AtomicU64::new(0x100) }
    }

    pub async fn session(&self) -> Session {
        self.server.connect(&self.database).await
    }

    pub async fn execute(&self, sql: &str) {
        self.server.execute(&self.database, sql).await;
    }

    pub async fn value(&self, sql: &str) -> Option<String> {
        self.session().await.value(sql).await.unwrap_or_else(|error| panic!("{error}\nin: {sql}"))
    }

    pub async fn applier(&self) -> MyApplier {
        self.target.applier(&self.lease, &ApplyConfig::default()).await.unwrap()
    }

    pub async fn setting_aside(&self) -> MyApplier {
        let config = ApplyConfig { on_error: OnError::DeadLetter, ..ApplyConfig::default() };
        self.target.applier(&self.lease, &config).await.unwrap()
    }

    /// The table as a source that is the same would describe it.
    pub async fn table(&self, name: &str) -> Arc<TableSchema> {
        let found = self.target.tables(&[TableName::new(&self.database, name)]).await.unwrap();
        found.into_iter().next().flatten().expect("the table")
    }

    /// The same, and no key to fold by.
    pub async fn keyless(&self, name: &str) -> Arc<TableSchema> {
        let table = self.table(name).await;
        Arc::new(TableSchema { key: None, ..TableSchema::clone(&table) })
    }

    /// A batch of whole source transactions.
    pub fn batch(&self, transactions: Vec<Vec<ChangeEvent>>) -> Batch {
        let mut events = Vec::new();
        for transaction in transactions {
            let end = self.next.fetch_add(0x100, Ordering::Relaxed) + 0x100;
            events.push(begin(end));
            events.extend(transaction);
            events.push(commit(end));
        }
        let position = at(self.next.load(Ordering::Relaxed));
        let end = BatchEnd::Commit { position, commit_time: Timestamp::UNIX_EPOCH };
        Batch { events, end, tolerate_missing: false }
    }

    pub async fn apply(&self, applier: &mut MyApplier, changes: Vec<ChangeEvent>) -> Result<Applied, Error> {
        applier.apply(self.batch(vec![changes])).await
    }

    /// The same, when it must go through as sets.
    pub async fn apply_as_sets(&self, applier: &mut MyApplier, changes: Vec<ChangeEvent>) {
        let applied = self.apply(applier, changes).await.unwrap();
        assert!(!applied.replayed, "it had to be replayed");
    }

    /// `1,ann,` for each row, in the order of the first columns.
    pub async fn rows(&self, table: &str) -> Vec<String> {
        let mut rows: Vec<String> = self
            .session()
            .await
            .rows(format!("SELECT * FROM {table}"))
            .await
            .unwrap()
            .into_iter()
            .map(|row| row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join(","))
            .collect();
        rows.sort();
        rows
    }

    /// The rows as a source would read them, in the order of their bytes.
    pub async fn canonical(&self, table: &TableSchema) -> Vec<Row> {
        let columns: Vec<String> = table
            .columns
            .iter()
            .map(|column| match column.ty.mysql.as_ref().map(|ty| ty.kind) {
                Some(MySqlKind::Float) => format!("`{}` + 0e0", column.name),
                _ => format!("`{}`", column.name),
            })
            .collect();
        let sql = format!("SELECT {} FROM `{}`.`{}`", columns.join(", "), table.name.schema, table.name.table);
        let mut session = self.session().await;
        let found: Vec<mysql_async::Row> = session.conn().query(sql).await.unwrap();
        let row = |row: mysql_async::Row| -> Row {
            let values = row.unwrap();
            let fields = values.iter().zip(&table.columns).map(|(value, column)| match value {
                Value::NULL => Datum::Null,
                Value::Bytes(bytes) if column.ty.mysql.as_ref().unwrap().is_bytes() => Datum::Binary(bytes),
                Value::Bytes(bytes) => Datum::Text(bytes),
                other => panic!("{other:?}"),
            });
            fields.collect()
        };
        let mut rows: Vec<Row> = found.into_iter().map(row).collect();
        rows.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        rows
    }

    pub async fn checkpoint(&self) -> Position {
        self.target.state().checkpoint().await.unwrap().unwrap().position
    }

    pub async fn load(&self, table: &Arc<TableSchema>, mode: LoadMode, rows: &[Row]) -> Result<Loaded, Error> {
        let bytes: Vec<u8> = rows.iter().flat_map(|row| row.as_bytes().to_vec()).collect();
        let chunk = CopyChunk { bytes: Bytes::from(bytes), rows: rows.len() as u64 };
        self.load_stream(table, mode, Box::pin(futures::stream::iter([Ok(chunk)]))).await
    }

    pub async fn load_stream(
        &self,
        table: &Arc<TableSchema>,
        mode: LoadMode,
        stream: CopyStream,
    ) -> Result<Loaded, Error> {
        let columns: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
        let (name, place) = (&table.name, at(0x180));
        self.target.load(&self.lease, name, table, &columns, CopyFormat::Rows, mode, &place, stream).await
    }

    /// The tables are the migration's.
    pub async fn known(&self, tables: &[&Arc<TableSchema>]) {
        let new: Vec<NewTable> = tables
            .iter()
            .map(|table| {
                let (source, target) = (table.name.clone(), table.name.clone());
                NewTable { source, target, rows: 2, bytes: 100, rule: String::new() }
            })
            .collect();
        self.target.state().add_tables(&self.lease, &new).await.unwrap();
    }
}

pub async fn take_lease(target: &MyTarget, holder: &str) -> Lease {
    // The holder of before is "dead": tests do not wait for its lease to end.
    match target.state().take_lease(holder, Duration::from_secs(600), |_| true).await.unwrap() {
        LeaseOutcome::Taken(lease) => lease,
        LeaseOutcome::Held(holder) => panic!("held by {holder}"),
    }
}

pub fn begin(end: u64) -> ChangeEvent {
    ChangeEvent::Begin(Begin { xid: 7, commit_start: Lsn(end - 0x10).into(), commit_time: Timestamp::UNIX_EPOCH })
}

pub fn commit(end: u64) -> ChangeEvent {
    ChangeEvent::Commit(Commit { end: at(end), commit_time: Timestamp::UNIX_EPOCH })
}

pub fn part(events: Vec<ChangeEvent>) -> Batch {
    Batch { events, end: BatchEnd::Open, tolerate_missing: false }
}

pub fn last_part(events: Vec<ChangeEvent>, end: u64) -> Batch {
    let end = BatchEnd::Commit { position: at(end), commit_time: Timestamp::UNIX_EPOCH };
    Batch { events, end, tolerate_missing: false }
}

/// A field: `None` is NULL, [`UNSENT`] a value that was not sent.
pub const UNSENT: Option<&str> = Some("\u{0}");

pub fn row(fields: &[Option<&str>]) -> Row {
    fields
        .iter()
        .map(|field| match field {
            None => Datum::Null,
            Some("\u{0}") => Datum::Unchanged,
            Some(value) => Datum::Text(value.as_bytes()),
        })
        .collect()
}

/// A row without NULLs.
pub fn values(fields: &[&str]) -> Row {
    row(&fields.iter().map(|field| Some(*field)).collect::<Vec<_>>())
}

pub fn insert(table: &Arc<TableSchema>, new: Row) -> ChangeEvent {
    change(table, Op::Insert, None, Some(new))
}

pub fn update(table: &Arc<TableSchema>, new: Row) -> ChangeEvent {
    change(table, Op::Update, None, Some(new))
}

pub fn rekey(table: &Arc<TableSchema>, old: Row, new: Row) -> ChangeEvent {
    change(table, Op::Update, Some(old), Some(new))
}

pub fn delete(table: &Arc<TableSchema>, old: Row) -> ChangeEvent {
    change(table, Op::Delete, Some(old), None)
}

pub fn truncate(table: &Arc<TableSchema>) -> ChangeEvent {
    let tables = vec![Arc::clone(table)];
    ChangeEvent::Truncate(Truncate { tables, restart_identity: false, conditions: vec![], elsewhere: vec![] })
}

fn change(table: &Arc<TableSchema>, op: Op, old: Option<Row>, new: Option<Row>) -> ChangeEvent {
    let old_is_key_only = table.key.is_some();
    ChangeEvent::Row(RowChange { table: Arc::clone(table), op, old, old_is_key_only, new })
}
