//! What a fence is made of: one function, and triggers that call it, on every table and partition.

use crate::error::{Context, Error, Result};
use crate::postgres::Client;
use crate::schema::{Ident, TableName};

/// A table or partition that is fenced.
pub(super) struct Relation {
    pub(super) oid: u32,
    /// Its quoted name.
    pub(super) sql: String,
    /// Whether rows live in it: none do in a partitioned parent.
    holds_rows: bool,
}

/// The tables and every partition below them, ordered by OID.
pub(super) async fn relations(client: &Client, tables: &[TableName]) -> Result<Vec<Relation>> {
    let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.table.as_str()).collect();
    let rows = client
        .query(concat!(include_str!("../../../postgres/tree.sql"), include_str!("relations.sql")), &[&schemas, &names])
        .await
        .context("listing the tables and partitions to fence")?;
    Ok(rows.iter().map(|row| Relation { oid: row.get(0), sql: row.get(1), holds_rows: row.get(2) }).collect())
}

/// Quoted name of the function.
pub(super) fn function_name(migration: &str) -> String {
    format!("cutwater.{}", Ident(&format!("fence_{migration}")))
}

/// Names of the statement trigger and the row trigger.
pub(super) fn trigger_names(migration: &str) -> (String, String) {
    (format!("cutwater_fence_{migration}"), format!("cutwater_fence_{migration}_row"))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Makes the function, or replaces it; `condition` says when it refuses.
pub(super) fn function_sql(migration: &str, condition: &str, message: &str, hint: &str) -> String {
    include_str!("function.sql")
        .replace("{name}", &function_name(migration))
        .replace("{condition}", condition)
        .replace("{message}", &literal(message).replace('$', ""))
        .replace("{hint}", &literal(hint))
}

/// Statement triggers on every parent and leaf, because an insert into a partition fires only that partition's; row
/// triggers where rows live, because apply workers of logical replication fire only those. `ENABLE ALWAYS`, because
/// `session_replication_role = replica` passes an ordinary trigger.
pub(super) async fn trigger_sql(client: &Client, migration: &str, relations: &[Relation]) -> Result<String> {
    let (statement, row) = trigger_names(migration);
    let present = client.query(include_str!("triggers.sql"), &[&statement, &row]).await?;
    let function = function_name(migration);
    let mut sql = String::new();
    let mut add = |table: &str, name: &str, events: &str, each: &str| {
        let found = present.iter().find(|t| t.get::<_, &str>(0) == table && t.get::<_, &str>(1) == name);
        let quoted = Ident(name);
        if found.is_none() {
            sql += &format!(
                "CREATE TRIGGER {quoted} BEFORE {events} ON {table} FOR EACH {each} EXECUTE FUNCTION {function}();\n"
            );
        }
        if !found.is_some_and(|t| t.get(2)) {
            sql += &format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {quoted};\n");
        }
    };
    for relation in relations {
        add(&relation.sql, &statement, "INSERT OR UPDATE OR DELETE OR TRUNCATE", "STATEMENT");
        if relation.holds_rows {
            add(&relation.sql, &row, "INSERT OR UPDATE OR DELETE", "ROW");
        }
    }
    Ok(sql)
}

/// Drops what is there; says what. Waits for each table's lock for `lock_timeout` at most.
pub(super) async fn drop_triggers(client: &Client, migration: &str, lock_timeout: &str) -> Result<Vec<String>> {
    let (statement, row) = trigger_names(migration);
    let present = client.query(include_str!("triggers.sql"), &[&statement, &row]).await?;
    let mut removed = Vec::new();
    client.batch_execute(&format!("SET lock_timeout = '{lock_timeout}'")).await?;
    let mut failed = None;
    for trigger in &present {
        let (table, name): (&str, &str) = (trigger.get(0), trigger.get(1));
        match client.batch_execute(&format!("DROP TRIGGER {} ON {table}", Ident(name))).await {
            Ok(()) => removed.push(format!("trigger {name} on {table}")),
            Err(error) => failed = Some(Error::from(error).context(format!("dropping trigger {name} on {table}"))),
        }
    }
    client.batch_execute("SET lock_timeout = 0").await?;
    failed.map_or(Ok(removed), Err)
}
