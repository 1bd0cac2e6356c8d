//! Between two servers of MySQL or MariaDB: `AUTO_INCREMENT` at the target is past the rows that came, and not past what was
//! handed out at the source and written nowhere.

use super::super::Parts;
use super::auto_increment::counters;
use super::{Move, SequencePlan};
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{connect, my_table};
use crate::source::mysql::MySource;
use crate::target::mysql::MyTarget;

/// Looks at both ends; changes nothing.
pub(super) async fn plan(parts: &Parts, source: &MySource, target: &MyTarget) -> Result<SequencePlan> {
    let there = counters(parts, target.info()).await.context("reading AUTO_INCREMENT at the target")?;
    let mut plan = SequencePlan::default();
    for (table, column, next) in counters(parts, source.info()).await.context("reading AUTO_INCREMENT at the source")? {
        let Some(rows) = parts.plan.get(&table) else { continue };
        // Its column does not travel.
        let Some(at) = rows.columns.iter().position(|&at| rows.source.columns[at].name == column) else { continue };
        let (name, column) = (&rows.shaped.name, &rows.shaped.columns[at].name);
        match there.iter().find(|(table, other, _)| table == name && other == column) {
            Some((_, _, here)) => {
                let past = next.saturating_add(parts.config.sequence_margin).max(*here);
                let value = i64::try_from(past).unwrap_or(i64::MAX);
                plan.moves.push(Move { target: format!("AUTO_INCREMENT of {name}"), value, is_called: false });
            }
            None => plan.missing.push(format!("AUTO_INCREMENT of {table}")),
        }
    }
    Ok(plan)
}

/// Sets the target's counters; returns how many. None goes back: the servers do not let it.
pub(super) async fn carry_over(parts: &Parts, source: &MySource, target: &MyTarget) -> Result<u64> {
    let plan = plan(parts, source, target).await?;
    if !plan.missing.is_empty() {
        let why = format!("no counterpart at the target: {}", plan.missing.join(", "));
        return Err(Error::new(Kind::Schema, why).context("setting AUTO_INCREMENT"));
    }
    let mut session = connect(target.info(), &format!("cutwater_{}_sequences", parts.name())).await?;
    let tables = parts.plan.tables().map(|table| &table.shaped.name);
    for table in tables {
        let target = format!("AUTO_INCREMENT of {table}");
        let Some(one) = plan.moves.iter().find(|one| one.target == target) else { continue };
        let sql = format!("ALTER TABLE {} AUTO_INCREMENT = {}", my_table(table), one.value);
        session.execute(sql).await.with_context(|| format!("setting {target}"))?;
    }
    Ok(plan.moves.len() as u64)
}
