//! Random tables, random transactions, random crash points: whatever they are, both ends are equal in the end.
//!
//! `CUTWATER_CASES` sets how many cases are played; a case is played again with its seed and `CUTWATER_CASES=1`:
//! `CUTWATER_TEST_SEED=17 CUTWATER_CASES=1 cargo test --test property -- --nocapture`

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test dies of its errors, and prints what it measured")]

mod support;

use rand::Rng;
use support::harness::{self, Engine, Postgres, chaos};

async fn cases<S: Engine, T: Engine>(default: u64) {
    let count = std::env::var("CUTWATER_CASES").ok().map_or(default, |text| text.parse().unwrap());
    let (first, mut rng) = harness::seed("property");
    let (source, target) = tokio::join!(S::start(), T::start());
    for number in 0..count {
        let seed = if number == 0 { first } else { rng.random::<u32>().into() };
        eprintln!("this case again: CUTWATER_TEST_SEED={seed} CUTWATER_CASES=1");
        harness::a_random_case(&source, &target, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_tables_and_transactions_arrive_exactly_whenever_it_is_killed() {
    cases::<Postgres, Postgres>(if chaos() { 200 } else { 4 }).await;
}
