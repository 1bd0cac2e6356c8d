//! Several appliers beside each other, for speed: `[apply] workers` (law 3 is given up for it).
//!
//! In: batches, as one applier gets them. Out: the same, and the same rows at the target. Each worker has a connection, a
//! checkpoint and tables of its own, so whatever keeps changes in order (a key, a unique index, a table without either)
//! is one worker's. Foreign keys are switched off in every session that applies, or are not there. One batch is
//!
//! ```text
//! worker 0:    BEGIN; its checkpoint ────────── its tables ─────────────────────┬─ COMMIT
//! the others:             └─ BEGIN; checkpoint; their tables; COMMIT ───────────┘
//! ```
//!
//! Worker 0 begins first and commits last. So whoever holds the row of its checkpoint meets none of the others in
//! mid-batch; and what that row says is durable whoever applied it: it alone is confirmed to the source, shown and waited
//! for. A worker that has nothing to do in a batch leaves its row where it is.
//!
//! A crash between the commits leaves workers that are a batch beyond worker 0, and the stream starts at worker 0's place:
//! of *their* tables it leaves out what they have (TRAPS 4), which is for whoever makes this to see to. An error of one
//! ends the batch for all.
//!
//! What can go wrong: worker 0 keeps its locks until the others are done. Whoever of them waits for one of these would
//! wait for ever: a statement on a table that is another worker's is carried out after that one's commit (ALTER), or
//! touches its own tables only (TRUNCATE).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::MissedTickBehavior;

use super::{Applied, Applier, Batch, BatchEnd};
use crate::change::{Begin, ChangeEvent, Durable, Message, Position, Truncate};
use crate::error::{Error, Kind, Result};
use crate::schema::{ShapeChange, TableName};

/// A transaction that waits for another worker's has a sign of life this often: the target ends a session that hangs.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// An applier that can be one of several.
pub trait Worker: Applier + Sync + 'static {
    /// Gives the target a sign of life, between two calls.
    fn stay(&self) -> impl Future<Output = Result<()>> + Send;

    /// The marker of this fence has passed: a change that comes from now on has broken it.
    fn passed(&mut self, nonce: &str);
}

/// Several appliers as one.
pub struct Parallel<A> {
    lead: A,
    /// Workers 1, 2 …; `None` while one is at work.
    others: Vec<Option<A>>,
    /// The worker of each table; one that is not here is worker 0's.
    worker_of: HashMap<TableName, usize>,
    /// The transaction under way, and who knows of it.
    begin: Option<Begin>,
    told: Vec<bool>,
    /// Whose target transaction is open: a source transaction has come in part.
    open: Vec<bool>,
    spent: bool,
}

/// What of a batch is for one worker.
#[derive(Debug, Default)]
struct Part {
    events: Vec<ChangeEvent>,
    /// Whether there is something to be done in it.
    works: bool,
}

impl<A: Worker> Parallel<A> {
    /// `others` are workers 1, 2 …; `worker_of` says whose a table (by the target's name) is.
    pub fn new(lead: A, others: Vec<A>, worker_of: HashMap<TableName, usize>) -> Self {
        let count = others.len() + 1;
        Parallel {
            lead,
            others: others.into_iter().map(Some).collect(),
            worker_of,
            begin: None,
            told: vec![false; count],
            open: vec![false; count],
            spent: false,
        }
    }

