//! `kill -9` of the engine, over the whole life of a migration.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;

use super::engine::Engine;
use super::stage::{FOLLOWING, PATIENCE, Stage, assert_holds, assert_same, entered};
use crate::support::{Finished, Running, wait_for};

/// Small parts and small batches, and a copy that lasts: more places to be killed at.
const CONFIG: &str = "[snapshot]\nchunk_rows = 5000\nworkers = 2\nmax_rows_per_second = 12000\n\
                      [apply]\nbatch_rows = 200\n";
/// What a cutover says before its point of no return; one is killed soon after one of these.
const STEPS: [&str; 5] =
    ["taking the fence", "the source refuses writes", "drained after", "both ends hold the same", "sequences are set"];
/// What one says that is past it.
const POINT: [&str; 2] = ["the point of no return is passed", "is past its point of no return"];

/// How often it is killed, and where.
#[derive(Debug, Clone, Copy)]
pub struct Kills {
    pub copy: usize,
    pub indexing: usize,
    pub stream: usize,
    pub before_the_point: usize,
    pub after_the_point: usize,
}

/// Killed at random moments over copy, index build, stream and cutover (the driver and the run), while the application
/// writes: the same command goes on, and at the end every acknowledged write is there once.
pub async fn the_engine_is_killed_everywhere<S: Engine, T: Engine>(kills: Kills) {
    let (seed, rng) = super::seed("kills");
    let folder = tempfile::tempdir().unwrap();
    let (begun, go) = (folder.path().join("begun"), folder.path().join("go"));
    let command = format!("touch {}; while test ! -e {}; do sleep 0.05; done", begun.display(), go.display());
    let config = format!("{CONFIG}[cutover]\nswitch_command = \"{command}\"\n");
    let stage = Stage::<S, T>::set(60_000, 150.0, seed, &config).await;
    let mut play = Play { stage, rng, at: BTreeMap::new() };

    play.kill_runs(kills.copy, "snapshot", 2500).await;
    play.kill_runs(kills.indexing, "indexing", 60).await;
    play.kill_runs(kills.stream, "catching-up", 2500).await;
    let mut run = Some(play.stage.run_to("streaming").await);
    let bank = play.stage.open_bank();
    play.stage.writes(300).await;
    play.stage.cutwater.run(&["verify"], PATIENCE).await.assert_code(0);

    let (mut passed, mut early) = (false, 0);
    for number in 0..kills.before_the_point {
        if !passed {
            // Behind its last steps the point is milliseconds away; the first kill leaves it time.
            let step = if number == 0 { STEPS[0] } else { STEPS[play.rng.random_range(0..STEPS.len())] };
            passed = play.kill_driver(&mut run, &[step]).await;
            early += 1;
        }
    }
    for _ in 0..kills.after_the_point + kills.before_the_point - early {
        passed |= play.kill_driver(&mut run, &POINT).await;
        assert!(passed);
    }

    // Nothing is left but the way forward, and the target holds what the source held when it was fenced.
    let refused = play.stage.cutwater.run(&["cutover", "--abort"], PATIENCE).await;
    assert_ne!(refused.code, Some(0), "past the point of no return there is no way back: {}", refused.stdout);
    std::fs::write(&go, "").unwrap();
    play.cutover().await.assert_code(0);
    run.take().unwrap().wait(PATIENCE).await.assert_code(0);
    assert!(begun.exists());
    let Play { stage, at, .. } = play;
    assert_same(&stage.source, &stage.target).await;
    stage.writer.switch_to(&stage.target.application_url());
    stage.writes(100).await;
    let (reads, states) = bank.close();
    let (record, figures) = stage.writer.stop().await.unwrap();
    assert_holds(&stage.target.url(), &stage.source.url(), &record).await;
    eprintln!(
        "killed {} times: {at:?}; {} writes acknowledged, {} of them looked up; the bank was right in {reads} reads of {states} states",
        at.values().sum::<usize>(),
        figures.acknowledged,
        figures.looked_up
    );
    // Where a few random moments hit is chance; many that all miss a phase are a mistake of this test.
    if kills.copy + kills.indexing + kills.stream + kills.before_the_point >= 20 {
        for phase in ["snapshot", "indexing", "stream", "cutover, before the point", "cutover, after the point"] {
            assert!(at.contains_key(phase), "never killed in {phase}: {at:?}");
        }
    }
}

