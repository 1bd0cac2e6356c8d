//! The source: can it be read whole, and followed?

use tokio_postgres::Row;

use super::{End, Report, standby};
use crate::config::Config;
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::{Client, Purpose, Wire};
use crate::schema::{Ident, TableName};
use crate::source::Source as _;
use crate::source::postgres::PgSource;
use crate::source::postgres::given::{self, Objection};
use crate::transform::Plan;

/// Oldest server whose pgoutput we read.
const OLDEST: i32 = 130_000;

/// What later checks need to know about the source.
pub(super) struct SourceFacts {
    pub version_num: i32,
    pub version: String,
    pub system_id: String,
    pub database: String,
}

pub(super) async fn settings(
    client: &Client,
    config: &Config,
    application: &str,
    report: &mut Report,
) -> Result<SourceFacts> {
    let slot = config.source.slot.as_deref().unwrap_or(application);
    let row =
        client.query_one(include_str!("settings.sql"), &[&slot]).await.context("reading the source's settings")?;
    let facts =
        SourceFacts { version_num: row.get(0), version: row.get(1), system_id: row.get(11), database: row.get(12) };
    if facts.version_num < OLDEST {
        let text = format!("Postgres {} is older than 13, the oldest that can be followed", facts.version);
        report.fail(End::Source, "version", Kind::ServerSetting, text);
    } else {
        report.pass(End::Source, "version", format!("Postgres {}", facts.version));
    }
    if row.get::<_, bool>(10) {
        report
            .fail(End::Source, "standby", Kind::ServerSetting, "the server is a standby (in recovery)")
            .fix("point [source] url at the primary: the fence of a cutover can only be taken there");
    } else {
        report.pass(End::Source, "standby", "the server is a primary");
    }
    let wal_level: &str = row.get(2);
    if wal_level == "logical" {
        report.pass(End::Source, "wal-level", "wal_level is logical");
    } else {
        report
            .fail(
                End::Source,
                "wal-level",
                Kind::ServerSetting,
                format!("wal_level is \"{wal_level}\", not \"logical\""),
            )
            .fix("ALTER SYSTEM SET wal_level = logical;   then restart the server");
    }
    let ours_exists: i64 =
        client.query_one("SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1", &[&slot]).await?.get(0);
    // One slot for good, one for a while when a table is copied again.
    free(report, "slots", "max_replication_slots", row.get(3), row.get::<_, i64>(4) - ours_exists, 2);
    free(report, "wal-senders", "max_wal_senders", row.get(5), row.get(6), 3);
    retention(report, &row, config);
    if standby::matches(row.get(9), application) {
        let text = format!(
            "synchronous_standby_names = '{}' would count us ({application}) as a synchronous standby:\n\
             whenever we stop, the application's commits would wait",
            row.get::<_, &str>(9)
        );
        report.fail(End::Source, "synchronous-standby", Kind::ServerSetting, text).fix(
            "ALTER SYSTEM SET synchronous_standby_names = '…the real standbys by name…';   SELECT pg_reload_conf();",
        );
    } else {
        report.pass(End::Source, "synchronous-standby", "no commit waits for us");
    }
    if let Some(pid) = row.get::<_, Option<i32>>(13) {
        report
            .fail(End::Source, "slot-in-use", Kind::SlotInUse, format!("the slot \"{slot}\" is read by pid {pid}"))
            .fix("let that run go on, or stop it; cutwater status shows which it is");
    }
    Ok(facts)
}

fn free(report: &mut Report, name: &'static str, setting: &str, most: i64, used: i64, wanted: i64) {
    if most - used >= wanted {
        return report.pass(End::Source, name, format!("{setting}: {used} of {most} used"));
    }
    report
        .fail(End::Source, name, Kind::ServerSetting, format!("{setting} = {most}, {used} used: {wanted} must be free"))
        .fix(format!("ALTER SYSTEM SET {setting} = {};   then restart the server", used + wanted + 2));
}

fn retention(report: &mut Report, row: &Row, config: &Config) {
    let (text, limit): (&str, i64) = (row.get(7), row.get(8));
    if text == "-1" {
        return report.pass(End::Source, "retention", "max_slot_wal_keep_size is unlimited");
    }
    let wanted = config.source.max_retained.map_or(0, |size| size.0);
    let shown = format!("max_slot_wal_keep_size = {text}: when the WAL kept for us passes it, the copy starts over");
    if (limit as u64) < wanted.max(10 << 30) {
        report
            .note(End::Source, "retention", shown)
            .fix("ALTER SYSTEM SET max_slot_wal_keep_size = '100GB';   SELECT pg_reload_conf();");
    } else {
        report.pass(End::Source, "retention", shown);
    }
}

