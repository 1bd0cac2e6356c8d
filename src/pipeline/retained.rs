//! The log that the source keeps for us, and what happens when it is too much (law 7).
//!
//! In: the head, sampled once a second. Out: the room that is left, words in the log before and when it runs out, and
//! the [`Verdict`] that `[source] on_limit` asks for. Two limits count: `[source] max_retained`, and the server's own
//! `max_slot_wal_keep_size`, past which it throws away what the slot needs without asking anybody.

use std::time::{Duration, Instant};

use crate::config::{ByteSize, OnLimit, SourceConfig};
use crate::error::{Error, Kind};
use crate::source::Head;
use crate::telemetry::{Trend, room_seconds};

/// From this share of the limit on the log speaks of it …
const NEAR: f64 = 0.8;
/// … and whenever less than this is left at the present rate.
const SOON: f64 = 3600.0;
/// While it is near or past the limit, the log says so again after this.
const AGAIN: Duration = Duration::from_secs(600);
/// A server that is about to throw log away does not wait for the last byte to be counted.
const SERVER_SHARE: f64 = 0.9;

/// What is to be done.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing.
    Fine,
    /// No further table's copy is to be begun until the stream has freed the log.
    StepBack,
    /// The slot is to be dropped, and the run ends with this.
    GiveUp(Error),
}

/// Watches the log that is kept for one migration.
#[derive(Debug, Default)]
pub struct Retained {
    max: Option<ByteSize>,
    policy: OnLimit,
    trend: Trend,
    kept: Option<u64>,
    server_limit: Option<u64>,
    said: Option<(Level, Instant)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Near,
    Over,
    Unreserved,
    Lost,
}

impl Retained {
    /// As `[source]` says.
    pub fn new(config: &SourceConfig) -> Self {
        Retained { max: config.max_retained, policy: config.on_limit, ..Retained::default() }
    }

    /// The nearer of the two limits, in bytes.
    pub fn limit(&self) -> Option<u64> {
        self.max.map(|max| max.0).into_iter().chain(self.server_limit).min()
    }

    /// Bytes a second, over the last minutes.
    pub fn growth(&self) -> Option<f64> {
        self.trend.per_second()
    }

    /// Seconds until the nearer limit is reached at this rate.
    pub fn room(&self) -> Option<f64> {
        room_seconds(self.kept?, self.limit()?, self.growth())
    }

    /// Takes a sample in, says what there is to say, and decides. `safe_up_to` is where the target stands, for the error.
    pub fn judge(&mut self, head: &Head, safe_up_to: &str, at: Instant) -> Verdict {
        self.kept = head.retained_bytes;
        self.server_limit = head.server_limit_bytes;
        let Some(kept) = self.kept else { return Verdict::Fine };
        self.trend.sample(kept, at);
        self.say(kept, head.slot_status.as_deref(), at);
        let over = self.max.is_some_and(|max| kept > max.0);
        let server_near = self.server_limit.is_some_and(|limit| kept as f64 > limit as f64 * SERVER_SHARE);
        match self.policy {
            OnLimit::PauseSnapshot if over || server_near => Verdict::StepBack,
            OnLimit::DropSlot if over => Verdict::GiveUp(self.given_up(kept, safe_up_to)),
            _ => Verdict::Fine,
        }
    }

    fn given_up(&self, kept: u64, safe_up_to: &str) -> Error {
        let allowed = self.max.map_or(0, |max| max.0);
        Error::new(
            Kind::SlotLost,
            format!(
                "the source kept {kept} bytes of log for this migration, more than the {allowed} that [source] \
                 max_retained allows, and on_limit = \"drop-slot\" gave the slot up so that the source's disk does not \
                 fill: the target stands at {safe_up_to}, and the changes after that cannot be followed any more"
            ),
        )
        .fix(
            "the source and its application are not affected. Remove what held the target up, or allow more \
             (max_retained); then cutwater teardown and cutwater run: the copy starts over",
        )
    }

