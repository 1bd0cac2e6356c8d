//! The fallback: a batch in source order, row by row, to find the row that is to blame, or to find that none is.
//!
//! In: a batch whose sets did not go through, with the target's transaction back where the batch began ([`RowByRow`] is
//! what each engine brings along). Out: the same transaction with everything applied; or the error that names table, key
//! and position of the row ([`Kind::BadRow`], [`Kind::Divergence`]); with `on_error = "dead-letter"` such a row goes to the
//! dead letters instead.
//!
//! What is valid at the source must pass (TRAPS 13): a row that meets another one in a unique index is tried again at the
//! end of its source transaction, together with the later changes of the same key.

use std::collections::HashSet;
use std::future::Future;

use crate::change::{ChangeEvent, CommitStart, Row, RowChange, Truncate};
use crate::config::OnError;
use crate::error::{Error, Kind, Result};
use crate::schema::TableName;
use crate::target::BatchEnd;
use crate::target::plan::key_fields;

/// Changes that are tried together under one savepoint before they are tried one by one.
const RUN: usize = 64;

/// An applier that can carry changes out one by one, in its open transaction.
pub(in crate::target) trait RowByRow: Send {
    /// What is done about a row that cannot be applied.
    fn on_error(&self) -> OnError;

    /// Takes back what the batch did so far.
    fn start_again(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Carries changes out together; anything but [`Tried::Applied`] has left nothing behind.
    fn attempt(&mut self, changes: &[&RowChange]) -> impl Future<Output = Result<Tried>> + Send;

    /// Empties tables.
    fn truncate(&mut self, truncate: &Truncate, at: &str) -> impl Future<Output = Result<()>> + Send;

    /// A source transaction, or a part of one, begins.
    fn begins(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// It has ended, and nothing of it waits any more: what the target looks at only now can refuse it.
    fn ends(&mut self, of: &Ended<'_>, done: &mut Replayed) -> impl Future<Output = Result<()>> + Send;

    /// `id = 5, part = 2`: the key for people. Without a key, the first columns.
    fn describe_key(&mut self, change: &RowChange) -> impl Future<Output = String> + Send;

    /// What to do about a refusal, where more is known than that it was one.
    fn advice(&self, why: &str) -> Option<String>;

    /// Writes a dead letter.
    fn set_aside(&mut self, letter: &Letter<'_>) -> impl Future<Output = Result<()>> + Send;
}

/// A source transaction, or the part of one that is in a batch, that was carried out row by row.
pub(in crate::target) struct Ended<'a> {
    /// Its events, as far as they are in this batch.
    pub of: &'a [ChangeEvent],
    /// Changes of earlier parts that had waited for it.
    pub postponed: &'a [RowChange],
    /// What was done before it.
    pub before: Replayed,
    pub tolerate_missing: bool,
    pub carried: &'a Carried,
}

/// A change that is set aside.
pub(in crate::target) struct Letter<'a> {
    pub change: &'a RowChange,
    pub key: &'a str,
    pub at: &'a str,
    pub why: &'a str,
}

/// What a replay keeps from one part of a large source transaction to the next.
#[derive(Default)]
pub(in crate::target) struct Carried {
    /// Where the source transaction commits.
    position: Option<CommitStart>,
    /// Changes that are tried again at its end.
    postponed: Vec<Postponed>,
}

struct Postponed {
    change: RowChange,
    /// Why it did not go through; `None` if it only waits for an earlier change of the same row.
    error: Option<Error>,
}

/// What a replay did.
#[derive(Debug, Default, Clone, Copy)]
pub(in crate::target) struct Replayed {
    pub divergences: u64,
    pub dead_letters: u64,
}

/// Where a source transaction, or a part of one, begins.
struct Begun<'a> {
    /// Its events, and those after it.
    events: &'a [ChangeEvent],
    /// What waited already.
    postponed: Vec<RowChange>,
    /// What was done before.
    done: Replayed,
}

/// What came of one change.
pub(in crate::target) enum Tried {
    Applied,
    /// It found another number of rows than one.
    Missing(u64),
    /// The target refuses it.
    Refused {
        error: Error,
        /// Because of another row: it may pass later.
        for_now: bool,
    },
}

impl Carried {
    /// Takes note of a batch that needed no replay.
    pub fn pass_over(&mut self, events: &[ChangeEvent]) {
        let last = events.iter().rev().find_map(|event| match event {
            ChangeEvent::Begin(begin) => Some(begin.commit_start.clone()),
            _ => None,
        });
        self.position = last.or(self.position.take());
    }