pub(super) async fn tables(client: &Client, user: &str, plan: &Plan, report: &mut Report) -> Result<()> {
    let schemas: Vec<&str> = plan.tables().map(|table| table.source.name.schema.as_str()).collect();
    let names: Vec<&str> = plan.tables().map(|table| table.source.name.table.as_str()).collect();
    if names.is_empty() {
        report
            .fail(End::Source, "tables", Kind::Config, "there is no table to migrate")
            .fix("look at [source] tables and at the database of [source] url");
        return Ok(());
    }
    let rows = client.query(include_str!("tables.sql"), &[&schemas, &names]).await.context("reading the tables")?;
    let name = |row: &Row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
    let followed = |row: &&Row| match row.get::<_, &str>(2) {
        "f" => true,
        "d" => row.get(3),
        "i" => row.get(4),
        _ => false,
    };
    let without: Vec<&Row> = rows.iter().filter(|row| !followed(row)).collect();
    if without.is_empty() {
        report.pass(End::Source, "replica-identity", format!("{} tables can be followed", rows.len()));
    } else {
        let text = format!(
            "{} no key; updates and deletes there cannot be followed,\n\
             and would start to fail in your application once the tables are published",
            match without.len() {
                1 => "1 table has".to_owned(),
                many => format!("{many} tables have"),
            }
        );
        let finding = report.fail(End::Source, "replica-identity", Kind::Schema, text);
        for row in &without {
            finding.fix(match row.get::<_, Option<&str>>(5) {
                Some(index) => {
                    format!("ALTER TABLE {} REPLICA IDENTITY USING INDEX {};", name(row).sql(), Ident(index))
                }
                None => format!("ALTER TABLE {} REPLICA IDENTITY FULL;", name(row).sql()),
            });
        }
        let example = without.first().map(|row| name(row).to_string()).unwrap_or_default();
        finding.fix(format!("or leave it out, [source] tables: \"!{example}\""));
    }
    let hidden: Vec<String> = rows.iter().filter(|row| row.get(6)).map(|row| name(row).to_string()).collect();
    if hidden.is_empty() {
        report.pass(End::Source, "row-level-security", "no policy hides rows");
    } else {
        let tables = if hidden.len() == 1 { "1 table".to_owned() } else { format!("{} tables", hidden.len()) };
        let text = format!("row-level security hides rows of {tables} from role {user:?}\n{}", hidden.join(", "));
        report
            .fail(End::Source, "row-level-security", Kind::Privilege, text)
            .fix(format!("ALTER ROLE {} BYPASSRLS;          (needs an administrator)", Ident(user)));
    }
    let unreadable: Vec<&Row> = rows.iter().filter(|row| !row.get::<_, bool>(8)).collect();
    if unreadable.is_empty() {
        report.pass(End::Source, "select", "every table can be read");
    } else {
        let list: Vec<String> = unreadable.iter().map(|row| name(row).to_string()).collect();
        let text = format!("role {user:?} may not read {}", list.join(", "));
        let finding = report.fail(End::Source, "select", Kind::Privilege, text);
        let mut schemas: Vec<&str> = unreadable.iter().map(|row| row.get(0)).collect();
        schemas.dedup();
        for schema in schemas {
            finding.fix(format!("GRANT USAGE ON SCHEMA {} TO {};", Ident(schema), Ident(user)));
        }
        for row in unreadable {
            finding.fix(format!("GRANT SELECT ON {} TO {};", name(row).sql(), Ident(user)));
        }
    }
    Ok(())
}

/// Tries, in transactions that are rolled back, what `prepare`, the stream and the fence will do.
pub(super) async fn privileges(
    client: &Client,
    source: &PgSource,
    plan: &Plan,
    facts: &SourceFacts,
    report: &mut Report,
) -> Result<()> {
    let user = &source.info().user;
    match Wire::connect(source.info(), "cutwater check", Purpose::Replication).await {
        Ok(_) => report.pass(End::Source, "replication", format!("role {user:?} may replicate")),
        Err(error) => {
            let text = format!("role {user:?} cannot open a replication connection: {}", error.why());
            let finding = report.fail(End::Source, "replication", error.kind(), text);
            match error.suggestion() {
                Some(fix) if error.kind() != Kind::Privilege => finding.fix(fix),
                _ => finding.fix(format!("ALTER ROLE {} REPLICATION;          (needs an administrator)", Ident(user))),
            };
        }
    }
    let names: Vec<TableName> = plan.tables().map(|table| table.source.name.clone()).collect();
    if names.is_empty() {
        return Ok(());
    }
    if source.slot_is_given() {
        match given::object_to_slot(client, source.slot_name()).await? {
            None => report.pass(End::Source, "slot", format!("slot {:?} can be used", source.slot_name())),
            Some(objection) => object(report, "slot", objection),
        }
    }
    publishing(client, source, &names, facts, report).await?;
    let there = client.query_one("SELECT to_regclass('cutwater.fence') IS NOT NULL", &[]).await?.get(0);
    // Of a schema that is there nothing is asked but what the fence does in it.
    let sql = if there {
        "INSERT INTO cutwater.fence (migration, nonce, epoch, state) VALUES ('cutwater_check', '', 0, 'check');
         CREATE FUNCTION cutwater.check_only() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    } else {
        "CREATE SCHEMA IF NOT EXISTS cutwater; CREATE TABLE cutwater.check_only (a int)"
    };
    match tried(client, sql).await {
        Ok(()) => report.pass(End::Source, "fence", "the fence's table can be made"),
        Err(error) => {
            let text = format!("cannot make or use the fence's table in schema cutwater: {}", error.why());
            report
                .fail(End::Source, "fence", error.kind(), text)
                .fix(format!("GRANT CREATE ON DATABASE {} TO {};", Ident(&facts.database), Ident(user)))
                .fix("or let an administrator make it:   cutwater check --grants");
        }
    }
    Ok(())
}

