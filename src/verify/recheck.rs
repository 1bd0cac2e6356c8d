//! The rows that disagreed, read again behind the stream until it is certain what they are.
//!
//! A row differs if the source shows one version of it before and after the target was read, and the target another. Not
//! merely the same values: a row that changes to and fro would be blamed for what the target rightly shows in between.

use std::collections::HashMap;

use tokio_postgres::types::ToSql;

use super::table::{Both, Candidate, Entry, Look, entry, kind_of};
use super::{DifferenceKind, RowDifference, TableReport};
use crate::error::Result;
use crate::postgres::Client;

/// Keys read at once.
const AT_ONCE: usize = 1_000;
/// Times a row that changes under our eyes is looked at again.
const ROUNDS: usize = 12;

/// A row as it was read, and which transaction wrote it.
struct Read {
    entry: Entry,
    version: i64,
}

type Found = HashMap<(i64, Vec<String>), Read>;

impl Look<'_> {
    /// Judges every candidate: source, then (once the target has applied what the source had) target, then source again.
    pub(super) async fn recheck(
        &self,
        both: &Both,
        candidates: Vec<Candidate>,
        report: &mut TableReport,
    ) -> Result<()> {
        report.rechecked = candidates.len() as u64;
        for some in candidates.chunks(AT_ONCE) {
            let mut open = some.to_vec();
            for _ in 0..ROUNDS {
                if open.is_empty() {
                    break;
                }
                open = self.look_again(both, open, report).await?;
            }
            report.unsettled += open.len() as u64;
        }
        Ok(())
    }

    /// One round; returns what has to be looked at once more.
    async fn look_again(&self, both: &Both, open: Vec<Candidate>, report: &mut TableReport) -> Result<Vec<Candidate>> {
        let before = read(&self.pair.source, &both.source.again, both.keyed, &open).await?;
        self.catch_up().await?;
        let target = read(&self.pair.target, &both.target.again, both.keyed, &open).await?;
        let after = read(&self.pair.source, &both.source.again, both.keyed, &open).await?;
        let mut again = Vec::new();
        for candidate in open {
            let key = identity(both.keyed, candidate.order, &candidate.key);
            let (one, here, two) = (before.get(&key), target.get(&key), after.get(&key));
            // A row that has changed and changed back looks as before, and the target may show what was between.
            let untouched = one.map(|found| found.version) == two.map(|found| found.version);
            let (one, here, two) = (one.map(entry_of), here.map(entry_of), two.map(entry_of));
            if same(here, one) || same(here, two) {
                // The target shows a state that the source had.
                continue;
            }
            if !untouched || !same(one, two) {
                again.push(candidate);
                continue;
            }
            let kind = match (two, here) {
                (Some(source), Some(target)) => kind_of(source, target),
                (Some(_), None) => DifferenceKind::Missing,
                (None, Some(_)) => DifferenceKind::Extra,
                (None, None) => candidate.kind,
            };
            report.differing += 1;
            if report.rows.len() < self.options.named_rows {
                report.rows.push(row_difference(both.keyed, candidate.key, kind));
            }
        }
        Ok(again)
    }
}

/// A difference as it is reported.
pub(super) fn row_difference(keyed: bool, key: Vec<String>, kind: DifferenceKind) -> RowDifference {
    if keyed {
        RowDifference { key: format!("({})", key.join(", ")), kind, key_values: key }
    } else {
        RowDifference { key: key.join(""), kind, key_values: Vec::new() }
    }
}

fn entry_of(read: &Read) -> &Entry {
    &read.entry
}

fn same(a: Option<&Entry>, b: Option<&Entry>) -> bool {
    a.map(|entry| (entry.count, entry.hash)) == b.map(|entry| (entry.count, entry.hash))
}

/// Without a key a row is its hash: the text beside it is only its beginning.
fn identity(keyed: bool, order: i64, key: &[String]) -> (i64, Vec<String>) {
    (order, if keyed { key.to_vec() } else { Vec::new() })
}

async fn read(client: &Client, sql: &str, keyed: bool, open: &[Candidate]) -> Result<Found> {
    let hashes: Vec<i64> = open.iter().map(|candidate| candidate.order).collect();
    let columns: Vec<Vec<&str>> = if keyed {
        let width = open.first().map_or(0, |candidate| candidate.key.len());
        (0..width).map(|n| open.iter().map(|candidate| candidate.key[n].as_str()).collect()).collect()
    } else {
        Vec::new()
    };
    let params: Vec<&(dyn ToSql + Sync)> =
        if keyed { columns.iter().map(|column| column as &(dyn ToSql + Sync)).collect() } else { vec![&hashes] };
    let rows = client.query(sql, &params).await?;
    let found = rows.iter().map(|row| Read { entry: entry(row), version: row.get(4) });
    Ok(found.map(|read| (identity(keyed, read.entry.order, &read.entry.key), read)).collect())
}
