//! From events of the log to changes.
//!
//! In: events one by one, as the binlog decoder gives them. Out: [`ChangeEvent`]s of the migrated tables, and the position
//! after the last whole transaction. Transactions are in the log in commit order and whole, so nothing is kept back.
//!
//! - A transaction that the starting position includes is passed over, whatever the server sends.
//! - Its GTID joins the position with its end, never before (TRAPS 3).
//! - A statement that changes rows without saying which, DDL of a migrated table, rows that were logged and then undone, and
//!   the rows of an XA transaction that is only prepared end the stream with an error (TRAPS 3, 16). The transaction they
//!   are in has no end then, so nothing of it can become durable.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::binlog::{
    ColumnLayout, Event, EventHeader, FormatDescription, MariaXa, MySqlGtid, Query, RowReader, Rows, RowsKind,
    Statement, TableMap, refuse_invalid,
};
use super::statement::{Meaning, meaning};
use super::table::Streamed;
use crate::change::{
    Begin, BinlogPlace, ChangeEvent, Commit, CommitStart, Datum, Op, Position, Row, RowChange, Truncate,
};
use crate::error::{Error, Kind, Result};
use crate::schema::TableName;

/// A row event that only ends a statement names this table.
const NO_TABLE: u64 = 0x00FF_FFFF;

/// What a table map stands for.
enum Mapped {
    Ours { table: usize, layout: Arc<[ColumnLayout]> },
    Ignored,
}

/// A transaction under way.
struct Open {
    start: CommitStart,
    commit_time: Timestamp,
    /// The starting position includes it.
    skip: bool,
    /// Its beginning was given.
    begun: bool,
    /// More than one event belongs to it.
    inside: bool,
}

/// Turns events into changes.
pub(super) struct Assembler {
    tables: Vec<Streamed>,
    /// By database and name.
    by_name: HashMap<Vec<u8>, HashMap<Vec<u8>, usize>>,
    /// Names are the same in any case (`lower_case_table_names`).
    any_case: bool,
    format: FormatDescription,
    rows: RowReader,
    /// What was executed up to the end of the last whole transaction.
    position: Position,
    /// Where the next event begins.
    place: BinlogPlace,
    open: Option<Open>,
    maps: HashMap<u64, Mapped>,
    /// XA transactions that were prepared since the stream began, and hold nothing of ours.
    prepared: HashSet<String>,
    /// The last position that was given.
    given: Position,
    /// When the newest transaction was committed, by the source's clock.
    newest: Option<Timestamp>,
}

impl Assembler {
    /// `from` is where the stream begins.
    pub(super) fn new(tables: Vec<Streamed>, from: &Position, any_case: bool) -> Result<Assembler> {
        let mut by_name: HashMap<Vec<u8>, HashMap<Vec<u8>, usize>> = HashMap::new();
        for (index, table) in tables.iter().enumerate() {
            let name = &table.table.name;
            let database = by_name.entry(name.schema.clone().into_bytes()).or_default();
            database.insert(name.table.clone().into_bytes(), index);
        }
        let place = match from {
            Position::MySql(position) => position.at.clone(),
            Position::MariaDb(position) => position.at.clone(),
            Position::Postgres(_) => {
                return Err(Error::new(Kind::Internal, format!("{from} is no position of a MySQL or MariaDB server")));
            }
        };
        Ok(Assembler {
            tables,
            by_name,
            any_case,
            format: FormatDescription::before_the_first(),
            rows: RowReader::new(),
            position: from.clone(),
            place,
            open: None,
            maps: HashMap::new(),
            prepared: HashSet::new(),
            given: from.clone(),
            newest: None,
        })
    }

    /// What the next events look like.
    pub(super) fn format(&self) -> &FormatDescription {
        &self.format
    }

    /// How old the newest transaction was about now. The clock is ours, so it is a guess.
    pub(super) fn age(&self) -> Duration {
        let age = self.newest.map(|newest| Timestamp::now().duration_since(newest));
        age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default()
    }

