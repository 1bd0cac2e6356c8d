//! `cutwater demo`: two throw-away local servers, writes that never stop, a migration, and the proof.

pub mod server;
pub mod workload;
