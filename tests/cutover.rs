//! The switch, with clients that never stop writing.

#![allow(clippy::unwrap_used, reason = "a test dies of its errors")]

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cutwater::cli::demo::server::{LocalPostgres, SUPERUSER, StopMode};
use support::{Cutwater, wait_for};
use tokio_postgres::{Client, NoTls};

const MINUTE: Duration = Duration::from_secs(60);
const SCHEMA: &str = "
    CREATE TABLE public.ledger (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, writer int NOT NULL, n bigint NOT NULL, note text);
    CREATE INDEX ledger_writer ON public.ledger (writer, n);
    CREATE TABLE public.part (id int, day date, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
    CREATE TABLE public.part_1 PARTITION OF public.part FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    INSERT INTO public.ledger (writer, n) SELECT 0, i FROM generate_series(1, 5000) AS i;
    INSERT INTO public.part SELECT i, '2026-03-01', 'x' FROM generate_series(1, 1000) AS i;
    ANALYZE";

/// Two servers, a migration that streams, and the file its switch command makes.
struct Stage {
    source: LocalPostgres,
    target: LocalPostgres,
    cutwater: Cutwater,
    switched: PathBuf,
    folder: tempfile::TempDir,
}

impl Stage {
    async fn set() -> Stage {
        let (source, target) = tokio::join!(support::postgres(), support::postgres());
        source.execute("postgres", SCHEMA).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let switched = folder.path().join("switched");
        let cutwater = Cutwater::new(&source.url(SUPERUSER, "postgres"), &target.url(SUPERUSER, "postgres"))
            .and(&format!("[cutover]\nswitch_command = \"echo $CUTWATER_MIGRATION > {}\"", switched.display()));
        Stage { source, target, cutwater, switched, folder }
    }

    async fn streaming(&self) -> support::Running {
        let run = self.cutwater.start(&["run"]);
        wait_for("streaming", MINUTE, async || self.status().await["phase"] == "streaming").await;
        self.cutwater.run(&["verify"], MINUTE).await.assert_code(0);
        run
    }

    async fn status(&self) -> serde_json::Value {
        self.cutwater.run(&["status", "--json"], MINUTE).await.json()
    }

    /// A session at the target that keeps the applier from writing to the ledger until it is dropped.
    async fn block_applier(&self) -> Client {
        let blocker = self.target.connect("postgres").await.unwrap();
        blocker.batch_execute("BEGIN; LOCK TABLE public.ledger IN ACCESS EXCLUSIVE MODE").await.unwrap();
        blocker
    }

    async fn fenced(&self) -> bool {
        let client = self.source.connect("postgres").await.unwrap();
        let write = "INSERT INTO public.ledger (writer, n) VALUES (99, 1)";
        match client.batch_execute(write).await {
            Ok(()) => false,
            Err(error) => {
                let message = error.as_db_error().map(|db| db.message().to_owned()).unwrap_or_default();
                assert!(message.contains("cutwater"), "{message}");
                true
            }
        }
    }
}

/// Writers that follow the switch and remember what was acknowledged.
struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Vec<(i32, i64)>>>,
}

