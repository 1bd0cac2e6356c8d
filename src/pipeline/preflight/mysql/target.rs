//! The target: can it be written, and do the tables that are there fit?
//!
//! Rights are tried by statements that are prepared or explained and never run: the server checks the account's rights for
//! them as if they were.

use std::collections::HashMap;

use super::rights::account;
use crate::config::Config;
use crate::error::{Context, Kind, Result};
use crate::mysql::{MyIdent, MyText, Session, catalog, my_table};
use crate::pipeline::preflight::postgres::target::{COUNTED, room};
use crate::pipeline::preflight::{End, Grant, Report};
use crate::schema::{TableDefinition, TableName};
use crate::target::mysql::MyTarget;
use crate::transform::{Plan, TablePlan};

/// The oldest versions that understand every statement of ours.
const OLDEST_MYSQL: (u16, u16, u16) = (5, 7, 0);
const OLDEST_MARIADB: (u16, u16, u16) = (10, 3, 0);
/// Smaller packets split rows of ordinary size.
const SMALL_PACKET: u64 = 16 << 20;

/// Looks at the target.
pub(in crate::pipeline::preflight) async fn target(
    target: &MyTarget,
    config: &Config,
    plan: &Plan,
    report: &mut Report,
) -> Result<()> {
    let mut session = target.connect().await?;
    if !server(&session, report) {
        return Ok(());
    }
    settings(&session, plan, report);
    rights(&mut session, plan, report).await?;
    tables(&mut session, config, plan, report).await
}

/// Whether it is one that can be written to.
fn server(session: &Session, report: &mut Report) -> bool {
    let server = session.server();
    let oldest = if server.is_mariadb() { OLDEST_MARIADB } else { OLDEST_MYSQL };
    if server.version < oldest {
        let text = format!("{server} is older than {}.{}, the first that is written to", oldest.0, oldest.1);
        report.fail(End::Target, "version", Kind::ServerSetting, text).fix("upgrade the target");
        return false;
    }
    report.pass(End::Target, "version", server.to_string());
    if server.is_read_only() {
        report.fail(End::Target, "read-only", Kind::ServerSetting, "the server is read-only").fix(
            "is it a replica? point [target] url at the primary; or SET GLOBAL super_read_only = OFF, read_only = OFF;",
        );
        return false;
    }
    report.pass(End::Target, "read-only", "the server takes writes");
    true
}

fn settings(session: &Session, plan: &Plan, report: &mut Report) {
    let server = session.server();
    if server.is_on("local_infile") {
        report.pass(End::Target, "local-infile", "rows are loaded by LOAD DATA");
    } else {
        let text = "local_infile is off: rows are copied by INSERT, which is slower by a third";
        report.note(End::Target, "local-infile", text).fix("SET GLOBAL local_infile = ON;");
    }
    let packet = server.number("max_allowed_packet").unwrap_or(0);
    if packet < SMALL_PACKET {
        let text = format!("max_allowed_packet is {packet} bytes: a changed row larger than that stops the run");
        let fix = format!("SET GLOBAL max_allowed_packet = {};  as large as the source's largest row, twice", 64 << 20);
        report.note(End::Target, "packet", text).fix(fix);
    } else {
        report.pass(End::Target, "packet", format!("a statement may have {} MB", packet >> 20));
    }
    if server.variable("lower_case_table_names").is_some_and(|names| names != "0") {
        let upper = |name: &TableName| name.schema.chars().chain(name.table.chars()).any(char::is_uppercase);
        let named: Vec<String> =
            plan.tables().map(|table| &table.shaped.name).filter(|name| upper(name)).map(ToString::to_string).collect();
        if !named.is_empty() {
            let text = format!(
                "the target makes the names of tables lower-case (lower_case_table_names): {}",
                named.join(", ")
            );
            report
                .fail(End::Target, "names", Kind::ServerSetting, text)
                .fix("give the tables lower-case names by [[transform]] rename, or make a target that keeps them");
        }
    }
    if server.is_on("sql_require_primary_key") {
        let without = plan.tables().filter(|table| table.shaped.key.is_none()).count();
        if without > 0 {
            let text = format!("{without} tables have no key, and the target requires one (sql_require_primary_key)");
            report
                .fail(End::Target, "primary-keys", Kind::ServerSetting, text)
                .fix("SET GLOBAL sql_require_primary_key = OFF;  until they are made");
        }
    }
    if server.logs() && server.variable("binlog_format") == Some("STATEMENT") {
        let text = "the target logs statements (binlog_format): what is written locks ranges of rows, and its replicas may differ";
        report.note(End::Target, "binlog-format", text).fix("SET GLOBAL binlog_format = ROW;");
    }
}