    /// Splits a batch: to each worker its tables' events, in their order, inside the transactions they are of.
    fn split(&mut self, events: Vec<ChangeEvent>) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        parts.resize_with(self.told.len(), Part::default);
        for event in events {
            match event {
                ChangeEvent::Begin(begin) => {
                    self.told.fill(false);
                    self.told[0] = true;
                    self.begin = Some(begin.clone());
                    parts[0].events.push(ChangeEvent::Begin(begin));
                }
                ChangeEvent::Commit(commit) => {
                    for (part, told) in parts.iter_mut().zip(&mut self.told) {
                        if std::mem::take(told) {
                            part.events.push(ChangeEvent::Commit(commit.clone()));
                        }
                    }
                    self.begin = None;
                }
                ChangeEvent::Row(change) => {
                    let worker = self.worker_of(&change.table.name);
                    self.part(&mut parts, worker).push(ChangeEvent::Row(change));
                }
                ChangeEvent::Truncate(truncate) => {
                    for (worker, truncate) in self.split_truncate(&truncate) {
                        self.part(&mut parts, worker).push(ChangeEvent::Truncate(truncate));
                    }
                }
                ChangeEvent::Alter(change) => {
                    let worker = self.worker_of(&change.target);
                    self.part(&mut parts, worker).push(ChangeEvent::Alter(change));
                }
                ChangeEvent::Message(message @ Message::Fence { .. }) => {
                    let message = ChangeEvent::Message(message);
                    parts.iter_mut().for_each(|part| part.events.push(message.clone()));
                }
                other @ (ChangeEvent::Schema(_) | ChangeEvent::Message(_)) => parts[0].events.push(other),
            }
        }
        parts
    }

    fn worker_of(&self, table: &TableName) -> usize {
        self.worker_of.get(table).copied().filter(|worker| *worker < self.told.len()).unwrap_or(0)
    }

    /// The events of a worker that gets one of the transaction under way.
    fn part<'a>(&mut self, parts: &'a mut [Part], worker: usize) -> &'a mut Vec<ChangeEvent> {
        let part = &mut parts[worker];
        part.works = true;
        if let Some(begin) = self.begin.as_ref().filter(|_| !self.told[worker]) {
            part.events.push(ChangeEvent::Begin(begin.clone()));
            self.told[worker] = true;
        }
        &mut part.events
    }

    fn split_truncate(&self, truncate: &Truncate) -> Vec<(usize, Truncate)> {
        let mut workers: Vec<usize> = truncate.tables.iter().map(|table| self.worker_of(&table.name)).collect();
        workers.sort_unstable();
        workers.dedup();
        let of = |worker: usize| {
            let mut part = truncate.clone();
            part.tables.retain(|table| self.worker_of(&table.name) == worker);
            let others = truncate.tables.iter().filter(|table| self.worker_of(&table.name) != worker);
            part.elsewhere.extend(others.map(|table| table.name.clone()));
            (worker, part)
        };
        workers.into_iter().map(of).collect()
    }

    async fn apply_parts(&mut self, batch: Batch) -> Result<Applied> {
        let Batch { events, end, tolerate_missing } = batch;
        let alters = events.iter().any(|event| matches!(event, ChangeEvent::Alter(_)));
        let mut parts = self.split(events);
        let own = std::mem::take(&mut parts[0].events);
        let mut busy = Vec::new();
        for (worker, part) in parts.into_iter().enumerate().skip(1) {
            if part.works || (self.open[worker] && matches!(end, BatchEnd::Commit { .. })) {
                busy.push((worker, Batch { events: part.events, end: end.clone(), tolerate_missing }));
            } else if let Some(nonce) = fence_of(&part.events) {
                self.other(worker)?.passed(&nonce);
            }
        }
        if busy.is_empty() && !self.open[1..].contains(&true) {
            self.open[0] = end == BatchEnd::Open;
            return self.lead.apply(Batch { events: own, end, tolerate_missing }).await;
        }
        if let BatchEnd::Commit { position, .. } = &end {
            for (worker, _) in &busy {
                if self.other(*worker)?.checkpoint().get() >= position {
                    let why = format!("changes up to {position} came again to worker {worker}, which has applied them");
                    return Err(Error::new(Kind::Internal, why));
                }
            }
        }

        let part = |events: Vec<ChangeEvent>| Batch { events, end: BatchEnd::Open, tolerate_missing };
        let mut applied = Applied::default();
        if !std::mem::replace(&mut self.open[0], true) {
            self.lead.apply(part(Vec::new())).await?;
        }
        if alters {
            // It may need locks on tables of others, and the others on its own: one after the other.
            for one in busy {
                self.together(vec![one], None, &mut applied).await?;
            }
            applied.take_in(self.lead.apply(part(own)).await?, true);
        } else {
            self.together(busy, Some(part(own)), &mut applied).await?;
        }
        if matches!(end, BatchEnd::Commit { .. }) {
            let last = self.lead.apply(Batch { events: Vec::new(), end, tolerate_missing }).await?;
            applied.take_in(last, true);
            self.open.fill(false);
        }
        Ok(applied)
    }

    /// Has workers do their parts, worker 0 among them if it has one, until all are done.
    async fn together(&mut self, busy: Vec<(usize, Batch)>, own: Option<Batch>, applied: &mut Applied) -> Result<()> {
        // Dropped with an error of any of them: then nobody goes on.
        let mut at_work = JoinSet::new();
        for (worker, batch) in busy {
            self.open[worker] = batch.end == BatchEnd::Open;
            let missing = || Error::new(Kind::Internal, "a worker is at work already");
            let mut other = self.others[worker - 1].take().ok_or_else(missing)?;
            at_work.spawn(async move {
                let result = other.apply(batch).await;
                (worker, other, result)
            });
        }
        let Parallel { lead, others, open, .. } = self;
        let mut signs = tokio::time::interval(SIGN_OF_LIFE);
        signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if let Some(own) = own {
            let own = lead.apply(own);
            tokio::pin!(own);
            let done = loop {
                tokio::select! {
                    done = &mut own => break done?,
                    Some(done) = at_work.join_next() => applied.take_in(back(done, others)?, false),
                    _ = signs.tick() => stay(others, open).await?,
                }
            };
            applied.take_in(done, true);
        }
        while !at_work.is_empty() {
            tokio::select! {
                Some(done) = at_work.join_next() => applied.take_in(back(done, others)?, false),
                _ = signs.tick() => {
                    lead.stay().await?;
                    stay(others, open).await?;
                }
            }
        }
        Ok(())
    }

    fn other(&mut self, worker: usize) -> Result<&mut A> {
        let missing = || Error::new(Kind::Internal, format!("worker {worker} is not there"));
        self.others.get_mut(worker - 1).and_then(Option::as_mut).ok_or_else(missing)
    }
}

