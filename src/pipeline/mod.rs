//! Wiring: reader → transform → batcher → applier, and what happens around them.

pub mod build;
pub mod preflight;
pub mod progress;
pub mod snapshot;