/// Tries what schema, copy and stream do.
async fn rights(session: &mut Session, plan: &Plan, report: &mut Report) -> Result<()> {
    let account = account(session).await?;
    let mut missing = Vec::new();
    for database in databases(plan) {
        let sql = format!("CREATE TABLE {}.cutwater_check (a int)", MyIdent(database));
        let tried = session.execute(format!("PREPARE cutwater_check FROM {}", MyText(&sql))).await;
        match tried {
            Ok(_) => drop(session.execute("DEALLOCATE PREPARE cutwater_check").await?),
            Err(error) if error.kind() == Kind::Privilege => missing.push(database),
            // That the database is not there yet is no want of a right.
            Err(error) if matches!(error.kind(), Kind::Config | Kind::Schema) => {}
            Err(error) => return Err(error.context("trying the account's rights")),
        }
    }
    if missing.is_empty() {
        report.pass(End::Target, "create", "tables can be made");
        return Ok(());
    }
    let text = format!("{account} cannot make tables in {}", missing.join(", "));
    let finding = report.fail(End::Target, "create", Kind::Privilege, text);
    for database in missing {
        finding.fix(format!("GRANT ALL ON {}.* TO {account};", MyIdent(database)));
    }
    Ok(())
}

/// The databases that are written to.
fn databases(plan: &Plan) -> Vec<&str> {
    let mut databases: Vec<&str> = plan.tables().map(|table| table.shaped.name.schema.as_str()).collect();
    databases.push("cutwater");
    databases.sort_unstable();
    databases.dedup();
    databases
}

/// The statements that give the account what a migration needs of the target.
pub(in crate::pipeline::preflight) async fn at_target(target: &MyTarget, plan: &Plan) -> Result<Vec<Grant>> {
    let mut session = target.connect().await?;
    let account = account(&mut session).await?;
    let grant = |database| {
        let why = if database == "cutwater" { "to remember what was done" } else { "to make the tables and fill them" };
        let rights = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES, TRIGGER";
        Grant { sql: format!("GRANT {rights} ON {}.* TO {account};", MyIdent(database)), why }
    };
    Ok(databases(plan).into_iter().map(grant).collect())
}

/// Looks at the tables that exist already.
async fn tables(session: &mut Session, config: &Config, plan: &Plan, report: &mut Report) -> Result<()> {
    let mut databases: Vec<String> = plan.tables().map(|table| table.shaped.name.schema.clone()).collect();
    databases.sort();
    databases.dedup();
    if databases.is_empty() {
        return Ok(());
    }
    let found = catalog::read(session, &databases).await.context("reading the target's tables")?;
    let there: HashMap<&TableName, &TableDefinition> =
        found.tables.iter().map(|table| (&table.table.name, table)).collect();
    let triggers = triggers(session).await?;
    let mut filled = Vec::new();
    let mut present = 0;
    for table in plan.tables() {
        let name = &table.shaped.name;
        let Some(definition) = there.get(name) else { continue };
        present += 1;
        columns(report, table, definition);
        if !definition.transactional {
            let text = format!("{name} is of {}, which keeps no transactions", definition.engine);
            let fix = format!("ALTER TABLE {} ENGINE = InnoDB;", my_table(name));
            report.fail(End::Target, "engine", Kind::Schema, text).fix(fix);
        }
        if let Some(triggers) = triggers.get(name) {
            let text = format!("{name} has triggers, which would fire a second time: {}", triggers.join(", "));
            let finding = report.fail(End::Target, "triggers", Kind::Schema, text);
            for trigger in triggers {
                let sql = format!("DROP TRIGGER {}.{};", MyIdent(&name.schema), MyIdent(trigger));
                finding.fix(format!("{sql}  and make it again once the target is live"));
            }
        }
        let name_sql = my_table(name);
        let count = format!("SELECT count(*) FROM (SELECT 1 FROM {name_sql} LIMIT {}) AS counted", COUNTED + 1);
        match session.value(count).await {
            Ok(rows) => {
                let rows: i64 = rows.and_then(|rows| rows.parse().ok()).unwrap_or(0);
                if rows > 0 {
                    filled.push((name.clone(), rows));
                }
            }
            Err(error) => {
                report.fail(End::Target, "select", error.kind(), format!("{name} cannot be read: {}", error.why()));
            }
        }
        // Explained, not run: the rights are those of the statement.
        for sql in [format!("EXPLAIN DELETE FROM {name_sql}"), insert(table)] {
            if let Err(error) = session.rows(&sql).await
                && error.kind() == Kind::Privilege
            {
                let text = format!("{name} cannot be written: {}", error.why());
                report.fail(End::Target, "write", Kind::Privilege, text);
            }
        }
    }
    room(report, config, &filled);
    let absent = plan.len() - present;
    report.pass(End::Target, "tables", format!("{present} tables are there, {absent} will be made"));
    Ok(())
}

