//! The network between Cutwater and the servers.

use std::time::Duration;

use rand::Rng;

use super::crashes::arrived;
use super::engine::Engine;
use super::stage::Stage;
use crate::support::Proxy;

/// Connections are cut (also in mid-message, in both directions, and right behind a COMMIT), stalled, and throttled,
/// `rounds` times at random, at either end, in copy and stream: the run goes on by itself.
pub async fn connections_break<S: Engine, T: Engine>(rounds: usize) {
    let (seed, mut rng) = super::seed("connections");
    let config = "[snapshot]\nchunk_rows = 2000\nmax_rows_per_second = 10000\n[apply]\nbatch_rows = 100";
    let stage = Stage::<S, T>::set(20_000, 120.0, seed, config).await;
    let mut run = stage.cutwater.start(&["run"]);
    stage.reach(&mut run, "snapshot").await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(rng.random_range(100..700))).await;
        if rng.random() {
            stage.from.cut();
        } else {
            stage.to.cut_after(rng.random_range(1..2000));
        };
    }
    stage.reach(&mut run, "streaming").await;
    let bank = stage.open_bank();
    let mut done = Vec::new();
    for round in 0..rounds {
        let (proxy, end) = if rng.random() { (&stage.from, "source") } else { (&stage.to, "target") };
        // Every kind comes, and then by chance.
        let kind = if round < 8 { round } else { rng.random_range(0..8) };
        let millis = rng.random_range(200..2500);
        let pause = || tokio::time::sleep(Duration::from_millis(millis));
        let sprung = stage.to.sprung();
        done.push(match kind {
            0 => {
                proxy.cut();
                format!("cut at the {end}")
            }
            1 => {
                proxy.cut_after(rng.random_range(1..3000));
                format!("cut in what the {end} sends")
            }
            2 => {
                proxy.cut_after_sent(rng.random_range(1..3000));
                format!("cut in what the {end} gets")
            }
            3 => {
                stage.to.cut_behind(T::COMMIT);
                stage.writes(20).await;
                let waiting =
                    crate::support::wait_for("a COMMIT", super::stage::PATIENCE, async || stage.to.sprung() > sprung);
                waiting.await;
                "cut behind a COMMIT".to_owned()
            }
            4 => {
                proxy.stall();
                pause().await;
                proxy.resume();
                format!("stalled at the {end} for {millis} ms")
            }
            5 => {
                proxy.stall();
                pause().await;
                proxy.cut();
                proxy.resume();
                format!("stalled and cut at the {end}")
            }
            6 => {
                proxy.throttle(20_000);
                pause().await;
                proxy.resume();
                format!("throttled at the {end} for {millis} ms")
            }
            _ => {
                refuse_for(proxy, Duration::from_millis(millis)).await;
                format!("the {end} out of reach for {millis} ms")
            }
        });
        stage.writes(20).await;
        arrived(&stage, &mut run).await;
    }
    let (reads, states) = bank.close();
    eprintln!("{done:?}");
    let proved = stage.prove(run).await;
    eprintln!("{rounds} broken connections: {proved:?}, the bank right in {reads} reads of {states} states");
}

async fn refuse_for(proxy: &Proxy, time: Duration) {
    proxy.refuse();
    tokio::time::sleep(time).await;
    proxy.resume();
}

/// All connections to the source are lost without a word in mid-copy: what is under way is found out, and copied again.
pub async fn lost_in_the_copy<S: Engine, T: Engine>() {
    let (seed, _) = super::seed("lost in the copy");
    let config = "[snapshot]\nchunk_rows = 2000\nmax_rows_per_second = 2000";
    let stage = Stage::<S, T>::set(20_000, 20.0, seed, config).await;
    let mut run = stage.cutwater.start(&["run"]);
    stage.reach(&mut run, "snapshot").await;
    let copied = async || stage.status().await["copy"]["rows"].as_u64().unwrap_or(0);
    crate::support::wait_for("some rows", super::stage::PATIENCE, async || copied().await > 0).await;
    stage.from.lose();
    stage.reach(&mut run, "streaming").await;
    assert!(run.stderr().contains("a connection is lost"), "{}", run.stderr());
    let proved = stage.prove(run).await;
    eprintln!("lost in the copy: {proved:?}");
}

/// All connections of one end, then of the other, are lost without a word: they stay open and nothing flows over them
/// any more. Only who asks at the other end can know; the run finds out within its patience and goes on.
pub async fn lost_connections<S: Engine, T: Engine>() {
    let (seed, _) = super::seed("lost connections");
    let stage = Stage::<S, T>::set(2_000, 50.0, seed, "").await;
    let mut run = stage.run_to("streaming").await;
    let bank = stage.open_bank();
    for proxy in [&stage.to, &stage.from] {
        stage.writes(20).await;
        arrived(&stage, &mut run).await;
        proxy.lose();
        stage.writes(50).await;
        arrived(&stage, &mut run).await;
    }
    bank.close();
    let figures = stage.writer.figures();
    eprintln!("after {} writes: {:?}", figures.acknowledged, stage.prove(run).await);
}
