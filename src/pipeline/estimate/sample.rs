//! The copy of a few seconds.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use rand::seq::SliceRandom;
use tokio::task::JoinSet;

use super::postgres;
use crate::error::{Context, Error, Kind, Result};
use crate::pipeline::Job;
use crate::postgres::{Client, ConnInfo, connect};
use crate::schema::Ident;
use crate::source::{AnySnapshot, CopyFormat, Part, Snapshot, Source};
use crate::transform::{Plan, TablePlan};

/// Source bytes of a part: a second's work or so, so that several tables come into a sample.
const PART_BYTES: u64 = 16 << 20;
/// Parts that wait to be copied; more are never reached.
const MOST_PARTS: usize = 4096;

/// What was measured.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    /// From begin to end.
    pub(super) seconds: f64,
    /// Seconds of copying, all workers together.
    pub(super) busy_seconds: f64,
    /// Bytes of the tables that were copied in them, as they lie at the source.
    pub(super) source_bytes: f64,
    pub(super) rows: u64,
    /// Index bytes a worker builds in a second, if any part came to its end.
    pub(super) index_bytes_per_second: Option<f64>,
    /// To the farther of both ends.
    pub(super) round_trip: Duration,
}

/// One piece of a table.
struct Unit {
    plan: Arc<TablePlan>,
    part: Part,
    bytes: u64,
}

/// What one worker has done.
#[derive(Debug, Default)]
struct Done {
    busy: f64,
    bytes: f64,
    rows: u64,
    index_bytes: f64,
    index_seconds: f64,
}

impl Sample {
    /// Copies parts chosen at random until `time` is over or nothing is left.
    pub(super) async fn take(job: &Job, plan: &Plan, workers: usize, time: Duration) -> Result<Sample> {
        let snapshot = Arc::new(job.source.snapshot_of_now().await?);
        let units = Arc::new(Mutex::new(units(&snapshot, plan).await?));
        let info = ConnInfo::parse(&job.config.target.url)?;
        let (old, new) = (postgres(job)?.connect().await?, connect(&info, NAME).await?);
        let round_trip = round_trip(&old).await?.max(round_trip(&new).await?);
        let begun = Instant::now();
        let mut running = JoinSet::new();
        for worker in 0..workers {
            let (snapshot, units, info) = (Arc::clone(&snapshot), Arc::clone(&units), info.clone());
            running.spawn(Box::pin(async move {
                let schema = format!("cutwater_estimate_{}_{worker}", std::process::id());
                let client = connect(&info, NAME).await?;
                let mut done = Done::default();
                while begun.elapsed() < time {
                    let next = units.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(unit) = next else { break };
                    copy_one(&snapshot, &client, &schema, &unit, begun + time, &mut done).await?;
                }
                Ok::<_, Error>(done)
            }));
        }
        let mut sum = Done::default();
        while let Some(done) = running.join_next().await {
            let done = done.map_err(|panic| Error::new(Kind::Internal, panic.to_string()))??;
            sum.busy += done.busy;
            sum.bytes += done.bytes;
            sum.rows += done.rows;
            sum.index_bytes += done.index_bytes;
            sum.index_seconds += done.index_seconds;
        }
        Ok(Sample {
            seconds: begun.elapsed().as_secs_f64(),
            busy_seconds: sum.busy,
            source_bytes: sum.bytes,
            rows: sum.rows,
            index_bytes_per_second: (sum.index_seconds > 0.0).then(|| sum.index_bytes / sum.index_seconds),
            round_trip,
        })
    }
}

const NAME: &str = "cutwater estimate";

/// All tables in pieces, in random order: what is copied of them is then a fair share of each.
async fn units(snapshot: &AnySnapshot, plan: &Plan) -> Result<VecDeque<Unit>> {
    let mut units = Vec::new();
    for table in plan.tables() {
        let source = &table.source;
        let pieces = source.bytes.div_ceil(PART_BYTES).max(1);
        let parts = snapshot.parts(source, (source.estimated_rows / pieces).max(1000)).await?;
        let bytes = source.bytes / parts.len().max(1) as u64;
        units.extend(parts.into_iter().map(|part| Unit { plan: Arc::clone(table), part, bytes }));
    }
    units.shuffle(&mut rand::rng());
    units.truncate(MOST_PARTS);
    Ok(units.into())
}

