//! A Postgres source: catalogue, publication, slot, snapshot, stream.
