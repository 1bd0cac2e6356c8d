//! Very large tables are copied in ranges of their key, and a killed copy goes on with the ranges that are missing:
//! what was read at different moments comes together exactly.

#![allow(clippy::unwrap_used, reason = "a test dies of its errors")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use support::{Cutwater, Database, assert_equal, pair, rng, wait_for};
use tokio::task::JoinHandle;

const MINUTE: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(200);
const UNTIL: &[&str] = &["run", "--until", "caught-up"];
const ROWS: i64 = 3_000;
const TABLES: [&str; 4] = ["public.plain", "public.pair", "public.part", "public.\"Full\""];

/// Four tables whose keys begin with an integer, each with values that are stored out of line.
async fn tables(source: &Database) {
    source
        .execute(
            "CREATE TABLE public.plain (id int PRIMARY KEY, n int DEFAULT 0, doc text, other text);
             CREATE TABLE public.pair (b text, id bigint, n int DEFAULT 0, doc text, other text, PRIMARY KEY (id, b));
             CREATE TABLE public.part (id int PRIMARY KEY, n int DEFAULT 0, doc text, other text) PARTITION BY RANGE (id);
             CREATE TABLE public.part_low PARTITION OF public.part FOR VALUES FROM (MINVALUE) TO (2500);
             CREATE TABLE public.part_high PARTITION OF public.part FOR VALUES FROM (2500) TO (MAXVALUE);
             CREATE TABLE public.\"Full\" (id smallint PRIMARY KEY, n int DEFAULT 0, doc text, other text);
             ALTER TABLE public.\"Full\" REPLICA IDENTITY FULL;
             ALTER TABLE public.plain ALTER COLUMN doc SET STORAGE EXTERNAL; ALTER TABLE public.pair ALTER COLUMN doc SET STORAGE EXTERNAL;
             ALTER TABLE public.part ALTER COLUMN doc SET STORAGE EXTERNAL; ALTER TABLE public.\"Full\" ALTER COLUMN doc SET STORAGE EXTERNAL;
             ALTER TABLE public.part_low ALTER COLUMN doc SET STORAGE EXTERNAL; ALTER TABLE public.part_high ALTER COLUMN doc SET STORAGE EXTERNAL",
        )
        .await;
    for table in TABLES {
        let b = if table == "public.pair" { "b, " } else { "" };
        let value = if table == "public.pair" { "'x', " } else { "" };
        source
            .execute(&format!(
                "INSERT INTO {table} ({b}id, n, doc, other) SELECT {value}i * 2, i, repeat(md5(i::text), 80), 'o' || i
                 FROM generate_series(1, {ROWS}) AS i"
            ))
            .await;
    }
    source.execute("ANALYZE").await;
}

