//! Applies batches: the set-based path.
//!
//! In: batches of whole source transactions, or parts of a large one. Out: the position that is durable. One target
//! transaction is
//!
//! ```text
//! START TRANSACTION; UPDATE cutwater.checkpoint … WHERE epoch = mine AND position = previous  -- 0 rows: fenced (TRAPS 1)
//! SAVEPOINT; truncates, then per table deletes → updates → inserts                            -- counted, see below
//! INSERT INTO cutwater.changed_key …                                                          -- if a verify asked
//! UPDATE cutwater.cutover …                                                                   -- if a fence's marker was in it
//! COMMIT                                                                                      -- only then is anything durable
//! ```
//!
//! sent as packets of several statements, except COMMIT, which waits until every answer was right. A statement that fails
//! because of a row, affects another number of rows than the plan says, or warns, sends the batch back to the savepoint and
//! to [`crate::target::batch::replay`], in the same transaction. Trouble that is not about a row ends the applier: it is
//! opened again and reads the checkpoint, under a lock that waits for an unknown COMMIT of the predecessor (TRAPS 2).
//!
//! A TRUNCATE of the source is a DELETE of all rows here: MySQL's own would commit the transaction in the middle, with the
//! checkpoint moved on and the rest of the batch to come.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Mutex;

use super::cascade::Words;
use super::session::{Expected, Failure, Script, begin, commit, open};
use super::sql::{Statement, Writer, matches};
use super::tables::{Entry, Tables};
use super::{cascade, cutover};
use crate::change::{ChangeEvent, Durable, Op, Position, Row, RowChange, Truncate};
use crate::config::{ApplyConfig, OnError};
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{MyConnInfo, MyText, Session};
use crate::schema::{ShapeChange, TableName};
use crate::target::batch::fence::Watch;
use crate::target::batch::replay::replay;
use crate::target::batch::tracking::{self, Tracker};
use crate::target::batch::{OpenTransaction, count, has_nothing};
use crate::target::parallel::Worker;
use crate::target::plan::{
    Image, NetEffect, Unfoldable, Update, UpdateGroup, Work, complete_from_old, plan_keeping, same_key,
    unchanged_columns,
};
use crate::target::state::{Lease, fenced};
use crate::target::{Applied, Applier, Batch, BatchEnd, SIDE};

/// From this many rows on, LOAD DATA beats INSERT in spite of its extra round trips.
const LOAD_FROM: usize = 256;

/// The applier of a MySQL or MariaDB target.
pub struct MyApplier {
    /// Locked by nobody but [`Worker::stay`], between two batches.
    pub(super) session: Mutex<Session>,
    pub(super) lease: Lease,
    /// Which row of the checkpoint is ours: 0 is the stream's, which has others beside it if it is not alone;
    /// [`SIDE`] is that of tables that catch up.
    worker: i32,
    pub(super) on_error: OnError,
    pub(super) tables: Tables,
    pub(super) writer: Writer,
    /// Whether the server takes files.
    loads: bool,
    checkpoint: Durable<Position>,
    open: Option<OpenTransaction>,
    fence: Watch,
    pub(super) tracker: Tracker,
    /// Set while a batch is being applied and for good once one has failed.
    spent: bool,
}

/// Why a batch could not be applied as sets.
pub(super) enum Trouble {
    /// A statement failed or counted wrong.
    Failure(Failure),
    /// Something else.
    Error(Error),
    /// It contradicts itself.
    Unfoldable,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Trouble::Failure(failure)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Error(error)
    }
}

impl From<Unfoldable> for Trouble {
    fn from(_: Unfoldable) -> Self {
        Trouble::Unfoldable
    }
}

/// How the checkpoint is moved on.
struct Step<'a> {
    from: &'a Position,
    to: &'a Position,
    commit_time: Option<Timestamp>,
    changes: u64,
    transactions: u64,
    divergences: u64,
}

impl<'a> Step<'a> {
    fn of(from: &'a Position, to: &'a Position) -> Step<'a> {
        Step { from, to, commit_time: None, changes: 0, transactions: 0, divergences: 0 }
    }
}

