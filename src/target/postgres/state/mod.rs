//! The state of a migration in a Postgres target: schema `cutwater`.
//!
//! In: what `run`, `verify` and `cutover` have to remember. Out: the same, for them, for `status` and for a successor.
//! What can go wrong: the schema is missing (nothing was begun yet: readers answer `None`), it is of a newer format
//! (refused before anything is touched), another instance has raised the epoch ([`Kind::Fenced`]).
//!
//! Every call opens what it needs on one lazily made, lazily remade connection, so that a broken target connection
//! heals by itself.

mod chunks;
mod control;
mod format;
mod leaves;
mod letters;
mod membership;
mod set;
mod shapes;
mod tracking;
mod workers;

use std::sync::Arc;
use std::time::Duration;

pub use set::Requested;
pub use tracking::{Changed, ChangedKeys, Tracked};
pub(super) use workers::LOCK_ALL;
pub use workers::Routing;

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::change::{Durable, Position};
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::{Client, ConnInfo, connect};
use crate::schema::{Leaves, TableName};
use crate::source::SourceIdentity;
use crate::target::state::{
    Checkpoint, Cutover, CutoverStep, Event, FORMAT, Lease, Migration, NewTable, Phase, RunReport, TableStage,
    TableState, VerifyRecord,
};

/// Access to the state. Clones share one connection.
#[derive(Clone)]
pub struct State {
    info: ConnInfo,
    migration: String,
    client: Arc<Mutex<Option<Arc<Client>>>>,
}

pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// The lease was taken, or somebody has it.
#[derive(Debug)]
pub enum LeaseOutcome {
    /// It is ours, under a new epoch.
    Taken(Lease),
    /// This holder has it and renews it.
    Held(String),
}

impl State {
    /// The state of `migration` in the database at `info`. Connects when first used.
    pub fn new(info: ConnInfo, migration: impl Into<String>) -> Self {
        State { info, migration: migration.into(), client: Arc::default() }
    }

    /// The migration's name.
    pub fn name(&self) -> &str {
        &self.migration
    }

    async fn client(&self) -> Result<Arc<Client>> {
        let mut slot = self.client.lock().await;
        if let Some(client) = slot.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(connect(&self.info, &format!("cutwater_{}", self.migration)).await?);
        format::check(&client, &self.migration).await?;
        *slot = Some(Arc::clone(&client));
        Ok(client)
    }

    pub(super) async fn execute(&self, doing: &str, sql: &str, params: Params<'_>) -> Result<u64> {
        self.client().await?.execute(sql, params).await.context(doing)
    }

    /// Rows of a reading statement; none if the schema or table does not exist yet.
    pub(super) async fn query(&self, doing: &str, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        match self.client().await?.query(sql, params).await {
            Ok(rows) => Ok(rows),
            Err(error) if is_missing(&error) => Ok(Vec::new()),
            Err(error) => Err(Error::from(error).context(doing)),
        }
    }

    /// Creates the schema `cutwater`, or finds it there.
    pub async fn install(&self) -> Result<()> {
        let client = self.client().await?;
        self.check_layout(&client).await?;
        // Two first runs at once would both see no schema and one would fail: one at a time.
        let sql = concat!("BEGIN; SELECT pg_advisory_xact_lock(6001, 1);", include_str!("install.sql"), "COMMIT;");
        client.batch_execute(sql).await.context("creating the schema cutwater in the target")
    }

    /// Drops what is remembered of this migration, and the schema with its last migration.
    pub async fn remove(&self) -> Result<()> {
        let client = self.client().await?;
        let doing = "removing the migration's state from the target";
        if let Err(error) = client.execute("DELETE FROM cutwater.migration WHERE name = $1", &[&self.migration]).await {
            return if is_missing(&error) { Ok(()) } else { Err(Error::from(error).context(doing)) };
        }
        // The appliers' replication origins. Whoever could not make them cannot see to it either.
        let origin = "SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin
                      WHERE roname = $1 OR starts_with(roname, $1 || '.')";
        if let Err(error) = client.execute(origin, &[&format!("cutwater_{}", self.migration)]).await {
            tracing::debug!(error = Error::from(error).message(), "the replication origin was left at the target");
        }
        let left: i64 = client.query_one("SELECT count(*) FROM cutwater.migration", &[]).await.context(doing)?.get(0);
        if left == 0 {
            client.batch_execute("DROP SCHEMA cutwater CASCADE").await.context(doing)?;
        }
        Ok(())
    }