    /// Whether changes wait for the end of their transaction.
    pub fn waits(&self) -> bool {
        !self.postponed.is_empty()
    }

    /// Where the source transaction commits, for people.
    pub fn at(&self) -> String {
        self.position.as_ref().map_or_else(|| "an unknown position".into(), CommitStart::to_string)
    }
}

/// Replays a batch, or a part of one.
pub(in crate::target) async fn replay<R: RowByRow>(
    rows: &mut R,
    events: &[ChangeEvent],
    tolerate_missing: bool,
    end: &BatchEnd,
    carried: &mut Carried,
) -> Result<Replayed> {
    let mut done = Replayed::default();
    rows.start_again().await?;
    let mut begun = begin(rows, events, carried, done).await?;
    let mut rest = events;
    while let Some((event, after)) = rest.split_first() {
        match event {
            ChangeEvent::Row(_) => {
                let length = rest.iter().take(RUN).take_while(|e| matches!(e, ChangeEvent::Row(_))).count();
                let changes: Vec<&RowChange> = rest[..length]
                    .iter()
                    .filter_map(|event| match event {
                        ChangeEvent::Row(change) => Some(change),
                        _ => None,
                    })
                    .collect();
                run(rows, &changes, tolerate_missing, carried, &mut done).await?;
                rest = &rest[length..];
                continue;
            }
            ChangeEvent::Begin(event) => {
                carried.position = Some(event.commit_start.clone());
                begun = begin(rows, rest, carried, done).await?;
            }
            ChangeEvent::Truncate(truncate) => {
                // What waits for its transaction's end would come back after the table was emptied.
                carried.postponed.retain(|p| !truncate.tables.iter().any(|t| t.name == p.change.table.name));
                rows.truncate(truncate, &carried.at()).await?;
            }
            ChangeEvent::Commit(_) => {
                let of = &begun.events[..begun.events.len() - rest.len()];
                end_of_transaction(rows, (of, &begun), tolerate_missing, carried, &mut done).await?;
                begun = begin(rows, after, carried, done).await?;
            }
            ChangeEvent::Schema(_) | ChangeEvent::Alter(_) | ChangeEvent::Message(_) => {}
        }
        rest = after;
    }
    if matches!(end, BatchEnd::Commit { .. }) {
        end_of_transaction(rows, (begun.events, &begun), tolerate_missing, carried, &mut done).await?;
    }
    Ok(done)
}

/// Where a source transaction, or a part of one, begins: what is needed to take it back alone.
async fn begin<'a, R: RowByRow>(
    rows: &mut R,
    events: &'a [ChangeEvent],
    carried: &Carried,
    done: Replayed,
) -> Result<Begun<'a>> {
    rows.begins().await?;
    let postponed = carried.postponed.iter().map(|postponed| postponed.change.clone()).collect();
    Ok(Begun { events, postponed, done })
}

/// Tries a run of changes at once, and one by one if that fails.
async fn run<R: RowByRow>(
    rows: &mut R,
    run: &[&RowChange],
    tolerate_missing: bool,
    carried: &mut Carried,
    done: &mut Replayed,
) -> Result<()> {
    if carried.postponed.is_empty() && run.len() > 1 && matches!(rows.attempt(run).await?, Tried::Applied) {
        return Ok(());
    }
    let mut blocked = Blocked::default();
    carried.postponed.iter().for_each(|postponed| blocked.add(&postponed.change));
    for &change in run {
        if blocked.touches(change) {
            blocked.add(change);
            carried.postponed.push(Postponed { change: change.clone(), error: None });
            continue;
        }
        match rows.attempt(&[change]).await? {
            Tried::Refused { error, for_now: true } => {
                blocked.add(change);
                carried.postponed.push(Postponed { change: change.clone(), error: Some(error) });
            }
            tried => judge(rows, change, tried, tolerate_missing, carried, done).await?,
        }
    }
    Ok(())
}

