//! The statement that empties tables, and the target's tables that are in its way.
//!
//! In: the tables that one TRUNCATE emptied at the source. Out: one TRUNCATE, as long as no other table at the target
//! refers to them. One that does was not emptied at the source, because it is not there, or is not migrated; Postgres
//! then refuses a TRUNCATE even if it is empty. If nothing refers to a row, the tables are emptied by DELETE. If
//! something does, the rows cannot go: an error that names the constraint ([`Kind::Schema`]). A table that the same
//! TRUNCATE emptied at the source, and another worker empties here, is not asked: its rows are gone, or younger.

use super::catalog::TargetTable;
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::Client;
use crate::schema::{Ident, TableName};

pub(super) async fn statement(
    client: &Client,
    tables: &[&TargetTable],
    restart_identity: bool,
    elsewhere: &[TableName],
) -> Result<String> {
    let only: Vec<String> = tables.iter().map(|table| table.only()).collect();
    let names: Vec<String> = tables.iter().map(|table| table.name.sql()).collect();
    let others: Vec<String> = elsewhere.iter().map(TableName::sql).collect();
    let doing = || format!("emptying {}", names.join(", "));
    let referring = client.query(include_str!("referring.sql"), &[&names, &others]).await.with_context(doing)?;
    if referring.is_empty() {
        let identity = if restart_identity { " RESTART IDENTITY" } else { "" };
        return Ok(format!("TRUNCATE {}{identity}", only.join(", ")));
    }
    for row in referring.iter().filter(|row| !row.get::<_, bool>(4)) {
        let other = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        let constraint: String = row.get(2);
        let filled: Vec<String> =
            row.get::<_, Vec<String>>(3).iter().map(|column| format!("{} IS NOT NULL", Ident(column))).collect();
        let sql = format!("SELECT EXISTS (SELECT FROM {} WHERE {})", other.sql(), filled.join(" AND "));
        if client.query_one(&sql, &[]).await.with_context(doing)?.get(0) {
            return Err(Error::new(
                Kind::Schema,
                format!(
                    "the source has emptied {}, and rows of {other}, which is not migrated, refer to it at the target ({constraint})",
                    names.join(", ")
                ),
            )
            .fix(format!(
                "at the target: ALTER TABLE {} DROP CONSTRAINT {};  or remove the rows of {other}; the run then goes on where it is",
                other.sql(),
                Ident(&constraint)
            )));
        }
    }
    // The values of sequences are set at the cutover.
    Ok(only.iter().map(|table| format!("DELETE FROM {table}")).collect::<Vec<_>>().join("; "))
}
