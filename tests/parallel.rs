//! `[apply] workers`: several workers, each with a checkpoint of its own, killed between their commits.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test dies of its errors, and prints what it measured")]

mod support;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::sync::Mutex;

use support::{Cutwater, Database, Running, assert_equal, pair, wait_for};

const MINUTE: Duration = Duration::from_secs(60);
const UNTIL: &[&str] = &["run", "--until", "caught-up"];

/// Foreign keys in a circle and to itself, tables without a key (what comes twice shows), values out of line, tables that
/// one TRUNCATE empties.
const SCHEMA: &str = "
    CREATE TABLE public.customer (id int PRIMARY KEY, name text, referred_by int REFERENCES public.customer);
    CREATE TABLE public.purchase (id int PRIMARY KEY, customer int NOT NULL REFERENCES public.customer ON DELETE CASCADE,
                                  note text, n int NOT NULL DEFAULT 0, UNIQUE (customer, n) DEFERRABLE);
    ALTER TABLE public.purchase ALTER COLUMN note SET STORAGE EXTERNAL;
    ALTER TABLE public.customer ADD COLUMN last_purchase int REFERENCES public.purchase ON DELETE SET NULL
                                           DEFERRABLE INITIALLY DEFERRED;
    CREATE TABLE public.line (purchase int REFERENCES public.purchase ON DELETE CASCADE, number int, v text,
                              PRIMARY KEY (purchase, number));
    CREATE TABLE public.log (line text); ALTER TABLE public.log REPLICA IDENTITY FULL;
    CREATE TABLE public.tally (what text, n int); ALTER TABLE public.tally REPLICA IDENTITY FULL;
    CREATE TABLE public.basket (id int PRIMARY KEY, v text);
    CREATE TABLE public.item (basket int REFERENCES public.basket, v text); ALTER TABLE public.item REPLICA IDENTITY FULL;
    INSERT INTO public.customer SELECT i, 'c' || i, nullif(i / 2, 0) FROM generate_series(1, 500) AS i;
    INSERT INTO public.purchase SELECT i, i % 500 + 1, repeat(md5(i::text), 100), i FROM generate_series(1, 1500) AS i;
    INSERT INTO public.line SELECT i % 1500 + 1, i, 'x' FROM generate_series(1, 3000) AS i;
    INSERT INTO public.basket SELECT i, repeat('b', 200) FROM generate_series(1, 3000) AS i;
    INSERT INTO public.item SELECT i, 'i' FROM generate_series(1, 3000) AS i;
    INSERT INTO public.tally SELECT 'kind ' || i % 3, i % 7 FROM generate_series(1, 100) AS i;
    ANALYZE;";

/// A transaction with something for every worker.
const EVERYWHERE: &str = "
    BEGIN; UPDATE public.customer SET name = name || '.' WHERE id < 5; UPDATE public.purchase SET note = note || '.' WHERE id < 5;
    UPDATE public.line SET v = v || '.' WHERE purchase < 5; INSERT INTO public.log VALUES ('everywhere');
    INSERT INTO public.tally VALUES ('everywhere', 1); TRUNCATE public.basket, public.item;
    INSERT INTO public.basket VALUES (1, 'everywhere'); INSERT INTO public.item VALUES (1, 'everywhere'); COMMIT";

const TABLES: [&str; 7] =
    ["public.customer", "public.purchase", "public.line", "public.log", "public.tally", "public.basket", "public.item"];

/// Writes transactions over several tables until it is stopped, some larger than a batch.
struct Writer {
    stop: Arc<AtomicBool>,
    /// Whoever holds it keeps the writer from beginning another transaction.
    gate: Arc<Mutex<()>>,
    written: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Writer {
    async fn start(source: &Database, seed: u64) -> Writer {
        let client = source.connect().await;
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let gate = Arc::new(Mutex::new(()));
        let (stopped, count, open) = (Arc::clone(&stop), Arc::clone(&written), Arc::clone(&gate));
        let task = tokio::spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut n = 10_000;
            while !stopped.load(Ordering::Relaxed) {
                let passed = open.lock().await;
                let mut statements = vec!["BEGIN".to_owned()];
                for _ in 0..rng.random_range(1..5) {
                    n += 1;
                    statements.push(statement(&mut rng, n));
                }
                statements.push("COMMIT".to_owned());
                let sql = statements.join("; ");
                client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
                count.fetch_add(1, Ordering::Relaxed);
                drop(passed);
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..8))).await;
            }
        });
        Writer { stop, gate, written, task }
    }

    /// Waits for so many transactions more.
    async fn writes(&self, more: u64) {
        let goal = self.written.load(Ordering::Relaxed) + more;
        wait_for("the writer", MINUTE, async || self.written.load(Ordering::Relaxed) >= goal).await;
    }

    async fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.written.load(Ordering::Relaxed)
    }
}

