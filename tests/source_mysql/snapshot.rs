//! The existing rows: exactly those of the snapshot's position, whatever is written meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use cutwater::change::Chunk;
use cutwater::config::Config;
use cutwater::source::mysql::MySnapshot;
use cutwater::source::{CopyFormat, Part, Snapshot, Source};
use futures::StreamExt;

use super::*;

/// The rows of a part.
async fn rows_of_part(snapshot: &MySnapshot, part: &Part) -> Result<Vec<Row>, Error> {
    let columns: Vec<usize> = (0..part.table.columns.len()).collect();
    let mut chunks = snapshot.copy(part, &columns, CopyFormat::Rows).await?;
    let mut rows = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let mut chunk = chunk?;
        let before = rows.len();
        while !chunk.bytes.is_empty() {
            rows.push(Row::split_from(&mut chunk.bytes).expect("whole rows"));
        }
        assert_eq!((rows.len() - before) as u64, chunk.rows);
    }
    Ok(rows)
}

/// The rows of a table, which is read in parts of about so many rows.
async fn rows(snapshot: &MySnapshot, table: &Arc<TableSchema>, chunk_rows: u64) -> Vec<Row> {
    let parts = snapshot.parts(table, chunk_rows).await.unwrap_or_else(|error| panic!("{error}"));
    let parts = parts.iter().map(|part| rows_of_part(snapshot, part));
    let read: Vec<_> = futures::future::join_all(parts).await;
    read.into_iter().flat_map(|rows| rows.unwrap_or_else(|error| panic!("{error}"))).collect()
}

fn named<'a>(tables: &'a [Arc<TableSchema>], name: &str) -> &'a Arc<TableSchema> {
    tables.iter().find(|table| table.name.table == name).unwrap()
}

/// A table as if the server knew how large it is: right after it was filled it often does not.
fn of_rows(tables: &[Arc<TableSchema>], name: &str, rows: u64) -> Arc<TableSchema> {
    Arc::new(TableSchema { estimated_rows: rows, ..(**named(tables, name)).clone() })
}

/// Transfers between accounts of two tables until it is told to stop; the sum never changes.
async fn transfer(url: String, from: &str, to: &str, stop: &AtomicBool) {
    let mut session = support::mysql::connect(&url).await.unwrap();
    let mut step = 0;
    while !stop.load(Ordering::Relaxed) {
        step = (step + 7) % 50;
        let sql = format!(
            "BEGIN; UPDATE {from} SET balance = balance - 1 WHERE id = {step}; \
             UPDATE {to} SET balance = balance + 1 WHERE id = {step}; COMMIT"
        );
        if session.execute(sql).await.is_err() {
            session.execute("ROLLBACK").await.unwrap();
        }
    }
}

const BANK: &str = "CREATE TABLE a (id int PRIMARY KEY, balance bigint NOT NULL) ENGINE = InnoDB; \
     CREATE TABLE b (id int PRIMARY KEY, balance bigint NOT NULL) ENGINE = InnoDB; \
     INSERT INTO a VALUES (0, 1000), (7, 1000), (14, 1000), (21, 1000), (28, 1000), (35, 1000), (42, 1000), (49, 1000); \
     INSERT INTO b SELECT * FROM a";

fn sum(rows: &[Row]) -> i64 {
    let balance =
        |row: &Row| std::str::from_utf8(row.get(1).unwrap().bytes().unwrap()).unwrap().parse::<i64>().unwrap();
    rows.iter().map(balance).sum()
}

