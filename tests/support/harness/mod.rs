//! One harness for every engine: what must survive a failure, said once.
//!
//! A scenario is a function over (source engine, target engine). It starts two servers, puts a proxy before each, lets an
//! application write that remembers every acknowledged write, breaks something at random moments, and at the end holds
//! three things against each other: the rows of both ends, the application's own record, and what a reader at the
//! target saw all the while ([`Bank`]). Nothing in it knows an engine; what differs is behind [`Engine`].
//!
//! | file | is |
//! |---|---|
//! | `engine` | what an engine has to offer |
//! | `postgres`, `postgres_random` | Postgres under test |
//! | `mysql`, `mysql_random` | MySQL and MariaDB under test |
//! | `stage` | two servers, two proxies, a migration, a writer; the proof at the end |
//! | `bank` | the reader that adds up the money at the target |
//! | `kills`, `crashes`, `lines`, `large`, `hostile` | the scenarios |
//! | `random`, `property` | tables and transactions at random |
//! | `scale` | how much of each: `make test` or `make chaos` |

mod bank;
mod crashes;
mod engine;
mod hostile;
mod kills;
mod large;
mod lines;
mod mysql;
mod mysql_random;
mod postgres;
mod postgres_random;
mod property;
mod random;
mod scale;
mod stage;

pub use bank::Bank;
pub use crashes::{arrived, servers_crash_in_the_copy, servers_crash_in_the_stream, these_crash_in_the_stream};
pub use engine::{Engine, Session};
pub use hostile::*;
pub use kills::{Kills, the_engine_is_killed_everywhere};
pub use large::a_transaction_larger_than_memory;
pub use lines::{connections_break, lost_connections, lost_in_the_copy};
pub use mysql::{MariaDb, MySql};
pub use postgres::Postgres;
pub use property::a_random_case;
pub use scale::{chaos, seed};
pub use stage::{PATIENCE, Stage, assert_holds, assert_same};
