//! How long a migration would take, from a copy of a few seconds: `check --estimate`.
//!
//! In: the plan of a migration that has not begun (or has). Out: an [`Estimate`], every figure a range. Parts of the
//! tables, chosen at random, are read as the copy reads them (COPY on an exported snapshot, as many connections as
//! `snapshot.workers`) and written by COPY into tables that are made at the target in a transaction that is *rolled
//! back*, with an index built on each: the same path with the same WAL, of which nothing stays. At the source nothing is
//! made at all: the snapshot needs no slot.
//!
//! What can go wrong: the target does not let us make a schema. What it cannot know: how busy both servers will be then.

mod sample;

use std::time::Duration;

use serde::Serialize;

use self::sample::Sample;
use super::Job;
use crate::error::{Context, Error, Kind, Result};
use crate::source::postgres::PgSource;
use crate::source::{AnySource, Source};
use crate::target::AnyTarget;
use crate::transform::Plan;

/// How long is copied.
pub const SAMPLE: Duration = Duration::from_secs(10);

/// A figure as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Range {
    /// At least about.
    pub low: f64,
    /// At most about.
    pub high: f64,
}

/// What a migration would take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    /// Seconds that were copied.
    pub sampled_seconds: f64,
    /// Rows that were copied, and thrown away.
    pub sampled_rows: u64,
    /// Tables to be copied.
    pub tables: usize,
    /// Their bytes at the source, without indexes.
    pub table_bytes: u64,
    /// Bytes of their indexes at the source.
    pub index_bytes: u64,
    /// Source bytes a second that all workers together copy.
    pub copy_bytes_per_second: f64,
    /// Seconds the copy takes.
    pub copy_seconds: Range,
    /// Seconds the indexes take after it.
    pub index_seconds: Range,
    /// WAL the source writes, in bytes a second, measured meanwhile.
    pub wal_bytes_per_second: f64,
    /// WAL it keeps for us until the stream has begun.
    pub wal_kept_bytes: Range,
    /// Bytes needed at the target.
    pub target_bytes: Range,
    /// Seconds that writes wait at the cutover.
    pub downtime_seconds: Range,
}

/// What is counted before the figures are made.
#[derive(Debug, Clone, Copy, Default)]
struct Facts {
    table_bytes: u64,
    /// The largest piece that one worker copies alone.
    largest_piece: u64,
    index_bytes: u64,
    largest_index: u64,
    workers: usize,
    wal_bytes_per_second: f64,
    round_trip: f64,
}

/// Copies for `time` and reckons. Nothing is changed at either end.
pub async fn estimate(job: &Job, plan: &Plan, time: Duration) -> Result<Estimate> {
    between_postgres(job)?;
    let workers = job.config.snapshot.workers.max(1);
    let before = job.source.head().await?;
    let sample = Sample::take(job, plan, workers, time).await.context("copying a sample")?;
    let after = job.source.head().await?;
    let wal = after.position.bytes_since(&before.position, &after.files).unwrap_or(0) as f64;
    let seconds = after.time.duration_since(before.time).as_secs_f64().max(0.001);
    let (index_bytes, largest_index) = indexes(job, plan).await?;
    let chunk_rows = job.config.snapshot.chunk_rows.max(1);
    let piece = |table: &crate::schema::TableSchema| table.bytes / table.estimated_rows.div_ceil(chunk_rows).max(1);
    let facts = Facts {
        table_bytes: plan.tables().map(|table| table.source.bytes).sum(),
        largest_piece: plan.tables().map(|table| piece(&table.source)).max().unwrap_or(0),
        index_bytes,
        largest_index,
        workers,
        wal_bytes_per_second: wal / seconds,
        round_trip: sample.round_trip.as_secs_f64(),
    };
    Ok(reckon(&facts, &sample, plan.tables().count()))
}

/// The sample is copied as Postgres copies, and rolled back as only Postgres does with what it made.
fn between_postgres(job: &Job) -> Result<()> {
    match (&job.source, &job.target) {
        (AnySource::Postgres(_), AnyTarget::Postgres(_)) => Ok(()),
        (AnySource::MySql(_), _) | (_, AnyTarget::MySql(_)) => Err(job.not_between("an estimate")),
    }
}

/// Both ends are sampled with statements of Postgres.
fn postgres(job: &Job) -> Result<&PgSource> {
    let why = || Error::new(Kind::Refused, format!("there is no estimate for {} yet", job.source.label()));
    job.source.postgres().ok_or_else(why)
}

