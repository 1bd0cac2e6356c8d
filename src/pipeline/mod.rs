//! Wiring: reader → transform → batcher → applier, and what happens around them.

pub mod progress;
pub mod snapshot;