/// Writes until it is told not to: rows move between ranges, mostly without saying what is stored out of line.
fn write(source: &Arc<Database>, done: &Arc<AtomicBool>, mut random: StdRng) -> JoinHandle<()> {
    let (source, done) = (Arc::clone(source), Arc::clone(done));
    tokio::spawn(async move {
        let client = source.connect().await;
        while !done.load(Ordering::Relaxed) {
            let mut sql = String::from("BEGIN;");
            for _ in 0..random.random_range(1..6) {
                let table = TABLES[random.random_range(0..TABLES.len())];
                // Few keys are hot, so that rows follow each other on one key.
                let mut key = || {
                    let hot = random.random_bool(0.7);
                    if hot { 150 * random.random_range(1..40) } else { random.random_range(1..2 * ROWS) }
                };
                let (a, b, c) = (key(), key(), key());
                let free = |id: i64| format!("NOT EXISTS (SELECT FROM {table} WHERE id = {id})");
                sql.push_str(&match random.random_range(0..12) {
                    0..=3 => format!("UPDATE {table} SET id = {b} WHERE id = {a} AND {};", free(b)),
                    // A chain: the row moves on, another takes its place.
                    4..=5 => format!(
                        "UPDATE {table} SET id = {b}, n = n + 1 WHERE id = {a} AND {}; UPDATE {table} SET id = {a} WHERE id = {c} AND {};",
                        free(b),
                        free(a)
                    ),
                    6 => format!("UPDATE {table} SET n = n + 1, other = NULL WHERE id = {a};"),
                    7 => format!("UPDATE {table} SET doc = repeat(md5(random()::text), 80) WHERE id = {a};"),
                    8 => format!("DELETE FROM {table} WHERE id = {a};"),
                    9 => format!("SAVEPOINT s; UPDATE {table} SET id = {b} WHERE id = {a} AND {}; RELEASE s;", free(b)),
                    _ => {
                        let (column, value) = if table == "public.pair" { ("b, ", "'y', ") } else { ("", "") };
                        format!(
                            "INSERT INTO {table} ({column}id, doc) SELECT {value}{a}, repeat(md5(random()::text), 80) WHERE {};",
                            free(a)
                        )
                    }
                });
            }
            sql.push_str("COMMIT");
            // The other writer may have taken the key, or be waited for in a circle: then nothing of it happened.
            if let Err(error) = client.batch_execute(&sql).await {
                let code = error.code().map(|code| code.code().to_owned());
                assert!(matches!(code.as_deref(), Some("23505" | "40P01" | "40001")), "{error:?} in {sql}");
                client.batch_execute("ROLLBACK").await.unwrap();
            }
            if random.random_bool(0.1) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    })
}

/// Where each range was read, of those that are there: (table, number) → position.
async fn ranges(target: &Database) -> BTreeMap<(String, i32), String> {
    if !target.value::<bool>("SELECT to_regclass('cutwater.table_chunk') IS NOT NULL").await {
        return BTreeMap::new();
    }
    let sql = "SELECT source_table, number, copied_at FROM cutwater.table_chunk WHERE copied_at IS NOT NULL";
    let rows = target.connect().await.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect()
}

fn in_ranges(source: &Database, target: &Database) -> Cutwater {
    Cutwater::new(&source.url(), &target.url()).and(
        "[snapshot]\nworkers = 2\nchunk_rows = 500\nresume_rows = 1000\nmax_rows_per_second = 6000\n
         [apply]\nbatch_rows = 2000\n",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_in_ranges_killed_again_and_again_under_writes_is_exact_and_copies_no_range_twice() {
    let (source, target) = pair().await;
    tables(&source).await;
    let (source, done, mut random) = (Arc::new(source), Arc::new(AtomicBool::new(false)), rng());
    let writers =
        [rand::SeedableRng::seed_from_u64(random.random()), rand::SeedableRng::seed_from_u64(random.random())]
            .map(|random| write(&source, &done, random));
    let cutwater = in_ranges(&source, &target);
    let mut there = BTreeMap::new();
    for kill in 0..2 {
        let mut run = cutwater.start(&["run"]);
        let more = there.len() + random.random_range(2..8);
        wait_for("some ranges", MINUTE, async || ranges(&target).await.len() >= more || !run.is_running()).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..200))).await;
        assert!(run.is_running(), "{}", run.stderr());
        run.kill9();
        let now = ranges(&target).await;
        for (range, position) in &there {
            assert_eq!(now.get(range), Some(position), "after kill {kill}: {range:?} was copied again");
        }
        there = now;
    }
    // And in the middle of the mixture.
    let mut run = cutwater.start(&["run"]);
    wait_for("the stream", LONG, async || run.stderr().contains("following the source") || !run.is_running()).await;
    tokio::time::sleep(Duration::from_millis(random.random_range(0..700))).await;
    run.kill9();
    done.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    cutwater.run(UNTIL, LONG).await.assert_code(0);
    let now = ranges(&target).await;
    for (range, position) in &there {
        let (position, table) = (Some(position), &range.0);
        assert!(now.get(range) == position || !now.keys().any(|(t, _)| t == table), "{range:?} was copied again");
    }
    let positions: i64 = target.value("SELECT count(DISTINCT copied_at) FROM cutwater.table_chunk").await;
    assert!(positions > 1, "ranges of different moments met");
    assert_equal(&source.url(), &target.url(), &TABLES).await;
    cutwater.run(&["verify"], MINUTE).await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_between_two_ranges_empties_the_older_one_only() {
    let (source, target) = pair().await;
    tables(&source).await;
    let cutwater = in_ranges(&source, &target);
    let mut run = cutwater.start(&["run"]);
    let of = |table: &'static str| move |(name, _): &(String, i32)| name == table;
    wait_for("some ranges", MINUTE, async || {
        let there = ranges(&target).await;
        there.keys().any(of("plain")) && there.keys().any(of("Full"))
    })
    .await;
    run.kill9();
    source
        .execute(
            "UPDATE public.plain SET id = id + 1 WHERE id % 3 = 0; TRUNCATE public.plain, public.\"Full\";
             INSERT INTO public.plain (id, doc) SELECT i * 3, repeat(md5(i::text), 80) FROM generate_series(1, 2500) AS i;
             INSERT INTO public.\"Full\" (id) SELECT i * 3 FROM generate_series(1, 2500) AS i",
        )
        .await;
    cutwater.run(UNTIL, LONG).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), &TABLES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_altered_between_two_ranges_is_copied_from_its_beginning() {
    let (source, target) = pair().await;
    tables(&source).await;
    let cutwater = in_ranges(&source, &target);
    let mut run = cutwater.start(&["run"]);
    wait_for("some ranges", MINUTE, async || ranges(&target).await.len() >= 3).await;
    run.kill9();
    for table in TABLES {
        source
            .execute(&format!(
                "ALTER TABLE {table} ADD COLUMN late int DEFAULT 7; UPDATE {table} SET late = id WHERE id < 900"
            ))
            .await;
    }
    cutwater.run(UNTIL, LONG).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), &TABLES).await;
}

