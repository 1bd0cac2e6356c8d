//! What a MySQL or MariaDB source promises, on real servers: every committed row comes once, from any position on, and what
//! cannot be followed ends the stream with its reason.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "source_mysql/check.rs"]
mod check;
#[path = "source_mysql/snapshot.rs"]
mod snapshot;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cutwater::change::{Budget, ChangeEvent, Datum, Op, Position, Row};
use cutwater::config::Url;
use cutwater::error::{Error, Kind};
use cutwater::mysql::{Flavour, MyConnInfo};
use cutwater::schema::{Patterns, TableSchema};
use cutwater::source::mysql::{MySource, MyStream};
use cutwater::source::{ChangeStream, Source, StreamItem};
use rand::Rng;
use support::mysql::DATABASE;
use support::{LocalMySql, MyOptions, my_server, rng, within};

const PATIENCE: Duration = Duration::from_secs(120);
const BOTH: [Flavour; 2] = [Flavour::MySql, Flavour::MariaDb];

fn source(server: &LocalMySql, name: &str) -> MySource {
    MySource::new(MyConnInfo::parse(&Url::new(server.url(DATABASE))).unwrap(), name)
}

async fn tables(source: &MySource) -> Vec<Arc<TableSchema>> {
    source.tables(&Patterns::default()).await.unwrap()
}

async fn stream(source: &MySource, from: &Position, tables: &[Arc<TableSchema>]) -> Result<MyStream, Error> {
    // As it comes from the target's state.
    let from: Position = from.to_string().parse().unwrap();
    source.stream(&from, tables, &Budget::new(16 << 20)).await
}

/// What a target would hold: rows by key.
type Rows = BTreeMap<(String, i64), Vec<Option<String>>>;

/// A target that checks what it is given.
#[derive(Clone, Default)]
struct Target {
    rows: Rows,
    at: Option<Position>,
    in_transaction: bool,
}

fn fields(row: &Row) -> Vec<Option<String>> {
    let text = |datum: Datum<'_>| match datum {
        Datum::Null => None,
        Datum::Text(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
        Datum::Binary(bytes) => Some(format!("{bytes:02x?}")),
        Datum::Unchanged => panic!("a value is missing in {row:?}"),
    };
    row.fields().map(text).collect()
}

fn id(row: &Row) -> i64 {
    std::str::from_utf8(row.get(0).unwrap().bytes().unwrap()).unwrap().parse().unwrap()
}

impl Target {
    fn apply(&mut self, event: ChangeEvent) {
        match event {
            ChangeEvent::Begin(begin) => {
                assert!(!std::mem::replace(&mut self.in_transaction, true), "a transaction in a transaction");
                assert!(self.at.as_ref().is_none_or(|at| !begin.is_in(at)), "{:?} came twice", begin.commit_start);
            }
            ChangeEvent::Row(change) => {
                assert!(self.in_transaction);
                let table = change.table.name.table.clone();
                let new = change.new.as_ref();
                if let Some(old) = change.old.as_ref().or(new).filter(|_| change.op != Op::Insert) {
                    let old = self.rows.remove(&(table.clone(), id(old)));
                    let new = new.map(|new| {
                        let kept = old.clone().into_iter().flatten();
                        let kept = kept.chain(std::iter::repeat(None));
                        let datum = |(new, old): (Datum<'_>, Option<String>)| match new {
                            Datum::Unchanged => old,
                            new => fields(&[new].into_iter().collect()).remove(0),
                        };
                        (id(new), new.fields().zip(kept).map(datum).collect())
                    });
                    assert!(old.is_some(), "a change of a row that is not there: {change:?}");
                    if let Some((id, new)) = new {
                        assert!(self.rows.insert((table, id), new).is_none());
                    }
                } else if let Some(new) = new {
                    assert!(self.rows.insert((table, id(new)), fields(new)).is_none(), "twice: {change:?}");
                }
            }
            ChangeEvent::Truncate(truncate) => {
                for table in truncate.tables {
                    self.rows.retain(|(name, _), _| *name != table.name.table);
                }
            }
            ChangeEvent::Commit(commit) => {
                assert!(std::mem::replace(&mut self.in_transaction, false));
                assert!(self.at.as_ref().is_none_or(|at| commit.end > *at), "{:?} then {}", self.at, commit.end);
                self.at = Some(commit.end);
            }
            other => panic!("{other:?}"),
        }
    }

