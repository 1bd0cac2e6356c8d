//! MySQL and MariaDB as a source.
//!
//! In: a `mysql://` URL and the name of the migration. Out: who the server is, its tables, where its log ends and begins,
//! a [`MySnapshot`] of the existing rows, and the [`MyStream`] of what changes in the migrated tables from a position on.
//!
//! ```text
//! server ─► setup (what the log still has; the dump) ─► reader (a thread) ─► binlog (bytes → events)
//!        │  ─► assemble (events → changes, positions) ─► MyStream
//!        └► snapshot: open (a lock of milliseconds) ─► cut (parts) ─► copy (rows)
//! ```
//!
//! Nothing is made at the source: there is no slot. What the server keeps of its log is all there is, so every start makes
//! sure that the next change is still there (TRAPS 2). What can go wrong: the log was purged; `gtid_mode` was changed; the
//! log has statements, or definitions that are not the catalogue's (TRAPS 16). All of these end the stream and say so.

mod assemble;
pub mod binlog;
pub mod fence;
mod kept;
mod log;
mod look;
mod reader;
mod setup;
mod snapshot;
mod statement;
mod stream;
mod table;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Mutex;

pub use snapshot::MySnapshot;
pub use stream::MyStream;

use crate::change::{Budget, Position};
use crate::config::{Config, SnapshotConfig};
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{Flavour, MyConnInfo, Session, catalog, connect, my_table};
use crate::schema::{Facts, Patterns, TableDefinition, TableName, TableSchema};
use crate::source::{ChangeStream as _, Head, SlotState, Source, SourceIdentity};

/// How long a server may take to say that it does not give its log.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);

/// A MySQL or MariaDB server as a source. Cheap to clone. Clones share one connection for small questions.
#[derive(Clone)]
pub struct MySource {
    inner: Arc<Inner>,
}

struct Inner {
    info: MyConnInfo,
    name: String,
    /// Sessions that a snapshot is of.
    workers: usize,
    /// `[source] server_id`.
    server_id: Option<u32>,
    /// `[source] tables` may name those of other databases than the URL's.
    everywhere: bool,
    kept: Mutex<Option<Session>>,
}

impl MySource {
    /// The server at `info` as the source of the migration `name`.
    pub fn new(info: MyConnInfo, name: &str) -> MySource {
        MySource::with(info, name, SnapshotConfig::default().workers, None, false)
    }

    /// The source that a config names. Connects when first used.
    pub fn of(config: &Config) -> Result<MySource> {
        let info = MyConnInfo::parse(&config.source.url)?;
        let everywhere = !Patterns::parse(&config.source.tables)?.name_nothing();
        let (workers, server_id) = (config.snapshot.workers, config.source.server_id);
        Ok(MySource::with(info, &config.migration.name, workers, server_id, everywhere))
    }

    fn with(info: MyConnInfo, name: &str, workers: usize, server_id: Option<u32>, everywhere: bool) -> MySource {
        let (name, kept) = (name.to_owned(), Mutex::default());
        MySource { inner: Arc::new(Inner { info, name, workers, server_id, everywhere, kept }) }
    }

    /// Where it is.
    pub fn info(&self) -> &MyConnInfo {
        &self.inner.info
    }

    /// What the catalogue says of these tables.
    async fn described(&self, names: &[TableName]) -> Result<Vec<Arc<TableSchema>>> {
        let mut session = self.session().await?;
        let found = definitions(&mut session, names.iter().map(|name| name.schema.clone())).await?;
        Ok(found.into_iter().map(|found| found.table).filter(|table| names.contains(&table.name)).collect())
    }

    fn name(&self) -> &str {
        &self.inner.name
    }

    fn application_name(&self) -> String {
        format!("cutwater_{}", self.inner.name)
    }

    async fn session(&self) -> Result<Session> {
        connect(&self.inner.info, &self.application_name()).await
    }

    /// What the catalogue says of the tables that there are for this migration.
    async fn catalog(&self, session: &mut Session, patterns: &Patterns) -> Result<Vec<TableDefinition>> {
        let all = self.inner.everywhere || !patterns.name_nothing();
        let databases = self.inner.info.database.iter().filter(|_| !all).cloned();
        definitions(session, databases).await
    }

    /// The error that names XA transactions which are prepared: neither a snapshot nor the stream has their rows.
    pub async fn refuse_prepared(&self, session: &mut Session) -> Result<()> {
        snapshot::refuse_prepared(session).await
    }

    /// Asks for the log from `from` on as a stream beside others, which ends nobody, and hears whether it is given.
    pub async fn try_reading(&self, from: &Position) -> Result<()> {
        let mut stream = MyStream::beside(self, from, &[], &Budget::new(1 << 20)).await?;
        // A refusal is the first thing that comes; where nothing is written, nothing else does.
        match tokio::time::timeout(REFUSED_WITHIN, stream.next()).await {
            Ok(Err(error)) => Err(error),
            Ok(Ok(_)) | Err(_) => stream.close().await,
        }
    }

    /// The earliest position that the log can still be read from.
    pub async fn oldest(&self) -> Result<Position> {
        let mut kept = self.kept().await?;
        let oldest = log::look(kept.session()).await?.oldest;
        kept.keep();
        Ok(oldest)
    }
}

impl Source for MySource {
    type Stream = MyStream;
    type Snapshot = MySnapshot;

    fn label(&self) -> String {
        self.inner.info.label()
    }

