//! The source's tables: engines, keys, and foreign keys that act without the log's knowledge.

use crate::error::{Context, Kind, Result};
use crate::mysql::{Session, catalog, my_table};
use crate::pipeline::preflight::{End, Report};
use crate::schema::TableDefinition;
use crate::transform::Plan;

pub(super) async fn look(session: &mut Session, plan: &Plan, carries_out: bool, report: &mut Report) -> Result<()> {
    let mut databases: Vec<String> = plan.tables().map(|table| table.source.name.schema.clone()).collect();
    databases.sort();
    databases.dedup();
    if databases.is_empty() {
        report
            .fail(End::Source, "tables", Kind::Config, "there is no table to migrate")
            .fix("look at [source] tables and at the database of [source] url");
        return Ok(());
    }
    let mut tables = catalog::read(session, &databases).await.context("reading the source's tables")?.tables;
    tables.retain(|definition| plan.get(&definition.table.name).is_some());
    engines(&tables, report);
    keys(&tables, report);
    foreign_keys(session, &tables, carries_out, report).await
}

/// No snapshot fixes the rows of a table without transactions (TRAPS 9).
fn engines(tables: &[TableDefinition], report: &mut Report) {
    let loose: Vec<&TableDefinition> = tables.iter().filter(|definition| !definition.transactional).collect();
    if loose.is_empty() {
        return report.pass(End::Source, "engines", "every table has transactions");
    }
    let names: Vec<String> =
        loose.iter().map(|definition| format!("{} ({})", definition.table.name, definition.engine)).collect();
    let text = format!(
        "{} no transactions, and can neither be copied nor followed exactly:\n{}",
        if loose.len() == 1 { "1 table has".to_owned() } else { format!("{} tables have", loose.len()) },
        names.join(", ")
    );
    let finding = report.fail(End::Source, "engines", Kind::ServerSetting, text);
    for definition in &loose {
        finding.fix(format!("ALTER TABLE {} ENGINE = InnoDB;", my_table(&definition.table.name)));
    }
    finding.fix(format!("or leave it out, [source] tables: \"!{}\"", loose[0].table.name));
}

fn keys(tables: &[TableDefinition], report: &mut Report) {
    let without: Vec<String> = tables
        .iter()
        .filter(|definition| definition.table.key.is_none())
        .map(|definition| definition.table.name.to_string())
        .collect();
    if without.is_empty() {
        return report.pass(End::Source, "keys", "every table has a key");
    }
    let text = format!(
        "no key, so that changes are applied row by row, and each finds its row by reading the table:\n{}",
        without.join(", ")
    );
    report.note(End::Source, "keys", text).fix("ALTER TABLE … ADD PRIMARY KEY (…);");
}

/// What a foreign key does to other rows is not in the log of most servers (TRAPS 14).
async fn foreign_keys(
    session: &mut Session,
    tables: &[TableDefinition],
    carries_out: bool,
    report: &mut Report,
) -> Result<()> {
    let acts = |action: &str| matches!(action, "CASCADE" | "SET NULL" | "SET DEFAULT");
    let mut acting = Vec::new();
    for definition in tables {
        for key in &definition.foreign_keys {
            let does = [("DELETE", &key.on_delete), ("UPDATE", &key.on_update)];
            let does: Vec<String> = does
                .iter()
                .filter(|(_, action)| acts(action))
                .map(|(on, action)| format!("ON {on} {action}"))
                .collect();
            if !does.is_empty() {
                acting.push(format!("{}.{} ({})", definition.table.name, key.name, does.join(" ")));
            }
        }
    }
    if acting.is_empty() {
        report.pass(End::Source, "foreign-key-actions", "no foreign key changes other rows");
        return Ok(());
    }
    // From 9.6 on the server carries them out itself and logs them, unless it is told to leave it to InnoDB.
    let server = session.server();
    let logs = !server.is_mariadb() && server.version >= (9, 6, 0);
    let native = session.rows("SHOW VARIABLES LIKE 'innodb_native_foreign_keys'").await?;
    let native =
        native.iter().any(|row| row.get(1).cloned().flatten().is_some_and(|value| value == "ON" || value == "1"));
    if logs && !native {
        report.pass(End::Source, "foreign-key-actions", "what foreign keys change is in the log");
        return Ok(());
    }
    let many = match acting.len() {
        1 => "1 foreign key changes rows, and the source's log does not say so".to_owned(),
        many => format!("{many} foreign keys change rows, and the source's log does not say so"),
    };
    let list = acting.join("\n");
    // A server of 9.6 that leaves it to InnoDB cannot be told from one that logs it when the changes are applied.
    if carries_out && !logs {
        report.note(End::Source, "foreign-key-actions", format!("{many}; it is done at the target as well:\n{list}"));
        return Ok(());
    }
    let text = format!("{many}: the target would keep them\n{list}");
    let finding = report.fail(End::Source, "foreign-key-actions", Kind::Schema, text);
    if logs {
        finding.fix("start the source without innodb_native_foreign_keys, which then logs them;");
    }
    finding
        .fix("let the application change these rows itself, and make the keys ON DELETE RESTRICT ON UPDATE RESTRICT;")
        .fix("or leave the tables that refer to others out of [source] tables");
    Ok(())
}
