//! The materialized views of the target, filled once the tables they read are consistent.

use tokio_util::sync::CancellationToken;

use super::{SchemaWork, interrupted};
use crate::error::{Context, Result};
use crate::postgres::{ConnInfo, connect};
use crate::target::postgres::views;
use crate::target::state::State;

impl SchemaWork<'_> {
    /// Fills those that hold rows at the source. One that cannot be filled is named, and keeps the cutover's gate shut.
    pub async fn fill_views(&self, halt: &CancellationToken) -> Result<()> {
        let name = &self.config.migration.name;
        let source = connect(&ConnInfo::parse(&self.config.source.url)?, &format!("cutwater_{name}")).await?;
        let wanted = views::filled(&source).await?;
        if wanted.is_empty() {
            return Ok(());
        }
        drop(source);
        let target = self.target().await?;
        let state = State::new(ConnInfo::parse(&self.config.target.url)?, name.as_str());
        let watch = |label: &str, ended: Option<bool>| match ended {
            None => self.progress.index_begun(label),
            // Not one of those that were counted beforehand.
            Some(_) => self.progress.index_ended(label, false),
        };
        let filled = tokio::select! {
            biased;
            () = halt.cancelled() => return Err(interrupted("filling materialized views")),
            filled = views::fill(&target, &state, &wanted, &watch) => filled.context("filling materialized views")?,
        };
        if filled.done > 0 {
            tracing::info!(
                count = filled.done,
                "materialized views are filled; their rows stay as of now until the cutover"
            );
        }
        for view in &filled.failed {
            let why = view.error.as_deref().unwrap_or_default();
            tracing::warn!("{} stays empty: {why}   on the target   {}", view.label(), view.statement());
        }
        Ok(())
    }
}