/// Puts a worker that is done back to its place; what it did.
fn back<A>(done: Result<(usize, A, Result<Applied>), JoinError>, others: &mut [Option<A>]) -> Result<Applied> {
    let ended = |error: JoinError| Error::new(Kind::Internal, format!("a worker has ended: {error}"));
    let (worker, other, result) = done.map_err(ended)?;
    others[worker - 1] = Some(other);
    result
}

/// A sign of life from everybody whose transaction is open and who is not at work.
async fn stay<A: Worker>(others: &[Option<A>], open: &[bool]) -> Result<()> {
    for (other, open) in others.iter().zip(&open[1..]) {
        if let Some(other) = other.as_ref().filter(|_| *open) {
            other.stay().await?;
        }
    }
    Ok(())
}

fn fence_of(events: &[ChangeEvent]) -> Option<String> {
    events.iter().rev().find_map(|event| match event {
        ChangeEvent::Message(Message::Fence { nonce }) => Some(nonce.clone()),
        _ => None,
    })
}

impl<A: Worker> Applier for Parallel<A> {
    fn checkpoint(&self) -> Durable<Position> {
        self.lead.checkpoint()
    }

    async fn apply(&mut self, batch: Batch) -> Result<Applied> {
        if self.others.is_empty() {
            return self.lead.apply(batch).await;
        }
        if std::mem::replace(&mut self.spent, true) {
            return Err(Error::new(Kind::Internal, "workers were used again after an error"));
        }
        let applied = self.apply_parts(batch).await?;
        self.spent = false;
        Ok(applied)
    }

    async fn alter(&mut self, changes: &[Arc<ShapeChange>]) -> Result<()> {
        for change in changes {
            let change = std::slice::from_ref(change);
            match self.worker_of(&change[0].target) {
                0 => self.lead.alter(change).await?,
                worker => self.other(worker)?.alter(change).await?,
            }
        }
        Ok(())
    }

    async fn advance(&mut self, to: &Position) -> Result<Durable<Position>> {
        self.lead.advance(to).await
    }
}

impl Applied {
    /// Adds what another worker did. What stands for the whole (transactions, durability, a fence) is worker 0's to say.
    fn take_in(&mut self, other: Applied, is_lead: bool) {
        for (key, rows) in other.rows {
            *self.rows.entry(key).or_default() += rows;
        }
        self.divergences += other.divergences;
        self.dead_letters += other.dead_letters;
        self.replayed |= other.replayed;
        if is_lead {
            self.transactions += other.transactions;
            self.durable = other.durable.or(self.durable.take());
            self.fence = other.fence.or(self.fence.take());
        }
    }
}
