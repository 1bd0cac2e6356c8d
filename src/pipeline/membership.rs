//! Whether the source has published every table without a break since its copy began.
//!
//! What is changed in a table while it is not published, or published in part, never comes; and afterwards the
//! publication looks as it did before. So what makes a table published is written down before its copy begins
//! ([`record`]) and compared at every start of the stream ([`Watch::begin`]), every few seconds ([`Watch::look`]), by the
//! cutover's gate, and once more behind its fence, where nothing can be lost any more.
//!
//! In: the source's catalogue, the state. Out: nothing, or the error that names the tables of which changes may be
//! missing. A copy of a table, or a repair after which both ends are equal, writes down what is the case then.

use std::collections::HashMap;
use std::sync::Arc;

use super::Job;
use crate::error::{Kind, Result};
use crate::schema::{TableName, TableSchema};
use crate::source::{AnySource, Membership, Source};
use crate::target::Target;
use crate::target::state::Lease;
use crate::transform::Plan;

/// Writes down by what the tables are published now: before the place in the log from which they are followed.
pub async fn record(job: &Job, lease: &Lease, tables: &[Arc<TableSchema>]) -> Result<()> {
    let ids: Vec<u32> = tables.iter().map(|table| table.id).collect();
    let mut now = job.source.memberships(&ids).await?;
    // One that is not published is found by whoever starts its stream.
    let found = tables.iter().filter_map(|table| Some((table.name.clone(), now.remove(&table.id)?)));
    job.target.state().set_memberships(Some(lease), &found.collect::<Vec<_>>()).await
}

/// What was written down, compared again and again.
pub struct Watch {
    source: AnySource,
    recorded: HashMap<TableName, Membership>,
    ids: HashMap<u32, TableName>,
}

impl Watch {
    /// Compares for the first time. A migration that was begun before any of it was written down begins to be watched.
    pub async fn begin(job: &Job, lease: &Lease, plan: &Plan) -> Result<Watch> {
        let recorded = job.target.state().memberships().await?;
        let sources: Vec<_> = plan.tables().map(|table| Arc::clone(&table.source)).collect();
        let (known, new): (Vec<_>, Vec<_>) = sources.into_iter().partition(|table| recorded.contains_key(&table.name));
        if !new.is_empty() {
            record(job, lease, &new).await?;
        }
        let ids = known.iter().map(|table| (table.id, table.name.clone())).collect();
        let watch = Watch { source: job.source.clone(), recorded, ids };
        match watch.look().await {
            // It is followed so that what is missing can be brought.
            Err(error) if job.mends && error.kind() == Kind::Schema => {
                tracing::warn!("{}", error.message());
                Ok(Watch { ids: HashMap::new(), ..watch })
            }
            looked => looked.map(|()| watch),
        }
    }

    /// Compares.
    pub async fn look(&self) -> Result<()> {
        if self.ids.is_empty() {
            return Ok(());
        }
        let ids: Vec<u32> = self.ids.keys().copied().collect();
        let now = self.source.memberships(&ids).await?;
        self.source.unbroken(&self.ids, &self.recorded, &now)
    }
}
