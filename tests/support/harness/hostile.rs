//! Servers that refuse, end our sessions, and forget; processes that commit when nobody expects it any more.

use std::time::Duration;

use super::crashes::arrived;
use super::engine::{Engine, Session};
use super::stage::{FOLLOWING, PATIENCE, Stage};
use crate::support::{Running, wait_for};

/// Every session that the engine has at either end is ended by the server, one after another, `rounds` times.
pub async fn sessions_are_ended<S: Engine, T: Engine>(rounds: usize) {
    let (seed, _) = super::seed("ended sessions");
    let stage = Stage::<S, T>::set(2_000, 100.0, seed, "[apply]\nbatch_rows = 50").await;
    let mut run = stage.run_to("streaming").await;
    let bank = stage.open_bank();
    let mut ended = 0;
    for _ in 0..rounds {
        for id in S::sessions_of_cutwater(&stage.source.url()).await {
            S::end_session(&stage.source.url(), id).await;
            ended += 1;
            arrived(&stage, &mut run).await;
        }
        for id in T::sessions_of_cutwater(&stage.target.url()).await {
            T::end_session(&stage.target.url(), id).await;
            ended += 1;
            arrived(&stage, &mut run).await;
        }
    }
    assert!(ended >= 3 * rounds, "only {ended} sessions were found");
    bank.close();
    eprintln!("{ended} sessions ended: {:?}", stage.prove(run).await);
}

/// A target that takes no writes any more is told by name; once it does, the same command goes on.
pub async fn a_read_only_target<S: Engine, T: Engine>() {
    let (seed, _) = super::seed("read-only target");
    let stage = Stage::<S, T>::set(2_000, 100.0, seed, "").await;
    let run = stage.run_to("streaming").await;
    stage.target.read_only(true).await;
    // Sessions keep what they began with: as after a restart, all are new.
    for id in T::sessions_of_cutwater(&stage.target.url()).await {
        T::end_session(&stage.target.url(), id).await;
    }
    let stopped = run.wait(PATIENCE).await.assert_code(1);
    assert!(stopped.stderr.contains("read-only"), "{}", stopped.stderr);
    let refused = stage.cutwater.run(&["run"], PATIENCE).await.assert_code(1);
    assert!(refused.stderr.contains("read-only"), "{}", refused.stderr);
    stage.target.read_only(false).await;
    let mut run = stage.run_to("streaming").await;
    arrived(&stage, &mut run).await;
    stage.prove(run).await;
}

/// A COMMIT of a run that was killed is still under way when its successor begins, and arrives late: it counts once,
/// whether it is in time or not.
pub async fn a_commit_that_arrives_after_its_successor<S: Engine, T: Engine>() {
    let (seed, _) = super::seed("late commit");
    let stage = Stage::<S, T>::set(2_000, 100.0, seed, "[apply]\nbatch_rows = 50").await;
    let bank = {
        let run = stage.run_to("streaming").await;
        let bank = stage.open_bank();
        stage.writes(30).await;
        run.sigint();
        run.wait(PATIENCE).await.assert_code(0);
        bank
    };
    for word in [T::COMMIT, T::BEGIN] {
        let sprung = stage.to.sprung();
        let mut first = stage.run_to("streaming").await;
        // Held up from now on: a transaction whose rows are written and whose end is not there, or all of it.
        stage.to.hold(word);
        wait_for("a transaction to be held up", PATIENCE, async || stage.to.sprung() > sprung).await;
        first.kill9();
        let mut second = stage.cutwater.start(&["run"]);
        if word == T::BEGIN {
            // Nothing is locked: the successor does the same work, and the late one finds another epoch.
            wait_for("the successor", PATIENCE, async || second.stderr().contains(FOLLOWING)).await;
            arrived(&stage, &mut second).await;
        } else {
            // It waits for the transaction that holds the checkpoint's row.
            tokio::time::sleep(Duration::from_millis(1500)).await;
            assert!(!second.stderr().contains(FOLLOWING), "it did not wait: {}", second.stderr());
        }
        stage.to.release();
        arrived(&stage, &mut second).await;
        second.sigint();
        second.wait(PATIENCE).await.assert_code(0);
    }
    bank.close();
    let run = stage.run_to("streaming").await;
    stage.prove(run).await;
}

/// The target loses its last commits (its server was restored, or failed over to a standby that did not have them):
/// refused, for the source may have forgotten what is missing.
pub async fn a_target_that_has_forgotten<S: Engine, T: Engine>() {
    let (seed, _) = super::seed("forgetful target");
    let mut stage = Stage::<S, T>::set(2_000, 100.0, seed, "").await;
    let mut run = stage.run_to("streaming").await;
    arrived(&stage, &mut run).await;
    stage.target.crash();
    let kept = stage.target.keep_a_copy();
    stage.target.start_again();
    arrived_and_confirmed(&stage, &mut run).await;
    stage.target.crash();
    stage.target.restore(kept);
    stage.target.start_again();
    // The running process finds it out by itself: it reads the checkpoint again with every connection it makes.
    let stopped = run.wait(PATIENCE).await.assert_code(1);
    assert!(stopped.stderr.contains("past the target's checkpoint"), "{}", stopped.stderr);
    let refused = stage.cutwater.run(&["run"], PATIENCE).await.assert_code(1);
    assert!(refused.stderr.contains("past the target's checkpoint"), "{}", refused.stderr);
    stage.writer.stop().await.unwrap();
}

/// Waits until new writes are at the target and the source was told so.
async fn arrived_and_confirmed<S: Engine, T: Engine>(stage: &Stage<S, T>, run: &mut Running) {
    let before = S::confirmed(&stage.source.url()).await;
    stage.writes(50).await;
    arrived(stage, run).await;
    wait_for("the confirmation", PATIENCE, async || S::confirmed(&stage.source.url()).await > before).await;
}
