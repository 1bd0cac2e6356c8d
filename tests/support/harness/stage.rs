//! Two servers, two proxies, a migration between them, an application that writes: what every scenario begins with, and
//! the proof with which it ends.

use std::time::Duration;

use cutwater::cli::demo::workload::{self, Record, Workload, Writer, WriterOptions};

use super::bank::Bank;
use super::engine::{Engine, Session};
use crate::support::{Cutwater, Proxy, Running, compare, wait_for};

/// Every wait of a scenario is for a condition, and gives up after this long.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Where a scenario is played.
pub struct Stage<S: Engine, T: Engine> {
    /// The source's server.
    pub source: S,
    /// The target's server.
    pub target: T,
    /// What Cutwater connects through to the source. Everybody else goes straight.
    pub from: Proxy,
    /// … and to the target.
    pub to: Proxy,
    /// The migration.
    pub cutwater: Cutwater,
    /// The application.
    pub writer: Writer,
    workload: Workload,
}

impl<S: Engine, T: Engine> Stage<S, T> {
    /// Servers with the workload's tables of about this many rows, and a writer at work. `config` is more of the file.
    pub async fn set(rows: u64, rate: f64, seed: u64, config: &str) -> Stage<S, T> {
        let (source, target) = tokio::join!(S::start(), T::start());
        Stage::between(source, target, rows, rate, seed, config).await
    }

    /// As [`Stage::set`], between servers that run already.
    pub async fn between(source: S, target: T, rows: u64, rate: f64, seed: u64, config: &str) -> Stage<S, T> {
        let (from, to) = tokio::join!(Proxy::start(source.port()), Proxy::start(target.port()));
        let workload = Workload::of_rows(rows);
        let home = source.url();
        workload.install(&mut session(&home, &home).await).await.unwrap();
        let writer = Writer::start(&source.application_url(), workload, WriterOptions { connections: 3, rate, seed });
        let cutwater = Cutwater::new(&S::url_at(from.port()), &T::url_at(to.port())).and(config);
        Stage { source, target, from, to, cutwater, writer, workload }
    }

    /// What all accounts hold together.
    pub fn money(&self) -> i64 {
        self.workload.money()
    }

    /// Begins to add up the money at the target.
    pub fn open_bank(&self) -> Bank<T> {
        Bank::open(&self.target.url(), self.money())
    }

    /// Starts a run and waits until it has come to `phase`.
    pub async fn run_to(&self, phase: &str) -> Running {
        let mut run = self.cutwater.start(&["run"]);
        self.reach(&mut run, phase).await;
        run
    }

    /// Waits until the migration is in this phase, with this run at work on it.
    pub async fn reach(&self, run: &mut Running, phase: &str) {
        wait_for(phase, PATIENCE, async || {
            assert!(run.is_running(), "it ended by itself: {}", run.stderr());
            // A phase that was entered by an earlier run is not said again.
            entered(run, phase)
                || phase == "streaming" && run.stderr().contains(FOLLOWING) && self.status().await["phase"] == phase
        })
        .await;
    }

    /// `status --json`.
    pub async fn status(&self) -> serde_json::Value {
        self.cutwater.run(&["status", "--json"], PATIENCE).await.json()
    }

    /// Waits until this many more writes were acknowledged.
    pub async fn writes(&self, more: u64) {
        let before = self.writer.figures().acknowledged;
        wait_for("writes", PATIENCE, async || self.writer.figures().acknowledged >= before + more).await;
    }

    /// A number from the target.
    pub async fn at_target(&self, sql: &str) -> i64 {
        T::connect(&self.target.url()).await.unwrap().numbers(sql).await.unwrap()[0]
    }

    /// Stops the writer, lets the run catch up and end, and proves that nothing is lost and nothing is there twice.
    pub async fn prove(self, run: Running) -> Proved {
        let Stage { writer, .. } = self;
        let (record, figures) = writer.stop().await.unwrap();
        run.sigint();
        run.wait(PATIENCE).await.assert_code(0);
        self.cutwater.run(&["run", "--until", "caught-up"], PATIENCE).await.assert_code(0);
        assert_same::<S, T>(&self.source, &self.target).await;
        assert_holds(&self.target.url(), &self.source.url(), &record).await;
        let status = self.cutwater.run(&["status", "--json"], PATIENCE).await.json();
        assert_eq!((&status["divergences"], &status["dead_letters"]), (&0.into(), &0.into()), "{status}");
        Proved { acknowledged: figures.acknowledged, looked_up: figures.looked_up }
    }
}

/// What was proved, for the log.
#[derive(Debug)]
#[allow(dead_code, reason = "shown")]
pub struct Proved {
    /// Writes that are all there, once.
    pub acknowledged: u64,
    /// Of them, those whose COMMIT had no answer.
    pub looked_up: u64,
}

/// A session of the workload at `url`, whose tables were made at `home`.
async fn session(url: &str, home: &str) -> workload::Session {
    workload::Session::connect(url, workload::Engine::of(home)).await.unwrap()
}

/// Every row of every table is the same at both ends, as text.
pub async fn assert_same<S: Engine, T: Engine>(source: &S, target: &T) {
    let home = source.url();
    let (mut left, mut right) = (session(&home, &home).await, session(&target.url(), &home).await);
    for table in Workload::TABLES {
        let (left, right) = (workload::lines(&mut left, table).await, workload::lines(&mut right, table).await);
        compare::compare_lines(table, left.unwrap(), right.unwrap());
    }
}

/// The database at `url`, whose tables were made at `home`, holds what the application was promised.
pub async fn assert_holds(url: &str, home: &str, record: &Record) {
    let proof = record.prove(&mut session(url, home).await).await.unwrap();
    assert!(proof.holds() && proof.acknowledged > 0, "{proof:#?}");
}

/// What a run says when it begins to read the stream.
pub const FOLLOWING: &str = "following the source";

/// Whether a run has said that it enters this phase.
pub fn entered(run: &Running, phase: &str) -> bool {
    run.stderr().contains(&format!("\"phase\":\"{phase}\""))
}
