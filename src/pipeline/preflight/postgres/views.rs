//! Materialized views: no copy brings their rows, so it is said when they are there and of which moment they are.

use super::not_carried::few;
use super::{End, Report};
use crate::error::Result;
use crate::postgres::Client;
use crate::target::postgres::views;

pub(super) async fn look(old: &Client, report: &mut Report) -> Result<()> {
    let filled = views::filled(old).await?;
    if filled.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = filled.iter().map(ToString::to_string).collect();
    let text = format!(
        "materialized views ({}) are filled after the copy and stay\nas of then; cutover refreshes them once the target is live",
        few(&names)
    );
    report.note(End::Source, "materialized-views", text);
    Ok(())
}