    /// The migration, if it was begun. An error if its state is of a newer format than this binary knows.
    pub async fn migration(&self) -> Result<Option<Migration>> {
        let rows =
            self.query("reading the migration's state", include_str!("migration.sql"), &[&self.migration]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let format: i32 = row.get(0);
        format::known(&self.migration, format)?;
        let source: Value = row.get(2);
        let verify: Option<Value> = row.get(12);
        Ok(Some(Migration {
            name: self.migration.clone(),
            format,
            fingerprint: row.get(1),
            source: from_json(source)?,
            source_label: row.get(3),
            target_label: row.get(4),
            phase: row.get::<_, &str>(5).parse()?,
            phase_since: micros(row.get(6))?,
            slot_position: position(row.get(7))?,
            epoch: row.get(8),
            lease_holder: row.get(9),
            lease_valid: row.get(10),
            created_at: micros(row.get(11))?,
            verify: verify.map(from_json).transpose()?,
            copied_until: position(row.get(13))?,
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
        let params: Params<'_> = &[&self.migration, &FORMAT, &fingerprint, &source, &source_label, &target_label];
        self.execute("recording the migration", sql, params).await.map(drop)
    }

    /// Takes the lease for `ttl`, raising the epoch everywhere, unless somebody else holds a valid one. Waits for target
    /// transactions of the last holder that are still open: they hold the rows whose epoch is raised here.
    ///
    /// A holder that `is_dead` says is gone (a process of this machine that was killed) need not be waited for. Should it
    /// be wrong, the epoch still protects the data.
    pub async fn take_lease(&self, holder: &str, ttl: Duration, is_dead: fn(&str) -> bool) -> Result<LeaseOutcome> {
        let client = self.client().await?;
        let dead = self.migration().await?.and_then(|m| m.lease_holder).filter(|holder| is_dead(holder));
        let row = client
            .query_opt(include_str!("take_lease.sql"), &[&self.migration, &holder, &ttl.as_secs_f64(), &dead])
            .await
            .context("taking the migration's lease")?;
        let Some(row) = row else {
            let holder = self.migration().await?.and_then(|m| m.lease_holder);
            return Ok(LeaseOutcome::Held(holder.unwrap_or_default()));
        };
        Ok(LeaseOutcome::Taken(Lease { migration: self.migration.clone(), epoch: row.get(0), holder: holder.into() }))
    }

    /// Keeps the lease for another `ttl`; [`Kind::Fenced`] if somebody has taken it over.
    pub async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<()> {
        let sql = "UPDATE cutwater.migration SET lease_until = clock_timestamp() + make_interval(secs => $3)
                   WHERE name = $1 AND epoch = $2";
        let params: Params<'_> = &[&self.migration, &lease.epoch, &ttl.as_secs_f64()];
        expect_ours(self.execute("renewing the lease", sql, params).await?, lease)
    }

    /// Gives the lease up, so that a successor need not wait for its end.
    pub async fn release_lease(&self, lease: &Lease) -> Result<()> {
        let sql =
            "UPDATE cutwater.migration SET lease_until = NULL, lease_holder = NULL WHERE name = $1 AND epoch = $2";
        self.execute("releasing the lease", sql, &[&self.migration, &lease.epoch]).await.map(drop)
    }

    /// Records the phase.
    pub async fn set_phase(&self, lease: &Lease, phase: Phase) -> Result<()> {
        let sql = "UPDATE cutwater.migration SET phase = $3,
                          phase_since = CASE WHEN phase = $3 THEN phase_since ELSE clock_timestamp() END
                   WHERE name = $1 AND epoch = $2";
        let params: Params<'_> = &[&self.migration, &lease.epoch, &phase.as_str()];
        expect_ours(self.execute("recording the phase", sql, params).await?, lease)
    }

    /// Records the phase on behalf of a cutover, which holds no lease: only from one of `from`.
    pub async fn move_phase(&self, from: &[Phase], to: Phase) -> Result<bool> {
        let sql = "UPDATE cutwater.migration SET phase = $2, phase_since = clock_timestamp()
                   WHERE name = $1 AND phase = ANY($3)";
        let from: Vec<&str> = from.iter().map(|phase| phase.as_str()).collect();
        Ok(self.execute("recording the phase", sql, &[&self.migration, &to.as_str(), &from]).await? == 1)
    }

    /// Records the slot's consistent point and makes it the first checkpoint.
    pub async fn set_slot_position(&self, lease: &Lease, at: &Position) -> Result<()> {
        let sql = include_str!("set_slot_position.sql");
        let params: Params<'_> = &[&self.migration, &lease.epoch, &at.to_string()];
        let rows = self.query("recording the slot's position", sql, params).await?;
        expect_ours(rows.len() as u64, lease)
    }

    /// Records where the source's head was when the last copy ended.
    pub async fn set_copied_until(&self, lease: &Lease, head: &Position) -> Result<()> {
        let sql = "UPDATE cutwater.migration SET copied_until = $3 WHERE name = $1 AND epoch = $2";
        let params: Params<'_> = &[&self.migration, &lease.epoch, &head.to_string()];
        expect_ours(self.execute("recording the end of the copy", sql, params).await?, lease)
    }

    /// The checkpoint, if the stream has a beginning yet.
    pub async fn checkpoint(&self) -> Result<Option<Checkpoint>> {
        let rows = self.query("reading the checkpoint", include_str!("checkpoint.sql"), &[&self.migration]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Checkpoint {
            position: position(row.get(0))?.ok_or_else(|| Error::new(Kind::Internal, "the checkpoint is empty"))?,
            epoch: row.get(1),
            commit_time: row.get::<_, Option<i64>>(2).map(micros).transpose()?,
            updated_at: micros(row.get(3))?,
            changes: row.get(4),
            transactions: row.get(5),
            divergences: row.get(6),
        }))
    }

    /// The tables of the migration, in name order, without those that were removed from it.
    pub async fn tables(&self) -> Result<Vec<TableState>> {
        let mut tables = self.tables_ever().await?;
        tables.retain(|table| table.stage != TableStage::Removed);
        Ok(tables)
    }

    /// The tables that are or were part of the migration, in name order.
    pub async fn tables_ever(&self) -> Result<Vec<TableState>> {
        let rows = self.query("reading the tables' state", include_str!("tables.sql"), &[&self.migration]).await?;
        rows.iter()
            .map(|row| {
                Ok(TableState {
                    source: TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)),
                    target: TableName::new(row.get::<_, String>(2), row.get::<_, String>(3)),
                    stage: row.get::<_, &str>(4).parse()?,
                    copied_at: position(row.get(5))?,
                    rows_estimate: row.get(6),
                    rows_copied: row.get(7),
                    bytes_estimate: row.get(8),
                    bytes_copied: row.get(9),
                    started_at: row.get::<_, Option<i64>>(10).map(micros).transpose()?,
                    finished_at: row.get::<_, Option<i64>>(11).map(micros).transpose()?,
                    waits_for: row.get(12),
                    rule: row.get(13),
                    error: row.get(14),
                    unfinished: row.get(15),
                })
            })
            .collect()
    }

    /// Adds the tables that are not there yet, as waiting. All or none: a run that is killed in between would leave a
    /// migration of fewer tables than were asked for, and its successor would take it for the whole.
    pub async fn add_tables(&self, lease: &Lease, tables: &[NewTable]) -> Result<()> {
        fn column<'a, T>(tables: &'a [NewTable], of: impl Fn(&'a NewTable) -> T) -> Vec<T> {
            tables.iter().map(of).collect()
        }
        let sql =
            "INSERT INTO cutwater.table_state (migration, source_schema, source_table, target_schema, target_table,
                          epoch, rows_estimate, bytes_estimate, rule)
                   SELECT $1, w.from_schema, w.from_table, w.to_schema, w.to_table, $6, w.estimate, w.size, w.rule
                     FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $7::bigint[], $8::bigint[], $9::text[])
                          AS w (from_schema, from_table, to_schema, to_table, estimate, size, rule)
                   ON CONFLICT DO NOTHING";
        let params: Params<'_> = &[
            &self.migration,
            &column(tables, |table| table.source.schema.as_str()),
            &column(tables, |table| table.source.table.as_str()),
            &column(tables, |table| table.target.schema.as_str()),
            &column(tables, |table| table.target.table.as_str()),
            &lease.epoch,
            &column(tables, |table| table.rows),
            &column(tables, |table| table.bytes),
            &column(tables, |table| table.rule.as_str()),
        ];
        self.execute("recording the migration's tables", sql, params).await.map(drop)
    }

    /// The other migration of this target, and the table, if one of these target tables is already another's.
    pub async fn claimed(&self, targets: &[TableName]) -> Result<Option<(String, TableName)>> {
        let sql = "SELECT t.migration, t.target_schema, t.target_table
                     FROM cutwater.table_state t
                     JOIN unnest($2::text[], $3::text[]) AS w(s, n) ON t.target_schema = w.s AND t.target_table = w.n
                    WHERE t.migration <> $1 ORDER BY 1, 2, 3 LIMIT 1";
        let (schemas, names): (Vec<_>, Vec<_>) = targets.iter().map(|t| (t.schema.as_str(), t.table.as_str())).unzip();
        let rows = self.query("looking for other migrations", sql, &[&self.migration, &schemas, &names]).await?;
        Ok(rows.first().map(|row| (row.get(0), TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)))))
    }

    /// Reports how far a table's copy is, for `status`.
    pub async fn report_progress(
        &self,
        source: &TableName,
        rows: i64,
        bytes: i64,
        waits_for: Option<&str>,
    ) -> Result<()> {
        let sql = "INSERT INTO cutwater.table_progress VALUES ($1, $2, $3, $4, $5, $6)
                   ON CONFLICT (migration, source_schema, source_table)
                   DO UPDATE SET rows_copied = $4, bytes_copied = $5, waits_for = $6";
        let params: Params<'_> = &[&self.migration, &source.schema, &source.table, &rows, &bytes, &waits_for];
        self.execute("reporting progress", sql, params).await.map(drop)
    }

    /// Writes the run's report and heartbeat.
    pub async fn heartbeat(&self, report: &RunReport) -> Result<()> {
        let sql = "INSERT INTO cutwater.run (migration, report) VALUES ($1, $2)
                   ON CONFLICT (migration) DO UPDATE SET report = $2, heartbeat_at = clock_timestamp()";
        let report = to_json(report)?;
        self.execute("writing the heartbeat", sql, &[&self.migration, &report]).await.map(drop)
    }

    /// The last run's report and the seconds since it was written, by the target's clock.
    pub async fn run(&self) -> Result<Option<(RunReport, f64)>> {
        let sql = "SELECT report, extract(epoch FROM clock_timestamp() - heartbeat_at)::float8
                   FROM cutwater.run WHERE migration = $1";
        let rows = self.query("reading the run's report", sql, &[&self.migration]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some((from_json(row.get(0))?, row.get(1))))
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
        self.execute("recording the verify", sql, &[&self.migration, &to_json(&record)?]).await?;
        match clean {
            Some(generation) => self.forget_before(generation).await,
            None => Ok(()),
        }
    }

    /// Appends to the event log.
    pub async fn record(&self, event: &Event) -> Result<()> {
        let sql = "INSERT INTO cutwater.event (migration, os_user, host, version, command, outcome)
                   VALUES ($1, $2, $3, $4, $5, $6)";
        let params: Params<'_> =
            &[&self.migration, &event.os_user, &event.host, &event.version, &event.command, &event.outcome];
        self.execute("writing the event log", sql, params).await.map(drop)
    }

    /// The event log, oldest first.
    pub async fn events(&self) -> Result<Vec<Event>> {
        let sql = "SELECT (extract(epoch FROM at) * 1000000)::bigint, os_user, host, version, command, outcome
                   FROM cutwater.event WHERE migration = $1 ORDER BY id";
        let rows = self.query("reading the event log", sql, &[&self.migration]).await?;
        rows.iter()
            .map(|row| {
                Ok(Event {
                    at: Some(micros(row.get(0))?),
                    os_user: row.get(1),
                    host: row.get(2),
                    version: row.get(3),
                    command: row.get(4),
                    outcome: row.get(5),
                })
            })
            .collect()
    }

    /// How many dead letters there are.
    pub async fn dead_letters(&self) -> Result<u64> {
        let sql = "SELECT count(*) FROM cutwater.dead_letter WHERE migration = $1";
        let rows = self.query("counting the dead letters", sql, &[&self.migration]).await?;
        Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0) as u64))
    }

    /// The newest attempt at a cutover.
    pub async fn cutover(&self) -> Result<Option<Cutover>> {
        let sql = "SELECT nonce, step, (extract(epoch FROM started_at) * 1000000)::bigint,
                          (extract(epoch FROM deadline) * 1000000)::bigint, drained_at, broken, note
                   FROM cutwater.cutover WHERE migration = $1 ORDER BY started_at DESC LIMIT 1";
        let rows = self.query("reading the cutover's state", sql, &[&self.migration]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Cutover {
            nonce: row.get(0),
            step: row.get::<_, &str>(1).parse()?,
            started_at: micros(row.get(2))?,
            deadline: row.get::<_, Option<i64>>(3).map(micros).transpose()?,
            drained_at: position(row.get(4))?,
            broken: row.get(5),
            note: row.get(6),
        }))
    }

    /// Journals the beginning of an attempt, before anything is touched.
    pub async fn begin_cutover(&self, nonce: &str, deadline: Timestamp) -> Result<()> {
        let sql = "INSERT INTO cutwater.cutover (migration, nonce, step, deadline)
                   VALUES ($1, $2, $3, to_timestamp($4::float8))";
        let deadline = deadline.as_microsecond() as f64 / 1e6;
        let params: Params<'_> = &[&self.migration, &nonce, &CutoverStep::Fencing.as_str(), &deadline];
        self.execute("journalling the cutover", sql, params).await.map(drop)
    }

    /// Journals a step: only from `from`, so that two drivers cannot both go on. Returns whether it was.
    pub async fn move_cutover(
        &self,
        nonce: &str,
        from: &[CutoverStep],
        to: CutoverStep,
        note: Option<&str>,
    ) -> Result<bool> {
        let sql = "UPDATE cutwater.cutover SET step = $3, step_at = clock_timestamp(), note = coalesce($5, note)
                   WHERE migration = $1 AND nonce = $2 AND step = ANY($4)";
        let from: Vec<&str> = from.iter().map(|step| step.as_str()).collect();
        let params: Params<'_> = &[&self.migration, &nonce, &to.as_str(), &from, &note];
        Ok(self.execute("journalling the cutover", sql, params).await? == 1)
    }
}

