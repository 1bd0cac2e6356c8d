//! The rows that disagreed, read again behind the stream until it is certain what they are.
//!
//! Versions of a row are told apart by the transaction that wrote them (`xmin`).

use std::collections::{HashMap, HashSet};

use tokio_postgres::types::ToSql;

use super::table::{Both, Work, entry};
use crate::error::Result;
use crate::postgres::Client;
use crate::verify::TableReport;
use crate::verify::judge::{Again, Candidate, Entry, Identity, Looks, identity, rounds};

/// A row as it was read, and which transaction wrote it.
struct Read {
    entry: Entry,
    version: i64,
}

impl Work<'_> {
    /// Judges every candidate: source, then (once the target has applied what the source had) target, then source again.
    pub(super) async fn recheck(
        &self,
        both: &Both,
        candidates: Vec<Candidate>,
        report: &mut TableReport,
    ) -> Result<()> {
        rounds(&mut Recheck { work: self, both }, &candidates, report).await
    }
}

struct Recheck<'a> {
    work: &'a Work<'a>,
    both: &'a Both,
}

impl Again for Recheck<'_> {
    async fn look(&mut self, open: Vec<Candidate>, report: &mut TableReport) -> Result<Vec<Candidate>> {
        let Recheck { work, both } = self;
        let before = read(&work.pair.source, &both.source.again, both.keyed, &open).await?;
        work.catch_up().await?;
        let here = read(&work.pair.target, &both.target.again, both.keyed, &open).await?;
        let after = read(&work.pair.source, &both.source.again, both.keyed, &open).await?;
        let version = |reads: &HashMap<Identity, Read>, key| reads.get(key).map(|read: &Read| read.version);
        let touched: HashSet<Identity> = before
            .keys()
            .chain(after.keys())
            .filter(|key| version(&before, key) != version(&after, key))
            .cloned()
            .collect();
        let looks = Looks { before: entries(before), here: entries(here), after: entries(after), touched };
        let called = |candidate: &Candidate| identity(both.keyed, candidate.order, &candidate.key);
        Ok(looks.judge(both.keyed, called, open, work.look.options.named_rows, report))
    }
}

fn entries(reads: HashMap<Identity, Read>) -> HashMap<Identity, Entry> {
    reads.into_iter().map(|(key, read)| (key, read.entry)).collect()
}

async fn read(client: &Client, sql: &str, keyed: bool, open: &[Candidate]) -> Result<HashMap<Identity, Read>> {
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
