//! What `status`, the metrics and `check --estimate` say of a live migration is true.

#![allow(clippy::unwrap_used, reason = "a test dies of its errors")]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use cutwater::cli::demo::server::SUPERUSER;
use support::{Cutwater, Database, Proxy, pair, wait_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MINUTE: Duration = Duration::from_secs(60);

async fn items(rows: u32) -> (Database, Database) {
    let (source, target) = pair().await;
    source
        .execute(&format!(
            "CREATE TABLE public.item (id int PRIMARY KEY, v text);
             INSERT INTO public.item SELECT i, repeat('v', 200) FROM generate_series(1, {rows}) AS i;
             CREATE INDEX item_v ON public.item (v); ANALYZE public.item"
        ))
        .await;
    (source, target)
}

fn listen() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// What a Prometheus server reads: the type of each metric, and each sample with its labels.
#[derive(Debug, Default)]
struct Scrape {
    types: BTreeMap<String, String>,
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Scrape {
    async fn of(listen: SocketAddr) -> Scrape {
        let Ok(mut stream) = tokio::net::TcpStream::connect(listen).await else { return Scrape::default() };
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let mut scrape = Scrape::default();
        for line in body.lines().filter(|line| line.contains("cutwater_")) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                scrape.types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                scrape.samples.push(sample(line));
            }
        }
        scrape
    }

    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |have: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| have.get(*key).is_some_and(|have| have == value))
        };
        self.samples.iter().find(|(known, have, _)| known == name && fits(have)).map(|(_, _, value)| *value)
    }
}

/// `name{key="value",…} 1.5`
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (name, value) = line.rsplit_once(' ').unwrap();
    let value = value.parse().unwrap_or_else(|_| panic!("no number in {line}"));
    let Some((name, labels)) = name.split_once('{') else { return (name.to_owned(), BTreeMap::new(), value) };
    let labels = labels.strip_suffix("\"}").unwrap_or_else(|| panic!("labels in {line}"));
    let labels = labels.split("\",").map(|label| label.split_once("=\"").unwrap());
    (name.to_owned(), labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(), value)
}

