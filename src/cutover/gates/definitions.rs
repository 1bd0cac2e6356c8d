//! Defaults and NOT NULL: what the first rows that are written to the target would get, and what would be refused.
//!
//! The stream does not tell when one changes at the source. In: both catalogues. Out: the columns that differ, each with
//! the statement that makes the target's like the source's. A target made by other hands may have an identity where the
//! source has a default; of columns of another type, and between servers of two versions, which print one expression in
//! two ways, only the presence of a default is compared.

use std::collections::HashMap;

use super::checks::few;
use super::postgres::names;
use super::{Look, Verdict};
use crate::error::{Context, Result};
use crate::postgres::Client;
use crate::schema::{Ident, TableName};

/// So many statements are spelled out.
const NAMED: usize = 5;

/// A column's definition, but for its name.
struct Definition {
    ty: String,
    not_null: bool,
    identity: bool,
    default: Option<String>,
}

/// The target's columns begin and refuse as the source's do. Tables that a rule reshapes are not compared.
pub(super) async fn alike(look: &Look<'_>) -> Result<Verdict> {
    let tables: Vec<TableName> =
        look.parts.plan.tables().filter(|table| !table.reshaped).map(|table| table.source.name.clone()).collect();
    let wanted = definitions(look.source()?, &tables).await?;
    let found: HashMap<_, _> = definitions(look.target()?, &tables).await?.into_iter().collect();
    let printed_alike = major(look.source()?).await? == major(look.target()?).await?;
    let (mut differing, mut statements) = (Vec::new(), Vec::new());
    for ((table, column), here) in &wanted {
        // A partition, or a column, that is not there is another gate's business.
        let Some(there) = found.get(&(table.clone(), column.clone())) else { continue };
        let alter = |what: &str| format!("ALTER TABLE {} ALTER COLUMN {} {what};", table.sql(), Ident(column));
        if let Some(default) = wanted_default(here, there, printed_alike) {
            differing.push(match &there.default {
                Some(other) => format!("{table}.{column} DEFAULT {default} (target: {other})"),
                None => format!("{table}.{column} DEFAULT {default} (target: none)"),
            });
            statements.push(alter(&format!("SET DEFAULT {default}")));
        }
        if here.default.is_none() && !here.identity && there.default.is_some() {
            differing.push(format!("{table}.{column} without a default"));
            statements.push(alter("DROP DEFAULT"));
        }
        if here.not_null && !there.not_null {
            differing.push(format!("{table}.{column} NOT NULL"));
            statements.push(alter("SET NOT NULL"));
        }
        if there.not_null && !here.not_null {
            differing.push(format!("{table}.{column} may be NULL"));
            statements.push(alter("DROP NOT NULL"));
        }
    }
    let more = if statements.len() > NAMED { "   and so on, as cutwater schema prints them" } else { "" };
    let fix = format!("on the target   {}{more}", statements[..statements.len().min(NAMED)].join(" "));
    Ok(Verdict::of(few(&differing, "the source has, the target has not"), "defaults", fix))
}

/// The default that the target should have and has not.
fn wanted_default<'a>(here: &'a Definition, there: &Definition, printed_alike: bool) -> Option<&'a str> {
    let default = here.default.as_deref()?;
    let differs = match &there.default {
        None => !there.identity,
        Some(other) => printed_alike && here.ty == there.ty && other != default,
    };
    differs.then_some(default)
}

type Column = (TableName, String);

async fn definitions(client: &Client, tables: &[TableName]) -> Result<Vec<(Column, Definition)>> {
    let (schemas, names) = names(tables.iter().map(|table| (table.schema.as_str(), table.table.as_str())));
    let sql = concat!(include_str!("../../postgres/tree.sql"), include_str!("definitions.sql"));
    let rows = client.query(sql, &[&schemas, &names]).await.context("comparing defaults and NOT NULL")?;
    let definition = |row: &tokio_postgres::Row| Definition {
        ty: row.get(3),
        not_null: row.get(4),
        identity: row.get(5),
        default: row.get(6),
    };
    let name = |row: &tokio_postgres::Row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
    Ok(rows.iter().map(|row| ((name(row), row.get(2)), definition(row))).collect())
}

async fn major(client: &Client) -> Result<i32> {
    let row = client.query_one("SELECT current_setting('server_version_num')::int / 10000", &[]).await?;
    Ok(row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(ty: &str, default: Option<&str>, identity: bool) -> Definition {
        Definition { ty: ty.into(), not_null: false, identity, default: default.map(str::to_owned) }
    }

    #[test]
    fn a_default_is_wanted_where_the_target_would_give_another_value() {
        let here = column("integer", Some("5"), false);
        assert_eq!(wanted_default(&here, &column("integer", None, false), true), Some("5"));
        assert_eq!(wanted_default(&here, &column("integer", Some("6"), false), true), Some("5"));
        assert_eq!(wanted_default(&here, &column("integer", Some("5"), false), true), None);
        // An identity takes its place; another type or version may print it in another way.
        assert_eq!(wanted_default(&here, &column("integer", None, true), true), None);
        assert_eq!(wanted_default(&here, &column("bigint", Some("5::bigint"), false), true), None);
        assert_eq!(wanted_default(&here, &column("integer", Some("(5)"), false), false), None);
    }
}
