//! The fallback: a batch in source order, row by row, to find the row that is to blame, or to find that none is.
//!
//! In: a batch whose sets did not go through, with the transaction back at its savepoint. Out: the same transaction with
//! everything applied; or the error that names table, key and position of the row ([`Kind::BadRow`],
//! [`Kind::Divergence`]); with `on_error = "dead-letter"` such a row goes to `cutwater.dead_letter` instead.
//!
//! What is valid at the source must pass (TRAPS 13): constraints are deferred, and a row that meets another one in a
//! unique index is tried again at the end of its source transaction, together with the later changes of the same key.
//! What a deferred constraint refuses at that end is found by [`super::deferred`].

use std::collections::HashSet;

use bytes::Bytes;

use super::apply::PgApplier;
use super::deferred::Puzzle;
use super::encode::{Form, Raw};
use super::pipeline::{Failure, Pipeline};
use super::trouble::{Stopped, is_about_a_row};
use crate::change::{ChangeEvent, CommitStart, Row, RowChange};
use crate::config::OnError;
use crate::error::{Context, Error, Kind, Result};
use crate::schema::TableName;
use crate::target::BatchEnd;
use crate::target::plan::key_fields;

/// Changes that are tried together under one savepoint before they are tried one by one.
const RUN: usize = 64;

/// What a replay keeps from one part of a large source transaction to the next.
#[derive(Default)]
pub(super) struct Carried {
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
pub(super) struct Replayed {
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
pub(super) enum Tried {
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
    pub(super) fn pass_over(&mut self, events: &[ChangeEvent]) {
        let last = events.iter().rev().find_map(|event| match event {
            ChangeEvent::Begin(begin) => Some(begin.commit_start.clone()),
            _ => None,
        });
        self.position = last.or(self.position.take());
    }

    /// Whether changes wait for the end of their transaction.
    pub(super) fn waits(&self) -> bool {
        !self.postponed.is_empty()
    }

    fn at(&self) -> String {
        self.position.as_ref().map_or_else(|| "an unknown position".into(), CommitStart::to_string)
    }
}

impl PgApplier {
    /// Replays a batch, or a part of one.
    pub(super) async fn replay(
        &mut self,
        events: &[ChangeEvent],
        tolerate_missing: bool,
        end: &BatchEnd,
        carried: &mut Carried,
    ) -> Result<Replayed> {
        let mut done = Replayed::default();
        self.run_sql("ROLLBACK TO SAVEPOINT cutwater_batch; SET CONSTRAINTS ALL DEFERRED").await?;
        let mut begun = self.begun(events, carried, done).await?;
        let mut rest = events;
        while let Some((event, after)) = rest.split_first() {
            match event {
                ChangeEvent::Row(_) => {
                    let length = rest.iter().take(RUN).take_while(|e| matches!(e, ChangeEvent::Row(_))).count();
                    let run: Vec<&RowChange> = rest[..length]
                        .iter()
                        .filter_map(|event| match event {
                            ChangeEvent::Row(change) => Some(change),
                            _ => None,
                        })
                        .collect();
                    self.run(&run, tolerate_missing, carried, &mut done).await?;
                    rest = &rest[length..];
                    continue;
                }
                ChangeEvent::Begin(begin) => {
                    carried.position = Some(begin.commit_start.clone());
                    begun = self.begun(rest, carried, done).await?;
                }
                ChangeEvent::Truncate(truncate) => {
                    let sql = self.truncate_sql(truncate).await?;
                    // What waits for its transaction's end would come back after the table was emptied.
                    carried.postponed.retain(|p| !truncate.tables.iter().any(|t| t.name == p.change.table.name));
                    self.client.batch_execute(&sql).await.with_context(|| format!("{sql} at {}", carried.at()))?;
                }
                ChangeEvent::Commit(_) => {
                    let of = &begun.events[..begun.events.len() - rest.len()];
                    self.end_of_transaction((of, &begun), tolerate_missing, carried, &mut done).await?;
                    begun = self.begun(after, carried, done).await?;
                }
                ChangeEvent::Schema(_) | ChangeEvent::Alter(_) | ChangeEvent::Message(_) => {}
            }
            rest = after;
        }
        if matches!(end, BatchEnd::Commit { .. }) {
            self.end_of_transaction((begun.events, &begun), tolerate_missing, carried, &mut done).await?;
        }
        Ok(done)
    }

    /// Where a source transaction, or a part of one, begins: what is needed to take it back alone.
    async fn begun<'a>(&self, events: &'a [ChangeEvent], carried: &Carried, done: Replayed) -> Result<Begun<'a>> {
        if self.on_error == OnError::DeadLetter {
            self.run_sql("SAVEPOINT cutwater_source").await?;
        }
        let postponed = carried.postponed.iter().map(|postponed| postponed.change.clone()).collect();
        Ok(Begun { events, postponed, done })
    }

