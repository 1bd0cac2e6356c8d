//! What the applier knows of each table it writes to: the target's description, and the statements prepared for it.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Statement;

use super::catalog::{Carrier, TargetTable, describe};
use super::encode::{ArrayBuilder, Form, Raw};
use super::sql::{Layout, Shape, Side, Writer, no_table};
use crate::change::{Datum, Row};
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::Client;
use crate::schema::{TableName, TableSchema};

/// The tables met so far.
#[derive(Default)]
pub(super) struct Tables {
    entries: HashMap<TableName, Arc<Entry>>,
    prepared: HashMap<(TableName, Form), HashMap<Shape, Ready>>,
}

/// A table: as the changes describe it, and as it is at the target.
pub(super) struct Entry {
    pub schema: Arc<TableSchema>,
    pub target: TargetTable,
    /// Index of the target's attribute for each column of the changes.
    pub attributes: Vec<usize>,
    /// The column of the changes for each of the target's attributes.
    columns: Vec<Option<usize>>,
}

/// A statement that is prepared.
#[derive(Clone)]
pub(super) struct Ready {
    pub statement: Statement,
    pub layout: Arc<Layout>,
}

impl Tables {
    /// The table's entry; reads the target's catalogue when the table is met for the first time or has changed.
    pub(super) async fn entry(&mut self, client: &Client, schema: &Arc<TableSchema>) -> Result<Arc<Entry>> {
        if let Some(entry) = self.entries.get(&schema.name)
            && (Arc::ptr_eq(&entry.schema, schema) || entry.schema == *schema)
        {
            return Ok(Arc::clone(entry));
        }
        let mut found = describe(client, &[&schema.name]).await?;
        let target = found.remove(&schema.name).ok_or_else(|| no_table(&schema.name))?;
        let entry = Arc::new(Entry::new(Arc::clone(schema), target)?);
        self.prepared.retain(|(name, _), _| *name != schema.name);
        self.entries.insert(schema.name.clone(), Arc::clone(&entry));
        Ok(entry)
    }

    /// Forgets a table whose columns are about to change.
    pub(super) fn forget(&mut self, name: &TableName) {
        self.entries.remove(name);
        self.prepared.retain(|(other, _), _| other != name);
    }

    /// The prepared statement of this shape.
    pub(super) async fn statement(
        &mut self,
        client: &Client,
        entry: &Entry,
        form: Form,
        shape: &Shape,
    ) -> Result<Ready, Error> {
        let name = &entry.schema.name;
        let shapes = match self.prepared.get_mut(&(name.clone(), form)) {
            Some(shapes) => shapes,
            None => {
                if form == Form::Binary {
                    entry.check_binary()?;
                }
                self.prepared.entry((name.clone(), form)).or_default()
            }
        };
        if let Some(ready) = shapes.get(shape) {
            return Ok(ready.clone());
        }
        let written = entry.writer(form).write(shape)?;
        let statement = client.prepare(&written.sql).await.with_context(|| format!("preparing to write {name}"))?;
        let ready = Ready { statement, layout: Arc::new(written.layout) };
        shapes.insert(shape.clone(), ready.clone());
        Ok(ready)
    }
}

impl Entry {
    fn new(schema: Arc<TableSchema>, target: TargetTable) -> Result<Entry> {
        let name = &schema.name;
        let mut attributes = Vec::with_capacity(schema.columns.len());
        for column in &schema.columns {
            let Some(index) = target.attributes.iter().position(|attribute| attribute.name == column.name) else {
                return Err(Error::new(Kind::Schema, format!("{name} at the target has no column {:?}", column.name))
                    .fix(format!(
                        "ALTER TABLE {} ADD COLUMN {} {};  at the target, or leave it out with [[transform]] columns = [\"!{}\"]",
                        name.sql(),
                        crate::schema::Ident(&column.name),
                        column.ty.display,
                        column.name
                    )));
            };
            if target.attributes[index].generated {
                return Err(Error::new(
                    Kind::Schema,
                    format!(
                        "{name}.{} is a generated column at the target and an ordinary one at the source",
                        column.name
                    ),
                )
                .fix("make it an ordinary column at the target, or leave it out with [[transform]] columns"));
            }
            attributes.push(index);
        }
        let mut columns = vec![None; target.attributes.len()];
        for (column, &attribute) in attributes.iter().enumerate() {
            columns[attribute] = Some(column);
        }
        Ok(Entry { schema, target, attributes, columns })
    }

    pub(super) fn key(&self) -> &[usize] {
        self.schema.key.as_ref().map_or(&[], |key| &key.columns)
    }

