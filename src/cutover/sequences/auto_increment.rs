//! From MySQL or MariaDB to Postgres: `AUTO_INCREMENT` becomes an identity column, whose sequence knows nothing of the values
//! that came with the copied rows.

use super::super::Parts;
use super::{Move, Sequence, SequencePlan, postgres, set};
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{self, MyConnInfo};
use crate::postgres::{Client, connect};
use crate::schema::TableName;
use crate::source::mysql::MySource;
use crate::target::postgres::PgTarget;

/// Looks at both ends; changes nothing.
pub(super) async fn plan(parts: &Parts, source: &MySource, target: &PgTarget) -> Result<SequencePlan> {
    let target = open(parts, target).await?;
    read(parts, source, &target).await.context("comparing AUTO_INCREMENT with the target's sequences")
}

/// Sets the target's sequences; returns how many.
pub(super) async fn carry_over(parts: &Parts, source: &MySource, target: &PgTarget) -> Result<u64> {
    let target = open(parts, target).await?;
    let plan = read(parts, source, &target).await.context("reading AUTO_INCREMENT behind the fence")?;
    set(&target, &plan).await
}

async fn open(parts: &Parts, target: &PgTarget) -> Result<Client> {
    connect(target.info(), &format!("cutwater_{}_sequences", parts.name())).await
}

async fn read(parts: &Parts, source: &MySource, target: &Client) -> Result<SequencePlan> {
    let mut names = Vec::new();
    let mut next = Vec::new();
    let (mut tables, mut columns, mut usual) = (Vec::new(), Vec::new(), Vec::new());
    for (table, column, value) in counters(parts, source.info()).await? {
        let Some(plan) = parts.plan.get(&table) else { continue };
        // Its column does not travel.
        let Some(at) = plan.columns.iter().position(|&at| plan.source.columns[at].name == column) else { continue };
        let (shaped, column) = (&plan.shaped.name, &plan.shaped.columns[at].name);
        names.push(format!("AUTO_INCREMENT of {table}"));
        next.push(value);
        tables.push(shaped.sql());
        columns.push(column.clone());
        usual.push(TableName::new(shaped.schema.as_str(), format!("{}_{column}_seq", shaped.table)).sql());
    }
    let found = target.query(include_str!("at_target.sql"), &[&tables, &columns, &usual]).await?;
    let found: Vec<Option<String>> = found.iter().map(|row| row.get(0)).collect();
    let there: Vec<String> = found.iter().flatten().cloned().collect();
    let mut values = postgres::values(target, &there).await?.into_iter();
    let bounds = target.query(include_str!("bounds.sql"), &[&there]).await?;
    let mut bounds = bounds.iter();
    let mut plan = SequencePlan::default();
    for ((name, next), found) in names.into_iter().zip(next).zip(found) {
        let Some(target) = found else {
            plan.missing.push(name);
            continue;
        };
        let (Some((there, called_there)), Some(bounds)) = (values.next(), bounds.next()) else {
            return Err(Error::new(Kind::Schema, format!("sequence {target} went away")));
        };
        let (value, is_called) = sequence(next, bounds.get(0), bounds.get(1), bounds.get(2)).past(
            parts.config.sequence_margin,
            there,
            called_there,
        );
        plan.moves.push(Move { target, value, is_called });
    }
    Ok(plan)
}

/// What a sequence would be at the source that hands out `next` next.
fn sequence(next: u64, increment: i64, min: i64, max: i64) -> Sequence {
    // Beyond what an identity column holds: its bound, and the next row is refused there instead of meeting another's.
    let last = i64::try_from(next.saturating_sub(1)).unwrap_or(i64::MAX).clamp(min, max.max(min));
    Sequence { last, is_called: next > 1, increment, min, max, cycle: false }
}

/// A server's counters: table, column, what comes next.
pub(super) async fn counters(parts: &Parts, server: &MyConnInfo) -> Result<Vec<(TableName, String, u64)>> {
    let mut session = mysql::connect(server, &format!("cutwater_{}_sequences", parts.name())).await?;
    // MySQL 8 shows what it knew up to a day ago.
    // https://dev.mysql.com/doc/refman/8.4/en/server-system-variables.html#sysvar_information_schema_stats_expiry
    if !session.server().is_mariadb() && session.server().version >= (8, 0, 0) {
        session.execute("SET SESSION information_schema_stats_expiry = 0").await?;
    }
    let rows = session.rows(include_str!("auto_increment.sql")).await?;
    let counter = |row: mysql::TextRow| match &row[..] {
        [Some(schema), Some(table), Some(column), next] => {
            let next = next.as_deref().and_then(|next| next.parse().ok()).unwrap_or(1);
            Some((TableName::new(schema.as_str(), table.as_str()), column.clone(), next))
        }
        _ => None,
    };
    Ok(rows.into_iter().filter_map(counter).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_handed_out_is_not_handed_out_again() {
        let past = |next, max| sequence(next, 1, 1, max).past(1000, 1, false);
        assert_eq!(past(1, i64::MAX), (1001, true));
        assert_eq!(past(43, i64::MAX), (1042, true));
        assert_eq!(past(2_147_483_600, 2_147_483_647), (2_147_483_623, true));
        assert_eq!(past(u64::MAX, i64::MAX), (i64::MAX, true));
        assert_eq!(sequence(1, 1, 1, i64::MAX).past(0, 1, false), (1, false));
    }
}
