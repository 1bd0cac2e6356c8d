//! A Postgres source: catalogue, publication, slot, snapshot, stream.
//!
//! | room | what |
//! |---|---|
//! | `publication`, `membership` | what is published, and the marker table; whether it was so without a break |
//! | `setup` | slots, and what a refusal means |
//! | `given` | slot and publication that an administrator made |
//! | `snapshot` | the existing rows, by COPY on an exported snapshot |
//! | `stream` → `reader` → `assemble` → `pgoutput` | the changes: checks, socket and feedback, events, messages |
//! | `relation`, `columns` | whether a table still is what it was; what the catalogue knows beyond that |
//! | `fence` | what stops writes during a cutover |
//!
//! Everything this makes on the source is called `cutwater_<name>` or is in the schema `cutwater`, and
//! [`Source::teardown`] removes it.

mod assemble;
mod columns;
pub mod fence;
pub mod given;
pub mod head;
mod heartbeat;
mod identity;
pub mod membership;
pub mod partitions;
pub mod pgoutput;
mod publication;
mod reader;
mod relation;
mod reread;
mod setup;
mod snapshot;
mod standing;
mod stream;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use tokio::sync::Mutex;

pub use publication::FENCE_TABLE;
pub use relation::describe_difference;
pub use snapshot::PgSnapshot;
pub use stream::PgStream;

use super::{Head, Membership, Reread, SlotState, Source, SourceIdentity, Standing};
use crate::change::{Budget, LogFiles, Lsn, Position, Row};
use crate::config::{Config, SourceConfig};
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::{Client, ConnInfo, Purpose, Wire, catalog, connect};
use crate::schema::{Facts, Leaves, Patterns, TableName, TableSchema};

/// A Postgres database as the source of one migration. Clones share one connection for small questions.
#[derive(Clone)]
pub struct PgSource {
    inner: Arc<Inner>,
}

struct Inner {
    info: ConnInfo,
    migration: String,
    /// `cutwater_<name>`: what its sessions are called, and what it makes.
    name: String,
    slot: String,
    publication: String,
    slot_given: bool,
    publication_given: bool,
    client: Mutex<Option<Arc<Client>>>,
    version: AtomicI32,
    binary: AtomicBool,
    /// Binary values were met that the target would not understand.
    text_only: AtomicBool,
    heartbeats: heartbeat::Heartbeats,
}

impl PgSource {
    /// The source of `migration` at `info`. Connects when first used.
    pub fn new(info: ConnInfo, migration: &str) -> PgSource {
        PgSource::with(info, migration, None, None)
    }

    /// The source that a config names. Connects when first used.
    pub fn of(config: &Config) -> Result<PgSource> {
        let info = ConnInfo::parse(&config.source.url)?;
        let SourceConfig { slot, publication, .. } = &config.source;
        Ok(PgSource::with(info, &config.migration.name, slot.clone(), publication.clone()))
    }

    /// `slot` and `publication` are an administrator's ([`given`]).
    fn with(info: ConnInfo, migration: &str, slot: Option<String>, publication: Option<String>) -> PgSource {
        let name = format!("cutwater_{migration}");
        let inner = Inner {
            info,
            migration: migration.to_owned(),
            slot_given: slot.is_some(),
            publication_given: publication.is_some(),
            slot: slot.unwrap_or_else(|| name.clone()),
            publication: publication.unwrap_or_else(|| name.clone()),
            name,
            client: Mutex::default(),
            version: AtomicI32::new(0),
            binary: AtomicBool::new(false),
            heartbeats: heartbeat::Heartbeats::default(),
            text_only: AtomicBool::new(false),
        };
        PgSource { inner: Arc::new(inner) }
    }

    /// Where it is.
    pub fn info(&self) -> &ConnInfo {
        &self.inner.info
    }

    /// The migration's name.
    pub fn migration(&self) -> &str {
        &self.inner.migration
    }

    /// `cutwater_<name>`, or the administrator's.
    pub fn slot_name(&self) -> &str {
        &self.inner.slot
    }

    /// `cutwater_<name>`, or the administrator's.
    pub fn publication_name(&self) -> &str {
        &self.inner.publication
    }

    /// A SQL session of its own.
    pub async fn connect(&self) -> Result<Client> {
        connect(&self.inner.info, &self.inner.name).await
    }

    /// A connection of its own for replication or bulk COPY.
    async fn wire(&self, purpose: Purpose) -> Result<Wire> {
        Wire::connect(&self.inner.info, &self.inner.name, purpose).await
    }

