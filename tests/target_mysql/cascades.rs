//! Foreign keys whose actions are not in the stream, and random histories: a database with its foreign keys switched on is
//! the oracle, and the stream has what such a source logs.

use std::sync::Arc;

use cutwater::change::{ChangeEvent, Datum, Op, Row, RowChange};
use cutwater::config::ApplyConfig;
use cutwater::error::Kind;
use cutwater::mysql::Session;
use cutwater::schema::TableSchema;
use cutwater::target::{Applier, Target};
use mysql_async::Value;
use mysql_async::prelude::Queryable;
use rand::Rng;
use rand::rngs::StdRng;

use super::fixture::*;
use crate::support::rng;

const DDL: &str = "CREATE TABLE parents (id int PRIMARY KEY, code varchar(20) UNIQUE, seat int UNIQUE);
    CREATE TABLE children (id int PRIMARY KEY, parent int, code varchar(20), note varchar(20),
        FOREIGN KEY (parent) REFERENCES parents (id) ON DELETE CASCADE ON UPDATE CASCADE,
        FOREIGN KEY (code) REFERENCES parents (code) ON DELETE SET NULL ON UPDATE CASCADE);
    CREATE TABLE rooms (parent int, n int, note varchar(20), PRIMARY KEY (parent, n),
        FOREIGN KEY (parent) REFERENCES parents (id) ON DELETE CASCADE ON UPDATE CASCADE);
    CREATE TABLE guests (id int PRIMARY KEY, parent int, n int,
        FOREIGN KEY (parent, n) REFERENCES rooms (parent, n) ON DELETE SET NULL ON UPDATE CASCADE);
    CREATE TABLE beds (id int, parent int, n int,
        FOREIGN KEY (parent, n) REFERENCES rooms (parent, n) ON DELETE CASCADE ON UPDATE SET NULL);
    CREATE TABLE tree (id int PRIMARY KEY, up int, FOREIGN KEY (up) REFERENCES tree (id) ON DELETE CASCADE);
    CREATE TABLE log (a int, v varchar(20))";
const TABLES: [&str; 7] = ["parents", "children", "rooms", "guests", "beds", "tree", "log"];

/// A database beside that is the source, and its tables as the target knows them.
struct Oracle {
    session: Session,
    tables: Vec<Arc<TableSchema>>,
    /// Whether the log has what changed alone.
    minimal: bool,
}

impl Oracle {
    async fn of(f: &Fixture, minimal: bool) -> Oracle {
        let mut session = f.server.connect("").await;
        session.execute(format!("CREATE DATABASE {0}_s; USE {0}_s", f.database)).await.unwrap();
        for statement in DDL.split(";\n") {
            session.execute(statement).await.unwrap();
        }
        let mut tables = Vec::new();
        for name in TABLES {
            tables.push(f.table(name).await);
        }
        Oracle { session, tables, minimal }
    }

    fn table(&self, name: &str) -> Arc<TableSchema> {
        Arc::clone(self.tables.iter().find(|table| table.name.table == name).unwrap())
    }

