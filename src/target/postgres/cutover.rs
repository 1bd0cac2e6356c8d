//! What the applier does for a cutover: it says when the fence's marker is durable, and whether the fence held.
//!
//! In: the events of a batch. Out, in the batch's own transaction: `drained_at` of the fence whose marker was in it, and
//! `broken` if a migrated table changed after a marker (TRAPS 19). The changes are applied all the same.

use crate::change::{ChangeEvent, Message, Position};
use crate::error::{Context, Result};
use crate::postgres::Client;

/// The fence behind whose marker the stream is, if there is one.
pub(super) struct Watch {
    active: Option<String>,
}

/// What a transaction has to write about fences.
#[derive(Default)]
pub(super) struct Notes {
    /// Nonce of the marker in it.
    pub marker: Option<String>,
    /// Nonces of fences that did not hold, and what changed behind them.
    broken: Vec<(String, String)>,
}

impl Watch {
    /// Whether a marker was applied before this applier was opened.
    pub(super) async fn read(client: &Client, migration: &str) -> Result<Watch> {
        let sql = "SELECT nonce FROM cutwater.cutover
                   WHERE migration = $1 AND drained_at IS NOT NULL AND step NOT IN ('undone', 'done')
                   ORDER BY started_at DESC LIMIT 1";
        let row = client.query_opt(sql, &[&migration]).await.context("reading the cutover's state")?;
        Ok(Watch { active: row.map(|row| row.get(0)) })
    }

    /// Looks through a batch.
    pub(super) fn notice(&mut self, events: &[ChangeEvent], notes: &mut Notes) {
        let mut at = None;
        for event in events {
            let table = match event {
                ChangeEvent::Begin(begin) => {
                    at = Some(&begin.commit_start);
                    continue;
                }
                ChangeEvent::Message(Message::Fence { nonce }) => {
                    self.active = Some(nonce.clone());
                    notes.marker = Some(nonce.clone());
                    continue;
                }
                ChangeEvent::Row(change) if self.active.is_some() => Some(&change.table.name),
                ChangeEvent::Truncate(truncate) if self.active.is_some() => truncate.tables.first().map(|t| &t.name),
                _ => continue,
            };
            if let (Some(nonce), Some(table)) = (&self.active, table)
                && !notes.broken.iter().any(|(other, _)| other == nonce)
            {
                let at = at.map_or_else(String::new, |at| format!(" at {at}"));
                notes.broken.push((nonce.clone(), format!("{table} changed{at}, after the fence's marker")));
            }
        }
    }

    /// What comes from now on comes after the marker of this fence.
    pub(super) fn passed(&mut self, nonce: &str) {
        self.active = Some(nonce.to_owned());
    }

    /// Writes the notes, in the transaction that ends at `position`. Only who commits last (`.1`) can say that everything
    /// before the marker is durable.
    pub(super) async fn settle(
        &mut self,
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
            // Said once is enough; and a fence that was undone is none.
            if self.active.as_ref() == Some(nonce) {
                self.active = None;
            }
        }
        Ok(())
    }
}
