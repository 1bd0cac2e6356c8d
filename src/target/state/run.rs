//! What a live run says about itself, and what people ask of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::change::Position;

/// What a `run` says about itself once a second: the row `cutwater.run`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunReport {
    /// Host it runs on.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// When it started, by its own clock.
    pub started_at: Timestamp,
    /// `ok`, `stalled`, `paused`, `error`, `stopped`.
    pub health: Health,
    /// The newest source time at which everything then committed is known to be durable at the target.
    pub caught_up_at: Option<Timestamp>,
    /// The source's head at its last sample.
    pub source_head: Option<Position>,
    /// Lag in seconds as the run measured it.
    pub lag_seconds: Option<f64>,
    /// Lag in bytes of source log.
    pub lag_bytes: Option<u64>,
    /// Worst lag of the last hour, in seconds.
    pub worst_lag_seconds: Option<f64>,
    /// When that was.
    pub worst_lag_at: Option<Timestamp>,
    /// Bytes of log the source keeps for us.
    pub retained_bytes: Option<u64>,
    /// The nearer of `[source] max_retained` and the server's own limit, in bytes.
    #[serde(default)]
    pub retained_limit: Option<u64>,
    /// How fast the kept log grows, in bytes a second, over the last ten minutes.
    #[serde(default)]
    pub retained_growth: Option<f64>,
    /// Seconds until the limit is reached at that rate.
    #[serde(default)]
    pub retained_room: Option<f64>,
    /// How fast the lag grows, in bytes a second, over the last ten minutes.
    #[serde(default)]
    pub lag_growth: Option<f64>,
    /// The throttle that holds, in rows a second; `None`: none.
    #[serde(default)]
    pub max_rows_per_second: Option<u64>,
    /// The copy has stepped back until the stream has freed the source's log.
    #[serde(default)]
    pub stepped_back: bool,
    /// Since when the source has not answered.
    #[serde(default)]
    pub source_away_since: Option<Timestamp>,
    /// Changes per second over the last ten seconds.
    pub changes_per_second: f64,
    /// Source transactions per second over the last ten seconds.
    pub transactions_per_second: f64,
    /// Rows per second of the copy over the last ten seconds.
    pub copy_rows_per_second: f64,
    /// Bytes per second of the copy over the last ten seconds.
    pub copy_bytes_per_second: f64,
    /// Indexes and constraints built, and in all.
    pub indexes_done: u64,
    /// …
    pub indexes_total: u64,
    /// What keeps it from working, if anything.
    pub trouble: Option<Trouble>,
}

/// Why a run does not move.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trouble {
    /// The error, as it would be printed.
    pub error: String,
    /// Label of its kind.
    pub kind: String,
    /// When it first happened.
    pub first_at: Timestamp,
    /// How often it was tried since.
    pub tries: u32,
    /// When it is tried next.
    pub next_try_at: Option<Timestamp>,
}

/// Whether a run works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// It works.
    Ok,
    /// It tries, and something is in the way.
    Stalled,
    /// It was told to pause, and does.
    Paused,
    /// It has stopped for good, with [`RunReport::trouble`].
    Error,
    /// It was asked to stop, and did.
    Stopped,
}

/// The row `cutwater.control`: what people ask of the run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Control {
    /// Raised by everyone who asks for something.
    pub version: i64,
    /// Since when the copy is paused, by the target's clock.
    pub snapshot_paused_at: Option<Timestamp>,
    /// Since when nothing is applied, by the target's clock.
    pub apply_paused_at: Option<Timestamp>,
    /// Who paused.
    pub paused_by: Option<String>,
    /// Key of the config file → value, as it is written there; it goes before the file's.
    pub settings: BTreeMap<String, String>,
    /// The version the run acts on.
    pub acknowledged: i64,
    /// Which run that is.
    pub acknowledged_by: Option<String>,
}

/// A change to [`Control`]. `None` leaves something as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    /// Pause the copy, or let it go on.
    pub snapshot_paused: Option<bool>,
    /// Pause the applying, or let it go on.
    pub apply_paused: Option<bool>,
    /// Settings to change; a `None` gives the setting back to the file.
    pub settings: BTreeMap<String, Option<String>>,
}
