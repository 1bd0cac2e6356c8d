//! Stream → transform → batcher → applier → confirmation: the loop a migration spends its life in.
//!
//! In: the stream from the checkpoint on. Out: batches applied at the target, and the durable position confirmed to the
//! source. It ends when its [`Goal`] is reached or it is asked to stop; then the batch under way is finished and
//! confirmed. What can go wrong: either connection breaks, the target refuses a row, a table changes shape. After any
//! error everything in memory is dropped and the supervisor starts again from the checkpoint (TRAPS 2).
//!
//! While a batch is being applied the reader goes on filling the budget and answering the source; nothing is read twice
//! and nothing is decoded here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::batcher::Batcher;
use super::chunks::{Mixed, Settling};
use super::shapes::Shapes;
use super::vitals::Vitals;
use crate::change::{Begin, Budget, ChangeEvent, Position, Share};
use crate::config::ApplyConfig;
use crate::error::{Error, Result};
use crate::schema::{TableName, TableSchema};
use crate::source::{ChangeStream, StreamItem};
use crate::target::{Applier, Batch};
use crate::telemetry;
use crate::transform::TablePlan;

/// The checkpoint moves over log without changes for us at most this often: each time costs a target transaction.
const IDLE_ADVANCE: Duration = Duration::from_millis(250);

/// … but behind a fence a cutover waits for it to arrive, and every moment of that is downtime.
const FENCED_ADVANCE: Duration = Duration::from_millis(20);

/// How often the source's catalogue is looked at for changes that no row follows.
const LOOK: Duration = Duration::from_secs(5);

/// A batch out of a backlog waits at most this part of the backlog's age for more …
const BACKLOG_SHARE: u32 = 20;
/// … and at most this long: tens of thousands of rows of a busy stream.
const BACKLOG_LINGER: Duration = Duration::from_millis(50);

/// When the loop ends by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Goal {
    /// Never.
    None,
    /// When everything up to this position is durable.
    Position(Position),
}

/// Why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to stop.
    Stopped,
    /// The goal is durable.
    GoalReached,
}

/// How the stream is to be followed.
pub struct Terms<'a> {
    /// When to end.
    pub goal: &'a Goal,
    /// Where the last copy ended; see [`Batch::tolerate_missing`].
    pub copied_until: Option<Position>,
    /// For tables whose ranges were copied at different positions.
    pub settling: &'a Settling<'a>,
    /// The stream's memory, which must hold several batches of whatever size is set: a transaction that fills the budget
    /// before it fills a batch would be waited for without end.
    pub budget: &'a Budget,
}

