//! What the account may do at the source, and what it has to be allowed.

use super::source::said;
use crate::error::{Context, Kind, Result};
use crate::mysql::{MyIdent, MyText, Session, connect, my_table};
use crate::pipeline::preflight::{End, Grant, Report};
use crate::source::Source as _;
use crate::source::mysql::MySource;
use crate::transform::Plan;

/// So many tables that may not be read are spelled out.
const NAMED: usize = 10;

/// Tries what the snapshot and the stream do.
pub(super) async fn look(source: &MySource, session: &mut Session, plan: &Plan, report: &mut Report) -> Result<()> {
    let account = account(session).await?;
    let mut unreadable = Vec::new();
    for table in plan.tables().map(|table| &table.source.name) {
        let name = my_table(table);
        match session.rows(format!("SELECT 1 FROM {name} LIMIT 0")).await {
            Ok(_) => {}
            Err(error) if error.kind() == Kind::Privilege => unreadable.push(name),
            Err(error) => return Err(error.context(format!("reading {table}"))),
        }
    }
    if unreadable.is_empty() {
        report.pass(End::Source, "select", "every table can be read");
    } else {
        let text = format!("{account} may not read {} of the tables", unreadable.len());
        let finding = report.fail(End::Source, "select", Kind::Privilege, text);
        for name in unreadable.iter().take(NAMED) {
            finding.fix(format!("GRANT SELECT ON {name} TO {account};"));
        }
    }
    let granted = granted(session).await?;
    // The same right as FLUSH TABLES WITH READ LOCK and BACKUP STAGE need; it writes what is to be written anyway.
    match session.execute("FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS").await {
        Ok(_) => report.pass(End::Source, "lock", "commits can be made to wait for the moment that a snapshot needs"),
        Err(error) if error.kind() == Kind::Privilege && !granted.contains("FLUSH_TABLES") => {
            let text =
                format!("{account} cannot make commits wait for the moment that a snapshot needs: {}", error.why());
            report.fail(End::Source, "lock", Kind::Privilege, text).fix(format!("GRANT RELOAD ON *.* TO {account};"));
        }
        Err(error) if error.kind() == Kind::Privilege => {
            report.pass(End::Source, "lock", "the account may flush tables");
        }
        Err(error) => return Err(error.context("trying the right to make commits wait")),
    }
    let all = granted.contains("ALL PRIVILEGES ON *.*");
    if !all && !granted.contains("PROCESS") {
        let text = format!(
            "{account} does not see others' statements: the snapshot cannot wait for long ones before it asks for its lock"
        );
        report.note(End::Source, "process", text).fix(format!("GRANT PROCESS ON *.* TO {account};"));
    }
    if !all && session.server().is_mariadb() && !granted.contains("BINLOG ADMIN") && !granted.contains("SUPER") {
        let text = "an ALTER of a table that is copied already waits for the end of the whole copy, and every reader behind it";
        report.note(End::Source, "alter", text).fix(format!("GRANT BINLOG ADMIN ON *.* TO {account};"));
    }
    let head = match source.head().await {
        Ok(head) => head.position,
        // It was said already.
        Err(_) => return Ok(()),
    };
    match source.try_reading(&head).await {
        Ok(()) => report.pass(End::Source, "replication", "the log can be read"),
        Err(error) if error.kind() == Kind::Connection => return Err(error),
        Err(error) if error.kind() == Kind::Privilege => {
            let text = format!("{account} cannot read the log: {}", error.why());
            let finding = report.fail(End::Source, "replication", Kind::Privilege, text);
            for grant in of_the_log(session, &account) {
                finding.fix(grant);
            }
        }
        Err(error) => said(report, "replication", &error),
    }
    Ok(())
}

pub(super) async fn account(session: &mut Session) -> Result<String> {
    let account = session.value("SELECT CURRENT_USER()").await.context("asking for the account")?.unwrap_or_default();
    let (user, host) = account.rsplit_once('@').unwrap_or((&account, "%"));
    Ok(format!("{}@{}", MyText(user), MyText(host)))
}

/// Everything that `SHOW GRANTS` says. Rights that come by a role are not in it everywhere, so it only ever adds to a trial.
async fn granted(session: &mut Session) -> Result<String> {
    let rows = session.rows("SHOW GRANTS").await.context("asking for the account's rights")?;
    Ok(rows.into_iter().flatten().flatten().collect::<Vec<_>>().join("\n"))
}

fn of_the_log(session: &Session, account: &str) -> Vec<String> {
    let server = session.server();
    let rights = match server.is_mariadb() {
        true if server.version >= (10, 5, 2) => "REPLICATION SLAVE, REPLICATION MASTER ADMIN, BINLOG MONITOR",
        _ => "REPLICATION SLAVE, REPLICATION CLIENT",
    };
    vec![format!("GRANT {rights} ON *.* TO {account};")]
}

/// The statements that give the account what a migration needs of the source.
pub(in crate::pipeline::preflight) async fn at_source(source: &MySource, plan: &Plan) -> Result<Vec<Grant>> {
    let mut session = connect(source.info(), "cutwater check").await?;
    let account = account(&mut session).await?;
    let grant = |sql: String, why| Grant { sql, why };
    let mut grants: Vec<Grant> =
        of_the_log(&session, &account).into_iter().map(|sql| grant(sql, "to read the log")).collect();
    let server = session.server();
    grants.push(grant(
        format!("GRANT RELOAD, PROCESS ON *.* TO {account};"),
        "to make commits wait for a moment, and to see whom that would wait for",
    ));
    if server.is_mariadb() && server.version >= (10, 5, 2) {
        grants.push(grant(
            format!("GRANT BINLOG ADMIN ON *.* TO {account};"),
            "to let tables be altered that are copied already",
        ));
    }
    if !server.is_mariadb() && server.version >= (8, 0, 0) {
        grants.push(grant(format!("GRANT XA_RECOVER_ADMIN ON *.* TO {account};"), "to see prepared XA transactions"));
    }
    let mut databases: Vec<&str> = plan.tables().map(|table| table.source.name.schema.as_str()).collect();
    databases.sort_unstable();
    databases.dedup();
    for database in databases {
        let sql = format!("GRANT SELECT ON {}.* TO {account};", MyIdent(database));
        grants.push(grant(sql, "to read the tables"));
    }
    Ok(grants)
}
