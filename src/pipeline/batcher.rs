//! Whole source transactions, gathered into batches (law 3), bounded in bytes and rows (law 4).
//!
//! In: events in stream order, already in the target's shape. Out: a [`Batch`] that ends with a source commit, or, when
//! one source transaction alone is larger than a batch, parts of it that end [`BatchEnd::Open`] and stay in one target
//! transaction. The shares of the memory budget travel with the events and are given back when the batch is dropped.

use jiff::Timestamp;

use crate::change::{ChangeEvent, Position, Share};
use crate::target::{Batch, BatchEnd};

/// What an event costs besides its row images: the event itself and its place in the fold.
const EVENT_BYTES: usize = 128;

/// Gathers events until a batch is full or asked for.
#[derive(Debug)]
pub struct Batcher {
    max_rows: usize,
    max_bytes: usize,
    events: Vec<ChangeEvent>,
    rows: usize,
    bytes: usize,
    shares: Vec<Share>,
    /// Bytes of the budget in `shares`: more than `bytes` where rows were left out, or chunks are larger than batches.
    held: usize,
    /// Just after the last commit in `events`.
    complete: Option<Complete>,
    /// The last batch ended inside a transaction.
    open: bool,
}

/// A place in `events` where a batch may end with a commit.
#[derive(Debug, Clone)]
struct Complete {
    events: usize,
    rows: usize,
    bytes: usize,
    shares: usize,
    position: Position,
    commit_time: Timestamp,
}

impl Batcher {
    /// A batcher whose batches end at the first chance past these limits.
    pub fn new(max_rows: usize, max_bytes: usize) -> Self {
        Batcher {
            max_rows,
            max_bytes,
            events: Vec::new(),
            rows: 0,
            bytes: 0,
            shares: Vec::new(),
            held: 0,
            complete: None,
            open: false,
        }
    }

    /// Other limits, from the next batch on.
    pub fn set_limits(&mut self, max_rows: usize, max_bytes: usize) {
        (self.max_rows, self.max_bytes) = (max_rows, max_bytes);
    }

    /// Whether the last batch ended inside a transaction, which is therefore open at the target.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Adds an event.
    pub fn push(&mut self, event: ChangeEvent) {
        let size = match &event {
            ChangeEvent::Row(change) => change.size(),
            _ => 0,
        };
        self.rows += usize::from(matches!(event, ChangeEvent::Row(_)));
        self.bytes += size + EVENT_BYTES;
        let commit = match &event {
            ChangeEvent::Commit(commit) => Some((commit.end.clone(), commit.commit_time)),
            _ => None,
        };
        self.events.push(event);
        if let Some((position, commit_time)) = commit {
            self.complete = Some(Complete {
                events: self.events.len(),
                rows: self.rows,
                bytes: self.bytes,
                shares: self.shares.len(),
                position,
                commit_time,
            });
        }
    }

    /// Adds the share of the chunk whose events were pushed. Given back with the batch that takes the chunk's last event.
    ///
    /// Where no row of it is waiting (all were left out), it is given back at once: a large transaction of tables that are
    /// not for the target would else use up the budget before its end, for which the reader would wait for ever.
    pub fn hold(&mut self, share: Share) {
        if self.rows == 0 {
            return;
        }
        self.held += share.bytes();
        self.shares.push(share);
        if let Some(complete) = self.complete.as_mut().filter(|complete| complete.events == self.events.len()) {
            complete.shares = self.shares.len();
        }
    }

    /// Whether a batch must be taken before more is pushed. Also when it holds a batch's part of the budget for fewer rows
    /// than that: the reader would wait for what is never given back.
    pub fn is_full(&self) -> bool {
        self.rows >= self.max_rows || self.bytes >= self.max_bytes || self.held >= self.max_bytes
    }

    /// Whether a whole transaction is waiting to be applied.
    pub fn has_complete(&self) -> bool {
        self.complete.is_some()
    }

    /// The end of the last whole transaction that is waiting.
    pub fn complete_to(&self) -> Option<&Position> {
        self.complete.as_ref().map(|complete| &complete.position)
    }

    /// Whether nothing is waiting and no transaction is under way.
    pub fn is_idle(&self) -> bool {
        self.events.is_empty() && !self.open
    }