    async fn row(&mut self, table: &str, condition: &str) -> Option<Row> {
        let sql = format!("SELECT * FROM {table} WHERE {condition} LIMIT 1");
        let found: Option<mysql_async::Row> = self.session.conn().query_first(sql).await.unwrap();
        let values = found?.unwrap();
        let datum = |value: &'_ Value| match value {
            Value::Bytes(bytes) => Some(bytes.clone()),
            _ => None,
        };
        let values: Vec<Option<Vec<u8>>> = values.iter().map(datum).collect();
        Some(values.iter().map(|value| value.as_deref().map_or(Datum::Null, Datum::Text)).collect())
    }

    /// Runs a statement about one row, found by a condition before and after; the change that the log has, if it was made.
    async fn run(&mut self, table: &str, before: &str, sql: &str, after: &str) -> Option<ChangeEvent> {
        let (is_insert, is_delete) = (sql.starts_with("INSERT"), sql.starts_with("DELETE"));
        let old = if is_insert { None } else { Some(self.row(table, before).await?) };
        if self.session.execute(sql).await.ok()? != 1 {
            return None;
        }
        let new = if is_delete { None } else { self.row(table, after).await };
        if old == new {
            return None;
        }
        let table = self.table(table);
        let op = match (is_insert, is_delete) {
            (true, _) => Op::Insert,
            (_, true) => Op::Delete,
            _ => Op::Update,
        };
        let key = table.key.as_ref().map(|key| key.columns.clone());
        let (mut old, mut new, mut old_is_key_only) = (old, new, false);
        if let (true, Some(key), Some(before)) = (self.minimal, key, old.clone()) {
            old_is_key_only = true;
            old = Some(
                before.fields().enumerate().map(|(n, d)| if key.contains(&n) { d } else { Datum::Null }).collect(),
            );
            let changed = |row: &Row| -> Row {
                let pairs = row.fields().zip(before.fields()).enumerate();
                // As in a binary log's images, where the key stands before the change and only what changed after it.
                pairs
                    .map(|(n, (new, old))| if new == old && !key.contains(&n) { Datum::Unchanged } else { new })
                    .collect()
            };
            new = new.as_ref().map(changed);
        }
        Some(ChangeEvent::Row(RowChange { table, op, old, old_is_key_only, new }))
    }

    /// A change at random.
    async fn step(&mut self, rng: &mut StdRng) -> Option<ChangeEvent> {
        let id = rng.random_range(1..7);
        let other = rng.random_range(1..7);
        let n = rng.random_range(1..3);
        let code = format!("'c{}'", rng.random_range(1..5));
        let by_id = format!("id = {id}");
        let room = format!("parent = {id} AND n = {n}");
        let like = format!("a = {n} AND v = {code}");
        let none = String::new;
        let (table, before, sql, after) = match rng.random_range(0..20) {
            0..3 => ("parents", none(), format!("INSERT INTO parents VALUES ({id}, {code}, {id})"), by_id),
            3 => ("parents", by_id.clone(), format!("DELETE FROM parents WHERE {by_id}"), none()),
            4 => {
                let sql = format!("UPDATE parents SET id = {other} WHERE {by_id}");
                ("parents", by_id, sql, format!("id = {other}"))
            }
            5 => ("parents", by_id.clone(), format!("UPDATE parents SET code = UPPER({code}) WHERE {by_id}"), by_id),
            6 => ("parents", by_id.clone(), format!("UPDATE parents SET seat = {other} WHERE {by_id}"), by_id),
            7..9 => {
                let sql =
                    format!("INSERT INTO children VALUES ({id}, {other}, (SELECT max(code) FROM parents), 'new')");
                ("children", none(), sql, by_id)
            }
            9 => {
                let sql = format!("UPDATE children SET parent = {other}, note = {id} WHERE {by_id}");
                ("children", by_id.clone(), sql, by_id)
            }
            10 => ("children", by_id.clone(), format!("DELETE FROM children WHERE {by_id}"), none()),
            11 => ("rooms", none(), format!("INSERT INTO rooms VALUES ({id}, {n}, {other})"), room),
            12 => ("rooms", room.clone(), format!("DELETE FROM rooms WHERE {room}"), none()),
            13 => {
                let sql = format!("UPDATE rooms SET n = n + 1 WHERE {room}");
                ("rooms", room, sql, format!("parent = {id} AND n = {n} + 1"))
            }
            14 => {
                let sql = format!("INSERT INTO guests SELECT {other}, parent, n FROM rooms LIMIT 1");
                ("guests", none(), sql, format!("id = {other}"))
            }
            15 => ("guests", by_id.clone(), format!("DELETE FROM guests WHERE {by_id}"), none()),
            16 => ("tree", none(), format!("INSERT INTO tree VALUES ({id}, NULLIF({other}, {id}))"), by_id),
            17 => ("tree", by_id.clone(), format!("DELETE FROM tree WHERE {by_id}"), none()),
            18 => ("log", none(), format!("INSERT INTO log VALUES ({n}, {code})"), like),
            _ => {
                let sql = format!("UPDATE log SET v = 'x' WHERE {like} LIMIT 1");
                ("log", like, sql, format!("a = {n} AND v = 'x'"))
            }
        };
        self.run(table, &before, &sql, &after).await
    }

    async fn assert_same(&mut self, f: &Fixture, when: &str) {
        for table in self.tables.clone() {
            let there = TableSchema {
                name: cutwater::schema::TableName::new(format!("{}_s", f.database), &table.name.table),
                ..TableSchema::clone(&table)
            };
            let (expected, found) = (f.canonical(&there).await, f.canonical(&table).await);
            assert_eq!(found, expected, "{} {when}", table.name);
        }
    }
}

