//! A Postgres source: catalogue, publication, slot, snapshot, stream.

pub mod fence;