impl MyApplier {
    /// Connects and reads the checkpoint. [`Kind::Fenced`] if the lease is no longer the current one.
    pub(super) async fn open(info: &MyConnInfo, lease: &Lease, worker: i32, config: &ApplyConfig) -> Result<Self> {
        let doing = "opening the applier";
        let mut session = open(info, &lease.migration).await.context(doing)?;
        // FOR UPDATE waits for a predecessor's COMMIT that nobody knows the outcome of.
        let sql = "SELECT epoch, position FROM cutwater.checkpoint WHERE migration = ? AND worker = ? FOR UPDATE";
        let rows = session.rows_with(sql, (&lease.migration, worker)).await.context("reading the checkpoint")?;
        let row: Option<[Option<String>; 2]> = rows.into_iter().next().and_then(|row| row.try_into().ok());
        let Some([Some(epoch), Some(position)]) = row else {
            let why = format!("migration {:?} has no checkpoint to start from", lease.migration);
            return Err(Error::new(Kind::Internal, why));
        };
        if epoch != lease.epoch.to_string() {
            return Err(fenced(lease));
        }
        let carries_out = cascade::must_be_carried_out(&mut session, &lease.migration).await.context(doing)?;
        let mut tables = Tables::new(carries_out);
        if carries_out {
            tables.read(&mut session).await?;
            if config.workers > 1 && worker != SIDE {
                cascade::refuse_workers_apart(&mut session, &lease.migration, &tables.links).await?;
            }
        }
        Ok(MyApplier {
            // Read back from the target, it is durable.
            checkpoint: Durable::committed(position.parse()?),
            fence: cutover::read(&mut session, &lease.migration).await?,
            tracker: Tracker::default(),
            tables,
            writer: Writer::new(&session),
            loads: session.server().is_on("local_infile"),
            session: Mutex::new(session),
            lease: lease.clone(),
            worker,
            on_error: config.on_error,
            open: None,
            spent: false,
        })
    }

    async fn apply_batch(&mut self, batch: &Batch) -> Result<Applied> {
        let mut applied = Applied::default();
        let begins = self.open.is_none();
        let mut open = self.open.take().unwrap_or_default();
        let counted = count(&batch.events, &mut applied);
        open.changes += counted;
        open.transactions += applied.transactions;
        self.fence.notice(&batch.events, &mut open.notes);

        let mut script = Script::new(self.writer.largest());
        let sent = match self.send_all(&mut script, batch, begins, &open).await {
            Err(Trouble::Failure(failure)) => Err(Trouble::Failure(failure)),
            // What was sent before is the reason, if it failed.
            sent => script.flush(self.session.get_mut()).await.map_err(Trouble::from).and(sent),
        };
        let replays = sent.is_err();
        if let Err(trouble) = sent {
            self.must_replay(trouble)?;
            let replayed = replay(self, &batch.events, batch.tolerate_missing, &batch.end, &mut open.replay).await?;
            open.divergences += replayed.divergences;
            applied.divergences = replayed.divergences;
            applied.dead_letters = replayed.dead_letters;
            applied.replayed = true;
        } else {
            open.replay.pass_over(&batch.events);
        }
        // What a transaction was told holds to its end: it has the checkpoint's row.
        let switched = begins && self.told(script.told).await?;
        let keys = if self.tracker.is_on() && (switched || replays) {
            self.track_again(&batch.events).await?
        } else {
            script.tracked
        };
        self.tracker.kept(keys);
        match &batch.end {
            BatchEnd::Open => self.open = Some(open),
            BatchEnd::Commit { position, commit_time } => {
                self.commit(begins, &open, position, *commit_time, &mut applied).await?;
            }
        }
        Ok(applied)
    }

