//! What the source's binary log is at a moment: where it ends, what of it is still there, and who reads it.

use mysql_async::prelude::Queryable;

use crate::change::{BinlogPlace, BinlogPosition, GtidSet, LogFiles, MariaGtidSet, Position};
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{MyText, Session};

/// Where the log begins and ends.
pub(super) struct Log {
    /// Everything that was executed.
    pub head: Position,
    /// The earliest position that can be read from.
    pub oldest: Position,
    /// The first file's name.
    pub first: String,
    pub files: LogFiles,
}

/// Asks for it. An error if there is no log, or not one of rows.
pub(super) async fn look(session: &mut Session) -> Result<Log> {
    let server = session.server();
    if !server.logs() {
        return Err(Error::new(Kind::ServerSetting, "the source has no binary log (log_bin is OFF)")
            .fix("start it with log_bin = ON, server_id and binlog_format = ROW"));
    }
    if let Some(format) = server.variable("binlog_format").filter(|format| !format.eq_ignore_ascii_case("ROW")) {
        return Err(Error::new(Kind::ServerSetting, format!("binlog_format is {format} at the source"))
            .fix("SET GLOBAL binlog_format = ROW, then end the sessions that began before"));
    }
    let mariadb = server.is_mariadb();
    // Without it a domain's numbers may run backwards, and its last one says nothing (TRAPS 3).
    let by_gtid = if mariadb { server.is_on("gtid_strict_mode") } else { server.has_gtids() };
    let status = if !mariadb && server.version >= (8, 2, 0) { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
    let ask = async {
        let (file, offset, executed) = place(session, status).await?;
        let files = session.rows("SHOW BINARY LOGS").await?;
        let mut sizes = Vec::with_capacity(files.len());
        for file in &files {
            let [Some(name), Some(size), ..] = &file[..] else { continue };
            sizes.push((BinlogPlace::new(name, 0)?.number(), size.parse().unwrap_or(0)));
        }
        let first = files.first().and_then(|file| file.first().cloned().flatten()).unwrap_or_else(|| file.clone());
        let (at, begin) = (BinlogPlace::new(&file, offset)?, BinlogPlace::new(&first, 4)?);
        let (head, oldest) = if mariadb {
            let (mut executed, mut purged) = (None, None);
            if by_gtid {
                executed = Some(maria_set(session, &at).await?);
                purged = Some(maria_set(session, &begin).await?);
            }
            (
                Position::MariaDb(BinlogPosition { executed, at }),
                Position::MariaDb(BinlogPosition { executed: purged, at: begin }),
            )
        } else {
            let (mut set, mut purged) = (None, None);
            if by_gtid {
                set = Some(executed.parse::<GtidSet>()?);
                purged = Some(session.value("SELECT @@GLOBAL.gtid_purged").await?.unwrap_or_default().parse()?);
            }
            (
                Position::MySql(BinlogPosition { executed: set, at }),
                Position::MySql(BinlogPosition { executed: purged, at: begin }),
            )
        };
        Ok::<_, Error>(Log { head, oldest, first, files: LogFiles::new(sizes) })
    };
    ask.await.context("asking for the source's binary log")
}

/// File, offset and, from MySQL, everything executed, of one moment.
async fn place(session: &mut Session, status: &str) -> Result<(String, u64, String)> {
    let row = session.rows(status).await?.into_iter().next();
    let Some([Some(file), Some(offset), do_db, ignore_db, ..]) = row.as_deref() else {
        return Err(Error::new(Kind::ServerSetting, "the source writes no binary log"));
    };
    if let Some(filter) = [do_db, ignore_db].into_iter().flatten().find(|filter| !filter.is_empty()) {
        let why = format!("the source's binary log leaves databases out (binlog_do_db, binlog_ignore_db: {filter})");
        return Err(Error::new(Kind::ServerSetting, why)
            .fix("start the source without these filters: what they leave out cannot be followed"));
    }
    let executed = row.as_deref().and_then(|row| row.get(4)).cloned().flatten().unwrap_or_default();
    Ok((file.clone(), offset.parse().unwrap_or(4), executed))
}

/// What MariaDB had executed where this place is.
async fn maria_set(session: &mut Session, at: &BinlogPlace) -> Result<MariaGtidSet> {
    let sql = format!("SELECT BINLOG_GTID_POS({}, {})", MyText(at.file()), at.offset());
    let text = session
        .value(&sql)
        .await?
        .ok_or_else(|| Error::new(Kind::Protocol, format!("the source does not know what it had executed at {at}")))?;
    text.parse()
}

/// Says what is missing if the log cannot be read on from `from`.
pub(super) fn check(log: &Log, from: &Position) -> Result<()> {
    let lost = |why: String| {
        Err(Error::new(Kind::SlotLost, why).fix(
            "what is missing cannot be read again: cutwater teardown, then cutwater run copies everything anew; keep the \
             source's log for longer than a copy takes (binlog_expire_logs_seconds, expire_logs_days)",
        ))
    };
    let changed = |what: &str| {
        Err(Error::new(
            Kind::ServerSetting,
            format!("positions at the source {what}, and the checkpoint's are otherwise"),
        )
        .fix("set gtid_mode (MySQL) or gtid_strict_mode (MariaDB) back to what it was when the migration began"))
    };
    let (oldest, head) = (&log.oldest, &log.head);
    match (from, oldest, head) {
        (Position::MySql(from), Position::MySql(oldest), Position::MySql(head)) => {
            match (&from.executed, &oldest.executed, &head.executed) {
                (Some(from), Some(purged), Some(head)) => {
                    let (gone, unknown) = (purged.minus(from), from.minus(head));
                    if !gone.is_empty() {
                        return lost(format!("the source has purged {gone} from its log, and the target lacks it"));
                    }
                    if !unknown.is_empty() {
                        return lost(format!(
                            "the target has {unknown}, which the source has never executed: it was restored to an older \
                             state, or is another server"
                        ));
                    }
                    return Ok(());
                }
                (None, None, None) => {}
                _ => return changed(if head.executed.is_some() { "go by GTID" } else { "go by file and offset" }),
            }
        }
        (Position::MariaDb(from), Position::MariaDb(oldest), Position::MariaDb(head)) => {
            match (&from.executed, &oldest.executed, &head.executed) {
                (Some(from), Some(purged), Some(head)) => {
                    if !from.includes(purged) {
                        return lost(format!("the source's log begins after {purged}, and the target is at {from}"));
                    }
                    if !head.includes(from) {
                        return lost(format!(
                            "the target is at {from}, and the source has executed {head} only: it was restored to an \
                             older state, or is another server"
                        ));
                    }
                    return Ok(());
                }
                (None, None, None) => {}
                _ => return changed(if head.executed.is_some() { "go by GTID" } else { "go by file and offset" }),
            }
        }
        _ => return lost(format!("the checkpoint {from} is of another kind of server than the source ({head})")),
    }
    if !from.reaches(oldest) {
        return lost(format!("the source's log begins with {}, and the target is at {from}", log.first));
    }
    if !head.reaches(from) {
        return lost(format!("the target is at {from}, and the source's log ends at {head}: it was made anew"));
    }
    Ok(())
}

/// The server ids of those who read the log, with the name that each gave.
pub(super) async fn readers(session: &mut Session) -> Result<Vec<(u32, String)>> {
    let server = session.server();
    let sql = if !server.is_mariadb() && server.version >= (8, 0, 22) { "SHOW REPLICAS" } else { "SHOW SLAVE HOSTS" };
    let rows: Vec<mysql_async::Row> =
        session.conn().query(sql).await.map_err(Error::from).context("asking who reads the source's log")?;
    let reader = |row: mysql_async::Row| {
        Some((row.get_opt::<u32, _>(0)?.ok()?, row.get_opt::<String, _>(1)?.unwrap_or_default()))
    };
    Ok(rows.into_iter().filter_map(reader).collect())
}
