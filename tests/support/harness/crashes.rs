//! The servers crash, and the run goes on by itself.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use super::engine::{Engine, Session};
use super::stage::{PATIENCE, Stage, entered};
use crate::support::{Running, wait_for};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Source,
    Target,
}

/// Source and target crash `each` times while the rows are copied: the tables that were finished stay, the others are
/// copied again, and the same process brings everything over.
pub async fn servers_crash_in_the_copy<S: Engine, T: Engine>(each: usize) {
    let (seed, mut rng) = super::seed("crashes in the copy");
    let config = "[snapshot]\nchunk_rows = 5000\nmax_rows_per_second = 6000\n[apply]\nbatch_rows = 200";
    let mut stage = Stage::<S, T>::set(40_000, 100.0, seed, config).await;
    let mut run = stage.cutwater.start(&["run"]);
    for round in 0..2 * each {
        let end = [End::Source, End::Target][round % 2];
        wait_for("the copy to be under way", PATIENCE, async || {
            assert!(run.is_running(), "it ended by itself: {}", run.stderr());
            // The first try says so twice, each later one once.
            run.stderr().matches("\"phase\":\"snapshot\"").count() >= 2 + round || entered(&run, "indexing")
        })
        .await;
        assert!(!entered(&run, "indexing"), "the copy was over before it was disturbed: {}", run.stderr());
        crash(&mut stage, end, &mut rng).await;
    }
    stage.reach(&mut run, "streaming").await;
    let bank = stage.open_bank();
    stage.writes(50).await;
    wait_for("the bank", PATIENCE, async || bank.states() > 3).await;
    bank.close();
    eprintln!("{each} crashes of each server in the copy: {:?}", stage.prove(run).await);
}

/// … and `each` times while the run streams.
pub async fn servers_crash_in_the_stream<S: Engine, T: Engine>(each: usize) {
    let (source, target) = tokio::join!(S::start(), T::start());
    these_crash_in_the_stream(source, target, each).await;
}

/// As [`servers_crash_in_the_stream`], with servers of one's own.
pub async fn these_crash_in_the_stream<S: Engine, T: Engine>(source: S, target: T, each: usize) {
    let (seed, mut rng) = super::seed("crashes in the stream");
    let mut stage = Stage::between(source, target, 5_000, 150.0, seed, "[apply]\nbatch_rows = 200").await;
    let mut run = stage.run_to("streaming").await;
    let bank = stage.open_bank();
    for round in 0..2 * each {
        let end = [End::Source, End::Target][round % 2];
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..1000))).await;
        crash(&mut stage, end, &mut rng).await;
        stage.writes(50).await;
        arrived(&stage, &mut run).await;
    }
    let (reads, states) = bank.close();
    let proved = stage.prove(run).await;
    eprintln!(
        "{each} crashes of each server in the stream: {proved:?}, the bank right in {reads} reads of {states} states"
    );
}

async fn crash<S: Engine, T: Engine>(stage: &mut Stage<S, T>, end: End, rng: &mut StdRng) {
    tokio::time::sleep(Duration::from_millis(rng.random_range(0..600))).await;
    let away = Duration::from_millis(rng.random_range(0..1500));
    match end {
        End::Source => {
            stage.source.crash();
            tokio::time::sleep(away).await;
            stage.source.start_again();
        }
        End::Target => {
            stage.target.crash();
            tokio::time::sleep(away).await;
            stage.target.start_again();
        }
    }
}

/// Waits until something that is written now is at the target.
pub async fn arrived<S: Engine, T: Engine>(stage: &Stage<S, T>, run: &mut Running) {
    let acknowledged = stage.writer.figures().acknowledged;
    wait_for("the writes to arrive", PATIENCE, async || {
        assert!(run.is_running(), "it ended by itself: {}", run.stderr());
        let Ok(mut session) = T::connect(&stage.target.url()).await else { return false };
        let count = session.numbers("SELECT count(*) FROM journal").await;
        count.is_ok_and(|count| count[0].unsigned_abs() >= acknowledged)
    })
    .await;
}
