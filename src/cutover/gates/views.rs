//! Materialized views that may be read at the source may be read at the target.

use super::{Look, Verdict};
use crate::error::Result;
use crate::target::postgres::views;

/// None is empty that the source has filled. Those that the target does not have are listed as not carried.
pub(super) async fn filled(look: &Look<'_>) -> Result<Verdict> {
    let views = views::of(look.target()?, &views::filled(look.source()?).await?).await?;
    let known = look.parts.ends.state.stale_views(look.target()?).await?;
    let empty: Vec<&views::View> = views.iter().filter(|view| !view.filled).collect();
    let Some(first) = empty.first() else {
        return Ok(Verdict::open(format!("{} materialized views", views.len())));
    };
    let why =
        |view: &views::View| known.iter().find(|other| other.name == view.name).and_then(|known| known.error.clone());
    let details = empty.iter().map(|view| match why(view) {
        Some(why) => format!("{} is empty: {why}", view.label()),
        None => format!("{} is empty", view.label()),
    });
    let fix = format!("on the target   {}   or drop it there", first.statement());
    Ok(Verdict::Closed { details: details.collect(), fix })
}