    /// Takes the whole transactions that are waiting; if there is none and the batcher is full, a part of one.
    pub fn take(&mut self) -> Option<(Batch, Vec<Share>)> {
        if let Some(complete) = self.complete.take() {
            let rest = self.events.split_off(complete.events);
            let events = std::mem::replace(&mut self.events, rest);
            let shares_left = self.shares.split_off(complete.shares);
            let shares = std::mem::replace(&mut self.shares, shares_left);
            self.held = self.shares.iter().map(Share::bytes).sum();
            self.rows -= complete.rows;
            self.bytes -= complete.bytes;
            self.open = false;
            let end = BatchEnd::Commit { position: complete.position, commit_time: complete.commit_time };
            return Some((Batch { events, end, tolerate_missing: false }, shares));
        }
        if !self.is_full() {
            return None;
        }
        self.rows = 0;
        self.bytes = 0;
        self.held = 0;
        self.open = true;
        let events = std::mem::take(&mut self.events);
        let batch = Batch { events, end: BatchEnd::Open, tolerate_missing: false };
        Some((batch, std::mem::take(&mut self.shares)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Begin, Commit, Lsn, Op, Row, RowChange};
    use crate::schema::{TableName, TableSchema};
    use std::sync::Arc;

    fn row() -> ChangeEvent {
        let table = TableSchema::new(TableName::new("public", "t"), Vec::new(), None);
        let new = Some(Row::from_iter([]));
        ChangeEvent::Row(RowChange { table: Arc::new(table), op: Op::Insert, old: None, old_is_key_only: false, new })
    }

    fn transaction(batcher: &mut Batcher, at: u64, rows: usize) {
        let time = Timestamp::UNIX_EPOCH;
        batcher.push(ChangeEvent::Begin(Begin { xid: 1, commit_start: Lsn(at).into(), commit_time: time }));
        (0..rows).for_each(|_| batcher.push(row()));
        batcher.push(ChangeEvent::Commit(Commit { end: Lsn(at + 1).into(), commit_time: time }));
    }

    fn end(batch: &Batch) -> Option<u64> {
        match &batch.end {
            BatchEnd::Commit { position, .. } => position.lsn().ok().map(|lsn| lsn.0),
            BatchEnd::Open => None,
        }
    }

    #[test]
    fn a_batch_never_ends_inside_a_transaction_that_fits() {
        let mut batcher = Batcher::new(10, usize::MAX);
        transaction(&mut batcher, 100, 4);
        transaction(&mut batcher, 200, 4);
        batcher.push(row());
        batcher.push(row());
        assert!(batcher.is_full());
        let (batch, _) = batcher.take().expect("two whole transactions");
        assert_eq!(end(&batch), Some(201));
        assert_eq!(batch.events.len(), 12);
        assert!(!batcher.is_idle(), "the third transaction has begun");
        assert!(batcher.take().is_none(), "and is neither whole nor too large");
    }

    #[test]
    fn a_transaction_larger_than_a_batch_comes_in_open_parts_that_end_with_its_commit() {
        let mut batcher = Batcher::new(3, usize::MAX);
        (0..3).for_each(|_| batcher.push(row()));
        assert_eq!(end(&batcher.take().expect("a part").0), None);
        assert!(!batcher.is_idle());
        batcher.push(row());
        batcher.push(ChangeEvent::Commit(Commit { end: Lsn(7).into(), commit_time: Timestamp::UNIX_EPOCH }));
        assert_eq!(end(&batcher.take().expect("the rest").0), Some(7));
        assert!(batcher.is_idle());
    }

    #[tokio::test]
    async fn a_share_is_held_until_the_batch_with_its_last_event_is_dropped() {
        let budget = crate::change::Budget::new(2048);
        let mut batcher = Batcher::new(100, usize::MAX);
        transaction(&mut batcher, 100, 1);
        batcher.hold(budget.take(1024).await);
        transaction(&mut batcher, 200, 1);
        batcher.push(row());
        batcher.hold(budget.take(1024).await);
        let (batch, shares) = batcher.take().expect("whole transactions");
        assert_eq!((end(&batch), shares.len()), (Some(201), 1), "the second chunk has an event left");
    }

    #[tokio::test]
    async fn a_large_transaction_of_which_nothing_is_for_the_target_keeps_nothing_of_the_budget() {
        let budget = crate::change::Budget::new(4096);
        let mut batcher = Batcher::new(100, 1024);
        batcher.push(ChangeEvent::Begin(Begin {
            xid: 1,
            commit_start: Lsn(1).into(),
            commit_time: Timestamp::UNIX_EPOCH,
        }));
        for _ in 0..10 {
            batcher.hold(budget.take(1024).await);
        }
        assert!(!batcher.is_full());
    }

    #[tokio::test]
    async fn rows_that_hold_more_of_the_budget_than_they_are_make_a_batch() {
        let budget = crate::change::Budget::new(4096);
        let mut batcher = Batcher::new(100, 2048);
        // The end of one transaction and the beginning of another in a chunk that takes all there is.
        transaction(&mut batcher, 100, 1);
        batcher.push(row());
        batcher.hold(budget.take(usize::MAX).await);
        assert!(batcher.is_full());
        let (batch, shares) = batcher.take().expect("a whole transaction");
        assert_eq!((end(&batch), shares.len()), (Some(101), 0));
        assert!(batcher.is_full(), "nobody could read on");
        let (batch, shares) = batcher.take().expect("a part of the second");
        assert_eq!((end(&batch), shares.len()), (None, 1));
        drop(shares);
        budget.take(4096).await;
    }
}
