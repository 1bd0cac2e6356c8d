//! Folds a batch to its net effect, so that it can be applied in a few statements.
//!
//! In: the events of a batch, in source order. Out: [`Stage`]s, to be carried out one after the other; within a stage
//! first its truncates, then each table's [`Work`], the tables in any order. Pure: nothing here knows a server.
//!
//! Rules (TRAPS 11, 12):
//! - rows are folded only by [`TableSchema::key`]; changes of a table without one stay as they came, in order;
//! - a key change whose new image is complete is a delete and an insert; one with unchanged columns stays an update of
//!   the row under the key it had when the batch began, whatever keys it passed through; so does every one of a table
//!   whose keys something else at the target follows ([`plan_keeping`]);
//! - TRUNCATE is a barrier: what the batch did to the table before it is forgotten;
//! - a table whose description changes within the batch begins a new stage.
//!
//! What can go wrong: the batch contradicts itself (a key is inserted that is there). Then there is no net effect
//! ([`Unfoldable`]), and the batch has to be replayed in source order, which names the row.

mod fold;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use crate::change::{ChangeEvent, Datum, Row, RowBuilder, RowChange, Truncate};
use crate::schema::{TableName, TableSchema};
use fold::Fold;
pub use fold::{key_fields, same_key};

/// A row of the plan: as it was sent, or put together from several.
#[derive(Debug, Clone)]
pub enum Image<'a> {
    /// The row of one event.
    Sent(&'a Row),
    /// A row whose unchanged fields were filled in from earlier images.
    Merged(Row),
}

impl Deref for Image<'_> {
    type Target = Row;

    fn deref(&self) -> &Row {
        match self {
            Image::Sent(row) => row,
            Image::Merged(row) => row,
        }
    }
}

/// What is done together. Truncates come first, in order; then the tables.
#[derive(Debug, Default)]
pub struct Stage<'a> {
    /// TRUNCATEs: whatever the batch did before to their tables is not in the plan.
    pub truncates: Vec<&'a Truncate>,
    /// One entry a table.
    pub tables: Vec<TablePlan<'a>>,
}

/// What happens to one table.
#[derive(Debug)]
pub struct TablePlan<'a> {
    /// The table.
    pub table: &'a Arc<TableSchema>,
    /// What is done to it.
    pub work: Work<'a>,
}

/// How a table's changes are applied.
#[derive(Debug)]
pub enum Work<'a> {
    /// As sets.
    Folded(NetEffect<'a>),
    /// One by one, in this order.
    Ordered(Vec<&'a RowChange>),
}

/// A table's net effect. Deletes are carried out before updates and updates before inserts; each delete and each update
/// must find exactly one row.
#[derive(Debug, Default)]
pub struct NetEffect<'a> {
    /// Rows whose key columns name the rows to delete; the other fields mean nothing.
    pub deletes: Vec<Image<'a>>,
    /// Updates, grouped so that one statement fits each group.
    pub updates: Vec<UpdateGroup<'a>>,
    /// New rows, complete.
    pub inserts: Vec<Image<'a>>,
}

/// Updates that set the same columns.
#[derive(Debug)]
pub struct UpdateGroup<'a> {
    /// Columns whose value was not sent and stays as it is at the target, ascending.
    pub unchanged: Vec<usize>,
    /// Whether the key changes too: then each update has an `origin`.
    pub key_moves: bool,
    /// The updates.
    pub rows: Vec<Update<'a>>,
}

/// One update.
#[derive(Debug)]
pub struct Update<'a> {
    /// A row whose key columns name the row as it was when the batch began; `None` if its key stays.
    pub origin: Option<Image<'a>>,
    /// The new values.
    pub new: Image<'a>,
}

/// The batch contradicts itself; replaying it in source order will say where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfoldable;

/// Plans a batch.
pub fn plan(events: &[ChangeEvent]) -> Result<Vec<Stage<'_>>, Unfoldable> {
    plan_keeping(events, &|_| false)
}

/// Plans a batch in which a key change of these tables stays one: something else at the target follows it.
pub fn plan_keeping<'a>(
    events: &'a [ChangeEvent],
    keeps_moves: &'a dyn Fn(&TableName) -> bool,
) -> Result<Vec<Stage<'a>>, Unfoldable> {
    let mut planner = Planner {
        done: Vec::new(),
        truncates: Vec::new(),
        tables: Vec::new(),
        known: HashMap::new(),
        last: None,
        keeps_moves,
    };
    for event in events {
        match event {
            ChangeEvent::Row(change) => planner.row(change)?,
            ChangeEvent::Truncate(truncate) => planner.truncate(truncate),
            ChangeEvent::Begin(_)
            | ChangeEvent::Commit(_)
            | ChangeEvent::Schema(_)
            | ChangeEvent::Alter(_)
            | ChangeEvent::Message(_) => {}
        }
    }
    planner.end_stage();
    Ok(planner.done)
}