/// While others write, a snapshot is of its position exactly: with the changes from there on it is the source.
async fn snapshots_are_exact(flavour: Flavour, options: MyOptions) {
    let Some(server) = my_server(flavour, options, "snapshots_are_exact").await else { return };
    server.execute(DATABASE, BANK).await;
    let source = source(&server, "bank");
    let tables = tables(&source).await;
    let stop = AtomicBool::new(false);
    let url = server.url(DATABASE);
    let writers =
        [("a", "b"), ("b", "a"), ("a", "b"), ("b", "a")].map(|(from, to)| transfer(url.clone(), from, to, &stop));
    let work = async {
        let mut copies = Vec::new();
        for try_number in 0..8 {
            let snapshot = match try_number {
                0 => source.create_slot().await,
                _ => source.temporary_snapshot().await,
            };
            let snapshot = snapshot.unwrap_or_else(|error| panic!("{flavour}: {error}"));
            // Some of it is read when much has happened since.
            let a = rows(&snapshot, named(&tables, "a"), 1000).await;
            tokio::time::sleep(Duration::from_millis(30)).await;
            let b = rows(&snapshot, named(&tables, "b"), 1000).await;
            assert_eq!(
                sum(&a) + sum(&b),
                16_000,
                "{flavour}: half a transfer is in the snapshot at {}",
                snapshot.position()
            );
            copies.push((snapshot.position().clone(), a, b));
        }
        stop.store(true, Ordering::Relaxed);
        copies
    };
    let (copies, _) =
        within("the snapshots", PATIENCE, Box::pin(async { tokio::join!(work, futures::future::join_all(writers)) }))
            .await;
    let head = source.head().await.unwrap().position;
    let mut now = server.connect(DATABASE).await;
    for (position, a, b) in copies {
        let mut target = Target { at: Some(position.clone()), ..Target::default() };
        for (name, rows) in [("a", a), ("b", b)] {
            target.rows.extend(rows.iter().map(|row| ((name.to_owned(), id(row)), fields(row))));
        }
        let mut read = stream(&source, &position, &tables).await.unwrap();
        target.until(&mut read, &head).await;
        for ((table, id), row) in &target.rows {
            let sql = format!("SELECT balance FROM {table} WHERE id = {id}");
            assert_eq!(now.value(sql).await.unwrap(), row[1], "{flavour}: {table} {id} from {position}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_mysql_and_the_stream_from_its_position_are_the_source() {
    Box::pin(snapshots_are_exact(Flavour::MySql, MyOptions::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_mysql_without_gtids_is_exact_too() {
    Box::pin(snapshots_are_exact(Flavour::MySql, MyOptions::new().without_gtids(Flavour::MySql))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_mariadb_and_the_stream_from_its_position_are_the_source() {
    Box::pin(snapshots_are_exact(Flavour::MariaDb, MyOptions::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_mariadb_by_file_and_offset_is_exact_too() {
    Box::pin(snapshots_are_exact(Flavour::MariaDb, MyOptions::new().without_gtids(Flavour::MariaDb))).await;
}

const KEYS: [(&str, &str, &str); 11] = [
    ("signed", "k bigint PRIMARY KEY", "(n - 300) * 1000003"),
    ("apart", "k bigint PRIMARY KEY", "IF(n < 300, n, 9223372036854775807 - n)"),
    ("huge", "k bigint unsigned PRIMARY KEY", "18446744073709551615 - n"),
    ("padded", "k int(12) unsigned zerofill PRIMARY KEY", "n"),
    ("pair", "k int, l varchar(20) NOT NULL, PRIMARY KEY (l, k)", "n, CONCAT('group', n % 5)"),
    (
        "several",
        "k date, l int, m decimal(10,3), PRIMARY KEY (k, l, m)",
        "'2024-01-01' + INTERVAL n DIV 100 DAY, n % 7, n / 8",
    ),
    (
        "folded",
        "k varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY",
        "CONCAT(ELT(n % 4 + 1, 'Ab', 'aB', 'Ä', 'zß'), CHAR(97 + n % 26 USING utf8mb4), n)",
    ),
    ("latin", "k varchar(20) CHARACTER SET latin1 PRIMARY KEY", "CONCAT(ELT(n % 3 + 1, 'é', 'E', ''), n)"),
    ("bytes", "k varbinary(20) PRIMARY KEY", "UNHEX(LEFT(SHA2(n, 256), 32))"),
    ("moment", "k timestamp(3) NOT NULL PRIMARY KEY", "'2024-03-31 00:30:00' + INTERVAL n * 12345 MICROSECOND"),
    ("labelled", "k int, l enum('z','a','m') NOT NULL, PRIMARY KEY (l, k)", "n, ELT(n % 3 + 1, 'z', 'a', 'm')"),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_a_table_are_its_rows_exactly_once_whatever_its_key_is() {
    for flavour in BOTH {
        let Some(server) = my_server(flavour, MyOptions::new(), "the_parts_of_a_table").await else { continue };
        let mut sql = String::from("CREATE TABLE n (n int PRIMARY KEY) ENGINE = InnoDB; ");
        let numbers: Vec<String> = (0..600).map(|n| format!("({n})")).collect();
        sql += &format!("INSERT INTO n VALUES {}; ", numbers.join(", "));
        for (table, key, value) in KEYS {
            sql += &format!("CREATE TABLE {table} (v int, {key}) ENGINE = InnoDB; ");
            let names = key.split(", ").take_while(|part| !part.starts_with("PRIMARY")).map(|part| &part[..1]);
            sql += &format!(
                "INSERT INTO {table} ({}, v) SELECT {value}, n FROM n; ",
                names.collect::<Vec<_>>().join(", ")
            );
        }
        sql += "CREATE TABLE keyless (v int) ENGINE = InnoDB; INSERT INTO keyless SELECT n % 3 FROM n; \
             ANALYZE TABLE signed, apart, huge";
        server.execute(DATABASE, &sql).await;
        let source = source(&server, "parts");
        let tables = tables(&source).await;
        let snapshot = source.snapshot_of_now().await.unwrap();
        for (table, ..) in KEYS {
            let table = of_rows(&tables, table, 600);
            let parts = snapshot.parts(&table, 50).await.unwrap();
            let expected = if table.name.table == "labelled" { 1..2 } else { 6..60 };
            assert!(expected.contains(&parts.len()), "{flavour}: {} in {} parts", table.name, parts.len());
            let at = table.columns.iter().position(|column| column.name == "v").unwrap();
            let read = rows(&snapshot, &table, 50).await;
            let mut seen: Vec<i64> = read
                .iter()
                .map(|row| std::str::from_utf8(row.get(at).unwrap().bytes().unwrap()).unwrap().parse().unwrap())
                .collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..600).collect::<Vec<_>>(), "{flavour}: {}", table.name);
            if table.name.table == "apart" {
                // Half of the keys lie at each end of what an integer can be: ranges of one width would be two parts.
                let mut largest = 0;
                for part in &parts {
                    largest = largest.max(rows_of_part(&snapshot, part).await.unwrap().len());
                }
                assert!(largest <= 200, "{flavour}: a part of {largest} rows");
            }
        }
        let keyless = of_rows(&tables, "keyless", 600);
        assert_eq!(snapshot.parts(&keyless, 50).await.unwrap().len(), 1);
        assert_eq!(rows(&snapshot, &keyless, 50).await.len(), 600);

        // Ranges that remember where they were read: only of keys that fit, and only where the log has whole rows.
        let (column, bounds) = snapshot.key_bounds(&of_rows(&tables, "signed", 600), 100).await.unwrap().unwrap();
        assert!(column == "k" && bounds.len() > 3, "{bounds:?}");
        let chunk = |number, lower, upper| Chunk { number, lower, upper, copied_at: None, rows: 0 };
        let (middle, table) = (bounds[1], named(&tables, "signed"));
        let mut counted = 0;
        for chunk in [chunk(0, None, Some(middle)), chunk(1, Some(middle), None)] {
            counted += rows_of_part(&snapshot, &snapshot.key_range(table, &column, &chunk)).await.unwrap().len();
        }
        assert_eq!(counted, 600);
        assert_eq!(snapshot.key_bounds(&of_rows(&tables, "huge", 600), 100).await.unwrap(), None);
        assert_eq!(snapshot.key_bounds(&of_rows(&tables, "bytes", 600), 100).await.unwrap(), None);
        server.execute("", "SET GLOBAL binlog_row_image = MINIMAL").await;
        assert_eq!(snapshot.key_bounds(&of_rows(&tables, "signed", 600), 100).await.unwrap(), None);
    }
}

/// Types, each with values that are hard to say twice in the same way.
fn matrix(flavour: Flavour) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut matrix = vec![
        ("tinyint(1)", vec!["1", "-128"]),
        ("int(10) unsigned zerofill", vec!["42", "4294967295"]),
        ("bigint unsigned", vec!["18446744073709551615"]),
        ("decimal(20,5)", vec!["-0.00001", "123456789012345.5"]),
        ("decimal(8,2) unsigned zerofill", vec!["1.5"]),
        ("float", vec!["1.1", "-0e0", "3.402823466e38", "1e-30", "16777217"]),
        ("float(7,3)", vec!["1.1"]),
        ("double", vec!["-0e0", "1.7976931348623157e308", "5e-324", "0.1", "1e15", "1e-5"]),
        ("double(10,2)", vec!["1.25"]),
        ("bit(1)", vec!["b'1'", "b'0'"]),
        ("bit(13)", vec!["b'1000000000001'", "5"]),
        ("bit(64)", vec!["18446744073709551615"]),
        ("year", vec!["0", "2024"]),
        ("date", vec!["'0000-00-00'", "'2024-02-00'", "'9999-12-31'"]),
        ("time", vec!["'-838:59:59'", "'00:00:00'"]),
        ("time(3)", vec!["'-00:00:00.5'", "'100:00:00.25'"]),
        ("datetime", vec!["'0000-00-00 00:00:00'", "'2024-02-29 23:59:59'"]),
        ("datetime(6)", vec!["'2024-02-29 23:59:59.000001'"]),
        ("timestamp NULL", vec!["'2024-03-31 01:30:00'", "'0000-00-00 00:00:00'"]),
        ("timestamp(2) NULL", vec!["'2024-03-31 01:30:00.5'"]),
        ("char(10)", vec!["'x  '", "'😀'"]),
        ("varchar(30)", vec!["' a\\0b\\n\\\\'", "''"]),
        ("varchar(30) CHARACTER SET latin1", vec!["'café €'"]),
        ("varchar(30) CHARACTER SET utf16", vec!["'a😀'"]),
        ("text CHARACTER SET cp1251", vec!["'Привет'"]),
        ("char(4) CHARACTER SET gbk", vec!["'你好'"]),
        ("longtext", vec!["REPEAT('é', 300000)"]),
        ("binary(4)", vec!["x'0100'", "x'20202020'"]),
        ("varbinary(9)", vec!["x'00ff00'", "''"]),
        ("longblob", vec!["REPEAT(x'ff00', 200000)"]),
        ("enum('a','b''c','é')", vec!["'b''c'", "'é'", "''"]),
        ("set('x','y,','z')", vec!["''"]),
        ("set('x','y','z')", vec!["'x,z'", "''"]),
        ("geometry", vec!["ST_GeomFromText('POINT(1 2)')", "ST_GeomFromText('LINESTRING(0 0,1 1)', 4326)"]),
        ("json", vec!["'{\"b\": [1, 2.50, null], \"a\": \"é\"}'"]),
    ];
    matrix.retain(|(ty, _)| !ty.contains("y,"));
    match flavour {
        Flavour::MySql => matrix.push(("vector(2)", vec!["STRING_TO_VECTOR('[1, 2.5]')"])),
        Flavour::MariaDb => {
            matrix.push(("uuid", vec!["'123e4567-e89b-12d3-a456-426655440000'"]));
            matrix.push(("inet6", vec!["'::ffff:192.0.2.1'", "'fe80::'"]));
            matrix.push(("varchar(2000) COMPRESSED", vec!["REPEAT('é', 2000)", "''"]));
        }
    }
    matrix
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_copied_and_one_that_is_streamed_are_the_same_bytes() {
    for flavour in BOTH {
        let Some(server) = my_server(flavour, MyOptions::new(), "a_row_that_is_copied").await else { continue };
        let matrix = matrix(flavour);
        let columns: Vec<String> = matrix.iter().enumerate().map(|(at, (ty, _))| format!("c{at} {ty}")).collect();
        let invisible =
            if flavour == Flavour::MySql { "unseen int INVISIBLE" } else { "unseen int INVISIBLE DEFAULT 3" };
        server
            .execute(
                DATABASE,
                &format!(
                    "CREATE TABLE everything (id int PRIMARY KEY, made int AS (id + 1) VIRTUAL, {}, {invisible}, \
                     kept int AS (id * 2) STORED) ENGINE = InnoDB CHARACTER SET utf8mb4",
                    columns.join(", ")
                ),
            )
            .await;
        let source = source(&server, "equal");
        let tables = tables(&source).await;
        let from = source.head().await.unwrap().position;
        let mut read = stream(&source, &from, &tables).await.unwrap();
        let most = matrix.iter().map(|(_, values)| values.len()).max().unwrap();
        let mut sql = String::from("SET sql_mode = 'ALLOW_INVALID_DATES'; ");
        for id in 0..=most {
            let values = matrix.iter().map(|(_, values)| match values.get(id) {
                Some(value) => (*value).to_owned(),
                None => "NULL".to_owned(),
            });
            let names: Vec<String> = (0..matrix.len()).map(|at| format!("c{at}")).collect();
            sql += &format!(
                "INSERT INTO everything (id, unseen, {}) VALUES ({id}, {id}, {}); ",
                names.join(", "),
                values.collect::<Vec<_>>().join(", ")
            );
        }
        server.execute(DATABASE, &sql).await;
        let head = source.head().await.unwrap().position;
        let mut streamed = Vec::new();
        let work = async {
            let mut at = from.clone();
            while !at.reaches(&head) {
                match read.next().await.unwrap() {
                    StreamItem::Idle(position) => at = position,
                    StreamItem::Events(chunk) => {
                        for event in chunk.events {
                            match event {
                                ChangeEvent::Row(change) => streamed.push(change.new.unwrap()),
                                ChangeEvent::Commit(commit) => at = commit.end,
                                _ => {}
                            }
                        }
                    }
                }
            }
        };
        within("the stream", PATIENCE, work).await;
        let snapshot = source.temporary_snapshot().await.unwrap();
        let copied = rows(&snapshot, &tables[0], 1_000_000).await;
        assert_eq!(copied.len(), most + 1);
        for (copied, streamed) in copied.iter().zip(&streamed) {
            let names = tables[0].columns.iter().map(|column| format!("{} {}", column.name, column.ty.display));
            for ((copied, streamed), name) in copied.fields().zip(streamed.fields()).zip(names) {
                assert_eq!(copied, streamed, "{flavour}: {name}");
            }
            assert_eq!(copied, streamed);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_snapshot_fixes_is_refused_by_name() {
    for flavour in BOTH {
        let Some(server) = my_server(flavour, MyOptions::new(), "what_no_snapshot_fixes").await else { continue };
        server.execute(DATABASE, BANK).await;
        server.execute(DATABASE, "CREATE TABLE loose (id int PRIMARY KEY) ENGINE = MyISAM").await;
        let source = source(&server, "refused");
        let tables = tables(&source).await;
        for error in [
            source.prepare(&tables).await.unwrap_err(),
            source.snapshot_of_now().await.unwrap().parts(named(&tables, "loose"), 10).await.unwrap_err(),
        ] {
            assert!(error.message().contains("shop.loose") && error.message().contains("MyISAM"), "{error}");
            assert!(error.suggestion().is_some_and(|fix| fix.contains("InnoDB")));
        }
        source.prepare(&tables[..2]).await.unwrap();

        server.execute(DATABASE, "XA START 'one'; UPDATE a SET balance = 0; XA END 'one'; XA PREPARE 'one'").await;
        let Err(error) = source.create_slot().await else { panic!("{flavour}: rows of nowhere") };
        assert_eq!(error.kind(), Kind::Refused, "{flavour}: {error}");
        assert!(error.message().contains("XA"), "{error}");
        server.execute(DATABASE, "XA ROLLBACK 'one'").await;
        source.create_slot().await.unwrap();

        // The rows of the moment of the snapshot are gone.
        let snapshot = source.temporary_snapshot().await.unwrap();
        server.execute(DATABASE, "ALTER TABLE a MODIFY balance varchar(40), ALGORITHM = COPY").await;
        let part = snapshot.parts(named(&tables, "b"), 10).await.unwrap().remove(0);
        let error = match snapshot.parts(named(&tables, "a"), 10).await {
            Ok(parts) => rows_of_part(&snapshot, &parts[0]).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), Kind::Transient, "{flavour}: {error}");
        assert!(error.message().contains("altered"), "{error}");
        // Of the others it still has all.
        assert_eq!(rows_of_part(&snapshot, &part).await.unwrap().len(), 8);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_holds_writers_up_for_moments_and_waits_for_long_statements() {
    for flavour in BOTH {
        let Some(server) = my_server(flavour, MyOptions::new(), "a_snapshot_holds_writers_up").await else { continue };
        server.execute(DATABASE, BANK).await;
        let source = source(&server, "short");
        let url = server.url(DATABASE);
        let mut long = support::mysql::connect(&url).await.unwrap();
        let stop = AtomicBool::new(false);
        let slow = async { long.execute("SELECT id, SLEEP(1) FROM a LIMIT 7").await.unwrap() };
        let write = async {
            let mut session = support::mysql::connect(&url).await.unwrap();
            let mut longest = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                session.execute("UPDATE b SET balance = balance + 1 WHERE id = 7").await.unwrap();
                longest = longest.max(begun.elapsed());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            longest
        };
        let make = async {
            // Until it has run for long enough to be seen.
            let mut session = support::mysql::connect(&url).await.unwrap();
            let running =
                "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT id, SLEEP%' AND time >= 2";
            while session.value(running).await.unwrap().as_deref() != Some("1") {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let begun = Instant::now();
            let snapshot = source.create_slot().await.unwrap();
            let waited = begun.elapsed();
            stop.store(true, Ordering::Relaxed);
            (snapshot, waited)
        };
        let all = async { tokio::join!(slow, write, make) };
        let (_, longest, (snapshot, waited)) = within("the snapshot", PATIENCE, all).await;
        assert!(longest < Duration::from_millis(2500), "{flavour}: a writer waited for {longest:?}");
        match flavour {
            Flavour::MySql => assert!(waited > Duration::from_secs(2), "made behind a long statement: {waited:?}"),
            // Who reads is in nobody's way there.
            Flavour::MariaDb => assert!(waited < Duration::from_secs(4), "{waited:?}"),
        }
        // A copy that has ended holds no lock of its table, and an ALTER does not wait for the others.
        let tables = tables(&source).await;
        rows(&snapshot, named(&tables, "a"), 1000).await;
        server.execute(DATABASE, "SET SESSION lock_wait_timeout = 5; ALTER TABLE a ADD x int").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_nobody_wants_any_more_gives_its_session_back() {
    for flavour in BOTH {
        let Some(server) = my_server(flavour, MyOptions::new(), "a_copy_that_nobody_wants").await else { continue };
        let numbers: Vec<String> = (0..2000).map(|n| format!("({n}, REPEAT('x', 10000))")).collect();
        server.execute(DATABASE, BANK).await;
        server.execute(DATABASE, "CREATE TABLE large (id int PRIMARY KEY, t mediumtext) ENGINE = InnoDB").await;
        server.execute(DATABASE, &format!("INSERT INTO large VALUES {}", numbers.join(", "))).await;
        let text = format!(
            "[migration]\nname = \"one\"\n[source]\nurl = \"{}\"\nserver_id = 4711\n[snapshot]\nworkers = 1\n\
             [target]\nurl = \"postgres://b@new/shop\"\n",
            server.url(DATABASE)
        );
        let config = Config::parse(&text, "c").unwrap_or_else(|error| panic!("{error}"));
        let source = MySource::of(&config).unwrap();
        let tables = tables(&source).await;
        let snapshot = Arc::new(source.temporary_snapshot().await.unwrap());
        let large = snapshot.parts(named(&tables, "large"), 1_000_000).await.unwrap().remove(0);
        let few = snapshot.parts(named(&tables, "a"), 1_000_000).await.unwrap().remove(0);
        for _ in 0..3 {
            let mut chunks = snapshot.copy(&large, &[0, 1], CopyFormat::Rows).await.unwrap();
            let first = chunks.next().await.unwrap().unwrap();
            assert!(first.bytes.len() < 1 << 20, "bounded: {}", first.bytes.len());
            // With one session the next copy waits for it.
            let (waiting, part) = (Arc::clone(&snapshot), few.clone());
            let next = tokio::spawn(async move { rows_of_part(&waiting, &part).await });
            drop(chunks);
            let rows = within("the session", PATIENCE, next).await.unwrap().unwrap();
            assert_eq!(rows.len(), 8, "{flavour}");
        }
        assert_eq!(rows_of_part(&snapshot, &large).await.unwrap().len(), 2000);

        // Its session ends: what is copied after that is not of another moment.
        server.execute(DATABASE, "INSERT INTO a VALUES (1, 1)").await;
        let mut admin = server.connect("").await;
        let sql = "SELECT id FROM information_schema.innodb_trx t JOIN information_schema.processlist p \
             ON p.id = t.trx_mysql_thread_id WHERE p.command = 'Sleep'";
        for row in admin.rows(sql).await.unwrap() {
            admin.execute(format!("KILL {}", row[0].as_ref().unwrap())).await.unwrap();
        }
        let error = within("the end", PATIENCE, rows_of_part(&snapshot, &few)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Connection, "{flavour}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_beside_the_main_one_ends_nobody() {
    for flavour in BOTH {
        let Some((server, source, tables, from)) = begun(flavour, "a_stream_beside").await else { continue };
        let mut main = stream(&source, &from, &tables).await.unwrap();
        server.execute(DATABASE, "INSERT INTO account (id, balance) VALUES (1, 1)").await;
        let snapshot = source.temporary_snapshot().await.unwrap();
        assert_eq!(rows(&snapshot, &tables[0], 10).await.len(), 1);
        let position = snapshot.position().clone();
        let mut beside = snapshot.follow(&tables, &Budget::new(16 << 20), false).await.unwrap();
        let mut second =
            source.temporary_snapshot().await.unwrap().follow(&tables, &Budget::new(16 << 20), false).await.unwrap();
        server.execute(DATABASE, "INSERT INTO account (id, balance) VALUES (2, 2)").await;
        let head = source.head().await.unwrap().position;
        for (read, from, rows) in [(&mut main, &from, 2), (&mut beside, &position, 1), (&mut second, &position, 1)] {
            let mut target = Target { at: Some(from.clone()), ..Target::default() };
            target.until(read, &head).await;
            assert_eq!(target.rows.len(), rows, "{flavour}");
        }
        let (looks, at) = source.look(&[tables[0].id]).await.unwrap();
        assert!(at.reaches(&head));
        assert_eq!(source.look(&[tables[0].id]).await.unwrap().0, looks);
        server.execute(DATABASE, "ALTER TABLE account ADD later int").await;
        assert_ne!(source.look(&[tables[0].id]).await.unwrap().0, looks);
    }
}