    /// The position up to which there is nothing more to give, if it is beyond what was given.
    pub(super) fn idle(&mut self) -> Option<Position> {
        let begun = self.open.as_ref().is_some_and(|open| open.begun);
        if begun || self.position.partial_cmp(&self.given) != Some(std::cmp::Ordering::Greater) {
            return None;
        }
        self.given = self.position.clone();
        Some(self.given.clone())
    }

    /// Takes an event. `unpacked`: it stood in a compressed transaction, whose own place is known already. On an error
    /// `events` holds what came before.
    pub(super) fn feed(
        &mut self,
        header: &EventHeader,
        event: Event,
        unpacked: bool,
        events: &mut Vec<ChangeEvent>,
    ) -> Result<()> {
        let in_the_log = !unpacked && !header.is_artificial() && !matches!(event, Event::Heartbeat(_));
        let end = if in_the_log { end_of(&self.place, header) } else { self.place.offset() };
        let start = self.place.to(end.saturating_sub(if in_the_log { header.size.into() } else { 0 }));
        if in_the_log {
            self.place = self.place.to(end);
        }
        match event {
            Event::Format(format) => self.format = format,
            Event::Rotate(rotate) => {
                self.place = BinlogPlace::new(&rotate.file, rotate.position)?;
                self.quiet();
            }
            Event::Heartbeat(heartbeat) if !heartbeat.file.is_empty() => {
                let at = BinlogPlace::new(&heartbeat.file, heartbeat.position)?;
                if at > self.place {
                    self.place = at;
                    self.quiet();
                }
            }
            Event::Gtid(gtid) => self.mysql_begins(header, gtid, start)?,
            Event::MariaGtid(gtid) => {
                let by_gtid = matches!(&self.position, Position::MariaDb(position) if position.executed.is_some());
                let start = CommitStart::MariaDb { gtid: by_gtid.then_some(gtid.gtid), at: start };
                self.begins(start, seconds(header)?, !gtid.standalone)?;
                if let Some(MariaXa::Completed(id)) = &gtid.xa {
                    tracing::debug!(xa = id.to_sql(), "an XA transaction is completed");
                }
            }
            Event::Query(query) => self.query(header, &query, start, events)?,
            Event::TableMap(map) => self.table_map(&map)?,
            Event::Rows(rows) => self.rows(&rows, events)?,
            Event::Xid(_) => self.ends(events),
            Event::XaPrepare(prepare) if prepare.one_phase => self.ends(events),
            Event::XaPrepare(prepare) => {
                let id = prepare.id.to_sql();
                if self.has_rows() {
                    let why = format!("the XA transaction {id} was prepared with changes of migrated tables");
                    return Err(self.stop(Kind::Refused, why).fix(
                        "prepared transactions cannot be followed yet: commit it at the source, let the application pause \
                         XA, then cutwater teardown and cutwater run copy everything anew",
                    ));
                }
                self.prepared.insert(id);
                self.ends(events);
            }
            Event::Statement(Statement::LoadData) => return Err(self.statement("LOAD DATA")),
            Event::Payload(_) => return Err(Error::new(Kind::Internal, "a compressed transaction was not unpacked")),
            // Without a name a heartbeat says nothing; values of variables come before statements, which are judged.
            Event::Heartbeat(_)
            | Event::Statement(_)
            | Event::Stop
            | Event::RowsQuery(_)
            | Event::PreviousGtids(_)
            | Event::MariaGtidList(_)
            | Event::BinlogCheckpoint(_)
            | Event::Ignored => {}
        }
        Ok(())
    }

    fn mysql_begins(&mut self, header: &EventHeader, event: MySqlGtid, start: BinlogPlace) -> Result<()> {
        let by_gtid = matches!(&self.position, Position::MySql(position) if position.executed.is_some());
        let gtid = event.gtid.filter(|_| by_gtid);
        if by_gtid && gtid.is_none() {
            let why = format!("a transaction at {start} has no GTID: gtid_mode was changed at the source");
            return Err(Error::new(Kind::ServerSetting, why)
                .fix("SET GLOBAL gtid_mode = ON there, or begin again: cutwater teardown, cutwater run"));
        }
        let commit_time = match event.immediate_commit.and_then(|micros| i64::try_from(micros).ok()) {
            Some(micros) => Timestamp::from_microsecond(micros).map_err(|_| clock())?,
            None => seconds(header)?,
        };
        self.begins(CommitStart::MySql { gtid, at: start }, commit_time, false)
    }

