//! Whole cutovers to Postgres, with the real `run`, under applications that never stop writing and follow the switch.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cutwater::config::Config;
use cutwater::cutover::{Options, Parts, Progress, abort, drive};
use cutwater::error::Kind;
use cutwater::mysql::Flavour;
use cutwater::pipeline::Job;
use cutwater::schema::Patterns;
use cutwater::target::Target;
use cutwater::verify::Ends;
use tokio_util::sync::CancellationToken;

use crate::support::mysql::{DATABASE, connect};
use crate::support::{Cutwater, Database, LocalMySql, MyOptions, my_server, one, wait_for, within};

const MINUTES: Duration = Duration::from_secs(120);
const TABLES: &str = "
    CREATE TABLE ledger (id bigint PRIMARY KEY AUTO_INCREMENT, writer int NOT NULL, n bigint NOT NULL, note varchar(40));
    CREATE TABLE fixed (id int PRIMARY KEY AUTO_INCREMENT, v varchar(20));
    INSERT INTO fixed (v) VALUES ('one'), ('two'), ('three');
    CREATE USER app@'%' IDENTIFIED BY 'app'; GRANT SELECT, INSERT, UPDATE, DELETE ON shop.* TO app@'%';";

/// A source, a target, and a migration between them.
struct Stage {
    source: LocalMySql,
    target: Database,
    cutwater: Cutwater,
    switched: PathBuf,
    parts: Option<Parts>,
}

impl Stage {
    async fn set(flavour: Flavour, way: &str) -> Option<Stage> {
        let source = my_server(flavour, MyOptions::new(), "a whole cutover").await?;
        source.execute(DATABASE, TABLES).await;
        // Handed out, and never written.
        source.execute(DATABASE, "BEGIN; INSERT INTO fixed (v) VALUES ('never'); ROLLBACK").await;
        let target = one().await;
        let cutwater = Cutwater::new(&source.url(DATABASE), &target.url());
        let switched = cutwater.folder().join("switched");
        let command = format!("echo $CUTWATER_SOURCE_PORT $CUTWATER_SOURCE_DATABASE > {}", switched.display());
        let cutwater = cutwater.and(&format!("[cutover]\nfence = \"{way}\"\nswitch_command = \"{command}\""));
        Some(Stage { source, target, cutwater, switched, parts: None })
    }

    /// Until it streams, is verified, and the gates are open.
    async fn run(&mut self) -> crate::support::Running {
        let run = self.cutwater.start(&["run"]);
        self.cutwater.wait_for_status(|status| status["phase"] == "streaming" && status["run_alive"] == true).await;
        self.cutwater.run(&["verify"], MINUTES).await.assert_code(0);
        self.target.execute("ANALYZE").await;
        let text = std::fs::read_to_string(self.cutwater.config_path()).unwrap();
        let config = Config::parse(&text, "cutwater.toml").unwrap();
        let cutover = config.cutover.clone();
        let job = Job::open(config).unwrap();
        let plan = job.recorded_plan().await.unwrap().unwrap();
        let state = job.target.state().clone();
        let patterns = Patterns::parse::<&str>(&[]).unwrap();
        self.parts = Some(Parts {
            ends: Ends { source: job.source, target: job.target, state },
            plan,
            patterns,
            config: cutover,
        });
        run
    }

    fn parts(&self) -> Parts {
        self.parts.clone().unwrap()
    }

    async fn drive(&self) -> cutwater::error::Result<cutwater::cutover::CutoverReport> {
        drive_when_open(&self.parts(), &|_| {}).await
    }

