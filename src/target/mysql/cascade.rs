//! What foreign keys do at the source and its log does not say (TRAPS 14).
//!
//! MariaDB, and MySQL before 9.6, carry CASCADE and SET NULL out below the binary log: it holds the parent's rows alone. In
//! the sessions that apply foreign keys are not checked, so nothing acts on the children here either, and they would live
//! for ever. So the applier does what they say, by the target's own definitions, in the batch's transaction and before the
//! parents' rows are changed: the children are found through the parents as the target has them.
//!
//! In: the events of a batch. Out: the batch in [`Links::segments`] that may each be folded, and for the parents' deletes
//! and key changes of each the statements for all levels of children, the deepest first. A segment ends where a fold would
//! put a parent's delete before a child's insert that came before it at the source, or the other way round.
//!
//! What can go wrong: a child that is copied again beside the stream may get rows from before a delete that has been
//! carried out meanwhile; `verify` finds them.

use std::collections::{HashMap, HashSet};

use super::sql::typed;
use super::tables::{Column, Entry};
use crate::change::{ChangeEvent, Datum, Op, RowChange};
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{MyIdent, Session, my_table};
use crate::schema::{MySqlKind, TableDefinition, TableName};

/// How deep InnoDB lets actions go.
const DEPTH: usize = 15;
/// Statements for one change at most; only circles of several foreign keys come near.
const STATEMENTS: usize = 400;

/// Whether the source of a migration leaves to us what its foreign keys do.
pub(super) async fn must_be_carried_out(session: &mut Session, migration: &str) -> Result<bool> {
    let sql = "SELECT source FROM cutwater.migration WHERE name = ?";
    let rows = session.rows_with(sql, (migration,)).await.context("reading what the source is")?;
    let source = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()).unwrap_or_default();
    let source: serde_json::Value = serde_json::from_str(&source).unwrap_or_default();
    let word = |name: &str| source.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    Ok(match word("engine").as_str() {
        "mariadb" => true,
        "mysql" => version(&word("version")) < (9, 6),
        _ => false,
    })
}

fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// What a foreign key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Cascade,
    SetNull,
    Nothing,
}

impl Action {
    fn of(rule: &str) -> Action {
        match rule {
            "CASCADE" => Action::Cascade,
            "SET NULL" => Action::SetNull,
            _ => Action::Nothing,
        }
    }
}

/// A foreign key that acts, seen from the table it refers to.
#[derive(Debug)]
struct Link {
    child: TableName,
    columns: Vec<String>,
    referenced: Vec<String>,
    on_delete: Action,
    on_update: Action,
}

/// Foreign keys that act.
#[derive(Debug, Default)]
pub(super) struct Links {
    by_parent: HashMap<TableName, Vec<Link>>,
    /// Every table that an action on this one may reach.
    reach: HashMap<TableName, HashSet<TableName>>,
}

/// A statement's words before and after its derived table `d` of parents.
pub(super) struct Words {
    pub head: String,
    pub tail: String,
}

/// The tables joined so far, from the parents to the children that are acted on.
#[derive(Clone)]
struct Path {
    joins: String,
    /// Under which the last table's columns are known.
    alias: String,
    depth: usize,
    conditions: Vec<String>,
}

/// A column that gets a new value.
struct Set {
    column: String,
    /// The value, to be assigned.
    value: String,
    /// Whether it differs from a column of this alias and name.
    differs: Box<dyn Fn(&str) -> String>,
}

impl Links {
    /// The foreign keys of these tables.
    pub(super) fn of(tables: &[TableDefinition]) -> Links {
        let mut by_parent: HashMap<TableName, Vec<Link>> = HashMap::new();
        for table in tables {
            for key in &table.foreign_keys {
                let (on_delete, on_update) = (Action::of(&key.on_delete), Action::of(&key.on_update));
                if (on_delete, on_update) != (Action::Nothing, Action::Nothing) {
                    by_parent.entry(key.referenced.clone()).or_default().push(Link {
                        child: table.table.name.clone(),
                        columns: key.columns.clone(),
                        referenced: key.referenced_columns.clone(),
                        on_delete,
                        on_update,
                    });
                }
            }
        }
        let mut reach = HashMap::new();
        for parent in by_parent.keys() {
            let mut met = HashSet::new();
            let mut next = vec![parent];
            while let Some(table) = next.pop() {
                for link in by_parent.get(table).into_iter().flatten() {
                    if met.insert(link.child.clone()) {
                        next.push(&link.child);
                    }
                }
            }
            reach.insert(parent.clone(), met);
        }
        Links { by_parent, reach }
    }

