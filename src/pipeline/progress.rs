//! How far a run is: what the terminal, the status report and the metrics read.
//!
//! In: the copy's and the index builders' counters, added to with one relaxed atomic operation a chunk; never a lock on
//! the hot path. Out: a [`View`], all numbers of one moment, with rates over the last ten seconds and what is left.
//!
//! Readers poll: call [`Progress::view`] as often as a screen or a report needs it (a sample for the rates is taken on
//! the way, at most four a second). A progress bar of one table is `View.tables[i].fraction()`, the bar of the whole
//! copy [`View::fraction`], the bar of the index phase `indexes_done / indexes_total`, and the text beside it
//! `rows_per_second`, `bytes_per_second` and `left`. A table's bar begins with [`TableStage::Copying`] and ends with
//! [`TableStage::Copied`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::schema::TableName;
use crate::target::state::{Phase, TableStage, TableState};

/// Rates are averages over this long.
const WINDOW: Duration = Duration::from_secs(10);
/// Samples closer together than this add noise and nothing else.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// Counters of a run, shared by everything that works or watches.
#[derive(Debug, Default)]
pub struct Progress {
    tables: RwLock<BTreeMap<TableName, Arc<TableProgress>>>,
    indexes_done: AtomicU64,
    indexes_total: AtomicU64,
    /// What the index builders are at, in words: `orders_customer_idx`.
    building: Mutex<Vec<String>>,
    phase: Mutex<Option<Phase>>,
    samples: Mutex<VecDeque<Sample>>,
}

/// Counters of one table.
#[derive(Debug)]
pub struct TableProgress {
    /// Name at the source.
    pub name: TableName,
    /// Rows expected.
    pub rows_estimate: u64,
    /// Bytes it has at the source.
    pub bytes_estimate: u64,
    rows: AtomicU64,
    bytes: AtomicU64,
    stage: AtomicU8,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    rows: u64,
    bytes: u64,
    /// Source bytes that are done, by the tables' fractions: the measure of what is left.
    done: f64,
}

/// All numbers of one moment.
#[derive(Debug, Clone)]
pub struct View {
    /// The phase, once it is known.
    pub phase: Option<Phase>,
    /// Every table, in name order.
    pub tables: Vec<TableView>,
    /// Rows copied, all tables.
    pub rows: u64,
    /// Bytes copied, all tables, as they are on the wire.
    pub bytes: u64,
    /// Copied rows per second over the last ten seconds.
    pub rows_per_second: f64,
    /// Copied bytes per second over the last ten seconds.
    pub bytes_per_second: f64,
    /// How long the copy will still take at the present rate; `None` while that cannot be said.
    pub left: Option<Duration>,
    /// Keys, indexes and constraints that are built.
    pub indexes_done: u64,
    /// All of them; 0 until they are known.
    pub indexes_total: u64,
    /// The indexes being built now.
    pub building: Vec<String>,
}

/// One table of a [`View`].
#[derive(Debug, Clone)]
pub struct TableView {
    /// Name at the source.
    pub name: TableName,
    /// How far it is.
    pub stage: TableStage,
    /// Rows copied.
    pub rows: u64,
    /// Rows expected.
    pub rows_estimate: u64,
    /// Bytes copied, as they are on the wire.
    pub bytes: u64,
    /// Bytes the table has at the source.
    pub bytes_estimate: u64,
}

impl TableView {
    /// From 0 to 1. An estimate that was too low does not count beyond 1.
    pub fn fraction(&self) -> f64 {
        match self.stage {
            TableStage::Copied | TableStage::CatchingUp => 1.0,
            // What is left out is not waited for: it must not hold the bar back.
            TableStage::Failed | TableStage::Skipped | TableStage::Removed => 1.0,
            TableStage::Waiting => 0.0,
            TableStage::Copying if self.rows_estimate == 0 => 0.0,
            TableStage::Copying => (self.rows as f64 / self.rows_estimate as f64).min(1.0),
        }
    }

    /// Its weight in the whole: an empty table counts as a page, so that it counts at all.
    fn weight(&self) -> f64 {
        self.bytes_estimate.max(8192) as f64
    }
}