fn insert(table: &TablePlan) -> String {
    let name = my_table(&table.shaped.name);
    let columns: Vec<String> = table.shaped.columns.iter().map(|column| MyIdent(&column.name).to_string()).collect();
    let columns = columns.join(", ");
    format!("EXPLAIN INSERT INTO {name} ({columns}) SELECT {columns} FROM {name} WHERE FALSE")
}

/// Triggers by the table they are of.
async fn triggers(session: &mut Session) -> Result<HashMap<TableName, Vec<String>>> {
    let sql =
        "SELECT event_object_schema, event_object_table, trigger_name FROM information_schema.triggers ORDER BY 3";
    let mut triggers: HashMap<TableName, Vec<String>> = HashMap::new();
    for row in session.rows(sql).await.context("reading the target's triggers")? {
        if let [Some(schema), Some(table), Some(trigger)] = &row[..] {
            triggers.entry(TableName::new(schema, table)).or_default().push(trigger.clone());
        }
    }
    Ok(triggers)
}

fn columns(report: &mut Report, plan: &TablePlan, there: &TableDefinition) {
    let (name, wanted) = (&plan.shaped.name, &plan.shaped.columns);
    for column in wanted {
        let found = there.columns.iter().find(|other| other.name.eq_ignore_ascii_case(&column.name));
        let ty = &column.ty.display;
        match found {
            None => {
                report
                    .fail(End::Target, "columns", Kind::Schema, format!("{name} has no column {:?}", column.name))
                    .fix(format!("ALTER TABLE {} ADD COLUMN {} {ty};", my_table(name), MyIdent(&column.name)))
                    .fix(format!(
                        "or leave it out: [[transform]] match = \"{name}\", columns = [\"!{}\"]",
                        column.name
                    ));
            }
            Some(found) if found.generated.is_some() => {
                let text =
                    format!("{name}.{} is a generated column there, and an ordinary one at the source", column.name);
                report.fail(End::Target, "columns", Kind::Schema, text);
            }
            Some(found) if column.ty.mysql.is_some() && found.ty.display != *ty => {
                let text = format!("{name}.{} is {} there, {ty} at the source", column.name, found.ty.display);
                report.note(End::Target, "types", text);
            }
            Some(_) => {}
        }
    }
    for column in &there.columns {
        let gets_a_value = column.default.is_some() || column.auto_increment || column.generated.is_some();
        if column.not_null && !gets_a_value && !wanted.iter().any(|other| other.name.eq_ignore_ascii_case(&column.name))
        {
            let text =
                format!("{name}.{} is NOT NULL without a default and gets no value from the source", column.name);
            report.fail(End::Target, "columns", Kind::Schema, text).fix(format!(
                "ALTER TABLE {} ALTER COLUMN {} SET DEFAULT …;",
                my_table(name),
                MyIdent(&column.name)
            ));
        }
    }
}
