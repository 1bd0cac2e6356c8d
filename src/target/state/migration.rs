//! The migration's own row, and the checkpoint: how it begins, which phase it is in, how far the stream is.
//!
//! In: what `run`, `verify` and `cutover` have to remember. Out: the same, for them, for `status` and for a successor.
//! What can go wrong: nothing was begun yet (readers answer `None`), another instance has raised the epoch
//! ([`Kind::Fenced`]).

use jiff::Timestamp;
use serde::Serialize;

use super::access::State;
use super::db::{Why, params};
use super::lease::expect_ours;
use super::{Checkpoint, FORMAT, Lease, Migration, Phase, VerifyRecord, format};
use crate::change::Position;
use crate::error::{Context, Error, Kind, Result};
use crate::schema::Leaves;
use crate::source::SourceIdentity;

impl State {
    /// Creates the layout (schema or database `cutwater`), or finds it there.
    pub async fn install(&self) -> Result<()> {
        let (mut session, mut home) = self.shared().await?;
        format::check_layout(&mut session, self.name()).await?;
        session.install().await.context("creating the schema cutwater in the target")?;
        *home = Some(session);
        Ok(())
    }

    /// Removes what is remembered of this migration, and the layout with its last migration.
    pub async fn remove(&self) -> Result<()> {
        let doing = "removing the migration's state from the target";
        let (mut session, mut home) = self.shared().await?;
        let gone = session.execute("DELETE FROM cutwater.migration WHERE name = $1".into(), params![self.name()]).await;
        match gone {
            Err(failed) if failed.why == Why::NoTable => return Ok(()),
            gone => gone.context(doing)?,
        };
        session.remove_traces(self.name()).await;
        let left = session.query("SELECT 1 FROM cutwater.migration LIMIT 1".into(), &[]).await.context(doing)?;
        if left.is_empty() {
            session.drop_layout().await.context(doing)?;
        }
        *home = Some(session);
        Ok(())
    }

