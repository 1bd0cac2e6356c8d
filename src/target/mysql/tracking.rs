//! The keys of the rows a batch changes, kept in the batch's own transaction while a verify has asked for that.
//!
//! Out: rows of `cutwater.changed_key` and `cutwater.changed_table`. A key is a JSON array of its columns' texts in their
//! canonical form; of bytes, their hexadecimal digits. When they are kept, and which, is for
//! [`crate::target::batch::tracking`].

use std::collections::HashSet;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::apply::{MyApplier, Trouble};
use super::literal;
use super::session::{Expected, Failure, Script};
use super::tables::Entry;
use crate::change::{ChangeEvent, Datum, Row};
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::MyText;
use crate::schema::TableName;
use crate::target::batch::tracking::{FOLLOWS, KEY_NOT_SENT, Touched, lacks_a_key, touched};
use crate::target::plan::key_fields;

/// Keys of one statement.
const KEYS: usize = 1000;

impl MyApplier {
    /// Sends word that any row of a table may have changed, unless that is known.
    pub(super) async fn track_whole(
        &mut self,
        script: &mut Script,
        table: &TableName,
        why: &str,
    ) -> Result<(), Trouble> {
        if self.tracker.is_news(table) {
            self.mark_whole(script, table, why).await?;
        }
        Ok(())
    }

    /// Takes note of what the transaction was told when it began; returns whether that is new.
    pub(super) async fn told(&mut self, generation: Option<i64>) -> Result<bool> {
        if !self.tracker.told(generation) {
            return Ok(false);
        }
        if let Some(generation) = generation {
            let sql = "SELECT (SELECT count(*) FROM cutwater.changed_key WHERE migration = ? AND generation = ?),
                              (SELECT key_limit FROM cutwater.tracking WHERE migration = ? AND generation = ?)";
            let name = &self.lease.migration;
            let rows = self.session.get_mut().rows_with(sql, (name, generation, name, generation)).await;
            let rows = rows.context("counting the changed keys")?;
            let number = |at: usize| rows.first()?.get(at)?.as_ref()?.parse().ok();
            self.tracker.goes_on(number(0).unwrap_or_default(), number(1).unwrap_or_default());
        }
        Ok(true)
    }

    /// Writes all keys of a batch, whatever was written ahead; returns how many were new.
    pub(super) async fn track_again(&mut self, events: &[ChangeEvent]) -> Result<u64> {
        let mut script = Script::new(self.writer.largest());
        let sent = match self.send_keys(&mut script, events).await {
            Ok(()) => script.flush(self.session.get_mut()).await.map_err(Trouble::from),
            sent => sent,
        };
        match sent {
            Ok(()) => Ok(script.tracked),
            Err(Trouble::Failure(Failure::Sql(error))) => {
                Err(Error::from(error).context("keeping the keys of what changed"))
            }
            Err(Trouble::Error(error)) => Err(error),
            Err(_) => Err(Error::new(Kind::Internal, "the keys of what changed were not kept")),
        }
    }

    async fn send_keys(&mut self, script: &mut Script, events: &[ChangeEvent]) -> Result<(), Trouble> {
        let Touched { tables, whole } = touched(events);
        for (name, why) in whole {
            self.mark_whole(script, name, why).await?;
        }
        let links = Arc::clone(&self.tables.links);
        let mut followers = HashSet::new();
        for event in events {
            if let ChangeEvent::Row(change) = event
                && links.acts(change)
            {
                followers.extend(links.reach(&change.table.name));
            }
        }
        for name in followers {
            self.mark_whole(script, name, FOLLOWS).await?;
        }
        for (table, images) in tables {
            let entry = self.tables.entry(self.session.get_mut(), table).await?;
            self.track(script, &entry, &images.iter().map(|image| &**image).collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    /// Sends the keys of rows.
    pub(super) async fn track(&mut self, script: &mut Script, entry: &Entry, rows: &[&Row]) -> Result<(), Trouble> {
        let Some(generation) = self.tracker.generation() else { return Ok(()) };
        let name = &entry.schema.name;
        if lacks_a_key(entry.key(), rows) {
            return self.mark_whole(script, name, KEY_NOT_SENT).await;
        }
        for rows in rows.chunks(KEYS) {
            // IGNORE: what is kept already stays. Nothing else can go wrong that it would hide: foreign keys are not
            // checked, and the columns hold every name.
            let mut sql =
                b"INSERT IGNORE INTO cutwater.changed_key (migration, generation, tbl, hash, `key`) VALUES ".to_vec();
            let place = format!("({}, {generation}, {}, ", MyText(&self.lease.migration), MyText(&name.sql()));
            for (n, row) in rows.iter().enumerate() {
                let key = key_text(entry.key(), row);
                sql.extend_from_slice(if n > 0 { b", " } else { b"" });
                sql.extend_from_slice(place.as_bytes());
                sql.extend_from_slice(format!("{}, ", hash(key.as_bytes())).as_bytes());
                literal::quoted(&mut sql, key.as_bytes());
                sql.push(b')');
            }
            script.push(self.session.get_mut(), sql, Expected::Tracked).await?;
        }
        Ok(())
    }

    async fn mark_whole(&mut self, script: &mut Script, table: &TableName, why: &str) -> Result<(), Trouble> {
        let Some(generation) = self.tracker.generation() else { return Ok(()) };
        let sql = format!(
            "INSERT IGNORE INTO cutwater.changed_table (migration, generation, tbl, why) VALUES ({}, {generation}, {}, {})",
            MyText(&self.lease.migration),
            MyText(&table.sql()),
            MyText(why)
        );
        // Not counted: it is one row a table.
        script.push(self.session.get_mut(), sql, Expected::Control).await?;
        Ok(())
    }

    /// Says in the transaction that keys are missing, if so: from here on what changed since any earlier verify is not
    /// known. Whether keys are kept at all is said by worker 0's row, which none but worker 0 may touch in mid-batch.
    pub(super) async fn stop_tracking_if_too_much(&mut self, worker: i32) -> Result<()> {
        if !self.tracker.has_too_many() {
            return Ok(());
        }
        let doing = "keeping the keys of what changed";
        let (session, name) = (self.session.get_mut(), &self.lease.migration);
        if worker == 0 {
            let sql = "UPDATE cutwater.checkpoint SET tracking = NULL WHERE migration = ? AND worker = 0";
            session.execute_with(sql, (name,)).await.context(doing)?;
        }
        let sql = "UPDATE cutwater.tracking SET overflow = true WHERE migration = ?";
        session.execute_with(sql, (name,)).await.context(doing).map(drop)
    }
}

/// The key as a JSON array of texts.
fn key_text(key: &[usize], row: &Row) -> String {
    let texts: Vec<String> = key_fields(key, row)
        .map(|datum| match datum {
            Datum::Binary(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            datum => String::from_utf8_lossy(datum.bytes().unwrap_or_default()).into_owned(),
        })
        .collect();
    serde_json::Value::from(texts).to_string()
}

/// Two keys that share it would be one to the state.
fn hash(key: &[u8]) -> i64 {
    let hash = Sha256::digest(key);
    i64::from_be_bytes(std::array::from_fn(|at| hash[at]))
}
