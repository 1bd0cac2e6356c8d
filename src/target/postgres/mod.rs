//! A Postgres target: the state, the loader, the applier.

mod state;

pub use state::State;