#[tokio::test(flavor = "multi_thread")]
async fn in_mid_snapshot_status_and_metrics_tell_how_far_it_is_what_it_costs_and_the_lag() {
    let (source, target) = items(20_000).await;
    let listen = listen();
    let cutwater = Cutwater::new(&source.url(), &target.url()).and(&format!(
        "[snapshot]\nmax_rows_per_second = 300\nchunk_rows = 2000\nworkers = 2\n[telemetry]\nlisten = \"{listen}\""
    ));
    let run = cutwater.start(&["run"]);
    cutwater
        .wait_for_status(|facts| facts["phase"] == "snapshot" && facts["tables"][0]["rows"].as_i64() > Some(0))
        .await;
    source.execute("UPDATE public.item SET v = 'later' WHERE id = 1").await;
    // Nothing of the stream is applied before the copy has ended: it waits, and grows with the clock.
    let facts = cutwater
        .wait_for_status(|facts| {
            facts["lag_seconds"].as_f64() > Some(3.0) && facts["copy"]["rows_per_second"].as_f64() > Some(0.0)
        })
        .await;
    assert_eq!(facts["phase"], "snapshot", "{facts:#}");
    assert_eq!(facts["health"], "ok");
    let copy = &facts["copy"];
    assert!(copy["ratio"].as_f64() > Some(0.0) && copy["ratio"].as_f64() < Some(1.0), "{copy}");
    assert!(copy["left_seconds"].as_f64() > Some(1.0), "{copy}");
    assert!(facts["tables"][0]["rate"].as_f64() > Some(0.0), "{facts:#}");
    assert!(facts["vacuum_held_seconds"].as_f64() > Some(1.0), "{facts:#}");
    let screen = cutwater.run(&["status"], MINUTE).await.stdout;
    for part in [
        "SNAPSHOT  for ",
        " left, then the indexes",
        "copied    ",
        "throttle: 300 rows/s",
        "0 done, 1 copying",
        "public.item   ",
        " rows/s   ",
        "WAL kept ",
        "the copy has held back vacuum for ",
        "faster: cutwater set",
    ] {
        assert!(screen.contains(part), "{part:?} is missing in\n{screen}");
    }
    let scrape = Scrape::of(listen).await;
    let ratio = scrape.value("cutwater_snapshot_progress_ratio", &[]).unwrap();
    assert!(ratio > 0.0 && ratio < 1.0, "{ratio}");
    assert!(scrape.value("cutwater_lag_seconds", &[]).unwrap() > 2.0);
    assert_eq!(scrape.value("cutwater_phase", &[("phase", "snapshot")]), Some(1.0));
    cutwater.run(&["set", "snapshot.max_rows_per_second=none"], MINUTE).await.assert_code(0);
    let facts = cutwater.wait_for_status(|facts| facts["phase"] == "streaming").await;
    assert!(facts["vacuum_held_seconds"].is_null(), "{facts:#}");
    cutwater.wait_for_status(|facts| facts["lag_seconds"].as_f64() < Some(2.0)).await;
    run.sigint();
    run.wait(MINUTE).await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scraped_run_has_every_metric_with_its_type_and_labels() {
    let (source, target) = items(50).await;
    let listen = listen();
    let cutwater = Cutwater::new(&source.url(), &target.url()).and(&format!("[telemetry]\nlisten = \"{listen}\""));
    let run = cutwater.start(&["run"]);
    cutwater.wait_for_status(|facts| facts["phase"] == "streaming").await;
    source.execute("INSERT INTO public.item VALUES (1000, 'a'); UPDATE public.item SET v = 'b' WHERE id <= 3").await;
    source.execute("DELETE FROM public.item WHERE id <= 2").await;
    let table = ("table", "public.item");
    let rows = |scrape: &Scrape, op| scrape.value("cutwater_rows_total", &[table, ("op", op)]).unwrap_or(0.0);
    wait_for("the rows to be counted", MINUTE, async || rows(&Scrape::of(listen).await, "delete") == 2.0).await;
    // An error that is tried again: the target's connections are ended.
    target.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'cutwater%' AND datname = current_database()").await;
    let errors = |scrape: &Scrape| {
        scrape.samples.iter().any(|(name, labels, value)| {
            name == "cutwater_errors_total" && labels.contains_key("kind") && *value >= 1.0
        })
    };
    source.execute("INSERT INTO public.item VALUES (1001, 'after')").await;
    wait_for("the error to be counted", MINUTE, async || errors(&Scrape::of(listen).await)).await;
    wait_for("the phase to be told", MINUTE, async || {
        Scrape::of(listen).await.value("cutwater_phase", &[("phase", "streaming")]) == Some(1.0)
    })
    .await;
    // The target was away: what it could not be asked is told again with the next beats.
    wait_for("lag and log to be told", MINUTE, async || {
        let scrape = Scrape::of(listen).await;
        ["cutwater_lag_seconds", "cutwater_lag_bytes", "cutwater_slot_retained_bytes"]
            .iter()
            .all(|name| scrape.types.contains_key(*name))
    })
    .await;
    let scrape = Scrape::of(listen).await;
    assert_eq!((rows(&scrape, "copy"), rows(&scrape, "insert") >= 1.0, rows(&scrape, "update")), (50.0, true, 3.0));
    for (name, kind) in [
        ("cutwater_lag_seconds", "gauge"),
        ("cutwater_lag_bytes", "gauge"),
        ("cutwater_rows_total", "counter"),
        ("cutwater_errors_total", "counter"),
        ("cutwater_snapshot_progress_ratio", "gauge"),
        ("cutwater_slot_retained_bytes", "gauge"),
        ("cutwater_slot_room_seconds", "gauge"),
        ("cutwater_paused", "gauge"),
        ("cutwater_batch_duration_seconds", "histogram"),
        ("cutwater_phase", "gauge"),
    ] {
        assert_eq!(scrape.types.get(name).map(String::as_str), Some(kind), "{name} in {:?}", scrape.types);
    }
    let migration = &source.name;
    assert!(scrape.samples.iter().all(|(_, labels, _)| labels.get("migration") == Some(migration)), "{scrape:?}");
    assert_eq!(scrape.value("cutwater_snapshot_progress_ratio", &[]), Some(1.0));
    let (count, least) = ("cutwater_batch_duration_seconds_count", "cutwater_batch_duration_seconds_bucket");
    assert_eq!(scrape.value(count, &[]), scrape.value(least, &[("le", "+Inf")]));
    let phases = scrape.samples.iter().filter(|(name, _, value)| name == "cutwater_phase" && *value == 1.0);
    assert_eq!(phases.map(|(_, labels, _)| labels["phase"].as_str()).collect::<Vec<_>>(), ["streaming"]);

    // A driver that died between its fence and its end leaves an attempt behind: status says so, and what to do.
    target
        .execute(&format!(
            "INSERT INTO cutwater.cutover (migration, nonce, step, deadline)
             VALUES ('{migration}', 'n', 'fenced', clock_timestamp() - interval '1 hour')"
        ))
        .await;
    let screen = cutwater.run(&["status"], MINUTE).await.stdout;
    assert!(
        screen.contains("its driver is gone at step fenced") && screen.contains("cutwater cutover --abort"),
        "{screen}"
    );
    run.sigint();
    run.wait(MINUTE).await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_cannot_be_reached_counts_as_pending_and_says_since_when() {
    let (source, target) = items(50).await;
    let proxy = Proxy::start(source.server.port()).await;
    let listen = listen();
    let cutwater = Cutwater::new(&proxy.url(SUPERUSER, &source.name), &target.url())
        .and(&format!("[telemetry]\nlisten = \"{listen}\""));
    let run = cutwater.start(&["run"]);
    cutwater.wait_for_status(|facts| facts["phase"] == "streaming" && facts["lag_seconds"].as_f64() < Some(2.0)).await;
    proxy.refuse();
    let facts = cutwater
        .wait_for_status(|facts| facts["source_away_since"].is_string() && facts["lag_seconds"].as_f64() > Some(4.0))
        .await;
    assert!(facts["source"]["unreachable"].is_string(), "{facts:#}");
    wait_for("the metric to grow, too", MINUTE, async || {
        Scrape::of(listen).await.value("cutwater_lag_seconds", &[]) > Some(4.0)
    })
    .await;
    let screen = cutwater.run(&["status"], MINUTE).await.stdout;
    assert!(
        screen.contains("not reached by the run since ") && screen.contains("last known to be caught up at"),
        "{screen}"
    );
    proxy.resume();
    cutwater
        .wait_for_status(|facts| facts["source_away_since"].is_null() && facts["lag_seconds"].as_f64() < Some(1.0))
        .await;
    run.sigint();
    run.wait(MINUTE).await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_estimate_is_of_the_right_order_and_leaves_nothing_behind() {
    let (source, target) = pair().await;
    source
        .execute(
            "CREATE TYPE public.mood AS ENUM ('good', 'bad');
             CREATE TABLE public.item (id int PRIMARY KEY, m public.mood, v text);
             INSERT INTO public.item SELECT i, 'good', repeat('v' || i, 40) FROM generate_series(1, 150000) AS i;
             CREATE TABLE public.parted (id int PRIMARY KEY, j json) PARTITION BY HASH (id);
             CREATE TABLE public.parted_0 PARTITION OF public.parted FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE public.parted_1 PARTITION OF public.parted FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             INSERT INTO public.parted SELECT i, '{}' FROM generate_series(1, 1000) AS i; ANALYZE",
        )
        .await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    let things = "SELECT (SELECT count(*) FROM pg_class) + (SELECT count(*) FROM pg_namespace)
                       + (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_publication)";
    let before: (i64, i64) = (source.value(things).await, target.value(things).await);
    let estimated = cutwater.run(&["check", "--estimate", "--json"], MINUTE).await.assert_code(0).json();
    let after: (i64, i64) = (source.value(things).await, target.value(things).await);
    assert_eq!(before, after, "something was left behind");
    let estimate = &estimated["estimate"];
    let figure =
        |name: &str, end: &str| estimate[name][end].as_f64().unwrap_or_else(|| panic!("{name} in {estimate:#}"));
    let size: i64 = source.value("SELECT pg_database_size(current_database())").await;
    assert!(figure("target_bytes", "low") < size as f64 && figure("target_bytes", "high") > 5e6, "{estimate:#}");
    assert!(estimate["sampled_rows"].as_u64() >= Some(100_000), "{estimate:#}");
    for name in ["copy_seconds", "index_seconds", "wal_kept_bytes", "downtime_seconds"] {
        assert!(figure(name, "low") <= figure(name, "high"), "{name} in {estimate:#}");
    }
    let begun = std::time::Instant::now();
    cutwater.run(&["run", "--until", "caught-up"], 2 * MINUTE).await.assert_code(0);
    let real = begun.elapsed().as_secs_f64();
    // A whole run of so small a database is mostly starting; the copy alone cannot take longer than all of it, by order.
    assert!(
        figure("copy_seconds", "high") > 0.0 && figure("copy_seconds", "low") < real * 10.0,
        "{real} s, {estimate:#}"
    );
    let screen = cutwater.run(&["check", "--estimate"], MINUTE).await;
    assert!(screen.stdout.contains("rolled back at the target. Nothing was changed."), "{}", screen.stdout);
}

/// A process that stands still until this is dropped.
struct Frozen(rustix::process::Pid);

impl Frozen {
    fn new(pid: i32) -> Frozen {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        Frozen(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::CONT);
    }
}

/// TRAPS 25: nothing is pending at our end, both ends answer, and yet the target falls behind.
#[tokio::test(flavor = "multi_thread")]
async fn with_the_reader_cut_off_from_the_log_the_lag_grows_although_both_ends_answer() {
    let (source, target) = items(50).await;
    let listen = listen();
    let cutwater = Cutwater::new(&source.url(), &target.url()).and(&format!("[telemetry]\nlisten = \"{listen}\""));
    let run = cutwater.start(&["run"]);
    cutwater.wait_for_status(|facts| facts["phase"] == "streaming" && facts["lag_seconds"].as_f64() < Some(1.0)).await;
    source.execute("UPDATE public.item SET v = 'heard of' WHERE id = 1").await;
    let heard = "SELECT count(*) FROM public.item WHERE v = 'heard of'";
    wait_for("the stream", MINUTE, async || target.value::<i64>(heard).await == 1).await;
    let walsender = "SELECT active_pid FROM pg_replication_slots WHERE database = current_database()";
    let frozen = Frozen::new(source.value(walsender).await);
    source.execute("UPDATE public.item SET v = 'not heard of' WHERE id = 1").await;
    let metric = async || Scrape::of(listen).await.value("cutwater_lag_seconds", &[]);
    wait_for("the run's own lag to grow", MINUTE, async || metric().await > Some(4.0)).await;
    let facts = cutwater.wait_for_status(|facts| facts["lag_seconds"].as_f64() > Some(4.0)).await;
    assert!(facts["source_away_since"].is_null() && facts["source"]["unreachable"].is_null(), "{facts:#}");
    drop(frozen);
    wait_for("it to fall", MINUTE, async || metric().await < Some(1.0)).await;
    let arrived: i64 = target.value("SELECT count(*) FROM public.item WHERE v = 'not heard of'").await;
    assert_eq!(arrived, 1, "no lag, and the row is not there");
    run.sigint();
    run.wait(MINUTE).await.assert_code(0);
}
