//! The keys of the rows a batch changes, kept in the batch's own transaction while a verify has asked for that.
//!
//! In: the generation under which keys are to be kept, as the checkpoint's row says at the start of the transaction. Out:
//! rows of `cutwater.changed_key` and `cutwater.changed_table`. The key's text is made by the target's own output
//! functions from the very parameters a delete would take, so that verify can find the row by it at both ends.
//!
//! The generation is known only when the transaction has begun, and statements are sent ahead: they are sent for the
//! generation of the last transaction. If that turns out to be another one now, or the batch had to be replayed, the
//! batch's keys are written once more at its end ([`PgApplier::track_again`]). Too many is never wrong here.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio_postgres::Statement;

use super::apply::PgApplier;
use super::encode::{Form, Raw};
use super::pipeline::{Failure, Pipeline};
use super::sql::Shape;
use super::tables::Entry;
use super::trouble::Trouble;
use crate::change::{ChangeEvent, Datum, Row};
use crate::error::{Context, Error, Result};
use crate::postgres::Client;
use crate::schema::{TableName, TableSchema};
use crate::target::plan::{Image, NetEffect, complete_from_old, key_fields};

/// What is kept, and how far that is.
pub(super) struct Tracker {
    /// The generation the last transaction was told; `None`: nothing is kept.
    generation: Option<i64>,
    /// Keys kept under it.
    kept: u64,
    /// How many may be.
    limit: u64,
    /// Tables of which it is known that any row may have changed.
    whole: HashSet<TableName>,
    /// There are more than may be, and whoever needs them is yet to be told.
    too_many: bool,
    mark: Statement,
}

impl Tracker {
    pub(super) async fn open(client: &Client) -> Result<Tracker> {
        let mark = client.prepare(include_str!("mark_whole.sql")).await.context("opening the applier")?;
        Ok(Tracker { generation: None, kept: 0, limit: 0, whole: HashSet::new(), too_many: false, mark })
    }

    /// Whether keys are to be kept, as far as is known.
    pub(super) fn is_on(&self) -> bool {
        self.generation.is_some()
    }
}

impl PgApplier {
    /// Sends the keys of a table's net effect along with it.
    pub(super) async fn track_effect(
        &mut self,
        pipeline: &mut Pipeline,
        entry: &Entry,
        effect: &NetEffect<'_>,
    ) -> Result<(), Trouble> {
        let updates = || effect.updates.iter().flat_map(|group| &group.rows);
        let rows = effect.deletes.iter().map(|row| &**row);
        let rows = rows.chain(updates().filter_map(|update| update.origin.as_deref()));
        let rows = rows.chain(updates().map(|update| &*update.new)).chain(effect.inserts.iter().map(|row| &**row));
        self.track(pipeline, entry, &rows.collect::<Vec<_>>()).await
    }

    /// Sends word that any row of a table may have changed, unless that is known.
    pub(super) async fn track_whole(
        &mut self,
        pipeline: &mut Pipeline,
        table: &TableName,
        why: &str,
    ) -> Result<(), Trouble> {
        if self.tracker.is_on() && self.tracker.whole.insert(table.clone()) {
            self.mark_whole(pipeline, table, why).await?;
        }
        Ok(())
    }

    /// Takes note of what the transaction was told when it began; returns whether that is new.
    pub(super) async fn told(&mut self, generation: Option<i64>) -> Result<bool> {
        if self.tracker.generation == generation {
            return Ok(false);
        }
        self.tracker.whole.clear();
        self.tracker.generation = generation;
        if let Some(generation) = generation {
            let sql = "SELECT (SELECT count(*) FROM cutwater.changed_key WHERE migration = $1 AND generation = $2),
                              (SELECT key_limit FROM cutwater.tracking WHERE migration = $1 AND generation = $2)";
            let row = self.client.query_one(sql, &[&self.lease.migration, &generation]).await;
            let row = row.context("counting the changed keys")?;
            self.tracker.kept = row.get::<_, i64>(0) as u64;
            self.tracker.limit = row.get::<_, Option<i64>>(1).unwrap_or_default() as u64;
        }
        Ok(true)
    }

