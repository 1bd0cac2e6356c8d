//! One table, as the stages see it.

use std::sync::Arc;

use super::{MySqlType, TableName};

/// A table at one of the ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSchema {
    /// The server's own id of the table (Postgres: the relation's OID); only compared with ids of the same server.
    pub id: u32,
    /// Its name.
    pub name: TableName,
    /// The columns that travel, in order: without dropped and generated ones.
    pub columns: Vec<Column>,
    /// The columns by which rows may be folded (TRAPS 12): unique, immediate and not null *at the source*.
    /// `None`: changes are applied one by one, in source order.
    pub key: Option<Key>,
    /// What the source logs about the old row.
    pub replica_identity: ReplicaIdentity,
    /// Plain or partitioned.
    pub kind: Relkind,
    /// Rows, as the server's statistics estimate them.
    pub estimated_rows: u64,
    /// Size on disk in bytes, without indexes.
    pub bytes: u64,
}

impl TableSchema {
    /// A plain table, known by its columns and the places of its key among them alone.
    pub fn new(name: TableName, columns: Vec<Column>, key: Option<Vec<usize>>) -> TableSchema {
        TableSchema {
            id: 1,
            name,
            columns,
            key: key.map(|columns| Key { columns }),
            replica_identity: ReplicaIdentity::Default,
            kind: Relkind::Plain,
            estimated_rows: 0,
            bytes: 0,
        }
    }

    /// The column called `name`.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The key's columns, if there is one.
    pub fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().flat_map(|key| key.columns.iter().map(|&index| &self.columns[index]))
    }
}

/// A key rows can be folded by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Indices into [`TableSchema::columns`], in ascending order.
    pub columns: Vec<usize>,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: ColumnType,
    /// Declared NOT NULL.
    pub not_null: bool,
    /// `GENERATED … AS IDENTITY`, if it is that.
    pub identity: Option<IdentityColumn>,
}

/// How an identity column takes values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityColumn {
    /// An INSERT needs OVERRIDING SYSTEM VALUE, an UPDATE may not set it.
    Always,
    /// Like a default.
    ByDefault,
}

/// A type as its server names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnType {
    /// The type's OID on its own server.
    pub oid: u32,
    /// Schema of the type (`pg_catalog`).
    pub schema: String,
    /// Name of the type (`int4`, `_text`).
    pub name: String,
    /// Type modifier, -1 for none.
    pub modifier: i32,
    /// As `format_type` prints it, for DDL and for people: `character varying(40)`.
    pub display: String,
    /// Whether its binary form holds no OID of its server and can be sent and received, so that it means the same on
    /// another server that has a type of this name: false for composites, and for arrays of user-defined types.
    pub portable_binary: bool,
    /// Whether it is an array type, which cannot itself be the element of a parameter array.
    pub is_array: bool,
    /// Whether `=` works on it (false for json, xml, point …): decides how a row without a key is found.
    pub has_equality: bool,
    /// For a column of a MySQL or MariaDB server: its type, taken apart. Then `oid` is 0, `schema` is `mysql`, `name` the
    /// base type (`bigint`) and `display` the whole of it (`bigint(20) unsigned`).
    pub mysql: Option<Arc<MySqlType>>,
}

impl Column {
    /// A column that may be null.
    pub fn new(name: impl Into<String>, ty: ColumnType) -> Column {
        Column { name: name.into(), ty, not_null: false, identity: None }
    }
}

impl ColumnType {
    /// A type of the server's own, called as it is displayed, that travels in binary and can be compared.
    pub fn built_in(oid: u32, name: &str) -> ColumnType {
        ColumnType {
            oid,
            schema: "pg_catalog".into(),
            name: name.into(),
            modifier: -1,
            display: name.into(),
            portable_binary: true,
            is_array: name.starts_with('_'),
            has_equality: true,
            mysql: None,
        }
    }

    /// A type of a MySQL or MariaDB server, from the `COLUMN_TYPE` it was read of.
    pub fn mysql(column_type: &str, ty: MySqlType) -> ColumnType {
        let end = column_type.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(column_type.len());
        ColumnType {
            schema: "mysql".into(),
            name: column_type[..end].to_ascii_lowercase(),
            portable_binary: false,
            mysql: Some(Arc::new(ty)),
            ..ColumnType::built_in(0, column_type)
        }
    }

    /// The type's name for a cast, quoted and without modifier, so that a cast never truncates.
    pub fn sql(&self) -> String {
        format!("{}.{}", super::Ident(&self.schema), super::Ident(&self.name))
    }
}

/// Postgres' REPLICA IDENTITY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key (none if the table has no immediate one).
    Default,
    /// A chosen unique index.
    Index,
    /// The whole old row.
    Full,
    /// Nothing: updates and deletes cannot be followed, and fail at the source once the table is published.
    Nothing,
}

/// What kind of relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relkind {
    /// An ordinary table.
    Plain,
    /// A partitioned parent; changes of its partitions arrive under its name.
    Partitioned,
}