/// Bytes of all indexes of the tables at the source, and of the largest.
async fn indexes(job: &Job, plan: &Plan) -> Result<(u64, u64)> {
    let tables: Vec<u32> = plan.tables().map(|table| table.source.id).collect();
    let client = postgres(job)?.connect().await?;
    let row = client
        .query_one(include_str!("estimate/indexes.sql"), &[&tables])
        .await
        .context("reading the sizes of the source's indexes")?;
    let bytes = |column: usize| u64::try_from(row.get::<_, i64>(column)).unwrap_or(0);
    Ok((bytes(0), bytes(1)))
}

/// The arithmetic. A copy is at its best a little faster than the sample, whose parts are short; later it may be slower:
/// rows that are not in memory, a target whose checkpoints begin to bite.
fn reckon(facts: &Facts, sample: &Sample, tables: usize) -> Estimate {
    let one = sample.source_bytes / sample.busy_seconds.max(0.001);
    let all = one * facts.workers as f64;
    let copy = match all > 0.0 {
        true => (facts.table_bytes as f64 / all).max(facts.largest_piece as f64 / one),
        false => 0.0,
    };
    let copy_seconds = Range { low: copy * 0.7, high: copy * 1.8 };
    // An index of a whole table sorts more than memory holds, which that of a sample does not.
    let index = match sample.index_bytes_per_second {
        Some(rate) if rate > 0.0 => {
            (facts.index_bytes as f64 / (rate * facts.workers as f64)).max(facts.largest_index as f64 / rate)
        }
        // No sample was large enough for one: as the copy, byte for byte.
        _ if all > 0.0 => facts.index_bytes as f64 / all,
        _ => 0.0,
    };
    let index_seconds = Range { low: index * 0.7, high: index * 3.0 };
    let wal = facts.wal_bytes_per_second;
    let space = (facts.table_bytes + facts.index_bytes) as f64;
    Estimate {
        sampled_seconds: sample.seconds,
        sampled_rows: sample.rows,
        tables,
        table_bytes: facts.table_bytes,
        index_bytes: facts.index_bytes,
        copy_bytes_per_second: all,
        copy_seconds,
        index_seconds,
        wal_bytes_per_second: wal,
        wal_kept_bytes: Range {
            low: wal * (copy_seconds.low + index_seconds.low),
            high: wal * (copy_seconds.high + index_seconds.high),
        },
        // The copy has no dead rows and its indexes are packed; statistics and free space map come on top.
        target_bytes: Range { low: space * 0.6, high: space * 1.1 },
        // Fence, drain and switch are some round trips; the comparison reads what changed since the last clean verify.
        downtime_seconds: Range { low: 0.2 + facts.round_trip * 20.0, high: 2.0 + facts.round_trip * 60.0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sample {
        // Four workers, ten seconds each, 25 MB/s together.
        Sample {
            seconds: 10.0,
            busy_seconds: 40.0,
            source_bytes: 250e6,
            rows: 1_000_000,
            index_bytes_per_second: Some(10e6),
            round_trip: Duration::from_millis(1),
        }
    }

    fn facts() -> Facts {
        Facts {
            table_bytes: 100_000_000_000,
            largest_piece: 1_000_000,
            index_bytes: 40_000_000_000,
            largest_index: 1_000_000,
            workers: 4,
            wal_bytes_per_second: 1e6,
            round_trip: 0.001,
        }
    }

    fn within(range: Range, value: f64) -> bool {
        range.low < value && value < range.high
    }

    #[test]
    fn copy_indexes_and_kept_wal_follow_from_the_sample() {
        let estimate = reckon(&facts(), &sample(), 7);
        assert!((estimate.copy_bytes_per_second - 25e6).abs() < 1.0);
        assert!(within(estimate.copy_seconds, 4000.0), "{:?}", estimate.copy_seconds);
        assert!(within(estimate.index_seconds, 1000.0), "{:?}", estimate.index_seconds);
        assert!(within(estimate.wal_kept_bytes, 5e9), "{:?}", estimate.wal_kept_bytes);
        assert!(within(estimate.target_bytes, 120e9), "{:?}", estimate.target_bytes);
    }

    #[test]
    fn what_one_worker_must_do_alone_is_the_least_it_takes() {
        let facts = Facts { largest_piece: 100_000_000_000, largest_index: 40_000_000_000, ..facts() };
        let estimate = reckon(&facts, &sample(), 1);
        assert!(within(estimate.copy_seconds, 16_000.0), "{:?}", estimate.copy_seconds);
        assert!(within(estimate.index_seconds, 4000.0), "{:?}", estimate.index_seconds);
    }

    #[test]
    fn an_empty_database_takes_no_time() {
        let nothing =
            Sample { source_bytes: 0.0, busy_seconds: 0.0, rows: 0, index_bytes_per_second: None, ..sample() };
        let estimate = reckon(&Facts { workers: 4, ..Facts::default() }, &nothing, 0);
        assert_eq!((estimate.copy_seconds.high, estimate.index_seconds.high), (0.0, 0.0));
    }
}
