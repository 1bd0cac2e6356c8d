//! What the applier does for a cutover: it says when the fence's marker is durable, and whether the fence held.
//!
//! In: the events of a batch. Out: what is to be written about fences in the batch's own transaction: `drained_at` of the
//! fence whose marker was in it, and `broken` if a migrated table changed after a marker (TRAPS 19). The changes are
//! applied all the same.

use crate::change::{ChangeEvent, Message};

/// The fence behind whose marker the stream is, if there is one.
pub(in crate::target) struct Watch {
    active: Option<String>,
}

/// What a transaction has to write about fences.
#[derive(Default)]
pub(in crate::target) struct Notes {
    /// Nonce of the marker in it.
    pub marker: Option<String>,
    /// Nonces of fences that did not hold, and what changed behind them.
    pub broken: Vec<(String, String)>,
}

impl Watch {
    /// `active`: the fence whose marker was applied before this applier was opened.
    pub fn new(active: Option<String>) -> Watch {
        Watch { active }
    }

    /// Looks through a batch.
    pub fn notice(&mut self, events: &[ChangeEvent], notes: &mut Notes) {
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
    pub fn passed(&mut self, nonce: &str) {
        self.active = Some(nonce.to_owned());
    }

    /// That these fences did not hold is written. Said once is enough; and a fence that was undone is none.
    pub fn said(&mut self, notes: &Notes) {
        if notes.broken.iter().any(|(nonce, _)| self.active.as_ref() == Some(nonce)) {
            self.active = None;
        }
    }
}