    /// Tries a run of changes at once, and one by one if that fails.
    async fn run(
        &mut self,
        run: &[&RowChange],
        tolerate_missing: bool,
        carried: &mut Carried,
        done: &mut Replayed,
    ) -> Result<()> {
        if carried.postponed.is_empty() && run.len() > 1 && matches!(self.attempt(run).await?, Tried::Applied) {
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
            match self.attempt(&[change]).await? {
                Tried::Refused { error, for_now: true } => {
                    blocked.add(change);
                    carried.postponed.push(Postponed { change: change.clone(), error: Some(error) });
                }
                tried => self.judge(change, tried, tolerate_missing, carried, done).await?,
            }
        }
        Ok(())
    }

    /// Carries changes out under a savepoint; anything but [`Tried::Applied`] has left nothing behind.
    pub(super) async fn attempt(&mut self, changes: &[&RowChange]) -> Result<Tried> {
        let mut pipeline = Pipeline::new(&self.client);
        let sent = async {
            pipeline.text("SAVEPOINT cutwater_row".into()).await.map_err(Stopped::Failure)?;
            for change in changes {
                self.send_change(&mut pipeline, change).await?;
            }
            Ok::<_, Stopped>(())
        }
        .await;
        let failure = match (pipeline.finish().await, sent) {
            (Ok(()), Ok(())) => None,
            (Err(failure), _) | (Ok(()), Err(Stopped::Failure(failure))) => Some(failure),
            (Ok(()), Err(Stopped::Error(error))) => return Err(error),
        };
        let tried = match failure {
            None => {
                self.run_sql("RELEASE SAVEPOINT cutwater_row").await?;
                return Ok(Tried::Applied);
            }
            Some(Failure::Count { affected, .. }) => Tried::Missing(affected),
            Some(Failure::Sql(error)) if is_about_a_row(&error) => Tried::Refused {
                // Unique and exclusion constraints: the other row may be gone when the transaction ends.
                for_now: error.code().is_some_and(|code| matches!(code.code(), "23505" | "23P01")),
                error: Error::from(error),
            },
            Some(Failure::Sql(error)) => return Err(Error::from(error).context("replaying a batch")),
        };
        self.run_sql("ROLLBACK TO SAVEPOINT cutwater_row; RELEASE SAVEPOINT cutwater_row").await?;
        Ok(tried)
    }