    /// Writes all keys of a batch, whatever was written ahead; returns how many were new.
    pub(super) async fn track_again(&mut self, events: &[ChangeEvent]) -> Result<u64> {
        let mut pipeline = Pipeline::new(&self.client);
        let sent = self.send_keys(&mut pipeline, events).await;
        match (pipeline.finish().await, sent) {
            (Err(Failure::Sql(error)), _) | (Ok(()), Err(Trouble::Failure(Failure::Sql(error)))) => {
                Err(Error::from(error).context("keeping the keys of what changed"))
            }
            (Ok(()), Err(Trouble::Error(error))) => Err(error),
            _ => Ok(pipeline.tracked()),
        }
    }

    async fn send_keys(&mut self, pipeline: &mut Pipeline, events: &[ChangeEvent]) -> Result<(), Trouble> {
        let mut tables: Vec<(&Arc<TableSchema>, Vec<Image<'_>>)> = Vec::new();
        let mut whole: Vec<(&TableName, &str)> = Vec::new();
        for event in events {
            match event {
                ChangeEvent::Row(change) if change.table.key.is_some() => {
                    let found = tables.iter().rposition(|(table, _)| Arc::ptr_eq(table, &change.table));
                    let at = found.unwrap_or_else(|| {
                        tables.push((&change.table, Vec::new()));
                        tables.len() - 1
                    });
                    tables[at].1.extend(change.old.as_ref().map(Image::Sent));
                    tables[at].1.extend(complete_from_old(change));
                }
                ChangeEvent::Row(change) => whole.push((&change.table.name, KEYLESS)),
                ChangeEvent::Truncate(truncate) => {
                    whole.extend(truncate.tables.iter().map(|table| (&table.name, TRUNCATED)));
                }
                _ => {}
            }
        }
        whole.sort();
        whole.dedup_by_key(|(name, _)| *name);
        for (name, why) in whole {
            self.mark_whole(pipeline, name, why).await?;
        }
        for (table, images) in tables {
            let entry = self.tables.entry(&self.client, table).await?;
            self.track(pipeline, &entry, &images.iter().map(|image| &**image).collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    async fn track(&mut self, pipeline: &mut Pipeline, entry: &Entry, rows: &[&Row]) -> Result<(), Trouble> {
        let Some(generation) = self.tracker.generation else { return Ok(()) };
        let name = &entry.schema.name;
        if rows.iter().any(|row| key_fields(entry.key(), row).any(|datum| datum == Datum::Unchanged)) {
            return self.mark_whole(pipeline, name, "a key was not sent").await;
        }
        let form = rows.iter().find_map(|row| Form::of(row)).unwrap_or(Form::Binary);
        let ready = self.tables.statement(&self.client, entry, form, &Shape::Track).await?;
        let mut params = entry.params(form, &ready.layout, rows.iter().map(|&row| (row, None)))?;
        params.extend(self.place(generation, name));
        pipeline.tracking(ready.statement, params).await?;
        Ok(())
    }

    async fn mark_whole(&mut self, pipeline: &mut Pipeline, table: &TableName, why: &str) -> Result<(), Trouble> {
        let Some(generation) = self.tracker.generation else { return Ok(()) };
        let mut params = Vec::from(self.place(generation, table));
        params.push(Raw::text(why));
        // Not counted: it is one row a table.
        pipeline.any(self.tracker.mark.clone(), params).await?;
        Ok(())
    }

    fn place(&self, generation: i64, table: &TableName) -> [Raw; 3] {
        let generation = Raw(Some(Bytes::copy_from_slice(&generation.to_be_bytes())));
        [Raw::text(&self.lease.migration), generation, Raw::text(&table.sql())]
    }

    /// Counts keys that were kept. Past the limit nothing more is.
    pub(super) fn kept(&mut self, keys: u64) {
        self.tracker.kept += keys;
        if self.tracker.is_on() && self.tracker.kept > self.tracker.limit {
            self.tracker.generation = None;
            self.tracker.too_many = true;
        }
    }

    /// Says in the transaction that keys are missing, if so. At its end, because workers would wait for each other.
    pub(super) async fn stop_tracking_if_too_much(&mut self, worker: i32) -> Result<()> {
        if std::mem::take(&mut self.tracker.too_many) {
            let sql = include_str!("stop_tracking.sql");
            let done = self.client.execute(sql, &[&self.lease.migration, &worker]).await;
            done.context("keeping the keys of what changed")?;
        }
        Ok(())
    }
}

/// Why a table is compared whole.
pub(super) const KEYLESS: &str = "it has no key";
/// Why a table is compared whole.
pub(super) const TRUNCATED: &str = "it was truncated";
