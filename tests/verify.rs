//! Verify between two real servers: what it finds, and what it must not mistake for a difference.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    dead_code,
    reason = "in a test a panic is the report; support is shared"
)]

mod ends;
mod support;

use std::sync::Arc;
use std::time::Duration;

use cutwater::verify::{DifferenceKind, Options, Report, TableReport, run};
use ends::{keep_up, parts};
use support::Database;
use tokio_util::sync::CancellationToken;

const TABLES: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'happy');
    CREATE TABLE keyed (id bigint PRIMARY KEY, v text, n numeric, f float8, at timestamptz, m mood, j jsonb, b bytea);
    CREATE TABLE loose (v text, n int);
    ALTER TABLE loose REPLICA IDENTITY FULL;
    INSERT INTO keyed SELECT i, 'v' || i, i / 7.0, i / 7.0::float8, '2026-01-01'::timestamptz + i * interval '1 second',
                             'happy', jsonb_build_object('i', i), decode('00ff', 'hex')
      FROM generate_series(1, 2000) i;
    INSERT INTO loose SELECT 'same', 1 FROM generate_series(1, 3);
    INSERT INTO loose VALUES (NULL, 1), ('', 2), ('NULL', 3);
    ANALYZE;";

async fn both(sql: &str) -> (Arc<Database>, Arc<Database>) {
    let (source, target) = support::pair().await;
    source.execute(sql).await;
    target.execute(sql).await;
    (Arc::new(source), Arc::new(target))
}

async fn verify(source: &Database, target: &Database, rules: &str) -> Report {
    let parts = parts(source, target, rules).await;
    keep_up(source, target).await;
    let never = CancellationToken::new();
    run(&parts.ends, &parts.plan, &Options::default(), &|_, _, _| {}, &never).await.unwrap_or_else(|e| panic!("{e}"))
}

fn table<'a>(report: &'a Report, name: &str) -> &'a TableReport {
    report.tables.iter().find(|table| table.source == name).unwrap()
}

