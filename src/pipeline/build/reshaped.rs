//! What a table that the rules reshape has beside its columns: defaults, sequences, check constraints.
//!
//! In: the source's catalogue. Out: the statements that make the table at the target with all of it whose columns travel;
//! the rest is listed by name. Its indexes and foreign keys come from the dump
//! ([`crate::pipeline::dump::reshape`]).

use std::collections::HashMap;

use crate::error::{Context, Result};
use crate::pipeline::dump::reshape::{column, statement};
use crate::postgres::Client;
use crate::schema::{Ident, TableName, ddl};
use crate::transform::{Plan, TablePlan};

/// `CREATE TABLE` and what comes with it.
pub(super) async fn create(
    client: &Client,
    plan: &Plan,
    table: &TablePlan,
    not_carried: &mut Vec<String>,
) -> Result<String> {
    let (source, to) = (&table.source.name, &table.shaped.name);
    let rows = client
        .query(include_str!("reshaped.sql"), &[&table.source.id])
        .await
        .with_context(|| format!("reading what {source} has"))?;
    let (mut defaults, mut identities, mut more) = (HashMap::new(), HashMap::new(), Vec::new());
    let mut owned = Vec::new();
    for row in rows {
        let (kind, of, what): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
        let name: Option<&str> = row.get(3);
        let there = column(table, of);
        match (kind, there) {
            ("c", _) => {
                let name = name.unwrap_or_default();
                let add = |check| format!("ALTER TABLE {} ADD CONSTRAINT {} {check};", to.sql(), Ident(name));
                match statement(what, plan, Some(table)) {
                    Ok(check) => more.push(add(check)),
                    Err(why) => not_carried.push(format!("check {name} of {source}: {why}")),
                }
            }
            ("g", _) => not_carried
                .push(format!("generated column of {source}.{of}: {what} (a rule gives the table another shape)")),
            // What belongs to a column that does not travel stays with it.
            (_, None) => {}
            ("i", Some(there)) => drop(identities.insert(there.to_owned(), what.to_owned())),
            ("s", Some(there)) => {
                let sequence = TableName::new(&to.schema, name.unwrap_or_default()).sql();
                owned.push(format!("CREATE SEQUENCE {sequence} {what};"));
                owned.push(format!("ALTER SEQUENCE {sequence} OWNED BY {}.{};", to.sql(), Ident(there)));
            }
            (_, Some(_)) if row.get(4) => not_carried.push(format!(
                "default of {source}.{of}: {what} (a sequence of another table, and a rule gives this one another shape)"
            )),
            (_, Some(there)) => match name {
                // Its own sequence, which lies beside the table: set once it is there.
                Some(name) => {
                    let sequence = TableName::new(&to.schema, name).sql().replace('\'', "''");
                    more.push(format!(
                        "ALTER TABLE {} ALTER COLUMN {} SET DEFAULT nextval('{sequence}'::regclass);",
                        to.sql(),
                        Ident(there)
                    ));
                }
                None => drop(defaults.insert(there.to_owned(), what.to_owned())),
            },
        }
    }
    let mut sql = ddl::create_table(&table.shaped, &defaults, &identities);
    for line in owned.into_iter().chain(more) {
        sql.push('\n');
        sql.push_str(&line);
    }
    Ok(sql)
}
