//! The target: can it be written, and is there room?

use std::collections::HashMap;

use super::source::{SourceFacts, tried};
use super::{End, Report};
use crate::config::{Config, Existing};
use crate::error::{Context, Kind, Result};
use crate::postgres::{Client, ConnInfo, connect};
use crate::schema::{Column, Ident, TableName};
use crate::transform::{Plan, TablePlan};

/// Rows of a table that should be empty are counted up to here.
pub(in crate::pipeline::preflight) const COUNTED: i64 = 1_000_000;

/// Whether it is another database than the source's, and of a version that its schema fits.
pub(super) async fn beside(
    client: &Client,
    from: &ConnInfo,
    to: &ConnInfo,
    source: &SourceFacts,
    report: &mut Report,
) -> Result<()> {
    let sql =
        "SELECT split_part(current_setting('server_version'), ' ', 1), current_setting('server_version_num')::int,
                      (SELECT system_identifier::text FROM pg_control_system()), current_database()::text";
    let row = client.query_one(sql, &[]).await.context("reading the target's settings")?;
    let (version, number): (&str, i32) = (row.get(0), row.get(1));
    let same_server = row.get::<_, &str>(2) == source.system_id;
    if same_server && row.get::<_, &str>(3) == source.database && from.database == to.database {
        report
            .fail(End::Target, "same-database", Kind::Config, "source and target are the same database")
            .fix("look at [source] url and [target] url");
    } else {
        report.pass(End::Target, "same-database", "source and target are two databases");
    }
    if number / 10_000 < source.version_num / 10_000 {
        let text = format!("Postgres {version} is older than the source's {}: its schema may not fit", source.version);
        report.note(End::Target, "version", text);
    } else {
        report.pass(End::Target, "version", format!("Postgres {version}"));
    }
    Ok(())
}

/// Whether it takes what we write.
pub(in crate::pipeline::preflight) async fn server(client: &Client, to: &ConnInfo, report: &mut Report) -> Result<()> {
    let user = &to.user;
    let sql = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', current_database()::text";
    let row = client.query_one(sql, &[]).await.context("reading the target's settings")?;
    if row.get::<_, bool>(0) {
        report
            .fail(End::Target, "read-only", Kind::ServerSetting, "the server is a standby (in recovery)")
            .fix("point [target] url at the primary");
        return Ok(());
    }
    if row.get::<_, bool>(1) {
        report
            .fail(
                End::Target,
                "read-only",
                Kind::ServerSetting,
                "sessions are read-only (default_transaction_read_only)",
            )
            .fix(format!("ALTER ROLE {} SET default_transaction_read_only = off;", Ident(user)));
        return Ok(());
    }
    report.pass(End::Target, "read-only", "the server takes writes");
    match tried(client, "CREATE SCHEMA cutwater_check; CREATE TABLE cutwater_check.t (a int)").await {
        Ok(()) => report.pass(End::Target, "create", "schemas and tables can be made"),
        Err(error) => {
            report
                .fail(
                    End::Target,
                    "create",
                    error.kind(),
                    format!("role {user:?} cannot make a schema: {}", error.why()),
                )
                .fix(format!("GRANT CREATE ON DATABASE {} TO {};", Ident(row.get(2)), Ident(user)));
        }
    }
    origin(to, report).await
}

/// Tries to mark a session with an origin, in a session of its own: it stays marked until it ends.
async fn origin(to: &ConnInfo, report: &mut Report) -> Result<()> {
    let client = connect(to, "cutwater check").await?;
    let sql = "SELECT pg_replication_origin_create('cutwater_check'); SELECT pg_replication_origin_session_setup('cutwater_check')";
    match tried(&client, sql).await {
        Ok(()) => report.pass(End::Target, "origin", "what is written can be marked with its origin"),
        Err(error) => {
            let text = format!(
                "replication origin not permitted ({}): what we write is not marked.\nLost by it: who follows the target \
                 (another subscriber, a way back) cannot tell it from the application's writes",
                error.why()
            );
            report
                .note(End::Target, "origin", text)
                .fix("nothing need be done; or grant EXECUTE on the functions that cutwater check --grants names");
        }
    }
    Ok(())
}

/// The types that a plan's columns are to have at the target.
pub(in crate::pipeline::preflight) struct Types<'a> {
    /// Of a column of `shaped`, in words.
    pub of: &'a (dyn Fn(&TablePlan, &Column) -> String + Sync),
    /// Whether what a column is there is what it is to be.
    pub same: fn(&str, &str) -> bool,
}