/// A table that is large enough for ranges is copied again beside the stream, and another is given up while it is copied.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_table_is_copied_again_beside_the_stream_and_one_is_skipped_in_mid_copy() {
    let (source, target) = pair().await;
    tables(&source).await;
    let (source, done) = (Arc::new(source), Arc::new(AtomicBool::new(false)));
    let cutwater = Cutwater::new(&source.url(), &target.url())
        .and("[snapshot]\nworkers = 2\nchunk_rows = 500\nresume_rows = 1000\nmax_rows_per_second = 1500\n");
    let run = cutwater.start(&["run"]);
    wait_for("a copy under way", LONG, async || !ranges(&target).await.is_empty()).await;
    let unfinished =
        "SELECT format('%I.%I', source_schema, source_table) FROM cutwater.table_state WHERE stage <> 'copied'
                       ORDER BY source_table LIMIT 1";
    let being_copied: String = target.value(unfinished).await;
    cutwater.run(&["tables", "skip", &being_copied, "--wait"], LONG).await.assert_code(0);
    let writer = write(&source, &done, rng());
    cutwater.wait_for_status(|facts| facts["phase"] == "streaming").await;

    let others: Vec<&str> = TABLES.into_iter().filter(|table| *table != being_copied).collect();
    let again = others.iter().copied().find(|table| *table != "public.part").unwrap();
    target.execute(&format!("UPDATE {again} SET doc = 'wrong' WHERE id % 4 = 0")).await;
    cutwater.run(&["tables", "resync", again, "--wait"], LONG).await.assert_code(0);
    done.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    run.sigint();
    run.wait(MINUTE).await.assert_code(0);
    cutwater.run(UNTIL, LONG).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), &others).await;
    cutwater.run(&["verify"], MINUTE).await.assert_code(0);
    let facts = cutwater.status().await;
    assert_eq!(facts["divergences"], 0, "{facts}");
}
