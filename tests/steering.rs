//! A live run is steered: paused and resumed, throttled and sped up; and the log kept for it has its limits.

#![allow(clippy::unwrap_used, reason = "a test dies of its errors")]

mod support;

use std::time::Duration;

use cutwater::cli::demo::server::SUPERUSER;
use serde_json::Value;
use support::{
    Cutwater, Database, LocalPostgres, Running, ServerOptions, assert_equal, pair, postgres, postgres_with, wait_for,
};

const MINUTE: Duration = Duration::from_secs(60);

async fn says(cutwater: &Cutwater, command: &[&str]) -> Value {
    let mut args = command.to_vec();
    args.push("--json");
    cutwater.run(&args, MINUTE).await.assert_code(0).json()
}

async fn streaming(cutwater: &Cutwater) -> Running {
    let run = cutwater.start(&["run"]);
    wait_for("streaming", 2 * MINUTE, async || cutwater.status().await["phase"] == "streaming").await;
    run
}

async fn ended(run: Running) {
    run.sigint();
    run.wait(MINUTE).await.assert_code(0);
}

async fn items(rows: u32) -> (Database, Database, Cutwater) {
    let (source, target) = pair().await;
    source
        .execute(&format!(
            "CREATE TABLE public.item (id int PRIMARY KEY, v text);
             INSERT INTO public.item SELECT i, 'v' || i FROM generate_series(1, {rows}) AS i; ANALYZE public.item"
        ))
        .await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    (source, target, cutwater)
}

