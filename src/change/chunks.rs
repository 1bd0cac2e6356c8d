//! Tables whose copy is made of key ranges read at different positions.
//!
//! A very large table is copied in ranges of its key, and each range remembers the position it was read at. After a crash
//! only the ranges that are missing are read, at a later position. Until the stream has passed the newest of them, the
//! target holds a mixture, and what a change means depends on the ranges of its old and its new key (TRAPS 6): a
//! transaction that committed at `t` is in every range whose position holds it.
//!
//! | range of the old key | range of the new key | the change is |
//! |---|---|---|
//! | older than `t` | older than `t` | applied |
//! | newer | newer | skipped: both copies have it |
//! | older | newer | the end of the old row; the new one is in its range's copy |
//! | newer | older | a new row: neither copy has it |
//!
//! In the last case the stream may not say everything about the row: values that are stored out of line and did not
//! change are not sent. They are read again from the source. What is found may be of a later state than `t`:
//!
//! - it is the same row, changed meanwhile: then the stream will bring what changed;
//! - the row is not there under this key any more: then it is left out, and a change that takes it away from this key is
//!   still to come;
//! - another row has taken the key: then the row itself was moved on, by a change that is still to come.
//!
//! So until the stream has passed the place where the source's log ended at the last such reading, every change of a key
//! is carried out as an end and a beginning, the beginning complete, and an end that finds no row is no divergence. That
//! place is written down before anything depends on it (`copied_until`), so it holds over a crash as well.

use super::{CommitStart, Datum, Op, Position, Row, RowChange};
use crate::error::{Error, Kind, Result};
use crate::schema::{Ident, TableSchema};

/// The ranges of one table. Together they are every key.
#[derive(Debug, Clone)]
pub struct ChunkMap {
    /// The key's column that the ranges are of, at the source.
    pub column: String,
    /// In ascending order; the first has no lower and the last no upper bound.
    pub chunks: Vec<Chunk>,
}

/// A range of keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// Its number within the table.
    pub number: i32,
    /// Its first key.
    pub lower: Option<i64>,
    /// The first key that is no longer in it.
    pub upper: Option<i64>,
    /// The position it was read at; `None` until it has been.
    pub copied_at: Option<Position>,
    /// Rows it had.
    pub rows: i64,
}

/// What a change becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the copies.
    Skip,
    /// As it is.
    Apply,
    /// The old row goes; the new one is in the copy of its range.
    OnlyOld,
    /// The new row comes; the old one was never copied.
    OnlyNew,
}

impl Chunk {
    /// The condition that selects it.
    pub fn condition(&self, column: &Ident<'_>) -> String {
        let lower = self.lower.map(|lower| format!("{column} >= {lower}"));
        let upper = self.upper.map(|upper| format!("{column} < {upper}"));
        match (lower, upper) {
            (Some(lower), Some(upper)) => format!("({lower} AND {upper})"),
            (Some(one), None) | (None, Some(one)) => format!("({one})"),
            (None, None) => "true".into(),
        }
    }
}

impl ChunkMap {
    /// Ranges between these bounds, none of them copied.
    pub fn between(column: &str, bounds: &[i64]) -> ChunkMap {
        let mut bounds = bounds.to_vec();
        bounds.sort_unstable();
        bounds.dedup();
        let lower = std::iter::once(None).chain(bounds.iter().copied().map(Some));
        let upper = bounds.iter().copied().map(Some).chain(std::iter::once(None));
        let chunk = |(number, (lower, upper))| Chunk { number, lower, upper, copied_at: None, rows: 0 };
        ChunkMap { column: column.to_owned(), chunks: (0..).zip(lower.zip(upper)).map(chunk).collect() }
    }

    /// The oldest position; `None` while a range is missing.
    pub fn oldest(&self) -> Option<Position> {
        self.positions()?.into_iter().reduce(|a, b| if b < a { b } else { a }).cloned()
    }

    /// The newest position; `None` while a range is missing.
    pub fn newest(&self) -> Option<Position> {
        self.positions()?.into_iter().cloned().reduce(|a, b| a.join(&b))
    }

    fn positions(&self) -> Option<Vec<&Position>> {
        self.chunks.iter().map(|chunk| chunk.copied_at.as_ref()).collect()
    }

