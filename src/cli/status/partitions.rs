//! Whether a partition was changed as a whole since the last clean verify: the cutover's gate asks the same.
//!
//! In: what the verify found, both ends. Out: the first such change and its table; nothing is asked of the source where
//! there are no partitions.

use std::collections::HashMap;

use crate::error::Result;
use crate::schema::{Leaves, TableName};
use crate::source::{AnySource, Source};
use crate::target::state::State;

/// What happened, and to which table; of several the first, and how many more.
pub(super) async fn changed(source: &AnySource, state: &State, then: &Leaves) -> Result<Option<(String, String)>> {
    let shapes = state.shapes().await?;
    let known = shapes.into_iter().filter(|(name, _)| then.0.contains_key(&name.to_string()));
    let tables: HashMap<u32, TableName> = known.map(|(name, shape)| (shape.id, name)).collect();
    if tables.is_empty() {
        return Ok(None);
    }
    let now = source.leaves(&tables).await?;
    let changes = state.without_known_leaves(then.until(&now)).await?;
    Ok(changes.first().map(|first| {
        let more =
            if changes.len() > 1 { format!(", and {} more such changes", changes.len() - 1) } else { String::new() };
        (first.table.clone(), format!("{first}{more}"))
    }))
}