    /// Applies until the position includes `goal`; what it was after every transaction.
    async fn until(&mut self, stream: &mut MyStream, goal: &Position) -> Vec<Target> {
        let mut states = Vec::new();
        let work = async {
            while self.at.as_ref().is_none_or(|at| !at.reaches(goal)) {
                match stream.next().await.unwrap() {
                    StreamItem::Idle(position) => {
                        assert!(!self.in_transaction);
                        self.at = Some(position);
                    }
                    StreamItem::Events(chunk) => {
                        for event in chunk.events {
                            let ends = matches!(event, ChangeEvent::Commit(_));
                            self.apply(event);
                            if ends {
                                states.push(self.clone());
                            }
                        }
                    }
                }
            }
        };
        within(&format!("the position {goal}"), PATIENCE, work).await;
        states
    }
}

/// The error that ends the stream.
async fn failure(stream: &mut MyStream) -> Error {
    let wait = async {
        loop {
            if let Err(error) = stream.next().await {
                return error;
            }
        }
    };
    within("the end of the stream", PATIENCE, wait).await
}

const SCHEMA: &str = "CREATE TABLE account (
        id bigint PRIMARY KEY, balance int UNSIGNED NOT NULL, note varchar(200) CHARACTER SET latin1,
        doubled bigint AS (balance * 2) STORED, data varbinary(20), changed timestamp(3) NULL, doc text)
    ENGINE = InnoDB;
    CREATE TABLE other (id int PRIMARY KEY) ENGINE = InnoDB";

/// The rows as the server itself prints them.
async fn rows_of(server: &LocalMySql) -> Rows {
    let mut session = server.connect(DATABASE).await;
    let sql = "SELECT id, balance, note, hex(data), changed, doc FROM account";
    let rows = session.rows(sql).await.unwrap().into_iter().map(|mut row| {
        let bytes = row[3].take().map(|hex| {
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            hex.as_bytes().chunks(2).map(byte).collect::<Vec<u8>>()
        });
        row[3] = bytes.map(|bytes| format!("{bytes:02x?}"));
        (("account".to_owned(), row[0].as_ref().unwrap().parse().unwrap()), row)
    });
    rows.collect()
}

/// Transactions of several sessions: transfers, new and deleted accounts, changed keys, rolled back work.
async fn write(server: &LocalMySql, writers: usize, transactions: usize) {
    let write = |writer: usize| {
        let url = server.url(DATABASE);
        async move {
            let mut random = rng();
            let mut session = support::mysql::connect(&url).await.unwrap();
            for step in 0..transactions {
                let base = (writer * 1_000_000) as i64;
                let (a, b) = (base + random.random_range(0..20), base + random.random_range(0..20));
                let end = if random.random_bool(0.1) { "ROLLBACK" } else { "COMMIT" };
                let change = match random.random_range(0..6) {
                    0 => format!("DELETE FROM account WHERE id = {a}"),
                    1 => format!("UPDATE IGNORE account SET id = {b} WHERE id = {a}"),
                    2 => format!("UPDATE account SET note = NULL, data = x'00ff{step:04x}' WHERE id IN ({a}, {b})"),
                    3 => format!("INSERT IGNORE INTO other VALUES ({a})"),
                    4 => format!("UPDATE account SET doc = repeat('long ', {step}) WHERE id = {a}"),
                    _ => format!("UPDATE account SET balance = balance + {step} WHERE id BETWEEN {a} AND {b}"),
                };
                let sql = format!(
                    "BEGIN; INSERT IGNORE INTO account (id, balance, note, data, changed) \
                     VALUES ({a}, {step}, 'Zoë €', x'0001', '2024-02-29 12:00:00.5'); {change}; {end}"
                );
                if let Err(error) = session.execute(sql).await {
                    assert_eq!(error.kind(), Kind::Transient, "only a dead-lock's victim may fail: {error}");
                    session.execute("ROLLBACK").await.unwrap();
                }
            }
        }
    };
    futures::future::join_all((0..writers).map(write)).await;
}

