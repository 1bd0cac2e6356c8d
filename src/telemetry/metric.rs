//! The numbers a Prometheus server collects: their names, units and labels, in this file and nowhere else.
//!
//! In: what the pipeline saw. Out: the text of `/metrics`. Until [`install`] was called every `record_*` does nothing,
//! so that a library user pays nothing for numbers nobody reads.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::change::Op;
use crate::error::{Error, Kind, Result};
use crate::schema::TableName;
use crate::target::state::Phase;

const LAG_SECONDS: &str = "cutwater_lag_seconds";
const LAG_BYTES: &str = "cutwater_lag_bytes";
const ROWS: &str = "cutwater_rows_total";
const ERRORS: &str = "cutwater_errors_total";
const SNAPSHOT_PROGRESS: &str = "cutwater_snapshot_progress_ratio";
const RETAINED: &str = "cutwater_slot_retained_bytes";
const RETAINED_LIMIT: &str = "cutwater_slot_retained_limit_bytes";
const ROOM: &str = "cutwater_slot_room_seconds";
const PAUSED: &str = "cutwater_paused";
const BATCH_DURATION: &str = "cutwater_batch_duration_seconds";
const PHASE: &str = "cutwater_phase";

/// From a fast local commit to a batch that waits behind a lock.
const BATCH_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

const PHASES: [Phase; 8] = [
    Phase::New,
    Phase::Snapshot,
    Phase::Indexing,
    Phase::CatchingUp,
    Phase::Streaming,
    Phase::Draining,
    Phase::TargetLive,
    Phase::RolledBack,
];

static RENDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Starts to collect, once a process.
pub fn install() -> Result<()> {
    if RENDER.get().is_some() {
        return Ok(());
    }
    let failed = |error: &dyn std::fmt::Display| Error::new(Kind::Internal, format!("metrics: {error}"));
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(BATCH_DURATION.into()), &BATCH_BUCKETS)
        .map_err(|error| failed(&error))?
        .build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_ok() {
        let _ = RENDER.set(handle);
        describe();
    }
    Ok(())
}

/// The text of `/metrics`; empty before [`install`].
pub fn render() -> String {
    let Some(handle) = RENDER.get() else { return String::new() };
    // Folds what the histogram has gathered since the last scrape.
    handle.run_upkeep();
    handle.render()
}

fn describe() {
    describe_gauge!(
        LAG_SECONDS,
        Unit::Seconds,
        "How long the oldest change that is not durable at the target has waited; 0 only when nothing is pending"
    );
    describe_gauge!(LAG_BYTES, Unit::Bytes, "Source log between the target's checkpoint and the source's head");
    describe_counter!(
        ROWS,
        Unit::Count,
        "Rows written to the target, by table and operation (copy, insert, update, delete)"
    );
    describe_counter!(ERRORS, Unit::Count, "Errors, by kind");
    describe_gauge!(SNAPSHOT_PROGRESS, "Share of the existing rows that are copied, 0 to 1");
    describe_gauge!(RETAINED, Unit::Bytes, "Log the source keeps for this migration's slot");
    describe_gauge!(
        RETAINED_LIMIT,
        Unit::Bytes,
        "The nearer of [source] max_retained and the server's max_slot_wal_keep_size; absent without a limit"
    );
    describe_gauge!(
        ROOM,
        Unit::Seconds,
        "Until that limit is reached at the rate of the last ten minutes; +Inf while it is not in sight"
    );
    describe_gauge!(PAUSED, "1 while the run is paused, else 0");
    describe_histogram!(
        BATCH_DURATION,
        Unit::Seconds,
        "From the begin of a batch's target transaction to its flushed commit"
    );
    describe_gauge!(PHASE, "1 for the phase the migration is in, 0 for the others");
}

/// The lag, as [`super::LagMeter`] reads it.
pub fn record_lag(migration: &str, seconds: f64, bytes: u64) {
    gauge!(LAG_SECONDS, "migration" => migration.to_owned()).set(seconds);
    gauge!(LAG_BYTES, "migration" => migration.to_owned()).set(bytes as f64);
}