impl View {
    /// How much of the copy is done, from 0 to 1, weighted by the tables' sizes.
    pub fn fraction(&self) -> f64 {
        let total: f64 = self.tables.iter().map(TableView::weight).sum();
        if total == 0.0 { 1.0 } else { self.done() / total }
    }

    fn done(&self) -> f64 {
        self.tables.iter().map(|table| table.weight() * table.fraction()).sum()
    }

    /// Tables that are at `stage`.
    pub fn count(&self, stage: TableStage) -> usize {
        self.tables.iter().filter(|table| table.stage == stage).count()
    }
}

impl TableProgress {
    fn new(state: &TableState) -> Self {
        let count = |value: i64| u64::try_from(value).unwrap_or(0);
        // What a crashed run had copied of an unfinished table is copied again: it counts from zero.
        let copied = state.stage == TableStage::Copied;
        TableProgress {
            name: state.source.clone(),
            rows_estimate: count(state.rows_estimate),
            bytes_estimate: count(state.bytes_estimate),
            rows: AtomicU64::new(if copied { count(state.rows_copied) } else { 0 }),
            bytes: AtomicU64::new(if copied { count(state.bytes_copied) } else { 0 }),
            stage: AtomicU8::new(match state.stage {
                TableStage::Copying | TableStage::CatchingUp => TableStage::Waiting,
                stage => stage,
            } as u8),
        }
    }

    /// Counts rows and bytes that went through.
    pub fn add(&self, rows: u64, bytes: u64) {
        self.rows.fetch_add(rows, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// Starts its copy from nothing.
    pub fn begin(&self) {
        self.rows.store(0, Relaxed);
        self.bytes.store(0, Relaxed);
        self.stage.store(TableStage::Copying as u8, Relaxed);
    }

    /// Its copy is durable.
    pub fn finish(&self) {
        self.stage.store(TableStage::Copied as u8, Relaxed);
    }

    /// It could not be copied.
    pub fn fail(&self) {
        self.stage.store(TableStage::Failed as u8, Relaxed);
    }

    /// Rows and bytes so far.
    pub fn copied(&self) -> (u64, u64) {
        (self.rows.load(Relaxed), self.bytes.load(Relaxed))
    }

    /// How far it is.
    pub fn stage(&self) -> TableStage {
        match self.stage.load(Relaxed) {
            stage if stage == TableStage::Copying as u8 => TableStage::Copying,
            stage if stage == TableStage::Copied as u8 => TableStage::Copied,
            stage if stage == TableStage::Failed as u8 => TableStage::Failed,
            stage if stage == TableStage::Skipped as u8 => TableStage::Skipped,
            _ => TableStage::Waiting,
        }
    }
}

impl Progress {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the tables from the state. Called again by a later try, it starts from what the state says then.
    pub fn begin(&self, tables: &[TableState]) {
        let fresh = tables.iter().map(|t| (t.source.clone(), Arc::new(TableProgress::new(t)))).collect();
        *self.tables.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        lock(&self.samples).clear();
        lock(&self.building).clear();
    }

    /// Tables that are copied beside the running stream start from nothing.
    pub fn again(&self, tables: &[TableState]) {
        let mut known = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        for table in tables {
            known.insert(table.source.clone(), Arc::new(TableProgress::new(table)));
        }
    }

    /// The counters of a source table.
    pub fn table(&self, source: &TableName) -> Option<Arc<TableProgress>> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).get(source).cloned()
    }

    /// All tables' counters, in name order.
    pub fn tables(&self) -> Vec<Arc<TableProgress>> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Says what the run is at.
    pub fn set_phase(&self, phase: Phase) {
        *lock(&self.phase) = Some(phase);
    }

    /// Sets how many keys, indexes and constraints there are, and how many of them exist already.
    pub fn set_indexes(&self, done: u64, total: u64) {
        self.indexes_done.store(done, Relaxed);
        self.indexes_total.store(total, Relaxed);
    }

    /// An index build began.
    pub fn index_begun(&self, name: &str) {
        lock(&self.building).push(name.to_owned());
    }

    /// … and ended, well or not.
    pub fn index_ended(&self, name: &str, done: bool) {
        let mut building = lock(&self.building);
        if let Some(at) = building.iter().position(|other| other == name) {
            building.swap_remove(at);
        }
        if done {
            self.indexes_done.fetch_add(1, Relaxed);
        }
    }

