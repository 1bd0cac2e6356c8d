//! How far behind the target is, measured end to end (law 10, TRAPS 25).
//!
//! In: samples of the source's head with the source's clock, and positions that became durable at the target. Out: lag
//! in seconds and bytes, and the newest source time at which everything then committed is known to be durable. Pure
//! code: the caller brings the clocks. It never reports zero for want of news: a source that was not sampled lately
//! counts as pending since its last sample.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::change::{LogFiles, Position};

/// A head older than this may have moved on: it no longer proves that nothing is pending. Three missed samples.
const STALE: Duration = Duration::from_secs(3);

/// Samples kept while the target is stuck. When they are used up every second one is forgotten, which can only make
/// the lag look longer, never shorter.
const MAX_SAMPLES: usize = 4096;

/// The window of [`LagReading::worst_seconds`].
const WORST_WINDOW: SignedDuration = SignedDuration::from_secs(3600);

#[derive(Debug, Clone)]
struct Sample {
    time: Timestamp,
    position: Position,
}

/// Turns samples and durable positions into lag.
#[derive(Debug, Clone, Default)]
pub struct LagMeter {
    /// Heads above the durable position, oldest first.
    pending: VecDeque<Sample>,
    newest: Option<(Sample, Instant)>,
    /// The files of the source's log, as they were then.
    files: LogFiles,
    durable: Option<Position>,
    caught_up_at: Option<Timestamp>,
    /// The worst lag of each minute of the last hour: its source time and seconds.
    worst: VecDeque<(Timestamp, f64)>,
}

/// The lag at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LagReading {
    /// Seconds; `None` before the first sample and the first durable position.
    pub seconds: Option<f64>,
    /// Bytes of source log between the durable position and the newest head known.
    pub bytes: Option<u64>,
    /// The newest source time at which everything then committed is known to be durable.
    pub caught_up_at: Option<Timestamp>,
    /// The worst lag of the last hour, in seconds.
    pub worst_seconds: Option<f64>,
    /// When that was, by the source's clock.
    pub worst_at: Option<Timestamp>,
}

impl LagMeter {
    /// A meter that goes on from what an earlier run knew.
    pub fn new(caught_up_at: Option<Timestamp>) -> Self {
        LagMeter { caught_up_at, ..LagMeter::default() }
    }

    /// The files that the source's log is made of, if it is made of files.
    pub fn log_is(&mut self, files: &LogFiles) {
        self.files = files.clone();
    }

    /// The source's head was at `position` when its clock said `time`; `at` is our own clock.
    pub fn sample(&mut self, time: Timestamp, position: &Position, at: Instant) {
        let sample = Sample { time, position: position.clone() };
        if self.durable.as_ref().is_some_and(|durable| durable >= position) {
            self.reached(time);
        } else if self.pending.back().is_none_or(|last| last.position < *position) {
            // An unmoved head proves nothing new: its first sample is the oldest change's best known time.
            self.pending.push_back(sample.clone());
            if self.pending.len() > MAX_SAMPLES {
                let mut keep = false;
                self.pending.retain(|_| {
                    keep = !keep;
                    keep
                });
            }
        }
        self.newest = Some((sample, at));
        self.remember_worst(at);
    }

    /// Everything up to `position` is durable. `commit_time` is the source's commit time of the newest transaction in
    /// it: commits are logged in the order of their times, to within microseconds.
    pub fn durable(&mut self, position: &Position, commit_time: Option<Timestamp>) {
        if self.durable.as_ref().is_some_and(|known| known > position) {
            return;
        }
        self.durable = Some(position.clone());
        while let Some(sample) = self.pending.front().filter(|sample| sample.position <= *position) {
            self.caught_up_at = Some(self.caught_up_at.map_or(sample.time, |known| known.max(sample.time)));
            self.pending.pop_front();
        }
        let at_head = self.newest.as_ref().filter(|(newest, _)| newest.position <= *position);
        if let Some(time) = at_head.map(|(newest, _)| newest.time) {
            self.reached(time);
        }
        if let Some(time) = commit_time {
            self.reached(time);
        }
    }

    /// What is known to be durable.
    pub fn durable_position(&self) -> Option<&Position> {
        self.durable.as_ref()
    }

    fn reached(&mut self, time: Timestamp) {
        self.caught_up_at = Some(self.caught_up_at.map_or(time, |known| known.max(time)));
    }

    /// The lag when our own clock says `at`.
    pub fn reading(&self, at: Instant) -> LagReading {
        let worst = self.worst.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
        LagReading {
            seconds: self.seconds(at),
            bytes: self.bytes(),
            caught_up_at: self.caught_up_at,
            worst_seconds: worst.map(|(_, seconds)| seconds),
            worst_at: worst.map(|(time, _)| time),
        }
    }

    fn bytes(&self) -> Option<u64> {
        let (newest, _) = self.newest.as_ref()?;
        newest.position.bytes_since(self.durable.as_ref()?, &self.files)
    }

    fn seconds(&self, at: Instant) -> Option<f64> {
        let (newest, sampled) = self.newest.as_ref()?;
        let durable = self.durable.as_ref()?;
        let silence = at.saturating_duration_since(*sampled);
        if *durable >= newest.position && silence <= STALE {
            return Some(0.0);
        }
        // The source's clock now, as far as we can know it when it does not answer.
        let now = newest.time.saturating_add(SignedDuration::try_from(silence).unwrap_or_default()).ok()?;
        let since = match (self.caught_up_at, self.pending.front()) {
            (Some(time), _) => time,
            (None, Some(oldest)) => oldest.time,
            (None, None) => newest.time,
        };
        Some(now.duration_since(since).as_secs_f64().max(0.0))
    }

