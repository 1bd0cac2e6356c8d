//! Everything that can be killed, crashed, cut, frozen or filled up, at random moments, under an application that never
//! stops writing: nothing is lost, nothing is there twice.
//!
//! The scenarios are said once, over engines (`tests/support/harness`); a line here is a scenario between two engines.
//! `make test` plays a part of each, `make chaos` the full figures.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test dies of its errors, and prints what it measured")]

mod support;

use std::process::Command;

use support::harness::{self, Engine, Postgres, Stage, arrived, chaos};
use support::{ServerOptions, wait_for};

/// One figure for `make test`, one for `make chaos`.
fn scaled(test: usize, full: usize) -> usize {
    if chaos() { full } else { test }
}

fn kills() -> harness::Kills {
    harness::Kills {
        copy: scaled(3, 8),
        indexing: scaled(2, 4),
        stream: scaled(2, 8),
        before_the_point: scaled(3, 6),
        after_the_point: scaled(2, 4),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_over_its_whole_life_it_loses_nothing_and_doubles_nothing() {
    harness::the_engine_is_killed_everywhere::<Postgres, Postgres>(kills()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_crash_in_the_copy_delay_it_and_cost_no_row() {
    harness::servers_crash_in_the_copy::<Postgres, Postgres>(scaled(1, 5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_crash_in_the_stream_cost_no_row_and_no_money() {
    harness::servers_crash_in_the_stream::<Postgres, Postgres>(scaled(1, 5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_in_every_way_cost_no_row() {
    harness::connections_break::<Postgres, Postgres>(scaled(8, 40)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_lost_without_a_word_are_noticed_and_made_again() {
    tokio::join!(harness::lost_connections::<Postgres, Postgres>(), harness::lost_in_the_copy::<Postgres, Postgres>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_millions_of_rows_passes_in_bounded_memory_and_is_never_seen_half_done() {
    if !chaos() {
        eprintln!("not run: five million rows are for make chaos; laws.rs has a smaller one");
        return;
    }
    harness::a_transaction_larger_than_memory::<Postgres, Postgres>(5_000_000, 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_server_ends_is_made_again() {
    harness::sessions_are_ended::<Postgres, Postgres>(scaled(1, 3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_only_reads_is_named_and_the_same_command_goes_on() {
    harness::a_read_only_target::<Postgres, Postgres>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_arrives_after_its_successor_counts_once() {
    harness::a_commit_that_arrives_after_its_successor::<Postgres, Postgres>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_lost_its_last_commits_is_refused() {
    harness::a_target_that_has_forgotten::<Postgres, Postgres>().await;
}

/// From MySQL and MariaDB into Postgres.
mod into_postgres {
    use super::*;
    use harness::{MariaDb, MySql};

    #[tokio::test(flavor = "multi_thread")]
    async fn servers_that_crash_in_the_copy_delay_it_and_cost_no_row() {
        if MySql::is_here("crashes in the copy").await {
            harness::servers_crash_in_the_copy::<MySql, Postgres>(scaled(1, 5)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn servers_that_crash_in_the_stream_cost_no_row_and_no_money() {
        if MariaDb::is_here("crashes in the stream").await {
            harness::servers_crash_in_the_stream::<MariaDb, Postgres>(scaled(1, 5)).await;
        }
        if chaos() && MySql::is_here("crashes in the stream").await {
            harness::servers_crash_in_the_stream::<MySql, Postgres>(5).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn connections_that_break_in_every_way_cost_no_row() {
        if MySql::is_here("broken connections").await {
            harness::connections_break::<MySql, Postgres>(scaled(6, 40)).await;
        }
        if chaos() && MariaDb::is_here("broken connections").await {
            harness::connections_break::<MariaDb, Postgres>(40).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn connections_that_are_lost_without_a_word_are_noticed_and_made_again() {
        if MariaDb::is_here("lost connections").await {
            harness::lost_connections::<MariaDb, Postgres>().await;
        }
        if chaos() && MySql::is_here("lost connections").await {
            tokio::join!(
                harness::lost_connections::<MySql, Postgres>(),
                harness::lost_in_the_copy::<MySql, Postgres>()
            );
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_at_random_moments_over_its_whole_life_it_loses_nothing_and_doubles_nothing() {
        if MySql::is_here("kills").await {
            harness::the_engine_is_killed_everywhere::<MySql, Postgres>(kills()).await;
        }
        if chaos() && MariaDb::is_here("kills").await {
            harness::the_engine_is_killed_everywhere::<MariaDb, Postgres>(kills()).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_session_that_the_server_ends_is_made_again() {
        if MySql::is_here("ended sessions").await {
            harness::sessions_are_ended::<MySql, Postgres>(scaled(1, 3)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_commit_that_arrives_after_its_successor_counts_once() {
        if MariaDb::is_here("late commit").await {
            harness::a_commit_that_arrives_after_its_successor::<MariaDb, Postgres>().await;
        }
    }
}

/// Between MySQL and MariaDB servers.
mod into_mysql {
    use super::*;
    use harness::{MariaDb, MySql};

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_at_random_moments_over_its_whole_life_it_loses_nothing_and_doubles_nothing() {
        if MariaDb::is_here("kills").await && MySql::is_here("kills").await {
            harness::the_engine_is_killed_everywhere::<MariaDb, MySql>(kills()).await;
            if chaos() {
                harness::the_engine_is_killed_everywhere::<MySql, MySql>(kills()).await;
                harness::the_engine_is_killed_everywhere::<MariaDb, MariaDb>(kills()).await;
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn servers_that_crash_in_the_stream_cost_no_row_and_no_money() {
        if MySql::is_here("crashes in the stream").await {
            harness::servers_crash_in_the_stream::<MySql, MySql>(scaled(1, 5)).await;
        }
        if chaos() && MariaDb::is_here("crashes in the stream").await {
            harness::servers_crash_in_the_stream::<MariaDb, MariaDb>(5).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn servers_that_crash_in_the_copy_delay_it_and_cost_no_row() {
        if chaos() && MariaDb::is_here("crashes in the copy").await {
            harness::servers_crash_in_the_copy::<MariaDb, MariaDb>(5).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn connections_that_break_in_every_way_cost_no_row() {
        if chaos() && MariaDb::is_here("broken connections").await {
            harness::connections_break::<MariaDb, MariaDb>(40).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_commit_that_arrives_after_its_successor_counts_once() {
        // MySQL's sessions are encrypted from the start: nobody in between would see a COMMIT.
        if MariaDb::is_here("late commit").await {
            harness::a_commit_that_arrives_after_its_successor::<MariaDb, MariaDb>().await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_target_that_only_reads_is_named_and_the_same_command_goes_on() {
        if MySql::is_here("read-only target").await {
            harness::a_read_only_target::<MySql, MySql>().await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_session_that_the_server_ends_is_made_again() {
        if MariaDb::is_here("ended sessions").await {
            harness::sessions_are_ended::<MariaDb, MariaDb>(scaled(1, 3)).await;
        }
    }
}

/// What only Postgres has to be asked.
mod postgres {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_target_that_commits_asynchronously_loses_nothing_that_was_confirmed() {
        // Its own sessions would lose the last ten seconds in a crash; ours wait for the flush.
        let options = ServerOptions::new().setting("synchronous_commit", "off").setting("wal_writer_delay", "10s");
        let (source, target) = tokio::join!(Postgres::start(), Postgres::with(options));
        harness::these_crash_in_the_stream(source, target, scaled(1, 5)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_statement_timeout_of_the_role_does_not_reach_our_sessions() {
        let (source, target) = tokio::join!(Postgres::start(), Postgres::start());
        for server in [&source, &target] {
            let limits =
                "ALTER ROLE postgres SET statement_timeout = '60ms'; ALTER ROLE postgres SET lock_timeout = '60ms'";
            server.0.execute("postgres", limits).await.unwrap();
        }
        let url = source.url();
        let client = Postgres::connect(&url).await.unwrap();
        client.batch_execute("SET statement_timeout = 0").await.unwrap();
        let rows = "CREATE TABLE item (id int PRIMARY KEY, v text);
                    INSERT INTO item SELECT i, 'v' FROM generate_series(1, 200000) i";
        client.batch_execute(rows).await.unwrap();
        let cutwater = support::Cutwater::new(&url, &target.url());
        cutwater.run(&["run", "--until", "caught-up"], PATIENCE).await.assert_code(0);
        client.batch_execute("UPDATE item SET v = 'w'; DELETE FROM item WHERE id % 3 = 0").await.unwrap();
        cutwater.run(&["run", "--until", "caught-up"], PATIENCE).await.assert_code(0);
        cutwater.run(&["verify"], PATIENCE).await.assert_code(0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_disk_at_the_target_is_waited_out_and_nothing_is_lost() {
        let (source, target) = tokio::join!(Postgres::start(), Postgres::start());
        let Some(disk) = Disk::of("24m", &target) else {
            eprintln!("NOT RUN: a disk that can run full (a tmpfs of limited size) may be mounted by root alone");
            return;
        };
        let tablespace = format!("CREATE TABLESPACE small LOCATION '{}'", disk.folder.path().display());
        let client = target.0.connect("template1").await.unwrap();
        client.batch_execute(&tablespace).await.unwrap();
        client.batch_execute("ALTER DATABASE postgres SET TABLESPACE small").await.unwrap();
        drop(client);
        let stage = Stage::between(source, target, 2_000, 50.0, 1, "").await;
        let mut run = stage.run_to("streaming").await;
        arrived(&stage, &mut run).await;
        // 64 kB in each of 600 rows.
        let much = "UPDATE public.orders SET attributes = jsonb_build_object('much',
                      (SELECT string_agg(md5(g::text || id), '') FROM generate_series(1, 2000) g))";
        stage.source.0.execute("postgres", much).await.unwrap();
        wait_for("the disk to be full", PATIENCE, async || {
            assert!(run.is_running(), "it ended by itself: {}", run.stderr());
            run.stderr().contains("No space left on device")
        })
        .await;
        wait_for("status to tell it", PATIENCE, async || {
            stage.status().await["last_error"].to_string().contains("No space left")
        })
        .await;
        disk.grow("400m");
        arrived(&stage, &mut run).await;
        eprintln!("after a full disk: {:?}", stage.prove(run).await);
    }

    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(180);

    /// A file system of its own; unmounted when dropped.
    struct Disk {
        folder: tempfile::TempDir,
    }

    impl Disk {
        /// `None` where mounting is not permitted.
        fn of(size: &str, server: &Postgres) -> Option<Disk> {
            use std::os::unix::fs::MetadataExt;
            let folder = tempfile::tempdir().unwrap();
            let owner = std::fs::metadata(server.0.data_directory()).unwrap();
            let options = format!("size={size},uid={},gid={},mode=700", owner.uid(), owner.gid());
            let mounted =
                Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
            mounted.is_ok_and(|output| output.status.success()).then_some(Disk { folder })
        }

        fn grow(&self, size: &str) {
            let options = format!("remount,size={size}");
            let output = Command::new("mount").args(["-o", &options]).arg(self.folder.path()).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }

    impl Drop for Disk {
        fn drop(&mut self) {
            // Lazily: the server may still be going down.
            let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
        }
    }
}