fn expect_ours(rows: u64, lease: &Lease) -> Result<()> {
    if rows == 1 { Ok(()) } else { Err(fenced(lease)) }
}

/// The error of a process that was fenced out: another instance has raised the epoch.
pub fn fenced(lease: &Lease) -> Error {
    Error::new(
        Kind::Fenced,
        format!(
            "another cutwater has taken over migration {:?} (our epoch {} is no longer the current one)",
            lease.migration, lease.epoch
        ),
    )
    .fix("nothing is lost; leave it to the other instance (cutwater status shows which)")
}

/// Whether the error says that the schema or a table of it does not exist.
fn is_missing(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| matches!(code.code(), "42P01" | "3F000"))
}

fn micros(value: i64) -> Result<Timestamp> {
    Timestamp::from_microsecond(value).map_err(|error| Error::new(Kind::Internal, error.to_string()))
}

fn position(text: Option<&str>) -> Result<Option<Position>> {
    text.map(str::parse).transpose()
}

/// Reads a checkpoint's position back as what it is: durable, because the target told it.
pub fn durable(text: &str) -> Result<Durable<Position>> {
    Ok(Durable::committed(text.parse()?))
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| Error::new(Kind::Internal, error.to_string()))
}

fn from_json<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value)
        .map_err(|error| Error::new(Kind::Internal, format!("the state cannot be read: {error}")))
}
