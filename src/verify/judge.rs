//! What a row that disagrees comes to, whichever engines it was read from.
//!
//! In: rows as each end has them ([`Entry`]), and three reads of those that disagreed ([`Looks`]). Out: the lines of a
//! report. A row differs if the source shows one version of it before and after the target was read, and the target
//! another. Not merely the same values: a row that changes to and fro would be blamed for what the target rightly shows
//! in between.

use std::collections::{HashMap, HashSet};

use super::{DifferenceKind, RowDifference, TableReport};
use crate::error::Result;

/// Rows that are rechecked at most. What is beyond is counted as it was first seen: with so many there is no doubt that
/// something is wrong.
pub(super) const MAX_CANDIDATES: usize = 1_000_000;
/// Keys read at once.
const AT_ONCE: usize = 1_000;
/// Times a row that changes under our eyes is looked at again.
const ROUNDS: usize = 12;

/// A row (or, without a key, all equal rows) at one end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The hash of its key; of all of it without one.
    pub(super) order: i64,
    pub(super) key: Vec<String>,
    pub(super) count: i64,
    pub(super) hash: i64,
}

/// A row that disagreed when it was first seen.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) order: i64,
    pub(super) key: Vec<String>,
    pub(super) kind: DifferenceKind,
}

/// What tells rows apart.
pub(super) type Identity = (i64, Vec<String>);

/// Without a key a row is its hash: the text beside it is only its beginning.
pub(super) fn identity(keyed: bool, order: i64, key: &[String]) -> Identity {
    (order, if keyed { key.to_vec() } else { Vec::new() })
}

/// Rows by what tells them apart.
pub(super) type Found = HashMap<Identity, Entry>;

/// Three reads of the same rows.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// At the source, before …
    pub(super) before: Found,
    /// … at the target, once it had applied what the source had then …
    pub(super) here: Found,
    /// … and at the source again.
    pub(super) after: Found,
    /// Rows that were written at the source between the two, whatever they look like.
    pub(super) touched: HashSet<Identity>,
}

impl Looks {
    /// Counts what is certain to differ; returns what has to be looked at once more.
    pub(super) fn judge(
        &self,
        keyed: bool,
        called: impl Fn(&Candidate) -> Identity,
        open: Vec<Candidate>,
        named_rows: usize,
        report: &mut TableReport,
    ) -> Vec<Candidate> {
        let mut again = Vec::new();
        for candidate in open {
            let key = called(&candidate);
            let (one, here, two) = (self.before.get(&key), self.here.get(&key), self.after.get(&key));
            if same(here, one) || same(here, two) {
                // The target shows a state that the source had.
                continue;
            }
            // A row that has changed and changed back looks as before, and the target may show what was between.
            if self.touched.contains(&key) || !same(one, two) {
                again.push(candidate);
                continue;
            }
            let kind = match (two, here) {
                (Some(source), Some(target)) => kind_of(source, target),
                (Some(_), None) => DifferenceKind::Missing,
                (None, Some(_)) => DifferenceKind::Extra,
                (None, None) => candidate.kind,
            };
            differs(report, named_rows, keyed, candidate.key, kind);
        }
        again
    }
}

fn same(a: Option<&Entry>, b: Option<&Entry>) -> bool {
    a.map(|entry| (entry.count, entry.hash)) == b.map(|entry| (entry.count, entry.hash))
}

/// Who looks at rows again.
pub(super) trait Again: Send {
    /// One round; returns what has to be looked at once more.
    fn look(
        &mut self,
        open: Vec<Candidate>,
        report: &mut TableReport,
    ) -> impl Future<Output = Result<Vec<Candidate>>> + Send;
}

/// Looks at every candidate until it is certain what it is, at most [`ROUNDS`] times.
pub(super) async fn rounds(again: &mut impl Again, candidates: &[Candidate], report: &mut TableReport) -> Result<()> {
    report.rechecked = candidates.len() as u64;
    for some in candidates.chunks(AT_ONCE) {
        let mut open = some.to_vec();
        for _ in 0..ROUNDS {
            if open.is_empty() {
                break;
            }
            open = again.look(open, report).await?;
        }
        report.unsettled += open.len() as u64;
    }
    Ok(())
}

/// Compares rows that stand still.
pub(super) fn compare(at_source: Found, mut at_target: Found, named_rows: usize, report: &mut TableReport) {
    report.rows_source += at_source.len() as u64;
    report.rows_target += at_target.len() as u64;
    for (key, entry) in at_source {
        match at_target.remove(&key) {
            Some(other) if other.hash == entry.hash => {}
            Some(other) => {
                let kind = kind_of(&entry, &other);
                differs(report, named_rows, true, entry.key, kind);
            }
            None => differs(report, named_rows, true, entry.key, DifferenceKind::Missing),
        }
    }
    for entry in at_target.into_values() {
        differs(report, named_rows, true, entry.key, DifferenceKind::Extra);
    }
}

/// Counts rows of ends that stand still.
pub(super) fn certain(candidates: Vec<Candidate>, keyed: bool, named_rows: usize, report: &mut TableReport) {
    for candidate in candidates {
        differs(report, named_rows, keyed, candidate.key, candidate.kind);
    }
}

fn differs(report: &mut TableReport, named_rows: usize, keyed: bool, key: Vec<String>, kind: DifferenceKind) {
    report.differing += 1;
    if report.rows.len() < named_rows {
        report.rows.push(row_difference(keyed, key, kind));
    }
}

/// A difference as it is reported.
fn row_difference(keyed: bool, key: Vec<String>, kind: DifferenceKind) -> RowDifference {
    if keyed {
        RowDifference { key: format!("({})", key.join(", ")), kind, key_values: key }
    } else {
        RowDifference { key: key.join(""), kind, key_values: Vec::new() }
    }
}

/// How two entries of one key differ; without a key their counts do.
pub(super) fn kind_of(source: &Entry, target: &Entry) -> DifferenceKind {
    match source.count.cmp(&target.count) {
        std::cmp::Ordering::Greater => DifferenceKind::Missing,
        std::cmp::Ordering::Less => DifferenceKind::Extra,
        std::cmp::Ordering::Equal => DifferenceKind::Different,
    }
}

/// Takes note of a row that disagrees.
pub(super) fn keep(candidates: &mut Vec<Candidate>, entry: Entry, kind: DifferenceKind, report: &mut TableReport) {
    if candidates.len() < MAX_CANDIDATES {
        candidates.push(Candidate { order: entry.order, key: entry.key, kind });
    } else {
        report.too_many = true;
        report.differing += 1;
    }
}
