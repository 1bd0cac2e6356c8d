//! Applies batches: the set-based path.
//!
//! In: batches of whole source transactions, or parts of a large one. Out: the position that is durable. One target
//! transaction is
//!
//! ```text
//! BEGIN; UPDATE cutwater.checkpoint … WHERE epoch = mine AND position = previous   -- 0 rows: fenced (TRAPS 1)
//! SAVEPOINT; truncates, then per table deletes → updates → inserts                 -- law 6; counted, see below
//! INSERT INTO cutwater.changed_key …                                               -- if a verify asked ([`super::tracking`])
//! UPDATE cutwater.cutover …                                                        -- if a fence's marker was in it
//! COMMIT                                                                           -- only then is anything durable
//! ```
//!
//! all sent without waiting, except COMMIT, which waits until every answer was right. A statement that fails because of a
//! row, or that affects another number of rows than the plan says, sends the batch back to the savepoint and to
//! [`super::replay`], in the same transaction. Trouble that is not about a row ends the applier: it is opened again and
//! reads the checkpoint, under a lock that waits for an unknown COMMIT of the predecessor (TRAPS 2).

use std::sync::Arc;

use bytes::Bytes;
use futures::SinkExt;
use jiff::Timestamp;
use tokio_postgres::Statement;

use super::catalog::TargetTable;
use super::encode::{CopyEncoder, Form, Raw};
use super::pipeline::{Failure, Pipeline};
use super::single::steps;
use super::sql::Shape;
use super::tables::{Entry, Tables};
use super::trouble::{Stopped, Trouble, is_about_a_row};
use super::{cutover, session, truncate, worker};
use crate::change::{Durable, Op, Position, RowChange, Truncate};
use crate::config::{ApplyConfig, OnError};
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::{Client, ConnInfo};
use crate::schema::ShapeChange;
use crate::target::batch::fence::Watch;
use crate::target::batch::replay::replay;
use crate::target::batch::tracking::{self, Tracker};
use crate::target::batch::{OpenTransaction, count, has_nothing};
use crate::target::plan::{Image, NetEffect, Work, plan};
use crate::target::state::{Lease, fenced};
use crate::target::{Applied, Applier, Batch, BatchEnd, SIDE};

/// From this many rows on, COPY beats INSERT … SELECT FROM unnest in spite of its extra round trip.
const COPY_FROM: usize = 64;

/// What the checkpoint's statement is called in a pipeline.
const CHECKPOINT: &str = "checkpoint";

/// The applier of a Postgres target.
pub struct PgApplier {
    pub(super) client: Arc<Client>,
    pub(super) lease: Lease,
    /// Which row of the checkpoint is ours: 0 is the stream's, which has others beside it if it is not alone; [`SIDE`] is
    /// that of tables that catch up.
    worker: i32,
    pub(super) on_error: OnError,
    pub(super) tables: Tables,
    checkpoint: Durable<Position>,
    move_on: Statement,
    open: Option<OpenTransaction>,
    pub(super) fence: Watch,
    pub(super) tracker: Tracker,
    pub(super) mark_whole: Statement,
    /// Set while a batch is being applied and for good once one has failed.
    spent: bool,
}