async fn count(at: &Database) -> i64 {
    at.value("SELECT count(*) FROM public.item").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_run_applies_nothing_answers_the_source_tells_its_lag_and_stays_paused_through_a_restart() {
    // A walsender that is not answered for two seconds ends its connection.
    let source = postgres_with(ServerOptions::new().setting("wal_sender_timeout", "2s")).await;
    let target = postgres().await;
    source.execute("postgres", "CREATE TABLE public.item (id int PRIMARY KEY, v text)").await.unwrap();
    let cutwater = Cutwater::new(&source.url(SUPERUSER, "postgres"), &target.url(SUPERUSER, "postgres"));
    let mut run = streaming(&cutwater).await;
    let (old, new) = (source.connect("postgres").await.unwrap(), target.connect("postgres").await.unwrap());
    let reader = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'cutwater_test'";
    let name: String = old.query_one("SELECT slot_name::text FROM pg_replication_slots", &[]).await.unwrap().get(0);
    let reader = reader.replace("cutwater_test", &name);
    let who = async || old.query_one(&reader, &[]).await.unwrap().get::<_, Option<i32>>(0);
    // It starts its stream anew once it has caught up.
    wait_for("the stream", MINUTE, async || who().await.is_some()).await;

    let paused = says(&cutwater, &["pause", "--apply"]).await;
    let before = who().await;
    assert_eq!(paused["accepted"], true, "{paused}");
    assert!(paused["run"].as_str().unwrap().ends_with(&format!("pid {}", run.pid())), "{paused}");
    old.batch_execute("INSERT INTO public.item SELECT i, 'waits' FROM generate_series(1, 100) AS i").await.unwrap();
    // Two of its timeouts and more.
    let facts = cutwater.wait_for_status(|facts| facts["lag_seconds"].as_f64() > Some(5.0)).await;
    assert_eq!(facts["health"], "paused", "{facts}");
    assert_eq!(facts["phase"], "streaming");
    assert!(facts["paused"]["apply_since"].is_string() && facts["paused"]["snapshot_since"].is_null(), "{facts}");
    assert!(facts["lag_bytes"].as_u64() > Some(0), "{facts}");
    assert_eq!(who().await, before, "the source has dropped a reader that does not answer");
    assert_eq!(rows(&new).await, 0);
    // What is confirmed is durable.
    let sql = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots";
    let confirmed: String = old.query_one(sql, &[]).await.unwrap().get(0);
    let sql = "SELECT $1::text::pg_lsn <= position::pg_lsn FROM cutwater.checkpoint";
    assert!(new.query_one(sql, &[&confirmed]).await.unwrap().get::<_, bool>(0));
    let refused = cutwater.run(&["cutover", "--dry-run"], MINUTE).await.assert_code(3);
    assert!(
        refused.stdout.contains("paused since") && refused.stdout.contains("cutwater resume"),
        "{}",
        refused.stdout
    );
    let screen = cutwater.run(&["status"], MINUTE).await.stdout;
    assert!(screen.contains("STREAMING, PAUSED for ") && screen.contains("paused    applying, since "), "{screen}");

    run.kill9();
    let run = cutwater.start(&["run"]);
    cutwater
        .wait_for_status(|facts| {
            facts["run"]["pid"] == run.pid() && facts["run_alive"] == true && facts["health"] == "paused"
        })
        .await;
    assert_eq!(rows(&new).await, 0, "a pause outlives the process");

    assert_eq!(says(&cutwater, &["resume"]).await["accepted"], true);
    wait_for("the rows", MINUTE, async || rows(&new).await == 100).await;
    cutwater.wait_for_status(|facts| facts["health"] == "ok" && facts["lag_seconds"].as_f64() < Some(2.0)).await;
    ended(run).await;
}

async fn rows(client: &tokio_postgres::Client) -> i64 {
    client.query_one("SELECT count(*) FROM public.item", &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_copy_stands_still_through_a_restart_and_a_set_pace_holds_at_once() {
    let (source, target, cutwater) = items(20_000).await;
    // At this pace it would take hours.
    let cutwater = cutwater.and("[snapshot]\nmax_rows_per_second = 1\nchunk_rows = 2000\nworkers = 3");
    let mut run = cutwater.start(&["run"]);
    cutwater.wait_for_status(|facts| facts["phase"] == "snapshot").await;
    let paused = says(&cutwater, &["pause", "--snapshot"]).await;
    assert_eq!(paused["accepted"], true, "{paused}");
    // Were it not paused, it would now be done in moments.
    let set = says(&cutwater, &["set", "snapshot.max_rows_per_second=none", "snapshot.workers=2"]).await;
    assert_eq!(set["accepted"], true, "{set}");
    assert_eq!(set["settings"]["snapshot.workers"], "2", "{set}");
    let facts = cutwater.wait_for_status(|facts| facts["health"] == "paused").await;
    assert_eq!(facts["phase"], "snapshot");
    run.kill9();
    let run = cutwater.start(&["run"]);
    let alive = |facts: &Value| facts["run"]["pid"] == run.pid() && facts["run_alive"] == true;
    let facts = cutwater.wait_for_status(|facts| alive(facts) && facts["health"] == "paused").await;
    assert_eq!((&facts["phase"], &facts["copy"]["max_rows_per_second"]), (&Value::from("snapshot"), &Value::Null));
    // Resumed, it needs only what was set.
    says(&cutwater, &["resume", "--snapshot"]).await;
    cutwater.wait_for_status(|facts| facts["phase"] == "streaming").await;
    assert_equal(&source.url(), &target.url(), &["public.item"]).await;
    // And batches of one row, lingering long, are batches still.
    says(&cutwater, &["set", "apply.batch_rows=1", "apply.batch_bytes=64kB", "apply.linger=200ms"]).await;
    source.execute("UPDATE public.item SET v = repeat('x', 3000) WHERE id <= 500").await;
    says(&cutwater, &["set", "apply.batch_bytes=512MB", "apply.batch_rows=1000000", "apply.linger=default"]).await;
    source.execute("UPDATE public.item SET v = repeat('y', 3000) WHERE id > 500").await;
    wait_for("the updates", 2 * MINUTE, async || {
        target.value::<i64>("SELECT count(*) FROM public.item WHERE length(v) = 3000").await == 20_000
    })
    .await;
    ended(run).await;
    assert_equal(&source.url(), &target.url(), &["public.item"]).await;
    let listed = cutwater.run(&["set"], MINUTE).await.assert_code(0).stdout;
    assert!(listed.contains("snapshot.workers = 2") && !listed.contains("apply.linger ="), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_live_run_the_next_one_takes_it_and_what_cannot_be_is_refused() {
    let (source, target, cutwater) = items(10).await;
    let refused = cutwater.run(&["pause"], MINUTE).await.assert_code(3);
    assert!(refused.stderr.contains("nothing was begun yet"), "{}", refused.stderr);
    for bad in ["snapshot.chunk_rows=7", "snapshot.workers=0", "apply.linger=1h", "apply.batch_rows"] {
        let bad = cutwater.run(&["set", bad], MINUTE).await.assert_code(2);
        assert!(
            bad.stderr.contains("snapshot.max_rows_per_second") && bad.stderr.contains("apply.linger"),
            "{}",
            bad.stderr
        );
    }
    cutwater.run(&["run", "--until", "caught-up"], MINUTE).await.assert_code(0);
    let said = cutwater.run(&["pause"], MINUTE).await.assert_code(0);
    assert!(said.stdout.contains("the next one takes it up"), "{}", said.stdout);
    source.execute("INSERT INTO public.item VALUES (100, 'waits')").await;
    let run = cutwater.start(&["run"]);
    cutwater.wait_for_status(|facts| facts["run_alive"] == true && facts["health"] == "paused").await;
    assert_eq!(count(&target).await, 10);
    // Its log is asked for like that of any other command.
    assert_eq!(says(&cutwater, &["resume"]).await["accepted"], true);
    wait_for("the row", MINUTE, async || count(&target).await == 11).await;
    ended(run).await;
    let events: String =
        target.value("SELECT string_agg(command || ' ' || outcome, ', ' ORDER BY id) FROM cutwater.event").await;
    assert!(events.contains("pause done") && events.contains("resume done"), "{events}");
}

/// Two servers of their own: the limits count all the log of a server.
async fn limited(limits: &str) -> (LocalPostgres, LocalPostgres, Cutwater) {
    let (source, target) = tokio::join!(postgres(), postgres());
    source.execute("postgres", "CREATE TABLE public.item (id int PRIMARY KEY, v text)").await.unwrap();
    let url = format!("{}\"\n{limits}\n#\"", source.url(SUPERUSER, "postgres"));
    let cutwater = Cutwater::new(url.trim_end_matches('"'), &target.url(SUPERUSER, "postgres"));
    (source, target, cutwater)
}

/// About 50 MB of log.
async fn write(source: &LocalPostgres, from: i32) {
    let sql = format!(
        "INSERT INTO public.item SELECT i, repeat('x', 1000) FROM generate_series({from}, {from} + 39999) AS i"
    );
    source.execute("postgres", &sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn past_max_retained_warn_only_says_so() {
    let (source, target, cutwater) = limited("max_retained = \"20MB\"").await;
    let run = streaming(&cutwater).await;
    says(&cutwater, &["pause", "--apply"]).await;
    write(&source, 1).await;
    wait_for("the log to say so", MINUTE, async || run.stderr().contains("more log for this migration than it may"))
        .await;
    let screen = cutwater.run(&["status"], MINUTE).await.stdout;
    assert!(screen.contains("keeps more WAL for us than [source] max_retained: warn only"), "{screen}");
    assert!(screen.contains(" of 20 MB allowed"), "{screen}");
    says(&cutwater, &["resume"]).await;
    let new = target.connect("postgres").await.unwrap();
    wait_for("the rows", MINUTE, async || rows(&new).await == 40_000).await;
    ended(run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn past_max_retained_drop_slot_saves_the_source_and_says_what_was_given_up() {
    let (source, mut target, cutwater) = limited("max_retained = \"100MB\"\non_limit = \"drop-slot\"").await;
    let run = streaming(&cutwater).await;
    // The target is away: that is when a disk fills. Nothing can be read from it or written to it.
    target.stop(support::StopMode::Immediate).unwrap();
    for part in 0..3 {
        write(&source, 1 + part * 40_000).await;
    }
    let ended = run.wait(2 * MINUTE).await.assert_code(1);
    for part in ["max_retained", "drop-slot", "gave the slot up", "are not affected", "cutwater teardown"] {
        assert!(ended.stderr.contains(part), "{part} is missing in {}", ended.stderr);
    }
    let old = source.connect("postgres").await.unwrap();
    let slots: i64 = old.query_one("SELECT count(*) FROM pg_replication_slots", &[]).await.unwrap().get(0);
    assert_eq!(slots, 0);
    assert_eq!(rows(&old).await, 120_000, "the source goes on");
    target.start_again().unwrap();
    // What cannot go on says so, and does not start a gap.
    let again = cutwater.run(&["run"], MINUTE).await.assert_code(1);
    assert!(again.stderr.contains("slot") && again.stderr.contains("cutwater teardown"), "{}", again.stderr);
    let screen = cutwater.run(&["status"], MINUTE).await.stdout;
    assert!(screen.contains("Do: cutwater teardown, then cutwater run: the copy must start over"), "{screen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn past_max_retained_a_copy_steps_back_lets_the_stream_free_the_log_and_arrives_whole() {
    let (source, target, cutwater) = limited("max_retained = \"30MB\"\non_limit = \"pause-snapshot\"").await;
    let cutwater = cutwater.and("[snapshot]\nworkers = 1\nmax_rows_per_second = 200");
    source
        .execute(
            "postgres",
            "CREATE TABLE public.first (id int PRIMARY KEY, v text);
             INSERT INTO public.first SELECT i, repeat('x', 500) FROM generate_series(1, 20000) AS i;
             CREATE TABLE public.later (id int PRIMARY KEY, v text);
             INSERT INTO public.later SELECT i, 'x' FROM generate_series(1, 100) AS i; ANALYZE",
        )
        .await
        .unwrap();
    let run = cutwater.start(&["run"]);
    cutwater.wait_for_status(|facts| facts["phase"] == "snapshot" && facts["copy"]["rows"].as_i64() > Some(0)).await;
    // While the largest table is copied, the others are written to, past the limit.
    write(&source, 1).await;
    source.execute("postgres", "UPDATE public.later SET v = 'y' WHERE id <= 50").await.unwrap();
    let facts = cutwater.wait_for_status(|facts| facts["copy"]["stepped_back"] == true).await;
    assert_eq!(facts["phase"], "snapshot", "{facts:#}");
    let screen = cutwater.run(&["status"], MINUTE).await.stdout;
    assert!(screen.contains("copy      has stepped back"), "{screen}");
    says(&cutwater, &["set", "snapshot.max_rows_per_second=none"]).await;
    wait_for("the copy to step back", MINUTE, async || run.stderr().contains("the copy steps back")).await;
    source.execute("postgres", "DELETE FROM public.later WHERE id > 90").await.unwrap();
    let all = |facts: &Value| {
        facts["phase"] == "streaming"
            && facts["tables"].as_array().unwrap().iter().all(|table| table["state"] == "streaming")
    };
    let facts = cutwater.wait_for_status(all).await;
    assert!(facts["retained_bytes"].as_u64() < Some(30 << 20), "{facts:#}");
    ended(run).await;
    let (old, new) = (source.url(SUPERUSER, "postgres"), target.url(SUPERUSER, "postgres"));
    assert_equal(&old, &new, &["public.item", "public.first", "public.later"]).await;
}
