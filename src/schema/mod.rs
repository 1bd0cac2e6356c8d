//! What tables look like, and how they are named.
//!
//! [`TableSchema`] is the description every stage shares; [`Ident`] and [`TableName`] are the only way an identifier
//! gets into a statement; [`Patterns`] decides which tables a migration covers. DDL for the target is in
//! `schema::ddl`. Nothing here talks to a server.

pub mod ddl;
mod definition;
mod leaves;
pub mod mapping;
mod mysql_type;
mod name;
mod pattern;
mod script;
mod shape;
mod table;

pub use definition::{
    CheckDefinition, ColumnDefinition, DefaultValue, ForeignKey, IndexDefinition, IndexKind, IndexPart, OtherObject,
    TableDefinition,
};
pub use leaves::{Became, Leaf, LeafChange, Leaves};
pub use mysql_type::{MySqlKind, MySqlType};
pub use name::{Ident, TableName};
pub use pattern::{Pattern, Patterns};
pub use script::{Object, Script, Statement};
pub use shape::{Fact, Facts, Shape, ShapeChange, ShapeColumn};
pub use table::{Column, ColumnType, IdentityColumn, Key, Relkind, ReplicaIdentity, TableSchema};
