//! What the applier writes about a cutover, in the batch's own transaction: see [`crate::target::batch::fence`].

use crate::change::Position;
use crate::error::{Context, Result};
use crate::mysql::Session;
use crate::target::batch::fence::{Notes, Watch};

/// Whether a marker was applied before this applier was opened.
pub(super) async fn read(session: &mut Session, migration: &str) -> Result<Watch> {
    let sql = "SELECT nonce FROM cutwater.cutover
               WHERE migration = ? AND drained_at IS NOT NULL AND step NOT IN ('undone', 'done')
               ORDER BY started_at DESC LIMIT 1";
    let rows = session.rows_with(sql, (migration,)).await.context("reading the cutover's state")?;
    Ok(Watch::new(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten())))
}

/// Writes the notes, in the transaction that ends at `position`. Only who commits last (`.1`) can say that everything
/// before the marker is durable.
pub(super) async fn settle(
    watch: &mut Watch,
    session: &mut Session,
    migration: &str,
    notes: &Notes,
    (position, is_last): (&Position, bool),
) -> Result<()> {
    let doing = "recording the fence's marker";
    if let Some(nonce) = notes.marker.as_ref().filter(|_| is_last) {
        let sql = "UPDATE cutwater.cutover SET drained_at = ? WHERE migration = ? AND nonce = ?";
        session.execute_with(sql, (position.to_string(), migration, nonce)).await.context(doing)?;
    }
    for (nonce, what) in &notes.broken {
        let sql = "UPDATE cutwater.cutover SET broken = coalesce(broken, ?)
                   WHERE migration = ? AND nonce = ? AND step <> 'undone'";
        session.execute_with(sql, (what, migration, nonce)).await.context(doing)?;
    }
    watch.said(notes);
    Ok(())
}
