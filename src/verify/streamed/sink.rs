//! What is kept of the rows that stream by.

use std::collections::HashMap;

use super::form::{Digest, Form};
use crate::change::Row;
use crate::verify::judge::{Entry, Found, Identity};

/// Takes rows.
pub(super) trait Sink: Send + 'static {
    /// One row, and what was made of it.
    fn take(&mut self, row: &Row, digest: Digest, form: &Form);
}

/// What rows with the same key, or equal rows without one, are called by.
pub(super) fn called(order: i64) -> Identity {
    (order, Vec::new())
}

/// Rows and the sum of their hashes, a bucket. The sum does not wrap, and is no XOR (TRAPS 24).
#[derive(Debug, Clone)]
pub(super) struct Tally(pub(super) Vec<(u64, u128)>);

impl Tally {
    /// `buckets` is a power of two.
    pub(super) fn new(buckets: usize) -> Tally {
        Tally(vec![(0, 0); buckets])
    }

    pub(super) fn rows(&self) -> u64 {
        self.0.iter().map(|bucket| bucket.0).sum()
    }
}

/// In which bucket a row is.
pub(super) fn bucket(order: i64, buckets: usize) -> usize {
    order as usize & (buckets - 1)
}

impl Sink for Tally {
    fn take(&mut self, _: &Row, digest: Digest, _: &Form) {
        let at = bucket(digest.order, self.0.len());
        self.0[at].0 += 1;
        self.0[at].1 += u128::from(digest.hash as u64);
    }
}

/// The rows themselves, as far as they are wanted.
pub(super) struct Entries<W> {
    pub(super) wanted: W,
    pub(super) found: HashMap<i64, Entry>,
}

impl<W: Fn(i64) -> bool> Entries<W> {
    pub(super) fn new(wanted: W) -> Self {
        Entries { wanted, found: HashMap::new() }
    }

    pub(super) fn found(self) -> Found {
        self.found.into_iter().map(|(order, entry)| (called(order), entry)).collect()
    }
}

impl<W: Fn(i64) -> bool + Send + 'static> Sink for Entries<W> {
    fn take(&mut self, row: &Row, digest: Digest, form: &Form) {
        if !(self.wanted)(digest.order) {
            return;
        }
        // Equal rows of a table without a key; with one, there would be no two.
        let entry = self.found.get_mut(&digest.order).map(|entry| {
            entry.count += 1;
            entry.hash = entry.hash.wrapping_add(digest.hash);
        });
        if entry.is_none() {
            self.found.insert(digest.order, form.entry(row, digest));
        }
    }
}
