//! Waiting for conditions instead of times; randomness that can be had again.

use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

/// Waits until `condition` holds; panics with `what` when it does not within the deadline.
pub async fn wait_for(what: &str, deadline: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The future's output, or a panic with `what` when it takes longer than the deadline.
pub async fn within<T>(what: &str, deadline: Duration, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(deadline, future).await.unwrap_or_else(|_| panic!("{what} took longer than {deadline:?}"))
}

/// A random generator whose seed is printed, and taken from CUTWATER_TEST_SEED when that is set.
pub fn rng() -> StdRng {
    let seed = match std::env::var("CUTWATER_TEST_SEED") {
        Ok(text) => text.parse().expect("CUTWATER_TEST_SEED is a number"),
        Err(_) => rand::random::<u64>(),
    };
    eprintln!("random choices of this run again: CUTWATER_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}