impl PgApplier {
    /// Connects and reads the checkpoint. [`Kind::Fenced`] if the lease is no longer the current one.
    pub(super) async fn open(info: &ConnInfo, lease: &Lease, worker: i32, config: &ApplyConfig) -> Result<Self> {
        let client = session::open(info, &lease.migration).await.context("opening the applier")?;
        if config.workers > 1 && worker != SIDE {
            worker::prepare(&client).await?;
        }
        // FOR UPDATE waits for a predecessor's COMMIT that nobody knows the outcome of.
        let sql = "SELECT epoch, position FROM cutwater.checkpoint WHERE migration = $1 AND worker = $2 FOR UPDATE";
        let row = client.query_opt(sql, &[&lease.migration, &worker]).await.context("reading the checkpoint")?;
        let row = row.ok_or_else(|| {
            Error::new(Kind::Internal, format!("migration {:?} has no checkpoint to start from", lease.migration))
        })?;
        if row.get::<_, i64>(0) != lease.epoch {
            return Err(fenced(lease));
        }
        // One session at a time may have an origin (TRAPS 22): each worker has its own.
        let suffix = match worker {
            0 => String::new(),
            SIDE => ".side".into(),
            number => format!(".{number}"),
        };
        let ours = info.session_name(&format!("cutwater_{}", lease.migration));
        session::set_origin(&client, &format!("{}{suffix}", lease.migration), &ours)
            .await
            .context("opening the applier")?;
        Ok(PgApplier {
            // Read back from the target, it is durable.
            checkpoint: Durable::committed(row.get::<_, &str>(1).parse()?),
            move_on: client.prepare(include_str!("move_on.sql")).await.context("opening the applier")?,
            fence: cutover::read(&client, &lease.migration).await?,
            tracker: Tracker::default(),
            mark_whole: client.prepare(include_str!("mark_whole.sql")).await.context("opening the applier")?,
            client: Arc::new(client),
            lease: lease.clone(),
            worker,
            on_error: config.on_error,
            tables: Tables::default(),
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

        let nothing = has_nothing(batch, &open);
        let mut pipeline = Pipeline::new(&self.client);
        let sent = self.send_all(&mut pipeline, batch, begins, &open).await;
        // What failed first is the reason: after it the server refuses everything else.
        let trouble = match (pipeline.finish().await, sent) {
            (Err(failure), _) => Some(Trouble::Failure(failure)),
            (Ok(()), Err(trouble)) => Some(trouble),
            (Ok(()), Ok(())) => None,
        };
        let replays = trouble.is_some();
        if let Some(trouble) = trouble {
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
        let switched = begins && self.told(pipeline.told()).await?;
        let keys = if self.tracker.is_on() && (switched || replays) {
            self.track_again(&batch.events).await?
        } else {
            pipeline.tracked()
        };
        self.tracker.kept(keys);
        self.alter_afterwards(&batch.events).await?;
        match &batch.end {
            BatchEnd::Open => {
                if !nothing {
                    self.client.batch_execute("RELEASE SAVEPOINT cutwater_batch").await.context("applying a batch")?;
                }
                self.open = Some(open);
            }
            BatchEnd::Commit { position, commit_time } => {
                self.commit(begins, &open, position, *commit_time, &mut applied).await?;
            }
        }
        Ok(applied)
    }

    /// Sends the transaction up to, not including, its end.
    async fn send_all(
        &mut self,
        pipeline: &mut Pipeline,
        batch: &Batch,
        begins: bool,
        open: &OpenTransaction,
    ) -> Result<(), Trouble> {
        if begins {
            let previous = self.checkpoint.get();
            let params = match &batch.end {
                BatchEnd::Commit { position, commit_time } => {
                    self.checkpoint_params(previous, position, Some(*commit_time), open.changes, open.transactions, 0)
                }
                BatchEnd::Open => self.checkpoint_params(previous, previous, None, 0, 0, 0),
            };
            pipeline.text("BEGIN".into()).await?;
            pipeline.asking(CHECKPOINT, self.move_on.clone(), params).await?;
        }
        if has_nothing(batch, open) {
            return Ok(());
        }
        self.alter_tables(&batch.events).await?;
        pipeline.text("SAVEPOINT cutwater_batch".into()).await?;
        if open.replay.waits() {
            // Changes of an earlier part wait for the end of the transaction: only a replay knows what they hold up.
            return Err(Trouble::Unfoldable);
        }
        for stage in plan(&batch.events)? {
            for truncate in &stage.truncates {
                let sql = self.truncate_sql(truncate).await?;
                pipeline.text(sql).await?;
                for table in &truncate.tables {
                    self.track_whole(pipeline, &table.name, tracking::TRUNCATED).await?;
                }
            }
            let mut copies = Vec::new();
            for table in &stage.tables {
                match &table.work {
                    Work::Folded(effect) => {
                        if effect.deletes.is_empty() && effect.updates.is_empty() && effect.inserts.is_empty() {
                            continue;
                        }
                        let entry = self.tables.entry(&self.client, table.table).await?;
                        self.folded(pipeline, &entry, effect).await?;
                        if self.tracker.is_on() {
                            self.track_effect(pipeline, &entry, effect).await?;
                        }
                        if effect.inserts.len() >= COPY_FROM {
                            copies.push((entry, &effect.inserts));
                        }
                    }
                    Work::Ordered(changes) => {
                        self.ordered(pipeline, changes).await?;
                        if !changes.is_empty() {
                            self.track_whole(pipeline, &table.table.name, tracking::KEYLESS).await?;
                        }
                    }
                }
            }
            // Last, because a COPY waits for the server's consent while the statements before it run.
            for (entry, rows) in copies {
                self.copy(&entry, rows).await?;
            }
        }
        // A constraint that is initially deferred would fail at COMMIT, where nothing can be replayed.
        pipeline.text("SET CONSTRAINTS ALL IMMEDIATE".into()).await?;
        Ok(())
    }

    async fn folded(&mut self, pipeline: &mut Pipeline, entry: &Entry, effect: &NetEffect<'_>) -> Result<(), Trouble> {
        if !effect.deletes.is_empty() {
            self.rows(pipeline, entry, &Shape::Delete, &effect.deletes).await?;
        }
        for group in &effect.updates {
            let shape = Shape::Update { unchanged: group.unchanged.clone(), key_moves: group.key_moves };
            let form = group.rows.iter().find_map(|update| Form::of(&update.new)).unwrap_or(Form::Binary);
            let ready = self.tables.statement(&self.client, entry, form, &shape).await?;
            let rows = group.rows.iter().map(|update| (&*update.new, update.origin.as_deref()));
            let params = entry.params(form, &ready.layout, rows)?;
            let what = format!("{} {shape:?}", entry.schema.name);
            pipeline.statement(what, ready.statement, params, group.rows.len() as u64).await?;
        }
        if !effect.inserts.is_empty() && effect.inserts.len() < COPY_FROM {
            self.rows(pipeline, entry, &Shape::Insert, &effect.inserts).await?;
        }
        Ok(())
    }

    async fn rows(
        &mut self,
        pipeline: &mut Pipeline,
        entry: &Entry,
        shape: &Shape,
        rows: &[Image<'_>],
    ) -> Result<(), Trouble> {
        let form = form_of(rows);
        let ready = self.tables.statement(&self.client, entry, form, shape).await?;
        let params = entry.params(form, &ready.layout, rows.iter().map(|row| (&**row, None)))?;
        let what = format!("{} {shape:?}", entry.schema.name);
        pipeline.statement(what, ready.statement, params, rows.len() as u64).await?;
        Ok(())
    }

    /// Changes of a table without key: in source order, inserts that follow each other together.
    async fn ordered(&mut self, pipeline: &mut Pipeline, changes: &[&RowChange]) -> Result<(), Trouble> {
        let Some(first) = changes.first() else { return Ok(()) };
        let entry = self.tables.entry(&self.client, &first.table).await?;
        for run in changes.chunk_by(|a, b| a.op == Op::Insert && b.op == Op::Insert) {
            if run[0].op == Op::Insert {
                let rows: Vec<Image<'_>> = run.iter().filter_map(|c| c.new.as_ref()).map(Image::Sent).collect();
                if rows.len() >= COPY_FROM {
                    self.copy(&entry, &rows).await?;
                } else {
                    self.rows(pipeline, &entry, &Shape::Insert, &rows).await?;
                }
                continue;
            }
            self.single(pipeline, &entry, run[0]).await?;
        }
        Ok(())
    }

    /// One change as statements of its own.
    pub(super) async fn send_change(&mut self, pipeline: &mut Pipeline, change: &RowChange) -> Result<(), Stopped> {
        let entry = self.tables.entry(&self.client, &change.table).await.map_err(Stopped::Error)?;
        match self.single(pipeline, &entry, change).await {
            Ok(()) => Ok(()),
            Err(Trouble::Failure(failure)) => Err(Stopped::Failure(failure)),
            Err(Trouble::Error(error)) => Err(Stopped::Error(error)),
            Err(Trouble::Unfoldable) => Ok(()),
        }
    }

    async fn single(&mut self, pipeline: &mut Pipeline, entry: &Entry, change: &RowChange) -> Result<(), Trouble> {
        for step in steps(entry, change)? {
            let form = step.form();
            let ready = self.tables.statement(&self.client, entry, form, &step.shape).await?;
            let params = entry.params(form, &ready.layout, std::iter::once((&*step.new, step.origin)))?;
            let what = format!("{} {}", entry.schema.name, change.op.label());
            pipeline.statement(what, ready.statement, params, 1).await?;
        }
        Ok(())
    }

    async fn copy(&mut self, entry: &Entry, rows: &[Image<'_>]) -> Result<(), Trouble> {
        let form = form_of(rows);
        let ready = self.tables.statement(&self.client, entry, form, &Shape::Copy).await?;
        let mut sink = Box::pin(self.client.copy_in::<_, Bytes>(&ready.statement).await?);
        let mut encoder = CopyEncoder::new(form);
        for row in rows {
            if let Some(chunk) = encoder.push(row)? {
                sink.send(chunk).await?;
            }
        }
        sink.send(encoder.finish()).await?;
        let (expected, affected) = (rows.len() as u64, sink.as_mut().finish().await?);
        if affected == expected {
            return Ok(());
        }
        Err(Failure::Count { what: format!("{} copy", entry.schema.name), expected, affected }.into())
    }

    /// The statement of a TRUNCATE, with every table it emptied at the source, so that foreign keys between them do not
    /// matter.
    pub(super) async fn truncate_sql(&mut self, truncate: &Truncate) -> Result<String> {
        let mut tables = Vec::with_capacity(truncate.tables.len());
        let mut statements = Vec::new();
        for table in &truncate.tables {
            let entry = self.tables.entry(&self.client, table).await?;
            match truncate.conditions.iter().find(|(name, _)| *name == table.name) {
                Some((_, condition)) => {
                    statements.push(format!("DELETE FROM {} WHERE {condition}", entry.target.only()));
                }
                None => tables.push(entry),
            }
        }
        let targets: Vec<&TargetTable> = tables.iter().map(|entry| &entry.target).collect();
        if !targets.is_empty() {
            statements.push(
                truncate::statement(&self.client, &targets, truncate.restart_identity, &truncate.elsewhere).await?,
            );
        }
        Ok(statements.join("; "))
    }

    /// Whether this can be cured by a replay; otherwise the error.
    fn must_replay(&self, trouble: Trouble) -> Result<()> {
        match trouble {
            Trouble::Failure(Failure::Count { what, .. }) if what == CHECKPOINT => Err(fenced(&self.lease)),
            Trouble::Failure(Failure::Count { what, expected, affected }) => {
                tracing::debug!(what, expected, affected, "a batch is replayed row by row");
                Ok(())
            }
            Trouble::Failure(Failure::Sql(error)) if is_about_a_row(&error) => {
                tracing::debug!(error = Error::from(error).message(), "a batch is replayed row by row");
                Ok(())
            }
            Trouble::Failure(Failure::Sql(error)) => Err(Error::from(error).context("applying a batch")),
            Trouble::Error(error) => Err(error),
            Trouble::Unfoldable => Ok(()),
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
        cutover::settle(&mut self.fence, &self.client, &self.lease.migration, &open.notes, last).await?;
        self.stop_tracking_if_too_much(self.worker).await?;
        let previous = self.checkpoint.get();
        let time = Some(commit_time);
        let params = if !begins {
            let OpenTransaction { changes, transactions, divergences, .. } = *open;
            Some(self.checkpoint_params(previous, position, time, changes, transactions, divergences))
        } else if open.divergences > 0 {
            Some(self.checkpoint_params(position, position, time, 0, 0, open.divergences))
        } else {
            None
        };
        if let Some(params) = params
            && self.client.execute_raw(&self.move_on, params).await.context(doing)? != 1
        {
            return Err(fenced(&self.lease));
        }
        self.client.batch_execute("COMMIT").await.context(doing)?;
        self.checkpoint = Durable::committed(position.clone());
        applied.durable = Some(self.checkpoint.clone());
        Ok(())
    }

    fn checkpoint_params(
        &self,
        from: &Position,
        to: &Position,
        commit_time: Option<Timestamp>,
        changes: u64,
        transactions: u64,
        divergences: u64,
    ) -> Vec<Raw> {
        let text = |value: &str| Raw(Some(Bytes::copy_from_slice(value.as_bytes())));
        let number = |value: i64| Raw(Some(Bytes::copy_from_slice(&value.to_be_bytes())));
        vec![
            text(&self.lease.migration),
            number(self.lease.epoch),
            text(&from.to_string()),
            text(&to.to_string()),
            commit_time.map_or(Raw(None), |time| number(time.as_microsecond())),
            number(changes as i64),
            number(transactions as i64),
            number(divergences as i64),
            Raw(Some(Bytes::copy_from_slice(&self.worker.to_be_bytes()))),
        ]
    }

    /// Locks the checkpoint's row under our epoch, without moving it on; 0: fenced.
    pub(super) async fn lock_checkpoint(&self) -> Result<u64> {
        let at = self.checkpoint.get();
        let params = self.checkpoint_params(at, at, None, 0, 0, 0);
        self.client.execute_raw(&self.move_on, params).await.context("locking the checkpoint")
    }

    /// Lets go of the locks of a transaction that failed, so that nobody waits for this connection to end.
    async fn abandon(&self) {
        let rollback = self.client.batch_execute("ROLLBACK");
        if !self.client.is_closed() && tokio::time::timeout(std::time::Duration::from_secs(1), rollback).await.is_err()
        {
            tracing::debug!("the target did not answer a rollback within a second");
        }
    }
}

impl Applier for PgApplier {
    fn checkpoint(&self) -> Durable<Position> {
        self.checkpoint.clone()
    }

    async fn apply(&mut self, batch: Batch) -> Result<Applied> {
        if std::mem::replace(&mut self.spent, true) {
            return Err(Error::new(Kind::Internal, "an applier was used again after an error"));
        }
        let result = self.apply_batch(&batch).await;
        match &result {
            Ok(_) => self.spent = false,
            Err(_) => self.abandon().await,
        }
        result
    }

    async fn alter(&mut self, changes: &[Arc<ShapeChange>]) -> Result<()> {
        if self.spent || self.open.is_some() {
            return Err(Error::new(Kind::Internal, "a table cannot be altered inside a transaction"));
        }
        let altered = self.alter_alone(changes).await;
        if altered.is_err() {
            self.spent = true;
            self.abandon().await;
        }
        altered
    }

    async fn advance(&mut self, to: &Position) -> Result<Durable<Position>> {
        if self.spent || self.open.is_some() {
            return Err(Error::new(Kind::Internal, "the checkpoint cannot be moved on inside a transaction"));
        }
        let params = self.checkpoint_params(self.checkpoint.get(), to, None, 0, 0, 0);
        // One statement is a transaction of its own.
        let moved = self.client.execute_raw(&self.move_on, params).await.context("moving the checkpoint on");
        match moved {
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

fn form_of(rows: &[Image<'_>]) -> Form {
    rows.iter().find_map(|row| Form::of(row)).unwrap_or(Form::Binary)
}
