//! Whether a table in the stream is still the table the migration was started with.
//!
//! The stream describes a table before its first row, and again after every ALTER. Equal: the description given at the
//! start is used, which knows more. Different: the new one goes down the stream as
//! [`ChangeEvent::Schema`](crate::change::ChangeEvent::Schema).

use std::sync::Arc;

use super::pgoutput::Relation;
use crate::schema::{Column, ColumnType, Key, ReplicaIdentity, TableName, TableSchema};

/// The table of the migration that `seen` describes: by id, because tables are renamed; then by name, because they are
/// made anew.
pub(super) fn find<'a>(tables: &'a [Arc<TableSchema>], seen: &Relation) -> Option<&'a Arc<TableSchema>> {
    let name = name_of(seen);
    tables.iter().find(|table| table.id == seen.id).or_else(|| tables.iter().find(|table| table.name == name))
}

fn name_of(seen: &Relation) -> TableName {
    // The protocol abbreviates pg_catalog to nothing.
    TableName::new(if seen.schema.is_empty() { "pg_catalog" } else { &seen.schema }, seen.name.as_str())
}

/// What the table looks like now, if that differs in what matters to a row: the names, types and order of the columns,
/// the table's name, or the columns of the key.
pub(super) fn differing(given: &TableSchema, seen: &Relation) -> Option<TableSchema> {
    let name = name_of(seen);
    let same_columns = given.columns.len() == seen.columns.len()
        && given
            .columns
            .iter()
            .zip(&seen.columns)
            .all(|(a, b)| a.name == b.name && a.ty.oid == b.type_oid && a.ty.modifier == b.modifier);
    // FULL marks all columns; there the key was chosen from the catalogue and stays.
    let full = seen.replica_identity == b'f';
    let marked: Vec<usize> =
        seen.columns.iter().enumerate().filter(|(_, column)| column.key).map(|(index, _)| index).collect();
    let key = if full {
        let index = |column: &Column| seen.columns.iter().position(|other| other.name == column.name);
        let columns: Option<Vec<usize>> = given.key_columns().map(index).collect();
        columns.filter(|columns| !columns.is_empty()).map(|columns| Key { columns })
    } else {
        Some(Key { columns: marked }).filter(|key| !key.columns.is_empty())
    };
    if same_columns && name == given.name && key == given.key {
        return None;
    }
    let columns = seen
        .columns
        .iter()
        .map(|column| {
            let old = given
                .column(&column.name)
                .filter(|old| old.ty.oid == column.type_oid && old.ty.modifier == column.modifier);
            old.cloned().unwrap_or_else(|| Column {
                name: column.name.clone(),
                ty: ColumnType {
                    oid: column.type_oid,
                    schema: "pg_catalog".into(),
                    name: format!("type {}", column.type_oid),
                    modifier: column.modifier,
                    display: format!("the type with OID {}", column.type_oid),
                    portable_binary: false,
                    is_array: false,
                    has_equality: false,
                    mysql: None,
                },
                not_null: false,
                identity: None,
            })
        })
        .collect();
    let replica_identity = match seen.replica_identity {
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        b'n' => ReplicaIdentity::Nothing,
        _ => ReplicaIdentity::Default,
    };
    Some(TableSchema { id: seen.id, name, columns, key, replica_identity, ..given.clone() })
}

/// What has changed from `old` to `new`, for people: `column "a" was dropped; column "b" is new`.
pub fn describe_difference(old: &TableSchema, new: &TableSchema) -> String {
    let mut changes = Vec::new();
    if old.name != new.name {
        changes.push(format!("it was renamed to {}", new.name));
    }
    for column in &old.columns {
        match new.column(&column.name) {
            None => changes.push(format!("column {:?} is gone", column.name)),
            Some(now) if now.ty.oid != column.ty.oid => {
                changes.push(format!("column {:?} was {}, is {}", column.name, column.ty.display, now.ty.display));
            }
            Some(_) => {}
        }
    }
    for column in &new.columns {
        if old.column(&column.name).is_none() {
            changes.push(format!("column {:?} is new ({})", column.name, column.ty.display));
        }
    }
    let names = |table: &TableSchema| table.columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
    if changes.is_empty() && names(old) != names(new) {
        changes.push("its columns have another order".into());
    }
    let key = |table: &TableSchema| table.key_columns().map(|c| c.name.clone()).collect::<Vec<_>>();
    if key(old) != key(new) {
        let list = |names: Vec<String>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        changes.push(format!("its key was ({}), is ({})", list(key(old)), list(key(new))));
    }
    if changes.is_empty() { "nothing that matters".into() } else { changes.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::super::pgoutput::RelationColumn;
    use super::*;

    fn table() -> TableSchema {
        let column = |name: &str, oid: u32| Column {
            not_null: true,
            ..Column::new(name, ColumnType::built_in(oid, &format!("t{oid}")))
        };
        let columns = vec![column("id", 20), column("a", 25)];
        TableSchema { id: 5, ..TableSchema::new(TableName::new("public", "t"), columns, Some(vec![0])) }
    }

    fn seen(name: &str, identity: u8, columns: &[(&str, u32, bool)]) -> Relation {
        Relation {
            id: 5,
            schema: "public".into(),
            name: name.into(),
            replica_identity: identity,
            columns: columns
                .iter()
                .map(|&(name, type_oid, key)| RelationColumn { key, name: name.into(), type_oid, modifier: -1 })
                .collect(),
        }
    }

    fn said(seen: &Relation) -> Option<String> {
        differing(&table(), seen).map(|new| describe_difference(&table(), &new))
    }

    #[test]
    fn the_same_table_is_no_difference() {
        assert_eq!(said(&seen("t", b'd', &[("id", 20, true), ("a", 25, false)])), None);
        assert_eq!(said(&seen("t", b'f', &[("id", 20, true), ("a", 25, true)])), None);
    }

    #[test]
    fn every_difference_is_told() {
        let told = |seen: &Relation| said(seen).expect("it differs");
        assert!(told(&seen("t", b'd', &[("id", 20, true)])).contains("\"a\" is gone"));
        assert!(
            told(&seen("t", b'd', &[("id", 20, true), ("a", 25, false), ("b", 23, false)])).contains("\"b\" is new")
        );
        assert!(told(&seen("t", b'd', &[("id", 20, true), ("a", 23, false)])).contains("\"a\" was t25"));
        assert!(told(&seen("t2", b'd', &[("id", 20, true), ("a", 25, false)])).contains("renamed to public.t2"));
        assert!(told(&seen("t", b'd', &[("a", 25, false), ("id", 20, true)])).contains("order"));
        assert!(told(&seen("t", b'i', &[("id", 20, false), ("a", 25, true)])).contains("key was (id), is (a)"));
    }
}