    /// The migration, if it was begun. An error if its state is of a newer format than this binary knows.
    pub async fn migration(&self) -> Result<Option<Migration>> {
        let sql = "SELECT format, fingerprint, source, source_label, target_label, phase, phase_since, slot_position, epoch,
                          lease_holder, coalesce(lease_until > clock_timestamp(), false), created_at, verify, copied_until
                   FROM cutwater.migration WHERE name = $1";
        let rows = self.query("reading the migration's state", sql, params![self.name()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let format = row.get(0)?;
        format::known(self.name(), format)?;
        Ok(Some(Migration {
            name: self.name().to_owned(),
            format,
            fingerprint: row.get(1)?,
            source: row.json(2)?,
            source_label: row.get(3)?,
            target_label: row.get(4)?,
            phase: row.parse(5)?,
            phase_since: row.get(6)?,
            slot_position: row.parse_opt(7)?,
            epoch: row.get(8)?,
            lease_holder: row.get(9)?,
            lease_valid: row.get(10)?,
            created_at: row.get(11)?,
            verify: row.json(12)?,
            copied_until: row.parse_opt(13)?,
        }))
    }

    /// Writes the migration's row, once.
    pub async fn begin(
        &self,
        fingerprint: &str,
        source: &SourceIdentity,
        source_label: &str,
        target_label: &str,
    ) -> Result<()> {
        let sql = "INSERT INTO cutwater.migration (name, format, fingerprint, source, source_label, target_label)
                   VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        let source = to_json(source)?;
        let params = params![self.name(), FORMAT, fingerprint, &source, source_label, target_label];
        self.execute("recording the migration", sql, params).await.map(drop)
    }

    /// Records the phase.
    pub async fn set_phase(&self, lease: &Lease, phase: Phase) -> Result<()> {
        // In this order: MySQL's later assignments see what the earlier ones have made.
        let sql = "UPDATE cutwater.migration
                      SET phase_since = CASE WHEN phase = $3 THEN phase_since ELSE clock_timestamp() END, phase = $3
                   WHERE name = $1 AND epoch = $2";
        let params = params![self.name(), lease.epoch, phase.as_str()];
        expect_ours(self.execute("recording the phase", sql, params).await?, lease)
    }

    /// Records the phase on behalf of a cutover, which holds no lease: only from one of `from`.
    pub async fn move_phase(&self, from: &[Phase], to: Phase) -> Result<bool> {
        let sql = format!(
            "UPDATE cutwater.migration SET phase = $2, phase_since = clock_timestamp() WHERE name = $1 AND phase IN ({})",
            words(from.iter().map(|phase| phase.as_str()))
        );
        Ok(self.execute("recording the phase", sql.as_str(), params![self.name(), to.as_str()]).await? == 1)
    }

    /// Records the slot's consistent point and makes it the first checkpoint. A new slot means that the tables are copied
    /// anew, by which rows change whose keys nobody keeps.
    pub async fn set_slot_position(&self, lease: &Lease, at: &Position) -> Result<()> {
        let doing = "recording the slot's position";
        let at = at.to_string();
        let mut transaction = self.transaction(doing).await?;
        let sql = "UPDATE cutwater.migration SET slot_position = $3 WHERE name = $1 AND epoch = $2";
        let params = params![self.name(), lease.epoch, &at];
        expect_ours(transaction.execute(doing, sql, params).await?, lease)?;
        let sql = "DELETE FROM cutwater.tracking WHERE migration = $1";
        transaction.execute(doing, sql, params![self.name()]).await?;
        let sql = "INSERT INTO cutwater.checkpoint (migration, epoch, position) VALUES ($1, $2, $3)
                   ON CONFLICT (migration, worker) DO UPDATE SET position = $3, epoch = $2, tracking = NULL";
        transaction.execute(doing, sql, params).await?;
        transaction.commit(doing).await
    }

    /// Records where the source's head was when the last copy ended.
    pub async fn set_copied_until(&self, lease: &Lease, head: &Position) -> Result<()> {
        let sql = "UPDATE cutwater.migration SET copied_until = $3 WHERE name = $1 AND epoch = $2";
        let head = head.to_string();
        let params = params![self.name(), lease.epoch, &head];
        expect_ours(self.execute("recording the end of the copy", sql, params).await?, lease)
    }

    /// The checkpoint, if the stream has a beginning yet. Where everything is durable up to is what worker 0's row says,
    /// which commits last; what was done is the sum of all.
    pub async fn checkpoint(&self) -> Result<Option<Checkpoint>> {
        let sql = "SELECT position, epoch, commit_time, updated_at, transactions, changes, divergences, worker
                   FROM cutwater.checkpoint WHERE migration = $1 AND worker >= 0 ORDER BY worker";
        let rows = self.query("reading the checkpoint", sql, params![self.name()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        if row.get::<i32>(7)? != 0 {
            return Ok(None);
        }
        let sum = |at: usize| rows.iter().map(|row| row.get::<i64>(at)).sum::<Result<i64>>();
        Ok(Some(Checkpoint {
            position: row.parse(0)?,
            epoch: row.get(1)?,
            commit_time: row.get(2)?,
            updated_at: row.get(3)?,
            changes: sum(5)?,
            transactions: row.get(4)?,
            divergences: sum(6)?,
        }))
    }

    /// Records a finished verify, and forgets what changed before it if it was clean. `generation` is what it ran under
    /// ([`State::begin_tracking`]), `leaves` the partitions there were when it began.
    pub async fn set_verify(
        &self,
        tables: u64,
        differences: u64,
        duration_ms: u64,
        generation: Option<i64>,
        leaves: Option<Leaves>,
    ) -> Result<()> {
        let sql = "UPDATE cutwater.migration SET verify = $2 WHERE name = $1";
        let clean = generation.filter(|_| differences == 0);
        let record = VerifyRecord { at: Timestamp::now(), tables, differences, duration_ms, generation: clean, leaves };
        self.execute("recording the verify", sql, params![self.name(), &to_json(&record)?]).await?;
        match clean {
            Some(generation) => self.forget_before(generation).await,
            None => Ok(()),
        }
    }
}

/// Words of ours as the list of an `IN`.
pub(super) fn words(words: impl Iterator<Item = &'static str>) -> String {
    words.map(|word| format!("'{word}'")).collect::<Vec<_>>().join(", ")
}

pub(super) fn to_json<T: Serialize>(value: &T) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|error| Error::new(Kind::Internal, error.to_string()))
}