    /// All numbers now.
    pub fn view(&self) -> View {
        let tables: Vec<TableView> = self
            .tables()
            .iter()
            .map(|table| {
                let (rows, bytes) = table.copied();
                TableView {
                    name: table.name.clone(),
                    stage: table.stage(),
                    rows,
                    rows_estimate: table.rows_estimate,
                    bytes,
                    bytes_estimate: table.bytes_estimate,
                }
            })
            .collect();
        let mut view = View {
            phase: *lock(&self.phase),
            rows: tables.iter().map(|table| table.rows).sum(),
            bytes: tables.iter().map(|table| table.bytes).sum(),
            tables,
            rows_per_second: 0.0,
            bytes_per_second: 0.0,
            left: None,
            indexes_done: self.indexes_done.load(Relaxed),
            indexes_total: self.indexes_total.load(Relaxed),
            building: lock(&self.building).clone(),
        };
        self.rates(&mut view, Instant::now());
        view
    }

    fn rates(&self, view: &mut View, now: Instant) {
        let sample = Sample { at: now, rows: view.rows, bytes: view.bytes, done: view.done() };
        let mut samples = lock(&self.samples);
        // The oldest sample kept is the newest one that is a whole window old, so that the average covers the window.
        while samples.get(1).is_some_and(|second| now.duration_since(second.at) >= WINDOW) {
            samples.pop_front();
        }
        if let Some(first) = samples.front() {
            let seconds = now.duration_since(first.at).as_secs_f64();
            if seconds > 0.0 {
                view.rows_per_second = sample.rows.saturating_sub(first.rows) as f64 / seconds;
                view.bytes_per_second = sample.bytes.saturating_sub(first.bytes) as f64 / seconds;
                let rate = (sample.done - first.done) / seconds;
                let total: f64 = view.tables.iter().map(TableView::weight).sum();
                view.left = (rate > 0.0)
                    .then(|| Duration::try_from_secs_f64((total - sample.done).max(0.0) / rate).ok())
                    .flatten();
            }
        }
        if samples.back().is_none_or(|last| now.duration_since(last.at) >= SAMPLE_EVERY) {
            samples.push_back(sample);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic while counting leaves numbers that are at worst a little old.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(name: &str, rows: i64, bytes: i64, stage: TableStage) -> TableState {
        TableState {
            source: TableName::new("public", name),
            target: TableName::new("public", name),
            stage,
            copied_at: None,
            rows_estimate: rows,
            rows_copied: 7,
            bytes_estimate: bytes,
            bytes_copied: 70,
            started_at: None,
            finished_at: None,
            waits_for: None,
            rule: None,
            error: None,
            unfinished: false,
        }
    }

    #[test]
    fn a_half_copied_table_of_a_crashed_run_counts_from_zero_and_a_finished_one_stays() {
        let progress = Progress::new();
        progress
            .begin(&[state("done", 10, 1 << 20, TableStage::Copied), state("half", 10, 1 << 20, TableStage::Copying)]);
        let view = progress.view();
        assert_eq!(
            view.tables.iter().map(|t| (t.rows, t.stage)).collect::<Vec<_>>(),
            [(7, TableStage::Copied), (0, TableStage::Waiting)]
        );
        assert!((view.fraction() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn rate_and_time_left_follow_the_last_ten_seconds() {
        let progress = Progress::new();
        progress.begin(&[state("t", 1_000, 1 << 20, TableStage::Waiting)]);
        let table = progress.table(&TableName::new("public", "t")).expect("just added");
        table.begin();
        table.add(500, 5_000);
        let mut second = progress.view();
        let start = Instant::now();
        *lock(&progress.samples) = VecDeque::from([Sample { at: start, rows: 0, bytes: 0, done: 0.0 }]);
        progress.rates(&mut second, start + Duration::from_secs(5));
        assert!((second.rows_per_second - 100.0).abs() < 1e-9);
        assert!((second.bytes_per_second - 1_000.0).abs() < 1e-9);
        let left = second.left.expect("it moves").as_secs_f64();
        assert!((left - 5.0).abs() < 1e-6, "{left}");
    }
}