impl Writers {
    fn start(stage: &Stage, per_second: u64) -> Writers {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let tasks = (1..=4)
            .map(|writer| {
                let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
                let urls = [stage.source.url(SUPERUSER, "postgres"), stage.target.url(SUPERUSER, "postgres")];
                let switched = stage.switched.clone();
                let pause = Duration::from_micros(4_000_000 / per_second);
                tokio::spawn(async move {
                    let mut written = Vec::new();
                    let mut at_target = false;
                    let mut client = session(&urls[0]).await;
                    let mut next = Instant::now();
                    let mut n = 0i64;
                    while !stop.load(Ordering::Relaxed) {
                        n += 1;
                        let sql = "INSERT INTO public.ledger (writer, n) VALUES ($1, $2)";
                        match client.execute(sql, &[&writer, &n]).await {
                            Ok(_) => {
                                written.push((writer, n));
                                acknowledged.fetch_add(1, Ordering::Relaxed);
                            }
                            // Refused by the fence: this write did not happen. Follow the switch when it has.
                            Err(error) => {
                                assert!(error.as_db_error().is_some(), "{error:?}");
                                if !at_target && switched.exists() {
                                    client = session(&urls[1]).await;
                                    at_target = true;
                                }
                            }
                        }
                        next += pause;
                        tokio::time::sleep_until(next.into()).await;
                    }
                    assert!(at_target || !switched.exists(), "a writer never reached the target");
                    written
                })
            })
            .collect();
        Writers { stop, acknowledged, tasks }
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    async fn stop(self) -> Vec<(i32, i64)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut written = Vec::new();
        for task in self.tasks {
            written.extend(task.await.unwrap());
        }
        written
    }
}

