//! The switch, with clients that never stop writing.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test dies of its errors, and prints what it measured")]

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
        wait_for("streaming, and the first heartbeat", MINUTE, async || {
            let status = self.status().await;
            status["phase"] == "streaming" && status["run_alive"] == true
        })
        .await;
        self.cutwater.run(&["verify"], MINUTE).await.assert_code(0);
        run
    }

    async fn caught_up(&self) {
        wait_for("the lag to be worked off", MINUTE, async || {
            self.status().await["lag_seconds"].as_f64().is_some_and(|lag| lag < 2.0)
        })
        .await;
    }

    async fn status(&self) -> serde_json::Value {
        self.cutwater.run(&["status", "--json"], MINUTE).await.json()
    }

    /// A session at the target that holds the applier up at the fence's marker until it is dropped.
    async fn block_drain(&self) -> Client {
        let blocker = self.target.connect("postgres").await.unwrap();
        blocker
            .batch_execute(
                "CREATE OR REPLACE FUNCTION public.hold_up() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN PERFORM pg_catalog.pg_advisory_xact_lock_shared(4711); RETURN NEW; END $$;
                 DROP TRIGGER IF EXISTS hold_up ON cutwater.cutover;
                 CREATE TRIGGER hold_up BEFORE UPDATE ON cutwater.cutover FOR EACH ROW
                   WHEN (OLD.drained_at IS NULL AND NEW.drained_at IS NOT NULL) EXECUTE FUNCTION public.hold_up();
                 ALTER TABLE cutwater.cutover ENABLE ALWAYS TRIGGER hold_up;
                 SELECT pg_advisory_lock(4711)",
            )
            .await
            .unwrap();
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
    /// Microseconds: the longest any of them went without an acknowledged write.
    longest_gap: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Vec<(i32, i64)>>>,
}

impl Writers {
    fn start(stage: &Stage, per_second: u64) -> Writers {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let longest_gap = Arc::new(AtomicU64::new(0));
        let tasks = (1..=4)
            .map(|writer| {
                let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
                let longest_gap = Arc::clone(&longest_gap);
                let urls = [stage.source.url(SUPERUSER, "postgres"), stage.target.url(SUPERUSER, "postgres")];
                let switched = stage.switched.clone();
                let pause = Duration::from_micros(4_000_000 / per_second);
                tokio::spawn(async move {
                    let mut written = Vec::new();
                    let mut at_target = false;
                    let mut client = session(&urls[0]).await;
                    let (mut next, mut last) = (Instant::now(), Instant::now());
                    let mut n = 0i64;
                    while !stop.load(Ordering::Relaxed) {
                        n += 1;
                        let sql = "INSERT INTO public.ledger (writer, n) VALUES ($1, $2)";
                        match client.execute(sql, &[&writer, &n]).await {
                            Ok(_) => {
                                written.push((writer, n));
                                acknowledged.fetch_add(1, Ordering::Relaxed);
                                longest_gap.fetch_max(last.elapsed().as_micros() as u64, Ordering::Relaxed);
                                last = Instant::now();
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
        Writers { stop, acknowledged, longest_gap, tasks }
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Forgets the gaps so far; returns the longest of them.
    fn longest_gap(&self) -> Duration {
        Duration::from_micros(self.longest_gap.swap(0, Ordering::Relaxed))
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

    // A neighbour in another database, whose log the stream has to pass without a change for us in it.
    stage.source.execute("postgres", "CREATE DATABASE neighbour").await.unwrap();
    let neighbour = stage.source.connect("neighbour").await.unwrap();
    neighbour.batch_execute("CREATE TABLE t (v text)").await.unwrap();
    let neighbour = tokio::spawn(async move {
        while neighbour.batch_execute("INSERT INTO t SELECT 'x' FROM generate_series(1, 20)").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    writers.longest_gap();
    let done =
        stage.cutwater.run(&["cutover", "--max-lag", "2s", "--max-downtime", "30s"], 2 * MINUTE).await.assert_code(0);
    let after = writers.acknowledged();
    wait_for("writes at the target", MINUTE, async || writers.acknowledged() > after + 1000).await;
    eprintln!("{}\nlongest gap of a writer: {:?}", done.stdout, writers.longest_gap());
    neighbour.abort();
    let acknowledged = writers.stop().await;
    assert!(stage.fenced().await, "the old source takes no more writes");
    let run = run.wait(MINUTE).await.assert_code(0);
    assert!(run.stdout.contains("The target is live"), "{}", run.stdout);
    assert_exact(&stage.target, acknowledged).await;
    assert_eq!(std::fs::read_to_string(&stage.switched).unwrap().trim(), "shop");
    assert_eq!(stage.status().await["phase"], "target-live");
    // Asked again, it has nothing left to do and says so.
    let again = stage.cutwater.run(&["cutover"], MINUTE).await.assert_code(0);
    assert!(again.stdout.contains("The target is live"), "{}", again.stdout);
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
    let blocker = stage.block_drain().await;
    let cutover = stage.cutwater.start(&["cutover", "--max-lag", "5s", "--hold", "0s", "--max-downtime", "10s"]);
    wait_for("the fence", MINUTE, async || stage.fenced().await).await;
    let fenced_at = Instant::now();
    stage.target.stop(StopMode::Immediate).unwrap();
    drop(blocker);

    wait_for("writes at the source", MINUTE, async || !stage.fenced().await).await;
    assert!(fenced_at.elapsed() < Duration::from_secs(11), "refused for {:?}", fenced_at.elapsed());
    let undone = cutover.wait(MINUTE).await.assert_code(4);
    assert!(undone.stderr.contains("the source takes them again"), "{}", undone.stderr);
    let so_far = writers.acknowledged();
    wait_for("the application to write on", MINUTE, async || writers.acknowledged() > so_far + 200).await;

    stage.target.start_again().unwrap();
    stage.caught_up().await;
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
    let blocker = stage.block_drain().await;
    let args = ["cutover", "--max-lag", "5s", "--hold", "0s", "--max-downtime", "6s"];
    let mut cutover = stage.cutwater.start(&args);
    wait_for("the fence", MINUTE, async || stage.fenced().await).await;
    cutover.kill9();
    let killed_at = Instant::now();
    wait_for("the fence to expire", MINUTE, async || !stage.fenced().await).await;
    assert!(killed_at.elapsed() < Duration::from_secs(7), "expired after {:?}", killed_at.elapsed());

    // Killed and started again while the fence still holds.
    drop(blocker);
    stage.caught_up().await;
    let blocker = stage.block_drain().await;
    let mut cutover = stage.cutwater.start(&["cutover", "--max-lag", "5s", "--hold", "0s", "--max-downtime", "60s"]);
    wait_for("the second fence", MINUTE, async || stage.fenced().await).await;
    cutover.kill9();
    drop(blocker);
    stage.caught_up().await;
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