/// Whether the tables are published, or can be; and whether they can be fenced off, which takes the same right.
async fn publishing(
    client: &Client,
    source: &PgSource,
    names: &[TableName],
    facts: &SourceFacts,
    report: &mut Report,
) -> Result<()> {
    let user = Ident(&source.info().user).to_string();
    let list: Vec<String> = names.iter().map(TableName::sql).collect();
    let owner = format!("make it a member of the tables' owner:   GRANT <owner> TO {user};");
    let statement = if source.publication_is_given() {
        let objections = given::object_to_publication(client, source.publication_name(), names).await?;
        if objections.is_empty() {
            let text = format!("publication {:?} holds every table", source.publication_name());
            report.pass(End::Source, "publication", text);
        }
        objections.into_iter().for_each(|objection| object(report, "publication", objection));
        // Only an owner may, and it holds nobody up.
        list.iter().map(|table| format!("COMMENT ON TABLE {table} IS NULL")).collect::<Vec<_>>().join("; ")
    } else {
        format!("CREATE PUBLICATION cutwater_check FOR TABLE {}", list.join(", "))
    };
    match tried(client, &statement).await {
        Ok(()) => report.pass(End::Source, "owner", "the tables can be published and fenced off"),
        Err(error) if error.kind() == Kind::Transient => {
            let text = format!("whether the tables can be published could not be tried: {}", error.why());
            report.note(End::Source, "owner", text).fix("run cutwater check again");
        }
        Err(error) if source.publication_is_given() => {
            let text = format!("the tables cannot be fenced off at the cutover: {}", error.why());
            report.fail(End::Source, "owner", error.kind(), text).fix(owner);
        }
        Err(error) => {
            report
                .fail(End::Source, "publication", error.kind(), format!("cannot publish the tables: {}", error.why()))
                .fix(format!("GRANT CREATE ON DATABASE {} TO {user};", Ident(&facts.database)))
                .fix(format!("and {owner}"));
        }
    }
    Ok(())
}

fn object(report: &mut Report, name: &'static str, objection: Objection) {
    let finding = report.fail(End::Source, name, objection.kind, objection.why);
    finding.fix.extend(objection.fix);
}

/// Whether a statement would be allowed: run and rolled back. It waits for no lock.
pub(super) async fn tried(client: &Client, sql: &str) -> Result<()> {
    let result = client.batch_execute(&format!("BEGIN; SET LOCAL lock_timeout = '2s'; {sql};")).await;
    client.batch_execute("ROLLBACK").await?;
    result.map_err(Error::from)
}

pub(super) async fn transactions(client: &Client, report: &mut Report) -> Result<()> {
    let rows = client.query(include_str!("transactions.sql"), &[]).await.context("reading the open transactions")?;
    if rows.is_empty() {
        report.pass(End::Source, "long-transactions", "no long transaction is open");
        return Ok(());
    }
    for row in rows.iter().take(10) {
        let (pid, age, role, what): (Option<i32>, f64, &str, &str) = (row.get(0), row.get(1), row.get(2), row.get(3));
        let (who, fix) = match pid {
            Some(pid) => (format!("pid {pid}"), format!("SELECT pg_terminate_backend({pid});")),
            None => ("a prepared transaction".to_owned(), format!("ROLLBACK PREPARED '{}';", what.replace('\'', "''"))),
        };
        let text = format!("{who}, open {age:.0} s, role {role}, {what:?}: the slot's creation will wait for it");
        report.note(End::Source, "long-transactions", text).fix(format!("let it end, or   {fix}"));
    }
    Ok(())
}