    /// Runs a driver and kills it (its future is dropped where it stands) once `last` was reported.
    async fn kill_after(&self, last: fn(&Progress<'_>) -> bool) {
        let parts = self.parts();
        let outcome = tokio::spawn(async move {
            let report = move |progress: &Progress<'_>| assert!(!last(progress), "killed here");
            drive_when_open(&parts, &report).await.map(drop)
        });
        match outcome.await {
            Ok(done) => panic!("the driver was not killed: {done:?}"),
            Err(error) => assert!(error.is_panic()),
        }
    }

    async fn source_writes(&self) -> bool {
        let Ok(mut session) = connect(&self.source.url_of("app", "app", DATABASE)).await else { return false };
        let sql = "SET SESSION lock_wait_timeout = 3; UPDATE fixed SET v = left(rand(), 10) WHERE id = 2";
        session.execute(sql).await.is_ok()
    }
}

/// Cuts over as soon as the gates are open, or says after a while why they are not.
async fn drive_when_open(
    parts: &Parts,
    report: &(dyn Fn(&Progress<'_>) + Send + Sync),
) -> cutwater::error::Result<cutwater::cutover::CutoverReport> {
    let begun = Instant::now();
    loop {
        match drive(parts, &options(), report, &CancellationToken::new()).await {
            Err(error) if error.to_string().contains("CUTOVER REFUSED") && begun.elapsed() < MINUTES / 2 => {}
            done => return done,
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn options() -> Options {
    Options {
        max_lag: Duration::from_secs(5),
        hold: Duration::from_millis(100),
        max_downtime: Duration::from_secs(30),
        ..Options::default()
    }
}

/// Applications that write to the source until they are switched, then to the target, and remember what was acknowledged.
struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<(i64, Duration)>>,
}

impl Writers {
    fn start(stage: &Stage) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let tasks = (1..=3).map(|writer| {
            let (stop, switched) = (Arc::clone(&flag), stage.switched.clone());
            let (source, target) = (stage.source.url_of("app", "app", DATABASE), stage.target.url());
            tokio::spawn(async move {
                let mut session = None;
                let mut client = None;
                let (mut n, mut last, mut longest) = (0, Instant::now(), Duration::ZERO);
                while !stop.load(Ordering::Relaxed) {
                    let written = if switched.exists() {
                        if client.is_none() {
                            let (made, connection) =
                                tokio_postgres::connect(&target, tokio_postgres::NoTls).await.unwrap();
                            tokio::spawn(connection);
                            client = Some(made);
                        }
                        let sql = "INSERT INTO ledger (writer, n) VALUES ($1, $2)";
                        client.as_ref().unwrap().execute(sql, &[&writer, &(n + 1)]).await.is_ok()
                    } else {
                        if session.is_none() {
                            session = connect(&source).await.ok();
                        }
                        let sql = format!("INSERT INTO ledger (writer, n) VALUES ({writer}, {})", n + 1);
                        let written = match &mut session {
                            Some(open) => open.execute(&sql).await.is_ok(),
                            None => false,
                        };
                        if !written {
                            // Not acknowledged: the same number again, in a new session.
                            session = None;
                        }
                        written
                    };
                    if written {
                        n += 1;
                        longest = longest.max(last.elapsed());
                        last = Instant::now();
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                (n, longest)
            })
        });
        let tasks = tasks.collect();
        Writers { stop, tasks }
    }

    /// Stops them; every acknowledged row must be at the target, once.
    async fn lost_nothing(self, stage: &Stage) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let mut longest = Duration::ZERO;
        for (at, task) in self.tasks.into_iter().enumerate() {
            let (n, gap) = task.await.unwrap();
            longest = longest.max(gap);
            let sql = format!("SELECT count(DISTINCT n) FROM ledger WHERE writer = {} AND n <= {n}", at + 1);
            assert_eq!(stage.target.value::<i64>(&sql).await, n, "writer {} lost rows", at + 1);
            assert!(n > 10, "writer {} hardly wrote", at + 1);
        }
        longest
    }
}

async fn whole(flavour: Flavour, way: &str) {
    let Some(mut stage) = Stage::set(flavour, way).await else { return };
    let run = stage.run().await;
    let writers = Writers::start(&stage);

    // Before the point of no return: the source takes writes again without anybody, and the next driver tidies up.
    stage.kill_after(|progress| matches!(progress, Progress::Fenced { .. })).await;
    wait_for("the source to take writes by itself", MINUTES, async || stage.source_writes().await).await;
    stage.kill_after(|progress| matches!(progress, Progress::Sequences(_))).await;
    abort(&stage.parts(), &|_| {}).await.unwrap_or_else(|error| panic!("{flavour} {way}: {error}"));
    assert!(stage.source_writes().await);

    // A difference behind the fence takes it back.
    let changed = "UPDATE fixed SET v = 'changed' WHERE id = 1";
    stage.source.execute(DATABASE, changed).await;
    wait_for("the change to arrive", MINUTES, async || {
        stage.target.value::<i64>("SELECT count(*) FROM fixed WHERE v = 'changed'").await == 1
    })
    .await;
    stage.target.execute("UPDATE fixed SET v = 'other' WHERE id = 1").await;
    let error = stage.drive().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Undone, "{flavour} {way}: {error}");
    assert!(error.to_string().contains("fixed (1)"), "{error}");
    assert!(stage.source_writes().await);
    stage.target.execute("UPDATE fixed SET v = 'changed' WHERE id = 1").await;
    stage.cutwater.run(&["verify"], MINUTES).await.assert_code(0);

    // Past it: the source takes no more writes, and the next driver goes on.
    stage.kill_after(|progress| matches!(progress, Progress::Permanent)).await;
    assert!(!stage.source_writes().await, "{flavour} {way}");
    assert_eq!(abort(&stage.parts(), &|_| {}).await.unwrap_err().kind(), Kind::Refused);
    let done = stage.drive().await.unwrap_or_else(|error| panic!("{flavour} {way}: {error}"));
    assert!(done.resumed);
    let switched = std::fs::read_to_string(&stage.switched).unwrap();
    assert_eq!(switched, format!("{} {DATABASE}\n", stage.source.port()));
    assert!(!stage.source_writes().await);
    run.wait(MINUTES).await.assert_code(0);

    let before = stage.target.value::<i64>("SELECT count(*) FROM ledger").await;
    wait_for("the applications to go on at the target", MINUTES, async || {
        stage.target.value::<i64>("SELECT count(*) FROM ledger").await > before + 10
    })
    .await;
    writers.lost_nothing(&stage).await;
    // Four values were handed out, one of them never written.
    assert_eq!(stage.target.value::<i32>("INSERT INTO fixed (v) VALUES ('new') RETURNING id").await, 1005);

    stage.cutwater.run(&["teardown"], MINUTES).await.assert_code(3);
    let gone = stage.cutwater.run(&["teardown", "--release-source"], MINUTES).await.assert_code(0).stdout.clone();
    assert!(gone.contains("removed database cutwater"), "{gone}");
    assert!(stage.source_writes().await, "{flavour} {way}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_from_mysql_survives_every_death_of_its_driver_and_loses_nothing() {
    within("the cutovers", 2 * MINUTES, Box::pin(whole(Flavour::MySql, "read-only"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_from_mariadb_survives_every_death_of_its_driver_and_loses_nothing() {
    within("the cutovers", 2 * MINUTES, Box::pin(whole(Flavour::MariaDb, "accounts"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_cuts_over_from_mysql_and_says_how_long_writes_waited() {
    let Some(mut stage) = Stage::set(Flavour::MySql, "auto").await else { return };
    let run = stage.run().await;
    let rehearsed = stage.cutwater.run(&["cutover", "--dry-run", "--max-lag", "5s"], MINUTES).await;
    let rehearsed = rehearsed.assert_code(0).stdout.clone();
    for part in ["refuse writes to read_only of the whole server", "set public.fixed_id_seq to", "point of no return"] {
        assert!(rehearsed.contains(part), "{part:?} is missing in:\n{rehearsed}");
    }
    let writers = Writers::start(&stage);
    let done = stage.cutwater.run(&["cutover", "--json", "--wait", "--max-lag", "5s"], MINUTES).await;
    let done = done.assert_code(0).json();
    let downtime = done["downtime_ms"].as_u64().unwrap();
    assert!(downtime < 30_000 && done["sequences"] == 2, "{done}");
    run.wait(MINUTES).await.assert_code(0);
    let gap = writers.lost_nothing(&stage).await;
    eprintln!("downtime {downtime} ms; the longest gap of a writer {} ms", gap.as_millis());
    assert_eq!(stage.cutwater.status().await["phase"], "target-live");
}
