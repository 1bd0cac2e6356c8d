//! The source: is there a log that tells everything, for long enough, and may it be read?
//!
//! What the snapshot and the stream refuse is asked of them ([`MySource::refuse_prepared`], [`Source::head`]), so that it is
//! said once. Rights are tried: a snapshot takes a lock, which cannot be, so there a statement that needs the same right is.

use std::time::Duration;

use crate::change::Position;
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{Server, Session, connect};
use crate::pipeline::preflight::{End, Report};
use crate::source::Source as _;
use crate::source::mysql::MySource;
use crate::transform::Plan;

/// Oldest servers whose log we read.
const OLDEST: [(bool, (u16, u16, u16)); 2] = [(false, (5, 6, 0)), (true, (10, 2, 0))];
/// Bytes a second that a copy reads at least, for a guess.
const PACE: u64 = 20_000_000;
/// A log that is kept for less than this is gone after a night's trouble.
const A_DAY: u64 = 86_400;

/// Looks at the source. `carries_out`: the target does by itself what foreign keys do and the source's log does not say.
pub(in crate::pipeline::preflight) async fn source(
    source: &MySource,
    plan: &Plan,
    carries_out: bool,
    report: &mut Report,
) -> Result<()> {
    let mut session = connect(source.info(), "cutwater check").await?;
    version(session.server(), report);
    log(source, session.server(), report).await?;
    images(session.server(), report);
    replica(&mut session, report).await;
    retention(&mut session, plan, report).await?;
    match source.refuse_prepared(&mut session).await {
        Ok(()) => report.pass(End::Source, "xa", "no XA transaction is prepared"),
        Err(error) => said(report, "xa", &error),
    }
    super::tables::look(&mut session, plan, carries_out, report).await?;
    super::rights::look(source, &mut session, plan, report).await
}

/// What somebody else refused already, in their words.
pub(super) fn said(report: &mut Report, name: &'static str, error: &Error) {
    let finding = report.fail(End::Source, name, error.kind(), error.why());
    if let Some(fix) = error.suggestion() {
        finding.fix(fix);
    }
}

fn version(server: &Server, report: &mut Report) {
    let oldest =
        OLDEST.iter().find(|(mariadb, _)| *mariadb == server.is_mariadb()).map_or((0, 0, 0), |(_, oldest)| *oldest);
    if server.version < oldest {
        let (major, minor, _) = oldest;
        let text = format!("{server} is older than {major}.{minor}, the oldest that can be followed");
        report.fail(End::Source, "version", Kind::ServerSetting, text);
    } else {
        report.pass(End::Source, "version", server.to_string());
    }
}

