//! Everything that can be killed, crashed, cut, frozen or filled up, at random moments, under an application that never
//! stops writing: nothing is lost, nothing is there twice.
//!
//! The scenarios are said once, over engines (`tests/support/harness`); a line here is a scenario between two engines.
//! `make test` plays a part of each, `make chaos` the full figures.

#![allow(clippy::unwrap_used, reason = "a test dies of its errors")]

mod support;

use support::harness::{self, Postgres, chaos};

/// One figure for `make test`, one for `make chaos`.
fn scaled(test: usize, full: usize) -> usize {
    if chaos() { full } else { test }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_over_its_whole_life_it_loses_nothing_and_doubles_nothing() {
    let kills = harness::Kills {
        copy: scaled(3, 8),
        indexing: scaled(2, 4),
        stream: scaled(2, 8),
        before_the_point: scaled(3, 6),
        after_the_point: scaled(2, 4),
    };
    harness::the_engine_is_killed_everywhere::<Postgres, Postgres>(kills).await;
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
    harness::lost_connections::<Postgres, Postgres>().await;
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
