//! Opens the binary log at a position.
//!
//! In: a position that the target has, and the migrated tables. Out: the connection over which the log comes, and what
//! turns its events into changes. Before anything is asked for it is made sure that the log still has what comes next
//! (TRAPS 2). MySQL finds the place by the set of GTIDs (`COM_BINLOG_DUMP_GTID`), MariaDB by the last GTID of each domain
//! (`@slave_connect_state`); without GTIDs it is the file and the offset.
//!
//! A reader announces itself as a replica: with a server id of its own, or the server ends whoever had the id before. Ours
//! is made from the migration's name or chosen (`[source] server_id`), so that a second run of one migration ends the first
//! one's reading, and two migrations do not disturb each other. A stream beside it has another.

use std::ops::RangeInclusive;
use std::sync::Arc;

use mysql_async::{BinlogStream, BinlogStreamRequest, GnoInterval, Sid};
use sha2::{Digest, Sha256};

use super::assemble::Assembler;
use super::log::{self, Log};
use super::reader::HEARTBEAT;
use super::table::Streamed;
use super::{MySource, definitions, without_transactions};
use crate::change::{BinlogPlace, GtidSet, Interval, Position};
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{MyText, Role, Session, connect_as};
use crate::schema::TableSchema;
use crate::source::Source as _;

/// So many ids after a chosen one are for streams beside the migration's own.
const BESIDE: u32 = 9;
/// Ours are from here on, so that they seldom meet those that people give.
const FIRST_ID: u32 = 0x4000_0000;

/// What a reader is to the server.
pub(super) struct Reader {
    /// What it calls itself where the server lists its replicas. Those who call themselves alike are one.
    pub name: String,
    /// The server ids that were chosen for it.
    pub ids: Option<RangeInclusive<u32>>,
}

impl Reader {
    /// The migration's own.
    pub(super) fn main(source: &MySource) -> Reader {
        Reader { name: host_name(&source.inner.name, ""), ids: source.inner.server_id.map(|id| id..=id) }
    }

    /// One beside it, which ends nobody. With a chosen id those after it are for it.
    pub(super) fn beside(source: &MySource) -> Reader {
        let name = host_name(&source.inner.name, &format!("_{:08x}", rand::random::<u32>()));
        Reader { name, ids: source.inner.server_id.map(|id| id.saturating_add(1)..=id.saturating_add(BESIDE)) }
    }
}

/// Opens the log.
pub(super) async fn open(
    source: &MySource,
    from: &Position,
    tables: &[Arc<TableSchema>],
    reader: &Reader,
) -> Result<(BinlogStream, Assembler)> {
    let doing = || format!("following {} from {from}", source.label());
    let open = async {
        let mut session = connect_as(&source.inner.info, &source.application_name(), Role::Reader).await?;
        let streamed = known(&mut session, tables).await?;
        let any_case = session.server().number("lower_case_table_names").unwrap_or(0) > 0;
        let assembler = Assembler::new(streamed, from, any_case)?;
        let log = log::look(&mut session).await?;
        log::check(&log, from)?;
        let id = server_id(&mut session, reader).await?;
        let start = begin(&mut session, from, &log).await?;
        let file = match &start {
            Start::Gtids(_) | Start::Asked => String::new(),
            Start::Place(place) => place.file().to_owned(),
        };
        let mut request =
            BinlogStreamRequest::new(id).with_hostname(reader.name.as_bytes()).with_filename(file.as_bytes());
        match &start {
            Start::Gtids(set) => request = request.with_gtid().with_gtid_set(sids(set)),
            Start::Asked => {}
            Start::Place(place) => {
                let Ok(offset) = u32::try_from(place.offset()) else {
                    let why = format!("the place {place} is beyond 4 GiB of its file, and cannot be asked for");
                    return Err(Error::new(Kind::ServerSetting, why).fix("switch GTIDs on at the source"));
                };
                request = request.with_pos(offset.into());
            }
        }
        let stream = session.into_conn().get_binlog_stream(request).await.map_err(Error::from)?;
        tracing::debug!(%from, server_id = id, "reading the source's binary log");
        Ok((stream, assembler))
    };
    open.await.with_context(doing)
}

/// How the server is told where to begin.
enum Start {
    Gtids(GtidSet),
    /// In the session, before.
    Asked,
    Place(BinlogPlace),
}

