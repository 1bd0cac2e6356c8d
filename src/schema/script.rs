//! A target's schema as statements, by the stages of a migration.
//!
//! Made from the definitions of a source's tables ([`super::mapping::ddl`]); each statement says what it makes and of which
//! table, so that a part of the tables can be made alone, and what is there can be left alone.

use std::fmt;

use super::TableName;

/// What a statement makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is SQL's own word for it")]
pub enum Object {
    Schema,
    Extension,
    Type,
    Table,
    Comment,
    PrimaryKey,
    UniqueIndex,
    Index,
    Check,
    ForeignKey,
    Trigger,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Object::Schema => "schema",
            Object::Extension => "extension",
            Object::Type => "type",
            Object::Table => "table",
            Object::Comment => "comment",
            Object::PrimaryKey => "primary key",
            Object::UniqueIndex => "unique index",
            Object::Index => "index",
            Object::Check => "check",
            Object::ForeignKey => "foreign key",
            Object::Trigger => "trigger",
        })
    }
}

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What it makes.
    pub object: Object,
    /// What that is called at the target, without its schema.
    pub name: String,
    /// The table it is of, as it is called at the source; `None` for what all tables share.
    pub of: Option<TableName>,
    /// The same table at the target.
    pub on: Option<TableName>,
    /// The table that a foreign key refers to, as it is called at the source and at the target.
    pub refers: Option<(TableName, TableName)>,
    /// Columns of the target's table whose types it goes by; empty where any type will do.
    pub typed: Vec<String>,
    /// The statement, with its semicolon.
    pub sql: String,
}

impl Statement {
    /// `index orders_code of public.orders`
    pub fn label(&self) -> String {
        match (&self.on, self.object) {
            (Some(on), Object::Table) => format!("table {on}"),
            (Some(on), Object::PrimaryKey) => format!("primary key of {on}"),
            (Some(on), object) => format!("{object} {} of {on}", self.name),
            (None, object) => format!("{object} {}", self.name),
        }
    }

    /// Whether one of these tables of the source has a part in it.
    pub fn concerns(&self, is_one: impl Fn(&TableName) -> bool) -> bool {
        self.of.iter().chain(self.refers.iter().map(|(source, _)| source)).any(is_one)
    }
}

/// Statements by stage, each in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    /// Schemas, extensions, types, tables with defaults, identities and comments: before the rows.
    pub before: Vec<Statement>,
    /// Primary keys and unique indexes: what changes find their rows by. With the rows there, they are cheaper to build.
    pub keys: Vec<Statement>,
    /// All other indexes.
    pub indexes: Vec<Statement>,
    /// CHECK constraints and foreign keys: once the data is consistent.
    pub after: Vec<Statement>,
    /// What stays behind, by name, and why.
    pub not_carried: Vec<String>,
}

impl Script {
    /// All statements, in order.
    pub fn statements(&self) -> impl Iterator<Item = &Statement> {
        [&self.before, &self.keys, &self.indexes, &self.after].into_iter().flatten()
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.statements().try_for_each(|statement| writeln!(f, "{}", statement.sql))
    }
}
