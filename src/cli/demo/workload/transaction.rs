//! What a write is: one of seven kinds of transaction, each with a row in the journal.

use rand::Rng;
use rand::rngs::StdRng;

use super::record::{Effects, Kept, Record, Row};
use super::session::{Answer, Session, Write};
use super::{Workload, body};

/// Which of the connections one is, counted from 1, and how many there are: it owns the ids that are equal to its number
/// modulo that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    pub number: i32,
    pub of: i32,
}

/// Chooses the next write and carries it out, up to but without its COMMIT.
pub(super) struct Choices {
    pub identity: Identity,
    pub workload: Workload,
    pub rng: StdRng,
    /// Orders, documents and events of our own making that were not deleted, to choose from.
    orders: Vec<i64>,
    documents: Vec<i64>,
    events: Vec<i64>,
    documents_made: i64,
}

impl Choices {
    pub(super) fn new(identity: Identity, workload: Workload, rng: StdRng) -> Choices {
        let (orders, documents, events) = (Vec::new(), Vec::new(), Vec::new());
        Choices { identity, workload, rng, orders, documents, events, documents_made: 0 }
    }

    /// Runs the statements of one write inside a transaction that is already open.
    pub(super) async fn write(&mut self, session: &mut Session, record: &Record, sequence: i64) -> Answer<Effects> {
        session.write(Write::Journal, &[self.identity.number.into(), sequence], "").await?;
        match self.rng.random_range(0..100) {
            0..30 => self.transfer(session, record).await,
            30..55 => self.new_order(session).await,
            55..68 => self.change_order(session, record).await,
            68..75 => self.delete_order(session, record).await,
            75..80 => self.new_document(session).await,
            80..86 => self.change_document(session, record).await,
            86..90 => self.move_document(session, record).await,
            90..97 => self.new_events(session).await,
            _ => self.delete_event(session).await,
        }
    }

    /// Tells which rows a committed write has made and removed, to choose among them later.
    pub(super) fn committed(&mut self, effects: &Effects) {
        for ((table, id), row) in effects {
            let live = match table {
                Kept::Accounts => continue,
                Kept::Orders => &mut self.orders,
                Kept::Documents => &mut self.documents,
                Kept::Events => &mut self.events,
            };
            match (row, live.iter().position(|known| known == id)) {
                (Some(row), None) if row.version == 0 || *table == Kept::Documents => live.push(*id),
                (None, Some(position)) => {
                    live.swap_remove(position);
                }
                _ => {}
            }
        }
    }

    async fn transfer(&mut self, session: &mut Session, record: &Record) -> Answer<Effects> {
        let (from, to) = (self.preloaded(self.workload.accounts), self.preloaded(self.workload.accounts));
        if from == to {
            return self.new_events(session).await;
        }
        let amount = self.rng.random_range(1..50);
        let mut effects = Effects::new();
        for (id, change) in [(from, -amount), (to, amount)] {
            let row = record.row((Kept::Accounts, id)).expect("accounts are never deleted");
            let after = Row { version: row.version + 1, detail: row.detail + change };
            session.write(Write::Transfer, &[id, after.detail, after.version], "").await?;
            effects.push(((Kept::Accounts, id), Some(after)));
        }
        Ok(effects)
    }

    async fn new_order(&mut self, session: &mut Session) -> Answer<Effects> {
        let account = self.rng.random_range(1..=self.workload.accounts);
        let (total, lines) = (self.rng.random_range(1..1_000_000_i64), self.rng.random_range(1..=5_i64));
        let made = session.write(Write::NewOrder, &[account, total, self.identity.number.into()], "").await?;
        let id = *made.first().expect("an order that was inserted has an id");
        session.write(Write::NewItems, &[id, lines], "").await?;
        Ok(vec![((Kept::Orders, id), Some(Row { version: 0, detail: lines }))])
    }

    async fn change_order(&mut self, session: &mut Session, record: &Record) -> Answer<Effects> {
        let Some((id, row)) = self.existing(Kept::Orders, record) else { return self.new_order(session).await };
        let after = Row { version: row.version + 1, ..row };
        session.write(Write::ChangeOrder, &[id, after.version], "").await?;
        Ok(vec![((Kept::Orders, id), Some(after))])
    }

    async fn delete_order(&mut self, session: &mut Session, record: &Record) -> Answer<Effects> {
        let Some((id, _)) = self.existing(Kept::Orders, record) else { return self.new_order(session).await };
        session.write(Write::DeleteOrder, &[id], "").await?;
        Ok(vec![((Kept::Orders, id), None)])
    }

    async fn new_document(&mut self, session: &mut Session) -> Answer<Effects> {
        let id = self.next_document();
        session.write(Write::NewDocument, &[id], &body(id)).await?;
        Ok(vec![((Kept::Documents, id), Some(Row { version: 0, detail: id }))])
    }

    async fn change_document(&mut self, session: &mut Session, record: &Record) -> Answer<Effects> {
        let Some((id, row)) = self.existing(Kept::Documents, record) else { return self.new_document(session).await };
        let after = Row { version: row.version + 1, ..row };
        session.write(Write::ChangeDocument, &[id, after.version], "").await?;
        Ok(vec![((Kept::Documents, id), Some(after))])
    }

    /// A key change with a body that is not sent: the row must arrive under its new key with its old body.
    async fn move_document(&mut self, session: &mut Session, record: &Record) -> Answer<Effects> {
        let Some((id, row)) = self.existing(Kept::Documents, record) else { return self.new_document(session).await };
        let after = Row { version: row.version + 1, ..row };
        let moved = self.next_document();
        session.write(Write::MoveDocument, &[id, after.version, moved], "").await?;
        Ok(vec![((Kept::Documents, id), None), ((Kept::Documents, moved), Some(after))])
    }

    async fn new_events(&mut self, session: &mut Session) -> Answer<Effects> {
        let number = self.rng.random_range(1..=4_i64);
        let made = session.write(Write::NewEvents, &[number], "").await?;
        Ok(made.into_iter().map(|id| ((Kept::Events, id), Some(Row { version: 0, detail: 0 }))).collect())
    }

    async fn delete_event(&mut self, session: &mut Session) -> Answer<Effects> {
        if self.events.is_empty() {
            return self.new_events(session).await;
        }
        let id = self.events[self.rng.random_range(0..self.events.len())];
        session.write(Write::DeleteEvent, &[id], "").await?;
        Ok(vec![((Kept::Events, id), None)])
    }

    /// One of ours, made by us or preloaded; `None` when chance found only deleted ones.
    fn existing(&mut self, table: Kept, record: &Record) -> Option<(i64, Row)> {
        let (made, preloaded) = match table {
            Kept::Orders => (&self.orders, self.workload.orders),
            _ => (&self.documents, self.workload.documents),
        };
        let id = if made.is_empty() || self.rng.random() {
            self.preloaded(preloaded)
        } else {
            made[self.rng.random_range(0..made.len())]
        };
        record.row((table, id)).map(|row| (id, row))
    }

    /// One of the preloaded rows 1..=last that belong to this connection.
    fn preloaded(&mut self, last: i64) -> i64 {
        let (number, of) = (i64::from(self.identity.number), i64::from(self.identity.of));
        number + of * self.rng.random_range(0..=(last - number) / of)
    }

    /// An id that no other connection and no earlier try has used.
    fn next_document(&mut self) -> i64 {
        const FIRST: i64 = 1_000_000_000;
        self.documents_made += 1;
        FIRST + self.documents_made * i64::from(self.identity.of) + i64::from(self.identity.number)
    }
}
