//! The target's tables as the applier needs to know them: every attribute, its type here, and how it compares.
//!
//! In: names. Out: a [`TargetTable`] for each that exists. The types of the changes are the source's; a statement must
//! speak the target's, whose OIDs differ for everything that is not built in.

use std::collections::HashMap;

use crate::error::{Context, Result};
use crate::postgres::Client;
use crate::schema::{Ident, IdentityColumn, Relkind, TableName};

/// A table at the target.
#[derive(Debug, Clone)]
pub(super) struct TargetTable {
    pub name: TableName,
    pub kind: Relkind,
    /// OID of its row type.
    pub row_type: u32,
    /// All that are not dropped, in attnum order: the fields of the table's row type.
    pub attributes: Vec<Attribute>,
}

/// One attribute.
#[derive(Debug, Clone)]
pub(super) struct Attribute {
    pub name: String,
    pub type_oid: u32,
    pub type_schema: String,
    pub type_name: String,
    /// `character varying(40)`, for people.
    pub display: String,
    pub is_array: bool,
    pub identity: Option<IdentityColumn>,
    pub generated: bool,
    /// Schema of the `=` of its type; `None` for json, xml, point …
    pub equality: Option<String>,
}

impl Attribute {
    /// The type for a cast: quoted, without modifier, so that a value that is too long is refused and not cut.
    pub(super) fn type_sql(&self) -> String {
        format!("{}.{}", Ident(&self.type_schema), Ident(&self.type_name))
    }

    /// Whether values that are equal by `=` are the same value, in every digit and letter.
    pub(super) fn equality_is_identity(&self) -> bool {
        const EXACT: [&str; 14] = [
            "bool",
            "int2",
            "int4",
            "int8",
            "oid",
            "text",
            "varchar",
            "uuid",
            "date",
            "time",
            "timestamp",
            "timestamptz",
            "bytea",
            "name",
        ];
        self.type_schema == "pg_catalog" && EXACT.contains(&self.type_name.as_str())
    }
}

impl TargetTable {
    /// The table's name for UPDATE, DELETE and SELECT: children that inherit from a plain table are tables of their own.
    pub(super) fn only(&self) -> String {
        match self.kind {
            Relkind::Plain => format!("ONLY {}", self.name.sql()),
            Relkind::Partitioned => self.name.sql(),
        }
    }
}

/// Reads the tables of these names; those that do not exist are left out.
pub(super) async fn describe(client: &Client, names: &[&TableName]) -> Result<HashMap<TableName, TargetTable>> {
    let schemas: Vec<&str> = names.iter().map(|name| name.schema.as_str()).collect();
    let tables: Vec<&str> = names.iter().map(|name| name.table.as_str()).collect();
    let rows = client
        .query(include_str!("catalog.sql"), &[&schemas, &tables])
        .await
        .context("reading the target's catalogue")?;
    let mut found: HashMap<TableName, TargetTable> = HashMap::new();
    for row in rows {
        let name = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        let kind = if row.get::<_, &str>(2) == "p" { Relkind::Partitioned } else { Relkind::Plain };
        let table = found.entry(name).or_insert_with_key(|name| TargetTable {
            name: name.clone(),
            kind,
            row_type: row.get(14),
            attributes: Vec::new(),
        });
        // A table without columns gives one row of NULLs.
        let Some(attribute) = row.get::<_, Option<String>>(3) else { continue };
        table.attributes.push(Attribute {
            name: attribute,
            type_oid: row.get(4),
            type_schema: row.get(5),
            type_name: row.get(6),
            display: row.get(8),
            is_array: row.get(12),
            identity: match row.get::<_, &str>(10) {
                "a" => Some(IdentityColumn::Always),
                "d" => Some(IdentityColumn::ByDefault),
                _ => None,
            },
            generated: row.get(11),
            equality: row.get(13),
        });
    }
    Ok(found)
}
