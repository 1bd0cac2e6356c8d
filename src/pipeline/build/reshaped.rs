//! What a table that the rules reshape has beside its columns: defaults, sequences, generated columns, check constraints,
//! collations.
//!
//! In: the source's catalogue. Out: the statements that make the table at the target with all of it whose columns travel;
//! the rest is listed by name. Its indexes, foreign keys, policies, triggers and comments come from the dump
//! ([`crate::pipeline::dump::reshape`]).

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::TransformRule;
use crate::error::{Context, Result};
use crate::pipeline::dump::reshape::{column, statement};
use crate::postgres::Client;
use crate::schema::{Column, ColumnType, Ident, TableName, ddl};
use crate::transform::{Plan, TablePlan, target_column};

/// A table that the rules reshape, and what the source's catalogue says of it.
pub(super) struct Reshaped {
    table: Arc<TablePlan>,
    facts: Vec<Fact>,
}

/// A row of `reshaped.sql`.
struct Fact {
    kind: char,
    column: String,
    what: String,
    name: Option<String>,
    foreign_sequence: bool,
}

/// Asks the catalogue.
pub(super) async fn look(client: &Client, table: &Arc<TablePlan>) -> Result<Reshaped> {
    let source = &table.source;
    let rows = client
        .query(include_str!("reshaped.sql"), &[&source.id])
        .await
        .with_context(|| format!("reading what {} has", source.name))?;
    let fact = |row: &tokio_postgres::Row| Fact {
        kind: row.get::<_, &str>(0).chars().next().unwrap_or_default(),
        column: row.get(1),
        what: row.get(2),
        name: row.get(3),
        foreign_sequence: row.get(4),
    };
    Ok(Reshaped { table: Arc::clone(table), facts: rows.iter().map(fact).collect() })
}

/// The plan with the generated columns that the target's tables get too. No row brings their values, so that they are no
/// columns for anyone else; but indexes, checks and comments may be about them.
pub(super) fn with_generated(
    plan: &Plan,
    rules: &[TransformRule],
    tables: &[Reshaped],
    not_carried: &mut Vec<String>,
) -> Plan {
    plan.with(tables.iter().map(|Reshaped { table, facts }| {
        let mut more = (**table).clone();
        let (mut source, mut shaped) = ((*more.source).clone(), (*more.shaped).clone());
        for fact in facts.iter().filter(|fact| matches!(fact.kind, 'g' | 'v')) {
            let Some(there) = target_column(rules, &source.name, &fact.column) else { continue };
            let refusal = match statement(&fact.what, plan, Some(table)) {
                Err(why) => why,
                Ok(_) if shaped.column(&there).is_some() => format!("{there:?} is another column's name there"),
                Ok(_) => {
                    more.columns.push(source.columns.len());
                    source.columns.push(described(&fact.column, fact));
                    shaped.columns.push(described(&there, fact));
                    continue;
                }
            };
            not_carried.push(format!("generated column of {}.{}: {refusal}", source.name, fact.column));
        }
        (more.source, more.shaped) = (Arc::new(source), Arc::new(shaped));
        more
    }))
}

/// A generated column, as far as its table's DDL needs to know.
fn described(name: &str, fact: &Fact) -> Column {
    Column::new(name, ColumnType::built_in(0, fact.name.as_deref().unwrap_or_default()))
}

/// `CREATE TABLE` and what comes with it. `plan`: [`with_generated`].
pub(super) fn create(plan: &Plan, reshaped: &Reshaped, not_carried: &mut Vec<String>) -> String {
    let table = plan.get(&reshaped.table.source.name).unwrap_or(&reshaped.table);
    let (source, to) = (&table.source.name, &table.shaped.name);
    let mut shaped = (*reshaped.table.shaped).clone();
    let (mut defaults, mut identities) = (HashMap::new(), HashMap::new());
    let (mut owned, mut generated, mut more) = (Vec::new(), Vec::new(), Vec::new());
    for Fact { kind, column: of, what, name, foreign_sequence } in &reshaped.facts {
        let there = column(table, of);
        match (kind, there) {
            ('c', _) => {
                let name = name.as_deref().unwrap_or_default();
                let add = |check| format!("ALTER TABLE {} ADD CONSTRAINT {} {check};", to.sql(), Ident(name));
                match statement(what, plan, Some(table)) {
                    Ok(check) => more.push(add(check)),
                    Err(why) => not_carried.push(format!("check {name} of {source}: {why}")),
                }
            }
            ('f', _) => more.push(format!("ALTER TABLE {} FORCE ROW LEVEL SECURITY;", to.sql())),
            // What belongs to a column that does not travel stays with it.
            (_, None) => {}
            ('g' | 'v', Some(there)) => {
                let Ok(expression) = statement(what, plan, Some(table)) else { continue };
                let (stored, ty) = (if *kind == 'g' { " STORED" } else { "" }, name.as_deref().unwrap_or_default());
                generated.push(format!(
                    "ALTER TABLE {} ADD COLUMN {} {ty} GENERATED ALWAYS AS ({expression}){stored};",
                    to.sql(),
                    Ident(there)
                ));
            }
            ('o', Some(there)) => {
                let collated = shaped.columns.iter_mut().filter(|column| column.name == there);
                collated.for_each(|column| column.ty.display.push_str(what));
            }
            ('i', Some(there)) => drop(identities.insert(there.to_owned(), what.clone())),
            ('s', Some(there)) => {
                let sequence = TableName::new(&to.schema, name.as_deref().unwrap_or_default()).sql();
                owned.push(format!("CREATE SEQUENCE {sequence} {what};"));
                owned.push(format!("ALTER SEQUENCE {sequence} OWNED BY {}.{};", to.sql(), Ident(there)));
            }
            (_, Some(_)) if *foreign_sequence => not_carried.push(format!(
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
                None => drop(defaults.insert(there.to_owned(), what.clone())),
            },
        }
    }
    let mut sql = ddl::create_table(&shaped, &defaults, &identities);
    for line in owned.into_iter().chain(generated).chain(more) {
        sql.push('\n');
        sql.push_str(&line);
    }
    sql
}