/// Every row once, in commit order, and from each of many positions on the same.
async fn follows_exactly(flavour: Flavour, options: MyOptions, by_gtid: bool) {
    let Some(server) = my_server(flavour, options, "follows_exactly").await else { return };
    server.execute(DATABASE, SCHEMA).await;
    let source = source(&server, "exact");
    let tables = tables(&source).await;
    assert_eq!(tables.iter().map(|table| table.name.table.as_str()).collect::<Vec<_>>(), ["account", "other"]);
    let accounts = &tables[..1];
    let from = source.head().await.unwrap().position;
    match &from {
        Position::MySql(at) => assert_eq!((flavour, at.executed.is_some()), (Flavour::MySql, by_gtid)),
        Position::MariaDb(at) => assert_eq!((flavour, at.executed.is_some()), (Flavour::MariaDb, by_gtid)),
        Position::Postgres(_) => panic!("{from}"),
    }
    // Some while it is read, some before.
    write(&server, 3, 30).await;
    server.execute("", "FLUSH BINARY LOGS").await;
    let mut read = stream(&source, &from, accounts).await.unwrap();
    write(&server, 3, 60).await;
    let head = source.head().await.unwrap();
    let mut target = Target { at: Some(from.clone()), ..Target::default() };
    let states = target.until(&mut read, &head.position).await;
    read.close().await.unwrap();
    assert_eq!(target.rows, rows_of(&server).await);
    assert!(!target.rows.is_empty() && states.len() > 100, "{} transactions", states.len());
    assert!(head.position.bytes_since(&from, &head.files).unwrap() > 10_000);

    for state in states.iter().step_by(states.len() / 7) {
        let mut again = state.clone();
        let mut read = stream(&source, state.at.as_ref().unwrap(), accounts).await.unwrap();
        again.until(&mut read, &head.position).await;
        assert_eq!(again.rows, target.rows, "from {:?}", state.at);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mysql_source_is_followed_exactly_by_gtid() {
    follows_exactly(Flavour::MySql, MyOptions::new(), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mysql_source_is_followed_exactly_by_file_and_offset_with_compressed_minimal_rows() {
    let options = MyOptions::new().without_gtids(Flavour::MySql).compressed(Flavour::MySql).row_image("MINIMAL");
    follows_exactly(Flavour::MySql, options, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mariadb_source_is_followed_exactly_by_gtid() {
    follows_exactly(Flavour::MariaDb, MyOptions::new().setting("gtid-strict-mode", "ON"), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mariadb_source_is_followed_exactly_by_file_and_offset_with_minimal_rows_and_no_names() {
    let options = MyOptions::new().without_gtids(Flavour::MariaDb).row_image("MINIMAL").no_names();
    follows_exactly(Flavour::MariaDb, options, false).await;
}

/// A server with the tables, and a stream of them from its head on.
async fn begun(flavour: Flavour, test: &str) -> Option<(LocalMySql, MySource, Vec<Arc<TableSchema>>, Position)> {
    let server = my_server(flavour, MyOptions::new().setting("gtid-strict-mode", "ON").of(flavour), test).await?;
    server.execute(DATABASE, SCHEMA).await;
    let source = source(&server, "shop");
    let tables = tables(&source).await[..1].to_vec();
    let from = source.head().await.unwrap().position;
    Some((server, source, tables, from))
}

trait Of {
    fn of(self, flavour: Flavour) -> Self;
}

impl Of for MyOptions {
    /// Without what this flavour does not know.
    fn of(self, flavour: Flavour) -> Self {
        if flavour == Flavour::MySql { MyOptions::new() } else { self }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_followed_ends_the_stream_with_its_reason() {
    for flavour in BOTH {
        let Some((server, source, tables, mut from)) = begun(flavour, "what_cannot_be_followed").await else {
            continue;
        };
        let statement = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ; SET binlog_format = STATEMENT; \
             INSERT INTO account (id, balance) VALUES (1, 4711)";
        let xa =
            "XA START 'x'; INSERT INTO account (id, balance) VALUES (7, 1); XA END 'x'; XA PREPARE 'x'; XA COMMIT 'x'";
        for (sql, kind, says) in [
            (statement, Kind::ServerSetting, "INSERT INTO account"),
            (xa, Kind::Refused, "XA"),
            ("ALTER TABLE shop.account ADD surplus int", Kind::Schema, "ALTER TABLE"),
        ] {
            let mut read = stream(&source, &from, &tables).await.unwrap();
            server.execute(DATABASE, "INSERT INTO account (id, balance) VALUES (9, 1)").await;
            let before = source.head().await.unwrap().position;
            let mut target = Target { at: Some(from.clone()), ..Target::default() };
            target.until(&mut read, &before).await;
            server.execute(DATABASE, sql).await;
            let error = failure(&mut read).await;
            assert_eq!(error.kind(), kind, "{flavour}: {error}");
            assert!(error.message().contains(says) && !error.message().contains("4711"), "{flavour}: {error}");
            assert!(error.suggestion().is_some());
            // And again, from where it stood: it is never passed over.
            let mut read = match stream(&source, &before, &tables).await {
                Ok(read) => read,
                Err(error) => {
                    assert_eq!((error.kind(), kind), (Kind::Schema, Kind::Schema), "{flavour}: {error}");
                    continue;
                }
            };
            assert_eq!(failure(&mut read).await.kind(), kind);
            server.execute(DATABASE, "DELETE FROM account").await;
            from = source.head().await.unwrap().position;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_elsewhere_and_a_truncate_are_followed() {
    for flavour in BOTH {
        let Some((server, source, tables, from)) = begun(flavour, "ddl_elsewhere").await else { continue };
        let mut read = stream(&source, &from, &tables).await.unwrap();
        server
            .execute(
                DATABASE,
                "INSERT INTO account (id, balance) VALUES (1, 1); CREATE TABLE log SELECT * FROM account; \
                 ALTER TABLE log ADD x int; CREATE VIEW v AS SELECT * FROM account; DROP TABLE log; \
                 TRUNCATE TABLE account; CREATE TEMPORARY TABLE account (a int); DROP TEMPORARY TABLE account; \
                 INSERT INTO account (id, balance) VALUES (2, 2); ANALYZE TABLE account",
            )
            .await;
        let head = source.head().await.unwrap().position;
        let mut target = Target { at: Some(from), ..Target::default() };
        target.until(&mut read, &head).await;
        assert_eq!(target.rows, rows_of(&server).await, "{flavour}");
        assert_eq!(target.rows.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_purged_is_refused_and_says_what_is_missing() {
    for flavour in BOTH {
        let Some((server, source, tables, from)) = begun(flavour, "a_log_that_was_purged").await else { continue };
        server.execute(DATABASE, "INSERT INTO account (id, balance) VALUES (1, 1); FLUSH BINARY LOGS").await;
        let kept = source.head().await.unwrap().position;
        let mut session = server.connect(DATABASE).await;
        let last = session.rows("SHOW BINARY LOGS").await.unwrap().pop().unwrap()[0].clone().unwrap();
        let purge = async {
            // MariaDB keeps a file that crash recovery might need for a moment longer.
            while !source.oldest().await.unwrap().reaches(&kept) {
                session.execute(format!("PURGE BINARY LOGS TO '{last}'")).await.unwrap();
            }
        };
        within("the purge", PATIENCE, purge).await;
        let Err(error) = stream(&source, &from, &tables).await else { panic!("{flavour}: a silent gap") };
        assert_eq!(error.kind(), Kind::SlotLost, "{flavour}: {error}");
        stream(&source, &kept, &tables).await.unwrap().close().await.unwrap();
        // What the server never executed: it was restored to an older state.
        let future = match &kept {
            Position::MySql(at) => format!("mysql:{}/{}:1-999999", at.at, session_uuid(&source).await),
            other => other.to_string().rsplit_once('-').unwrap().0.to_owned() + "-999999",
        };
        let Err(error) = stream(&source, &future.parse().unwrap(), &tables).await else { panic!("{future}") };
        assert_eq!(error.kind(), Kind::SlotLost, "{flavour}: {error}");
    }
}

async fn session_uuid(source: &MySource) -> String {
    source.identity().await.unwrap().system_id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_reader_ends_the_first_and_another_migration_reads_beside_it() {
    for flavour in BOTH {
        let Some((mut server, one, tables, from)) = begun(flavour, "a_second_reader").await else { continue };
        let two = source(&server, "other");
        let mut first = stream(&one, &from, &tables).await.unwrap();
        let mut beside = stream(&two, &from, &tables).await.unwrap();
        let mut second = stream(&one, &from, &tables).await.unwrap();
        server.execute(DATABASE, "INSERT INTO account (id, balance) VALUES (1, 1)").await;
        let head = one.head().await.unwrap().position;
        for read in [&mut beside, &mut second] {
            let mut target = Target { at: Some(from.clone()), ..Target::default() };
            target.until(read, &head).await;
            assert_eq!(target.rows.len(), 1);
        }
        let error = failure(&mut first).await;
        assert!(matches!(error.kind(), Kind::SlotInUse | Kind::Connection), "{flavour}: {error}");

        // Over a restart it can be tried again, and goes on.
        tokio::task::block_in_place(|| server.stop());
        let error = failure(&mut second).await;
        assert_eq!(error.kind(), Kind::Connection, "{flavour}: {error}");
        tokio::task::block_in_place(|| server.start_again());
        server.execute(DATABASE, "INSERT INTO account (id, balance) VALUES (2, 2)").await;
        let mut again = stream(&one, &head, &tables).await.unwrap();
        let end = one.head().await.unwrap().position;
        let mut target = Target { at: Some(head), ..Target::default() };
        target.until(&mut again, &end).await;
        assert_eq!(target.rows.keys().map(|(_, id)| *id).collect::<Vec<_>>(), [2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_with_tags_are_followed_from_any_position() {
    let Some((server, source, tables, from)) = begun(Flavour::MySql, "transactions_with_tags").await else { return };
    server
        .execute(
            DATABASE,
            "SET gtid_next = 'AUTOMATIC:blue'; INSERT INTO account (id, balance) VALUES (1, 1); \
             INSERT INTO account (id, balance) VALUES (2, 1); SET gtid_next = 'AUTOMATIC'; \
             INSERT INTO account (id, balance) VALUES (3, 1)",
        )
        .await;
    let head = source.head().await.unwrap().position;
    assert!(head.to_string().contains(":blue:1-2"), "{head}");
    let mut read = stream(&source, &from, &tables).await.unwrap();
    let mut target = Target { at: Some(from), ..Target::default() };
    let states = target.until(&mut read, &head).await;
    assert_eq!(target.rows.len(), 3);
    // A position with a tag cannot be asked for: the file is found, and what is there already is passed over.
    let mut again = states[0].clone();
    let mut read = stream(&source, states[0].at.as_ref().unwrap(), &tables).await.unwrap();
    again.until(&mut read, &head).await;
    assert_eq!(again.rows, target.rows);
}