    /// Tries what was postponed until nothing moves any more, then checks what is deferred. `of`: what of the transaction
    /// is in this batch.
    async fn end_of_transaction(
        &mut self,
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
                let tried = if blocked.touches(&postponed.change) {
                    None
                } else {
                    Some(self.attempt(&[&postponed.change]).await?)
                };
                match tried {
                    None | Some(Tried::Refused { for_now: true, .. }) => {
                        if let Some(Tried::Refused { error, .. }) = tried {
                            postponed.error = Some(error);
                        }
                        blocked.add(&postponed.change);
                        carried.postponed.push(postponed);
                    }
                    Some(tried) => self.judge(&postponed.change, tried, tolerate_missing, carried, done).await?,
                }
            }
            if carried.postponed.len() == before {
                // Nothing moves any more: the first is to blame, the others may pass without it.
                let first = carried.postponed.remove(0);
                let error = first.error.unwrap_or_else(|| Error::new(Kind::Internal, "a change waits for nothing"));
                let tried = Tried::Refused { error, for_now: false };
                self.judge(&first.change, tried, tolerate_missing, carried, done).await?;
            }
        }
        let checked = self.client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await;
        if let Err(error) = checked {
            if !is_about_a_row(&error) {
                return Err(Error::from(error).context("replaying a batch"));
            }
            if self.on_error == OnError::DeadLetter
                && self.without_the_refused(of, begun, tolerate_missing, carried, done).await?
            {
                return Ok(());
            }
            let table = error.as_db_error().and_then(|db| Some(format!("{}.{}", db.schema()?, db.table()?)));
            let error = Error::from(error);
            return Err(Error::new(
                Kind::BadRow,
                format!(
                    "the transaction at {} leaves {} in a state that the target refuses: {}",
                    carried.at(),
                    table.unwrap_or_else(|| "a table".into()),
                    error.why()
                ),
            )
            .fix("drop or correct the deferred constraint at the target; it has no counterpart at the source"));
        }
        if self.on_error == OnError::DeadLetter {
            self.run_sql("RELEASE SAVEPOINT cutwater_source").await?;
        }
        self.run_sql("SET CONSTRAINTS ALL DEFERRED").await
    }

    /// Takes a transaction back that leaves a deferred constraint violated, and applies what of it can stay.
    async fn without_the_refused(
        &mut self,
        of: &[ChangeEvent],
        begun: &Begun<'_>,
        tolerate_missing: bool,
        carried: &Carried,
        done: &mut Replayed,
    ) -> Result<bool> {
        if of.iter().any(|event| matches!(event, ChangeEvent::Truncate(_))) {
            return Ok(false);
        }
        self.run_sql("ROLLBACK TO SAVEPOINT cutwater_source").await?;
        *done = begun.done;
        let sent = of.iter().filter_map(|event| match event {
            ChangeEvent::Row(change) => Some(change),
            _ => None,
        });
        let changes = begun.postponed.iter().chain(sent).collect();
        let applied = self.put_together(&Puzzle { changes, tolerate_missing, carried }, done).await?;
        self.run_sql("RELEASE SAVEPOINT cutwater_source").await?;
        Ok(applied)
    }

    /// Decides about a change that was tried: fine, an error, or a dead letter.
    pub(super) async fn judge(
        &mut self,
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
        let key = self.describe_key(change).await;
        let (table, op, at) = (&change.table.name, change.op.label(), carried.at());
        if self.on_error == OnError::Stop {
            return Err(match kind {
                Kind::Divergence => Error::new(kind, format!("{op} of {table} ({key}) at {at}: {why}"))
                    .fix("cutwater verify --repair writes the source's version of what differs; or set [apply] on_error = \"dead-letter\" to set such rows aside"),
                _ => Error::new(kind, format!("{op} of {table} ({key}) at {at} is refused by the target: {why}"))
                    .fix(missing_label(&why).unwrap_or_else(||"correct the row at the source or the constraint at the target; or set [apply] on_error = \"dead-letter\" to set such rows aside".into())),
            });
        }
        tracing::warn!(%table, op, key, at, why, "a row goes to the dead letters");
        let sql = "INSERT INTO cutwater.dead_letter (migration, position, tbl, op, key, old_row, new_row, error)
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let bytes = |row: &Option<Row>| row.as_ref().map(|row| row.as_bytes().to_vec());
        let (old, new) = (bytes(&change.old), bytes(&change.new));
        self.client
            .execute(sql, &[&self.lease.migration, &at, &table.to_string(), &op, &key, &old, &new, &why])
            .await
            .context("writing a dead letter")?;
        done.dead_letters += 1;
        if kind == Kind::Divergence {
            done.divergences += 1;
        }
        Ok(())
    }

    pub(super) async fn run_sql(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.context("replaying a batch")
    }

    /// `id = 5, part = 2`: the key as the target prints it. Without a key, the first columns.
    async fn describe_key(&mut self, change: &RowChange) -> String {
        const COLUMNS: usize = 4;
        let Some(row) = change.old.as_ref().or(change.new.as_ref()) else { return "no row".into() };
        let columns: Vec<usize> = match &change.table.key {
            Some(key) => key.columns.clone(),
            None => (0..change.table.columns.len().min(COLUMNS)).collect(),
        };
        let form = Form::of(row).unwrap_or(Form::Text);
        let Ok(entry) = self.tables.entry(&self.client, &change.table).await else { return "unknown".into() };
        let mut words = Vec::new();
        for column in columns {
            let attribute = &entry.target.attributes[entry.attributes[column]];
            let value = match row.get(column).and_then(|datum| datum.bytes()) {
                None => "NULL".into(),
                Some(text) if form == Form::Text => String::from_utf8_lossy(text).into_owned(),
                Some(binary) => self.print(&attribute.type_sql(), binary).await,
            };
            words.push(format!("{} = {value}", attribute.name));
        }
        words.join(", ")
    }

    /// A binary value in text, by the target's own output function.
    async fn print(&self, ty: &str, binary: &[u8]) -> String {
        let hex = || binary.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        if self.client.batch_execute("SAVEPOINT cutwater_print").await.is_err() {
            return hex();
        }
        let value = Raw(Some(Bytes::copy_from_slice(binary)));
        let printed = self.client.query_one(&format!("SELECT ($1::{ty})::pg_catalog.text"), &[&value]).await;
        let after = if printed.is_ok() { "RELEASE" } else { "ROLLBACK TO" };
        let ended = self.client.batch_execute(&format!("{after} SAVEPOINT cutwater_print")).await;
        match (printed, ended) {
            (Ok(row), Ok(())) => row.try_get::<_, String>(0).unwrap_or_else(|_| hex()),
            _ => hex(),
        }
    }
}

/// What to do about a label that an enum has at the source and not here: ALTER TYPE is in no stream.
fn missing_label(why: &str) -> Option<String> {
    let (ty, label) = why.split_once("invalid input value for enum ")?.1.split_once(": \"")?;
    let label = label.strip_suffix('"')?.replace('\'', "''");
    Some(format!(
        "ALTER TYPE {ty} ADD VALUE '{label}';  at the target (with BEFORE or AFTER, where it stands at the source), then \
         run again"
    ))
}

/// Rows that wait for the end of their transaction: what comes later for them has to wait too.
#[derive(Default)]
pub(super) struct Blocked(HashSet<(TableName, Vec<u8>)>);

impl Blocked {
    fn add(&mut self, change: &RowChange) {
        self.0.extend(Self::keys(change));
    }

    fn touches(&self, change: &RowChange) -> bool {
        !self.0.is_empty() && Self::keys(change).any(|key| self.0.contains(&key))
    }

    /// The keys before and after. A table without key waits as a whole: its order is all that identifies its rows.
    pub(super) fn keys(change: &RowChange) -> impl Iterator<Item = (TableName, Vec<u8>)> {
        let name = &change.table.name;
        [&change.old, &change.new].into_iter().flatten().map(move |row| {
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
