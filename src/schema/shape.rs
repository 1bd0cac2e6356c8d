//! What a table looked like at one place of the source's log, and how that becomes another look.
//!
//! The state keeps, for every table, the [`Shape`] that the target was last brought to, so that a run which starts again
//! compares the stream with what the *target* follows, and not with what the source's catalogue says now, which may be
//! hours ahead.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{TableName, TableSchema};

/// The columns a table has at one place of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// The source's id of the table.
    pub id: u32,
    /// Its columns, in order, without generated ones.
    pub columns: Vec<ShapeColumn>,
    /// The columns its rows are known by in the stream; empty without a key.
    pub key: Vec<String>,
    /// The files that held its rows (relation → file) at a moment when it had this shape. A column that is added with a
    /// value of its own for every row rewrites them.
    #[serde(default)]
    pub files: BTreeMap<u32, u32>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShapeColumn {
    /// The column's number in the source's catalogue, which survives renaming; unknown if the column was gone again when
    /// it was first seen.
    pub number: Option<i16>,
    /// Its name.
    pub name: String,
    /// The source's OID of its type; 0 where its types have no numbers.
    pub type_oid: u32,
    /// The type's modifier.
    pub modifier: i32,
    /// `character varying(40)`, for people, and where types have no numbers for comparisons.
    pub display: String,
}

impl Shape {
    /// The shape of a table as a catalogue or the stream describes it; the numbers come from `facts` where they fit.
    pub fn of(table: &TableSchema, facts: &Facts) -> Shape {
        let columns = table.columns.iter().map(|column| ShapeColumn {
            number: facts.live(&column.name).filter(|fact| fact.type_oid == column.ty.oid).map(|fact| fact.number),
            name: column.name.clone(),
            type_oid: column.ty.oid,
            modifier: column.ty.modifier,
            display: column.ty.display.clone(),
        });
        Shape {
            id: table.id,
            columns: columns.collect(),
            key: table.key_columns().map(|column| column.name.clone()).collect(),
            files: facts.files.clone(),
        }
    }

    /// The column called `name`.
    pub fn column(&self, name: &str) -> Option<&ShapeColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether `table` has exactly these columns and this key.
    pub fn is_of(&self, table: &TableSchema) -> bool {
        self.id == table.id
            && self.columns.len() == table.columns.len()
            && self.columns.iter().zip(&table.columns).all(|(mine, column)| {
                mine.name == column.name
                    && mine.type_oid == column.ty.oid
                    && mine.modifier == column.ty.modifier
                    && (column.ty.oid != 0 || mine.display == column.ty.display)
            })
            && self.key.iter().eq(table.key_columns().map(|column| &column.name))
    }
}

/// What the source's catalogue says about a table now, beyond what the stream tells.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Every column there ever was.
    pub columns: Vec<Fact>,
    /// The files that hold its rows, by relation.
    pub files: BTreeMap<u32, u32>,
}

/// What it says about a column.
#[derive(Debug, Clone)]
pub struct Fact {
    /// Its number, which it keeps when it is renamed.
    pub number: i16,
    /// Its name now.
    pub name: String,
    /// Whether it was dropped.
    pub dropped: bool,
    /// Its type's OID.
    pub type_oid: u32,
    /// Its type's modifier.
    pub modifier: i32,
    /// Declared NOT NULL.
    pub not_null: bool,
    /// A generated or an identity column.
    pub generated: bool,
    /// What rows have in it that are older than it: the value it was added with. `None`: it holds nothing for them.
    pub missing: Option<String>,
    /// Whether partitions disagree about that.
    pub mixed: bool,
    /// Its default expression now.
    pub default: Option<String>,
    /// Its collation, quoted, if it is not its type's.
    pub collation: Option<String>,
}

impl Facts {
    /// The column that is called `name` now.
    pub fn live(&self, name: &str) -> Option<&Fact> {
        self.columns.iter().find(|fact| !fact.dropped && fact.name == name)
    }

    /// The column of this number.
    pub fn numbered(&self, number: Option<i16>) -> Option<&Fact> {
        self.columns.iter().find(|fact| Some(fact.number) == number)
    }
}

/// What must happen at the target before the first row of another shape.
#[derive(Debug, Clone)]
pub struct ShapeChange {
    /// The table at the source.
    pub source: TableName,
    /// The table at the target.
    pub target: TableName,
    /// Statements for the target, in order; none if it has been brought to the shape already.
    pub statements: Vec<String>,
    /// Statements for after the rows of the batch: defaults that only rows to come may take.
    pub afterwards: Vec<String>,
    /// The shape from here on, to be remembered in the same transaction.
    pub shape: Shape,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Column, ColumnType};

    #[test]
    fn types_without_numbers_are_told_apart_by_their_text() {
        let table = |oid: u32, display: &str| {
            let ty = ColumnType { display: display.to_owned(), ..ColumnType::built_in(oid, display) };
            TableSchema::new(TableName::new("shop", "orders"), vec![Column::new("total", ty)], None)
        };
        let shape = |table: &TableSchema| Shape::of(table, &Facts::default());
        assert!(shape(&table(0, "decimal(10,2)")).is_of(&table(0, "decimal(10,2)")));
        assert!(!shape(&table(0, "decimal(10,2)")).is_of(&table(0, "decimal(12,2)")));
        assert!(shape(&table(23, "integer")).is_of(&table(23, "int4")), "the number says what it is");
    }
}