    /// Whether the copy of the key's range has what was committed at `t`.
    fn has(&self, key: i64, t: &CommitStart) -> bool {
        let at = self.chunks.partition_point(|chunk| chunk.upper.is_some_and(|upper| upper <= key));
        self.chunks.get(at).and_then(|chunk| chunk.copied_at.as_ref()).is_some_and(|copied_at| t.is_in(copied_at))
    }

    /// What a change from `old` to `new` that was committed at `t` becomes.
    pub fn verdict(&self, old: Option<i64>, new: Option<i64>, t: &CommitStart) -> Verdict {
        let to_do = |key: i64| !self.has(key, t);
        match (old.map(to_do), new.map(to_do)) {
            (Some(true), Some(true)) | (Some(true), None) | (None, Some(true)) => Verdict::Apply,
            (Some(true), Some(false)) => Verdict::OnlyOld,
            (Some(false), Some(true)) => Verdict::OnlyNew,
            _ => Verdict::Skip,
        }
    }

    /// The key of a row. `table` is the source's table as the row has it.
    fn key(&self, table: &TableSchema, row: &Row) -> Result<i64> {
        let missing = |what: &str| {
            Error::new(
                Kind::Schema,
                format!("{} was copied in ranges of {:?}, and a change of it has {what}", table.name, self.column),
            )
            .fix("cutwater tables resync copies it anew")
        };
        let index = table.columns.iter().position(|column| column.name == self.column);
        let datum = index.and_then(|index| row.get(index)).ok_or_else(|| missing("no such column"))?;
        match datum {
            Datum::Text(text) => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()),
            Datum::Binary(bytes) => match *bytes {
                [a, b] => Some(i64::from(i16::from_be_bytes([a, b]))),
                [a, b, c, d] => Some(i64::from(i32::from_be_bytes([a, b, c, d]))),
                [a, b, c, d, e, f, g, h] => Some(i64::from_be_bytes([a, b, c, d, e, f, g, h])),
                _ => None,
            },
            Datum::Null | Datum::Unchanged => None,
        }
        .ok_or_else(|| missing("a value in it that is no number"))
    }

    /// What a change committed at `t` becomes, and whether it changes the row's key.
    pub fn judge(&self, change: &RowChange, t: &CommitStart) -> Result<(Verdict, bool)> {
        let new = change.new.as_ref().map(|row| self.key(&change.table, row)).transpose()?;
        // The source sends an old row only if the key changed, or if it always sends it.
        let old = match (&change.old, change.op) {
            (Some(row), _) => Some(self.key(&change.table, row)?),
            (None, Op::Insert) => None,
            (None, _) => new,
        };
        let moves = change.op == Op::Update && change.old.as_ref().is_some_and(|old| moved(change, old));
        Ok((self.verdict(old, new, t), moves))
    }

    /// The rows that a TRUNCATE at `t` removes, as a condition on the target's column; `None`: all of them.
    pub fn truncated(&self, column: &str, t: &CommitStart) -> Option<String> {
        let older = |chunk: &&Chunk| chunk.copied_at.as_ref().is_none_or(|copied_at| !t.is_in(copied_at));
        if self.chunks.iter().all(|chunk| older(&chunk)) {
            return None;
        }
        let column = Ident(column);
        let conditions: Vec<String> = self.chunks.iter().filter(older).map(|chunk| chunk.condition(&column)).collect();
        Some(if conditions.is_empty() { "false".into() } else { conditions.join(" OR ") })
    }
}

fn moved(change: &RowChange, old: &Row) -> bool {
    let Some(new) = &change.new else { return false };
    let key = change.table.key.as_ref().map_or(&[][..], |key| &key.columns);
    // A key value that was not sent did not change.
    key.iter().any(|&column| new.get(column) != Some(Datum::Unchanged) && new.get(column) != old.get(column))
}

/// The end of an update's old row.
pub fn end_of(change: &RowChange) -> RowChange {
    RowChange { op: Op::Delete, new: None, ..change.clone() }
}

