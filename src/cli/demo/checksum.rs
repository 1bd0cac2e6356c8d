//! Both ends as they are at the moment of the switch, compared without Cutwater's own verify.
//!
//! At that moment the source takes no writes any more and the target none yet. Two transactions freeze what each then
//! holds, which takes a millisecond; the writer may move on, and the sums are made afterwards, at leisure, over lines of
//! text that do not depend on the engine ([`workload::lines`]).

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::workload::{self, Engine, Session, Workload};
use crate::error::{Context, Result};

/// A frozen view of one end.
pub(super) struct Frozen(Session);

/// One table at both ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct TableSum {
    pub table: &'static str,
    pub rows: u64,
    pub equal: bool,
}

impl Frozen {
    /// Takes the view: what is committed now is in it, and nothing later.
    pub(super) async fn take(mut session: Session) -> Result<Frozen> {
        let freeze = match session.engine() {
            Engine::Postgres => {
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1 FROM pg_catalog.pg_class LIMIT 1"
            }
            Engine::MySql => {
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
            }
        };
        session.execute(freeze).await.context("freezing a view")?;
        Ok(Frozen(session))
    }

    /// Rows, and the sum of a strong hash of each, which does not depend on their order.
    async fn sum(&mut self, table: &str) -> Result<(u64, u128)> {
        let lines = workload::lines(&mut self.0, table).await?;
        let hash = |line: &String| {
            let digest = Sha256::digest(line);
            u128::from_be_bytes(digest[..16].try_into().expect("a digest has 32 bytes"))
        };
        Ok((lines.len() as u64, lines.iter().map(hash).fold(0, u128::wrapping_add)))
    }
}

/// Every table at both ends.
pub(super) async fn compare(mut source: Frozen, mut target: Frozen) -> Result<Vec<TableSum>> {
    let mut sums = Vec::new();
    for table in Workload::TABLES {
        let (at_source, at_target) = futures::future::try_join(source.sum(table), target.sum(table)).await?;
        sums.push(TableSum { table, rows: at_target.0, equal: at_source == at_target });
    }
    Ok(sums)
}
