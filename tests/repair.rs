//! `verify --repair` between two real servers: it writes the source's version, exactly, while changes go on.

#![allow(clippy::unwrap_used, reason = "a test dies of its errors")]

mod ends;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cutwater::verify::repair::repair;
use cutwater::verify::{DifferenceKind, Report, RowDifference, TableReport};
use ends::{keep_up, parts};
use support::{Cutwater, Database, assert_equal, pair, wait_for};
use tokio_util::sync::CancellationToken;

const MINUTE: Duration = Duration::from_secs(120);
const UNTIL: &[&str] = &["run", "--until", "caught-up"];

const TABLES: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'happy');
    CREATE TABLE keyed (id bigint PRIMARY KEY, u int UNIQUE, v text, n numeric(12, 3), f float8, at timestamptz, m mood,
                        j jsonb, b bytea, c char(5), a text[], r int4range, big text);
    CREATE TABLE \"Two Keys\" (\"A\" text, b int, n int GENERATED ALWAYS AS IDENTITY, twice int GENERATED ALWAYS AS (b * 2) STORED,
                             PRIMARY KEY (\"A\", b));
    CREATE TABLE part (id int, at date, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE part_a PARTITION OF part FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
    CREATE TABLE part_b PARTITION OF part FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
    INSERT INTO keyed SELECT i, i, 'v' || i, i / 7.0, i / 7.0::float8, '2026-01-01'::timestamptz + i * interval '1 second',
                             'happy', jsonb_build_object('i', i), decode('00ff', 'hex'), 'x', ARRAY['a', NULL, 'b,c'],
                             int4range(i, i + 5), repeat(md5(i::text), 300)
      FROM generate_series(1, 3000) i;
    INSERT INTO \"Two Keys\" SELECT 'k ' || i % 10, i FROM generate_series(1, 500) i;
    INSERT INTO part SELECT i, '2026-01-01'::date + i % 300, 'p' || i FROM generate_series(1, 600) i;
    ANALYZE;";
const NAMES: &[&str] = &["keyed", "\"Two Keys\"", "part"];

/// Everything that can be wrong with a row, in rows that the writers below leave alone.
const DAMAGE: &str = "
    DELETE FROM keyed WHERE id BETWEEN 2000 AND 2700;
    INSERT INTO keyed (id, u, v) SELECT -i, 900000 + i, 'not at the source' FROM generate_series(1, 20) i;
    -- In the way of rows that are to come back.
    INSERT INTO keyed (id, u) SELECT -1000 - i, 2000 + i FROM generate_series(1, 10) i;
    UPDATE keyed SET v = NULL, n = -n, f = 'NaN', j = '{}', c = '', a = '{}', big = 'short' WHERE id BETWEEN 1500 AND 1600;
    -- Two rows that hold each other's unique value.
    UPDATE keyed SET u = -1 WHERE id = 1700; UPDATE keyed SET u = 1700 WHERE id = 1701; UPDATE keyed SET u = 1701 WHERE id = 1700;
    DELETE FROM \"Two Keys\" WHERE b % 50 = 0;
    INSERT INTO \"Two Keys\" VALUES ('not ''here', 1);
    UPDATE part SET v = 'wrong' WHERE id % 100 = 0; DELETE FROM part WHERE id % 100 = 1;
    INSERT INTO part VALUES (-1, '2026-08-01', 'extra');
    -- Rows that the writers change: they heal by themselves or are repaired, whichever comes first.
    UPDATE keyed SET v = 'damaged' WHERE id <= 200;";

/// Changes rows without pause until told to stop.
fn writer(source: &Arc<Database>, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<u64> {
    let (source, stop) = (Arc::clone(source), Arc::clone(stop));
    tokio::spawn(async move {
        let client = source.connect().await;
        let mut n = 0;
        while !stop.load(Ordering::Relaxed) {
            n += 1;
            let (hot, new) = (n % 200 + 1, 100_000 + n);
            client
                .batch_execute(&format!(
                    "BEGIN; UPDATE keyed SET v = 'w{n}', n = {n} WHERE id = {hot};
                     INSERT INTO keyed (id, u, v) VALUES ({new}, {new}, 'new'); COMMIT;
                     UPDATE keyed SET id = id + 1000000, v = 'moved' WHERE id = {new} AND {n} % 3 = 0;
                     DELETE FROM keyed WHERE id = {new} AND {n} % 3 = 1;
                     UPDATE part SET v = 'w{n}' WHERE id = 2"
                ))
                .await
                .unwrap();
        }
        n
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_live_run_and_writers_every_kind_of_difference_becomes_the_sources_version() {
    let (source, target) = pair().await;
    source.execute(TABLES).await;
    let (source, target) = (Arc::new(source), Arc::new(target));
    let cutwater = Cutwater::new(&source.url(), &target.url());
    let mut run = cutwater.start(&["run"]);
    let phase = "SELECT coalesce((SELECT phase FROM cutwater.migration), '')";
    wait_for("the stream", MINUTE, async || {
        target.value::<bool>("SELECT to_regclass('cutwater.migration') IS NOT NULL").await
            && target.value::<String>(phase).await == "streaming"
    })
    .await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers = [writer(&source, &stop)];
    target.execute(DAMAGE).await;
    let repaired = cutwater.run(&["verify", "--repair", "--json"], MINUTE).await.assert_code(0).json();
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        assert!(writer.await.unwrap() > 3, "there were writes");
    }
    assert_eq!(repaired["repaired"]["complete"], true);
    let table = |name: &str| {
        let tables = repaired["repaired"]["tables"].as_array().unwrap();
        let found = tables.iter().find(|table| table["source"] == name).unwrap();
        ["inserted", "updated", "deleted"].map(|what| found[what].as_u64().unwrap())
    };
    let [inserted, updated, deleted] = table("public.keyed");
    assert_eq!((inserted, deleted), (701, 30), "{repaired:#}");
    assert!((103..=303).contains(&updated), "{repaired:#}");
    assert_eq!(table("public.Two Keys"), [10, 0, 1]);
    assert_eq!(table("public.part"), [6, 6, 1]);
    assert!(run.is_running(), "{}", run.stderr());
    run.sigint();
    run.wait(MINUTE).await.assert_code(0);
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), NAMES).await;
    let divergences: i64 = target.value("SELECT divergences FROM cutwater.checkpoint").await;
    assert_eq!(divergences, 0);
    let recorded: String = target.value("SELECT verify->>'differences' FROM cutwater.migration").await;
    assert_eq!(recorded, "0", "what was repaired is recorded as clean");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_run_it_follows_the_source_itself_and_settles_what_stopped_the_run() {
    let (source, target) = pair().await;
    source.execute(TABLES).await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    target.execute("DELETE FROM keyed WHERE id IN (10, 11, 12); UPDATE keyed SET v = 'wrong' WHERE id = 20").await;
    source
        .execute(
            "UPDATE keyed SET v = 'first' WHERE id = 10; UPDATE keyed SET v = 'second' WHERE id = 10;
             DELETE FROM keyed WHERE id = 11; INSERT INTO keyed (id, u) VALUES (5000, 5000)",
        )
        .await;
    let finished = cutwater.run(UNTIL, MINUTE).await.assert_code(1);
    assert!(finished.stderr.contains("it found 0 rows at the target"), "{}", finished.stderr);
    assert!(finished.stderr.contains("cutwater verify --repair"), "{}", finished.stderr);
    let finished = cutwater.run(&["verify", "--repair"], MINUTE).await.assert_code(0);
    assert!(finished.stdout.contains("REPAIRED"), "{}", finished.stdout);
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), NAMES).await;
    let left: i64 = target
        .value("SELECT (SELECT count(*) FROM cutwater.dead_letter) + (SELECT divergences FROM cutwater.checkpoint)")
        .await;
    assert_eq!(left, 0, "what had been set aside is of the past");
    // With nothing to do it says so, and its record opens the gate.
    let again = cutwater.run(&["verify", "--repair"], MINUTE).await.assert_code(0);
    assert!(again.stdout.contains("IDENTICAL"), "{}", again.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_repaired_is_named_and_nothing_of_it_is_written() {
    let (source, target) = pair().await;
    source
        .execute(
            "CREATE TABLE keyed (id int PRIMARY KEY, n int); INSERT INTO keyed SELECT i, i FROM generate_series(1, 100) i;
             CREATE TABLE loose (v text); ALTER TABLE loose REPLICA IDENTITY FULL; INSERT INTO loose VALUES ('a'), ('a')",
        )
        .await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    // Before anything was migrated, and once the target is live, the source's version is not the one to write.
    let finished = cutwater.run(&["verify", "--repair"], MINUTE).await;
    assert_ne!(finished.code, Some(0));
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    target
        .execute(
            "DELETE FROM loose; DELETE FROM keyed WHERE id IN (7, 8, 9);
             ALTER TABLE keyed ADD CONSTRAINT not_seven CHECK (id <> 7)",
        )
        .await;
    let finished = cutwater.run(&["verify", "--repair"], MINUTE).await.assert_code(3);
    for part in [
        "NOT ALL REPAIRED",
        "public.loose   left as it is: it has no key",
        "tables resync public.loose",
        "(7)  refused by the target",
        "not_seven",
    ] {
        assert!(finished.stdout.contains(part), "{part:?} is missing in\n{}", finished.stdout);
    }
    let rows: i64 = target.value("SELECT count(*) FROM keyed").await;
    assert_eq!(rows, 99, "8 and 9 came back, 7 was refused");
    assert_eq!(target.value::<i64>("SELECT count(*) FROM loose").await, 0);
    target.execute("UPDATE cutwater.migration SET phase = 'target-live'; DELETE FROM keyed WHERE id = 8").await;
    let finished = cutwater.run(&["verify", "--repair"], MINUTE).await.assert_code(3);
    assert!(finished.stderr.contains("phase target-live: rows are not repaired in it"), "{}", finished.stderr);
    assert_eq!(target.value::<i64>("SELECT count(*) FROM keyed").await, 98);
}

/// TRAPS 1: every target transaction begins with the checkpoint's lock, a repair's too.
#[tokio::test(flavor = "multi_thread")]
async fn a_repair_waits_for_the_batch_under_way_and_sees_what_it_brought() {
    let (source, target) = pair().await;
    let sql = "CREATE TABLE t (id int PRIMARY KEY, v text)";
    source.execute(sql).await;
    target.execute(sql).await;
    source.execute("INSERT INTO t VALUES (1, 'new'), (2, 'two')").await;
    target.execute("INSERT INTO t VALUES (1, 'wrong')").await;
    let parts = parts(&source, &target, "").await;
    keep_up(&source, &target).await;
    target
        .execute(
            "UPDATE cutwater.migration SET phase = 'streaming';
             -- Far ahead, so that it is the lock that is waited for and nothing else.
             UPDATE cutwater.checkpoint SET position = 'FFFF/0'",
        )
        .await;
    let batch = target.connect().await;
    batch
        .batch_execute(
            "BEGIN; SELECT FROM cutwater.checkpoint FOR UPDATE; UPDATE public.t SET v = 'by the batch' WHERE id = 1;
             INSERT INTO public.t VALUES (2, 'by the batch')",
        )
        .await
        .unwrap();
    let row = |key: &str| RowDifference {
        key: format!("({key})"),
        kind: DifferenceKind::Different,
        key_values: vec![key.to_owned()],
    };
    let table = TableReport {
        source: "public.t".into(),
        differing: 2,
        rows: vec![row("1"), row("2")],
        ..TableReport::default()
    };
    let found = Report { tables: vec![table], ..Report::default() };
    let task = tokio::spawn(async move {
        repair(&parts.ends, &parts.plan, &found, &|_, _, _| {}, &CancellationToken::new()).await
    });
    wait_for("the repair to wait for the checkpoint", MINUTE, async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%cutwater.checkpoint%FOR UPDATE'
                      AND datname = current_database()";
        target.value::<i64>(sql).await == 1
    })
    .await;
    let wrong: String = target.value("SELECT v FROM t WHERE id = 1").await;
    assert_eq!(wrong, "wrong", "nothing was written beside the batch");
    batch.batch_execute("COMMIT").await.unwrap();
    let repaired = task.await.unwrap().unwrap();
    assert!(repaired.complete, "{repaired:?}");
    assert_equal(&source.url(), &target.url(), &["t"]).await;
    // Under another epoch nothing is written at all.
    assert_eq!(repaired.rows(), 2);
}