/// Looks at the tables that exist already; returns how many do not.
pub(in crate::pipeline::preflight) async fn tables(
    client: &Client,
    config: &Config,
    plan: &Plan,
    types: &Types<'_>,
    report: &mut Report,
) -> Result<usize> {
    let shaped = |table: &TableName| (table.schema.clone(), table.table.clone());
    let (schemas, names): (Vec<String>, Vec<String>) = plan.tables().map(|table| shaped(&table.shaped.name)).unzip();
    let rows = client
        .query(include_str!("target_tables.sql"), &[&schemas, &names])
        .await
        .context("reading the target's tables")?;
    let present: HashMap<TableName, &tokio_postgres::Row> =
        rows.iter().map(|row| (TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)), row)).collect();
    let mut filled = Vec::new();
    for table in plan.tables() {
        let name = &table.shaped.name;
        let Some(row) = present.get(name) else { continue };
        if !matches!(row.get::<_, &str>(2), "r" | "p") {
            report.fail(End::Target, "kind", Kind::Schema, format!("{name} is no table there"));
            continue;
        }
        columns(report, table, types, row);
        let triggers: Vec<&str> = row.get(6);
        if !triggers.is_empty() {
            let text = format!("{name} has triggers that fire for replicated rows too: {}", triggers.join(", "));
            let finding = report.fail(End::Target, "triggers", Kind::Schema, text);
            for trigger in triggers {
                finding.fix(format!("ALTER TABLE {} ENABLE TRIGGER {};", name.sql(), Ident(trigger)));
            }
        }
        let count = format!("SELECT count(*) FROM (SELECT FROM {} LIMIT {}) AS counted", name.sql(), COUNTED + 1);
        match client.query_one(&count, &[]).await {
            Ok(row) if row.get::<_, i64>(0) == 0 => {}
            Ok(row) => filled.push((name.clone(), row.get::<_, i64>(0))),
            Err(error) => {
                let error = crate::error::Error::from(error);
                report.fail(End::Target, "select", error.kind(), format!("{name} cannot be read: {}", error.why()));
            }
        }
    }
    room(report, config, &filled);
    let absent = plan.len() - present.len();
    report.pass(End::Target, "tables", format!("{} tables are there, {absent} will be made", present.len()));
    Ok(absent)
}

fn columns(report: &mut Report, plan: &TablePlan, of_type: &Types<'_>, row: &tokio_postgres::Row) {
    let (name, wanted) = (&plan.shaped.name, &plan.shaped.columns);
    let (names, types): (Vec<&str>, Vec<&str>) = (row.get(3), row.get(4));
    let found: HashMap<&str, &str> = names.into_iter().zip(types).collect();
    for column in wanted {
        let ty = (of_type.of)(plan, column);
        match found.get(column.name.as_str()) {
            None => {
                report
                    .fail(End::Target, "columns", Kind::Schema, format!("{name} has no column {:?}", column.name))
                    .fix(format!("ALTER TABLE {} ADD COLUMN {} {ty};", name.sql(), Ident(&column.name)))
                    .fix(format!(
                        "or leave it out: [[transform]] match = \"{name}\", columns = [\"!{}\"]",
                        column.name
                    ));
            }
            Some(there) if !(of_type.same)(there, &ty) => {
                let text = format!("{name}.{} is {there} there, {ty} at the source", column.name);
                report.note(End::Target, "types", text);
            }
            Some(_) => {}
        }
    }
    for required in row.get::<_, Vec<&str>>(5) {
        if !wanted.iter().any(|column| column.name == required) {
            let text = format!("{name}.{required} is NOT NULL without a default and gets no value from the source");
            report.fail(End::Target, "columns", Kind::Schema, text).fix(format!(
                "ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL;",
                name.sql(),
                Ident(required)
            ));
        }
    }
}

pub(in crate::pipeline::preflight) fn room(report: &mut Report, config: &Config, filled: &[(TableName, i64)]) {
    if filled.is_empty() {
        return report.pass(End::Target, "room", "no target table holds rows");
    }
    let shown = |(name, rows): &(TableName, i64)| match *rows {
        rows if rows > COUNTED => format!("{name} (more than {COUNTED})"),
        rows => format!("{name} ({rows})"),
    };
    let list: Vec<String> = filled.iter().map(shown).collect();
    let tables = if filled.len() == 1 { "1 table holds".to_owned() } else { format!("{} tables hold", filled.len()) };
    let text = format!("{tables} rows already: {}", list.join(", "));
    match config.target.existing {
        Existing::Stop => {
            report
                .fail(End::Target, "room", Kind::NotEmpty, text)
                .fix("empty them, or let the copy do it: [target] existing = \"truncate\"");
        }
        Existing::Truncate => {
            report.note(End::Target, "room", format!("{text}; the copy empties them ([target] existing)"));
        }
    }
}