    /// Whether keys of other tables follow those of this one.
    pub(super) fn are_followed(&self, table: &TableName) -> bool {
        self.by_parent.contains_key(table)
    }

    /// The tables that an action on this one may reach.
    pub(super) fn reach(&self, table: &TableName) -> impl Iterator<Item = &TableName> {
        self.reach.get(table).into_iter().flatten()
    }

    /// Whether something may follow a change of a row.
    pub(super) fn acts(&self, change: &RowChange) -> bool {
        let Some(links) = self.by_parent.get(&change.table.name) else { return false };
        match change.op {
            Op::Insert => false,
            Op::Delete => links.iter().any(|link| link.on_delete != Action::Nothing),
            Op::Update => links.iter().any(|link| {
                link.on_update != Action::Nothing && link.referenced.iter().any(|column| may_change(change, column))
            }),
        }
    }

    /// Cuts the events so that each piece may be folded.
    pub(super) fn segments<'e>(&self, events: &'e [ChangeEvent]) -> Vec<&'e [ChangeEvent]> {
        if self.by_parent.is_empty() {
            return vec![events];
        }
        let mut pieces = Vec::new();
        let mut piece = Piece::default();
        let mut start = 0;
        for (at, event) in events.iter().enumerate() {
            let cut = match event {
                ChangeEvent::Row(change) => !piece.takes(self, change),
                // What was done to a table before it was emptied is forgotten, and what followed that is not.
                ChangeEvent::Truncate(_) => true,
                _ => piece.is_over,
            };
            if cut && at > start {
                pieces.push(&events[start..at]);
                (piece, start) = (Piece::default(), at);
                if let ChangeEvent::Row(change) = event {
                    piece.takes(self, change);
                }
            }
            piece.is_over |= matches!(event, ChangeEvent::Truncate(_));
        }
        pieces.push(&events[start..]);
        pieces
    }

    /// What follows the deletes of this table's rows, whose keys are the columns of `d`, joined by `on`.
    pub(super) fn after_deletes(&self, entry: &Entry, on: &str) -> Vec<Words> {
        let mut out = Vec::new();
        self.deleted(&entry.schema.name, &Path::new(entry, on), &mut out);
        out
    }

    /// What follows updates of this table's rows that set these columns (places) to `d.c0`, `d.c1` …
    pub(super) fn after_updates(&self, entry: &Entry, set: &[usize], on: &str) -> Vec<Words> {
        let set: Vec<Set> = set.iter().enumerate().map(|(n, &column)| Set::of(entry, column, n)).collect();
        let mut out = Vec::new();
        self.updated(&entry.schema.name, &Path::new(entry, on), &set, &mut out);
        out
    }

    /// Places of this table's columns that other tables follow when they are updated.
    pub(super) fn followed_columns(&self, entry: &Entry) -> Vec<usize> {
        let links = self.by_parent.get(&entry.schema.name).into_iter().flatten();
        let names: Vec<&String> =
            links.filter(|link| link.on_update != Action::Nothing).flat_map(|link| &link.referenced).collect();
        let is_followed = |name: &str| names.iter().any(|other| other.eq_ignore_ascii_case(name));
        let columns = entry.schema.columns.iter().enumerate();
        columns.filter(|(_, column)| is_followed(&column.name)).map(|(place, _)| place).collect()
    }

    fn deleted(&self, table: &TableName, path: &Path, out: &mut Vec<Words>) {
        for link in self.by_parent.get(table).into_iter().flatten() {
            let Some(path) = path.to(link, out.len()) else { continue };
            match link.on_delete {
                Action::Cascade => {
                    self.deleted(&link.child, &path, out);
                    let head = format!("DELETE {} FROM (", path.alias);
                    out.push(Words { head, tail: format!(") AS d{}{}", path.joins, path.filter()) });
                }
                Action::SetNull => {
                    let set: Vec<Set> = link.columns.iter().map(|column| Set::null(column)).collect();
                    self.child_updated(link, &path, &set, out);
                }
                Action::Nothing => {}
            }
        }
    }

    fn updated(&self, table: &TableName, path: &Path, set: &[Set], out: &mut Vec<Words>) {
        for link in self.by_parent.get(table).into_iter().flatten() {
            let find = |column: &String| set.iter().find(|set| set.column.eq_ignore_ascii_case(column));
            let mapped: Vec<(&String, &Set)> =
                link.columns.iter().zip(&link.referenced).filter_map(|(own, of)| Some((own, find(of)?))).collect();
            if mapped.is_empty() || link.on_update == Action::Nothing {
                continue;
            }
            let of = link.referenced.iter().filter_map(|column| Some((find(column)?, column)));
            let differs: Vec<String> =
                of.map(|(set, column)| (set.differs)(&format!("{}.{}", path.alias, MyIdent(column)))).collect();
            let Some(mut to) = path.to(link, out.len()) else { continue };
            to.conditions.push(format!("({})", differs.join(" OR ")));
            let set: Vec<Set> = match link.on_update {
                Action::Cascade => mapped.into_iter().map(|(own, set)| set.for_column(own)).collect(),
                _ => link.columns.iter().map(|column| Set::null(column)).collect(),
            };
            self.child_updated(link, &to, &set, out);
        }
    }

    fn child_updated(&self, link: &Link, path: &Path, set: &[Set], out: &mut Vec<Words>) {
        self.updated(&link.child, path, set, out);
        let assign: Vec<String> =
            set.iter().map(|set| format!("{}.{} = {}", path.alias, MyIdent(&set.column), set.value)).collect();
        let tail = format!(") AS d{} SET {}{}", path.joins, assign.join(", "), path.filter());
        out.push(Words { head: "UPDATE (".to_owned(), tail });
    }
}

