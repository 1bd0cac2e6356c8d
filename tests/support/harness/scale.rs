//! How much of each scenario is played.

use rand::SeedableRng;
use rand::rngs::StdRng;

/// Whether the full figures are asked for (`make chaos`) or those that fit into `make test`.
pub fn chaos() -> bool {
    std::env::var("CUTWATER_CHAOS").is_ok_and(|value| value == "1")
}

/// The seed of the run (`CUTWATER_TEST_SEED`, else random), and a generator of it that is this scenario's own: printed,
/// so that the choices can be had again. Moments also depend on the machine.
pub fn seed(scenario: &str) -> (u64, StdRng) {
    let seed = match std::env::var("CUTWATER_TEST_SEED") {
        Ok(text) => text.parse().expect("CUTWATER_TEST_SEED is a number"),
        Err(_) => rand::random::<u32>().into(),
    };
    eprintln!("{scenario}: these random choices again: CUTWATER_TEST_SEED={seed}");
    (seed, StdRng::seed_from_u64(seed))
}