/// The row with every field that was not sent taken from `before`, where that has it.
pub fn fill_unchanged(row: &Row, before: &Row) -> Row {
    let mut builder = RowBuilder::with_capacity(row.size() + before.size());
    for (new, old) in row.fields().zip(before.fields()) {
        builder.push(if new == Datum::Unchanged { old } else { new });
    }
    builder.finish()
}

/// The new image of an update with what its old image knows filled in: everything if the source logs whole rows,
/// otherwise the key (a key that is stored out of line is not sent a second time).
pub fn complete_from_old(change: &RowChange) -> Option<Image<'_>> {
    let new = change.new.as_ref()?;
    let Some(old) = change.old.as_ref().filter(|_| new.has_unchanged()) else { return Some(Image::Sent(new)) };
    if !change.old_is_key_only {
        return Some(Image::Merged(fill_unchanged(new, old)));
    }
    let key = change.table.key.as_ref().map_or(&[][..], |key| &key.columns);
    let fields = new.fields().zip(old.fields()).enumerate();
    Some(Image::Merged(
        fields.map(|(i, (new, old))| if new == Datum::Unchanged && key.contains(&i) { old } else { new }).collect(),
    ))
}

/// Indices of the fields that were not sent.
pub fn unchanged_columns(row: &Row) -> Vec<usize> {
    row.fields().enumerate().filter(|(_, datum)| *datum == Datum::Unchanged).map(|(index, _)| index).collect()
}

struct Planner<'a> {
    done: Vec<Stage<'a>>,
    truncates: Vec<&'a Truncate>,
    tables: Vec<Gathered<'a>>,
    /// Address of a description → index into `tables`. Runs of changes share one description.
    known: HashMap<usize, usize>,
    last: Option<(usize, usize)>,
    keeps_moves: &'a dyn Fn(&TableName) -> bool,
}

struct Gathered<'a> {
    table: &'a Arc<TableSchema>,
    changes: Changes<'a>,
}

enum Changes<'a> {
    Fold(Fold<'a>),
    Ordered(Vec<&'a RowChange>),
}

impl<'a> Changes<'a> {
    fn new(table: &'a TableSchema, keeps_moves: bool) -> Self {
        match &table.key {
            Some(key) => Changes::Fold(Fold::new(&key.columns, keeps_moves)),
            None => Changes::Ordered(Vec::new()),
        }
    }
}

impl<'a> Planner<'a> {
    fn row(&mut self, change: &'a RowChange) -> Result<(), Unfoldable> {
        let index = self.table(&change.table);
        match &mut self.tables[index].changes {
            Changes::Fold(fold) => fold.add(change),
            Changes::Ordered(changes) => {
                changes.push(change);
                Ok(())
            }
        }
    }

    fn truncate(&mut self, truncate: &'a Truncate) {
        for table in &truncate.tables {
            let index = self.table(table);
            self.tables[index].changes = Changes::new(table, (self.keeps_moves)(&table.name));
        }
        self.truncates.push(truncate);
    }

    /// The table's entry; a new stage if it looks different from now on.
    fn table(&mut self, table: &'a Arc<TableSchema>) -> usize {
        let address = Arc::as_ptr(table) as usize;
        if let Some((known, index)) = self.last
            && known == address
        {
            return index;
        }
        let index = self.known.get(&address).copied().unwrap_or_else(|| self.find(table));
        self.known.insert(address, index);
        self.last = Some((address, index));
        index
    }

    fn find(&mut self, table: &'a Arc<TableSchema>) -> usize {
        if let Some(index) = self.tables.iter().position(|other| other.table.name == table.name) {
            if self.tables[index].table == table {
                return index;
            }
            self.end_stage();
        }
        let changes = Changes::new(table, (self.keeps_moves)(&table.name));
        self.tables.push(Gathered { table, changes });
        self.tables.len() - 1
    }

    fn end_stage(&mut self) {
        self.known.clear();
        self.last = None;
        let tables = self.tables.drain(..).map(|gathered| TablePlan {
            table: gathered.table,
            work: match gathered.changes {
                Changes::Fold(fold) => Work::Folded(fold.finish()),
                Changes::Ordered(changes) => Work::Ordered(changes),
            },
        });
        self.done.push(Stage { truncates: std::mem::take(&mut self.truncates), tables: tables.collect() });
    }
}
