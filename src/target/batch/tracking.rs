//! Which keys a batch has to keep for a verify, and how many were kept.
//!
//! The generation under which keys are kept is known only when the target's transaction has begun, and statements are sent
//! ahead: they are sent for the generation of the last transaction. If that turns out to be another one now, or the batch
//! had to be replayed, the batch's keys are written once more at its end ([`touched`]). Too many is never wrong here.

use std::collections::HashSet;
use std::sync::Arc;

use crate::change::{ChangeEvent, Datum, Row};
use crate::schema::{TableName, TableSchema};
use crate::target::plan::{Image, NetEffect, complete_from_old, key_fields};

/// Why a table is compared whole.
pub(in crate::target) const KEYLESS: &str = "it has no key";
/// Why a table is compared whole.
pub(in crate::target) const TRUNCATED: &str = "it was truncated";
/// Why a table is compared whole.
pub(in crate::target) const FOLLOWS: &str = "a foreign key acted on it";
/// Why a table is compared whole.
pub(in crate::target) const KEY_NOT_SENT: &str = "a key was not sent";

/// What is kept, and how far that is.
#[derive(Default)]
pub(in crate::target) struct Tracker {
    /// The generation the last transaction was told; `None`: nothing is kept.
    generation: Option<i64>,
    /// Keys kept under it.
    kept: u64,
    /// How many may be.
    limit: u64,
    /// Tables of which it is known that any row may have changed.
    whole: HashSet<TableName>,
    /// There are more than may be, and whoever needs them is yet to be told.
    too_many: bool,
}

impl Tracker {
    /// Whether keys are to be kept, as far as is known.
    pub fn is_on(&self) -> bool {
        self.generation.is_some()
    }

    /// Under which generation.
    pub fn generation(&self) -> Option<i64> {
        self.generation
    }

    /// Takes note of what the transaction was told when it began; returns whether that is new. A new one begins with what
    /// is kept of it already ([`Tracker::goes_on`]).
    pub fn told(&mut self, generation: Option<i64>) -> bool {
        if self.generation == generation {
            return false;
        }
        self.whole.clear();
        self.generation = generation;
        true
    }

    /// So many keys are kept under the generation, of so many that may be.
    pub fn goes_on(&mut self, kept: u64, limit: u64) {
        (self.kept, self.limit) = (kept, limit);
    }

    /// Whether it is news that any row of the table may have changed.
    pub fn is_news(&mut self, table: &TableName) -> bool {
        self.is_on() && self.whole.insert(table.clone())
    }

    /// Counts keys that were kept. Past the limit nothing more is.
    pub fn kept(&mut self, keys: u64) {
        self.kept += keys;
        if self.is_on() && self.kept > self.limit {
            self.generation = None;
            self.too_many = true;
        }
    }

    /// Whether it is still to be said that keys are missing. To be said at the end of a transaction, because workers would
    /// wait for each other.
    pub fn has_too_many(&mut self) -> bool {
        std::mem::take(&mut self.too_many)
    }
}

/// The rows of a table's net effect whose keys are kept: before and after.
pub(in crate::target) fn rows_of<'r>(effect: &'r NetEffect<'_>) -> Vec<&'r Row> {
    let updates = || effect.updates.iter().flat_map(|group| &group.rows);
    let rows = effect.deletes.iter().map(|row| &**row);
    let rows = rows.chain(updates().filter_map(|update| update.origin.as_deref()));
    rows.chain(updates().map(|update| &*update.new)).chain(effect.inserts.iter().map(|row| &**row)).collect()
}

/// Whether a part of a key was not sent, so that the rows cannot be named.
pub(in crate::target) fn lacks_a_key(key: &[usize], rows: &[&Row]) -> bool {
    rows.iter().any(|row| key_fields(key, row).any(|datum| datum == Datum::Unchanged))
}

/// What a batch has touched, as it came.
pub(in crate::target) struct Touched<'a> {
    /// Rows, by table.
    pub tables: Vec<(&'a Arc<TableSchema>, Vec<Image<'a>>)>,
    /// Tables any row of which may have changed, and why.
    pub whole: Vec<(&'a TableName, &'static str)>,
}

/// All keys of a batch.
pub(in crate::target) fn touched(events: &[ChangeEvent]) -> Touched<'_> {
    let mut tables: Vec<(&Arc<TableSchema>, Vec<Image<'_>>)> = Vec::new();
    let mut whole: Vec<(&TableName, &str)> = Vec::new();
    for event in events {
        match event {
            ChangeEvent::Row(change) if change.table.key.is_some() => {
                let found = tables.iter().rposition(|(table, _)| Arc::ptr_eq(table, &change.table));
                let at = found.unwrap_or_else(|| {
                    tables.push((&change.table, Vec::new()));
                    tables.len() - 1
                });
                tables[at].1.extend(change.old.as_ref().map(Image::Sent));
                tables[at].1.extend(complete_from_old(change));
            }
            ChangeEvent::Row(change) => whole.push((&change.table.name, KEYLESS)),
            ChangeEvent::Truncate(truncate) => {
                whole.extend(truncate.tables.iter().map(|table| (&table.name, TRUNCATED)));
            }
            _ => {}
        }
    }
    whole.sort();
    whole.dedup_by_key(|(name, _)| *name);
    Touched { tables, whole }
}
