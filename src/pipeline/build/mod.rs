//! The target's schema, around the load: tables before it, keys and indexes after it, constraints once it is consistent.
//!
//! In: the source's schema ([`crate::pipeline::dump`]) and the plan. Out: a target that has what the source has, of the
//! tables that are migrated, in steps which `run` takes at the right moments:
//!
//! | step | makes | if it is interrupted |
//! |---|---|---|
//! | [`SchemaWork::create_tables`] | schemas, types, functions, tables, views, sequences | one transaction: all or nothing is there |
//! | [`SchemaWork::build_keys_and_indexes`] | keys, then indexes, side by side; statistics | what is there is skipped |
//! | [`SchemaWork::finish_constraints`] | foreign keys, triggers, rules, policies, comments | what is there is skipped |
//! | [`SchemaWork::fill_views`] | the rows of materialized views | what is filled is skipped |
//!
//! Where the role may not set `session_replication_role`, foreign keys, triggers and rules are not made here at all but
//! written down for the cutover (`late`).
//!
//! What exists already is taken as it is: if all tables do, somebody made the schema and nothing is created before the
//! load. Nothing is ever dropped or altered that was not made here. What can go wrong: a table that lacks a column, a
//! trigger that would fire while changes are applied (TRAPS 15), an extension or a privilege missing at the target.

mod absent;
mod errors;
mod existing;
mod late;
mod mysql;
mod reshaped;
mod some;
mod translated;
mod views;
mod workers;

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use self::absent::{Absent, joinable};
use self::errors::{already_there, explain};
use self::workers::{Statement, side_by_side};
use super::progress::Progress;
use crate::config::Config;
use crate::error::{Context, Error, Kind, Result};
use crate::pipeline::dump::{Carried, DumpEntry, PgDump};
use crate::postgres::{Client, ConnInfo, connect};
use crate::schema::{Ident, TableName, ddl};
use crate::target::postgres::late::{Late, count};
use crate::target::state::State;
use crate::transform::{Plan, TablePlan};

pub use self::mysql::Alike;
pub use self::translated::Translated;

/// The schema work of one run.
pub struct SchemaWork<'a> {
    config: &'a Config,
    plan: &'a Plan,
    progress: &'a Arc<Progress>,
    /// Read from the source once, when first needed.
    read: OnceCell<FromSource>,
}

/// What the source says.
struct FromSource {
    carried: Carried,
    /// `CREATE TABLE` of the tables that the rules reshape, with the name each makes.
    reshaped: Vec<(TableName, String)>,
}

impl<'a> SchemaWork<'a> {
    /// The work for `plan`. Connects to nothing yet.
    pub fn new(config: &'a Config, plan: &'a Plan, progress: &'a Arc<Progress>) -> Self {
        SchemaWork { config, plan, progress, read: OnceCell::new() }
    }

    /// Makes the tables and all they need, unless every table exists.
    pub async fn create_tables(&self, halt: &CancellationToken) -> Result<()> {
        let client = self.target().await?;
        let existing = self.existing_tables(&client).await?;
        existing::refuse_firing_triggers(&client, self.plan).await?;
        if self.plan.tables().all(|table| existing.contains(&table.shaped.name)) {
            tracing::info!("all tables exist at the target: nothing is created before the copy");
            return Ok(());
        }
        let source = self.read().await?;
        for line in self.not_carried().await? {
            tracing::info!("not carried over: {line}");
        }
        let work = self.create(&client, source, &existing, &|_| true);
        tokio::select! {
            biased;
            () = halt.cancelled() => Err(interrupted("creating the tables")),
            created = work => created.context("creating the tables at the target"),
        }
    }

    async fn create(
        &self,
        client: &Client,
        source: &FromSource,
        existing: &HashSet<TableName>,
        wanted: &(dyn Fn(&DumpEntry) -> bool + Sync),
    ) -> Result<()> {
        prepare_session(client, &source.carried.settings).await?;
        // All in one transaction: a crash leaves nothing behind that would look like a schema somebody made by hand.
        client.batch_execute("BEGIN").await?;
        for entry in source.carried.before.iter().filter(|entry| wanted(entry)) {
            create_one(client, entry).await?;
        }
        for (name, sql) in source.reshaped.iter().filter(|(name, _)| !existing.contains(name)) {
            create_schema(client, &name.schema).await?;
            client.batch_execute(sql).await.with_context(|| format!("table {name}"))?;
        }
        client.batch_execute("COMMIT").await?;
        Ok(())
    }