/// Whether there is a log of rows of everything, and how places in it are known.
async fn log(source: &MySource, server: &Server, report: &mut Report) -> Result<()> {
    let head = match source.head().await {
        Ok(head) => head,
        Err(error) if matches!(error.kind(), Kind::ServerSetting | Kind::Privilege) => {
            let right = if server.is_mariadb() { "BINLOG MONITOR" } else { "REPLICATION CLIENT" };
            let finding = report.fail(End::Source, "binary-log", error.kind(), error.why());
            match error.suggestion() {
                Some(fix) => finding.fix(fix),
                None => finding.fix(format!("GRANT {right} ON *.* TO …;   cutwater check --grants prints all of them")),
            };
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    report.pass(End::Source, "binary-log", format!("the log has rows of everything, and ends at {}", head.position));
    let by_gtid = match &head.position {
        Position::MySql(at) => at.executed.is_some(),
        Position::MariaDb(at) => at.executed.is_some(),
        Position::Postgres(_) => false,
    };
    if by_gtid {
        report.pass(End::Source, "gtid", "places in the log are known by GTID");
        return Ok(());
    }
    let (setting, fix) = match server.is_mariadb() {
        true => ("gtid_strict_mode is OFF", "SET GLOBAL gtid_strict_mode = ON, and the same in its configuration file"),
        false => ("gtid_mode is not ON", "enforce_gtid_consistency = ON, then gtid_mode step by step to ON"),
    };
    let text = format!(
        "{setting}: places in the log are known by file and offset, which mean nothing on another server\nof the group after a failover"
    );
    report.note(End::Source, "gtid", text).fix(format!("before the migration begins:   {fix}"));
    Ok(())
}

/// What a change says of its row.
fn images(server: &Server, report: &mut Report) {
    let image = server.variable("binlog_row_image").unwrap_or("FULL").to_owned();
    let whole = image.eq_ignore_ascii_case("FULL");
    let partial = server.variable("binlog_row_value_options").is_some_and(|options| options.contains("PARTIAL_JSON"));
    if whole {
        return report.pass(End::Source, "row-image", "changes are logged with their whole rows");
    }
    if partial {
        let text = format!(
            "binlog_row_image = {image} and binlog_row_value_options = PARTIAL_JSON: a part of a document is logged, and\n\
             not the document that it is a part of"
        );
        report
            .fail(End::Source, "row-image", Kind::ServerSetting, text)
            .fix("SET GLOBAL binlog_row_image = FULL;   then end the sessions that began before");
        return;
    }
    let text = format!(
        "binlog_row_image = {image}: a killed copy of a very large table begins again, and a new row that was logged\n\
         without a column whose default is an expression stops the run"
    );
    report
        .note(End::Source, "row-image", text)
        .fix("SET GLOBAL binlog_row_image = FULL;   then end the sessions that began before");
}

/// A replica logs what it is sent only if it is told to (TRAPS 16).
async fn replica(session: &mut Session, report: &mut Report) {
    let server = session.server();
    if server.is_on("log_replica_updates") || server.is_on("log_slave_updates") {
        return report.pass(End::Source, "replica", "what the server is sent as a replica is in its log too");
    }
    let sql = match server.is_mariadb() {
        true => "SHOW ALL SLAVES STATUS",
        false if server.version >= (8, 0, 22) => "SHOW REPLICA STATUS",
        false => "SHOW SLAVE STATUS",
    };
    use mysql_async::prelude::Queryable as _;
    // With columns of every type: only whether there is a row.
    let rows: Result<Vec<mysql_async::Row>, _> = session.conn().query(sql).await;
    let fix = "start it with log_slave_updates = ON (log_replica_updates), or point [source] url at the primary";
    match rows.map_err(Error::from) {
        Ok(rows) if rows.is_empty() => report.pass(End::Source, "replica", "the server is no replica"),
        Ok(_) => {
            let text = "the server is a replica and does not log what it is sent (log_slave_updates is OFF)";
            report.fail(End::Source, "replica", Kind::ServerSetting, text).fix(fix);
        }
        Err(error) => {
            let text = format!(
                "whether the server is a replica cannot be told ({}); if it is, its log lacks what it is sent",
                error.why()
            );
            report.note(End::Source, "replica", text).fix(fix);
        }
    }
}

/// How long the log is kept, and how long a copy takes by its size.
async fn retention(session: &mut Session, plan: &Plan, report: &mut Report) -> Result<()> {
    let bytes: u64 = plan.tables().map(|table| table.source.bytes).sum();
    let copy = bytes / PACE;
    // Managed MySQL has a setting of its own, and by default throws a file away as soon as its own replicas have it.
    let place = session.value("SELECT @@basedir").await.context("reading the source's settings")?.unwrap_or_default();
    if place.starts_with("/rdsdbbin") {
        let hours = (2 * copy).div_ceil(3600).max(24);
        report
            .note(
                End::Source,
                "retention",
                "a managed server throws its log away when it likes, unless it is told how long to keep it",
            )
            .fix(format!("CALL mysql.rds_set_configuration('binlog retention hours', {hours});"));
        return Ok(());
    }
    let server = session.server();
    let Some(kept) = server.keeps_logs_for().filter(|kept| *kept > 0) else {
        report.pass(End::Source, "retention", "the log is kept until somebody purges it");
        return Ok(());
    };
    let wanted = (2 * copy).max(A_DAY);
    let by_seconds = server.number("binlog_expire_logs_seconds").is_some();
    let setting = if by_seconds { "binlog_expire_logs_seconds" } else { "expire_logs_days" };
    let text = format!(
        "the log is kept for {} ({setting}); a copy of {} takes about {}",
        human(kept),
        gigabytes(bytes),
        human(copy.max(60))
    );
    let fix = match by_seconds {
        true => format!("SET GLOBAL binlog_expire_logs_seconds = {wanted};"),
        false => format!("SET GLOBAL expire_logs_days = {};", wanted.div_ceil(86_400)),
    };
    if kept < copy {
        report
            .fail(End::Source, "retention", Kind::ServerSetting, format!("{text}:\nwhat comes after it would be gone"))
            .fix(fix);
    } else if kept < wanted {
        report
            .note(
                End::Source,
                "retention",
                format!("{text}.\nIf the run is down for longer than that, the copy starts over"),
            )
            .fix(fix);
    } else {
        report.pass(End::Source, "retention", text);
    }
    Ok(())
}

fn human(seconds: u64) -> String {
    match Duration::from_secs(seconds).as_secs() {
        seconds if seconds >= 2 * A_DAY => format!("{} days", seconds / A_DAY),
        seconds if seconds >= 2 * 3600 => format!("{} hours", seconds / 3600),
        seconds => format!("{} minutes", seconds.div_ceil(60)),
    }
}

fn gigabytes(bytes: u64) -> String {
    match bytes >> 30 {
        0 => format!("{} MB", bytes >> 20),
        whole => format!("{whole} GB"),
    }
}
