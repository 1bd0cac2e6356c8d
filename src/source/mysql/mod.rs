//! MySQL and MariaDB as a source.
//!
//! In: a `mysql://` URL and the name of the migration. Out: who the server is, its tables, where its log ends and begins,
//! and the [`MyStream`] of what changes in the migrated tables from a position on.
//!
//! ```text
//! server ─► setup (what the log still has; the dump) ─► reader (a thread) ─► binlog (bytes → events)
//!        ─► assemble (events → changes, positions) ─► MyStream
//! ```
//!
//! Nothing is made at the source: there is no slot. What the server keeps of its log is all there is, so every start makes
//! sure that the next change is still there (TRAPS 2). What can go wrong: the log was purged; `gtid_mode` was changed; the
//! log has statements, or definitions that are not the catalogue's (TRAPS 16). All of these end the stream and say so.

mod assemble;
pub mod binlog;
pub mod fence;
mod log;
mod reader;
mod setup;
mod snapshot;
mod statement;
mod stream;
mod table;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

pub use snapshot::MySnapshot;
pub use stream::MyStream;

use crate::change::{Budget, Position};
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{Flavour, MyConnInfo, Session, catalog, connect};
use crate::schema::{Patterns, TableDefinition, TableName, TableSchema};
use crate::source::{Head, SlotState, Source, SourceIdentity};

/// A MySQL or MariaDB server as a source. Cheap to clone: it holds addresses, not connections.
#[derive(Clone)]
pub struct MySource {
    inner: Arc<Inner>,
}

struct Inner {
    info: MyConnInfo,
    name: String,
}

impl MySource {
    /// The server at `info` as the source of the migration `name`.
    pub fn new(info: MyConnInfo, name: &str) -> MySource {
        MySource { inner: Arc::new(Inner { info, name: name.to_owned() }) }
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

    /// The earliest position that the log can still be read from.
    pub async fn oldest(&self) -> Result<Position> {
        let mut session = self.session().await?;
        Ok(log::look(&mut session).await?.oldest)
    }

    fn not_copied(&self) -> Error {
        Error::new(Kind::Refused, format!("{} cannot be copied yet", self.inner.info.label()))
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
        let session = self.session().await?;
        let server = session.server();
        let (engine, system_id) = match server.flavour {
            Flavour::MySql => ("mysql", server.server_uuid().unwrap_or_default().to_owned()),
            Flavour::MariaDb => {
                let domain = server.variable("gtid_domain_id").unwrap_or("0");
                ("mariadb", format!("server {} domain {domain}", server.server_id()))
            }
        };
        let version = server.version_text.clone();
        let database = self.inner.info.database.clone().unwrap_or_default();
        Ok(SourceIdentity { engine: engine.to_owned(), version, system_id, timeline: 0, database })
    }

    /// The tables that match, in name order. Without a pattern that says otherwise: those of the URL's database.
    async fn tables(&self, patterns: &Patterns) -> Result<Vec<Arc<TableSchema>>> {
        let mut session = self.session().await?;
        let databases = self.inner.info.database.iter().filter(|_| patterns.name_nothing()).cloned();
        let found = definitions(&mut session, databases).await?;
        Ok(found.into_iter().map(|found| found.table).filter(|table| patterns.includes(&table.name)).collect())
    }

    /// Where the log ends now.
    async fn head(&self) -> Result<Head> {
        let ask = async {
            let mut session = self.session().await?;
            let log = log::look(&mut session).await?;
            let micros = session.value("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)").await?;
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

    async fn prepare(&self, _: &[Arc<TableSchema>]) -> Result<()> {
        Ok(())
    }

    async fn slot(&self) -> Result<Option<SlotState>> {
        Ok(Some(SlotState { confirmed: self.oldest().await?, active_pid: None, lost: false }))
    }

    fn slot_is_given(&self) -> bool {
        true
    }

    async fn create_slot(&self) -> Result<MySnapshot> {
        Err(self.not_copied())
    }

    async fn temporary_snapshot(&self) -> Result<MySnapshot> {
        Err(self.not_copied())
    }

    async fn snapshot_of_now(&self) -> Result<MySnapshot> {
        Err(self.not_copied())
    }

    async fn drop_slot(&self) -> Result<()> {
        Ok(())
    }

    async fn heartbeat(&self) -> Result<Option<Position>> {
        Ok(None)
    }

    async fn made(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn teardown(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn look(&self, _: &[u32]) -> Result<(String, Position)> {
        Err(self.not_copied())
    }

    async fn name_of(&self, id: u32) -> Result<Option<TableName>> {
        let tables = self.tables(&Patterns::default()).await?;
        Ok(tables.iter().find(|table| table.id == id).map(|table| table.name.clone()))
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
