//! The laws, one by one, against real servers and with the real binary.

#![allow(clippy::unwrap_used, reason = "a test dies of its errors")]

mod support;

use std::time::{Duration, Instant};

use cutwater::cli::demo::server::{SUPERUSER, StopMode};
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
    let (source, target, cutwater) = items().await;
    let holder = source.connect().await;
    holder.batch_execute("BEGIN; LOCK TABLE public.item IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let run = cutwater.start(&["run"]);
    // The slot and its snapshot exist; the copy waits for the lock.
    wait_for("the copy to wait", MINUTE, async || {
        let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'public.item'::regclass";
        source.value::<i64>(sql).await > 0
    })
    .await;
    holder
        .batch_execute("UPDATE public.item SET v = 'x' WHERE id < 100; TRUNCATE public.item; INSERT INTO public.item VALUES (1, 'new'); COMMIT")
        .await
        .unwrap();
    wait_for("streaming", MINUTE, async || status(&cutwater).await["phase"] == "streaming").await;
    wait_for("the new row", MINUTE, async || count(&target, "public.item").await == 1).await;
    run.sigint();
    run.wait(MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), &["public.item"]).await;
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
    target.start_again().unwrap();
    wait_for("the row", MINUTE, async || {
        let client = target.connect("postgres").await.unwrap();
        client.query_one("SELECT count(*) FROM public.item", &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    wait_for("lag to fall", Duration::from_secs(5), async || lag(listen).await < 1.0).await;
    run.sigint();
    run.wait(MINUTE).await.assert_code(0);
}

/// `cutwater_lag_seconds` as Prometheus would read it.
async fn lag(listen: std::net::SocketAddr) -> f64 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(listen).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let line = text.lines().find(|line| line.starts_with("cutwater_lag_seconds")).unwrap_or("x 0");
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// The claim has a minute in it; the test mostly sleeps.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_neighbour_database_does_not_make_the_source_keep_log_for_us() {
    let (source, target) = tokio::join!(support::postgres(), support::postgres());
    source.execute("postgres", "CREATE TABLE public.item (id serial PRIMARY KEY, v text)").await.unwrap();
    source.execute("postgres", "CREATE DATABASE neighbour").await.unwrap();
    let cutwater = Cutwater::new(&source.url(SUPERUSER, "postgres"), &target.url(SUPERUSER, "postgres"));
    let run = streaming(&cutwater).await;
    let (client, neighbour) = tokio::join!(source.connect("postgres"), source.connect("neighbour"));
    let (client, neighbour) = (client.unwrap(), neighbour.unwrap());
    neighbour.batch_execute("CREATE TABLE n (v text)").await.unwrap();
    let mib = async |sql: &str| client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) as f64 / f64::from(1 << 20);
    let written = async || mib("SELECT (pg_current_wal_lsn() - '0/0')::bigint").await;
    let retained = async || mib("SELECT (pg_current_wal_lsn() - restart_lsn)::bigint FROM pg_replication_slots").await;

    let (begun, start) = (Instant::now(), written().await);
    let (mut most, mut elapsed, mut places) = (0.0_f64, 0.0, std::collections::BTreeSet::new());
    while elapsed < 60.0 || written().await - start < 200.0 {
        // As much as brings the log to its place on the way to 200 MiB.
        if written().await - start < elapsed / 60.0 * 200.0 {
            let rows = "INSERT INTO n SELECT repeat(md5(i::text), 30) FROM generate_series(1, 3000) AS i";
            neighbour.batch_execute(rows).await.unwrap();
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        elapsed = begun.elapsed().as_secs_f64();
        let now = retained().await;
        most = most.max(now);
        places.insert(((written().await - now) * 8.0) as i64);
    }
    // The server notes every 15 s where a slot may start anew, and one place behind while somebody writes: what is kept goes
    // up and down between nothing and half a minute's work, instead of up.
    let places = places.len();
    assert!(most < 160.0 && places >= 3, "kept up to {most:.0} MiB of {:.0}", written().await - start);
    wait_for("the slot to be confirmed up to the head", MINUTE, async || {
        mib("SELECT (pg_current_wal_lsn() - confirmed_flush_lsn)::bigint FROM pg_replication_slots").await < 1.0
    })
    .await;
    run.sigint();
    run.wait(MINUTE).await.assert_code(0);
}
