//! The source of a migration, of whichever engine it is.
//!
//! In: a config, whose URL's scheme chooses. Out: a [`Source`]. Each question goes to the engine as it is, in one `match`
//! a call; of the stream that is one for each run of events, never one for each row. So everything above is compiled once.

use std::collections::HashMap;
use std::sync::Arc;

use super::mysql::{MySnapshot, MySource, MyStream};
use super::postgres::{PgSnapshot, PgSource, PgStream};
use super::{
    ChangeStream, CopyFormat, CopyStream, Head, Membership, Part, Reread, SlotState, Snapshot, Source, SourceIdentity,
    Standing, StreamItem,
};
use crate::change::{Budget, Chunk, Durable, Position, Row};
use crate::config::Config;
use crate::error::Result;
use crate::schema::{Facts, Leaves, Patterns, TableName, TableSchema};

/// A source of any engine.
#[derive(Clone)]
pub enum AnySource {
    /// `postgres://`
    Postgres(PgSource),
    /// `mysql://`
    MySql(MySource),
}

/// Its snapshot.
#[allow(clippy::large_enum_variant, reason = "a copy has one, which stands behind an Arc")]
pub enum AnySnapshot {
    /// Of a Postgres server.
    Postgres(PgSnapshot),
    /// Of a MySQL or MariaDB server.
    MySql(MySnapshot),
}

/// Its stream.
pub enum AnyStream {
    /// Of a Postgres server.
    Postgres(PgStream),
    /// Of a MySQL or MariaDB server.
    MySql(MyStream),
}

impl AnySource {
    /// The source that a config names. Connects when first used.
    pub fn of(config: &Config) -> Result<AnySource> {
        let url = config.source.url.expose();
        Ok(match url.split_once("://").map(|(scheme, _)| scheme) {
            Some("mysql" | "mariadb") => AnySource::MySql(MySource::of(config)?),
            _ => AnySource::Postgres(PgSource::of(config)?),
        })
    }

    /// The Postgres server that this is, for what is only made for one.
    pub fn postgres(&self) -> Option<&PgSource> {
        match self {
            AnySource::Postgres(source) => Some(source),
            AnySource::MySql(_) => None,
        }
    }
}

/// Asks the engine.
macro_rules! ask {
    ($any:ident, $end:ident => $answer:expr) => {
        match $any {
            Self::Postgres($end) => $answer,
            Self::MySql($end) => $answer,
        }
    };
}

/// The same for what is of the engine's own type.
macro_rules! wrap {
    ($any:ident, $of:ident, $end:ident => $answer:expr) => {
        match $any {
            Self::Postgres($end) => $of::Postgres($answer),
            Self::MySql($end) => $of::MySql($answer),
        }
    };
}

impl Source for AnySource {
    type Stream = AnyStream;
    type Snapshot = AnySnapshot;

    fn label(&self) -> String {
        ask!(self, source => source.label())
    }

    async fn identity(&self) -> Result<SourceIdentity> {
        ask!(self, source => source.identity().await)
    }

    async fn tables(&self, patterns: &Patterns) -> Result<Vec<Arc<TableSchema>>> {
        ask!(self, source => source.tables(patterns).await)
    }

    async fn prepare(&self, tables: &[Arc<TableSchema>]) -> Result<()> {
        ask!(self, source => source.prepare(tables).await)
    }

    async fn slot(&self) -> Result<Option<SlotState>> {
        ask!(self, source => source.slot().await)
    }

    fn slot_is_given(&self) -> bool {
        ask!(self, source => source.slot_is_given())
    }