fn found(report: &TableReport) -> Vec<(&str, DifferenceKind)> {
    let mut rows: Vec<_> = report.rows.iter().map(|row| (row.key.as_str(), row.kind)).collect();
    rows.sort_by_key(|row| row.0);
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_ends_are_clean_and_that_is_recorded() {
    let (source, target) = both(TABLES).await;
    // The two servers' own settings must not show in the comparison.
    target.execute(&format!("ALTER DATABASE {} SET timezone = 'Asia/Tokyo'", target.name)).await;
    target.execute(&format!("ALTER DATABASE {} SET extra_float_digits = 0", target.name)).await;
    let report = verify(&source, &target, "").await;
    assert!(report.clean() && report.behind.is_none(), "{report:?}");
    assert_eq!(report.rows(), 2006);
    let recorded: i64 = target
        .value("SELECT (verify->>'tables')::bigint FROM cutwater.migration WHERE verify->>'differences' = '0'")
        .await;
    assert_eq!(recorded, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_difference_is_named_by_key() {
    let (source, target) = both(TABLES).await;
    target
        .execute(
            "UPDATE keyed SET f = f + 1e-13 WHERE id = 3;
             DELETE FROM keyed WHERE id = 5;
             INSERT INTO keyed (id) VALUES (-1);
             UPDATE keyed SET at = at + interval '1 microsecond' WHERE id = 1999",
        )
        .await;
    let report = verify(&source, &target, "").await;
    use DifferenceKind::*;
    let expected = [("(-1)", Extra), ("(1999)", Different), ("(3)", Different), ("(5)", Missing)];
    assert_eq!(found(table(&report, "public.keyed")), expected);
    assert_eq!(report.differences(), 4);
    assert_eq!((table(&report, "public.keyed").rows_source, table(&report, "public.keyed").rows_target), (2000, 2000));
}

#[tokio::test(flavor = "multi_thread")]
async fn null_and_empty_and_the_word_null_are_three_things() {
    let (source, target) = both("CREATE TABLE t (id int PRIMARY KEY, a text, b text)").await;
    source
        .execute("INSERT INTO t VALUES (1, NULL, ''), (2, '', NULL), (3, 'NULL', ''), (4, 'x', NULL), (5, 'a,b', 'c')")
        .await;
    target
        .execute("INSERT INTO t VALUES (1, '', NULL), (2, NULL, ''), (3, NULL, ''), (4, NULL, 'x'), (5, 'a', 'b,c')")
        .await;
    let report = verify(&source, &target, "").await;
    assert_eq!(table(&report, "public.t").differing, 5);
}

/// The same UPDATE missing on two rows: equal under XOR, and under any sum of unseeded per-column hashes (TRAPS 24).
#[tokio::test(flavor = "multi_thread")]
async fn two_changes_that_would_cancel_out_are_found() {
    let (source, target) = both(
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 5), (2, 5), (3, 7), (4, 9);
         CREATE TABLE twins (v int); ALTER TABLE twins REPLICA IDENTITY FULL; INSERT INTO twins VALUES (1), (1), (2), (3), (3)",
    )
    .await;
    // Two equal rows are nothing to an XOR, whatever the hash.
    target.execute("UPDATE twins SET v = 4 WHERE v = 3").await;
    target.execute("UPDATE t SET v = 6 WHERE id IN (1, 2)").await;
    target.execute("UPDATE t SET v = 16 - v WHERE id IN (3, 4)").await;
    let report = verify(&source, &target, "").await;
    assert_eq!(table(&report, "public.t").differing, 4);
    use DifferenceKind::*;
    assert_eq!(found(table(&report, "public.twins")), [("(3)", Missing), ("(4)", Extra)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_rows_are_counted() {
    let (source, target) = both(TABLES).await;
    target
        .execute(
            "DELETE FROM loose WHERE ctid = (SELECT min(ctid) FROM loose WHERE v = 'same');
             INSERT INTO loose VALUES ('', 2), ('new', 9)",
        )
        .await;
    let report = verify(&source, &target, "").await;
    use DifferenceKind::*;
    assert_eq!(found(table(&report, "public.loose")), [("(\"\",2)", Extra), ("(new,9)", Extra), ("(same,1)", Missing)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_compared_through() {
    let (source, target) = support::pair().await;
    source.execute("CREATE TABLE users (secret text, id int PRIMARY KEY, mail text); INSERT INTO users VALUES ('s', 1, 'a'), ('t', 2, 'b')").await;
    target.execute("CREATE SCHEMA app; CREATE TABLE app.people (email text, id int PRIMARY KEY, extra int); INSERT INTO app.people VALUES ('a', 1), ('B', 2)").await;
    let rules = "[[transform]]\nmatch = \"public.users\"\ncolumns = [\"!secret\"]\n\
                 rename = { schema = \"app\", table = \"people\", columns = { mail = \"email\" } }";
    let report = verify(&source, &target, rules).await;
    assert_eq!(found(table(&report, "public.users")), [("(2)", DifferenceKind::Different)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_and_odd_keys_are_compared() {
    let (source, target) = both(
        "CREATE TABLE \"Odd Table\" (\"a\"\"b\" varchar(10), \"Ü\" numeric(10, 2), c char(4), v text,
                                      PRIMARY KEY (\"a\"\"b\", \"Ü\", c));
         INSERT INTO \"Odd Table\" VALUES ('x,y', 1.50, 'z', 'v'), ('(', 2.00, 'zz', NULL);
         CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
         CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
         INSERT INTO parts VALUES (1, 'a'), (11, 'b');",
    )
    .await;
    target.execute("UPDATE \"Odd Table\" SET v = 'other' WHERE c = 'z'; UPDATE parts SET v = 'x' WHERE id = 11").await;
    let report = verify(&source, &target, "").await;
    assert_eq!(found(table(&report, "public.Odd Table")), [("(x,y, 1.50, z)", DifferenceKind::Different)]);
    assert_eq!(found(table(&report, "public.parts")), [("(11)", DifferenceKind::Different)]);
    assert_eq!(table(&report, "public.parts").rows_source, 2);
}

/// The target is behind and nobody moves it: what differs may be on its way, and that is said and not recorded.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_run_differences_may_be_changes_on_their_way() {
    let (source, target) = both(TABLES).await;
    let parts = parts(&source, &target, "").await;
    source.execute("UPDATE keyed SET v = 'new' WHERE id = 1").await;
    let never = CancellationToken::new();
    let report = run(&parts.ends, &parts.plan, &Options::default(), &|_, _, _| {}, &never).await.unwrap();
    assert_eq!(report.differences(), 1);
    assert!(report.behind.unwrap().contains("no run is alive"));
    assert!(target.value::<bool>("SELECT verify IS NULL FROM cutwater.migration").await);
}

/// A native subscription plays the engine: the target follows within milliseconds, and no look may mistake a change on
/// its way, or a row that never stands still, for a difference.
#[tokio::test(flavor = "multi_thread")]
async fn writes_on_their_way_are_no_differences() {
    let (source, target) = both(TABLES).await;
    let parts = parts(&source, &target, "").await;
    source.execute("CREATE PUBLICATION p FOR TABLE keyed").await;
    source
        .connect()
        .await
        .query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", &[&source.name])
        .await
        .unwrap();
    let subscription = format!(
        "CREATE SUBSCRIPTION {0} CONNECTION '{1}' PUBLICATION p WITH (create_slot = false, slot_name = '{0}', copy_data = false)",
        source.name,
        source.url()
    );
    target.connect().await.batch_execute(&subscription).await.unwrap();
    let writing = CancellationToken::new();
    let writer = tokio::spawn({
        let (source, writing) = (Arc::clone(&source), writing.clone());
        async move {
            let app = source.connect().await;
            let mut n = 0;
            while !writing.is_cancelled() {
                n += 1;
                let sql = format!(
                    "UPDATE keyed SET v = 'w{n}' WHERE id = 1; UPDATE keyed SET v = 'w{n}' WHERE id = {0} % 1500;
                     INSERT INTO keyed (id) VALUES (10000 + {n}); DELETE FROM keyed WHERE id = 10000 + {n} - 20;",
                    n * 7
                );
                app.batch_execute(&sql).await.unwrap();
            }
            n
        }
    });
    // The checkpoint: what the subscription has applied.
    let follower = tokio::spawn({
        let (source, target, writing) = (Arc::clone(&source), Arc::clone(&target), writing.clone());
        async move {
            keep_up(&source, &target).await;
            let (from, to) = (source.connect().await, target.connect().await);
            while !writing.is_cancelled() {
                let sql = "SELECT max(replay_lsn)::text FROM pg_stat_replication WHERE application_name = $1";
                let applied: Option<String> = from.query_one(sql, &[&source.name]).await.unwrap().get(0);
                if let Some(applied) = applied {
                    to.execute("UPDATE cutwater.checkpoint SET position = $1", &[&applied]).await.unwrap();
                    to.execute("UPDATE cutwater.run SET heartbeat_at = clock_timestamp()", &[]).await.unwrap();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    support::wait_for("the first heartbeat", Duration::from_secs(10), async || {
        target.value::<i64>("SELECT count(*) FROM cutwater.run").await == 1
    })
    .await;
    // The first checkpoint was the source's head, whatever is applied.
    let first: String = target.value("SELECT position FROM cutwater.checkpoint").await;
    support::wait_for("what is applied", Duration::from_secs(60), async || {
        target.value::<String>("SELECT position FROM cutwater.checkpoint").await != first
    })
    .await;
    let never = CancellationToken::new();
    let mut looked_twice = 0;
    for _ in 0..5 {
        let report = run(&parts.ends, &parts.plan, &Options::default(), &|_, _, _| {}, &never).await.unwrap();
        assert!(report.clean() && report.behind.is_none(), "{report:?}");
        looked_twice += table(&report, "public.keyed").rechecked;
    }
    // And a real difference is found among them.
    target.execute("UPDATE keyed SET m = 'sad' WHERE id = 1777").await;
    let report = run(&parts.ends, &parts.plan, &Options::default(), &|_, _, _| {}, &never).await.unwrap();
    writing.cancel();
    assert!(writer.await.unwrap() > 50);
    follower.await.unwrap();
    assert_eq!(found(table(&report, "public.keyed")), [("(1777)", DifferenceKind::Different)]);
    eprintln!("{looked_twice} rows were looked at twice");
    target.execute(&format!("ALTER SUBSCRIPTION {0} DISABLE", target.name)).await;
    let drop = target.connect().await;
    drop.batch_execute(&format!("ALTER SUBSCRIPTION {0} SET (slot_name = NONE)", target.name)).await.unwrap();
    drop.batch_execute(&format!("DROP SUBSCRIPTION {0}", target.name)).await.unwrap();
}
