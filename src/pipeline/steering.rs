//! Steering a live run: pauses and settings, from the control row to whoever works.
//!
//! In: the row `cutwater.control` as the monitor reads it once a second, over what the config file says. Out:
//! [`Orders`] in a watch channel, and the copy's pace. `pause`, `resume` and `set` write the row; the run takes it up
//! before it begins to work and again with every beat, and says so in the row: a pause outlives the process.
//!
//! | asked for | takes effect |
//! |---|---|
//! | pause of the copy | no chunk passes, no part or table is begun; what is under way waits where it is |
//! | pause of the applying | after the batch under way; the reader goes on answering the source, nothing new is confirmed |
//! | `snapshot.workers` | fewer: as parts end; more: at once |
//! | `snapshot.max_rows_per_second` | with the next chunk |
//! | `apply.*` | with the next batch |
//!
//! Nothing here can lose anything: a pause only keeps work from beginning.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::restart::MAY_CHANGE;
use crate::config::{ApplyConfig, ByteSize, Config, HumanDuration, SnapshotConfig};
use crate::error::{Error, Kind, Result};
use crate::target::state::Control;

/// The settings that may be changed while a run lives, each with what it takes.
pub const KEYS: [(&str, &str); 5] = [
    ("snapshot.max_rows_per_second", "rows over all workers together, or none"),
    ("snapshot.workers", "1 to 256"),
    ("apply.batch_rows", "at least 1"),
    ("apply.batch_bytes", "64kB to 1GB"),
    ("apply.linger", "0ms to 60s"),
];

/// What gives a setting back to the config file.
pub const DEFAULT: &str = "default";

/// What holds now.
#[derive(Debug, Clone)]
pub struct Orders {
    /// The control row's version.
    pub version: i64,
    /// Since when the copy is paused.
    pub snapshot_paused: Option<Timestamp>,
    /// Since when nothing is applied.
    pub apply_paused: Option<Timestamp>,
    /// The copy's settings.
    pub snapshot: SnapshotConfig,
    /// The batches' settings.
    pub apply: ApplyConfig,
}

/// What a run is asked to do, for everything in it. Made once a run.
#[derive(Debug)]
pub struct Steering {
    file: (SnapshotConfig, ApplyConfig),
    orders: watch::Sender<Orders>,
    /// The copy begins no further table, so that the stream can free the source's log.
    back: AtomicBool,
    /// When the next row of the copy may pass.
    next_row: Mutex<Instant>,
}

impl Steering {
    /// As the config file says, until the control row says otherwise.
    pub fn new(config: &Config) -> Self {
        Steering::of(config.snapshot.clone(), config.apply.clone())
    }

    /// As these say.
    pub fn of(snapshot: SnapshotConfig, apply: ApplyConfig) -> Self {
        let orders = Orders {
            version: 0,
            snapshot_paused: None,
            apply_paused: None,
            snapshot: snapshot.clone(),
            apply: apply.clone(),
        };
        Steering {
            file: (snapshot, apply),
            orders: watch::Sender::new(orders),
            back: AtomicBool::new(false),
            next_row: Mutex::new(Instant::now()),
        }
    }

    /// Takes the control row up. `true` if it is news.
    pub fn take_up(&self, control: &Control) -> bool {
        if self.orders.borrow().version == control.version {
            return false;
        }
        let (mut snapshot, mut apply) = self.file.clone();
        for (key, value) in &control.settings {
            // Written by a binary that knows more than this one, at worst.
            if let Err(error) = set(&mut snapshot, &mut apply, key, value) {
                tracing::warn!(%error, "a setting of the control row is left out");
            }
        }
        // Who waits for the old pace goes on at the new one.
        *self.next_row.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        tracing::info!(
            snapshot_paused = control.snapshot_paused_at.is_some(),
            apply_paused = control.apply_paused_at.is_some(),
            settings = ?control.settings,
            "takes up what is asked of the run"
        );
        self.orders.send_replace(Orders {
            version: control.version,
            snapshot_paused: control.snapshot_paused_at,
            apply_paused: control.apply_paused_at,
            snapshot,
            apply,
        });
        true
    }

    /// The orders, and word of every change.
    pub fn watch(&self) -> watch::Receiver<Orders> {
        self.orders.subscribe()
    }