    fn drop_slot_by_hand(&self) -> &'static str {
        ask!(self, source => source.drop_slot_by_hand())
    }

    async fn create_slot(&self) -> Result<AnySnapshot> {
        Ok(wrap!(self, AnySnapshot, source => source.create_slot().await?))
    }

    async fn temporary_snapshot(&self) -> Result<AnySnapshot> {
        Ok(wrap!(self, AnySnapshot, source => source.temporary_snapshot().await?))
    }

    async fn snapshot_of_now(&self) -> Result<AnySnapshot> {
        Ok(wrap!(self, AnySnapshot, source => source.snapshot_of_now().await?))
    }

    async fn drop_slot(&self) -> Result<()> {
        ask!(self, source => source.drop_slot().await)
    }

    async fn stream(&self, from: &Position, tables: &[Arc<TableSchema>], budget: &Budget) -> Result<AnyStream> {
        Ok(wrap!(self, AnyStream, source => source.stream(from, tables, budget).await?))
    }

    async fn head(&self) -> Result<Head> {
        ask!(self, source => source.head().await)
    }

    async fn head_of_seen(&self) -> Result<Position> {
        ask!(self, source => source.head_of_seen().await)
    }

    async fn heartbeat(&self) -> Result<Option<Position>> {
        ask!(self, source => source.heartbeat().await)
    }

    async fn standing(&self) -> Result<Standing> {
        ask!(self, source => source.standing().await)
    }

    async fn made(&self) -> Result<Vec<String>> {
        ask!(self, source => source.made().await)
    }

    async fn teardown(&self) -> Result<Vec<String>> {
        ask!(self, source => source.teardown().await)
    }

    fn set_binary(&self, binary: bool) -> bool {
        ask!(self, source => source.set_binary(binary))
    }

    fn may_be_binary(&self, binary: bool) -> bool {
        ask!(self, source => source.may_be_binary(binary))
    }

    fn require_text(&self) {
        ask!(self, source => source.require_text());
    }

    async fn memberships(&self, ids: &[u32]) -> Result<HashMap<u32, Membership>> {
        ask!(self, source => source.memberships(ids).await)
    }

    fn unbroken(
        &self,
        tables: &HashMap<u32, TableName>,
        recorded: &HashMap<TableName, Membership>,
        now: &HashMap<u32, Membership>,
    ) -> Result<()> {
        ask!(self, source => source.unbroken(tables, recorded, now))
    }

    async fn leaves(&self, tables: &HashMap<u32, TableName>) -> Result<Leaves> {
        ask!(self, source => source.leaves(tables).await)
    }

    async fn empty(&self, ids: &[u32]) -> Result<Vec<u32>> {
        ask!(self, source => source.empty(ids).await)
    }

    async fn facts(&self, ids: &[u32]) -> Result<HashMap<u32, Facts>> {
        ask!(self, source => source.facts(ids).await)
    }

    async fn look(&self, ids: &[u32]) -> Result<(String, Position)> {
        ask!(self, source => source.look(ids).await)
    }

    async fn name_of(&self, id: u32) -> Result<Option<TableName>> {
        ask!(self, source => source.name_of(id).await)
    }

    async fn reread(&self, table: &TableSchema, row: &Row, xid: u32) -> Result<Reread> {
        ask!(self, source => source.reread(table, row, xid).await)
    }
}

impl Snapshot for AnySnapshot {
    type Stream = AnyStream;

    fn position(&self) -> &Position {
        ask!(self, snapshot => snapshot.position())
    }

    fn waits_for(&self, table: &TableName) -> Option<String> {
        ask!(self, snapshot => snapshot.waits_for(table))
    }

    async fn parts(&self, table: &Arc<TableSchema>, chunk_rows: u64) -> Result<Vec<Part>> {
        ask!(self, snapshot => snapshot.parts(table, chunk_rows).await)
    }

    async fn key_bounds(&self, table: &Arc<TableSchema>, chunk_rows: u64) -> Result<Option<(String, Vec<i64>)>> {
        ask!(self, snapshot => snapshot.key_bounds(table, chunk_rows).await)
    }

    fn key_range(&self, table: &Arc<TableSchema>, column: &str, chunk: &Chunk) -> Part {
        ask!(self, snapshot => snapshot.key_range(table, column, chunk))
    }

    fn copy_formats(&self) -> &'static [CopyFormat] {
        ask!(self, snapshot => snapshot.copy_formats())
    }

    async fn copy(&self, part: &Part, columns: &[usize], format: CopyFormat) -> Result<CopyStream> {
        ask!(self, snapshot => snapshot.copy(part, columns, format).await)
    }

    async fn follow(&self, tables: &[Arc<TableSchema>], budget: &Budget, binary: bool) -> Result<AnyStream> {
        Ok(wrap!(self, AnyStream, snapshot => snapshot.follow(tables, budget, binary).await?))
    }
}

impl ChangeStream for AnyStream {
    async fn next(&mut self) -> Result<StreamItem> {
        ask!(self, stream => stream.next().await)
    }

    fn confirm(&self, durable: &Durable<Position>) {
        ask!(self, stream => stream.confirm(durable));
    }

    async fn close(self) -> Result<()> {
        ask!(self, stream => stream.close().await)
    }
}
