//! What the source's binary log is at a moment: where it ends, what of it is still there, and who reads it.

use mysql_async::prelude::Queryable;

use crate::change::{BinlogPlace, BinlogPosition, GtidSet, LogFiles, MariaGtidSet, Position};
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{MyText, Server, Session};

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
    let ask = async {
        let head = now(session).await?;
        let files = session.rows("SHOW BINARY LOGS").await?;
        let mut sizes = Vec::with_capacity(files.len());
        for file in &files {
            let [Some(name), Some(size), ..] = &file[..] else { continue };
            sizes.push((BinlogPlace::new(name, 0)?.number(), size.parse().unwrap_or(0)));
        }
        let first = files.first().and_then(|file| file.first().cloned().flatten());
        let oldest = match &head {
            Position::MySql(head) => {
                let first = first.clone().unwrap_or_else(|| head.at.file().to_owned());
                let executed = match &head.executed {
                    Some(_) => Some(
                        session.value("SELECT @@GLOBAL.gtid_purged").await?.unwrap_or_default().parse::<GtidSet>()?,
                    ),
                    None => None,
                };
                Position::MySql(BinlogPosition { executed, at: BinlogPlace::new(&first, 4)? })
            }
            Position::MariaDb(head) => {
                let at = BinlogPlace::new(first.as_deref().unwrap_or(head.at.file()), 4)?;
                let executed = match &head.executed {
                    Some(_) => Some(maria_set(session, &at).await?),
                    None => None,
                };
                Position::MariaDb(BinlogPosition { executed, at })
            }
            Position::Postgres(_) => return Err(Error::new(Kind::Internal, "no position of this source")),
        };
        let first = first.unwrap_or_default();
        Ok::<_, Error>(Log { head, oldest, first, files: LogFiles::new(sizes) })
    };
    ask.await.context("asking for the source's binary log")
}

/// Everything that was executed up to now. While no commit is possible it is exact: file, offset and GTIDs are of one moment.
pub(super) async fn now(session: &mut Session) -> Result<Position> {
    let server = session.server();
    require(server)?;
    let by_gtid = by_gtid(server);
    let mariadb = server.is_mariadb();
    let status = if !mariadb && server.version >= (8, 2, 0) { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
    let (file, offset, executed) = place(session, status).await?;
    let at = BinlogPlace::new(&file, offset)?;
    Ok(if mariadb {
        let executed = match by_gtid {
            // What this server's own log has. BINLOG_GTID_POS of the place would be the same, for which the server reads the
            // whole file.
            true => Some(session.value("SELECT @@GLOBAL.gtid_binlog_pos").await?.unwrap_or_default().parse()?),
            false => None,
        };
        Position::MariaDb(BinlogPosition { executed, at })
    } else {
        let executed = if by_gtid { Some(executed.parse::<GtidSet>()?) } else { None };
        Position::MySql(BinlogPosition { executed, at })
    })
}

/// An error if the server has no log that can be followed.
fn require(server: &Server) -> Result<()> {
    if !server.logs() {
        return Err(Error::new(Kind::ServerSetting, "the source has no binary log (log_bin is OFF)")
            .fix("start it with log_bin = ON, server_id and binlog_format = ROW"));
    }
    if let Some(format) = server.variable("binlog_format").filter(|format| !format.eq_ignore_ascii_case("ROW")) {
        return Err(Error::new(Kind::ServerSetting, format!("binlog_format is {format} at the source"))
            .fix("SET GLOBAL binlog_format = ROW, then end the sessions that began before"));
    }
    Ok(())
}

/// Whether positions go by GTID. A MariaDB server must keep their order for it: without that a domain's numbers may run
/// backwards, and its last one says nothing (TRAPS 3).
pub(super) fn by_gtid(server: &Server) -> bool {
    if server.is_mariadb() { server.is_on("gtid_strict_mode") } else { server.has_gtids() }
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