/// Tries what was postponed until nothing moves any more, then lets the engine look at the whole. `of`: what of the
/// transaction is in this batch.
async fn end_of_transaction<R: RowByRow>(
    rows: &mut R,
    (of, begun): (&[ChangeEvent], &Begun<'_>),
    tolerate_missing: bool,
    carried: &mut Carried,
    done: &mut Replayed,
) -> Result<()> {
    while !carried.postponed.is_empty() {
        let waiting = std::mem::take(&mut carried.postponed);
        let before = waiting.len();
        let mut blocked = Blocked::default();
        for mut postponed in waiting {
            let tried =
                if blocked.touches(&postponed.change) { None } else { Some(rows.attempt(&[&postponed.change]).await?) };
            match tried {
                None | Some(Tried::Refused { for_now: true, .. }) => {
                    if let Some(Tried::Refused { error, .. }) = tried {
                        postponed.error = Some(error);
                    }
                    blocked.add(&postponed.change);
                    carried.postponed.push(postponed);
                }
                Some(tried) => judge(rows, &postponed.change, tried, tolerate_missing, carried, done).await?,
            }
        }
        if carried.postponed.len() == before {
            // Nothing moves any more: the first is to blame, the others may pass without it.
            let first = carried.postponed.remove(0);
            let error = first.error.unwrap_or_else(|| Error::new(Kind::Internal, "a change waits for nothing"));
            let tried = Tried::Refused { error, for_now: false };
            judge(rows, &first.change, tried, tolerate_missing, carried, done).await?;
        }
    }
    let (postponed, before) = (&begun.postponed, begun.done);
    rows.ends(&Ended { of, postponed, before, tolerate_missing, carried }, done).await
}

/// Decides about a change that was tried: fine, an error, or a dead letter.
pub(in crate::target) async fn judge<R: RowByRow>(
    rows: &mut R,
    change: &RowChange,
    tried: Tried,
    tolerate_missing: bool,
    carried: &Carried,
    done: &mut Replayed,
) -> Result<()> {
    let (kind, why) = match tried {
        Tried::Applied => return Ok(()),
        Tried::Missing(0) if tolerate_missing => {
            tracing::debug!(table = %change.table.name, op = change.op.label(), "no row yet, behind the copy");
            return Ok(());
        }
        Tried::Missing(rows) => (Kind::Divergence, format!("it found {rows} rows at the target instead of 1")),
        Tried::Refused { error, .. } => (Kind::BadRow, error.why().to_owned()),
    };
    let key = rows.describe_key(change).await;
    let (table, op, at) = (&change.table.name, change.op.label(), carried.at());
    if rows.on_error() == OnError::Stop {
        return Err(match kind {
            Kind::Divergence => Error::new(kind, format!("{op} of {table} ({key}) at {at}: {why}"))
                .fix("cutwater verify --repair writes the source's version of what differs; or set [apply] on_error = \"dead-letter\" to set such rows aside"),
            _ => Error::new(kind, format!("{op} of {table} ({key}) at {at} is refused by the target: {why}"))
                .fix(rows.advice(&why).unwrap_or_else(||"correct the row at the source or the constraint at the target; or set [apply] on_error = \"dead-letter\" to set such rows aside".into())),
        });
    }
    tracing::warn!(%table, op, key, at, why, "a row goes to the dead letters");
    rows.set_aside(&Letter { change, key: &key, at: &at, why: &why }).await?;
    done.dead_letters += 1;
    if kind == Kind::Divergence {
        done.divergences += 1;
    }
    Ok(())
}

/// Rows that wait for the end of their transaction: what comes later for them has to wait too.
#[derive(Default)]
pub(in crate::target) struct Blocked(HashSet<(TableName, Vec<u8>)>);

impl Blocked {
    fn add(&mut self, change: &RowChange) {
        self.0.extend(Self::keys(change));
    }

    fn touches(&self, change: &RowChange) -> bool {
        !self.0.is_empty() && Self::keys(change).any(|key| self.0.contains(&key))
    }

    /// The keys before and after. A table without key waits as a whole: its order is all that identifies its rows.
    pub fn keys(change: &RowChange) -> impl Iterator<Item = (TableName, Vec<u8>)> {
        let name = &change.table.name;
        [&change.old, &change.new].into_iter().flatten().map(move |row: &Row| {
            let mut bytes = Vec::new();
            for datum in change.table.key.iter().flat_map(|key| key_fields(&key.columns, row)) {
                let value = datum.bytes().unwrap_or_default();
                bytes.extend_from_slice(&(value.len() as u32).to_be_bytes());
                bytes.extend_from_slice(value);
            }
            (name.clone(), bytes)
        })
    }
}
