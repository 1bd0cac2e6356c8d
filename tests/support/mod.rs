//! What the integration tests share: real servers, the real binary, a proxy that breaks connections, writers that keep a
//! record, and the comparison of both ends.
//!
//! ```ignore
//! mod support;
//!
//! #[tokio::test]
//! async fn a_row_arrives() {
//!     let (source, target) = support::pair().await;
//!     source.execute("CREATE TABLE t (id int PRIMARY KEY)").await;
//!     let cutwater = support::Cutwater::new(&source.url(), &target.url());
//!     let mut run = cutwater.start(&["run"]);
//!     …
//! }
//! ```
#![allow(dead_code, unused_imports, unused_macros, reason = "each test binary uses its own part of this module")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "in a test a panic is the report, and stderr is shown when it fails"
)]

mod binary;
pub mod compare;
mod database;
pub mod harness;
pub mod mysql;
mod mysql_programs;
mod pooler;
mod proxy;
mod versions;
mod wait;

pub use binary::{Cutwater, Finished, Running};
pub use compare::{assert_equal, columns_of};
pub use cutwater::cli::demo::server::{LocalPostgres, ServerOptions, StopMode};
pub use cutwater::cli::demo::workload::{Figures, Proof, Record, Workload, Writer, WriterOptions};
pub use database::{Database, one, pair, postgres, postgres_with};
pub use mysql::{LocalMySql, MyOptions};
pub use mysql_programs::{Programs, Wanted, my_programs, my_server};
pub use pooler::Pooler;
pub use proxy::Proxy;
pub(crate) use versions::on_every_version;
pub use versions::{Server, Site, VERSIONS, not_run, postgres_of, programs_of, server_of, site_of};
pub use wait::{rng, wait_for, within};
