//! The tables of a database, read from its catalogue.
//!
//! Both ends use it: the source for what is migrated, the target for what is there. In: a session. Out: one
//! [`TableSchema`] a user table, in name order. Left out: partitions (part of their parent), temporary and unlogged
//! tables (in no log), what belongs to an extension, to the system, or to Cutwater itself.

use std::collections::HashMap;
use std::sync::Arc;

use super::Client;
use crate::error::{Context, Error, Kind, Result};
use crate::schema::{Column, ColumnType, IdentityColumn, Key, Relkind, ReplicaIdentity, TableName, TableSchema};

/// All user tables.
pub async fn tables(client: &Client) -> Result<Vec<Arc<TableSchema>>> {
    let doing = "reading the tables from the catalogue";
    let mut columns: HashMap<u32, Vec<(i16, Column)>> = HashMap::new();
    for row in client.query(include_str!("catalog_columns.sql"), &[]).await.context(doing)? {
        let ty = ColumnType {
            oid: row.get("type_oid"),
            schema: row.get("type_schema"),
            name: row.get("type_name"),
            modifier: row.get("modifier"),
            display: row.get("display"),
            portable_binary: row.get("portable_binary"),
            is_array: row.get("is_array"),
            has_equality: row.get("has_equality"),
            mysql: None,
        };
        let identity = match row.get::<_, &str>("identity") {
            "a" => Some(IdentityColumn::Always),
            "d" => Some(IdentityColumn::ByDefault),
            _ => None,
        };
        let column = Column { name: row.get("name"), ty, not_null: row.get("not_null"), identity };
        columns.entry(row.get("relation")).or_default().push((row.get("number"), column));
    }
    let mut tables = Vec::new();
    for row in client.query(include_str!("catalog_tables.sql"), &[]).await.context(doing)? {
        let id: u32 = row.get("relation");
        let (numbers, columns): (Vec<i16>, Vec<Column>) = columns.remove(&id).unwrap_or_default().into_iter().unzip();
        let replica_identity = match row.get::<_, &str>("replica_identity") {
            "d" => ReplicaIdentity::Default,
            "i" => ReplicaIdentity::Index,
            "f" => ReplicaIdentity::Full,
            "n" => ReplicaIdentity::Nothing,
            other => return Err(Error::new(Kind::Protocol, format!("replica identity {other:?} is not known"))),
        };
        // A key with a generated column cannot be folded by: the column does not travel.
        let key = row.get::<_, Option<Vec<i16>>>("key").and_then(|key| {
            let mut indices: Vec<usize> =
                key.iter().map(|number| numbers.iter().position(|n| n == number)).collect::<Option<_>>()?;
            indices.sort_unstable();
            Some(Key { columns: indices })
        });
        let count = |value: i64| u64::try_from(value).unwrap_or(0);
        tables.push(Arc::new(TableSchema {
            id,
            name: TableName::new(row.get::<_, String>("schema"), row.get::<_, String>("table")),
            columns,
            key,
            replica_identity,
            kind: if row.get::<_, &str>("kind") == "p" { Relkind::Partitioned } else { Relkind::Plain },
            estimated_rows: count(row.get("estimated_rows")),
            bytes: count(row.get("bytes")),
        }));
    }
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tables)
}

/// The unlogged tables, which no log and so no migration can follow.
pub async fn unlogged_tables(client: &Client) -> Result<Vec<TableName>> {
    let rows = client
        .query(include_str!("catalog_unlogged.sql"), &[])
        .await
        .context("reading the unlogged tables from the catalogue")?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect())
}