    /// The shared session, made anew when it has ended.
    async fn client(&self) -> Result<Arc<Client>> {
        let mut kept = self.inner.client.lock().await;
        if let Some(client) = kept.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(self.connect().await?);
        *kept = Some(Arc::clone(&client));
        Ok(client)
    }

    /// `server_version_num`, asked for once.
    async fn server_version(&self, client: &Client) -> Result<i32> {
        let known = self.inner.version.load(Ordering::Relaxed);
        if known > 0 {
            return Ok(known);
        }
        let row = client.query_one("SELECT current_setting('server_version_num')::int4", &[]).await?;
        let version = row.get(0);
        self.inner.version.store(version, Ordering::Relaxed);
        Ok(version)
    }

    fn on(&self, doing: &str) -> String {
        format!("{doing} on {}", self.inner.info.label())
    }
}

impl Source for PgSource {
    type Stream = PgStream;
    type Snapshot = PgSnapshot;

    fn label(&self) -> String {
        self.inner.info.label()
    }

    async fn identity(&self) -> Result<SourceIdentity> {
        let client = self.client().await?;
        identity::identity(self, &client).await.with_context(|| self.on("asking who the server is"))
    }

    async fn tables(&self, patterns: &Patterns) -> Result<Vec<Arc<TableSchema>>> {
        let client = self.client().await?;
        let mut tables = catalog::tables(&client).await.with_context(|| self.on("listing the tables"))?;
        tables.retain(|table| patterns.includes(&table.name));
        Ok(tables)
    }

    async fn prepare(&self, tables: &[Arc<TableSchema>]) -> Result<()> {
        let client = self.client().await?;
        publication::prepare(self, &client, tables).await.with_context(|| self.on("preparing replication"))
    }

    async fn slot(&self) -> Result<Option<SlotState>> {
        let client = self.client().await?;
        setup::slot(&client, self.slot_name()).await.with_context(|| self.on("looking at the slot"))
    }

    fn slot_is_given(&self) -> bool {
        self.inner.slot_given
    }