/// Nothing in a batch may be put before or behind what a foreign key did between.
#[tokio::test]
async fn what_foreign_keys_do_at_a_source_that_does_not_log_it_is_done_here() {
    on_both_from("mariadb", DDL, async |f| {
        let mut oracle = Oracle::of(&f, false).await;
        let mut applier = f.applier().await;
        let mut batch = Vec::new();
        let steps = [
            ("parents", "", "INSERT INTO parents VALUES (1, 'a', 1)", "id = 1"),
            ("parents", "", "INSERT INTO parents VALUES (2, 'b', 2)", "id = 2"),
            ("parents", "", "INSERT INTO parents VALUES (3, 'c', 3)", "id = 3"),
            ("children", "", "INSERT INTO children VALUES (1, 1, 'b', 'stays')", "id = 1"),
            ("children", "", "INSERT INTO children VALUES (2, 2, 'a', 'goes')", "id = 2"),
            ("rooms", "", "INSERT INTO rooms VALUES (1, 1, 'r')", "parent = 1"),
            ("rooms", "", "INSERT INTO rooms VALUES (2, 1, 'r')", "parent = 2"),
            ("guests", "", "INSERT INTO guests VALUES (1, 1, 1)", "id = 1"),
            ("guests", "", "INSERT INTO guests VALUES (2, 2, 1)", "id = 2"),
            ("beds", "", "INSERT INTO beds VALUES (1, 1, 1)", "id = 1"),
            ("beds", "", "INSERT INTO beds VALUES (2, 2, 1)", "id = 2"),
            ("tree", "", "INSERT INTO tree VALUES (1, NULL)", "id = 1"),
            ("tree", "", "INSERT INTO tree VALUES (2, 1)", "id = 2"),
            ("tree", "", "INSERT INTO tree VALUES (3, 2)", "id = 3"),
            // -- two levels follow: a key to a key, and a delete to a NULL
            ("parents", "id = 1", "UPDATE parents SET id = 10, code = 'A' WHERE id = 1", "id = 10"),
            ("parents", "id = 2", "DELETE FROM parents WHERE id = 2", ""),
            ("tree", "id = 1", "DELETE FROM tree WHERE id = 1", ""),
            // -- and again under the same keys
            ("parents", "", "INSERT INTO parents VALUES (2, 'b', 2)", "id = 2"),
            ("children", "", "INSERT INTO children VALUES (2, 2, 'b', 'new')", "id = 2"),
            ("tree", "", "INSERT INTO tree VALUES (1, NULL)", "id = 1"),
            ("tree", "", "INSERT INTO tree VALUES (4, 1)", "id = 4"),
            ("children", "", "INSERT INTO children VALUES (5, 3, 'c', 'of three')", "id = 5"),
            ("parents", "id = 3", "DELETE FROM parents WHERE id = 3", ""),
        ];
        for (n, (table, before, sql, after)) in steps.into_iter().enumerate() {
            batch.push(oracle.run(table, before, sql, after).await.unwrap_or_else(|| panic!("{sql}")));
            if n == 13 {
                f.apply_as_sets(&mut applier, std::mem::take(&mut batch)).await;
            }
        }
        assert_eq!(f.target.state().begin_tracking().await.unwrap(), Some(1));
        let applied = f.apply(&mut applier, batch).await.unwrap();
        assert!(!applied.replayed);
        oracle.assert_same(&f, "after what follows").await;
        assert_eq!(f.rows("children").await, ["1,10,,stays", "2,2,b,new"]);
        assert_eq!(f.rows("guests").await, ["1,10,1", "2,,"]);
        assert_eq!(f.rows("beds").await, ["1,,"]);
        let kept = f.kept(1).await.join("\n");
        assert!(kept.contains("\"guests\": a foreign key acted on it"), "{kept}");
    })
    .await;
}

/// A source that logs the children's rows has said it all.
#[tokio::test]
async fn what_a_source_logs_itself_is_not_done_twice() {
    on_both_from("postgres", DDL, async |f| {
        let mut applier = f.applier().await;
        let (parents, children) = (f.table("parents").await, f.table("children").await);
        let (parent, child) = (values(&["1", "a", "1"]), values(&["1", "1", "a", "x"]));
        f.apply_as_sets(&mut applier, vec![insert(&parents, parent.clone()), insert(&children, child.clone())]).await;
        f.apply_as_sets(&mut applier, vec![delete(&parents, parent), delete(&children, child)]).await;
        assert!(f.rows("children").await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn tables_that_foreign_keys_tie_together_are_one_workers() {
    on_both_from("mariadb", DDL, async |f| {
        f.known(&[&f.table("parents").await, &f.table("children").await]).await;
        let config = ApplyConfig { workers: 2, ..ApplyConfig::default() };
        f.target.applier(&f.lease, &config).await.unwrap();
        let sql = format!(
            "UPDATE cutwater.table_state SET worker = 1 WHERE migration = '{}' AND source_table = 'children'",
            f.database
        );
        f.execute(&sql).await;
        let error = f.target.applier(&f.lease, &config).await.err().unwrap();
        assert_eq!(error.kind(), Kind::Config, "{error}");
        assert!(error.suggestion().unwrap().contains("workers = 1"), "{error}");
    })
    .await;
}

/// Key changes, columns that were not sent, tables without a key, foreign keys: in batches of any size it comes to what
/// the source has.
#[tokio::test]
async fn random_histories_come_to_what_the_source_has() {
    on_both_from("mariadb", DDL, async |f| {
        let mut rng = rng();
        let mut oracle = Oracle::of(&f, false).await;
        let mut applier = f.applier().await;
        let (mut changes, mut replays) = (0, 0);
        for round in 0..40 {
            oracle.minimal = rng.random();
            let size = rng.random_range(1..30);
            let mut transactions = vec![Vec::new()];
            for _ in 0..size {
                if rng.random_range(0..4) == 0 {
                    transactions.push(Vec::new());
                }
                transactions.last_mut().unwrap().extend(oracle.step(&mut rng).await);
            }
            changes += transactions.iter().map(Vec::len).sum::<usize>();
            let applied = applier.apply(f.batch(transactions)).await.unwrap_or_else(|e| panic!("round {round}: {e}"));
            replays += usize::from(applied.replayed);
            oracle.assert_same(&f, &format!("after round {round}")).await;
        }
        assert!(changes > 150, "only {changes} changes");
        assert!(replays < 20, "{replays} of 40 batches had to be replayed");
    })
    .await;
}