    /// Builds what is missing: keys first, then the other indexes, then the statistics.
    pub async fn build_keys_and_indexes(&self, halt: &CancellationToken) -> Result<()> {
        let carried = self.carried_or_nothing().await?;
        let target = self.target().await?;
        let absent = Absent::find(&target, carried).await?;
        let mut keys: Vec<Statement> = absent.leave_out(&carried.keys).map(Statement::of).collect();
        keys.extend(self.reshaped().filter_map(|table| {
            let label = format!("primary key of {}", table.shaped.name);
            ddl::add_primary_key(&table.shaped).map(|sql| Statement { label, sql })
        }));
        let indexes: Vec<Statement> = absent.leave_out(&carried.indexes).map(Statement::of).collect();
        let total = keys.len() + indexes.len() + carried.attaches.len() + carried.after.len();
        self.progress.set_indexes(0, total as u64);
        self.run(keys, &carried.settings, self.config.snapshot.workers, halt).await?;
        self.run(indexes, &carried.settings, self.config.snapshot.workers, halt).await?;
        let attaches = joinable(&target, &carried.attaches).await?.into_iter().map(Statement::of).collect();
        // An attach locks parent and child; the order of the dump is from the leaves up.
        self.run(attaches, &carried.settings, 1, halt).await?;
        let analyze = self.plan.tables().map(|table| Statement {
            label: format!("statistics of {}", table.shaped.name),
            sql: format!("ANALYZE {}", table.shaped.name.sql()),
        });
        let info = ConnInfo::parse(&self.config.target.url)?;
        side_by_side(&info, analyze.collect(), &[], self.config.snapshot.workers, None, halt).await
    }

    /// Makes foreign keys, triggers and the rest, without what has to do with tables of `absent`: a foreign key to one
    /// would find no rows. Only once the target holds one consistent state of the source, and while nothing is applied:
    /// each locks its tables.
    pub async fn finish_constraints(&self, absent: &HashSet<TableName>, halt: &CancellationToken) -> Result<()> {
        let carried = self.carried_or_nothing().await?;
        let view = self.progress.view();
        if view.indexes_total == 0 {
            let built = carried.keys.len() + carried.indexes.len() + carried.attaches.len();
            self.progress.set_indexes(built as u64, (built + carried.after.len()) as u64);
        }
        let target = self.target().await?;
        let missing = Absent::find(&target, carried).await?;
        let after =
            missing.leave_out(&carried.after).filter(|entry| !carried.names_one(entry, |name| absent.contains(name)));
        let after: Vec<DumpEntry> = after.cloned().collect();
        let (now, late) = late::part(&target, &after).await?;
        if let Some(words) = count(&late) {
            tracing::info!("session_replication_role is not permitted at the target: {words} are made at the cutover");
        }
        if !late.is_empty() {
            let target = ConnInfo::parse(&self.config.target.url)?;
            State::new(target, self.config.migration.name.as_str()).record_late(&late).await?;
            // Written down is all that is done about them here.
            late.iter().map(Late::label).for_each(|label| self.progress.index_ended(&label, true));
        }
        self.run(now.into_iter().map(Statement::of).collect(), &carried.settings, 1, halt).await
    }

    /// What the target will not have, in words.
    pub async fn not_carried(&self) -> Result<Vec<String>> {
        let mut lines = self.read().await?.carried.not_carried.clone();
        lines.push("owners, grants, default privileges, security labels, tablespaces".to_owned());
        Ok(lines)
    }

    /// Everything that would be run at the target, as one script.
    pub async fn ddl_text(&self) -> Result<String> {
        let source = self.read().await?;
        let mut text = source.carried.script();
        for (table, (_, create)) in self.reshaped().zip(&source.reshaped) {
            text.push_str(&format!("\nCREATE SCHEMA IF NOT EXISTS {};\n{create}\n", Ident(&table.shaped.name.schema)));
            text.push_str(&ddl::add_primary_key(&table.shaped).map(|sql| sql + "\n").unwrap_or_default());
        }
        Ok(text)
    }

    async fn run(
        &self,
        statements: Vec<Statement>,
        settings: &[String],
        workers: usize,
        halt: &CancellationToken,
    ) -> Result<()> {
        let info = ConnInfo::parse(&self.config.target.url)?;
        side_by_side(&info, statements, settings, workers, Some(self.progress), halt).await
    }

    fn reshaped(&self) -> impl Iterator<Item = &Arc<TablePlan>> {
        self.plan.tables().filter(|table| table.reshaped)
    }

    async fn target(&self) -> Result<Client> {
        let name = &self.config.migration.name;
        connect(&ConnInfo::parse(&self.config.target.url)?, &format!("cutwater_{name}")).await
    }

    async fn read(&self) -> Result<&FromSource> {
        self.read.get_or_try_init(|| self.read_source()).await
    }

