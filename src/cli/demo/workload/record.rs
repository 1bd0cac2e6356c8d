//! What the writer knows must be there, and the comparison with what is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::session::Session;
use super::{Workload, body};
use crate::error::{Context, Error, Kind, Result};

/// Rows looked at in one statement.
const AT_ONCE: usize = 5_000;

/// The tables whose rows are remembered one by one. The lines of an order are remembered with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kept {
    Accounts,
    Orders,
    Documents,
    Events,
}

/// What a row must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub version: i64,
    /// Accounts: the balance. Orders: the number of lines. Documents: the seed of the body.
    pub detail: i64,
}

/// What one write changes; `None` is a deleted row.
pub(super) type Effects = Vec<((Kept, i64), Option<Row>)>;

/// Everything the writer was told is committed, and so must be found.
#[derive(Debug, Clone)]
pub struct Record {
    workload: Workload,
    rows: HashMap<(Kept, i64), Option<Row>>,
    acknowledged: HashMap<i32, BTreeSet<i64>>,
    counts: Counts,
}

/// Rows each table must have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    orders: i64,
    order_items: i64,
    documents: i64,
    events: i64,
}

/// What a database holds of what was acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// Writes (transactions) whose commit was acknowledged.
    pub acknowledged: u64,
    /// Acknowledged writes that are not there, and rows older than an acknowledged write left them.
    pub lost: u64,
    /// Writes that are there more than once, that were never committed, and rows there are too many.
    pub doubled: u64,
    /// Rows looked at one by one.
    pub rows_checked: u64,
    /// The first few of what is wrong, for people.
    pub findings: Vec<String>,
}

impl Proof {
    /// Whether every write is there exactly once.
    pub fn holds(&self) -> bool {
        self.lost == 0 && self.doubled == 0
    }

    fn lost(&mut self, number: u64, what: impl FnOnce() -> String) {
        self.lost += number;
        self.note(number, what);
    }

    fn doubled(&mut self, number: u64, what: impl FnOnce() -> String) {
        self.doubled += number;
        self.note(number, what);
    }

    fn note(&mut self, number: u64, what: impl FnOnce() -> String) {
        if number > 0 && self.findings.len() < 20 {
            self.findings.push(what());
        }
    }
}

impl Record {
    pub(super) fn new(workload: Workload) -> Record {
        Record { workload, rows: HashMap::new(), acknowledged: HashMap::new(), counts: Counts::default() }
    }

    /// A row as the record knows it; rows never written to are as they were preloaded.
    pub(super) fn row(&self, key: (Kept, i64)) -> Option<Row> {
        match self.rows.get(&key) {
            Some(row) => *row,
            None => self.preloaded(key),
        }
    }

    fn preloaded(&self, (table, id): (Kept, i64)) -> Option<Row> {
        let (last, detail) = match table {
            Kept::Accounts => (self.workload.accounts, super::OPENING_BALANCE),
            Kept::Orders => (self.workload.orders, Workload::lines_of_preloaded_order(id)),
            Kept::Documents => (self.workload.documents, id),
            Kept::Events => (self.workload.events, 0),
        };
        (1..=last).contains(&id).then_some(Row { version: 0, detail })
    }

    /// A write was acknowledged.
    pub(super) fn acknowledge(&mut self, writer: i32, sequence: i64, effects: Effects) {
        self.acknowledged.entry(writer).or_default().insert(sequence);
        for (key, after) in effects {
            let before = self.row(key);
            let change = i64::from(after.is_some()) - i64::from(before.is_some());
            match key.0 {
                Kept::Accounts => {}
                Kept::Orders => {
                    let lines = |row: Option<Row>| row.map_or(0, |row| row.detail);
                    self.counts.orders += change;
                    self.counts.order_items += lines(after) - lines(before);
                }
                Kept::Documents => self.counts.documents += change,
                Kept::Events => self.counts.events += change,
            }
            self.rows.insert(key, after);
        }
    }

    /// Joins the record of another connection; no two connections write to the same rows.
    pub(super) fn merge(&mut self, other: Record) {
        self.rows.extend(other.rows);
        self.acknowledged.extend(other.acknowledged);
        self.counts.orders += other.counts.orders;
        self.counts.order_items += other.counts.order_items;
        self.counts.documents += other.counts.documents;
        self.counts.events += other.counts.events;
    }

