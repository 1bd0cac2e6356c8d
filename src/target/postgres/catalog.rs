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
    /// Whether there is a cast function from text, which need not read what the type's input function reads.
    pub odd_cast: bool,
    /// Whether strings that compare equal are equal: not so under some ICU collations.
    pub deterministic: bool,
    /// The type, quoted, that a domain is of in the end; `None` for what is no domain.
    pub domain_of: Option<String>,
    /// Schema of the `=` of its type; `None` for json, xml, point …
    pub equality: Option<String>,
}

/// A type whose values are plain text of any length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    Text,
    /// `character` without a length, which keeps every blank.
    Bpchar,
}

impl Carrier {
    pub(super) fn sql(self) -> &'static str {
        match self {
            Carrier::Text => "pg_catalog.text",
            Carrier::Bpchar => "pg_catalog.bpchar",
        }
    }

    /// Built in, so the same on every server.
    pub(super) fn oid(self) -> u32 {
        match self {
            Carrier::Text => 25,
            Carrier::Bpchar => 1042,
        }
    }
}

impl Attribute {
    /// The type for a cast: quoted, without modifier, so that a value that is too long is refused and not cut.
    pub(super) fn type_sql(&self) -> String {
        format!("{}.{}", Ident(&self.type_schema), Ident(&self.type_name))
    }

    /// The type of a parameter that holds the value as text and is cast to the column's type. A cast goes by the type's
    /// input function, as it should, unless there is a cast function between just these two types.
    pub(super) fn text_carrier(&self) -> Carrier {
        if self.odd_cast { Carrier::Bpchar } else { Carrier::Text }
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
        self.deterministic && self.type_schema == "pg_catalog" && EXACT.contains(&self.type_name.as_str())
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
            odd_cast: row.get(15),
            deterministic: row.get(16),
            domain_of: row.get(17),
        });
    }
    Ok(found)
}
