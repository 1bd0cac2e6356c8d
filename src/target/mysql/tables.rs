//! What the applier and the loader know of each table they write to: as the changes describe it, and as it is at the target.
//!
//! In: a table of the changes. Out: its [`Entry`], or an error that says what the target lacks. The target's catalogue is
//! read when a table is met that is not known yet, or that has changed; the whole of it, because foreign keys of any table
//! may matter ([`super::cascade`]).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::cascade::Links;
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{MyIdent, Session, catalog, my_table};
use crate::schema::{ColumnType, MySqlKind, MySqlType, TableDefinition, TableName, TableSchema};

/// The tables met so far.
#[derive(Default)]
pub(super) struct Tables {
    known: HashMap<TableName, Arc<TableDefinition>>,
    with_triggers: HashSet<TableName>,
    entries: HashMap<TableName, Arc<Entry>>,
    /// Foreign keys whose actions the source does not log; empty where it does.
    pub links: Arc<Links>,
    /// Whether it does not.
    carries_out: bool,
}

/// A table: as the changes describe it, and as it is at the target.
pub(super) struct Entry {
    pub schema: Arc<TableSchema>,
    /// `` `shop`.`users` ``
    pub sql: String,
    /// For each column of the changes.
    pub columns: Vec<Column>,
    /// Columns that an UPDATE changes by itself unless it is told not to, and that are not among those of the changes.
    pub others_on_update: Vec<String>,
}

/// A column that is written.
pub(super) struct Column {
    /// `` `name` ``
    pub sql: String,
    pub ty: Arc<MySqlType>,
    /// `ON UPDATE CURRENT_TIMESTAMP`
    pub on_update: bool,
}

impl Tables {
    /// `carries_out`: foreign keys' actions are not in the stream.
    pub(super) fn new(carries_out: bool) -> Tables {
        Tables { carries_out, ..Tables::default() }
    }

    /// The table's entry.
    pub(super) async fn entry(&mut self, session: &mut Session, schema: &Arc<TableSchema>) -> Result<Arc<Entry>> {
        if let Some(entry) = self.entries.get(&schema.name)
            && (Arc::ptr_eq(&entry.schema, schema) || entry.schema == *schema)
        {
            return Ok(Arc::clone(entry));
        }
        if !self.known.contains_key(&schema.name) || self.entries.contains_key(&schema.name) {
            self.read(session).await?;
        }
        let definition = self.known.get(&schema.name).ok_or_else(|| no_table(&schema.name))?;
        if self.with_triggers.contains(&schema.name) {
            return Err(has_triggers(&schema.name));
        }
        let entry = Arc::new(Entry::new(Arc::clone(schema), definition)?);
        self.entries.insert(schema.name.clone(), Arc::clone(&entry));
        Ok(entry)
    }

    /// Reads the target's catalogue.
    pub(super) async fn read(&mut self, session: &mut Session) -> Result<()> {
        self.read_some(session, &[]).await
    }

    /// Reads the target's catalogue of these databases; of all if none is given.
    pub(super) async fn read_some(&mut self, session: &mut Session, databases: &[String]) -> Result<()> {
        let found = catalog::read(session, databases).await.context("reading the target's tables")?;
        self.links = Arc::new(if self.carries_out { Links::of(&found.tables) } else { Links::default() });
        self.known = found.tables.into_iter().map(|table| (table.table.name.clone(), Arc::new(table))).collect();
        let sql = "SELECT DISTINCT event_object_schema, event_object_table FROM information_schema.triggers
                    WHERE event_object_schema NOT IN ('sys', 'mysql')";
        let rows = session.rows(sql).await.context("reading the target's triggers")?;
        let name = |row: Vec<Option<String>>| Some(TableName::new(row.first()?.clone()?, row.get(1)?.clone()?));
        self.with_triggers = rows.into_iter().filter_map(name).collect();
        Ok(())
    }