async fn round_trip(client: &Client) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        client.simple_query("SELECT 1").await?;
        best = best.min(begun.elapsed());
    }
    Ok(best)
}

/// Copies a piece into a table of its own, builds an index on it, and rolls everything back.
async fn copy_one(
    snapshot: &AnySnapshot,
    client: &Client,
    schema: &str,
    unit: &Unit,
    until: Instant,
    done: &mut Done,
) -> Result<()> {
    // Columns whose type the target may not know yet would need the whole schema first: the others stand for them.
    let known: Vec<usize> =
        unit.plan.columns.iter().copied().filter(|&at| ty(unit, at).schema == "pg_catalog").collect();
    if known.is_empty() {
        return Ok(());
    }
    let binary = known.iter().all(|&at| ty(unit, at).portable_binary);
    let (format, word) = if binary { (CopyFormat::PgBinary, "binary") } else { (CopyFormat::PgText, "text") };
    let columns: Vec<String> = known
        .iter()
        .map(|&at| format!("{} {}", Ident(&unit.plan.source.columns[at].name), ty(unit, at).display))
        .collect();
    let (own, table) = (Ident(schema), format!("{}.sample", Ident(schema)));
    client
        .batch_execute(&format!("BEGIN; CREATE SCHEMA {own}; CREATE TABLE {table} ({})", columns.join(", ")))
        .await
        .context("making a table at the target, in a transaction that is rolled back")?;
    let copy = format!("COPY {table} FROM STDIN (FORMAT {word})");
    let whole = fill(snapshot, client, &copy, (unit, &known, format), until, done);
    let whole = whole.await.with_context(|| format!("sampling {}", unit.plan.source.name))?;
    let mut key = unit.plan.source.key_columns().map(|column| Ident(&column.name).to_string()).collect::<Vec<_>>();
    key.retain(|name| columns.iter().any(|column| column.starts_with(name.as_str())));
    if whole && !key.is_empty() {
        let begun = Instant::now();
        client.batch_execute(&format!("CREATE INDEX sample_idx ON {table} ({})", key.join(", "))).await?;
        let took = begun.elapsed().as_secs_f64();
        let sql = "SELECT pg_relation_size(oid) FROM pg_class WHERE relname = 'sample_idx' AND relnamespace = $1::text::regnamespace";
        let bytes: i64 = client.query_one(sql, &[&own.to_string()]).await?.get(0);
        done.index_bytes += bytes as f64;
        done.index_seconds += took;
    }
    client.batch_execute("ROLLBACK").await.context("rolling the sample back")
}

fn ty(unit: &Unit, at: usize) -> &crate::schema::ColumnType {
    &unit.plan.source.columns[at].ty
}

/// Whether it came to its end before `until`.
async fn fill(
    snapshot: &AnySnapshot,
    client: &Client,
    copy: &str,
    (unit, columns, format): (&Unit, &[usize], CopyFormat),
    until: Instant,
    done: &mut Done,
) -> Result<bool> {
    let begun = Instant::now();
    let mut rows = snapshot.copy(&unit.part, columns, format).await?;
    let mut sink = Box::pin(client.copy_in(copy).await?);
    let mut copied = 0;
    let mut whole = true;
    while let Some(chunk) = rows.next().await {
        let chunk = chunk?;
        copied += chunk.rows;
        sink.send(chunk.bytes).await?;
        if Instant::now() >= until {
            whole = false;
            break;
        }
    }
    if whole {
        sink.as_mut().finish().await?;
    }
    // Dropped unfinished, the COPY fails, and with it the transaction that is rolled back anyway.
    drop(sink);
    let share = match (whole, unit.part.rows) {
        (true, _) => 1.0,
        (false, 0) => 0.0,
        (false, expected) => (copied as f64 / expected as f64).min(1.0),
    };
    done.busy += begun.elapsed().as_secs_f64();
    done.bytes += unit.bytes as f64 * share;
    done.rows += copied;
    Ok(whole)
}
