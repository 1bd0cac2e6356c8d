//! Several workers: which table each of them applies, and how far each is.
//!
//! In: how many are wanted, when the stream is about to start. Out: a [`Routing`]. Worker 0 commits last, so everything
//! up to its checkpoint is durable whoever applied it, and a row of the others that is behind it only says that there was
//! nothing for that worker since. A row that is *beyond* it is what a crash between two commits leaves: its tables have
//! changes that the stream will bring again. As long as there is one, every table stays with its worker, or nobody would
//! know which changes those are (TRAPS 4).

use std::collections::HashMap;
use std::time::Duration;

use super::Lease;
use super::access::{State, Transaction};
use super::db::{How, Row, params, sql};
use crate::change::Position;
use crate::error::{Error, Kind, Result};
use crate::schema::TableName;

/// Locks the checkpoints of all workers. Worker 0's first: with that no batch is begun, and nobody waits for each other.
pub(in crate::target) const LOCK_ALL: &str = "SELECT worker, epoch, position, changes, divergences FROM cutwater.checkpoint WHERE migration = $1 AND worker >= 0 ORDER BY worker FOR UPDATE";

/// Which worker applies which table, and where each is.
#[derive(Debug, Clone, PartialEq)]
pub struct Routing {
    /// Where each worker is, from worker 0 on.
    at: Vec<Position>,
    /// The worker of each table, by its names at source and target.
    tables: Vec<(TableName, TableName, usize)>,
}

impl Routing {
    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.at.len()
    }

    /// The worker of each table, by its name at the target.
    pub fn by_target(&self) -> HashMap<TableName, usize> {
        self.tables.iter().map(|(_, target, worker)| (target.clone(), *worker)).collect()
    }

    /// What the table's worker has applied beyond worker 0's checkpoint, by the table's name at the source: up to where.
    pub fn beyond(&self, source: &TableName) -> Option<&Position> {
        let (_, _, worker) = self.tables.iter().find(|(name, _, _)| name == source)?;
        self.at.get(*worker).filter(|at| **at > self.at[0])
    }

    /// The furthest worker's position, if one is beyond worker 0: once the stream has passed it, all are equal.
    pub fn furthest_beyond(&self) -> Option<Position> {
        self.at.iter().filter(|at| **at > self.at[0]).cloned().reduce(|furthest, at| furthest.join(&at))
    }
}

impl State {
    /// Who applies what: spread anew over at most `workers`, or as it is while a worker is beyond worker 0. Waits for what
    /// holds a checkpoint: a hand-over, or a transaction of a run that is dead.
    pub async fn route(&self, lease: &Lease, workers: usize) -> Result<Routing> {
        let doing = "reading which worker applies which table";
        let mut transaction = self.transaction(doing).await?;
        self.lock(&mut transaction, lease).await?;
        let checkpoints = transaction.query(doing, LOCK_ALL, params![self.name()]).await?;
        let mut at: Vec<Position> = Vec::new();
        for row in &checkpoints {
            if row.get::<i32>(0)? != i32::try_from(at.len()).unwrap_or(i32::MAX) {
                return Err(Error::new(
                    Kind::Internal,
                    format!("a worker's checkpoint is missing before {}", at.len()),
                ));
            }
            at.push(row.parse(2)?);
        }
        if at.is_empty() {
            return Err(Error::new(
                Kind::Internal,
                format!("migration {:?} has no checkpoint to start from", self.name()),
            ));
        }
        let sql = "SELECT source_schema, source_table, target_schema, target_table, worker, bytes_estimate
                   FROM cutwater.table_state WHERE migration = $1 AND stage = 'copied' ORDER BY 1, 2";
        let rows = transaction.query(doing, sql, params![self.name()]).await?;
        let table = |row: &Row| Ok((row.name(0)?, row.name(2)?, row.get::<i32>(4)? as usize));
        let tables = rows.iter().map(table).collect::<Result<_>>()?;
        let mut routing = Routing { at, tables };
        if routing.furthest_beyond().is_some() {
            return Ok(routing);
        }

        let workers = workers.min(routing.tables.len()).max(1);
        let sizes: Vec<i64> = rows.iter().map(|row| row.get(5)).collect::<Result<_>>()?;
        for ((_, _, worker), wanted) in routing.tables.iter_mut().zip(spread(&sizes, workers)) {
            *worker = wanted;
        }
        let first = routing.at[0].clone();
        let before = routing.at.len();
        routing.at.resize(workers, first.clone());

        let doing = "giving each worker its tables";
        // What was done by workers that are no more is worker 0's.
        if let Some(gone) = checkpoints.get(workers..).filter(|gone| !gone.is_empty()) {
            let sum = |at: usize| gone.iter().map(|row| row.get::<i64>(at)).sum::<Result<i64>>();
            let sql = "UPDATE cutwater.checkpoint SET changes = changes + $2, divergences = divergences + $3
                       WHERE migration = $1 AND worker = 0";
            transaction.execute(doing, sql, params![self.name(), sum(3)?, sum(4)?]).await?;
            let sql = "DELETE FROM cutwater.checkpoint WHERE migration = $1 AND worker >= $2";
            transaction.execute(doing, sql, params![self.name(), workers as i32]).await?;
        }
        let first = first.to_string();
        for worker in before..workers {
            let sql = "INSERT INTO cutwater.checkpoint (migration, worker, epoch, position) VALUES ($1, $2, $3, $4)";
            let params = params![self.name(), worker as i32, lease.epoch, &first];
            transaction.execute(doing, sql, params).await?;
        }
        let schemas: Vec<&str> = routing.tables.iter().map(|(source, _, _)| source.schema.as_str()).collect();
        let names: Vec<&str> = routing.tables.iter().map(|(source, _, _)| source.table.as_str()).collect();
        let numbers: Vec<i64> = routing.tables.iter().map(|(_, _, worker)| *worker as i64).collect();
        transaction.execute(doing, sql!("route"), params![self.name(), &schemas, &names, &numbers]).await?;
        transaction.commit(doing).await?;
        Ok(routing)
    }