    /// The table with these columns, in this order, or with all; once the catalogue was read.
    pub(super) fn entry_of(&self, name: &TableName, columns: Option<&[String]>) -> Result<Entry> {
        let definition = self.known.get(name).ok_or_else(|| no_table(name))?;
        if self.with_triggers.contains(name) {
            return Err(has_triggers(name));
        }
        let there = &definition.table;
        let Some(columns) = columns else { return Entry::new(Arc::clone(there), definition) };
        let unknown = || ColumnType::mysql("text", MySqlType::parse("text"));
        let columns = columns.iter().map(|column| {
            let ty = there.column(column).map_or_else(unknown, |found| found.ty.clone());
            crate::schema::Column::new(column, ty)
        });
        Entry::new(Arc::new(TableSchema::new(name.clone(), columns.collect(), None)), definition)
    }

    /// A table of the target, once the catalogue was read.
    pub(super) fn definition(&self, name: &TableName) -> Option<&Arc<TableDefinition>> {
        self.known.get(name)
    }
}

impl Entry {
    fn new(schema: Arc<TableSchema>, there: &TableDefinition) -> Result<Entry> {
        let name = &schema.name;
        let mut columns = Vec::with_capacity(schema.columns.len());
        let mut met = HashSet::new();
        for column in &schema.columns {
            let found = there.columns.iter().find(|other| other.name.eq_ignore_ascii_case(&column.name));
            let Some(found) = found else {
                return Err(Error::new(Kind::Schema, format!("{name} at the target has no column {:?}", column.name))
                    .fix(format!(
                        "ALTER TABLE {} ADD COLUMN {} {};  at the target, or leave it out with [[transform]] columns = [\"!{}\"]",
                        my_table(name),
                        MyIdent(&column.name),
                        column.ty.display,
                        column.name
                    )));
            };
            if found.generated.is_some() {
                return Err(Error::new(
                    Kind::Schema,
                    format!(
                        "{name}.{} is a generated column at the target and an ordinary one at the source",
                        column.name
                    ),
                )
                .fix("make it an ordinary column at the target, or leave it out with [[transform]] columns"));
            }
            met.insert(&found.name);
            columns.push(Column {
                sql: MyIdent(&found.name).to_string(),
                ty: found.ty.mysql.clone().unwrap_or_else(|| Arc::new(MySqlType::parse(&found.ty.display))),
                on_update: found.on_update,
            });
        }
        let others = there.columns.iter().filter(|column| column.on_update && !met.contains(&column.name));
        let others_on_update = others.map(|column| MyIdent(&column.name).to_string()).collect();
        Ok(Entry { sql: my_table(name), columns, others_on_update, schema })
    }

    /// Places of the key's columns.
    pub(super) fn key(&self) -> &[usize] {
        self.schema.key.as_ref().map_or(&[], |key| &key.columns)
    }

    /// Whether rows can be found by joining their keys with a list of values: only where such a value is compared in the
    /// column's own type. Otherwise the key's index would not be used, and every row of the list would read the table.
    pub(super) fn joins(&self) -> bool {
        self.key().iter().all(|&column| joins(&self.columns[column].ty))
    }
}

fn joins(ty: &MySqlType) -> bool {
    use MySqlKind as K;
    ty.is_integer()
        || (ty.is_text() && ty.charset.is_some() && ty.collation.is_some())
        || matches!(ty.kind, K::Decimal | K::Binary | K::VarBinary | K::Date | K::DateTime)
}

/// The target has no such table.
pub(super) fn no_table(name: &TableName) -> Error {
    Error::new(Kind::Schema, format!("the target has no table {name}")).fix(format!(
        "create {name} at the target (cutwater schema prints its DDL), or leave it out with [source] tables = [\"!{name}\"]"
    ))
}

/// What a table's triggers did is in the stream already, and no setting of a session switches them off (TRAPS 15).
pub(super) fn has_triggers(name: &TableName) -> Error {
    Error::new(Kind::Schema, format!("{name} at the target has triggers, which would fire a second time")).fix(format!(
        "drop them until the cutover is over: SHOW TRIGGERS FROM {} LIKE '{}';  shows them",
        MyIdent(&name.schema),
        name.table
    ))
}