/// Runs until the goal is reached or `stop` is cancelled.
pub async fn follow<S: ChangeStream, A: Applier>(
    mut stream: S,
    mut applier: A,
    (router, shapes): (&mut Router, &mut Shapes),
    terms: &Terms<'_>,
    vitals: &Vitals,
    stop: &CancellationToken,
) -> Result<Ended> {
    let Terms { goal, budget, settling, .. } = terms;
    let mut copied_until = terms.copied_until.clone();
    let mut orders = vitals.steering().watch();
    let mut config = orders.borrow_and_update().apply.clone();
    let mut batcher = Batcher::new(config.batch_rows, config.batch_bytes.0 as usize);
    // A pause begins where a batch ends: a target transaction that is open is not left open for an hour.
    let paused = |batcher: &Batcher| vitals.steering().apply_paused() && !batcher.is_open();
    let mut deadline: Option<Instant> = None;
    // How old the newest commit was when the source sent it.
    let mut age = Duration::ZERO;
    // The newest position up to which the source has nothing for us, and when the checkpoint was last moved for one.
    let mut idle: Option<Position> = None;
    let mut advanced = Instant::now();
    let mut every = IDLE_ADVANCE;
    // A table was altered in a way that cannot be followed.
    let mut refused: Option<Error> = None;
    let mut look_at = Instant::now();
    vitals.durable(&applier.checkpoint(), None);

    let ended = loop {
        if reached(goal, Some(applier.checkpoint().get())) {
            break Ended::GoalReached;
        }
        let changes = shapes.catch_up(applier.checkpoint().get()).await?;
        if !changes.is_empty() && batcher.is_idle() {
            applier.alter(&changes).await?;
        } else {
            // In their order among what waits already.
            changes.into_iter().for_each(|change| batcher.push(ChangeEvent::Alter(change)));
        }
        // Nothing is waited for once all that the goal asks for is here.
        let hurry = reached(goal, batcher.complete_to()) || reached(goal, idle.as_ref());
        let soon = |deadline: Instant| if hurry { Instant::now() } else { deadline };
        let rest = paused(&batcher);
        let ready = deadline.filter(|_| batcher.has_complete() && !rest).map(soon);
        let advance_at = idle.as_ref().filter(|_| batcher.is_idle()).map(|_| soon(advanced + every));
        tokio::select! {
            biased;
            () = stop.cancelled() => break Ended::Stopped,
            _ = orders.changed() => {
                config = orders.borrow_and_update().apply.clone();
                budget.grow(budget_for(&config));
                batcher.set_limits(config.batch_rows, config.batch_bytes.0 as usize);
            }
            () = at(ready) => {}
            () = at(Some(look_at)) => {
                shapes.look().await?;
                look_at = Instant::now() + LOOK;
                continue;
            }
            () = at(advance_at) => {
                let to = idle.take().expect("advance_at is set only while a position waits");
                if to.partial_cmp(applier.checkpoint().get()) == Some(std::cmp::Ordering::Greater) {
                    let durable = applier.advance(&to).await?;
                    stream.confirm(&durable);
                    vitals.durable(&durable, None);
                }
                advanced = Instant::now();
                continue;
            }
            item = stream.next(), if !(rest && batcher.is_full()) => {
                match item? {
                    StreamItem::Idle(position) => idle = Some(position),
                    StreamItem::Events(chunk) => {
                        idle = None;
                        age = chunk.age;
                        for event in chunk.events {
                            if let Err(error) = learn(router, shapes, &event, &mut batcher).await {
                                refused = Some(error);
                                break;
                            }
                            let event = match router.settle(event, settling, &mut copied_until).await? {
                                Settled::AsItIs(event) => event,
                                Settled::Into(events) => {
                                    for event in events {
                                        router.route(event)?.into_iter().for_each(|event| batcher.push(event));
                                    }
                                    continue;
                                }
                            };
                            if let Some(event) = router.route(event)? {
                                batcher.push(event);
                            }
                        }
                        batcher.hold(chunk.share);
                        if batcher.has_complete() && deadline.is_none() {
                            deadline = Some(Instant::now() + linger(&config, age));
                        }
                    }
                }
                if !batcher.is_full() && refused.is_none() {
                    continue;
                }
            }
        }
        while !paused(&batcher)
            && let Some((mut batch, shares)) = batcher.take()
        {
            batch.tolerate_missing =
                copied_until.as_ref().is_some_and(|until| !applier.checkpoint().get().reaches(until));
            let fenced = apply(&mut applier, &stream, batch, shares, vitals).await?;
            every = if fenced { FENCED_ADVANCE } else { IDLE_ADVANCE };
            if !batcher.is_full() || refused.is_some() {
                break;
            }
        }
        // What came before it is applied: the target may now be changed by hand to fit what comes next.
        if let Some(error) = refused {
            return Err(error);
        }
        deadline = batcher.has_complete().then(|| Instant::now() + linger(&config, age));
        advanced = Instant::now();
    };
    if ended == Ended::Stopped
        && batcher.has_complete()
        && !paused(&batcher)
        && let Some((mut batch, shares)) = batcher.take()
    {
        batch.tolerate_missing = copied_until.as_ref().is_some_and(|until| !applier.checkpoint().get().reaches(until));
        apply(&mut applier, &stream, batch, shares, vitals).await?;
    }
    stream.close().await?;
    Ok(ended)
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn reached(goal: &Goal, position: Option<&Position>) -> bool {
    match goal {
        Goal::None => false,
        Goal::Position(goal) => position.is_some_and(|position| position.reaches(goal)),
    }
}

/// Changes in flight may hold this many batches' bytes.
const BATCHES_IN_FLIGHT: u64 = 4;

/// The memory a stream is given.
pub fn budget_for(config: &ApplyConfig) -> u64 {
    config.batch_bytes.0.saturating_mul(BATCHES_IN_FLIGHT)
}

/// How long a batch waits for more: as configured, and while there is a backlog longer, as far as it adds little to the
/// lag. A transaction at the target has its price, however many of the source's are in it.
fn linger(config: &ApplyConfig, age: Duration) -> Duration {
    config.linger.0.max((age / BACKLOG_SHARE).min(BACKLOG_LINGER))
}

/// Applies a batch and confirms it; says whether a fence's marker was in it.
async fn apply<S: ChangeStream, A: Applier>(
    applier: &mut A,
    stream: &S,
    batch: Batch,
    shares: Vec<Share>,
    vitals: &Vitals,
) -> Result<bool> {
    let commit_time = match &batch.end {
        crate::target::BatchEnd::Commit { commit_time, .. } => Some(*commit_time),
        crate::target::BatchEnd::Open => None,
    };
    let begun = Instant::now();
    let applied = applier.apply(batch).await?;
    drop(shares);
    telemetry::record_batch(vitals.migration(), begun.elapsed());
    if let Some(durable) = &applied.durable {
        stream.confirm(durable);
        vitals.durable(durable, commit_time);
    }
    vitals.applied(&applied);
    Ok(applied.fence.is_some())
}

/// Asks how the rows of a description are written that was not met before, and notes what has to happen first.
pub async fn learn(router: &mut Router, shapes: &mut Shapes, event: &ChangeEvent, batcher: &mut Batcher) -> Result<()> {
    while let Some(table) = router.unknown(event) {
        let at = router.begin.as_ref().map(|begin| &begin.commit_start);
        let learned = shapes.learn(&table, at).await?;
        if let Some(change) = learned.change {
            batcher.push(ChangeEvent::Alter(change));
        }
        router.learned.insert(table.name.clone(), (table, learned.plan));
    }
    Ok(())
}

/// What a change of a table comes to whose ranges were copied at different positions.
#[derive(Debug)]
enum Settled {
    AsItIs(ChangeEvent),
    Into(Vec<ChangeEvent>),
}

/// Sends each event to its table's plan, and leaves out what a table's copy already holds.
#[derive(Debug)]
pub struct Router {
    /// Where each table's copy was taken, by the source's id: transactions that committed before it are in it. Of a table
    /// in `mixed`, the oldest. Of a table whose worker is beyond the stream's beginning, where that is.
    copied_at: HashMap<u32, Position>,
    /// Tables whose ranges were copied at different positions.
    mixed: HashMap<u32, Mixed>,
    /// What the tables are called at the target, by the source's id.
    targets: HashMap<u32, TableName>,
    /// The description that the stream gave last of each table, and how its rows are written.
    learned: HashMap<TableName, (Arc<TableSchema>, Arc<TablePlan>)>,
    /// The transaction under way.
    begin: Option<Begin>,
    /// The table of the last row, and what happens to it: rows come in runs, and this spares a look-up for each.
    last: Option<(Arc<TableSchema>, Option<Arc<TablePlan>>)>,
}

impl Router {
    /// A router for tables that were copied at these positions.
    pub fn new(copied_at: HashMap<u32, Position>, mixed: HashMap<u32, Mixed>) -> Self {
        Router { copied_at, mixed, targets: HashMap::new(), learned: HashMap::new(), begin: None, last: None }
    }

    /// Knows what tables are called at the target whose changes it has not met yet.
    pub fn naming(self, targets: HashMap<u32, TableName>) -> Self {
        Router { targets, ..self }
    }

    /// The table of the event whose description was not met yet, if the event is for the target.
    fn unknown(&mut self, event: &ChangeEvent) -> Option<Arc<TableSchema>> {
        match event {
            ChangeEvent::Row(change) => self.is_unknown(&change.table).then(|| Arc::clone(&change.table)),
            ChangeEvent::Truncate(truncate) => truncate.tables.iter().find(|table| self.is_unknown(table)).cloned(),
            _ => None,
        }
    }

    fn is_unknown(&self, table: &Arc<TableSchema>) -> bool {
        if matches!(&self.last, Some((last, _)) if Arc::ptr_eq(last, table)) {
            return false;
        }
        !self.holds(table) && !matches!(self.learned.get(&table.name), Some((known, _)) if Arc::ptr_eq(known, table))
    }

    /// What a change comes to that is for the target. Only for tables in `mixed`, up to `until`, is it not as it is.
    async fn settle(
        &self,
        event: ChangeEvent,
        settling: &Settling<'_>,
        until: &mut Option<Position>,
    ) -> Result<Settled> {
        if self.mixed.is_empty() {
            return Ok(Settled::AsItIs(event));
        }
        let Some(begin) = &self.begin else { return Ok(Settled::AsItIs(event)) };
        let t = &begin.commit_start;
        let is_mixed = |table: &TableSchema, until: &Option<Position>| {
            let mixed = self.mixed.get(&table.id).filter(|_| !self.holds(table));
            mixed.filter(|mixed| {
                until.as_ref().is_some_and(|until| t.is_in(until)) || mixed.map.newest().is_some_and(|n| t.is_in(&n))
            })
        };
        match event {
            ChangeEvent::Row(change) => match is_mixed(&change.table, until) {
                Some(mixed) => {
                    let comes_to = settling.settle(mixed, change, (t, begin.xid), until).await?;
                    Ok(Settled::Into(comes_to.into_iter().map(ChangeEvent::Row).collect()))
                }
                None => Ok(Settled::AsItIs(ChangeEvent::Row(change))),
            },
            ChangeEvent::Truncate(mut truncate) => {
                for table in &truncate.tables {
                    let spared = is_mixed(table, until).and_then(|mixed| mixed.map.truncated(&mixed.column, t));
                    let plan = self.learned.get(&table.name).map(|(_, plan)| &plan.shaped.name);
                    if let (Some(condition), Some(target)) = (spared, plan) {
                        truncate.conditions.push((target.clone(), condition));
                    }
                }
                Ok(Settled::AsItIs(ChangeEvent::Truncate(truncate)))
            }
            other => Ok(Settled::AsItIs(other)),
        }
    }

    /// Whether the table's copy has the transaction under way.
    fn holds(&self, table: &TableSchema) -> bool {
        match (&self.begin, self.copied_at.get(&table.id)) {
            (Some(begin), Some(copied_at)) => begin.is_in(copied_at),
            _ => false,
        }
    }

    /// Brings an event into the target's shape; `None` if it is not for the target.
    pub fn route(&mut self, event: ChangeEvent) -> Result<Option<ChangeEvent>> {
        Ok(match event {
            ChangeEvent::Row(change) => match self.plan_of(&change.table) {
                Some(plan) => Some(ChangeEvent::Row(plan.apply(change)?)),
                None => None,
            },
            ChangeEvent::Begin(begin) => {
                self.begin = Some(begin.clone());
                self.last = None;
                Some(ChangeEvent::Begin(begin))
            }
            ChangeEvent::Truncate(mut truncate) => {
                for table in std::mem::take(&mut truncate.tables) {
                    match self.plan_of(&table) {
                        Some(plan) => truncate.tables.push(Arc::clone(&plan.shaped)),
                        None => truncate.elsewhere.extend(self.targets.get(&table.id).cloned()),
                    }
                }
                (!truncate.tables.is_empty()).then_some(ChangeEvent::Truncate(truncate))
            }
            // What it means is found out when the first row of it is for the target.
            ChangeEvent::Schema(_) => None,
            other => Some(other),
        })
    }

    /// The plan of a table for the transaction under way; `None` if the change is not for the target.
    fn plan_of(&mut self, table: &Arc<TableSchema>) -> Option<&Arc<TablePlan>> {
        let known = matches!(&self.last, Some((last, _)) if Arc::ptr_eq(last, table));
        if !known {
            let plan = if self.holds(table) { None } else { self.learned.get(&table.name) };
            self.last = Some((Arc::clone(table), plan.map(|(_, plan)| Arc::clone(plan))));
        }
        self.last.as_ref().and_then(|(_, plan)| plan.as_ref())
    }
}