    /// Writes that were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.values().map(|set| set.len() as u64).sum()
    }

    /// Holds the record against a database that nobody writes to.
    pub async fn prove(&self, session: &mut Session) -> Result<Proof> {
        let mut proof = Proof { acknowledged: self.acknowledged(), ..Proof::default() };
        self.prove_journal(session, &mut proof).await.context("comparing the journal with the record")?;
        self.prove_rows(session, &mut proof).await.context("comparing rows with the record")?;
        self.prove_counts(session, &mut proof).await.context("comparing the number of rows with the record")?;
        Ok(proof)
    }

    async fn prove_journal(&self, session: &mut Session, proof: &mut Proof) -> Result<()> {
        let mut found: HashMap<i32, BTreeMap<i64, i64>> = HashMap::new();
        for row in session.rows("SELECT writer, sequence, count(*) FROM journal GROUP BY writer, sequence").await? {
            let [writer, sequence, count] = numbers(&row)?;
            let writer = i32::try_from(writer).unwrap_or(i32::MAX);
            found.entry(writer).or_default().insert(sequence, count);
        }
        for (writer, sequences) in &self.acknowledged {
            for sequence in sequences {
                if !found.get(writer).is_some_and(|found| found.contains_key(sequence)) {
                    proof.lost(1, || format!("write {sequence} of writer {writer} is not there"));
                }
            }
        }
        for (writer, sequences) in &found {
            for (sequence, &times) in sequences {
                if times > 1 {
                    let more = u64::try_from(times - 1).expect("a count above one");
                    proof.doubled(more, || format!("write {sequence} of writer {writer} is there {times} times"));
                }
                if !self.acknowledged.get(writer).is_some_and(|known| known.contains(sequence)) {
                    proof.doubled(1, || format!("write {sequence} of writer {writer} failed, and is there"));
                }
            }
        }
        Ok(())
    }

    async fn prove_rows(&self, session: &mut Session, proof: &mut Proof) -> Result<()> {
        const QUERIES: [(Kept, &str); 4] = [
            (Kept::Accounts, "SELECT id, version, balance FROM accounts"),
            (
                Kept::Orders,
                "SELECT id, version, (SELECT count(*) FROM order_items WHERE order_id = orders.id) FROM orders",
            ),
            (Kept::Documents, "SELECT id, version, body FROM documents"),
            (Kept::Events, "SELECT id, 0, 0 FROM events"),
        ];
        for (table, query) in QUERIES {
            let expected: HashMap<i64, Option<Row>> =
                self.rows.iter().filter(|((kept, _), _)| *kept == table).map(|((_, id), row)| (*id, *row)).collect();
            let mut found: HashMap<i64, Row> = HashMap::new();
            let ids: Vec<String> = expected.keys().map(i64::to_string).collect();
            for some in ids.chunks(AT_ONCE) {
                for mut row in session.rows(&format!("{query} WHERE id IN ({})", some.join(", "))).await? {
                    if table == Kept::Documents {
                        let id = row[0].as_deref().and_then(|id| id.parse().ok());
                        let seed = id.and_then(|id: i64| expected[&id]).map_or(0, |row| row.detail);
                        // The seed of a body that it makes, and -1 for another.
                        let whole = row[2].as_deref() == Some(body(seed).as_str());
                        row[2] = Some(if whole { seed } else { -1 }.to_string());
                    }
                    let [id, version, detail] = numbers(&row)?;
                    found.insert(id, Row { version, detail });
                }
            }
            for (id, expected) in expected {
                proof.rows_checked += 1;
                match (expected, found.get(&id)) {
                    (Some(expected), Some(found)) if expected == *found => {}
                    (None, None) => {}
                    (None, Some(_)) => proof.doubled(1, || format!("{table:?} {id} was deleted, and is there")),
                    (Some(expected), found) => {
                        proof.lost(1, || format!("{table:?} {id} should be {expected:?}, and is {found:?}"));
                    }
                }
            }
        }
        Ok(())
    }

    async fn prove_counts(&self, session: &mut Session, proof: &mut Proof) -> Result<()> {
        let expected = [
            ("orders", self.workload.orders + self.counts.orders),
            ("order_items", self.workload.order_items() + self.counts.order_items),
            ("documents", self.workload.documents + self.counts.documents),
            ("events", self.workload.events + self.counts.events),
            ("accounts", self.workload.accounts),
        ];
        for (table, expected) in expected {
            let found = session.numbers(&format!("SELECT count(*) FROM {table}")).await?[0];
            let finding = || format!("{table} should have {expected} rows, and has {found}");
            proof.lost(u64::try_from(expected - found).unwrap_or(0), finding);
            proof.doubled(u64::try_from(found - expected).unwrap_or(0), finding);
        }
        let money = session.numbers("SELECT coalesce(sum(balance), 0) FROM accounts").await?[0];
        let expected = self.workload.money();
        proof.lost(u64::from(money != expected), || format!("the bank should hold {expected}, and holds {money}"));
        Ok(())
    }
}

/// The columns of a row that are numbers.
fn numbers<const N: usize>(row: &[Option<String>]) -> Result<[i64; N]> {
    let number = |text: &Option<String>| text.as_deref().and_then(|text| text.parse().ok());
    let numbers: Option<Vec<i64>> = row.iter().map(number).collect();
    let wrong = || Error::new(Kind::Protocol, format!("no row of {N} numbers: {row:?}"));
    numbers.and_then(|numbers| numbers.try_into().ok()).ok_or_else(wrong)
}