    fn remember_worst(&mut self, at: Instant) {
        let (Some(seconds), Some((newest, _))) = (self.seconds(at), &self.newest) else { return };
        let now = newest.time;
        match self.worst.back_mut() {
            Some(last) if last.0.as_second() / 60 == now.as_second() / 60 => {
                if seconds > last.1 {
                    *last = (now, seconds);
                }
            }
            _ => self.worst.push_back((now, seconds)),
        }
        while self.worst.front().is_some_and(|(time, _)| now.duration_since(*time) > WORST_WINDOW) {
            self.worst.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Lsn;

    fn second(s: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + s).expect("in range")
    }

    fn lsn(at: u64) -> Position {
        Lsn(at).into()
    }

    /// A meter with its own clock: one tick is one second on both sides.
    struct Clock {
        meter: LagMeter,
        start: Instant,
    }

    impl Clock {
        fn new() -> Self {
            Clock { meter: LagMeter::default(), start: Instant::now() }
        }

        fn at(&self, s: i64) -> Instant {
            self.start + Duration::from_secs(s as u64)
        }

        fn sample(&mut self, s: i64, head: u64) {
            self.meter.sample(second(s), &lsn(head), self.at(s));
        }

        fn seconds(&self, s: i64) -> Option<f64> {
            self.meter.reading(self.at(s)).seconds
        }
    }

    #[test]
    fn idle_is_zero() {
        let mut clock = Clock::new();
        clock.meter.durable(&lsn(100), None);
        for s in 0..1000 {
            clock.sample(s, 100);
            assert_eq!(clock.seconds(s), Some(0.0));
        }
        assert_eq!(clock.meter.reading(clock.at(999)).caught_up_at, Some(second(999)));
    }

    #[test]
    fn with_the_reader_cut_off_lag_grows() {
        let mut clock = Clock::new();
        clock.meter.durable(&lsn(100), None);
        clock.sample(0, 100);
        for s in 1..60 {
            clock.sample(s, 100 + s as u64);
            assert_eq!(clock.seconds(s), Some(s as f64));
        }
        assert_eq!(clock.meter.reading(clock.at(59)).bytes, Some(59));
    }

    #[test]
    fn one_change_that_does_not_arrive_ages_although_the_head_stands_still() {
        let mut clock = Clock::new();
        clock.meter.durable(&lsn(100), None);
        clock.sample(0, 100);
        for s in 1..60 {
            clock.sample(s, 101);
        }
        assert_eq!(clock.seconds(59), Some(59.0));
    }

    #[test]
    fn a_source_that_cannot_be_asked_counts_as_pending() {
        let mut clock = Clock::new();
        clock.meter.durable(&lsn(100), None);
        clock.sample(0, 100);
        assert_eq!(clock.seconds(2), Some(0.0), "one missed sample is no news");
        assert_eq!(clock.seconds(30), Some(30.0));
    }

    #[test]
    fn catching_up_brings_the_lag_down_to_the_age_of_the_newest_durable_commit() {
        let mut clock = Clock::new();
        clock.meter.durable(&lsn(0), None);
        for s in 0..60 {
            clock.sample(s, 100 + s as u64);
        }
        clock.meter.durable(&lsn(130), Some(second(31)));
        assert_eq!(clock.seconds(59), Some(28.0));
        clock.meter.durable(&lsn(159), Some(second(58)));
        assert_eq!(clock.seconds(59), Some(0.0));
    }

    #[test]
    fn before_anything_is_known_there_is_no_number() {
        let mut clock = Clock::new();
        assert_eq!(clock.seconds(0), None);
        clock.sample(0, 100);
        assert_eq!(clock.seconds(0), None);
    }

    #[test]
    fn a_later_run_knows_since_when_the_earlier_one_was_behind() {
        let mut clock = Clock { meter: LagMeter::new(Some(second(-600))), start: Instant::now() };
        clock.meter.durable(&lsn(100), None);
        clock.sample(0, 200);
        assert_eq!(clock.seconds(0), Some(600.0));
    }

    #[test]
    fn days_of_a_stuck_target_stay_bounded_and_honest() {
        let mut clock = Clock::new();
        clock.meter.durable(&lsn(0), None);
        for s in 0..20_000 {
            clock.sample(s, 100 + s as u64);
        }
        assert!(clock.meter.pending.len() <= MAX_SAMPLES);
        clock.meter.durable(&lsn(100 + 15_000), None);
        assert!(clock.seconds(19_999).expect("known") >= 4_999.0, "thinning never shortens the lag");
    }

    #[test]
    fn the_worst_of_the_last_hour_is_kept_and_then_forgotten() {
        let mut clock = Clock::new();
        clock.meter.durable(&lsn(100), None);
        clock.sample(0, 100);
        for s in 1..=42 {
            clock.sample(s, 101);
        }
        clock.meter.durable(&lsn(101), None);
        clock.sample(43, 101);
        let reading = clock.meter.reading(clock.at(43));
        assert_eq!((reading.worst_seconds, reading.worst_at), (Some(42.0), Some(second(42))));
        for s in 44..4000 {
            clock.sample(s, 101);
        }
        assert_eq!(clock.meter.reading(clock.at(3999)).worst_seconds, Some(0.0));
    }
}