    /// The orders now.
    pub fn now(&self) -> Orders {
        self.orders.borrow().clone()
    }

    /// Whether nothing may be applied.
    pub fn apply_paused(&self) -> bool {
        self.orders.borrow().apply_paused.is_some()
    }

    /// How many steps of the copy may be under way; none while it is paused.
    pub fn copy_workers(&self) -> usize {
        let orders = self.orders.borrow();
        if orders.snapshot_paused.is_some() { 0 } else { orders.snapshot.workers.max(1) }
    }

    /// Tells the copy to step back, or that it need not any more.
    pub fn step_back(&self, back: bool) {
        self.back.store(back, Ordering::Relaxed);
    }

    /// Whether the copy is to begin no further table.
    pub fn stepped_back(&self) -> bool {
        self.back.load(Ordering::Relaxed)
    }

    /// Holds a chunk of `rows` back as long as the copy is paused, and as long as the throttle wants.
    pub async fn pass(&self, rows: u64) {
        let mut orders = self.orders.subscribe();
        loop {
            let (paused, rate) = {
                let now = orders.borrow_and_update();
                (now.snapshot_paused.is_some(), now.snapshot.max_rows_per_second)
            };
            if !paused {
                let Some(rate) = rate else { return };
                let at = self.reserve(rows, rate, Instant::now());
                tokio::select! {
                    () = tokio::time::sleep_until(at) => return,
                    _ = orders.changed() => continue,
                }
            }
            if orders.changed().await.is_err() {
                return;
            }
        }
    }

    /// When these rows may pass, over all workers together. Unused time is not saved up: there are no bursts.
    fn reserve(&self, rows: u64, rows_per_second: u64, now: Instant) -> Instant {
        let took = Duration::from_secs_f64(rows as f64 / rows_per_second.max(1) as f64);
        let mut next = self.next_row.lock().unwrap_or_else(PoisonError::into_inner);
        let start = (*next).max(now);
        *next = start + took;
        start
    }
}

/// Checks `KEY=VALUE` as a person types it; the error lists what there is.
pub fn check(key: &str, value: &str) -> Result<()> {
    let known = KEYS.iter().any(|(known, _)| *known == key);
    if known && value == DEFAULT {
        return Ok(());
    }
    set(&mut SnapshotConfig::default(), &mut ApplyConfig::default(), key, value)
}

fn set(snapshot: &mut SnapshotConfig, apply: &mut ApplyConfig, key: &str, value: &str) -> Result<()> {
    let bad = |why: String| {
        Error::new(Kind::Config, format!("{key} = {value}: {why}")).fix(format!("settable on a live run:\n{}", list()))
    };
    let number = || u64::from_str(&value.replace('_', "")).map_err(|_| bad("not a whole number".to_owned()));
    let between = |number: u64, least: u64, most: u64, what: &str| {
        if (least..=most).contains(&number) { Ok(number) } else { Err(bad(what.to_owned())) }
    };
    match key {
        "snapshot.max_rows_per_second" if value == "none" => snapshot.max_rows_per_second = None,
        "snapshot.max_rows_per_second" => {
            snapshot.max_rows_per_second = Some(between(number()?, 1, u64::MAX, "at least 1, or none")?);
        }
        "snapshot.workers" => {
            snapshot.workers = between(number()?, 1, 256, "1 to 256: each is a connection at both ends")? as usize;
        }
        "apply.batch_rows" => apply.batch_rows = between(number()?, 1, u32::MAX.into(), "at least 1")? as usize,
        "apply.batch_bytes" => {
            let size = ByteSize::from_str(value).map_err(bad)?;
            apply.batch_bytes = ByteSize(between(size.0, 64 << 10, 1 << 30, "64kB to 1GB: a batch is held in memory")?);
        }
        "apply.linger" => {
            let linger = HumanDuration::from_str(value).map_err(bad)?;
            if linger.0 > Duration::from_secs(60) {
                return Err(bad("at most 60s: it is added to the lag".to_owned()));
            }
            apply.linger = linger;
        }
        _ => {
            let next = if MAY_CHANGE.contains(&key) { ": the next run takes it from the config file" } else { "" };
            let why = format!("{key:?} cannot be set on a live run{next}");
            return Err(Error::new(Kind::Config, why).fix(format!("settable on a live run:\n{}", list())));
        }
    }
    Ok(())
}