    fn drop_slot_by_hand(&self) -> &'static str {
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'cutwater%';"
    }

    async fn create_slot(&self) -> Result<PgSnapshot> {
        if self.slot_is_given() {
            let client = self.client().await?;
            if let Some(objection) = given::object_to_slot(&client, self.slot_name()).await? {
                return Err(objection.into());
            }
            return self.temporary_snapshot().await;
        }
        let exported = setup::create_slot(self, self.slot_name(), false).await?;
        PgSnapshot::new(self, exported, None).await
    }

    async fn temporary_snapshot(&self) -> Result<PgSnapshot> {
        // Unique: an earlier one may still be going away. At most 63 characters, of which the migration's have 40.
        let name = format!("{}_t{:08x}", self.inner.name, rand::random::<u32>());
        let exported = setup::create_slot(self, &name, true).await?;
        PgSnapshot::new(self, exported, Some(name)).await
    }

    async fn snapshot_of_now(&self) -> Result<PgSnapshot> {
        PgSnapshot::of_now(self).await.with_context(|| self.on("looking at the rows"))
    }

    async fn drop_slot(&self) -> Result<()> {
        if self.slot_is_given() {
            return Ok(());
        }
        let client = self.client().await?;
        setup::drop_slot(&client, self.slot_name()).await.map(drop).with_context(|| self.on("dropping the slot"))
    }

    async fn stream(&self, from: &Position, tables: &[Arc<TableSchema>], budget: &Budget) -> Result<PgStream> {
        let client = self.client().await?;
        let ours = self.inner.info.session_name(&self.inner.name);
        setup::end_predecessor(&client, self.slot_name(), &ours).await.context("freeing the slot")?;
        publication::check_published(&client, self.publication_name(), tables).await?;
        let ids: Vec<u32> = tables.iter().map(|table| table.id).collect();
        publication::check_whole(&client, self.publication_name(), &ids).await?;
        let version = self.server_version(&client).await?;
        let binary = self.inner.binary.load(Ordering::Relaxed) && version >= 140_000;
        PgStream::start(self, from.lsn()?, tables, budget, (binary, version), None).await
    }

    async fn head(&self) -> Result<Head> {
        let head = async {
            let client = self.client().await?;
            let row = client.query_one(include_str!("head.sql"), &[&self.slot_name()]).await?;
            let position: Lsn = row.get::<_, &str>("position").parse()?;
            let micros: i64 = row.get("time");
            let time = jiff::Timestamp::from_microsecond(micros)
                .map_err(|_| Error::new(Kind::Protocol, "the source's clock is out of range"))?;
            let retained: Option<i64> = row.get("retained");
            Ok::<_, Error>(Head {
                position: position.into(),
                files: LogFiles::default(),
                time,
                retained_bytes: retained.map(|bytes| u64::try_from(bytes).unwrap_or(0)),
                slot_status: row.get("slot_status"),
                server_limit_bytes: row
                    .get::<_, Option<i64>>("server_limit")
                    .map(|bytes| u64::try_from(bytes).unwrap_or(0)),
            })
        };
        head.await.with_context(|| self.on("asking for the end of the log"))
    }

    async fn head_of_seen(&self) -> Result<Position> {
        head::of_seen(&*self.client().await?).await
    }

    async fn heartbeat(&self) -> Result<Option<Position>> {
        let written = async {
            let client = self.client().await?;
            heartbeat::write(self, &client, &self.inner.heartbeats).await
        };
        let written = written.await.with_context(|| self.on("writing a heartbeat"))?;
        Ok(written.map(Position::from))
    }

    async fn standing(&self) -> Result<Standing> {
        standing::ask(self).await
    }

    async fn made(&self) -> Result<Vec<String>> {
        let client = self.client().await?;
        // What an administrator made stays.
        let slot = Some(self.slot_name()).filter(|_| !self.slot_is_given());
        let publication = Some(self.publication_name()).filter(|_| !self.publication_is_given());
        let rows = client.query(include_str!("made.sql"), &[&slot, &publication]).await;
        Ok(rows.context("looking at the source")?.iter().map(|row| row.get(0)).collect())
    }

    async fn teardown(&self) -> Result<Vec<String>> {
        let remove = async {
            let client = self.client().await?;
            let mut removed = Vec::new();
            if !self.slot_is_given() && setup::drop_slot(&client, self.slot_name()).await? {
                removed.push(format!("slot {}", self.slot_name()));
            }
            // The fence before its table: writes must never be refused by a fence whose row is gone.
            removed.extend(fence::drop_all(&client, self.migration()).await?);
            removed.extend(publication::remove(self, &client).await?);
            Ok::<_, Error>(removed)
        };
        remove.await.with_context(|| self.on("removing what the migration made"))
    }

    fn set_binary(&self, binary: bool) -> bool {
        let binary = self.may_be_binary(binary);
        self.inner.binary.store(binary, Ordering::Relaxed);
        binary
    }

    fn may_be_binary(&self, binary: bool) -> bool {
        binary && !self.inner.text_only.load(Ordering::Relaxed)
    }

    fn require_text(&self) {
        self.inner.text_only.store(true, Ordering::Relaxed);
    }

    async fn memberships(&self, ids: &[u32]) -> Result<HashMap<u32, Membership>> {
        membership::of_whole(self, ids).await
    }

    fn unbroken(
        &self,
        tables: &HashMap<u32, TableName>,
        recorded: &HashMap<TableName, Membership>,
        now: &HashMap<u32, Membership>,
    ) -> Result<()> {
        membership::unbroken(self.publication_name(), tables, recorded, now)
    }

    async fn leaves(&self, tables: &HashMap<u32, TableName>) -> Result<Leaves> {
        let leaves = partitions::read(&*self.client().await?, tables).await;
        leaves.with_context(|| self.on("looking at the partitions"))
    }

    async fn empty(&self, ids: &[u32]) -> Result<Vec<u32>> {
        Ok(partitions::empty(&*self.client().await?, ids).await)
    }

    async fn facts(&self, ids: &[u32]) -> Result<HashMap<u32, Facts>> {
        columns::facts(&*self.client().await?, ids).await.with_context(|| self.on("reading the columns of the tables"))
    }

    async fn look(&self, ids: &[u32]) -> Result<(String, Position)> {
        columns::look(self, ids).await
    }

    async fn name_of(&self, id: u32) -> Result<Option<TableName>> {
        columns::name_of(&*self.client().await?, id).await.with_context(|| self.on("looking for a table"))
    }

    async fn reread(&self, table: &TableSchema, row: &Row, xid: u32) -> Result<Reread> {
        let client = self.client().await?;
        reread::read(&client, table, row, xid).await.with_context(|| format!("reading a row of {} again", table.name))
    }
}