    async fn read_source(&self) -> Result<FromSource> {
        let url = &self.config.source.url;
        let client = connect(&ConnInfo::parse(url)?, &format!("cutwater_{}", self.config.migration.name)).await?;
        let version: i32 = client
            .query_one("SELECT current_setting('server_version_num')::int", &[])
            .await
            .context("asking the source's version")?
            .get(0);
        let version = u32::try_from(version / 10_000).unwrap_or(0);
        let pg_dump = PgDump::find(version).await?;
        // As pg_dump is asked to: what is a column is told by where it stands.
        client.batch_execute("SET quote_all_identifiers = on").await.context("preparing to read the schema")?;
        let (mut tables, mut not_carried) = (Vec::new(), Vec::new());
        for table in self.reshaped() {
            tables.push(reshaped::look(&client, table).await?);
        }
        let plan = reshaped::with_generated(self.plan, &self.config.transform, &tables, &mut not_carried);
        let mut carried = Carried::sort(pg_dump.schema(url, version).await?, &plan)?;
        let create = |table| reshaped::create(&plan, table, &mut not_carried);
        let made: Vec<String> = tables.iter().map(create).collect();
        carried.not_carried.extend(not_carried);
        let names = self.reshaped().map(|table| table.shaped.name.clone());
        Ok(FromSource { carried, reshaped: names.zip(made).collect() })
    }

    /// The carried entries; none if there is no `pg_dump`: then the tables were made by hand, and with them their keys.
    async fn carried_or_nothing(&self) -> Result<&Carried> {
        static NOTHING: Carried = Carried::nothing();
        match self.read().await {
            Ok(source) => Ok(&source.carried),
            Err(error) if error.kind() == Kind::Config => {
                tracing::warn!("keys, indexes and constraints stay as they are at the target: {}", error.message());
                Ok(&NOTHING)
            }
            Err(error) => Err(error),
        }
    }

    /// Which of the plan's tables exist at the target. Refuses one that lacks a column.
    async fn existing_tables(&self, client: &Client) -> Result<HashSet<TableName>> {
        existing::tables(client, self.plan, &|_, column| column.ty.display.clone()).await
    }
}

/// Makes one entry inside the open transaction, or finds it there.
async fn create_one(client: &Client, entry: &DumpEntry) -> Result<()> {
    if entry.kind == "TABLE ATTACH" && is_attached(client, entry).await? {
        return Ok(());
    }
    create(client, &entry.kind, &entry.sql, &entry.label()).await
}

/// Runs one statement inside the open transaction; what it makes may be there.
async fn create(client: &Client, kind: &str, statement: &str, label: &str) -> Result<()> {
    let sql = format!("SAVEPOINT entry;\n{statement}\n;RELEASE SAVEPOINT entry");
    let Err(error) = client.batch_execute(&sql).await else { return Ok(()) };
    let comment_on_foreign = kind == "COMMENT" && error.code().is_some_and(|code| code.code() == "42501");
    if already_there(&error, statement) || comment_on_foreign {
        tracing::debug!("{label}: {error}");
        client.batch_execute("ROLLBACK TO SAVEPOINT entry; RELEASE SAVEPOINT entry").await?;
        return Ok(());
    }
    Err(explain(error, kind).context(label.to_owned()))
}

/// Makes a schema unless it is there.
async fn create_schema(client: &Client, name: &str) -> Result<()> {
    // Not CREATE SCHEMA IF NOT EXISTS alone: it asks for the privilege even if the schema exists.
    let there = client.query_opt("SELECT 1 FROM pg_namespace WHERE nspname = $1", &[&name]).await?;
    if there.is_none() {
        let schema = Ident(name);
        client.batch_execute(&format!("CREATE SCHEMA {schema}")).await.with_context(|| format!("schema {schema}"))?;
    }
    Ok(())
}

async fn is_attached(client: &Client, entry: &DumpEntry) -> Result<bool> {
    let names = entry.names();
    let Some(child) = names.get(1) else { return Ok(false) };
    let sql = "SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = $1 AND c.relname = $2 AND c.relispartition";
    Ok(client.query_opt(sql, &[&child.schema, &child.table]).await?.is_some())
}

/// Brings a session into the state that the dump's statements expect.
async fn prepare_session(client: &Client, settings: &[String]) -> Result<()> {
    // A killed run's CREATE INDEX should end with its connection (Postgres 14).
    let own = [
        "SET search_path = ''",
        "SET default_table_access_method = heap",
        "SET client_connection_check_interval = '1s'",
    ];
    for setting in own.into_iter().chain(settings.iter().map(String::as_str)) {
        match client.batch_execute(setting).await {
            Err(error) if error.code().is_some_and(|code| matches!(code.code(), "42704" | "22023")) => {
                tracing::debug!("the target does not know {setting:?}: its version is older than pg_dump's");
            }
            result => result.with_context(|| setting.to_owned())?,
        }
    }
    client.batch_execute(include_str!("maintenance.sql")).await.context("setting maintenance_work_mem")
}

fn interrupted(doing: &str) -> Error {
    Error::new(Kind::Interrupted, format!("stopped while {doing}; the same command goes on with what is missing"))
}