fn statement(rng: &mut StdRng, n: i32) -> String {
    let (c, p) = (rng.random_range(1..=500), rng.random_range(1..=1500));
    let any = |table: &str, id: i32| format!("(SELECT id FROM public.{table} WHERE id >= {id} ORDER BY id LIMIT 1)");
    let (customer, purchase) = (any("customer", c), any("purchase", p));
    match rng.random_range(0..14) {
        0 => format!("INSERT INTO public.customer VALUES ({n}, 'new', {customer})"),
        1 => format!("INSERT INTO public.purchase SELECT {n}, {customer}, repeat(md5('{n}'), 100), {n}"),
        2 => format!("UPDATE public.purchase SET n = n + 1 WHERE customer = {customer}"),
        3 => format!("DELETE FROM public.purchase WHERE id = {purchase} AND id > 200"),
        4 => format!(
            "UPDATE public.purchase SET id = {n} WHERE id = {purchase} AND NOT EXISTS (SELECT FROM public.line WHERE purchase = id) AND NOT EXISTS (SELECT FROM public.customer WHERE last_purchase = purchase.id)"
        ),
        5 => format!("UPDATE public.customer SET last_purchase = {purchase}, name = 'c{n}' WHERE id = {customer}"),
        6 => format!("INSERT INTO public.line SELECT {purchase}, {n}, 'of {n}' WHERE {purchase} IS NOT NULL"),
        7 => format!("INSERT INTO public.log SELECT 'line {}' FROM generate_series(1, {})", n % 5, n % 4),
        8 => format!("UPDATE public.tally SET n = n + 1 WHERE what = 'kind {}'", n % 3),
        9 => format!(
            "DELETE FROM public.log WHERE ctid = (SELECT min(ctid) FROM public.log); INSERT INTO public.tally VALUES ('kind {}', 1)",
            n % 3
        ),
        10 => format!(
            "INSERT INTO public.basket VALUES ({n}, 'b'); INSERT INTO public.item SELECT {n}, 'i' FROM generate_series(1, 3)"
        ),
        11 => "TRUNCATE public.basket CASCADE".to_owned(),
        12 => format!(
            "TRUNCATE public.item; INSERT INTO public.item SELECT id, 'after' FROM public.basket WHERE id % 2 = {}",
            n % 2
        ),
        // Larger than a batch.
        _ => format!(
            "INSERT INTO public.log SELECT 'many' FROM generate_series(1, 90); UPDATE public.line SET v = 'all {n}' WHERE number % 50 = {}",
            n % 50
        ),
    }
}

fn set_workers(cutwater: &Cutwater, workers: i64) {
    let text = fs::read_to_string(cutwater.config_path()).unwrap();
    let (before, _) = text.rsplit_once("workers = ").unwrap();
    fs::write(cutwater.config_path(), format!("{before}workers = {workers}\n")).unwrap();
}

async fn following(cutwater: &Cutwater) -> Running {
    let mut run = cutwater.start(&["run"]);
    wait_for("the stream", MINUTE, async || {
        assert!(run.is_running(), "it ended by itself: {}", run.stderr());
        run.stderr().contains("following the source")
    })
    .await;
    run
}

/// How many workers have committed what worker 0 has not.
async fn beyond(target: &Database) -> i64 {
    let sql = "SELECT count(*) FROM cutwater.checkpoint a JOIN cutwater.checkpoint b USING (migration)
                WHERE b.worker = 0 AND a.worker > 0 AND a.position::pg_lsn > b.position::pg_lsn";
    target.value(sql).await
}

