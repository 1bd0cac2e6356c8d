//! Sequences: read behind the fence, set past it at the target (TRAPS 23).
//!
//! A value that was handed out and not written leaves no trace in the log, so the stream cannot carry them. In: what counts
//! at the source (sequences, or `AUTO_INCREMENT`). Out: each counterpart set past the source's value by a margin, within its
//! bounds. What can go wrong: one without counterpart (a gate says so).

mod auto_increment;
mod mysql;
mod postgres;

use super::Parts;
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::Client;
use crate::source::AnySource;
use crate::target::AnyTarget;
use crate::verify::PgEnds;

/// What is to be set.
#[derive(Debug, Default)]
pub(super) struct SequencePlan {
    /// One entry a sequence that has a counterpart.
    pub(super) moves: Vec<Move>,
    /// Names of those that have none.
    pub(super) missing: Vec<String>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Move {
    /// Quoted name at the target.
    pub(super) target: String,
    /// Its value there afterwards.
    pub(super) value: i64,
    /// Whether that value counts as handed out.
    is_called: bool,
}

/// What a sequence is at the source.
#[derive(Debug, Clone)]
struct Sequence {
    last: i64,
    is_called: bool,
    increment: i64,
    min: i64,
    max: i64,
    cycle: bool,
}

/// Looks at both ends; changes nothing.
pub(super) async fn plan(parts: &Parts) -> Result<SequencePlan> {
    match (&parts.ends.source, &parts.ends.target) {
        (AnySource::Postgres(source), AnyTarget::Postgres(target)) => {
            postgres::plan(parts, PgEnds { source, target }).await
        }
        (AnySource::MySql(source), AnyTarget::Postgres(target)) => auto_increment::plan(parts, source, target).await,
        (AnySource::MySql(source), AnyTarget::MySql(target)) => mysql::plan(parts, source, target).await,
        (AnySource::Postgres(_), AnyTarget::MySql(_)) => Err(parts.not_between()),
    }
}

/// Sets the target's sequences; returns how many. May be run again: none goes back.
pub(super) async fn carry_over(parts: &Parts) -> Result<u64> {
    match (&parts.ends.source, &parts.ends.target) {
        (AnySource::Postgres(source), AnyTarget::Postgres(target)) => {
            postgres::carry_over(parts, PgEnds { source, target }).await
        }
        (AnySource::MySql(source), AnyTarget::Postgres(target)) => {
            auto_increment::carry_over(parts, source, target).await
        }
        (AnySource::MySql(source), AnyTarget::MySql(target)) => mysql::carry_over(parts, source, target).await,
        (AnySource::Postgres(_), AnyTarget::MySql(_)) => Err(parts.not_between()),
    }
}

/// Carries a plan out at a Postgres server.
async fn set(target: &Client, plan: &SequencePlan) -> Result<u64> {
    if !plan.missing.is_empty() {
        let why = format!("no counterpart at the target: {}", plan.missing.join(", "));
        return Err(Error::new(Kind::Schema, why).context("setting the sequences"));
    }
    let sets = plan.moves.iter().map(async |one| {
        let sql = "SELECT setval($1::text::regclass, $2, $3)";
        target
            .execute(sql, &[&one.target, &one.value, &one.is_called])
            .await
            .with_context(|| format!("setting {}", one.target))
    });
    futures::future::try_join_all(sets).await?;
    Ok(plan.moves.len() as u64)
}

impl Sequence {
    /// Where the target's is set: `margin` increments past the source's, in its direction and within its bounds, and
    /// never behind where the target's is already.
    fn past(&self, margin: u64, there: i64, called_there: bool) -> (i64, bool) {
        // Values of a cycle come again anyway: a margin would only skip some of them.
        if self.cycle {
            return (self.last, self.is_called);
        }
        let bound = if self.increment > 0 { self.max } else { self.min };
        let steps_left = (i128::from(bound) - i128::from(self.last)) / i128::from(self.increment);
        // A sequence near its end must not be used up by the margin: half of what is left is for the target.
        let steps = i128::from(margin).min(steps_left / 2).max(0);
        let wanted = i128::from(self.last) + steps * i128::from(self.increment);
        let wanted = i64::try_from(wanted).unwrap_or(self.last);
        let ahead = if self.increment > 0 { there > wanted } else { there < wanted };
        if ahead { (there, called_there) } else { (wanted, steps > 0 || self.is_called) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(last: i64, increment: i64) -> Sequence {
        Sequence { last, is_called: true, increment, min: i64::MIN, max: i64::MAX, cycle: false }
    }

    #[test]
    fn a_sequence_is_set_past_the_source_in_its_own_direction() {
        assert_eq!(sequence(10, 1).past(1000, 1, false), (1010, true));
        assert_eq!(sequence(10, 5).past(1000, 1, false), (5010, true));
        assert_eq!(sequence(-10, -1).past(1000, -1, false), (-1010, true));
    }

    #[test]
    fn a_margin_never_uses_a_sequence_up() {
        let small = Sequence { max: 100, min: 1, ..sequence(90, 1) };
        assert_eq!(small.past(1000, 1, false), (95, true));
        assert_eq!(Sequence { last: 100, ..small }.past(1000, 1, false), (100, true));
        assert_eq!(sequence(i64::MAX - 2, 1).past(1000, 1, false), (i64::MAX - 1, true));
    }

    #[test]
    fn a_cycle_goes_on_where_it_was() {
        let cycle = Sequence { max: 100, min: 1, cycle: true, ..sequence(99, 1) };
        assert_eq!(cycle.past(1000, 1, false), (99, true));
    }

    #[test]
    fn a_second_attempt_never_sets_a_sequence_back() {
        assert_eq!(sequence(10, 1).past(1000, 2000, true), (2000, true));
        assert_eq!(sequence(-10, -1).past(1000, -2000, true), (-2000, true));
    }

    #[test]
    fn an_unused_sequence_without_margin_stays_unused() {
        assert_eq!(Sequence { is_called: false, ..sequence(1, 1) }.past(0, 1, false), (1, false));
    }
}
