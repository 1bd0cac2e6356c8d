//! An application that never stops writing, and remembers what it was promised.
//!
//! [`Workload`] makes the tables and fills them; [`Writer`] writes to them over several connections, follows the database
//! to its new home, and returns a [`Record`] of every write that was acknowledged; the record is then held against a
//! database ([`Record::prove`]). Nothing here knows how a migration works: the demo and the tests judge the engine by it.

mod record;
mod transaction;
mod writer;

pub use record::{Proof, Record};
pub use writer::{Figures, Writer, WriterOptions};

use crate::error::{Context, Result};

/// How many rows each table has before the first write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    pub(super) accounts: i64,
    pub(super) orders: i64,
    pub(super) documents: i64,
    pub(super) events: i64,
}

/// What every account holds at first.
pub const OPENING_BALANCE: i64 = 1_000;

impl Workload {
    /// The tables, as `schema.table`.
    pub const TABLES: [&'static str; 6] = [
        "public.accounts",
        "public.orders",
        "public.order_items",
        "public.documents",
        "public.events",
        "public.journal",
    ];

    /// About this many rows over all tables, never fewer than a few in each.
    pub fn of_rows(rows: u64) -> Workload {
        let part = |percent: u64| i64::try_from((rows.saturating_mul(percent) / 100).max(20)).unwrap_or(i64::MAX);
        Workload { accounts: part(10), orders: part(30), documents: part(1), events: part(19) }
    }

    /// How many there are exactly.
    pub fn rows(&self) -> i64 {
        self.accounts + self.orders + self.order_items() + self.documents + self.events
    }

    /// The sum of all balances, whatever is transferred.
    pub fn money(&self) -> i64 {
        self.accounts * OPENING_BALANCE
    }

    /// Makes the tables in an empty database and fills them.
    pub async fn install(&self, client: &tokio_postgres::Client) -> Result<()> {
        let preload = include_str!("preload.sql")
            .replace("{accounts}", &self.accounts.to_string())
            .replace("{orders}", &self.orders.to_string())
            .replace("{documents}", &self.documents.to_string())
            .replace("{events}", &self.events.to_string());
        client.batch_execute(include_str!("schema.sql")).await.context("making the workload's tables")?;
        client.batch_execute(&preload).await.context("filling the workload's tables")?;
        client.batch_execute("ANALYZE").await.context("analysing the workload's tables")
    }

    /// Every order has one line, every third a second one.
    fn order_items(&self) -> i64 {
        self.orders + self.orders / 3
    }

    fn lines_of_preloaded_order(id: i64) -> i64 {
        1 + i64::from(id % 3 == 0)
    }
}
