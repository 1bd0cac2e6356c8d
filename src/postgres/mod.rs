//! What a Postgres source and a Postgres target share: how to reach a server, what its errors mean, what its tables
//! look like.
//!
//! In: a `postgres://` URL. Out: a connected [`Client`] (SQL) or [`Wire`] (replication, COPY in bulk) whose session is
//! pinned (time zone, DateStyle, float digits, no time-outs of the role), or an [`Error`](crate::error::Error) whose
//! kind says whether trying again can help.

pub mod catalog;
mod conninfo;
mod dial;
mod equality;
mod error;
mod pgpass;
mod session;
mod tls;
mod watch;
mod wire;

pub use conninfo::{ChannelBinding, ConnInfo, Host, SslMode, TlsOptions, Wanted};
pub use dial::Socket;
pub use equality::Equality;
pub use error::sqlstate_kind;
pub use session::{Client, connect};
pub use wire::{Purpose, TextRow, Wire, server_error};