impl Path {
    fn new(entry: &Entry, on: &str) -> Path {
        let joins = format!(" STRAIGHT_JOIN {} AS t ON {on}", entry.sql);
        Path { joins, alias: "t".to_owned(), depth: 0, conditions: Vec::new() }
    }

    /// Joined with the children of the last table; `None`: deeper than actions go.
    fn to(&self, link: &Link, statements: usize) -> Option<Path> {
        if self.depth == DEPTH || statements >= STATEMENTS {
            return None;
        }
        let depth = self.depth + 1;
        let alias = format!("t{depth}");
        let on = link.columns.iter().zip(&link.referenced);
        let on: Vec<String> =
            on.map(|(own, of)| format!("{alias}.{} = {}.{}", MyIdent(own), self.alias, MyIdent(of))).collect();
        let joins =
            format!("{} STRAIGHT_JOIN {} AS {alias} ON {}", self.joins, my_table(&link.child), on.join(" AND "));
        Some(Path { joins, alias, depth, conditions: self.conditions.clone() })
    }

    fn filter(&self) -> String {
        if self.conditions.is_empty() { String::new() } else { format!(" WHERE {}", self.conditions.join(" AND ")) }
    }
}

impl Set {
    fn of(entry: &Entry, column: usize, n: usize) -> Set {
        let Column { ty, .. } = &entry.columns[column];
        let value = format!("d.c{n}");
        // What only a collation takes for equal has changed.
        let bytes = ty.is_text() || matches!(ty.kind, MySqlKind::Enum | MySqlKind::Set);
        let new = if bytes { format!("CAST({value} AS BINARY)") } else { typed(&entry.columns[column], &value) };
        let differs = Box::new(move |old: &str| match bytes {
            true => format!("NOT (CAST(CONVERT({old} USING utf8mb4) AS BINARY) <=> {new})"),
            false => format!("NOT ({old} <=> {new})"),
        });
        Set { column: entry.schema.columns[column].name.clone(), value, differs }
    }

