//! What the applier writes about a cutover, in the batch's own transaction: see [`crate::target::batch::fence`].

use crate::change::Position;
use crate::error::{Context, Result};
use crate::postgres::Client;
use crate::target::batch::fence::{Notes, Watch};

/// Whether a marker was applied before this applier was opened.
pub(super) async fn read(client: &Client, migration: &str) -> Result<Watch> {
    let sql = "SELECT nonce FROM cutwater.cutover
               WHERE migration = $1 AND drained_at IS NOT NULL AND step NOT IN ('undone', 'done')
               ORDER BY started_at DESC LIMIT 1";
    let row = client.query_opt(sql, &[&migration]).await.context("reading the cutover's state")?;
    Ok(Watch::new(row.map(|row| row.get(0))))
}

/// Writes the notes, in the transaction that ends at `position`. Only who commits last (`.1`) can say that everything
/// before the marker is durable.
pub(super) async fn settle(
    watch: &mut Watch,
    client: &Client,
    migration: &str,
    notes: &Notes,
    (position, is_last): (&Position, bool),
) -> Result<()> {
    let doing = "recording the fence's marker";
    if let Some(nonce) = notes.marker.as_ref().filter(|_| is_last) {
        let sql = "UPDATE cutwater.cutover SET drained_at = $3 WHERE migration = $1 AND nonce = $2";
        client.execute(sql, &[&migration, nonce, &position.to_string()]).await.context(doing)?;
    }
    for (nonce, what) in &notes.broken {
        let sql = "UPDATE cutwater.cutover SET broken = coalesce(broken, $3)
                   WHERE migration = $1 AND nonce = $2 AND step <> 'undone'";
        client.execute(sql, &[&migration, nonce, what]).await.context(doing)?;
    }
    watch.said(notes);
    Ok(())
}
