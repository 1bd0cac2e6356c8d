//! An application that never stops writing, and remembers what it was promised.
//!
//! [`Workload`] makes the tables and fills them; [`Writer`] writes to them over several connections, follows the database
//! to its new home, and returns a [`Record`] of every write that was acknowledged; the record is then held against a
//! database ([`Record::prove`]). Nothing here knows how a migration works: the demo and the tests judge the engine by it.
//!
//! The database may live at any engine and move to any other: what differs between them is behind a [`Session`]. The
//! tables are the same shop everywhere, with what each engine has of its own that makes a migration hard.

mod record;
mod session;
mod transaction;
mod view;
mod writer;

pub use record::{Proof, Record};
pub use session::{Engine, Rows, Session};
pub use view::lines;
pub use writer::{Figures, Writer, WriterOptions};

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

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
    /// The tables.
    pub const TABLES: [&'static str; 6] = ["accounts", "orders", "order_items", "documents", "events", "journal"];

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
    pub async fn install(&self, session: &mut Session) -> Result<()> {
        session.make_tables().await?;
        let preload = session
            .preload()
            .replace("{accounts}", &self.accounts.to_string())
            .replace("{orders}", &self.orders.to_string())
            .replace("{events}", &self.events.to_string());
        session.execute(&preload).await.context("filling the workload's tables")?;
        self.write_documents(session).await.context("filling the workload's documents")?;
        let analyze = match session.engine() {
            Engine::Postgres => "ANALYZE".to_owned(),
            Engine::MySql => format!("ANALYZE TABLE {}", Self::TABLES.join(", ")),
        };
        session.execute(&analyze).await.context("analysing the workload's tables")
    }

    async fn write_documents(&self, session: &mut Session) -> Result<()> {
        const AT_ONCE: i64 = 200;
        for first in (1..=self.documents).step_by(AT_ONCE as usize) {
            let rows = (first..=self.documents.min(first + AT_ONCE - 1))
                .map(|id| format!("({id}, 'document {id}', '{}')", body(id)))
                .collect::<Vec<_>>();
            session.execute(&format!("INSERT INTO documents (id, title, body) VALUES {}", rows.join(", "))).await?;
        }
        Ok(())
    }

    /// Every order has one line, every third a second one.
    fn order_items(&self) -> i64 {
        self.orders + self.orders / 3
    }

    fn lines_of_preloaded_order(id: i64) -> i64 {
        1 + i64::from(id % 3 == 0)
    }
}

/// The body of a document: some kB that nothing compresses, made from a number.
fn body(seed: i64) -> String {
    let mut body = String::new();
    for part in 0..50 {
        for byte in Sha256::digest(format!("{seed}:{part}")) {
            let _ = write!(body, "{byte:02x}");
        }
    }
    body
}