    fn null(column: &str) -> Set {
        let differs = Box::new(|old: &str| format!("{old} IS NOT NULL"));
        Set { column: column.to_owned(), value: "NULL".to_owned(), differs }
    }

    /// The same value, for a child's column. That its parent's has changed is among the conditions already.
    fn for_column(&self, column: &str) -> Set {
        let differs = Box::new(|_: &str| "TRUE".to_owned());
        Set { column: column.to_owned(), value: self.value.clone(), differs }
    }
}

/// What is in a piece so far.
#[derive(Default)]
struct Piece<'e> {
    changed: HashSet<&'e TableName>,
    /// Tables that what is in it reaches.
    reached: HashSet<TableName>,
    /// The table of which there are deletes, as long as there is nothing else.
    deletes_of: Option<&'e TableName>,
    /// A TRUNCATE ends it.
    is_over: bool,
}

impl<'e> Piece<'e> {
    /// Takes a change in, if it may be folded with what is there.
    fn takes(&mut self, links: &Links, change: &'e RowChange) -> bool {
        let name = &change.table.name;
        let acts = links.acts(change);
        let more_deletes = change.op == Op::Delete && (self.changed.is_empty() || self.deletes_of == Some(name));
        let reaches_changed = acts && links.reach(name).any(|table| self.changed.contains(table));
        if self.is_over || (!more_deletes && (reaches_changed || self.reached.contains(name))) {
            return false;
        }
        self.deletes_of = more_deletes.then_some(name);
        self.changed.insert(name);
        if acts {
            self.reached.extend(links.reach(name).cloned());
        }
        true
    }
}

/// Whether an update may change a column: its images say no only where both have it.
fn may_change(change: &RowChange, column: &str) -> bool {
    let Some(place) = change.table.columns.iter().position(|other| other.name.eq_ignore_ascii_case(column)) else {
        return false;
    };
    let in_key = change.table.key.as_ref().is_some_and(|key| key.columns.contains(&place));
    let new = change.new.as_ref().and_then(|row| row.get(place));
    let old = change.old.as_ref().filter(|_| in_key || !change.old_is_key_only).and_then(|row| row.get(place));
    match (old, new) {
        (_, None | Some(Datum::Unchanged)) => false,
        // A key that stays is not sent a second time.
        (None, _) => !in_key,
        (Some(old), Some(new)) => old != new,
    }
}

/// Whether tables that foreign keys tie together are shared out to different workers, which would wait for each other, and
/// not keep the order.
pub(super) async fn refuse_workers_apart(session: &mut Session, migration: &str, links: &Links) -> Result<()> {
    let sql = "SELECT target_schema, target_table, worker FROM cutwater.table_state WHERE migration = ?";
    let rows = session.rows_with(sql, (migration,)).await.context("reading which worker has which tables")?;
    let mut worker_of = HashMap::new();
    for row in rows {
        if let [Some(schema), Some(table), Some(worker)] = &row[..] {
            worker_of.insert(TableName::new(schema, table), worker.clone());
        }
    }
    for (parent, reach) in &links.reach {
        let Some(worker) = worker_of.get(parent) else { continue };
        for child in reach {
            if worker_of.get(child).is_some_and(|other| other != worker) {
                let why = format!(
                    "changes of {parent} act on {child} by a foreign key, which the source does not log, and the two are \
                     different workers'"
                );
                return Err(Error::new(Kind::Config, why).fix("set [apply] workers = 1"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_the_server_says_of_itself() {
        assert_eq!(version("9.7.0"), (9, 7));
        assert_eq!(version("8.0.36-28"), (8, 0));
        assert_eq!(version("10.11.6-MariaDB-log"), (10, 11));
        assert!(version("5.7.mysql_aurora.2.11.4") < (9, 6));
    }
}