async fn session(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Every acknowledged write is at `server` exactly once, and no refused one is.
async fn assert_exact(server: &LocalPostgres, mut acknowledged: Vec<(i32, i64)>) {
    let client = server.connect("postgres").await.unwrap();
    let rows = client
        .query("SELECT writer, n FROM public.ledger WHERE writer BETWEEN 1 AND 98 ORDER BY 1, 2", &[])
        .await
        .unwrap();
    let found: Vec<(i32, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    acknowledged.sort_unstable();
    assert_eq!(found.len(), acknowledged.len(), "rows at the target, acknowledged writes");
    assert!(found == acknowledged, "the target's rows are not those that were acknowledged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_under_a_thousand_writes_a_second_loses_none() {
    let stage = Stage::set().await;
    let writers = Writers::start(&stage, 1000);
    let run = stage.streaming().await;
    wait_for("writes while streaming", MINUTE, async || writers.acknowledged() > 3000).await;
    let dry = stage.cutwater.run(&["cutover", "--dry-run", "--max-lag", "2s"], MINUTE).await.assert_code(0);
    assert!(!stage.fenced().await, "a dry run changes nothing: {}", dry.stdout);

    let done =
        stage.cutwater.run(&["cutover", "--max-lag", "2s", "--max-downtime", "30s"], 2 * MINUTE).await.assert_code(0);
    let after = writers.acknowledged();
    wait_for("writes at the target", MINUTE, async || writers.acknowledged() > after + 1000).await;
    let acknowledged = writers.stop().await;
    assert!(stage.fenced().await, "the old source takes no more writes");
    run.wait(MINUTE).await.assert_code(0);
    assert_exact(&stage.target, acknowledged).await;
    assert_eq!(std::fs::read_to_string(&stage.switched).unwrap().trim(), "shop");
    assert_eq!(stage.status().await["phase"], "target-live");
    // Asked again, it has nothing left to do and says so.
    stage.cutwater.run(&["cutover"], MINUTE).await.assert_code(0);
    // Letting the old source write again would split the data in two: only when told to.
    stage.cutwater.run(&["teardown"], MINUTE).await.assert_code(3);
    stage.cutwater.run(&["teardown", "--release-source"], MINUTE).await.assert_code(0);
    assert!(!stage.fenced().await);
    drop(stage.folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_dies_at_the_drain_gives_the_source_back_in_time() {
    let mut stage = Stage::set().await;
    let writers = Writers::start(&stage, 200);
    let run = stage.streaming().await;
    let blocker = stage.block_applier().await;
    let cutover = stage.cutwater.start(&["cutover", "--max-lag", "1h", "--hold", "0s", "--max-downtime", "10s"]);
    wait_for("the fence", MINUTE, async || stage.fenced().await).await;
    let fenced_at = Instant::now();
    stage.target.stop(StopMode::Immediate).unwrap();
    drop(blocker);

    wait_for("writes at the source", MINUTE, async || !stage.fenced().await).await;
    assert!(fenced_at.elapsed() < Duration::from_secs(11), "refused for {:?}", fenced_at.elapsed());
    cutover.wait(MINUTE).await.assert_code(4);
    let so_far = writers.acknowledged();
    wait_for("the application to write on", MINUTE, async || writers.acknowledged() > so_far + 200).await;

    stage.target.start_again().unwrap();
    wait_for("streaming again", MINUTE, async || {
        let status = stage.status().await;
        status["phase"] == "streaming" && status["lag_seconds"].as_f64().is_some_and(|lag| lag < 2.0)
    })
    .await;
    stage.cutwater.run(&["verify"], MINUTE).await.assert_code(0);
    stage.cutwater.run(&["cutover", "--max-lag", "2s", "--wait"], 2 * MINUTE).await.assert_code(0);
    let after = writers.acknowledged();
    wait_for("writes at the target", MINUTE, async || writers.acknowledged() > after + 200).await;
    let acknowledged = writers.stop().await;
    run.wait(MINUTE).await.assert_code(0);
    assert_exact(&stage.target, acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_killed_at_the_fence_leaves_the_source_to_itself_and_the_same_command_completes() {
    let stage = Stage::set().await;
    let writers = Writers::start(&stage, 200);
    let run = stage.streaming().await;

    // Dead for good: the fence opens by itself.
    let blocker = stage.block_applier().await;
    let args = ["cutover", "--max-lag", "1h", "--hold", "0s", "--max-downtime", "6s"];
    let mut cutover = stage.cutwater.start(&args);
    wait_for("the fence", MINUTE, async || stage.fenced().await).await;
    cutover.kill9();
    let killed_at = Instant::now();
    wait_for("the fence to expire", MINUTE, async || !stage.fenced().await).await;
    assert!(killed_at.elapsed() < Duration::from_secs(7), "expired after {:?}", killed_at.elapsed());

    // Killed and started again while the fence still holds.
    let mut cutover = stage.cutwater.start(&["cutover", "--max-lag", "1h", "--hold", "0s", "--max-downtime", "60s"]);
    wait_for("the second fence", MINUTE, async || stage.fenced().await).await;
    cutover.kill9();
    drop(blocker);
    wait_for("the lag to be worked off", MINUTE, async || {
        stage.status().await["lag_seconds"].as_f64().is_some_and(|lag| lag < 5.0)
    })
    .await;
    stage
        .cutwater
        .run(&["cutover", "--max-lag", "5s", "--max-downtime", "30s", "--wait"], 2 * MINUTE)
        .await
        .assert_code(0);
    let after = writers.acknowledged();
    wait_for("writes at the target", MINUTE, async || writers.acknowledged() > after + 200).await;
    let acknowledged = writers.stop().await;
    run.wait(MINUTE).await.assert_code(0);
    assert_exact(&stage.target, acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_command_that_fails_is_run_again_and_never_undoes_the_switch() {
    let stage = Stage::set().await;
    let run = stage.streaming().await;
    let broken = stage.folder.path().join("broken");
    std::fs::write(&broken, "").unwrap();
    let command = format!("test ! -e {} && touch {}", broken.display(), stage.switched.display());
    let config = std::fs::read_to_string(stage.cutwater.config_path()).unwrap();
    let line = config.lines().find(|line| line.starts_with("switch_command")).unwrap();
    std::fs::write(stage.cutwater.config_path(), config.replace(line, &format!("switch_command = \"{command}\"")))
        .unwrap();

    let failed = stage.cutwater.run(&["cutover", "--max-lag", "5s"], 2 * MINUTE).await;
    assert_eq!(failed.code, Some(1), "{}{}", failed.stdout, failed.stderr);
    assert!(stage.fenced().await, "past the point of no return nothing is undone");
    std::fs::remove_file(&broken).unwrap();
    stage.cutwater.run(&["cutover"], MINUTE).await.assert_code(0);
    assert!(stage.switched.exists());
    run.wait(MINUTE).await.assert_code(0);
}
