//! How fast a number grows, over the last ten minutes; and how long until it reaches a limit.
//!
//! In: a number of bytes, about once a second. Out: bytes per second, and the time of room that is left. Pure code: the
//! caller brings the clock. Until half a minute is covered there is no answer: a guess would be read as a fact.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What an average is over at most …
const WINDOW: Duration = Duration::from_secs(600);
/// … and at least.
const LEAST: Duration = Duration::from_secs(20);
/// Closer samples add nothing.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);

/// Samples of a number that grows and falls.
#[derive(Debug, Clone, Default)]
pub struct Trend {
    samples: VecDeque<(Instant, u64)>,
}

impl Trend {
    /// The number was `value` at `at`.
    pub fn sample(&mut self, value: u64, at: Instant) {
        if self.samples.back().is_some_and(|(last, _)| at.saturating_duration_since(*last) < SAMPLE_EVERY) {
            return;
        }
        self.samples.push_back((at, value));
        // The oldest one kept is a whole window old, so that the average covers the window.
        while self.samples.get(1).is_some_and(|(second, _)| at.saturating_duration_since(*second) >= WINDOW) {
            self.samples.pop_front();
        }
    }

    /// Growth in units a second; negative while it falls.
    pub fn per_second(&self) -> Option<f64> {
        let ((first, from), (last, to)) = (self.samples.front()?, self.samples.back()?);
        let covered = last.saturating_duration_since(*first);
        (covered >= LEAST).then(|| (*to as f64 - *from as f64) / covered.as_secs_f64())
    }
}

/// Seconds until `kept` reaches `limit` at this growth; `None` while it does not grow, 0 once it is reached.
pub fn room_seconds(kept: u64, limit: u64, per_second: Option<f64>) -> Option<f64> {
    if kept >= limit {
        return Some(0.0);
    }
    // Below a byte a second there is no end in sight that anybody would plan for.
    per_second.filter(|rate| *rate >= 1.0).map(|rate| (limit - kept) as f64 / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60;

    fn after(samples: &[(u64, u64)]) -> Option<f64> {
        let start = Instant::now();
        let mut trend = Trend::default();
        samples.iter().for_each(|(second, value)| trend.sample(*value, start + Duration::from_secs(*second)));
        trend.per_second()
    }

    #[test]
    fn the_growth_is_that_of_the_last_ten_minutes() {
        assert_eq!(after(&[(0, 0), (MINUTE, 6_000)]), Some(100.0));
        // An hour of nothing, then ten minutes of growth.
        let mut samples: Vec<(u64, u64)> = (0..60).map(|minute| (minute * MINUTE, 0)).collect();
        samples.extend((60..=70).map(|minute| (minute * MINUTE, (minute - 60) * 600)));
        assert_eq!(after(&samples), Some(10.0));
        assert_eq!(after(&[(0, 6_000), (MINUTE, 0)]), Some(-100.0));
    }

    #[test]
    fn before_anything_is_known_there_is_no_number() {
        assert_eq!(after(&[]), None);
        assert_eq!(after(&[(0, 5), (10, 500)]), None);
    }

    #[test]
    fn the_room_that_is_left_at_this_rate() {
        let (gb, per_minute) = (1 << 30, f64::from(250 << 20) / 60.0);
        let room = room_seconds(18 * gb, 120 * gb, Some(per_minute)).expect("it grows");
        assert!((room / 60.0 - 417.8).abs() < 0.1, "{room} s are 6 h 57 m");
        assert_eq!(room_seconds(5, 5, None), Some(0.0), "reached is reached, whatever the rate");
        assert_eq!(room_seconds(4, 5, Some(-10.0)), None);
        assert_eq!(room_seconds(4, 5, Some(0.0)), None);
        assert_eq!(room_seconds(4, 5, None), None);
    }
}
