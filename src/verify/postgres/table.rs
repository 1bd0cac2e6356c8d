//! One table: buckets, then the keys of the buckets that disagree.

use std::collections::HashMap;
use std::pin::Pin;

use futures::TryStreamExt as _;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, RowStream};

use super::sql::{Statements, bucket_count};
use super::{Pair, selection};
use crate::error::{Context, Result};
use crate::postgres::{Client, Equality};
use crate::source::postgres::head;
use crate::transform::TablePlan;
use crate::verify::judge::{Candidate, Entry, keep, kind_of};
use crate::verify::{DifferenceKind, Look, TableReport};

/// What one table's comparison needs.
pub(super) struct Work<'a> {
    pub(super) look: &'a Look<'a>,
    pub(super) pair: &'a Pair,
    pub(super) plan: &'a TablePlan,
}

/// The statements for both ends.
pub(super) struct Both {
    pub(super) source: Statements,
    pub(super) target: Statements,
    pub(super) keyed: bool,
}

impl Work<'_> {
    /// Compares the table.
    pub(super) async fn compare(&self) -> Result<TableReport> {
        let (source, shaped) = (&self.plan.source, &self.plan.shaped);
        let mut report = TableReport {
            source: source.name.to_string(),
            target: shaped.name.to_string(),
            buckets: bucket_count(source.estimated_rows),
            ..TableReport::default()
        };
        let both = self.statements(report.buckets).await?;

        // Both ends at the same moment: what disagrees on a live source is then what changed within the lag, and not
        // what changed while one end was being read.
        let (at_source, at_target) = tokio::try_join!(
            buckets(&self.pair.source, &both.source.buckets),
            buckets(&self.pair.target, &both.target.buckets),
        )?;
        report.rows_source = at_source.values().map(|bucket| bucket.0 as u64).sum();
        report.rows_target = at_target.values().map(|bucket| bucket.0 as u64).sum();
        let differing: Vec<i64> = at_source
            .keys()
            .chain(at_target.keys().filter(|bucket| !at_source.contains_key(bucket)))
            .filter(|bucket| at_source.get(bucket) != at_target.get(bucket))
            .copied()
            .collect();
        report.buckets_differing = differing.len() as u64;
        if differing.is_empty() {
            return Ok(report);
        }
        let candidates = self.detail(&both, &differing, &mut report).await?;
        self.recheck(&both, candidates, &mut report).await?;
        Ok(report)
    }

    pub(super) async fn statements(&self, buckets: u64) -> Result<Both> {
        let TablePlan { source, shaped, columns, .. } = self.plan;
        let names: Vec<&str> = columns.iter().map(|&index| source.columns[index].name.as_str()).collect();
        let shaped_names: Vec<&str> = shaped.columns.iter().map(|column| column.name.as_str()).collect();
        let from = selection(&self.pair.source, &source.name).await.context("at the source")?;
        let into = selection(&self.pair.target, &shaped.name).await.context("at the target")?;
        let recode = self.pair.recode;
        let source_equal = Equality::of(&self.pair.source, &source.name, &names).await?;
        let target_equal = Equality::of(&self.pair.target, &shaped.name, &shaped_names).await?;
        Ok(Both {
            // `shaped` for both: its key counts in the columns that travel, in their order.
            source: Statements::new((&names, &source_equal), shaped, &from, buckets, self.look.seed, recode),
            target: Statements::new((&shaped_names, &target_equal), shaped, &into, buckets, self.look.seed, recode),
            keyed: shaped.key.is_some(),
        })
    }

    /// Streams keys and hashes of the buckets from both ends, in one order, and keeps what disagrees. Memory holds the
    /// disagreeing keys only, whatever the size of the buckets.
    async fn detail(&self, both: &Both, buckets: &[i64], report: &mut TableReport) -> Result<Vec<Candidate>> {
        let mut source = Cursor::open(&self.pair.source, &both.source.detail, buckets).await?;
        // The source's statement has its snapshot. Once the target has applied that, whatever the source had then is
        // there, and the candidates are only what changed since.
        source.peek().await?;
        self.catch_up().await?;
        let mut target = Cursor::open(&self.pair.target, &both.target.detail, buckets).await?;
        let mut candidates = Vec::new();
        loop {
            let order = match (source.peek().await?, target.peek().await?) {
                (None, None) => return Ok(candidates),
                (Some(one), None) | (None, Some(one)) => one,
                (Some(a), Some(b)) => a.min(b),
            };
            let at_source = source.group(order).await?;
            let mut at_target = target.group(order).await?;
            for entry in at_source {
                let kind = match at_target.iter().position(|other| other.key == entry.key || !both.keyed) {
                    None => DifferenceKind::Missing,
                    Some(found) => {
                        let other = at_target.swap_remove(found);
                        if (other.hash, other.count) == (entry.hash, entry.count) {
                            continue;
                        }
                        kind_of(&entry, &other)
                    }
                };
                keep(&mut candidates, entry, kind, report);
            }
            for entry in at_target {
                keep(&mut candidates, entry, DifferenceKind::Extra, report);
            }
        }
    }

    /// Waits until the target has applied what is at the source now.
    pub(super) async fn catch_up(&self) -> Result<()> {
        if self.look.options.fenced {
            return Ok(());
        }
        self.look.catch_up(&head::of_seen(&self.pair.head).await?).await
    }
}

/// Bucket → (rows, sum of their hashes).
async fn buckets(client: &Client, sql: &str) -> Result<HashMap<i64, (i64, String)>> {
    let rows = client.query(sql, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect())
}

pub(super) fn entry(row: &Row) -> Entry {
    Entry { order: row.get(0), key: row.get(1), count: row.get(2), hash: row.get(3) }
}

/// A stream of entries in the order of their first field.
struct Cursor {
    rows: Pin<Box<RowStream>>,
    next: Option<Entry>,
    ended: bool,
}

impl Cursor {
    async fn open(client: &Client, sql: &str, buckets: &[i64]) -> Result<Cursor> {
        let params: [&(dyn ToSql + Sync); 1] = [&buckets];
        let rows = client.query_raw(sql, params).await?;
        Ok(Cursor { rows: Box::pin(rows), next: None, ended: false })
    }

    async fn peek(&mut self) -> Result<Option<i64>> {
        if self.next.is_none() && !self.ended {
            self.next = self.rows.try_next().await?.map(|row| entry(&row));
            self.ended = self.next.is_none();
        }
        Ok(self.next.as_ref().map(|entry| entry.order))
    }

    /// All entries at `order`, which is at or before the next.
    async fn group(&mut self, order: i64) -> Result<Vec<Entry>> {
        let mut group = Vec::new();
        while self.peek().await? == Some(order) {
            group.extend(self.next.take());
        }
        Ok(group)
    }
}
