//! The keys of the rows a batch changes, kept in the batch's own transaction while a verify has asked for that.
//!
//! In: the generation under which keys are to be kept, as the checkpoint's row says at the start of the transaction. Out:
//! rows of `cutwater.changed_key` and `cutwater.changed_table`. The key's text is made by the target's own output
//! functions from the very parameters a delete would take, so that verify can find the row by it at both ends.
//! When they are kept, and which, is for [`crate::target::batch::tracking`].

use bytes::Bytes;

use super::apply::PgApplier;
use super::encode::{Form, Raw};
use super::pipeline::{Failure, Pipeline};
use super::sql::Shape;
use super::tables::Entry;
use super::trouble::Trouble;
use crate::change::{ChangeEvent, Row};
use crate::error::{Context, Error, Result};
use crate::schema::TableName;
use crate::target::batch::tracking::{KEY_NOT_SENT, Touched, lacks_a_key, rows_of, touched};
use crate::target::plan::NetEffect;

impl PgApplier {
    /// Sends the keys of a table's net effect along with it.
    pub(super) async fn track_effect(
        &mut self,
        pipeline: &mut Pipeline,
        entry: &Entry,
        effect: &NetEffect<'_>,
    ) -> Result<(), Trouble> {
        self.track(pipeline, entry, &rows_of(effect)).await
    }

    /// Sends word that any row of a table may have changed, unless that is known.
    pub(super) async fn track_whole(
        &mut self,
        pipeline: &mut Pipeline,
        table: &TableName,
        why: &str,
    ) -> Result<(), Trouble> {
        if self.tracker.is_news(table) {
            self.mark_whole(pipeline, table, why).await?;
        }
        Ok(())
    }

    /// Takes note of what the transaction was told when it began; returns whether that is new.
    pub(super) async fn told(&mut self, generation: Option<i64>) -> Result<bool> {
        if !self.tracker.told(generation) {
            return Ok(false);
        }
        if let Some(generation) = generation {
            let sql = "SELECT (SELECT count(*) FROM cutwater.changed_key WHERE migration = $1 AND generation = $2),
                              (SELECT key_limit FROM cutwater.tracking WHERE migration = $1 AND generation = $2)";
            let row = self.client.query_one(sql, &[&self.lease.migration, &generation]).await;
            let row = row.context("counting the changed keys")?;
            let limit = row.get::<_, Option<i64>>(1).unwrap_or_default() as u64;
            self.tracker.goes_on(row.get::<_, i64>(0) as u64, limit);
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
        let Touched { tables, whole } = touched(events);
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
        let Some(generation) = self.tracker.generation() else { return Ok(()) };
        let name = &entry.schema.name;
        if lacks_a_key(entry.key(), rows) {
            return self.mark_whole(pipeline, name, KEY_NOT_SENT).await;
        }
        let form = rows.iter().find_map(|row| Form::of(row)).unwrap_or(Form::Binary);
        let ready = self.tables.statement(&self.client, entry, form, &Shape::Track).await?;
        let mut params = entry.params(form, &ready.layout, rows.iter().map(|&row| (row, None)))?;
        params.extend(self.place(generation, name));
        pipeline.tracking(ready.statement, params).await?;
        Ok(())
    }

    async fn mark_whole(&mut self, pipeline: &mut Pipeline, table: &TableName, why: &str) -> Result<(), Trouble> {
        let Some(generation) = self.tracker.generation() else { return Ok(()) };
        let mut params = Vec::from(self.place(generation, table));
        params.push(Raw::text(why));
        // Not counted: it is one row a table.
        pipeline.any(self.mark_whole.clone(), params).await?;
        Ok(())
    }

    fn place(&self, generation: i64, table: &TableName) -> [Raw; 3] {
        let generation = Raw(Some(Bytes::copy_from_slice(&generation.to_be_bytes())));
        [Raw::text(&self.lease.migration), generation, Raw::text(&table.sql())]
    }

    /// Says in the transaction that keys are missing, if so. At its end, because workers would wait for each other.
    pub(super) async fn stop_tracking_if_too_much(&mut self, worker: i32) -> Result<()> {
        if self.tracker.has_too_many() {
            let sql = include_str!("stop_tracking.sql");
            let done = self.client.execute(sql, &[&self.lease.migration, &worker]).await;
            done.context("keeping the keys of what changed")?;
        }
        Ok(())
    }
}