    /// Sends the transaction up to, not including, its end.
    async fn send_all(
        &mut self,
        script: &mut Script,
        batch: &Batch,
        begins: bool,
        open: &OpenTransaction,
    ) -> Result<(), Trouble> {
        if begins {
            let previous = self.checkpoint.get().clone();
            let step = match &batch.end {
                BatchEnd::Commit { position, commit_time } => Step {
                    commit_time: Some(*commit_time),
                    changes: open.changes,
                    transactions: open.transactions,
                    ..Step::of(&previous, position)
                },
                BatchEnd::Open => Step::of(&previous, &previous),
            };
            let (move_on, ask) = (self.move_on(&step), self.ask());
            let session = self.session.get_mut();
            for statement in begin(session).split("; ") {
                script.push(session, statement, Expected::Control).await?;
            }
            script.push(session, move_on, Expected::Checkpoint).await?;
            script.push(session, ask, Expected::Told).await?;
        }
        if has_nothing(batch, open) {
            return Ok(());
        }
        script.push(self.session.get_mut(), "SAVEPOINT cutwater_batch", Expected::Control).await?;
        if open.replay.waits() {
            // Changes of an earlier part wait for the end of the transaction: only a replay knows what they hold up.
            return Err(Trouble::Unfoldable);
        }
        let links = Arc::clone(&self.tables.links);
        let keeps_moves = |table: &TableName| links.are_followed(table);
        for segment in links.segments(&batch.events) {
            self.send_segment(script, segment, &keeps_moves).await?;
        }
        Ok(())
    }