    fn writer(&self, form: Form) -> Writer<'_> {
        Writer { table: &self.target, attributes: &self.attributes, key: self.key(), form }
    }

    /// Binary values mean the same only in a type of the same name.
    fn check_binary(&self) -> Result<()> {
        for (column, &index) in self.schema.columns.iter().zip(&self.attributes) {
            let attribute = &self.target.attributes[index];
            if attribute.type_name != column.ty.name {
                return Err(Error::new(
                    Kind::Schema,
                    format!(
                        "{}.{} is {} at the target and {} at the source, and the stream is binary",
                        self.schema.name, column.name, attribute.display, column.ty.display
                    ),
                )
                .fix("restart the run: it then reads the target's types again and streams text"));
            }
        }
        Ok(())
    }

    /// The parameters of a statement for rows of (new, origin).
    pub(super) fn params<'r>(
        &self,
        form: Form,
        layout: &Layout,
        rows: impl Iterator<Item = (&'r Row, Option<&'r Row>)>,
    ) -> Result<Vec<Raw>> {
        match layout {
            Layout::None => Ok(Vec::new()),
            Layout::Count => {
                let mut array = ArrayBuilder::new(Carrier::Text.oid(), 0);
                rows.into_iter().try_for_each(|_| array.push(form, Datum::Null))?;
                Ok(vec![array.finish()])
            }
            Layout::Single(slots) => {
                let mut params = Vec::with_capacity(slots.len());
                for (new, origin) in rows {
                    for &(side, column) in slots {
                        params.push(Raw::of(form, field(pick(side, new, origin), column)?)?);
                    }
                }
                Ok(params)
            }
            Layout::Arrays(slots) => self.arrays(form, slots, rows),
            Layout::Records(sides) => self.records(sides, rows),
        }
        .with_context(|| format!("writing {}", self.schema.name))
    }

    fn arrays<'r>(
        &self,
        form: Form,
        slots: &[(Side, usize)],
        rows: impl Iterator<Item = (&'r Row, Option<&'r Row>)>,
    ) -> Result<Vec<Raw>> {
        let expected = rows.size_hint().0 * 16;
        let mut arrays: Vec<ArrayBuilder> = slots
            .iter()
            .map(|&(_, column)| {
                let attribute = &self.target.attributes[self.attributes[column]];
                let element = match form {
                    Form::Text => attribute.text_carrier().oid(),
                    Form::Binary => attribute.type_oid,
                };
                ArrayBuilder::new(element, expected)
            })
            .collect();
        // One walk over each row: which array takes the column, per side.
        let by_column = |side: Side| {
            let mut wanted = vec![None; self.attributes.len()];
            for (array, &(s, column)) in slots.iter().enumerate() {
                if s == side {
                    wanted[column] = Some(array);
                }
            }
            wanted
        };
        let (new_slots, origin_slots) = (by_column(Side::New), by_column(Side::Origin));
        for (new, origin) in rows {
            for (datum, array) in new.fields().zip(&new_slots) {
                if let Some(array) = *array {
                    arrays[array].push(form, datum)?;
                }
            }
            for (datum, array) in origin.into_iter().flat_map(Row::fields).zip(&origin_slots) {
                if let Some(array) = *array {
                    arrays[array].push(form, datum)?;
                }
            }
        }
        Ok(arrays.into_iter().map(ArrayBuilder::finish).collect())
    }

    fn records<'r>(
        &self,
        sides: &[(Side, Vec<usize>)],
        rows: impl Iterator<Item = (&'r Row, Option<&'r Row>)>,
    ) -> Result<Vec<Raw>> {
        let mut arrays: Vec<ArrayBuilder> =
            sides.iter().map(|_| ArrayBuilder::new(self.target.row_type, rows.size_hint().0 * 64)).collect();
        let mut fields: Vec<Datum<'_>> = Vec::with_capacity(self.attributes.len());
        for (new, origin) in rows {
            for ((side, wanted), array) in sides.iter().zip(&mut arrays) {
                fields.clear();
                fields.extend(pick(*side, new, origin).fields());
                let record = self.target.attributes.iter().zip(&self.columns).map(|(attribute, column)| {
                    let column = column.filter(|column| wanted.contains(column));
                    (attribute.type_oid, column.and_then(|column| fields.get(column).copied()))
                });
                array.push_record(record)?;
            }
        }
        Ok(arrays.into_iter().map(ArrayBuilder::finish).collect())
    }
}

fn pick<'r>(side: Side, new: &'r Row, origin: Option<&'r Row>) -> &'r Row {
    match side {
        Side::New => new,
        Side::Origin => origin.unwrap_or(new),
    }
}

fn field(row: &Row, column: usize) -> Result<Datum<'_>> {
    row.get(column).ok_or_else(|| Error::new(Kind::Internal, "a row has fewer fields than its table has columns"))
}
