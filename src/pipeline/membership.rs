//! Whether the source has published every table without a break since its copy began.
//!
//! What is changed in a table while it is not published, or published in part, never comes; and afterwards the
//! publication looks as it did before. So what makes a table published is written down before its copy begins
//! ([`record`]) and compared at every start of the stream ([`Watch::begin`]), every few seconds ([`Watch::look`]), by the
//! cutover's gate, and once more behind its fence, where nothing can be lost any more ([`unbroken`]).
//!
//! In: the source's catalogue, the state. Out: nothing, or the error that names the tables of which changes may be
//! missing. A copy of a table, or a repair after which both ends are equal, writes down what is the case then.

use std::collections::HashMap;
use std::sync::Arc;

use super::Job;
use crate::error::{Error, Kind, Result};
use crate::postgres::Client;
use crate::schema::{TableName, TableSchema};
use crate::source::postgres::PgSource;
use crate::source::postgres::membership::{self, Membership};
use crate::target::Target;
use crate::target::postgres::State;
use crate::target::state::Lease;
use crate::transform::Plan;

/// Tables named in a message.
const NAMED: usize = 5;

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
    source: PgSource,
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
        let tables = self.ids.iter().map(|(id, name)| (name, *id));
        broken(self.source.publication_name(), tables, &self.recorded, &now).map_or(Ok(()), Err)
    }
}

/// By what the plan's tables are published now.
pub async fn now(source: &Client, publication: &str, plan: &Plan) -> Result<Vec<(TableName, Membership)>> {
    let ids: Vec<u32> = plan.tables().map(|table| table.source.id).collect();
    let mut now = membership::read(source, publication, &ids).await?;
    Ok(plan.tables().filter_map(|table| Some((table.source.name.clone(), now.remove(&table.source.id)?))).collect())
}

/// Compares once.
pub async fn unbroken(state: &State, source: &Client, publication: &str, plan: &Plan) -> Result<()> {
    let recorded = state.memberships().await?;
    let tables = || plan.tables().map(|table| (&table.source.name, table.source.id));
    let ids: Vec<u32> = tables().map(|(_, id)| id).collect();
    let now = membership::read(source, publication, &ids).await?;
    broken(publication, tables(), &recorded, &now).map_or(Ok(()), Err)
}

/// The tables that were not published all the time, as an error; `None` if there is none.
fn broken<'a>(
    publication: &str,
    tables: impl Iterator<Item = (&'a TableName, u32)>,
    recorded: &HashMap<TableName, Membership>,
    now: &HashMap<u32, Membership>,
) -> Option<Error> {
    let differs = |(name, id): &(&TableName, u32)| recorded.get(*name).is_some_and(|then| now.get(id) != Some(then));
    let mut broken: Vec<(&TableName, u32)> = tables.filter(differs).collect();
    broken.sort_unstable_by_key(|(name, _)| (&name.schema, &name.table));
    let (first, id) = broken.first()?;
    let count = broken.len();
    let names: Vec<String> = broken.iter().take(NAMED).map(|(name, _)| name.to_string()).collect();
    let more = if count > NAMED { format!(" and {} more", count - NAMED) } else { String::new() };
    let names = format!("{}{more}", names.join(", "));
    let what = match now.get(id) {
        None => format!("the publication {publication:?} no longer publishes {names}"),
        Some(now) if recorded.get(*first).is_some_and(|then| !then.same_publication(now)) => {
            format!("the publication {publication:?} was altered or made anew while {names} were followed through it")
        }
        Some(_) => format!(
            "in the publication {publication:?} {names} was taken out and put in again, or for a while had a row filter \
             or a column list"
        ),
    };
    let patterns: Vec<String> = broken.iter().take(NAMED).map(|(name, _)| name.pattern()).collect();
    let fix = format!(
        "cutwater tables resync {}{}   or, without another copy: cutwater verify --repair",
        patterns.join(" "),
        if count > NAMED { " …" } else { "" }
    );
    Some(Error::new(Kind::Schema, format!("{what}: changes made meanwhile may not be in the stream")).fix(fix))
}