/// The keys, one a line, with what each takes.
pub fn list() -> String {
    KEYS.iter().map(|(key, takes)| format!("       {key:<30} {takes}\n")).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn steering(max_rows_per_second: Option<u64>) -> Steering {
        Steering::of(SnapshotConfig { max_rows_per_second, ..SnapshotConfig::default() }, ApplyConfig::default())
    }

    fn control(version: i64, settings: &[(&str, &str)]) -> Control {
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Control { version, settings, ..Control::default() }
    }

    #[test]
    fn the_throttle_spaces_chunks_and_saves_nothing_up() {
        let throttle = steering(None);
        let begun = Instant::now() + Duration::from_secs(1);
        // Forty chunks of any workers at one moment: the last may pass when 3,900 rows have used up their time.
        let last = (0..40).map(|_| throttle.reserve(100, 1_000, begun)).last().expect("forty");
        assert!(last >= begun + Duration::from_millis(3_899) && last < begun + Duration::from_millis(4_000));
        // After a pause of a minute the next two chunks are still a tenth of a second apart.
        let later = begun + Duration::from_secs(60);
        assert_eq!(throttle.reserve(100, 1_000, later), later);
        assert_eq!(throttle.reserve(100, 1_000, later), later + Duration::from_millis(100));
    }

    #[tokio::test]
    async fn a_new_pace_counts_at_once_also_for_who_waits_for_the_old_one() {
        let steering = std::sync::Arc::new(steering(Some(1)));
        steering.pass(1_000).await;
        let waiting = tokio::spawn({
            let steering = std::sync::Arc::clone(&steering);
            async move { steering.pass(1).await }
        });
        tokio::task::yield_now().await;
        assert!(steering.take_up(&control(1, &[("snapshot.max_rows_per_second", "none")])));
        // It had a quarter of an hour to wait.
        tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("in time").expect("it ends");
    }

    #[tokio::test]
    async fn a_paused_copy_passes_nothing_and_begins_nothing_until_it_is_resumed() {
        let steering = steering(None);
        let mut paused = control(1, &[]);
        paused.snapshot_paused_at = Some(Timestamp::UNIX_EPOCH);
        steering.take_up(&paused);
        assert_eq!(steering.copy_workers(), 0);
        let moment = Duration::from_millis(100);
        assert!(tokio::time::timeout(moment, steering.pass(1)).await.is_err());
        steering.take_up(&control(2, &[("snapshot.workers", "7")]));
        steering.pass(1).await;
        assert_eq!(steering.copy_workers(), 7);
    }

    #[test]
    fn what_is_set_goes_before_the_file_and_gives_way_to_it_again() {
        let steering = steering(Some(5));
        steering.take_up(&control(1, &[("snapshot.max_rows_per_second", "9"), ("apply.batch_bytes", "8MB")]));
        assert_eq!(steering.now().snapshot.max_rows_per_second, Some(9));
        assert_eq!(steering.now().apply.batch_bytes, ByteSize(8 << 20));
        steering.take_up(&Control { version: 2, settings: BTreeMap::new(), ..Control::default() });
        assert_eq!(steering.now().snapshot.max_rows_per_second, Some(5));
        assert!(!steering.take_up(&Control { version: 2, ..Control::default() }), "no news");
    }

    #[test]
    fn a_bad_key_or_value_is_refused_with_the_list() {
        for (key, value) in [
            ("snapshot.chunk_rows", "5"),
            ("snapshot.workers", "0"),
            ("snapshot.workers", "many"),
            ("apply.batch_bytes", "1kB"),
            ("apply.linger", "5m"),
            ("snapshot.max_rows_per_second", "0"),
            ("nonsense", DEFAULT),
        ] {
            let error = check(key, value).expect_err(key);
            assert_eq!(error.kind(), Kind::Config);
            assert!(error.suggestion().is_some_and(|fix| fix.contains("apply.linger")), "{error}");
        }
        for (key, value) in
            [("apply.linger", "20ms"), ("snapshot.max_rows_per_second", "500_000"), ("snapshot.workers", DEFAULT)]
        {
            check(key, value).expect(key);
        }
    }
}
