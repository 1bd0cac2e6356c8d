//! Which comparison a pair of engines has: the one `match` over the pair.

use std::sync::Arc;

use super::{Look, TableReport, postgres, streamed};
use crate::error::Result;
use crate::transform::{Plan, TablePlan};

/// The connections of one worker to both ends.
pub(super) enum Pair {
    /// Both compute.
    Postgres(Box<postgres::Pair>),
    /// Rows come here.
    Streamed(Box<streamed::Pair>),
}

impl Pair {
    /// Connects. `plan` is what tables are compared through.
    pub(super) async fn open(look: &Look<'_>, plan: &Plan) -> Result<Pair> {
        let name = format!("cutwater_{}_verify", look.ends.state.name());
        Ok(match look.ends.postgres() {
            Some(both) => Pair::Postgres(Box::new(postgres::Pair::open(both, &name, look.options).await?)),
            None => Pair::Streamed(Box::new(streamed::Pair::open(look, plan, &name).await?)),
        })
    }

    /// Compares a table.
    pub(super) async fn compare(&mut self, look: &Look<'_>, table: &Arc<TablePlan>) -> Result<TableReport> {
        match self {
            Pair::Postgres(pair) => pair.compare(look, table).await,
            Pair::Streamed(pair) => pair.compare(look, table).await,
        }
    }

    /// Compares the rows under these keys, which stand still; the texts are the target's.
    pub(super) async fn compare_keys(
        &mut self,
        look: &Look<'_>,
        table: &Arc<TablePlan>,
        keys: &[Vec<String>],
    ) -> Result<TableReport> {
        let mut report = TableReport {
            source: table.source.name.to_string(),
            target: table.shaped.name.to_string(),
            rechecked: keys.len() as u64,
            ..TableReport::default()
        };
        if !keys.is_empty() {
            match self {
                Pair::Postgres(pair) => pair.compare_keys(look, table, keys, &mut report).await?,
                Pair::Streamed(pair) => pair.compare_keys(look, table, keys, &mut report).await?,
            }
        }
        Ok(report)
    }
}
