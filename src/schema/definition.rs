//! A table as its server defines it: what DDL for another engine is made from.
//!
//! [`TableSchema`] is what travels of a table; a [`TableDefinition`] has everything around it: columns that do not travel,
//! indexes, foreign keys, defaults, comments. Read by a server's catalogue module, used by `schema::mapping`.

use std::sync::Arc;

use super::{ColumnType, TableName, TableSchema};

/// Everything that DDL says about a table.
#[derive(Debug, Clone)]
pub struct TableDefinition {
    /// What travels of it.
    pub table: Arc<TableSchema>,
    /// Storage engine (`InnoDB`).
    pub engine: String,
    /// Whether a consistent snapshot covers its rows: a table of an engine without transactions is none (TRAPS 9).
    pub transactional: bool,
    /// Whether it is partitioned, which no other engine needs to know.
    pub partitioned: bool,
    /// Whether the server keeps the history of its rows (MariaDB's system versioning).
    pub versioned: bool,
    /// Its comment, empty for none.
    pub comment: String,
    /// The next value of its AUTO_INCREMENT column.
    pub auto_increment: Option<u64>,
    /// All columns in order, also those that do not travel: the columns of an event in the log.
    pub columns: Vec<ColumnDefinition>,
    /// All indexes, the primary key first.
    pub indexes: Vec<IndexDefinition>,
    /// Foreign keys that it declares.
    pub foreign_keys: Vec<ForeignKey>,
    /// CHECK constraints, without those that only say that a text is JSON.
    pub checks: Vec<CheckDefinition>,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDefinition {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: ColumnType,
    /// Declared NOT NULL.
    pub not_null: bool,
    /// Its default.
    pub default: Option<DefaultValue>,
    /// `ON UPDATE CURRENT_TIMESTAMP`.
    pub on_update: bool,
    /// AUTO_INCREMENT.
    pub auto_increment: bool,
    /// The expression of a generated column, which does not travel.
    pub generated: Option<String>,
    /// Its comment, empty for none.
    pub comment: String,
}

/// What a column holds when nothing is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DefaultValue {
    /// A value: its text without quotes. Of a `bit` column as `b'101'`.
    Literal(String),
    /// The time of the statement.
    CurrentTimestamp,
    /// An expression in the server's own language.
    Expression(String),
}

/// One index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexDefinition {
    /// Its name, unique in the table.
    pub name: String,
    /// What it is.
    pub kind: IndexKind,
    /// Its parts in order.
    pub parts: Vec<IndexPart>,
}

/// What kind of index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the server's own word for it")]
pub enum IndexKind {
    Primary,
    Unique,
    Plain,
    FullText,
    Spatial,
}

/// One part of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexPart {
    /// The column; `None` for an expression.
    pub column: Option<String>,
    /// Only this many characters or bytes of it are in the index.
    pub prefix: Option<u32>,
    /// Kept in descending order.
    pub descending: bool,
}

/// One foreign key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    /// Its name.
    pub name: String,
    /// The columns here …
    pub columns: Vec<String>,
    /// … refer to this table's …
    pub referenced: TableName,
    /// … columns.
    pub referenced_columns: Vec<String>,
    /// `CASCADE`, `SET NULL`, `NO ACTION` …
    pub on_update: String,
    /// The same for DELETE.
    pub on_delete: String,
}

/// One CHECK constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckDefinition {
    /// Its name.
    pub name: String,
    /// Its condition in the server's own language.
    pub clause: String,
}

/// Something else in a database, which is not carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherObject {
    /// `view`, `trigger`, `procedure`, `function`, `event`, `sequence`.
    pub kind: String,
    /// What it is called.
    pub name: TableName,
}

impl TableDefinition {
    /// The column called `name`.
    pub fn column(&self, name: &str) -> Option<&ColumnDefinition> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// For each column that travels, its place among all columns.
    pub fn places(&self) -> Vec<usize> {
        let travelling = self.columns.iter().enumerate().filter(|(_, column)| column.generated.is_none());
        travelling.map(|(place, _)| place).collect()
    }
}
