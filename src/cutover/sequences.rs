//! Sequences: read behind the fence, set past it at the target (TRAPS 23).
//!
//! A value that was handed out and not written leaves no trace in the log, so the stream cannot carry them. In: the
//! sequences of the migrated schemas, those of identity and serial columns included. Out: each counterpart set past the
//! source's value by a margin, within its bounds. What can go wrong: a sequence without counterpart (a gate says so).

use std::collections::BTreeSet;

use crate::error::{Context, Error, Kind, Result};
use crate::postgres::{Client, connect};
use crate::schema::TableName;

use super::{Parts, journal};

/// What is to be set.
#[derive(Debug, Default)]
pub(super) struct SequencePlan {
    /// One entry a sequence that has a counterpart.
    pub(super) moves: Vec<Move>,
    /// Names of those that have none.
    pub(super) missing: Vec<String>,
}

/// One sequence.
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
    let source = journal::source(parts).await?;
    let target = connect(parts.target()?, &format!("cutwater_{}_sequences", parts.name())).await?;
    read(parts, &source, &target).await.context("comparing the sequences of both ends")
}

/// Sets the target's sequences; returns how many. May be run again: none goes back.
pub(super) async fn carry_over(parts: &Parts) -> Result<u64> {
    let source = journal::source(parts).await?;
    let target = connect(parts.target()?, &format!("cutwater_{}_sequences", parts.name())).await?;
    let plan = read(parts, &source, &target).await.context("reading the sequences behind the fence")?;
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

async fn read(parts: &Parts, source: &Client, target: &Client) -> Result<SequencePlan> {
    let tables: Vec<_> = parts.plan.tables().collect();
    let schemas: BTreeSet<&str> = tables.iter().map(|table| table.source.name.schema.as_str()).collect();
    let schemas: Vec<&str> = schemas.into_iter().collect();
    let rows = source.query(include_str!("sequences/at_source.sql"), &[&schemas]).await?;

    // Where each should be at the target: (owning table and column, or nothing), and the name to fall back on.
    let (mut owner_tables, mut owner_columns, mut fallbacks) = (Vec::new(), Vec::new(), Vec::new());
    let mut kept = Vec::new();
    for row in &rows {
        let name = TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1));
        let owner = row
            .get::<_, Option<&str>>(6)
            .zip(row.get(7))
            .map(|(schema, table): (&str, &str)| TableName::new(schema, table));
        let planned = owner.as_ref().and_then(|owner| parts.plan.get(owner));
        if owner.is_some() && planned.is_none() {
            // The sequence of a table that is not migrated stays with it.
            continue;
        }
        let column = row.get::<_, Option<&str>>(8).unwrap_or_default();
        let index = planned.and_then(|plan| plan.columns.iter().position(|&at| plan.source.columns[at].name == column));
        if planned.is_some() && index.is_none() {
            // Its column does not travel.
            continue;
        }
        let shaped = planned.zip(index).map(|(plan, index)| (&plan.shaped.name, &plan.shaped.columns[index].name));
        owner_tables.push(shaped.map(|(table, _)| table.sql()).unwrap_or_default());
        owner_columns.push(shaped.map(|(_, column)| column.clone()).unwrap_or_default());
        let schema = shaped.map_or(name.schema.as_str(), |(table, _)| table.schema.as_str());
        fallbacks.push(TableName::new(schema, name.table.as_str()).sql());
        kept.push((name, row));
    }
    let found =
        target.query(include_str!("sequences/at_target.sql"), &[&owner_tables, &owner_columns, &fallbacks]).await?;

    let at_source = values(source, &kept.iter().map(|(name, _)| name.sql()).collect::<Vec<_>>()).await?;
    let here: Vec<Option<String>> = found.iter().map(|row| row.get(0)).collect();
    let at_target = values(target, &here.iter().flatten().cloned().collect::<Vec<_>>()).await?;
    let mut at_target = at_target.into_iter();
    let mut plan = SequencePlan::default();
    for (((name, row), (last, is_called)), here) in kept.iter().zip(at_source).zip(here) {
        let Some(here) = here else {
            plan.missing.push(name.to_string());
            continue;
        };
        let sequence =
            Sequence { last, is_called, increment: row.get(2), min: row.get(3), max: row.get(4), cycle: row.get(5) };
        let (there, called_there) = at_target.next().unwrap_or((last, is_called));
        let (value, is_called) = sequence.past(parts.config.sequence_margin, there, called_there);
        plan.moves.push(Move { target: here, value, is_called });
    }
    Ok(plan)
}

/// `last_value` and `is_called` of each, in order.
async fn values(client: &Client, names: &[String]) -> Result<Vec<(i64, bool)>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let each = names.iter().enumerate().map(|(n, name)| format!("SELECT {n} AS n, last_value, is_called FROM {name}"));
    let sql = format!("{} ORDER BY n", each.collect::<Vec<_>>().join(" UNION ALL "));
    let rows = client.query(&sql, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(1), row.get(2))).collect())
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