    /// Who it is. A MySQL server has a UUID for ever; a MariaDB server is known by its id and domain, which people give.
    async fn identity(&self) -> Result<SourceIdentity> {
        let mut kept = self.kept().await?;
        let server = kept.session().server();
        let (engine, system_id) = match server.flavour {
            Flavour::MySql => ("mysql", server.server_uuid().unwrap_or_default().to_owned()),
            Flavour::MariaDb => {
                let domain = server.variable("gtid_domain_id").unwrap_or("0");
                ("mariadb", format!("server {} domain {domain}", server.server_id()))
            }
        };
        let version = server.version_text.clone();
        kept.keep();
        let database = self.inner.info.database.clone().unwrap_or_default();
        Ok(SourceIdentity { engine: engine.to_owned(), version, system_id, timeline: 0, database })
    }

    /// The tables that match, in name order. Without a pattern that says otherwise: those of the URL's database.
    async fn tables(&self, patterns: &Patterns) -> Result<Vec<Arc<TableSchema>>> {
        let mut session = self.session().await?;
        let found = self.catalog(&mut session, patterns).await?;
        Ok(found.into_iter().map(|found| found.table).filter(|table| patterns.includes(&table.name)).collect())
    }

    /// Where the log ends now.
    async fn head(&self) -> Result<Head> {
        let ask = async {
            let mut kept = self.kept().await?;
            let log = log::look(kept.session()).await?;
            let micros = kept.session().value("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)").await?;
            kept.keep();
            let micros = micros.and_then(|micros| micros.parse().ok());
            let time = micros.and_then(|micros| Timestamp::from_microsecond(micros).ok());
            let time = time.ok_or_else(|| Error::new(Kind::Protocol, "the source's clock is out of range"))?;
            Ok::<_, Error>(Head {
                position: log.head,
                // The server keeps its log by age and size, not for us.
                retained_bytes: None,
                files: log.files,
                time,
                slot_status: None,
                server_limit_bytes: None,
            })
        };
        ask.await.with_context(|| format!("asking {} for the end of its log", self.label()))
    }

    /// Nothing has to be made. What no snapshot and no stream is exact for is refused before anything is copied.
    async fn prepare(&self, tables: &[Arc<TableSchema>]) -> Result<()> {
        let mut session = self.session().await?;
        let databases = tables.iter().map(|table| table.name.schema.clone());
        for definition in definitions(&mut session, databases).await? {
            let name = &definition.table.name;
            if !definition.transactional && tables.iter().any(|table| table.name == *name) {
                return Err(without_transactions(name, &definition.engine));
            }
        }
        Ok(())
    }

    async fn slot(&self) -> Result<Option<SlotState>> {
        Ok(Some(SlotState { confirmed: self.oldest().await?, active_pid: None, lost: false }))
    }

    fn slot_is_given(&self) -> bool {
        true
    }

    async fn create_slot(&self) -> Result<MySnapshot> {
        MySnapshot::begin(self).await
    }

    async fn temporary_snapshot(&self) -> Result<MySnapshot> {
        MySnapshot::begin(self).await
    }

    async fn snapshot_of_now(&self) -> Result<MySnapshot> {
        MySnapshot::of_now(self).await
    }

    async fn drop_slot(&self) -> Result<()> {
        Ok(())
    }

    /// None is needed: the server tells of itself how far it is ([`reader`]), and nothing of its log is kept for us.
    async fn heartbeat(&self) -> Result<Option<Position>> {
        Ok(None)
    }

    async fn made(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn teardown(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn facts(&self, ids: &[u32]) -> Result<HashMap<u32, Facts>> {
        let mut session = self.session().await?;
        let found = self.catalog(&mut session, &Patterns::default()).await?;
        let found = found.iter().filter(|found| ids.contains(&found.table.id));
        Ok(found.map(|found| (found.table.id, look::facts(found))).collect())
    }

    async fn look(&self, ids: &[u32]) -> Result<(String, Position)> {
        look::look(self, ids).await.with_context(|| format!("looking whether a table of {} was altered", self.label()))
    }

    /// Tables have no numbers: one that was renamed is gone.
    async fn name_of(&self, id: u32) -> Result<Option<TableName>> {
        let mut session = self.session().await?;
        let found = self.catalog(&mut session, &Patterns::default()).await?;
        Ok(found.iter().find(|found| found.table.id == id).map(|found| found.table.name.clone()))
    }

    /// Starts the stream at `from`: the first event is the first transaction that `from` does not include. `tables` are the
    /// migrated tables as [`MySource::tables`] gave them. A predecessor of the same migration that still reads is ended.
    async fn stream(&self, from: &Position, tables: &[Arc<TableSchema>], budget: &Budget) -> Result<MyStream> {
        MyStream::start(self, from, tables, budget).await
    }
}

/// What the catalogue says of the tables in these databases; in all of them if none is given.
async fn definitions(session: &mut Session, databases: impl Iterator<Item = String>) -> Result<Vec<TableDefinition>> {
    let databases: Vec<String> = databases.collect::<BTreeSet<_>>().into_iter().collect();
    let catalog = catalog::read(session, &databases).await.context("reading the source's tables")?;
    Ok(catalog.tables)
}

/// The refusal of a table whose rows no snapshot fixes, and whose changes are not undone with their transaction (TRAPS 9).
fn without_transactions(table: &TableName, engine: &str) -> Error {
    let why = format!(
        "{table} has the engine {engine}, which has no transactions: it can neither be copied nor followed exactly"
    );
    Error::new(Kind::ServerSetting, why)
        .fix(format!("ALTER TABLE {} ENGINE = InnoDB, or leave the table out", my_table(table)))
}