    fn begins(&mut self, start: CommitStart, commit_time: Timestamp, inside: bool) -> Result<()> {
        if let Some(open) = self.open.take().filter(|open| open.begun) {
            return Err(Error::new(Kind::Protocol, format!("the transaction {} has no end in the log", open.start)));
        }
        // By file and offset the stream begins where it should, and nothing has to be passed over.
        let by_gtid =
            matches!(&start, CommitStart::MySql { gtid: Some(_), .. } | CommitStart::MariaDb { gtid: Some(_), .. });
        let skip = by_gtid && start.is_in(&self.position);
        self.maps.clear();
        self.open = Some(Open { start, commit_time, skip, begun: false, inside });
        Ok(())
    }

    /// The transaction under way is committed, or was none of ours.
    fn ends(&mut self, events: &mut Vec<ChangeEvent>) {
        let Some(open) = self.open.take() else { return self.quiet() };
        self.maps.clear();
        match (&mut self.position, &open.start) {
            (Position::MySql(position), CommitStart::MySql { gtid, .. }) => {
                if let (Some(executed), Some(gtid)) = (&mut position.executed, gtid) {
                    executed.insert(gtid);
                }
            }
            (Position::MariaDb(position), CommitStart::MariaDb { gtid, .. }) => {
                if let (Some(executed), Some(gtid)) = (&mut position.executed, gtid) {
                    executed.insert(*gtid);
                }
            }
            _ => {}
        }
        self.quiet();
        self.newest = Some(open.commit_time);
        if open.begun {
            self.given = self.position.clone();
            let commit_time = open.commit_time;
            events.push(ChangeEvent::Commit(Commit { end: self.position.clone(), commit_time }));
        }
    }

    /// Between two transactions the position's place goes with the log.
    fn quiet(&mut self) {
        if self.open.is_none() {
            match &mut self.position {
                Position::MySql(position) => position.at = self.place.clone(),
                Position::MariaDb(position) => position.at = self.place.clone(),
                Position::Postgres(_) => {}
            }
        }
    }