struct Play<S: Engine, T: Engine> {
    stage: Stage<S, T>,
    rng: StdRng,
    /// Kills by where they hit.
    at: BTreeMap<&'static str, usize>,
}

impl<S: Engine, T: Engine> Play<S, T> {
    /// Kills runs at random moments of the `millis` behind the beginning of a phase.
    async fn kill_runs(&mut self, times: usize, phase: &str, millis: u64) {
        for _ in 0..times {
            let mut run = self.stage.cutwater.start(&["run"]);
            // One in four is killed before it has come so far, where that is likely to be in the phase too.
            if phase == "indexing" || self.rng.random_range(0..4) > 0 {
                reached_or_past(&mut run, phase).await;
            }
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..millis))).await;
            assert!(run.is_running(), "it ended by itself: {}", run.stderr());
            run.kill9();
            *self.at.entry(where_it_was(&run)).or_default() += 1;
        }
    }

    /// Starts a cutover and kills it, the run, or both, behind the first of these words; whether the point of no return was
    /// passed.
    async fn kill_driver(&mut self, run: &mut Option<Running>, steps: &[&str]) -> bool {
        let mut cutover = self.stage.cutwater.start(ARGS);
        let started = Instant::now();
        let said = |cutover: &Running, words: &[&str]| words.iter().any(|word| cutover.stderr().contains(word));
        while !said(&cutover, steps) && !said(&cutover, &POINT) && cutover.is_running() {
            assert!(started.elapsed() < PATIENCE, "a cutover never came to {steps:?}: {}", cutover.stderr());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..15))).await;
        let which = self.rng.random_range(0..3);
        if which > 0 {
            let mut old = run.take().unwrap();
            old.kill9();
            if which == 2 {
                // The run alone: the driver sees it through with the next, or takes everything back.
                *run = Some(self.stage.cutwater.start(&["run"]));
                tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..1500))).await;
            }
        }
        let ended = !cutover.is_running();
        cutover.kill9();
        // Past the point the switch command waits for a file: a driver that ended by itself has taken everything back.
        assert!(!ended || said(&cutover, &["undone"]), "a cutover ended by itself: {}", cutover.stderr());
        let passed = said(&cutover, &POINT);
        let what = if passed { "cutover, after the point" } else { "cutover, before the point" };
        *self.at.entry(what).or_default() += 1;
        if run.is_none() {
            // Behind a fence the phase is not streaming: what counts is that it is at work.
            let mut next = self.stage.cutwater.start(&["run"]);
            reached_or_past(&mut next, "streaming").await;
            *run = Some(next);
        }
        passed
    }

    async fn cutover(&self) -> Finished {
        self.stage.cutwater.run(ARGS, PATIENCE).await
    }
}

const ARGS: &[&str] = &["cutover", "--wait", "--max-lag", "10s", "--hold", "0s", "--max-downtime", "60s"];
const PHASES: [&str; 4] = ["snapshot", "indexing", "catching-up", "streaming"];

/// Waits until a run has come to a phase, or starts behind it because the one before has left it so far.
async fn reached_or_past(run: &mut Running, phase: &str) {
    let first = PHASES.iter().position(|known| *known == phase).unwrap();
    wait_for(phase, PATIENCE, async || {
        assert!(run.is_running(), "it ended by itself: {}", run.stderr());
        PHASES[first..].iter().any(|phase| entered(run, phase)) || run.stderr().contains(FOLLOWING)
    })
    .await;
}

fn where_it_was(run: &Running) -> &'static str {
    if run.stderr().contains(FOLLOWING) {
        return "stream";
    }
    PHASES[..2].iter().rev().find(|phase| entered(run, phase)).copied().unwrap_or("start")
}
