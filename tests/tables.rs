//! The set of tables changes in mid-migration, under writes, and every table is exact at the end.

#![allow(clippy::unwrap_used, reason = "a test dies of its errors")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng, rngs::StdRng};
use support::{Cutwater, Database, Running, assert_equal, pair, wait_for};

const MINUTE: Duration = Duration::from_secs(60);
const UNTIL: &[&str] = &["run", "--until", "caught-up"];

/// A bank, a shop whose foreign keys go both ways and to itself, partitions, a table without a key.
const SCHEMA: &str = "
    CREATE TABLE public.account (id int PRIMARY KEY, balance bigint NOT NULL);
    INSERT INTO public.account SELECT i, 1000 FROM generate_series(1, 200) AS i;
    CREATE TABLE public.customer (id int PRIMARY KEY, name text, referred_by int REFERENCES public.customer);
    CREATE TABLE public.purchase (id serial PRIMARY KEY, customer int NOT NULL REFERENCES public.customer ON DELETE CASCADE,
                                  note text, n int NOT NULL DEFAULT 0);
    CREATE INDEX purchase_customer ON public.purchase (customer);
    ALTER TABLE public.customer ADD COLUMN last_purchase int REFERENCES public.purchase DEFERRABLE INITIALLY DEFERRED;
    CREATE TABLE public.event (id bigint NOT NULL, region text NOT NULL, payload text, PRIMARY KEY (id, region))
        PARTITION BY LIST (region);
    CREATE TABLE public.event_n PARTITION OF public.event FOR VALUES IN ('n');
    CREATE TABLE public.event_s PARTITION OF public.event FOR VALUES IN ('s');
    CREATE TABLE public.log (line text); ALTER TABLE public.log REPLICA IDENTITY FULL;
    INSERT INTO public.customer SELECT i, 'c' || i, nullif(i / 2, 0), NULL FROM generate_series(1, 2000) AS i;
    INSERT INTO public.purchase (customer, note) SELECT i % 2000 + 1, repeat(md5(i::text), 100) FROM generate_series(1, 6000) AS i;
    INSERT INTO public.event SELECT i, CASE i % 2 WHEN 0 THEN 'n' ELSE 's' END, md5(i::text) FROM generate_series(1, 4000) AS i;
    ANALYZE;";

const TABLES: [&str; 5] = ["public.account", "public.customer", "public.purchase", "public.event", "public.log"];

