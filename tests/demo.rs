//! The first thing a newcomer sees: it works, it proves it, and it leaves nothing behind, however it ends.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use support::harness::{Engine, MariaDb};
use support::{Cutwater, Running, wait_for};

const SOON: Duration = Duration::from_secs(60);
const A_DEMO: Duration = Duration::from_secs(180);

/// A demo whose temporary folders are all in one place, which is empty before and must be empty after.
struct Demo {
    place: tempfile::TempDir,
    cutwater: Cutwater,
}

impl Demo {
    fn new() -> Demo {
        let place = tempfile::Builder::new().prefix("demo-").tempdir().unwrap();
        // The servers may run as another user.
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let cutwater = Cutwater::new("postgres://unused@127.0.0.1/x", "postgres://unused@127.0.0.1/y")
            .env("TMPDIR", place.path().to_str().unwrap());
        Demo { place, cutwater }
    }

    /// Starts it, and waits until its migration is under way.
    async fn under_way(&self) -> Running {
        let demo = self.cutwater.start(&["demo", "--rows", "20000", "--seconds", "600"]);
        wait_for("the migration to begin", SOON, async || demo.stderr().contains("streaming")).await;
        demo
    }

    async fn assert_nothing_is_left(&self) {
        wait_for("the folders to go", SOON, async || fs::read_dir(self.place.path()).unwrap().next().is_none()).await;
        let path = self.place.path().to_str().unwrap();
        wait_for("the processes to end", SOON, async || {
            !fs::read_dir("/proc").unwrap().flatten().any(|process| {
                fs::read(process.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(path))
            })
        })
        .await;
    }
}

#[tokio::test]
async fn the_demo_proves_that_nothing_was_lost_and_leaves_nothing_behind() {
    proves_and_leaves_nothing("postgres").await;
}

#[tokio::test]
async fn the_demo_moves_mariadb_to_postgres_and_leaves_nothing_behind() {
    if MariaDb::is_here("the demo").await {
        proves_and_leaves_nothing("mariadb").await;
    }
}

async fn proves_and_leaves_nothing(from: &str) {
    let demo = Demo::new();
    let arguments = ["demo", "--from", from, "--rows", "20000", "--rate", "200", "--seconds", "2", "--json"];
    let proof = demo.cutwater.run(&arguments, A_DEMO).await.assert_code(0).json();
    assert!(proof["writes"]["acknowledged"].as_u64().unwrap() > 400, "{proof}");
    assert_eq!(proof["writes"]["lost"], 0, "{proof}");
    assert_eq!(proof["writes"]["doubled"], 0, "{proof}");
    assert!(proof["tables"].as_array().unwrap().iter().all(|table| table["equal"] == true), "{proof}");
    assert!(proof["write_downtime_ms"].as_f64().unwrap() > 0.0, "{proof}");
    assert!(proof["cutover_downtime_ms"].as_f64().unwrap() > 0.0, "{proof}");
    demo.assert_nothing_is_left().await;
}

#[tokio::test]
async fn ctrl_c_in_the_middle_leaves_nothing_behind() {
    let demo = Demo::new();
    let running = demo.under_way().await;
    running.sigint();
    running.wait(SOON).await.assert_code(130);
    demo.assert_nothing_is_left().await;
}

#[tokio::test]
async fn a_demo_that_is_killed_with_9_leaves_nothing_behind() {
    let demo = Demo::new();
    let mut running = demo.under_way().await;
    running.kill9();
    demo.assert_nothing_is_left().await;
}

#[tokio::test]
async fn without_a_server_it_says_how_to_install_one() {
    let demo = Demo::new();
    let nowhere = demo.place.path().to_str().unwrap().to_owned();
    let finished = demo.cutwater.env("CUTWATER_PG_BIN", &nowhere).run(&["demo"], SOON).await.assert_code(2);
    assert!(finished.stderr.contains("holds no initdb and postgres"), "{}", finished.stderr);
}
