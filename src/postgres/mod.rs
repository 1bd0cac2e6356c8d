//! What a Postgres source and a Postgres target share: how to reach a server, and what its errors mean.
//!
//! In: a `postgres://` URL. Out: a connected [`Client`] whose session is pinned (time zone, DateStyle, float digits,
//! no time-outs of the role), or an [`Error`](crate::error::Error) whose kind says whether trying again can help.

mod conninfo;
mod error;
mod session;

pub use conninfo::{ConnInfo, Host};
pub use error::sqlstate_kind;
pub use session::{Client, connect};