/// Writes to every table until stopped; each transaction moves money too, so that each is seen whole or not at all.
struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Writers {
    async fn start(source: &Database) -> Writers {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = Vec::new();
        for worker in 0..2u64 {
            let client = source.connect().await;
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            tasks.push(tokio::spawn(async move {
                let mut rng = StdRng::seed_from_u64(worker);
                let mut n = 1_000_000 * (worker + 1);
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    let (a, b) = (rng.random_range(1..100) * 2 - worker, rng.random_range(1..100) * 2 - worker);
                    let c = rng.random_range(1..2000);
                    let work = match rng.random_range(0..9) {
                        0 => format!("INSERT INTO public.customer VALUES ({n}, 'new', {c})"),
                        1 => format!(
                            "INSERT INTO public.purchase (customer, note, n) VALUES ({c}, repeat(md5('{n}'), 100), {n})"
                        ),
                        2 => format!("UPDATE public.purchase SET n = {n} WHERE id = {c}"),
                        3 => format!("DELETE FROM public.purchase WHERE n BETWEEN 1 AND {} AND id % 7 = 0", n - 500),
                        4 => format!("INSERT INTO public.event VALUES ({n}, 'n', 'x')"),
                        5 => format!("UPDATE public.event SET region = 's' WHERE id = {c} AND region = 'n'"),
                        // Few, however long the test takes: it stays a table in one part.
                        6 if n % 4 == 0 => format!("INSERT INTO public.log VALUES ('line {}')", n % 5),
                        7 => format!("UPDATE public.customer SET name = 'c{n}' WHERE id = {c}"),
                        _ => format!("UPDATE public.purchase SET id = id + 100000000 WHERE id = {c}"),
                    };
                    let sql = format!(
                        "BEGIN; UPDATE public.account SET balance = balance - 3 WHERE id = {a}; {work};
                         UPDATE public.account SET balance = balance + 3 WHERE id = {b}; COMMIT"
                    );
                    match client.batch_execute(&sql).await {
                        Ok(()) => drop(written.fetch_add(1, Ordering::Relaxed)),
                        // Two writers in each other's way, or a parent that is gone: rolled back.
                        Err(error) => {
                            let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
                            assert!(["40P01", "23503", "23505"].contains(&code.as_str()), "{error:?} in {sql}");
                            client.batch_execute("ROLLBACK").await.unwrap();
                        }
                    }
                    // A busy application and not a benchmark: others test on these two cores too.
                    tokio::time::sleep(Duration::from_millis(4)).await;
                }
            }));
        }
        Writers { stop, written, tasks }
    }

    async fn more(&self, count: u64) {
        let so_far = self.written.load(Ordering::Relaxed);
        wait_for("writes", MINUTE, async || self.written.load(Ordering::Relaxed) > so_far + count).await;
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

/// Reads the sum of all balances at the target all the time.
struct Bank(tokio::task::JoinHandle<u64>, Arc<AtomicBool>);

impl Bank {
    async fn watch(target: &Database) -> Bank {
        let (client, stop) = (target.connect().await, Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        Bank(
            tokio::spawn(async move {
                let mut reads = 0;
                while !stopped.load(Ordering::Relaxed) {
                    let row = client.query_one("SELECT sum(balance)::bigint FROM public.account", &[]).await.unwrap();
                    assert_eq!(row.get::<_, i64>(0), 200_000, "after {reads} reads");
                    reads += 1;
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
                reads
            }),
            stop,
        )
    }

    async fn ended(self) {
        self.1.store(true, Ordering::Relaxed);
        assert!(self.0.await.unwrap() > 20, "the balances were hardly looked at");
    }
}

async fn streaming(cutwater: &Cutwater) -> Running {
    let run = cutwater.start(&["run"]);
    wait_for("streaming", 2 * MINUTE, async || {
        cutwater.run(&["status", "--json"], MINUTE).await.json()["phase"] == "streaming"
    })
    .await;
    run
}

async fn tables(cutwater: &Cutwater) -> serde_json::Value {
    cutwater.run(&["tables", "--json"], MINUTE).await.assert_code(0).json()
}

async fn state_of(cutwater: &Cutwater, table: &str) -> String {
    let answer = tables(cutwater).await;
    let found = answer["tables"].as_array().unwrap().iter().find(|entry| entry["name"] == table).cloned();
    found.map_or_else(|| "none".to_owned(), |entry| entry["state"].as_str().unwrap().to_owned())
}

async fn finish(cutwater: &Cutwater, run: Running) {
    run.sigint();
    run.wait(MINUTE).await.assert_code(0);
    cutwater.run(UNTIL, 2 * MINUTE).await.assert_code(0);
}

async fn foreign_keys(at: &Database) -> i64 {
    at.value("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated AND connamespace = 'public'::regnamespace")
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_join_leave_and_are_copied_again_under_writes_and_are_exact() {
    let (source, target) = pair().await;
    source.execute(SCHEMA).await;
    let cutwater = Cutwater::with_config(&format!(
        "[migration]\nname = \"{}\"\n[source]\nurl = \"{}\"\ntables = [\"*.*\", \"!public.event\", \"!public.purchase\"]\n\
         [target]\nurl = \"{}\"\n[snapshot]\nchunk_rows = 1500\n",
        source.name,
        source.url(),
        target.url()
    ));
    let writers = Writers::start(&source).await;
    let mut run = streaming(&cutwater).await;
    let bank = Bank::watch(&target).await;

    // Two tables join: one of partitions, one that foreign keys lead from and to.
    let refused = cutwater.run(&["tables", "add", "public.nothing"], MINUTE).await.assert_code(2);
    assert!(refused.stderr.contains("matches no table"), "{}", refused.stderr);
    let refused = cutwater.run(&["tables", "add", "public.log"], MINUTE).await.assert_code(3);
    assert!(refused.stderr.contains("part of the migration already"), "{}", refused.stderr);
    let refused = cutwater.run(&["tables", "resync", "public.event"], MINUTE).await.assert_code(2);
    assert!(refused.stderr.contains("matches no table of the migration"), "{}", refused.stderr);
    let added = cutwater.run(&["tables", "add", "public.event", "public.purchase", "--wait"], 2 * MINUTE).await;
    assert!(added.assert_code(0).stdout.contains("The run does it now"));
    writers.more(100).await;
    assert_eq!(state_of(&cutwater, "public.event").await, "streaming");
    assert_eq!(foreign_keys(&source).await, foreign_keys(&target).await, "with all that hangs on them");

    wait_for("lines in the log", MINUTE, async || target.value::<i64>("SELECT count(*) FROM public.log").await > 20)
        .await;
    // A table is damaged at the target and copied again, with foreign keys both ways; readers see it full at any time.
    target
        .execute("UPDATE public.customer SET name = 'wrong' WHERE id % 3 = 0; UPDATE public.log SET line = 'wrong'")
        .await;
    let reader = target.connect().await;
    let resync = cutwater.start(&["tables", "resync", "public.customer", "public.log", "--wait"]);
    let (mut resync, begun) = (Some(resync), Instant::now());
    while let Some(running) = resync.as_mut() {
        assert!(begun.elapsed() < 2 * MINUTE && run.is_running(), "{}", run.stderr());
        let rows: i64 = reader.query_one("SELECT count(*) FROM public.log", &[]).await.unwrap().get(0);
        assert!(rows > 0, "a table in one part is never seen empty");
        if !running.is_running() {
            resync.take().unwrap().wait(MINUTE).await.assert_code(0);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(foreign_keys(&source).await, foreign_keys(&target).await);

    // One leaves: it stands still at the target, and the others go on.
    let removed = cutwater.run(&["tables", "remove", "public.log", "--wait"], MINUTE).await.assert_code(0);
    assert!(removed.stdout.contains("stays there"), "{}", removed.stdout);
    let before: i64 = target.value("SELECT count(*) FROM public.log").await;
    writers.more(200).await;
    assert_eq!(state_of(&cutwater, "public.log").await, "removed");
    let published: i64 = source.value("SELECT count(*) FROM pg_publication_tables WHERE tablename = 'log'").await;
    assert_eq!(published, 0);
    writers.stop().await;
    bank.ended().await;
    finish(&cutwater, run).await;
    assert_eq!(target.value::<i64>("SELECT count(*) FROM public.log").await, before);
    assert_equal(&source.url(), &target.url(), &TABLES[..4]).await;
    cutwater.run(&["verify"], MINUTE).await.assert_code(0);
    let status = cutwater.run(&["status", "--json"], MINUTE).await.json();
    assert_eq!(status["divergences"], 0, "{status}");
    let slots: i64 = source
        .value(&format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'cutwater_{}%'", source.name))
        .await;
    assert_eq!(slots, 1, "the temporary ones are gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_killed_around_the_hand_over_loses_and_doubles_nothing() {
    let mut rng = support::rng();
    let (source, target) = pair().await;
    source.execute(SCHEMA).await;
    let cutwater =
        Cutwater::new(&source.url(), &target.url()).and("[snapshot]\nchunk_rows = 1500\n[apply]\nbatch_rows = 50");
    let writers = Writers::start(&source).await;
    let mut run = streaming(&cutwater).await;
    let bank = Bank::watch(&target).await;
    for kill in 0..6 {
        let table = ["public.purchase", "public.customer", "public.event", "public.log"][kill % 4];
        cutwater.run(&["tables", "resync", table], MINUTE).await.assert_code(0);
        // Half of the kills fall into the copy, half are aimed at the hand-over: the side stream has begun.
        if kill % 2 == 1 {
            wait_for("the copy's end", MINUTE, async || {
                let seen: i64 =
                    target.value("SELECT count(*) FROM cutwater.table_state WHERE stage = 'catching-up'").await;
                let open: i64 = target.value("SELECT count(*) FROM cutwater.table_request").await;
                let waits: i64 =
                    target.value("SELECT count(*) FROM cutwater.table_state WHERE stage <> 'copied'").await;
                seen > 0 || (open == 0 && waits == 0)
            })
            .await;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..1200))).await;
        assert!(run.is_running(), "{}", run.stderr());
        run.kill9();
        run = cutwater.start(&["run"]);
    }
    wait_for("all tables", 2 * MINUTE, async || {
        let answer = tables(&cutwater).await;
        answer["tables"]
            .as_array()
            .unwrap()
            .iter()
            .all(|table| table["state"] == "streaming" && table["requested"].is_null())
    })
    .await;
    writers.more(100).await;
    writers.stop().await;
    bank.ended().await;
    finish(&cutwater, run).await;
    assert_equal(&source.url(), &target.url(), &TABLES).await;
    let status = cutwater.run(&["status", "--json"], MINUTE).await.json();
    assert_eq!(status["divergences"], 0, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_fails_does_not_stop_the_others_and_is_mended_or_skipped() {
    let (source, target) = pair().await;
    source.execute(SCHEMA).await;
    // Tables made by hand, in which two of them do not fit.
    let cutwater = Cutwater::new(&source.url(), &target.url());
    cutwater.run(&["schema", "--apply"], MINUTE).await.assert_code(0);
    target
        .execute(
            "ALTER TABLE public.customer ADD CONSTRAINT narrow CHECK (length(name) < 4);
             ALTER TABLE public.log ADD CONSTRAINT short CHECK (length(line) < 3)",
        )
        .await;
    source.execute("INSERT INTO public.log VALUES ('too long')").await;
    let writers = Writers::start(&source).await;
    let run = streaming(&cutwater).await;
    assert_eq!(state_of(&cutwater, "public.customer").await, "failed");
    assert_eq!(state_of(&cutwater, "public.purchase").await, "streaming");
    let text = cutwater.run(&["status"], MINUTE).await.assert_code(0).stdout;
    assert!(text.contains("public.customer could not be copied") && text.contains("narrow"), "{text}");
    assert!(text.contains("failed: copying public.customer: "), "what was done is said once: {text}");
    assert!(text.contains("tables resync"), "{text}");
    let refused = cutwater.run(&["cutover"], MINUTE).await.assert_code(3);
    assert!(refused.stdout.contains("public.customer could not be copied"), "{}", refused.stdout);
    let wait = cutwater.run(&["tables", "resync", "public.customer", "--wait"], MINUTE).await.assert_code(1);
    assert!(wait.stderr.contains("narrow"), "still in the way: {}", wait.stderr);

    // Mended: it comes back with its foreign keys. Skipped: nothing waits for it, and everybody says so.
    target.execute("ALTER TABLE public.customer DROP CONSTRAINT narrow").await;
    cutwater.run(&["tables", "resync", "public.customer", "--wait"], 2 * MINUTE).await.assert_code(0);
    cutwater.run(&["tables", "skip", "public.log", "--wait"], MINUTE).await.assert_code(0);
    assert_eq!(foreign_keys(&source).await, foreign_keys(&target).await);
    writers.more(100).await;
    writers.stop().await;
    assert_eq!(state_of(&cutwater, "public.log").await, "skipped");
    let text = cutwater.run(&["status"], MINUTE).await.assert_code(0).stdout;
    assert!(text.contains("public.log: not carried"), "{text}");
    cutwater.run(&["verify"], MINUTE).await.assert_code(0);
    let rehearsed = cutwater.run(&["cutover", "--dry-run", "--wait"], MINUTE).await.assert_code(0);
    assert!(rehearsed.stderr.contains("public.log is not carried"), "{rehearsed:?}");
    cutwater.run(&["cutover", "--wait"], 2 * MINUTE).await.assert_code(0);
    run.wait(MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), &TABLES[..4]).await;
    let late = cutwater.run(&["tables", "resync", "public.log"], MINUTE).await.assert_code(3);
    assert!(late.stderr.contains("cutover is done"), "{}", late.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_list_is_compared_with_the_migration_and_a_dead_run_is_waited_for() {
    let (source, target) = pair().await;
    source.execute("CREATE TABLE public.a (id int PRIMARY KEY); CREATE TABLE public.b (id int PRIMARY KEY)").await;
    let config = |tables: &str| {
        format!(
            "[migration]\nname = \"{}\"\n[source]\nurl = \"{}\"\ntables = [{tables}]\n[target]\nurl = \"{}\"\n",
            source.name,
            source.url(),
            target.url()
        )
    };
    let cutwater = Cutwater::with_config(&config("\"public.*\""));
    let early = cutwater.run(&["tables", "skip", "public.a"], MINUTE).await.assert_code(3);
    assert!(early.stderr.contains("nothing was migrated yet"), "{}", early.stderr);
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    source.execute("CREATE TABLE public.\"New One\" (id int PRIMARY KEY); INSERT INTO public.\"New One\" VALUES (1); DROP TABLE public.b").await;
    let edited = Cutwater::with_config(&config("\"public.b\", \"public.New*\""));
    let check = edited.run(&["check"], MINUTE).await.assert_code(3).stdout;
    for part in [
        "public.a is part of the migration and [source] tables does not match it",
        "cutwater tables remove public.a",
        "public.New One matches [source] tables and is not part of the migration",
        "cutwater tables add '\"public\".\"New One\"'",
        "public.b is part of the migration and no longer at the source",
        "cutwater tables remove public.b",
    ] {
        assert!(check.contains(part), "{part:?} is missing in:\n{check}");
    }
    let run = edited.run(UNTIL, MINUTE).await.assert_code(1);
    assert!(run.stderr.contains("cutwater tables remove public.b"), "{}", run.stderr);
    let accepted = edited.run(&["tables", "remove", "public.b"], MINUTE).await.assert_code(0);
    assert!(accepted.stdout.contains("The next run does it"), "{}", accepted.stdout);
    edited.run(&["tables", "add", "\"public\".\"New One\""], MINUTE).await.assert_code(0);
    let run = edited.run(UNTIL, MINUTE).await.assert_code(0);
    assert!(run.stderr.contains("does not match it"), "a run says it too: {}", run.stderr);
    assert_equal(&source.url(), &target.url(), &["public.a", "public.\"New One\""]).await;
    let rows = edited.run(&["tables", "--json"], MINUTE).await.json();
    assert_eq!(rows["tables"].as_array().unwrap().len(), 3, "{rows}");
}

/// The COMMIT of a hand-over is under way when its connection breaks: what becomes of it is known before the stream goes
/// on, or the stream would go on without a table that counts as its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_whose_answer_is_lost_is_decided_before_the_stream_goes_on() {
    let (source, target) = pair().await;
    source
        .execute(
            "CREATE TABLE public.a (id int PRIMARY KEY, v text); CREATE TABLE public.b (id int PRIMARY KEY, v text)",
        )
        .await;
    let proxy = support::Proxy::start(target.server.port()).await;
    let cutwater = Cutwater::new(&source.url(), &proxy.url(cutwater::cli::demo::server::SUPERUSER, &target.name));
    let mut run = streaming(&cutwater).await;
    // It waits in its statement, so that the proxy can be told whose COMMIT is meant, and then in that COMMIT.
    target
        .execute(
            "CREATE FUNCTION public.hold_up() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN PERFORM pg_advisory_xact_lock_shared(TG_ARGV[0]::int); RETURN NEW; END';
             CREATE TRIGGER in_the_statement BEFORE UPDATE ON cutwater.table_state FOR EACH ROW
                 WHEN (OLD.stage = 'catching-up' AND NEW.stage = 'copied') EXECUTE FUNCTION public.hold_up(1);
             CREATE CONSTRAINT TRIGGER in_the_commit AFTER UPDATE ON cutwater.table_state
                 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
                 WHEN (OLD.stage = 'catching-up' AND NEW.stage = 'copied') EXECUTE FUNCTION public.hold_up(2)",
        )
        .await;
    let (first, second) = (target.connect().await, target.connect().await);
    first.batch_execute("SELECT pg_advisory_lock(1)").await.unwrap();
    second.batch_execute("SELECT pg_advisory_lock(2)").await.unwrap();
    let waits = async |what: &str| {
        let sql = format!(
            "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
              WHERE NOT l.granted AND a.datname = current_database() AND {what}"
        );
        target.value::<i64>(&sql).await > 0
    };
    cutwater.run(&["tables", "resync", "public.b"], MINUTE).await.assert_code(0);
    wait_for("the hand-over", MINUTE, async || waits("l.locktype = 'advisory' AND l.objid = 1").await).await;
    proxy.cut_behind(b"COMMIT");
    first.batch_execute("SELECT pg_advisory_unlock(1)").await.unwrap();
    wait_for("its COMMIT", MINUTE, async || {
        waits("l.locktype = 'advisory' AND l.objid = 2").await && proxy.sprung() == 1
    })
    .await;
    // The stream wants to go on. With the hand-over undecided it must not.
    source.execute("INSERT INTO public.a VALUES (1, 'beside'); INSERT INTO public.b VALUES (1, 'after')").await;
    let went_on = async || target.value::<i64>("SELECT count(*) FROM public.a").await > 0;
    wait_for("the stream to begin again", MINUTE, async || {
        went_on().await || waits("a.query LIKE '%cutwater.checkpoint%FOR UPDATE%'").await
    })
    .await;
    assert!(!went_on().await, "the stream went on beside an undecided hand-over");
    second.batch_execute("SELECT pg_advisory_unlock(2)").await.unwrap();
    wait_for("the row of the table that was handed over", MINUTE, async || {
        assert!(run.is_running(), "{}", run.stderr());
        target.value::<i64>("SELECT count(*) FROM public.b").await == 1
    })
    .await;
    finish(&cutwater, run).await;
    assert_equal(&source.url(), &target.url(), &["public.a", "public.b"]).await;
}
