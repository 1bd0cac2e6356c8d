//! The laws, one by one, against real servers and with the real binary.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test dies of its errors, and tells its figures"
)]

mod support;

use std::time::{Duration, Instant};

use cutwater::cli::demo::server::{LocalPostgres, SUPERUSER, StopMode};
use support::{Cutwater, Database, Running, assert_equal, pair, wait_for};

const MINUTE: Duration = Duration::from_secs(60);

async fn status(cutwater: &Cutwater) -> serde_json::Value {
    cutwater.run(&["status", "--json"], MINUTE).await.json()
}

async fn streaming(cutwater: &Cutwater) -> Running {
    let run = cutwater.start(&["run"]);
    wait_for("streaming", MINUTE, async || status(cutwater).await["phase"] == "streaming").await;
    run
}

async fn count(at: &Database, table: &str) -> i64 {
    at.value(&format!("SELECT count(*) FROM {table}")).await
}

async fn items() -> (Database, Database, Cutwater) {
    let (source, target) = pair().await;
    source
        .execute(
            "CREATE TABLE public.item (id int PRIMARY KEY, v text);
             INSERT INTO public.item SELECT i, 'v' || i FROM generate_series(1, 1000) AS i",
        )
        .await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    (source, target, cutwater)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_wakes_up_late_is_fenced_by_its_successor() {
    let (source, target, cutwater) = items().await;
    let first = streaming(&cutwater).await;
    first.sigstop();
    source.execute("UPDATE public.item SET v = 'while it slept'; INSERT INTO public.item VALUES (5000, 'x')").await;
    // The lease of a process that may still live is waited out; then the successor works.
    let second = cutwater.start(&["run"]);
    wait_for("the successor", MINUTE, async || count(&target, "public.item").await == 1001).await;
    first.sigcont();
    source.execute("DELETE FROM public.item WHERE id <= 10").await;
    let ended = first.wait(MINUTE).await.assert_code(1);
    assert!(ended.stderr.contains("taken over"), "{}", ended.stderr);
    wait_for("the deletes", MINUTE, async || count(&target, "public.item").await == 991).await;
    second.sigterm();
    second.wait(MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), &["public.item"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_waits_for_the_first_and_takes_over_when_it_is_killed() {
    let (source, target, cutwater) = items().await;
    let mut first = streaming(&cutwater).await;
    let second = cutwater.start(&["run"]);
    wait_for("the second to wait", MINUTE, async || second.stderr().contains("waiting for it to end")).await;
    first.kill9();
    source.execute("INSERT INTO public.item VALUES (5000, 'x')").await;
    wait_for("the second to work", MINUTE, async || count(&target, "public.item").await == 1001).await;
    second.sigint();
    second.wait(MINUTE).await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_ahead_of_the_checkpoint_is_a_refusal_and_not_a_silent_gap() {
    let (source, target, cutwater) = items().await;
    cutwater.run(&["run", "--until", "caught-up"], MINUTE).await.assert_code(0);
    // What a target restored from a backup looks like to the source: the slot has moved on, the checkpoint has not.
    source.execute("INSERT INTO public.item VALUES (5000, 'never seen')").await;
    let slot = format!("cutwater_{}", source.name);
    source.execute(&format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())")).await;
    source.execute("INSERT INTO public.item VALUES (5001, 'after the gap')").await;
    let refused = cutwater.run(&["run", "--until", "caught-up"], MINUTE).await.assert_code(1);
    assert!(refused.stderr.contains("slot"), "{}", refused.stderr);
    assert_eq!(count(&target, "public.item").await, 1000, "nothing after the gap was applied");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_truncate_hid_from_the_copy_are_no_divergence() {
    let (source, target, cutwater) = copied_second().await;
    let mut run = cutwater.start(&["run"]);
    wait_for("the first table's copy", MINUTE, async || copying(&cutwater, "public.first").await).await;
    // The slot and its snapshot exist, and the second table is still to be read. To its snapshot the TRUNCATE is not
    // visible, and yet it finds the table empty. The update is larger than what is read at once: it is a batch of its own.
    source.execute("UPDATE public.second SET v = repeat('y', 600)").await;
    source.execute("DELETE FROM public.second WHERE id <= 50").await;
    source.execute("TRUNCATE public.second; INSERT INTO public.second VALUES (1, 'new')").await;
    assert!(copying(&cutwater, "public.first").await, "the first copy was over before the claim was tried");
    cutwater.run(&["set", "snapshot.max_rows_per_second=none"], MINUTE).await.assert_code(0);
    wait_for("streaming", MINUTE, async || {
        assert!(run.is_running(), "{}", run.stderr());
        status(&cutwater).await["phase"] == "streaming"
    })
    .await;
    wait_for("the new row", MINUTE, async || count(&target, "public.second").await == 1).await;
    // Behind the copy's end a row that is not there is one again.
    target.execute("DELETE FROM public.second").await;
    source.execute("UPDATE public.second SET v = 'newer'").await;
    let ended = run.wait(MINUTE).await.assert_code(1);
    assert!(ended.stderr.contains("public.second (id = 1)"), "{}", ended.stderr);
    target.execute("INSERT INTO public.second VALUES (1, 'new')").await;
    cutwater.run(&["run", "--until", "caught-up"], MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), &["public.first", "public.second"]).await;
}

/// Two tables and a config under which the second is read some seconds after the slot was made.
async fn copied_second() -> (Database, Database, Cutwater) {
    let (source, target) = pair().await;
    source
        .execute(
            "CREATE TABLE public.first (id int, v text); ALTER TABLE public.first REPLICA IDENTITY FULL;
             INSERT INTO public.first SELECT i, repeat('x', 2000) FROM generate_series(1, 3000) AS i;
             CREATE TABLE public.second (id int PRIMARY KEY, v text);
             INSERT INTO public.second SELECT i, repeat('x', 600) FROM generate_series(1, 1000) AS i;
             CREATE TABLE public.third (id int, v text); ALTER TABLE public.third REPLICA IDENTITY FULL;
             INSERT INTO public.third SELECT i, repeat('x', 100) FROM generate_series(1, 1000) AS i; ANALYZE",
        )
        .await;
    let cutwater = Cutwater::new(&source.url(), &target.url())
        .and("[snapshot]\nworkers = 1\nmax_rows_per_second = 300\n[apply]\nbatch_rows = 5");
    (source, target, cutwater)
}

/// Whether rows of the table are being copied now.
async fn copying(cutwater: &Cutwater, table: &str) -> bool {
    let facts = status(cutwater).await;
    let tables = facts["tables"].as_array().cloned().unwrap_or_default();
    tables.iter().any(|one| one["name"] == table && one["state"] == "copying" && one["rows"].as_i64() > Some(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_copied_later_than_the_slot_is_followed_from_its_own_position() {
    let (source, target, cutwater) = copied_second().await;
    let mut run = cutwater.start(&["run"]);
    wait_for("the second table's copy", 2 * MINUTE, async || copying(&cutwater, "public.second").await).await;
    run.kill9();
    // The first table has been copied, and needs these from the stream; the others are copied when these are in them.
    // Nothing would refuse a row that comes twice into a table without a key.
    for table in ["first", "second", "third"] {
        source
            .execute(&format!(
                "INSERT INTO public.{table} SELECT i, 'while nobody ran' FROM generate_series(10001, 10300) AS i;
                 DELETE FROM public.{table} WHERE id BETWEEN 10 AND 20; UPDATE public.{table} SET v = 'other' WHERE id < 10"
            ))
            .await;
    }
    cutwater.run(&["set", "snapshot.max_rows_per_second=none"], MINUTE).await.assert_code(0);
    cutwater.run(&["run", "--until", "caught-up"], 2 * MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), &["public.first", "public.second", "public.third"]).await;
}

/// TRAPS 15: what a trigger did at the source is in the stream already.
#[tokio::test(flavor = "multi_thread")]
async fn triggers_and_foreign_keys_act_once_at_the_source_and_not_again_at_the_target() {
    let (source, target) = pair().await;
    source
        .execute(
            "CREATE TABLE public.item (id int PRIMARY KEY, changes int NOT NULL DEFAULT 0);
             CREATE TABLE public.part (id int PRIMARY KEY, item int REFERENCES public.item ON DELETE SET NULL ON UPDATE CASCADE);
             CREATE TABLE public.journal (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item int, what text);
             CREATE FUNCTION public.count_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 NEW.changes = NEW.changes + 1; RETURN NEW; END $$;
             CREATE FUNCTION public.note_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO public.journal (item, what) VALUES (coalesce(NEW.id, OLD.id), TG_OP); RETURN NULL; END $$;
             CREATE TRIGGER count_it BEFORE INSERT OR UPDATE ON public.item FOR EACH ROW EXECUTE FUNCTION public.count_it();
             CREATE TRIGGER note_it AFTER INSERT OR UPDATE OR DELETE ON public.item FOR EACH ROW EXECUTE FUNCTION public.note_it();
             INSERT INTO public.item SELECT i FROM generate_series(1, 20) AS i;
             INSERT INTO public.part SELECT i, i FROM generate_series(1, 20) AS i",
        )
        .await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    let mut run = streaming(&cutwater).await;
    let made = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'public.item'::regclass AND NOT tgisinternal";
    assert_eq!(target.value::<i64>(made).await, 2, "they are there, and would act");
    source.execute("INSERT INTO public.item SELECT i FROM generate_series(101, 120) AS i").await;
    source
        .execute("UPDATE public.item SET changes = changes WHERE id < 5; UPDATE public.item SET id = 50 WHERE id = 6")
        .await;
    source.execute("DELETE FROM public.item WHERE id = 7; INSERT INTO public.item VALUES (1000)").await;
    wait_for("the last row", MINUTE, async || {
        assert!(run.is_running(), "{}", run.stderr());
        count(&target, "public.item WHERE id = 1000").await == 1
    })
    .await;
    assert_equal(&source.url(), &target.url(), &["public.item", "public.part", "public.journal"]).await;
    run.sigint();
    run.wait(MINUTE).await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_larger_than_memory_passes_and_is_never_seen_half_done() {
    let (source, target, cutwater) = items().await;
    let cutwater = cutwater.and("[apply]\nbatch_rows = 5000\nbatch_bytes = \"4MB\"");
    let run = streaming(&cutwater).await;
    source
        .execute("INSERT INTO public.item SELECT i, repeat('large ' || i, 20) FROM generate_series(10001, 610000) AS i")
        .await;
    let reader = target.connect().await;
    let begun = Instant::now();
    loop {
        let rows: i64 = reader.query_one("SELECT count(*) FROM public.item", &[]).await.unwrap().get(0);
        assert!(rows == 1000 || rows == 601_000, "{rows} rows are half a transaction");
        if rows == 601_000 {
            break;
        }
        assert!(begun.elapsed() < 2 * MINUTE, "{}", run.stderr());
    }
    let memory = std::fs::read_to_string(format!("/proc/{}/status", run.pid())).unwrap();
    let peak = memory.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 200 * 1024, "peak memory {kib} KiB");
    run.sigint();
    run.wait(MINUTE).await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_grows_with_the_clock_while_the_target_is_away_and_falls_when_it_is_back() {
    let (source, mut target) = tokio::join!(support::postgres(), support::postgres());
    source.execute("postgres", "CREATE TABLE public.item (id serial PRIMARY KEY, v text)").await.unwrap();
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cutwater = Cutwater::new(&source.url(SUPERUSER, "postgres"), &target.url(SUPERUSER, "postgres"))
        .and(&format!("[telemetry]\nlisten = \"{listen}\""));
    let run = streaming(&cutwater).await;
    target.stop(StopMode::Immediate).unwrap();
    source.execute("postgres", "INSERT INTO public.item (v) VALUES ('waits')").await.unwrap();
    let away = Instant::now();
    for seconds in [3.0, 6.0] {
        wait_for("lag", MINUTE, async || lag(listen).await >= seconds).await;
        let real = away.elapsed().as_secs_f64();
        assert!((seconds - 2.5..seconds + 4.0).contains(&real), "lag {seconds} after {real} s");
    }
    let written = source.connect("postgres").await.unwrap();
    let written = written.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap().get::<_, String>(0);
    target.start_again().unwrap();
    let checkpoint = target.connect("postgres").await.unwrap();
    let drained = format!("SELECT position::pg_lsn >= '{written}' FROM cutwater.checkpoint");
    wait_for("it to be drained", MINUTE, async || checkpoint.query_one(&drained, &[]).await.unwrap().get(0)).await;
    let since = Instant::now();
    wait_for("lag to fall", Duration::from_secs(2), async || lag(listen).await < 1.0).await;
    eprintln!("lag fell {:?} after the target was back and drained", since.elapsed());
    let arrived = "SELECT count(*) FROM public.item";
    assert_eq!(checkpoint.query_one(arrived, &[]).await.unwrap().get::<_, i64>(0), 1);
    run.sigint();
    run.wait(MINUTE).await.assert_code(0);
}

/// `cutwater_lag_seconds` as Prometheus would read it; no number while nothing was measured yet.
async fn lag(listen: std::net::SocketAddr) -> f64 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(listen).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let line = text.lines().find(|line| line.starts_with("cutwater_lag_seconds"));
    line.map_or(f64::NAN, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// A source whose migrated table is idle, and the figures of its log in MiB since the server began.
struct Neighbours {
    source: LocalPostgres,
    client: tokio_postgres::Client,
    cutwater: Cutwater,
    _target: LocalPostgres,
}

impl Neighbours {
    async fn new() -> Neighbours {
        let (source, target) = tokio::join!(support::postgres(), support::postgres());
        source.execute("postgres", "CREATE TABLE public.item (id serial PRIMARY KEY, v text)").await.unwrap();
        source.execute("postgres", "CREATE DATABASE neighbour").await.unwrap();
        source.execute("neighbour", "CREATE TABLE n (v text)").await.unwrap();
        let cutwater = Cutwater::new(&source.url(SUPERUSER, "postgres"), &target.url(SUPERUSER, "postgres"));
        let client = source.connect("postgres").await.unwrap();
        Neighbours { source, client, cutwater, _target: target }
    }

    async fn mib(&self, place: &str) -> f64 {
        let sql = format!("SELECT ({place} - '0/0')::bigint FROM pg_replication_slots");
        self.client.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0) as f64 / f64::from(1 << 20)
    }

    async fn written(&self) -> f64 {
        self.mib("pg_current_wal_lsn()").await
    }

    /// Where the slot begins: from here on the server keeps its log for us.
    async fn begins(&self) -> f64 {
        self.mib("restart_lsn").await
    }

    async fn confirmed(&self) -> f64 {
        self.mib("confirmed_flush_lsn").await
    }
}

/// Some 3 MiB of log.
const NEIGHBOURS_ROWS: &str = "INSERT INTO n SELECT repeat(md5(i::text), 30) FROM generate_series(1, 3000) AS i";

/// A slot can only begin anew where the server has noted which transactions run. It does so every 15 seconds and at every
/// checkpoint, which here come as fast as the slot follows.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_neighbour_database_does_not_make_the_source_keep_log_for_us() {
    let at = Neighbours::new().await;
    let run = streaming(&at.cutwater).await;
    let neighbour = at.source.connect("neighbour").await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let stopped = stop.clone();
    let writer = tokio::spawn(async move {
        while !stopped.is_cancelled() {
            neighbour.batch_execute(NEIGHBOURS_ROWS).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let start = at.written().await;
    for round in 1..=5 {
        wait_for("the neighbour", MINUTE, async || at.written().await - start > f64::from(round) * 16.0).await;
        let now = at.written().await;
        wait_for("the place to be confirmed", MINUTE, async || at.confirmed().await >= now).await;
        wait_for("the slot to begin behind it", MINUTE, async || {
            at.client.batch_execute("CHECKPOINT").await.unwrap();
            at.begins().await >= now
        })
        .await;
    }
    stop.cancel();
    writer.await.unwrap();
    wait_for("nothing to be kept any more", MINUTE, async || {
        at.client.batch_execute("CHECKPOINT").await.unwrap();
        at.written().await - at.begins().await < 1.0
    })
    .await;
    run.sigint();
    run.wait(MINUTE).await.assert_code(0);
}

/// The same without a helping hand: 200 MiB in a minute. What is kept goes up and down with the server's notes instead of
/// up: never more than was written in the time of two of them, and nothing once the neighbour is done.
#[tokio::test(flavor = "multi_thread")]
async fn a_minute_of_a_busy_neighbour_leaves_nothing_behind() {
    if std::env::var_os("CUTWATER_CHAOS").is_none() {
        return;
    }
    let at = Neighbours::new().await;
    let run = streaming(&at.cutwater).await;
    let neighbour = at.source.connect("neighbour").await.unwrap();
    let (begun, start) = (Instant::now(), at.written().await);
    let (mut most_kept, mut most_unconfirmed) = (0.0_f64, 0.0_f64);
    let mut history: Vec<(Instant, f64)> = Vec::new();
    loop {
        let (elapsed, written) = (begun.elapsed().as_secs_f64(), at.written().await);
        if elapsed > 60.0 && written - start >= 200.0 {
            break;
        }
        if written - start < elapsed / 60.0 * 200.0 {
            neighbour.batch_execute(NEIGHBOURS_ROWS).await.unwrap();
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        history.push((Instant::now(), at.written().await));
        let within = |seconds| {
            let since = history.iter().find(|(when, _)| when.elapsed() < Duration::from_secs(seconds)).unwrap();
            history.last().unwrap().1 - since.1
        };
        let (begins, confirmed) = (at.begins().await, at.confirmed().await);
        let now = history.last().unwrap().1;
        most_kept = most_kept.max(now - begins);
        most_unconfirmed = most_unconfirmed.max(now - confirmed);
        assert!(now - begins < within(35) + 8.0, "kept {:.0} MiB, of {:.0} in 35 s", now - begins, within(35));
        assert!(now - confirmed < within(15) + 8.0, "{:.0} MiB are not confirmed", now - confirmed);
    }
    let ended = Instant::now();
    wait_for("nothing to be kept any more", MINUTE, async || at.written().await - at.begins().await < 1.0).await;
    eprintln!(
        "of {:.0} MiB at most {most_kept:.0} MiB were kept and {most_unconfirmed:.0} not confirmed; nothing {:.0} s after",
        at.written().await - start,
        ended.elapsed().as_secs_f64()
    );
    run.sigint();
    run.wait(MINUTE).await.assert_code(0);
}