/// Source changes of a table that became durable at the target.
pub fn record_rows(migration: &str, table: &TableName, op: Op, rows: u64) {
    count_rows(migration, table, op.label(), rows);
}

/// Existing rows of a table that were copied.
pub fn record_copied(migration: &str, table: &TableName, rows: u64) {
    count_rows(migration, table, "copy", rows);
}

fn count_rows(migration: &str, table: &TableName, op: &'static str, rows: u64) {
    counter!(ROWS, "migration" => migration.to_owned(), "table" => table.to_string(), "op" => op).increment(rows);
}

/// An error the supervisor saw, also one it tries again after.
pub fn record_error(migration: &str, kind: Kind) {
    counter!(ERRORS, "migration" => migration.to_owned(), "kind" => kind.label()).increment(1);
}

/// How much of the existing rows is copied, 0 to 1.
pub fn record_snapshot_progress(migration: &str, ratio: f64) {
    gauge!(SNAPSHOT_PROGRESS, "migration" => migration.to_owned()).set(ratio);
}

/// Bytes of log the source keeps for our slot.
pub fn record_retained(migration: &str, bytes: u64) {
    gauge!(RETAINED, "migration" => migration.to_owned()).set(bytes as f64);
}

/// The nearer of the limits on that.
pub fn record_retained_limit(migration: &str, bytes: u64) {
    gauge!(RETAINED_LIMIT, "migration" => migration.to_owned()).set(bytes as f64);
}

/// Seconds until that limit is reached; `None`: it is not in sight.
pub fn record_room(migration: &str, seconds: Option<f64>) {
    gauge!(ROOM, "migration" => migration.to_owned()).set(seconds.unwrap_or(f64::INFINITY));
}

/// Whether the run is paused.
pub fn record_paused(migration: &str, paused: bool) {
    gauge!(PAUSED, "migration" => migration.to_owned()).set(f64::from(u8::from(paused)));
}

/// A batch's target transaction, from begin to flushed commit.
pub fn record_batch(migration: &str, took: Duration) {
    histogram!(BATCH_DURATION, "migration" => migration.to_owned()).record(took.as_secs_f64());
}

/// The phase the migration is in now.
pub fn record_phase(migration: &str, phase: Phase) {
    for other in PHASES {
        let value = if other == phase { 1.0 } else { 0.0 };
        gauge!(PHASE, "migration" => migration.to_owned(), "phase" => other.as_str()).set(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_appears_with_its_labels_and_its_help() {
        install().expect("first in this process");
        record_lag("shop", 0.3, 1_100_000);
        record_rows("shop", &TableName::new("public", "orders"), Op::Insert, 7);
        record_copied("shop", &TableName::new("public", "orders"), 5);
        record_error("shop", Kind::Connection);
        record_snapshot_progress("shop", 0.6);
        record_retained("shop", 96);
        record_retained_limit("shop", 128);
        record_room("shop", None);
        record_paused("shop", true);
        record_batch("shop", Duration::from_millis(3));
        record_phase("shop", Phase::Streaming);
        let text = render();
        for line in [
            "cutwater_lag_seconds{migration=\"shop\"} 0.3",
            "cutwater_lag_bytes{migration=\"shop\"} 1100000",
            "cutwater_rows_total{migration=\"shop\",table=\"public.orders\",op=\"insert\"} 7",
            "cutwater_rows_total{migration=\"shop\",table=\"public.orders\",op=\"copy\"} 5",
            "cutwater_errors_total{migration=\"shop\",kind=\"connection\"} 1",
            "cutwater_snapshot_progress_ratio{migration=\"shop\"} 0.6",
            "cutwater_slot_retained_bytes{migration=\"shop\"} 96",
            "cutwater_slot_retained_limit_bytes{migration=\"shop\"} 128",
            "cutwater_slot_room_seconds{migration=\"shop\"} inf",
            "cutwater_paused{migration=\"shop\"} 1",
            "cutwater_batch_duration_seconds_bucket{migration=\"shop\",le=\"0.005\"} 1",
            "cutwater_phase{migration=\"shop\",phase=\"streaming\"} 1",
            "cutwater_phase{migration=\"shop\",phase=\"snapshot\"} 0",
            "# HELP cutwater_lag_seconds How long",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
