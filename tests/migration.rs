//! A live database, moved: what arrives is what was there.

#![allow(clippy::unwrap_used, reason = "a test dies of its errors")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::{Cutwater, Database, assert_equal, pair, wait_for};

const MINUTE: Duration = Duration::from_secs(60);

/// Statements that touch what is hard: unchanged TOAST, key changes, cascades, moves between partitions, arrays, tables
/// without a key, several tables in one transaction. `{i}` is a random row, `{n}` a number that never comes again.
const WRITES: &[&str] = &[
    "INSERT INTO shop.orders VALUES (1000000 + {n}, 1 + {i} % 4000, now(), {i}, NULL); INSERT INTO shop.order_item VALUES (1000000 + {n}, 1, 1 + {i} % 1000, 2)",
    "UPDATE shop.orders SET note = 'changed {n}' WHERE id = 1 + {i} % 20000",
    "UPDATE shop.document SET title = 'title {n}' WHERE id = 1 + {i} % 200",
    "UPDATE shop.document SET body = repeat('new body {n} ', 700) WHERE id = 1 + {i} % 200",
    "UPDATE shop.product SET id = 100000 + {n} WHERE id = (SELECT max(id) FROM shop.product WHERE id NOT IN (SELECT product FROM shop.stock) AND id NOT IN (SELECT product FROM shop.order_item))",
    "INSERT INTO shop.product (id, sku, price, description) VALUES (50000 + {n}, gen_random_uuid(), 5, repeat('x {n}', 1000)) ON CONFLICT DO NOTHING",
    "UPDATE shop.tree SET path = path || '{n}' WHERE depth = 1 + {i} % 100",
    "DELETE FROM shop.orders WHERE id = 1 + {i} % 20000 AND {i} % 5 = 0",
    "UPDATE shop.event SET day = date '2025-07-01' + {i} % 400 WHERE id = 1 + {i} % 20000",
    "INSERT INTO shop.event VALUES (1000000 + {n}, date '2026-02-01' + {i} % 100, 'new', '{\"n\": {n}}')",
    "UPDATE shop.account SET balance = balance - 7 WHERE id = 1 + {i} % 50; UPDATE shop.account SET balance = balance + 7 WHERE id = 51 + {i} % 50",
    "DELETE FROM shop.log_line WHERE ctid IN (SELECT ctid FROM shop.log_line LIMIT 1); INSERT INTO shop.log_line VALUES (now(), 'line {n}'), ('infinity', 'same line')",
    "UPDATE shop.alias SET a = 1000 + {n} WHERE b = -(1 + {i} % 300)",
    "UPDATE shop.vector SET ints = ints || {n}, grid = '{{1,2},{3,NULL}}' WHERE id = 1 + {i} % 300",
    "UPDATE shop.customer SET feeling = 'sad', tags = tags || ARRAY['n{n}'], home = ROW('S', '1', '(1,2)')::shop.address WHERE id = 1 + {i} % 5000",
    "UPDATE shop.big SET a = a + 1 WHERE id BETWEEN {i} AND {i} + 20",
    "INSERT INTO shop.big SELECT 10000000 + {n} * 100 + g, g, 'inserted', now(), g / 3.0 FROM generate_series(1, 20) AS g",
    "DELETE FROM shop.big WHERE id BETWEEN {i} AND {i} + 3",
    "UPDATE shop.counter SET n = n + 1 WHERE name = 'c' || (1 + {i} % 20)",
    "UPDATE shop.employee SET boss = NULL, bonus = 'NaN' WHERE id = 1 + {i} % 200",
    "UPDATE \"Odd Schema\".\"Sélect \"\"From\"\"\" SET \"a.b\" = E'\\t{n}\\\\' WHERE \"user\" = 1 + {i} % 50",
    "UPDATE shop.reading SET v = {n} WHERE sensor = {i} % 10 AND at = (SELECT max(at) FROM shop.reading WHERE sensor = {i} % 10)",
    "TRUNCATE shop.empty_table; INSERT INTO shop.empty_table SELECT g, 'v{n}' FROM generate_series(1, 5) AS g",
    "UPDATE shop.setting SET value = '<n>{n}</n>', vbits = B'101' WHERE key = ''",
    "UPDATE shop.warehouse SET name = NULL, open_hours = '[2026-01-01,2027-01-01)' WHERE id = 1 + {i} % 10",
];

struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Writers {
    async fn start(source: &Database, connections: u64, rows: u64) -> Writers {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = Vec::new();
        for worker in 0..connections {
            let client = source.connect().await;
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            tasks.push(tokio::spawn(async move {
                let mut rng = StdRng::seed_from_u64(worker);
                let mut n = worker;
                while !stop.load(Ordering::Relaxed) {
                    n += connections;
                    let sql = WRITES[rng.random_range(0..WRITES.len())]
                        .replace("{i}", &rng.random_range(1..rows).to_string())
                        .replace("{n}", &n.to_string());
                    match client.batch_execute(&sql).await {
                        Ok(()) => written.fetch_add(1, Ordering::Relaxed),
                        // Two writers in each other's way: the transaction is rolled back, as an application's would be.
                        Err(error)
                            if error.code().is_some_and(|code| matches!(code.code(), "40P01" | "23503" | "23505")) =>
                        {
                            0
                        }
                        Err(error) => panic!("{error:?} in {sql}"),
                    };
                }
            }));
        }
        Writers { stop, written, tasks }
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.written.load(Ordering::Relaxed)
    }
}

async fn user_tables(source: &Database) -> Vec<String> {
    let sql = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname IN ('shop', 'Odd Schema') ORDER BY 1";
    source.connect().await.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn status(cutwater: &Cutwater) -> serde_json::Value {
    cutwater.run(&["status", "--json"], MINUTE).await.json()
}

async fn wait_for_phase(cutwater: &Cutwater, phase: &str, deadline: Duration) {
    wait_for(phase, deadline, async || status(cutwater).await["phase"] == phase).await;
}

/// Runs until everything is over there, and compares every row.
async fn finish_and_compare(cutwater: &Cutwater, source: &Database, target: &Database) {
    cutwater.run(&["run", "--until", "caught-up"], 5 * MINUTE).await.assert_code(0);
    let tables = user_tables(source).await;
    let names: Vec<&str> = tables.iter().map(String::as_str).collect();
    assert_equal(&source.url(), &target.url(), &names).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_database_of_thirty_tables_and_two_million_rows_arrives_exactly() {
    let (source, target) = pair().await;
    source.execute(include_str!("fixtures/thirty_tables.sql")).await;
    source
        .execute("INSERT INTO shop.big SELECT i, i % 1000, md5(i::text), now(), i / 7.0 FROM generate_series(1, 2000000) AS i; ANALYZE")
        .await;
    assert!(user_tables(&source).await.len() >= 30);
    let cutwater = Cutwater::new(&source.url(), &target.url()).and("[snapshot]\nchunk_rows = 300000");

    let writers = Writers::start(&source, 3, 2_000_000).await;
    let run = cutwater.start(&["run"]);
    wait_for_phase(&cutwater, "streaming", 4 * MINUTE).await;
    let so_far = writers.written();
    wait_for("writes while streaming", MINUTE, async || writers.written() > so_far + 300).await;
    cutwater.run(&["verify"], 3 * MINUTE).await.assert_code(0);
    let written = writers.stop().await;
    assert!(written > 500, "only {written} writes are no live database");

    run.sigint();
    run.wait(MINUTE).await.assert_code(0);
    finish_and_compare(&cutwater, &source, &target).await;
    cutwater.run(&["verify"], 3 * MINUTE).await.assert_code(0);

    // What stands around the rows came over too.
    for sql in [
        "SELECT count(*) FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace WHERE n.nspname = 'shop' AND c.convalidated",
        "SELECT count(*) FROM pg_indexes WHERE schemaname IN ('shop', 'Odd Schema')",
        "SELECT count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE NOT tgisinternal AND relname = 'orders'",
        "SELECT count(*) FROM pg_views WHERE schemaname = 'shop'",
        "SELECT count(*) FROM pg_sequences WHERE schemaname = 'shop'",
    ] {
        assert_eq!(source.value::<i64>(sql).await, target.value::<i64>(sql).await, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_rename_and_leave_out_in_snapshot_and_stream_alike() {
    let (source, target) = pair().await;
    source
        .execute(
            "CREATE TABLE public.users (id int PRIMARY KEY, mail text, password text, n int);
             INSERT INTO public.users SELECT i, 'm' || i, 'secret', i FROM generate_series(1, 1000) AS i;
             CREATE TABLE public.other (id int PRIMARY KEY, v text); INSERT INTO public.other VALUES (1, 'x')",
        )
        .await;
    let cutwater = Cutwater::new(&source.url(), &target.url()).and(
        "[[transform]]\nmatch = \"public.users\"\nrename = { schema = \"app\", table = \"people\", columns = { mail = \"email\" } }\ncolumns = [\"*\", \"!password\"]",
    );
    cutwater.run(&["run", "--until", "caught-up"], MINUTE).await.assert_code(0);
    source
        .execute(
            "INSERT INTO public.users VALUES (2000, 'new', 'secret', 1); UPDATE public.users SET mail = 'changed' WHERE id <= 10;
             DELETE FROM public.users WHERE id = 500; UPDATE public.users SET id = 3000 WHERE id = 501; UPDATE public.other SET v = 'y'",
        )
        .await;
    cutwater.run(&["run", "--until", "caught-up"], MINUTE).await.assert_code(0);
    cutwater.run(&["verify"], MINUTE).await.assert_code(0);
    let digest = |table: &str, mail: &str| {
        format!("SELECT md5(string_agg(id || ':' || {mail} || ':' || n, ',' ORDER BY id)) FROM {table}")
    };
    let expected: String = source.value(&digest("public.users", "mail")).await;
    assert_eq!(expected, target.value::<String>(&digest("app.people", "email")).await);
    let leaked: i64 = target
        .value("SELECT count(*) FROM pg_attribute WHERE attname = 'password' AND attrelid = 'app.people'::regclass")
        .await;
    assert_eq!(leaked, 0);
    target.execute("UPDATE app.people SET email = 'wrong' WHERE id = 7").await;
    let differs = cutwater.run(&["verify"], MINUTE).await.assert_code(3);
    assert!(differs.stdout.contains("app.people") || differs.stdout.contains("public.users"), "{}", differs.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_at_the_target_never_sees_money_appear_or_vanish() {
    let (source, target) = pair().await;
    source
        .execute(
            "CREATE TABLE public.account (id int PRIMARY KEY, balance bigint NOT NULL);
             INSERT INTO public.account SELECT i, 1000 FROM generate_series(1, 1000) AS i",
        )
        .await;
    let cutwater = Cutwater::new(&source.url(), &target.url()).and("[apply]\nbatch_rows = 40");
    cutwater.run(&["run", "--until", "caught-up"], MINUTE).await.assert_code(0);
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for worker in 0..2u64 {
        let (client, stop) = (source.connect().await, Arc::clone(&stop));
        writers.push(tokio::spawn(async move {
            let mut rng = StdRng::seed_from_u64(worker);
            while !stop.load(Ordering::Relaxed) {
                // Transactions of 2 to 200 rows: below and above the size of a batch.
                let rows = if rng.random_bool(0.1) { 100 } else { 1 };
                // Accounts of its own, so that the writers never dead-lock.
                let first = 250 * worker;
                let (from, to) = (first + rng.random_range(1..150), first + rng.random_range(501..650));
                let sql = format!(
                    "BEGIN; UPDATE public.account SET balance = balance - 3 WHERE id >= {from} AND id < {from} + {rows};
                     UPDATE public.account SET balance = balance + 3 WHERE id >= {to} AND id < {to} + {rows}; COMMIT"
                );
                client.batch_execute(&sql).await.unwrap();
            }
        }));
    }
    let mut run = cutwater.start(&["run"]);
    let reader = target.connect().await;
    let (mut reads, mut states) = (0u32, std::collections::HashSet::new());
    let mut kills = 0;
    while states.len() < 400 {
        let row = reader
            .query_one(
                "SELECT sum(balance)::bigint, md5(string_agg(balance::text, ',' ORDER BY id)) FROM public.account",
                &[],
            )
            .await
            .unwrap();
        assert_eq!(row.get::<_, i64>(0), 1_000_000, "after {reads} reads");
        states.insert(row.get::<_, String>(1));
        reads += 1;
        if kills < 3 && states.len() > 100 * (kills + 1) {
            run.kill9();
            run = cutwater.start(&["run"]);
            kills += 1;
        }
        assert!(run.is_running(), "{}", run.stderr());
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    run.sigint();
    run.wait(MINUTE).await.assert_code(0);
    cutwater.run(&["run", "--until", "caught-up"], MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), &["public.account"]).await;
}