async fn nothing_was_set_aside(cutwater: &Cutwater) {
    let status = cutwater.status().await;
    assert_eq!((&status["divergences"], &status["dead_letters"]), (&0.into(), &0.into()), "{status:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_killed_between_their_commits_resume_each_from_its_own_checkpoint() {
    let (source, target) = pair().await;
    source.execute(SCHEMA).await;
    let mut rng = support::rng();
    let cutwater = Cutwater::new(&source.url(), &target.url()).and("[apply]\nbatch_rows = 40\nworkers = 4");
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    let spread: i64 = target.value("SELECT count(DISTINCT worker) FROM cutwater.table_state").await;
    assert_eq!(spread, 4);
    let writer = Writer::start(&source, rng.random()).await;
    let (mut apart, mut changed_while_apart) = (0, 0);
    // How many workers; and whether a worker is held up in a batch that has something for every other one.
    let rounds =
        [(4, true), (2, true), (4, false), (3, true), (1, false), (4, true), (3, false), (2, false), (3, true)];
    for (round, (workers, sure)) in rounds.into_iter().enumerate() {
        set_workers(&cutwater, workers);
        let before: i64 = target.value("SELECT count(*) FROM cutwater.checkpoint").await;
        changed_while_apart += i32::from(beyond(&target).await > 0 && before != workers);
        let mut run = following(&cutwater).await;
        // At once, or after a while: also in mid of what brings the workers together again.
        writer.writes([1, 40, 120][round % 3]).await;
        let closed = if sure { Some(writer.gate.lock().await) } else { None };
        if sure {
            let marker = format!("marker {round}");
            source.execute(&format!("INSERT INTO public.log VALUES ('{marker}')")).await;
            wait_for("the marker", MINUTE, async || {
                let sql = format!("SELECT count(*) FROM public.log WHERE line = '{marker}'");
                target.value::<i64>(&sql).await == 1
            })
            .await;
        }
        // Worker 0, or another one.
        let of = if round % 2 == 0 || workers == 2 { "= 0" } else { "= 1" };
        let sql =
            format!("SELECT source_table::text FROM cutwater.table_state WHERE worker {of} ORDER BY random() LIMIT 1");
        let held: String = match (round, workers) {
            (_, 1) => "purchase".into(),
            // It is emptied by one TRUNCATE with a table that refers to it, and that has rows again when this one follows.
            (5, _) => "basket".into(),
            _ => target.value(&sql).await,
        };
        let two = "SELECT count(DISTINCT worker) FROM cutwater.table_state WHERE source_table IN ('basket', 'item')";
        assert!(round != 5 || target.value::<i64>(two).await == 2, "one worker has both");
        let holder = target.connect().await;
        holder.batch_execute(&format!("BEGIN; LOCK TABLE public.{held} IN ACCESS EXCLUSIVE MODE")).await.unwrap();
        if sure {
            source.execute(EVERYWHERE).await;
            wait_for(&format!("workers to commit while {held} is held"), MINUTE, async || beyond(&target).await > 0)
                .await;
        } else {
            wait_for(&format!("a worker to be held up at {held}"), MINUTE, async || {
                let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted
                             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
                target.value::<i64>(waits).await > 0
            })
            .await;
        }
        assert!(run.is_running(), "it ended by itself: {}", run.stderr());
        run.kill9();
        drop(closed);
        holder.batch_execute("ROLLBACK").await.unwrap();
        // What the killed one left at the target ends by itself.
        let name = &source.name;
        wait_for("its sessions to end", MINUTE, async || {
            let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cutwater_{name}'");
            target.value::<i64>(&sql).await == 0
        })
        .await;
        apart += i32::from(beyond(&target).await > 0);
    }
    set_workers(&cutwater, 3);
    let run = following(&cutwater).await;
    writer.writes(50).await;
    run.sigint();
    run.wait(MINUTE).await.assert_code(0);
    let written = writer.finish().await;
    cutwater.run(UNTIL, 2 * MINUTE).await.assert_code(0);
    eprintln!("{written} transactions; apart after {apart} kills, {changed_while_apart} times under another number");
    assert!(apart >= 5 && changed_while_apart >= 4, "apart {apart} times, changed {changed_while_apart} times");
    let rows: i64 = target.value("SELECT count(*) FROM cutwater.checkpoint").await;
    assert_eq!(rows, 3);
    assert_equal(&source.url(), &target.url(), &TABLES).await;
    nothing_was_set_aside(&cutwater).await;
    cutwater.run(&["verify"], MINUTE).await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_one_worker_refuses_stops_all_and_none_does_its_part_again() {
    let (source, target) = pair().await;
    source.execute(SCHEMA).await;
    let cutwater = Cutwater::new(&source.url(), &target.url()).and("[apply]\nbatch_rows = 40\nworkers = 4");
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    let worker: i32 = target.value("SELECT worker FROM cutwater.table_state WHERE source_table = 'log'").await;
    let other = "SELECT source_table::text FROM cutwater.table_state WHERE worker NOT IN (0, $1) LIMIT 1";
    let other: String = target.value(&other.replace("$1", &worker.to_string())).await;
    target.execute("ALTER TABLE public.log ADD CONSTRAINT never CHECK (line <> 'refused') NOT VALID").await;
    let insert = match other.as_str() {
        "tally" => "INSERT INTO public.tally VALUES ('here', 1)",
        "item" => "INSERT INTO public.item VALUES (NULL, 'here')",
        "basket" => "INSERT INTO public.basket VALUES (900000, 'here')",
        _ => {
            "UPDATE public.customer SET name = 'here'; UPDATE public.purchase SET note = note || '!'; UPDATE public.line SET v = 'here'"
        }
    };
    source
        .execute(&format!("BEGIN; {insert}; INSERT INTO public.tally VALUES ('with it', 1); INSERT INTO public.log VALUES ('refused'); COMMIT"))
        .await;
    let stopped = cutwater.run(UNTIL, MINUTE).await.assert_code(1);
    assert!(stopped.stderr.contains("public.log") && stopped.stderr.contains("never"), "{}", stopped.stderr);
    // However often: what has committed its part is not asked again.
    cutwater.run(UNTIL, MINUTE).await.assert_code(1);
    target.execute("ALTER TABLE public.log DROP CONSTRAINT never").await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), &TABLES).await;
    nothing_was_set_aside(&cutwater).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_of_several_workers_ends_exact() {
    let (source, target) = pair().await;
    source.execute(SCHEMA).await;
    let cutwater = Cutwater::new(&source.url(), &target.url())
        .and("[cutover]\nswitch_command = \"true\"\n[apply]\nbatch_rows = 40\nworkers = 3");
    let check = cutwater.run(&["check"], MINUTE).await;
    assert!(check.stdout.contains("may see a transaction of several tables"), "{}", check.stdout);
    let run = cutwater.start(&["run"]);
    cutwater.wait_for_status(|status| status["phase"] == "streaming").await;
    let client = source.connect().await;
    let mut rng = support::rng();
    for n in 0..200 {
        client.batch_execute(&statement(&mut rng, 10_000 + n)).await.unwrap();
    }
    cutwater.run(&["verify"], MINUTE).await.assert_code(0);
    for n in 200..400 {
        client.batch_execute(&statement(&mut rng, 10_000 + n)).await.unwrap();
    }
    // What changed since the verify is known of every worker's tables, and compared behind the fence.
    wait_for("the keys of what changed", MINUTE, async || {
        let sql = "SELECT count(DISTINCT t.worker) FROM cutwater.table_state t JOIN cutwater.changed_key k
                   ON k.tbl = format('\"%s\".\"%s\"', t.target_schema, t.target_table)";
        target.value::<i64>(sql).await >= 2
    })
    .await;
    cutwater.run(&["cutover", "--wait"], 2 * MINUTE).await.assert_code(0);
    run.wait(MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), &TABLES).await;
    cutwater.run(&["teardown", "--release-source"], MINUTE).await.assert_code(0);
    let name = &source.name;
    let origins = format!("SELECT count(*) FROM pg_replication_origin WHERE roname LIKE 'cutwater_{name}%'");
    assert_eq!(target.value::<i64>(&origins).await, 0);
}