    fn has_rows(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.begun)
    }

    /// The transaction under way has something for us.
    fn begun(&mut self, events: &mut Vec<ChangeEvent>) {
        if let Some(open) = self.open.as_mut().filter(|open| !open.begun) {
            open.begun = true;
            let (commit_start, commit_time) = (open.start.clone(), open.commit_time);
            events.push(ChangeEvent::Begin(Begin { xid: 0, commit_start, commit_time }));
        }
    }

    fn skips(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.skip)
    }

    fn query(
        &mut self,
        header: &EventHeader,
        query: &Query,
        start: BinlogPlace,
        events: &mut Vec<ChangeEvent>,
    ) -> Result<()> {
        let sql = String::from_utf8_lossy(&query.sql);
        let database = String::from_utf8_lossy(&query.schema);
        let meaning = meaning(&sql, &database, |name| self.named(name).is_some(), |database| self.first_of(database));
        if self.open.is_none() {
            // Before there were GTIDs, and in a log without them, a transaction begins with its first statement.
            let start = match &self.position {
                Position::MariaDb(_) => CommitStart::MariaDb { gtid: None, at: start },
                _ => CommitStart::MySql { gtid: None, at: start },
            };
            self.begins(start, seconds(header)?, false)?;
        }
        let skip = self.skips();
        let inside = self.open.as_ref().is_some_and(|open| open.inside);
        match meaning {
            Meaning::Begin | Meaning::XaStart => {
                if let Some(open) = &mut self.open {
                    open.inside = true;
                }
                return Ok(());
            }
            Meaning::Commit => {
                self.ends(events);
                return Ok(());
            }
            Meaning::Rollback if self.has_rows() => return Err(self.undone("rolled back")),
            Meaning::RollbackTo if self.has_rows() => return Err(self.undone("rolled back in part")),
            Meaning::Rollback => {
                self.ends(events);
                return Ok(());
            }
            Meaning::RollbackTo | Meaning::Nothing | Meaning::Elsewhere => {}
            Meaning::XaEnd => {
                let commits = sql.trim_start().get(..9).is_some_and(|verb| verb.eq_ignore_ascii_case("XA COMMIT"));
                let id = sql.splitn(3, ' ').nth(2).unwrap_or("").trim();
                if commits && !skip && !self.prepared.remove(id) {
                    let why = format!("the XA transaction {id} is committed, and was prepared before the stream began");
                    return Err(self.stop(Kind::Refused, why).fix(
                        "whether it has changes of migrated tables cannot be told: cutwater teardown, then cutwater run \
                         while no XA transaction is prepared (XA RECOVER)",
                    ));
                }
            }
            _ if skip => {}
            Meaning::Truncate(name) => {
                if let Some(table) = self.named(&name).map(|table| Arc::clone(&table.table)) {
                    self.begun(events);
                    events.push(ChangeEvent::Truncate(Truncate {
                        tables: vec![table],
                        // AUTO_INCREMENT begins anew.
                        restart_identity: true,
                        conditions: Vec::new(),
                        elsewhere: Vec::new(),
                    }));
                }
            }
            Meaning::Alters(name) => {
                let why = format!("{name} was altered at the source: {}", shortened(&sql, 8));
                return Err(self.stop(Kind::Schema, why).fix(
                    "changes of definitions are not followed from a MySQL source yet: cutwater teardown, alter the target, \
                     then cutwater run",
                ));
            }
            Meaning::Rows => return Err(self.statement(&sql)),
        }
        // DDL stands alone.
        if !inside {
            self.ends(events);
        }
        Ok(())
    }

    fn same(&self, a: &str, b: &str) -> bool {
        a == b || (self.any_case && a.eq_ignore_ascii_case(b))
    }

    /// The table that a statement calls so.
    fn named(&self, name: &TableName) -> Option<&Streamed> {
        let is_it = |own: &TableName| self.same(&own.schema, &name.schema) && self.same(&own.table, &name.table);
        self.tables.iter().find(|table| is_it(&table.table.name))
    }

    /// A table in this database.
    fn first_of(&self, database: &str) -> Option<TableName> {
        let mut names = self.tables.iter().map(|table| &table.table.name);
        names.find(|name| self.same(&name.schema, database)).cloned()
    }

    fn table(&self, schema: &[u8], table: &[u8]) -> Option<usize> {
        self.by_name.get(schema)?.get(table).copied()
    }

    fn table_map(&mut self, map: &TableMap) -> Result<()> {
        if self.skips() {
            return Ok(());
        }
        let mapped = match self.table(&map.schema, &map.table) {
            Some(table) => match self.tables[table].layout(map) {
                Ok(layout) => Mapped::Ours { table, layout },
                Err(error) => return Err(error.context(format!("reading the log at {}", self.place))),
            },
            None => Mapped::Ignored,
        };
        self.maps.insert(map.table_id, mapped);
        Ok(())
    }

    fn rows(&mut self, rows: &Rows, events: &mut Vec<ChangeEvent>) -> Result<()> {
        if self.skips() || rows.table_id == NO_TABLE {
            return Ok(());
        }
        let (table, layout) = match self.maps.get(&rows.table_id) {
            Some(Mapped::Ours { table, layout }) => (*table, Arc::clone(layout)),
            Some(Mapped::Ignored) => return Ok(()),
            None => {
                let why = format!("rows at {} are of table {}, which was not described", self.place, rows.table_id);
                return Err(Error::new(Kind::Protocol, why));
            }
        };
        if self.open.is_none() {
            return Err(Error::new(Kind::Protocol, format!("rows at {} are in no transaction", self.place)));
        }
        self.begun(events);
        let streamed = &self.tables[table];
        let mut images = rows.images();
        loop {
            let read = self.rows.next(&mut images, &layout, &mut refuse_invalid);
            let Some(row) =
                read.map_err(|error| error.context(format!("reading changes of {}", streamed.table.name)))?
            else {
                return Ok(());
            };
            let before = row.before.map(|row| streamed.travelling(row));
            let after = row.after.map(|row| streamed.travelling(row));
            events.push(ChangeEvent::Row(change(streamed, rows, before, after)?));
        }
    }

    fn statement(&self, sql: &str) -> Error {
        // Not the values in it.
        let sql = shortened(sql, 3);
        let why = format!("the log has a statement where rows were expected, and does not say what it changed: {sql}");
        self.stop(Kind::ServerSetting, why).fix(
            "a session that began before binlog_format was ROW still logs statements: end such sessions at the source, then \
             cutwater teardown, and cutwater run copies everything anew",
        )
    }

    fn undone(&self, how: &str) -> Error {
        let why = format!("a transaction was {how}, and changes of migrated tables in it were logged all the same");
        self.stop(Kind::Refused, why).fix(
            "a table of it has an engine without transactions: ALTER TABLE … ENGINE = InnoDB, then begin again with \
             cutwater teardown, cutwater run",
        )
    }

    fn stop(&self, kind: Kind, why: String) -> Error {
        let at = self.open.as_ref().map_or_else(|| self.place.to_string(), |open| open.start.to_string());
        Error::new(kind, why).context(format!("reading the log at {at}"))
    }
}