    /// Where each worker is, from worker 0 on; nothing before the stream has a beginning.
    pub async fn workers(&self) -> Result<Vec<Position>> {
        let sql = "SELECT position FROM cutwater.checkpoint WHERE migration = $1 AND worker >= 0 ORDER BY worker";
        let rows = self.query("reading where the workers are", sql, params![self.name()]).await?;
        rows.iter().map(|row| row.parse(0)).collect()
    }

    /// Keeps all workers from beginning a batch until it is dropped, waiting for the one under way: then the target is in
    /// one state, unless a crash has left them apart.
    pub async fn hold_workers(&self) -> Result<Transaction> {
        let doing = "holding the workers for a moment";
        let how = How { patience: Some(Duration::from_secs(10)), ..How::default() };
        let mut transaction = self.begin_with(doing, how).await?;
        transaction.query(doing, LOCK_ALL, params![self.name()]).await?;
        Ok(transaction)
    }
}

/// A worker for each table of these sizes, so that each has about as much: the largest first, to whoever has least. The
/// same sizes give the same workers. Worker 0 has the first.
fn spread(sizes: &[i64], workers: usize) -> Vec<usize> {
    // An empty table counts as a page: a hundred of them are not all one worker's.
    let size = |index: usize| sizes[index].max(8192);
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(size(index)));
    let mut load = vec![0_i64; workers];
    let mut worker_of = vec![0; sizes.len()];
    for index in order {
        let least = (0..workers).min_by_key(|&worker| load[worker]).unwrap_or(0);
        load[least] = load[least].saturating_add(size(index));
        worker_of[index] = least;
    }
    worker_of
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Lsn;

    #[test]
    fn tables_are_spread_by_their_size_and_always_alike() {
        assert_eq!(spread(&[10 << 20, 0, 6 << 20, 5 << 20, 0], 2), [0, 0, 1, 1, 0]);
        assert_eq!(spread(&[0, 0, 0, 0], 3), [0, 1, 2, 0]);
        assert_eq!(spread(&[5, 7], 1), [0, 0]);
        assert!(spread(&[], 4).is_empty());
    }

    #[test]
    fn a_worker_behind_the_first_has_missed_nothing_and_one_beyond_it_has_its_tables_ahead() {
        let at = |lsn: u64| Position::from(Lsn(lsn));
        let name = |table: &str| TableName::new("public", table);
        let tables = vec![(name("a"), name("a"), 0), (name("b"), name("b"), 1), (name("c"), name("c"), 2)];
        let mut routing = Routing { at: vec![at(50), at(10), at(50)], tables };
        assert_eq!((routing.furthest_beyond(), routing.beyond(&name("b"))), (None, None));
        routing.at[2] = at(70);
        assert_eq!((routing.beyond(&name("b")), routing.beyond(&name("c"))), (None, Some(&at(70))));
        assert_eq!(routing.furthest_beyond(), Some(at(70)));
        assert_eq!(routing.beyond(&name("unknown")), None);
    }
}