async fn begin(session: &mut Session, from: &Position, log: &Log) -> Result<Start> {
    let nanoseconds = HEARTBEAT.as_nanos();
    let mariadb = session.server().is_mariadb();
    session
        .execute(format!("SET @master_heartbeat_period = {nanoseconds}, @source_heartbeat_period = {nanoseconds}"))
        .await?;
    if mariadb {
        // Or the server would rewrite its events into those of older versions.
        session.execute("SET @mariadb_slave_capability = 4").await?;
    }
    Ok(match from {
        Position::MySql(position) => match &position.executed {
            Some(executed) if executed.has_tags() => Start::Place(file_before(session, executed, log).await?),
            Some(executed) => Start::Gtids(executed.clone()),
            None => Start::Place(position.at.clone()),
        },
        Position::MariaDb(position) => match &position.executed {
            Some(executed) => {
                let state = MyText(&executed.to_string()).to_string();
                session
                    .execute(format!(
                        "SET @slave_connect_state = {state}, @slave_gtid_strict_mode = 1, @slave_gtid_ignore_duplicates = 0"
                    ))
                    .await?;
                Start::Asked
            }
            None => Start::Place(position.at.clone()),
        },
        Position::Postgres(_) => {
            return Err(Error::new(Kind::Internal, format!("{from} is no position of this source")));
        }
    })
}

/// The newest file that begins with nothing we lack. The driver cannot ask with tags (MySQL 8.3 and later), so the file is
/// found here, and what we have of it is passed over.
async fn file_before(session: &mut Session, executed: &GtidSet, log: &Log) -> Result<BinlogPlace> {
    let files = session.rows("SHOW BINARY LOGS").await?;
    for file in files.iter().rev().filter_map(|file| file.first().cloned().flatten()) {
        let events = session.rows(format!("SHOW BINLOG EVENTS IN {} LIMIT 3", MyText(&file))).await?;
        // Log_name, Pos, Event_type, Server_id, End_log_pos, Info
        let before =
            events.iter().find(|event| event.get(2).is_some_and(|kind| kind.as_deref() == Some("Previous_gtids")));
        let before = before.and_then(|event| event.get(5).cloned().flatten()).unwrap_or_default();
        if before.parse::<GtidSet>().is_ok_and(|before| executed.includes(&before)) {
            return BinlogPlace::new(&file, 4);
        }
    }
    Err(Error::new(Kind::SlotLost, format!("the source's log begins with {}, after what the target has", log.first)))
}

fn sids(executed: &GtidSet) -> Vec<Sid<'static>> {
    // The protocol's intervals end before their end.
    let interval = |run: Interval| GnoInterval::new(run.first, run.last + 1);
    let sources = executed.sources();
    sources.map(|(tsid, runs)| Sid::new(tsid.uuid).with_intervals(runs.map(interval).collect())).collect()
}

/// What the catalogue says of the tables now.
async fn known(session: &mut Session, tables: &[Arc<TableSchema>]) -> Result<Vec<Streamed>> {
    let mut found = definitions(session, tables.iter().map(|table| table.name.schema.clone())).await?;
    let mut streamed = Vec::with_capacity(tables.len());
    for table in tables {
        let Some(at) = found.iter().position(|definition| definition.table.name == table.name) else {
            return Err(Error::new(Kind::Schema, format!("{} is no longer there, or may not be read", table.name)));
        };
        let definition = found.swap_remove(at);
        if !definition.transactional {
            return Err(without_transactions(&table.name, &definition.engine));
        }
        streamed.push(Streamed::new(table, definition)?);
    }
    Ok(streamed)
}

/// 60 characters are kept by all servers.
fn host_name(migration: &str, suffix: &str) -> String {
    let name: String = format!("cutwater_{migration}").chars().take(60 - suffix.len()).collect();
    name + suffix
}

/// An id that is the reader's in any run of this migration, and nobody else's.
async fn server_id(session: &mut Session, reader: &Reader) -> Result<u32> {
    let (own, name) = (session.server().server_id(), &reader.name);
    let readers = log::readers(session).await?;
    let free = |id: &u32| *id != own && !readers.iter().any(|(other, host)| other == id && host != name);
    if let Some(ids) = &reader.ids {
        return ids.clone().find(free).ok_or_else(|| {
            let why = format!("server id {} is the source's own, or that of one of its replicas", ids.start());
            Error::new(Kind::Config, why)
                .fix("choose a [source] server_id that nobody has, nor the nine after it: SHOW REPLICAS lists them")
        });
    }
    let digest = Sha256::digest(name.as_bytes());
    let seed = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) % FIRST_ID;
    let candidates = (0..1000).map(|step| FIRST_ID + (seed + step) % FIRST_ID);
    candidates.into_iter().find(free).ok_or_else(|| Error::new(Kind::ServerSetting, "no server id is free"))
}