    /// Sends events that may be folded together.
    async fn send_segment(
        &mut self,
        script: &mut Script,
        events: &[ChangeEvent],
        keeps_moves: &(dyn Fn(&TableName) -> bool + Sync),
    ) -> Result<(), Trouble> {
        for stage in plan_keeping(events, keeps_moves)? {
            for truncate in &stage.truncates {
                self.send_truncate(script, truncate).await?;
                for table in &truncate.tables {
                    self.track_whole(script, &table.name, tracking::TRUNCATED).await?;
                }
            }
            for table in &stage.tables {
                if let Work::Folded(effect) = &table.work
                    && keeps_moves(&table.table.name)
                {
                    let entry = self.tables.entry(self.session.get_mut(), table.table).await?;
                    self.send_followers(script, &entry, effect).await?;
                }
            }
            for table in &stage.tables {
                match &table.work {
                    Work::Folded(effect) => {
                        if effect.deletes.is_empty() && effect.updates.is_empty() && effect.inserts.is_empty() {
                            continue;
                        }
                        let entry = self.tables.entry(self.session.get_mut(), table.table).await?;
                        self.send_effect(script, &entry, effect).await?;
                        if self.tracker.is_on() {
                            self.track(script, &entry, &tracking::rows_of(effect)).await?;
                        }
                    }
                    Work::Ordered(changes) => {
                        self.send_ordered(script, changes).await?;
                        if !changes.is_empty() {
                            self.track_whole(script, &table.table.name, tracking::KEYLESS).await?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends what foreign keys do because of a table's net effect, before that is carried out.
    pub(super) async fn send_followers(
        &mut self,
        script: &mut Script,
        entry: &Entry,
        effect: &NetEffect<'_>,
    ) -> Result<(), Trouble> {
        let (links, writer) = (Arc::clone(&self.tables.links), self.writer);
        let mut statements = Vec::new();
        if !effect.deletes.is_empty() {
            for Words { head, tail } in links.after_deletes(entry, &matches(entry, 0)) {
                let rows = effect.deletes.iter().map(|row| (&**row, None));
                statements.extend(writer.derived(entry, &head, &tail, &[], entry.key(), rows)?);
            }
        }
        for group in &effect.updates {
            let mut set = links.followed_columns(entry);
            set.retain(|column| {
                !group.unchanged.contains(column) && (group.key_moves || !entry.key().contains(column))
            });
            if set.is_empty() {
                continue;
            }
            for Words { head, tail } in links.after_updates(entry, &set, &matches(entry, set.len())) {
                let rows = group.rows.iter().map(|update| (&*update.new, update.origin.as_deref()));
                statements.extend(writer.derived(entry, &head, &tail, &set, entry.key(), rows)?);
            }
        }
        if statements.is_empty() {
            return Ok(());
        }
        for statement in statements {
            script.push(self.session.get_mut(), &statement.sql, Expected::Any).await?;
        }
        for table in links.reach(&entry.schema.name) {
            self.track_whole(script, table, tracking::FOLLOWS).await?;
        }
        Ok(())
    }

    async fn send_effect(&mut self, script: &mut Script, entry: &Entry, effect: &NetEffect<'_>) -> Result<(), Trouble> {
        let writer = self.writer;
        self.send(script, writer.delete(entry, effect.deletes.iter().map(|row| &**row))?).await?;
        for group in &effect.updates {
            let rows = group.rows.iter().map(|update| (&*update.new, update.origin.as_deref()));
            self.send(script, writer.update(entry, &group.unchanged, group.key_moves, rows)?).await?;
        }
        self.send_inserts(script, entry, effect.inserts.iter().map(|row| &**row)).await
    }

    /// New rows: many as a file, which costs the server two thirds of what INSERTs do.
    async fn send_inserts<'r>(
        &mut self,
        script: &mut Script,
        entry: &Entry,
        rows: impl ExactSizeIterator<Item = &'r Row>,
    ) -> Result<(), Trouble> {
        if self.loads && rows.len() >= LOAD_FROM && !entry.columns.is_empty() {
            return Ok(script.load(self.session.get_mut(), entry, rows).await?);
        }
        let statements = self.writer.insert(entry, rows)?;
        self.send(script, statements).await
    }

    /// Changes of a table without key: in source order, inserts that follow each other together.
    async fn send_ordered(&mut self, script: &mut Script, changes: &[&RowChange]) -> Result<(), Trouble> {
        let Some(first) = changes.first() else { return Ok(()) };
        let entry = self.tables.entry(self.session.get_mut(), &first.table).await?;
        for run in changes.chunk_by(|a, b| a.op == Op::Insert && b.op == Op::Insert) {
            if run[0].op == Op::Insert {
                let rows: Vec<&Row> = run.iter().filter_map(|change| change.new.as_ref()).collect();
                self.send_inserts(script, &entry, rows.into_iter()).await?;
            } else {
                let statements = self.of_one(&entry, run[0])?;
                self.send(script, statements).await?;
            }
        }
        Ok(())
    }

    /// The statements of one change alone.
    pub(super) fn of_one(&self, entry: &Entry, change: &RowChange) -> Result<Vec<Statement>> {
        let keyed = entry.schema.key.is_some();
        let incomplete = || Error::new(Kind::Protocol, "a change came without the row it is about");
        let old = || match &change.old {
            Some(old) if keyed || !change.old_is_key_only => Ok(old),
            _ => Err(Error::new(
                Kind::Schema,
                format!("{} has no key to find rows by, and its changes do not hold the old row", change.table.name),
            )
            .fix("give the table a primary key, or set binlog_row_image = FULL at the source")),
        };
        match change.op {
            Op::Insert => self.writer.insert(entry, change.new.iter()),
            Op::Delete if keyed => self.writer.delete(entry, std::iter::once(old()?)),
            Op::Delete => Ok(vec![self.writer.delete_whole(entry, old()?)?]),
            Op::Update => {
                let new = complete_from_old(change).ok_or_else(incomplete)?;
                let unchanged = unchanged_columns(&new);
                if keyed {
                    let origin = change.old.as_ref().filter(|old| !same_key(entry.key(), old, &new));
                    let rows = std::iter::once((&*new, origin));
                    return self.writer.update(entry, &unchanged, origin.is_some(), rows);
                }
                Ok(vec![self.writer.update_whole(entry, &unchanged, &new, old()?)?])
            }
        }
    }

    /// What foreign keys do because of one change alone.
    pub(super) async fn send_followers_of_one(
        &mut self,
        script: &mut Script,
        entry: &Entry,
        change: &RowChange,
    ) -> Result<(), Trouble> {
        if entry.schema.key.is_none() || !self.tables.links.acts(change) {
            return Ok(());
        }
        let mut effect = NetEffect::default();
        let origin = change.old.as_ref().map(Image::Sent);
        match (change.op, complete_from_old(change)) {
            (Op::Delete, _) => effect.deletes.extend(origin),
            (Op::Update, Some(new)) => {
                let key_moves = origin.as_ref().is_some_and(|old| !same_key(entry.key(), old, &new));
                let unchanged = unchanged_columns(&new);
                let rows = vec![Update { origin: origin.filter(|_| key_moves), new }];
                effect.updates.push(UpdateGroup { unchanged, key_moves, rows });
            }
            _ => {}
        }
        self.send_followers(script, entry, &effect).await
    }

    pub(super) async fn send(&mut self, script: &mut Script, statements: Vec<Statement>) -> Result<(), Trouble> {
        for statement in statements {
            let rows = Expected::Rows(statement.rows);
            script.push(self.session.get_mut(), &statement.sql, rows).await?;
        }
        Ok(())
    }

    /// Empties what a TRUNCATE of the source emptied.
    pub(super) async fn send_truncate(&mut self, script: &mut Script, truncate: &Truncate) -> Result<(), Trouble> {
        for table in &truncate.tables {
            let entry = self.tables.entry(self.session.get_mut(), table).await?;
            let condition = truncate.conditions.iter().find(|(name, _)| *name == table.name);
            let condition = condition.map_or_else(String::new, |(_, condition)| format!(" WHERE {condition}"));
            let sql = format!("DELETE FROM {}{condition}", entry.sql);
            script.push(self.session.get_mut(), sql, Expected::Any).await?;
        }
        Ok(())
    }

    /// Whether this can be cured by a replay; otherwise the error.
    fn must_replay(&self, trouble: Trouble) -> Result<()> {
        match trouble {
            Trouble::Failure(Failure::Fenced) => Err(fenced(&self.lease)),
            Trouble::Failure(Failure::Sql(error)) => {
                let about_a_row = Failure::Sql(error);
                let is_about_a_row = about_a_row.is_about_a_row();
                let Failure::Sql(error) = about_a_row else { return Ok(()) };
                let error = Error::from(error);
                if !is_about_a_row {
                    return Err(error.context("applying a batch"));
                }
                tracing::debug!(error = error.message(), "a batch is replayed row by row");
                Ok(())
            }
            Trouble::Failure(Failure::Count { affected }) => {
                tracing::debug!(affected, "a batch is replayed row by row");
                Ok(())
            }
            Trouble::Failure(Failure::Warned) | Trouble::Unfoldable => Ok(()),
            Trouble::Error(error) => Err(error),
        }
    }

    async fn commit(
        &mut self,
        begins: bool,
        open: &OpenTransaction,
        position: &Position,
        commit_time: Timestamp,
        applied: &mut Applied,
    ) -> Result<()> {
        let doing = "committing a batch";
        if self.worker == 0 {
            applied.fence = open.notes.marker.clone();
        }
        let last = (position, self.worker == 0);
        let session = self.session.get_mut();
        cutover::settle(&mut self.fence, session, &self.lease.migration, &open.notes, last).await?;
        self.stop_tracking_if_too_much(self.worker).await?;
        let previous = self.checkpoint.get().clone();
        let commit_time = Some(commit_time);
        let step = if !begins {
            let OpenTransaction { changes, transactions, divergences, .. } = *open;
            Some(Step { from: &previous, to: position, commit_time, changes, transactions, divergences })
        } else if open.divergences > 0 {
            Some(Step { commit_time, divergences: open.divergences, ..Step::of(position, position) })
        } else {
            None
        };
        if let Some(step) = step {
            let sql = self.move_on(&step);
            if self.session.get_mut().execute(sql).await.context(doing)? != 1 {
                return Err(fenced(&self.lease));
            }
        }
        let session = self.session.get_mut();
        let sql = commit(session);
        session.execute(sql).await.context(doing)?;
        self.checkpoint = Durable::committed(position.clone());
        applied.durable = Some(self.checkpoint.clone());
        Ok(())
    }

    /// The checkpoint's statement, which every transaction begins with: it touches no row under another epoch.
    fn move_on(&self, step: &Step<'_>) -> String {
        let time = step
            .commit_time
            .map_or_else(|| "commit_time".to_owned(), |time| time.strftime("'%Y-%m-%d %H:%M:%S.%6f'").to_string());
        format!(
            "UPDATE cutwater.checkpoint
                SET position = {}, commit_time = {time}, updated_at = SYSDATE(6), changes = changes + {},
                    transactions = transactions + {}, divergences = divergences + {}
              WHERE migration = {} AND worker = {} AND epoch = {} AND position = {}",
            MyText(&step.to.to_string()),
            step.changes,
            step.transactions,
            step.divergences,
            MyText(&self.lease.migration),
            self.worker,
            self.lease.epoch,
            MyText(&step.from.to_string()),
        )
    }

    /// Under which generation keys are kept.
    fn ask(&self) -> String {
        let name = MyText(&self.lease.migration);
        if self.worker <= 0 {
            let worker = self.worker;
            return format!("SELECT tracking FROM cutwater.checkpoint WHERE migration = {name} AND worker = {worker}");
        }
        // Worker 0 has its row locked while another one is at work: what it was told holds for all.
        format!(
            "SELECT c.tracking FROM cutwater.checkpoint c
               JOIN cutwater.tracking t ON t.migration = c.migration AND t.generation = c.tracking
              WHERE c.migration = {name} AND c.worker = 0 AND NOT t.overflow"
        )
    }

    /// Lets go of the locks of a transaction that failed, so that nobody waits for this connection to end.
    async fn abandon(&mut self) {
        let rollback = self.session.get_mut().execute("ROLLBACK");
        if tokio::time::timeout(Duration::from_secs(1), rollback).await.is_err() {
            tracing::debug!("the target did not answer a rollback within a second");
        }
    }
}

impl Applier for MyApplier {
    fn checkpoint(&self) -> Durable<Position> {
        self.checkpoint.clone()
    }

    async fn apply(&mut self, batch: Batch) -> Result<Applied> {
        if std::mem::replace(&mut self.spent, true) {
            return Err(Error::new(Kind::Internal, "an applier was used again after an error"));
        }
        if let Some(change) = batch.events.iter().find_map(|event| match event {
            ChangeEvent::Alter(change) => Some(change),
            _ => None,
        }) {
            self.abandon().await;
            return Err(not_followed(&change.source, &change.statements));
        }
        let result = self.apply_batch(&batch).await;
        match &result {
            Ok(_) => self.spent = false,
            Err(_) => self.abandon().await,
        }
        result
    }

    async fn alter(&mut self, changes: &[Arc<ShapeChange>]) -> Result<()> {
        changes.first().map_or(Ok(()), |change| Err(not_followed(&change.source, &change.statements)))
    }

    async fn advance(&mut self, to: &Position) -> Result<Durable<Position>> {
        if self.spent || self.open.is_some() {
            return Err(Error::new(Kind::Internal, "the checkpoint cannot be moved on inside a transaction"));
        }
        // One statement is a transaction of its own.
        let sql = self.move_on(&Step::of(self.checkpoint.get(), to));
        match self.session.get_mut().execute(sql).await.context("moving the checkpoint on") {
            Ok(1) => {
                self.checkpoint = Durable::committed(to.clone());
                Ok(self.checkpoint.clone())
            }
            other => {
                self.spent = true;
                Err(other.err().unwrap_or_else(|| fenced(&self.lease)))
            }
        }
    }
}

impl Worker for MyApplier {
    async fn stay(&self) -> Result<()> {
        self.session.lock().await.execute("DO 0").await.map(drop).context("keeping a transaction open")
    }

    fn passed(&mut self, nonce: &str) {
        self.fence.passed(nonce);
    }
}

/// DDL commits by itself here: it would need an intent of its own before it (TRAPS 17).
pub(super) fn not_followed(source: &TableName, statements: &[impl AsRef<str>]) -> Error {
    let why = format!(
        "the columns of {source} have changed at the source, and a MySQL or MariaDB target does not follow that by itself"
    );
    let statements: Vec<&str> = statements.iter().map(AsRef::as_ref).collect();
    Error::new(Kind::Schema, why).fix(format!(
        "make the change at the target:  {};  then copy the table again: cutwater tables resync {source}",
        statements.join("; ")
    ))
}