    fn say(&mut self, kept: u64, slot_status: Option<&str>, at: Instant) {
        let limit = self.limit();
        let room = self.room();
        let level = match (slot_status, limit) {
            (Some("lost"), _) => Some(Level::Lost),
            (Some("unreserved"), _) => Some(Level::Unreserved),
            (_, Some(limit)) if kept > limit => Some(Level::Over),
            (_, Some(limit)) if kept as f64 > limit as f64 * NEAR => Some(Level::Near),
            _ if room.is_some_and(|left| left < SOON) => Some(Level::Near),
            _ => None,
        };
        let Some(level) = level else {
            self.said = None;
            return;
        };
        if self.said.is_some_and(|(said, when)| level <= said && at.saturating_duration_since(when) < AGAIN) {
            return;
        }
        self.said = Some((level, at));
        let (per_minute, left) = (self.growth().map(|rate| (rate * 60.0) as i64), room.map(|left| left as u64));
        match level {
            Level::Near => tracing::warn!(
                kept_bytes = kept,
                limit_bytes = limit,
                bytes_per_minute = per_minute,
                seconds_left = left,
                "the log the source keeps for this migration nears its limit"
            ),
            Level::Over => {
                tracing::warn!(
                    kept_bytes = kept,
                    limit_bytes = limit,
                    bytes_per_minute = per_minute,
                    "the source keeps more log for this migration than it may: {}",
                    self.policy.consequence()
                );
            }
            Level::Unreserved => tracing::error!(
                kept_bytes = kept,
                "the slot is past max_slot_wal_keep_size (wal_status is \"unreserved\"): the next checkpoint of the source \
                 throws away log this migration needs. Raise max_slot_wal_keep_size on the source now, and reload it"
            ),
            Level::Lost => tracing::error!(
                "the source has thrown away log this migration needs (wal_status is \"lost\"): changes are missing for \
                 good. cutwater teardown, raise max_slot_wal_keep_size, then cutwater run: the copy starts over"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::change::{LogFiles, Lsn};

    fn head(kept: u64, server_limit: Option<u64>) -> Head {
        Head {
            position: Lsn(kept).into(),
            files: LogFiles::default(),
            time: Timestamp::UNIX_EPOCH,
            retained_bytes: Some(kept),
            slot_status: Some("extended".into()),
            server_limit_bytes: server_limit,
        }
    }

    fn watch(max: Option<u64>, policy: OnLimit) -> Retained {
        Retained { max: max.map(ByteSize), policy, ..Retained::default() }
    }

    fn word(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::Fine => "fine",
            Verdict::StepBack => "step back",
            Verdict::GiveUp(_) => "give up",
        }
    }

    #[test]
    fn each_policy_does_at_the_limit_what_it_says_and_nothing_before() {
        for (policy, at_limit) in
            [(OnLimit::Warn, "fine"), (OnLimit::PauseSnapshot, "step back"), (OnLimit::DropSlot, "give up")]
        {
            let mut retained = watch(Some(100), policy);
            assert_eq!(word(&retained.judge(&head(100, None), "0/1", Instant::now())), "fine");
            assert_eq!(word(&retained.judge(&head(101, None), "0/1", Instant::now())), at_limit, "{policy:?}");
        }
    }

    #[test]
    fn the_servers_own_limit_counts_too_but_never_makes_us_drop_the_slot() {
        let mut retained = watch(Some(1_000), OnLimit::DropSlot);
        assert_eq!(word(&retained.judge(&head(190, Some(200)), "0/1", Instant::now())), "fine");
        assert_eq!(retained.limit(), Some(200));
        let mut retained = watch(Some(1_000), OnLimit::PauseSnapshot);
        assert_eq!(word(&retained.judge(&head(190, Some(200)), "0/1", Instant::now())), "step back");
    }

    #[test]
    fn the_error_says_what_was_given_up_and_why() {
        let Verdict::GiveUp(error) =
            watch(Some(100), OnLimit::DropSlot).judge(&head(101, None), "5D/8A", Instant::now())
        else {
            panic!("over the limit");
        };
        let text = error.to_string();
        for part in ["101 bytes", "100 that [source] max_retained", "5D/8A", "not affected", "cutwater teardown"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }
}