/// The beginning of an update's new row.
pub fn beginning_of(change: &RowChange, new: Row) -> RowChange {
    RowChange { op: Op::Insert, old: None, old_is_key_only: false, new: Some(new), ..change.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Lsn;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use std::collections::BTreeMap;

    fn at(lsn: u64) -> Position {
        Lsn(lsn).into()
    }

    fn commit(lsn: u64) -> CommitStart {
        Lsn(lsn).into()
    }

    fn map(positions: &[u64]) -> ChunkMap {
        let bounds: Vec<i64> = (1..positions.len() as i64).map(|index| index * 10).collect();
        let mut map = ChunkMap::between("id", &bounds);
        for (chunk, &position) in map.chunks.iter_mut().zip(positions) {
            chunk.copied_at = Some(at(position));
        }
        map
    }

    #[test]
    fn the_first_and_the_last_range_have_no_end() {
        let map = map(&[100, 200, 300]);
        let has = |key| map.has(key, &commit(150));
        assert_eq!([i64::MIN, 9, 10, 19, 20, i64::MAX].map(has), [false, false, true, true, true, true]);
        assert_eq!((map.oldest(), map.newest()), (Some(at(100)), Some(at(300))));
    }

    #[test]
    fn a_transaction_at_the_position_itself_is_not_in_the_copy() {
        let map = map(&[100]);
        assert_eq!(map.verdict(None, Some(1), &commit(99)), Verdict::Skip);
        assert_eq!(map.verdict(None, Some(1), &commit(100)), Verdict::Apply);
    }

    #[test]
    fn a_truncate_spares_the_ranges_that_were_read_after_it() {
        let map = map(&[100, 200, 100]);
        assert_eq!(map.truncated("id", &commit(150)).as_deref(), Some("(\"id\" < 10) OR (\"id\" >= 20)"));
        assert_eq!(map.truncated("id", &commit(200)), None);
        assert_eq!(map.truncated("id", &commit(50)).as_deref(), Some("false"));
    }

    /// Copies of random ranges at random moments of a random history, and the stream from the first moment on: at its
    /// end the target is the source, whatever happened.
    #[test]
    fn copies_of_different_moments_and_the_stream_come_to_the_source() {
        for seed in 0..2_000 {
            let mut random = StdRng::seed_from_u64(seed);
            let positions: Vec<u64> = (0..4).map(|_| random.random_range(0..60)).collect();
            let map = map(&positions);
            let mut source: BTreeMap<i64, u64> =
                (0..40).filter(|_| random.random_bool(0.5)).map(|key| (key, 0)).collect();
            let mut history = vec![source.clone()];
            let mut changes = Vec::new();
            for t in 0..80u64 {
                let (old, new) = (random.random_range(0..40), random.random_range(0..40));
                let change = match (source.contains_key(&old), source.contains_key(&new)) {
                    (true, _) if random.random_bool(0.2) => (Some(old), None),
                    (true, true) => (Some(old), Some(old)),
                    (true, false) => (Some(old), Some(new)),
                    (false, _) => (None, Some(old)),
                };
                change.0.and_then(|old| source.remove(&old));
                change.1.map(|new| source.insert(new, t + 1));
                changes.push(change);
                history.push(source.clone());
            }
            // A range read at position P holds what was committed at t < P.
            let mut target: BTreeMap<i64, u64> = BTreeMap::new();
            for (chunk, &position) in map.chunks.iter().zip(&positions) {
                let inside = |key: &i64| chunk.lower.is_none_or(|l| *key >= l) && chunk.upper.is_none_or(|u| *key < u);
                let copied = history[position as usize].iter().filter(|(key, _)| inside(key));
                target.extend(copied.map(|(key, value)| (*key, *value)));
            }
            let oldest = *positions.iter().min().expect("four");
            for (t, &(old, new)) in changes.iter().enumerate().skip(oldest as usize) {
                let verdict = map.verdict(old, new, &commit(t as u64));
                let (ends, begins) = match verdict {
                    Verdict::Skip => (None, None),
                    Verdict::Apply => (old, new),
                    Verdict::OnlyOld => (old, None),
                    Verdict::OnlyNew => (None, new),
                };
                if let Some(old) = ends {
                    assert!(target.remove(&old).is_some(), "seed {seed}: {old} at {t} is not there");
                }
                if let Some(new) = begins {
                    assert!(target.insert(new, t as u64 + 1).is_none(), "seed {seed}: {new} at {t} is there already");
                }
            }
            assert_eq!(target, source, "seed {seed}, positions {positions:?}");
        }
    }

    /// A row with a value that is stored out of line; the event that wrote it last.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Stored {
        doc: u64,
        written: u64,
    }

    #[derive(Debug, Clone, Copy)]
    struct Event {
        old: Option<i64>,
        new: Option<i64>,
        /// `None`: unchanged, and not sent.
        doc: Option<u64>,
    }

    /// The same with values that are not sent unless they change, and are read again from whatever the source is by then:
    /// the rules of the module, over histories in which rows chase each other over few keys.
    #[test]
    fn values_that_are_read_again_from_a_later_state_come_to_the_source() {
        let mut reread = 0;
        for seed in 0..6_000 {
            let mut random = StdRng::seed_from_u64(seed);
            let positions: Vec<u64> = (0..4).map(|_| random.random_range(0..60)).collect();
            let map = map(&positions);
            let mut source: BTreeMap<i64, Stored> = BTreeMap::new();
            let mut history = vec![source.clone()];
            let mut events = Vec::new();
            for t in 0..120u64 {
                // Keys 0, 5, 10 … 35: two in each range.
                let mut key = || 5 * random.random_range(0..8);
                let (old, new) = (key(), key());
                let event = match (source.get(&old), source.contains_key(&new)) {
                    (None, _) => Event { old: None, new: Some(old), doc: Some(t) },
                    (Some(_), _) if random.random_bool(0.15) => Event { old: Some(old), new: None, doc: None },
                    (Some(_), true) => {
                        Event { old: Some(old), new: Some(old), doc: random.random_bool(0.3).then_some(t) }
                    }
                    (Some(_), false) => {
                        Event { old: Some(old), new: Some(new), doc: random.random_bool(0.1).then_some(t) }
                    }
                };
                let before = event.old.and_then(|old| source.remove(&old));
                if let Some(new) = event.new {
                    let doc = event.doc.or(before.map(|row| row.doc)).expect("a new row is sent whole");
                    source.insert(new, Stored { doc, written: t });
                }
                events.push(event);
                history.push(source.clone());
            }
            let mut target: BTreeMap<i64, u64> = BTreeMap::new();
            for (chunk, &position) in map.chunks.iter().zip(&positions) {
                let inside = |key: &i64| chunk.lower.is_none_or(|l| *key >= l) && chunk.upper.is_none_or(|u| *key < u);
                let copied = history[position as usize].iter().filter(|(key, _)| inside(key));
                target.extend(copied.map(|(key, row)| (*key, row.doc)));
            }
            let (oldest, newest) = (positions.iter().min().expect("four"), *positions.iter().max().expect("four"));
            // What is read is of any moment between the stream's and the end, and never of an earlier one than before.
            let (mut now, mut until) = (newest, newest);
            for (t, event) in (0..).zip(&events).skip(*oldest as usize) {
                now = now.max(t + 1);
                if random.random_bool(0.3) {
                    now = random.random_range(now..=120);
                }
                let tolerant = t < until;
                let mixed = tolerant || t < newest;
                let verdict = map.verdict(event.old, event.new, &commit(t));
                let moves = event.old.is_some() && event.new.is_some() && event.old != event.new;
                let (ends, begins) = match verdict {
                    Verdict::Skip => (None, None),
                    Verdict::Apply => (event.old, event.new),
                    Verdict::OnlyOld => (event.old, None),
                    Verdict::OnlyNew => (None, event.new),
                };
                let before = ends.and_then(|old| target.remove(&old));
                assert!(ends.is_none() || before.is_some() || tolerant, "seed {seed}: a divergence at {t}");
                let Some(new) = begins else { continue };
                let in_place = !moves && event.old.is_some() && verdict == Verdict::Apply;
                let doc = match event.doc {
                    // An update that finds no row stays without one.
                    _ if in_place && before.is_none() => None,
                    Some(doc) => Some(doc),
                    None if in_place || !mixed => before,
                    None => {
                        let found = history[now as usize].get(&new);
                        if found.is_none_or(|found| found.written != t) {
                            until = until.max(now);
                            reread += 1;
                        }
                        found.map(|found| found.doc)
                    }
                };
                if let Some(doc) = doc {
                    assert!(target.insert(new, doc).is_none(), "seed {seed}: {new} at {t} is there already");
                }
            }
            let expected: BTreeMap<i64, u64> = source.iter().map(|(key, row)| (*key, row.doc)).collect();
            assert_eq!(target, expected, "seed {seed}, positions {positions:?}");
        }
        assert!(reread > 1_000, "later states were read: {reread}");
    }
}