/// An update or a delete names its row by whatever was logged of it: all of it, or the key alone.
fn change(streamed: &Streamed, rows: &Rows, before: Option<Row>, after: Option<Row>) -> Result<RowChange> {
    let table = Arc::clone(&streamed.table);
    let op = match rows.kind {
        RowsKind::Insert => Op::Insert,
        RowsKind::Update | RowsKind::PartialUpdate => Op::Update,
        RowsKind::Delete => Op::Delete,
    };
    let whole = before.as_ref().is_none_or(|before| !before.has_unchanged());
    let new = match (&before, after) {
        // What was not logged of the new row did not change.
        (Some(before), Some(after)) if after.has_unchanged() => Some(filled(&after, before)),
        (None, Some(after)) if after.has_unchanged() => Some(streamed.completed(&after)?),
        (_, after) => after,
    };
    if whole {
        return Ok(RowChange { table, op, old: before, old_is_key_only: false, new });
    }
    let key = table.key.as_ref().map(|key| &key.columns[..]);
    let known = |row: &Row| {
        key.is_some_and(|key| key.iter().all(|&at| row.get(at).is_some_and(|datum| datum != Datum::Unchanged)))
    };
    let Some((before, key)) = before.filter(known).zip(key) else {
        let why = format!("a change of {} does not name its row: the log lacks a column of its key", table.name);
        return Err(Error::new(Kind::Schema, why).fix("SET GLOBAL binlog_row_image = FULL at the source"));
    };
    let moved = new.as_ref().is_none_or(|new| key.iter().any(|&at| new.get(at) != before.get(at)));
    let nulls = |datum| if datum == Datum::Unchanged { Datum::Null } else { datum };
    let old = moved.then(|| before.fields().map(nulls).collect());
    Ok(RowChange { table, op, old, old_is_key_only: moved, new })
}

fn filled(new: &Row, old: &Row) -> Row {
    let fields = new.fields().zip(old.fields());
    fields.map(|(new, old)| if new == Datum::Unchanged { old } else { new }).collect()
}

/// The end of an event in its file. The log says its low 32 bits.
fn end_of(place: &BinlogPlace, header: &EventHeader) -> u64 {
    let low = u64::from(header.next_position);
    let end = place.offset() & !0xFFFF_FFFF | low;
    if end + (1 << 31) < place.offset() { end + (1 << 32) } else { end }
}

fn seconds(header: &EventHeader) -> Result<Timestamp> {
    Timestamp::from_second(header.timestamp.into()).map_err(|_| clock())
}

fn clock() -> Error {
    Error::new(Kind::Protocol, "a commit time in the log is out of range")
}

/// Enough of a statement to find it.
fn shortened(sql: &str, words: usize) -> String {
    let line = sql.split_whitespace().take(words).collect::<Vec<_>>().join(" ");
    let mut text: String = line.chars().take(80).collect();
    if text.len() < sql.trim().len() {
        text.push_str(" …");
    }
    text
}
