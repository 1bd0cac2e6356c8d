//! What a MySQL or MariaDB source and target share: how to reach a server, what kind it is, what its errors mean.
//!
//! In: a `mysql://` URL. Out: a [`Session`], pinned (time zone, `sql_mode`, character set, time-outs), with what the
//! server is and how it is set ([`Server`]), or an [`Error`](crate::error::Error) whose kind says whether trying again
//! can help. The driver underneath is `mysql_async`; its connection is reachable for the binlog and for
//! `LOAD DATA LOCAL`.

mod canonical;
pub mod catalog;
mod conninfo;
mod dial;
mod error;
mod ident;
mod option_file;
mod server;
mod session;
pub mod show_create;
mod tls;

pub use canonical::{canonical, is_binary};
pub use conninfo::{MyConnInfo, MyHost, MySslMode, MyTls};
pub use error::code_kind;
pub use ident::{MyIdent, MyText, my_table};
pub use server::{Flavour, Server, Version};
pub use session::{Role, Session, TextRow, connect, connect_as};
