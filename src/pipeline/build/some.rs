//! The same work for some tables only, while the others are followed: tables that join the migration late, or are copied
//! again.
//!
//! In: the names of those tables at the source. Out: they have at the target what they would have had from the start. What
//! is different: applying goes on meanwhile, so nothing here may hold a lock for long that an applier waits for. Every
//! statement that locks a table which is followed waits for its lock a moment only, lets go and asks again; and a foreign
//! key is made without looking at the rows and validated after that, which writers do not notice.

use std::collections::HashSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::errors::{already_there, explain};
use super::workers::{Statement, side_by_side};
use super::{SchemaWork, interrupted, late, prepare_session};
use crate::error::{Context, Error, Result};
use crate::pipeline::dump::DumpEntry;
use crate::postgres::{Client, ConnInfo};
use crate::schema::{TableName, ddl};
use crate::target::state::State;

/// How long a lock on a table that is followed is waited for: less than `deadlock_timeout`, so that it is never the applier
/// who is ended.
pub(super) const PATIENCE: &str = "SET lock_timeout = '500ms'";
/// How long it is left to the others after that.
const PAUSE: Duration = Duration::from_millis(300);

/// Kinds of entries that change the table they name first.
const ABOUT_A_TABLE: [&str; 7] =
    ["TABLE", "DEFAULT", "COMMENT", "SEQUENCE", "SEQUENCE OWNED BY", "CHECK CONSTRAINT", "STATISTICS"];

impl SchemaWork<'_> {
    /// Makes those of these tables that are missing, and what they need. What exists is not touched.
    pub async fn create_some(&self, tables: &HashSet<TableName>, halt: &CancellationToken) -> Result<()> {
        let client = self.target().await?;
        let some = SchemaWork::new(self.config, self.plan, self.progress);
        let wanted = self.plan.only(|name| tables.contains(name));
        let existing = SchemaWork { plan: &wanted, ..some }.existing_tables(&client).await?;
        if wanted.tables().all(|table| existing.contains(&table.shaped.name)) {
            return Ok(());
        }
        let source = self.read().await?;
        let rows =
            client.query(include_str!("relations.sql"), &[]).await.context("looking at the target's catalogue")?;
        let there: HashSet<TableName> =
            rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect();
        let new = |entry: &DumpEntry| {
            let about = ABOUT_A_TABLE.contains(&entry.kind.as_str());
            !(about && entry.names().first().is_some_and(|name| there.contains(name)))
        };
        let existing = existing_shapes(self, &there);
        let made = self.create(&client, source, &existing, &new);
        tokio::select! {
            biased;
            () = halt.cancelled() => Err(interrupted("creating the tables")),
            made = made => made.context("creating the tables at the target"),
        }
    }

    /// Builds keys, indexes and statistics of these tables, which nobody writes to but us.
    pub async fn index_some(&self, tables: &HashSet<TableName>, halt: &CancellationToken) -> Result<()> {
        let carried = self.carried_or_nothing().await?;
        let is_one = |name: &TableName| tables.contains(name);
        let of = |entries: &[DumpEntry]| -> Vec<Statement> {
            entries.iter().filter(|entry| carried.is_of(entry, is_one)).map(Statement::of).collect()
        };
        let mut keys = of(&carried.keys);
        keys.extend(self.reshaped().filter(|table| is_one(&table.source.name)).filter_map(|table| {
            let label = format!("primary key of {}", table.shaped.name);
            ddl::add_primary_key(&table.shaped).map(|sql| Statement { label, sql })
        }));
        let attaches = carried.attaches_of(is_one).into_iter().map(Statement::of).collect();
        let analyze = self.plan.tables().filter(|table| is_one(&table.source.name)).map(|table| Statement {
            label: format!("statistics of {}", table.shaped.name),
            sql: format!("ANALYZE {}", table.shaped.name.sql()),
        });
        let info = ConnInfo::parse(&self.config.target.url)?;
        let workers = self.config.snapshot.workers;
        for statements in [keys, of(&carried.indexes), attaches, analyze.collect()] {
            side_by_side(&info, statements, &carried.settings, workers, None, halt).await?;
        }
        Ok(())
    }

    /// Makes foreign keys, triggers and the rest that these tables have a part in, unless a table of `absent` has one too.
    /// Only once the target holds one consistent state of the source.
    pub async fn finish_some(
        &self,
        tables: &HashSet<TableName>,
        absent: &HashSet<TableName>,
        halt: &CancellationToken,
    ) -> Result<()> {
        let carried = self.carried_or_nothing().await?;
        let entries = carried.after.iter().filter(|entry| {
            carried.names_one(entry, |name| tables.contains(name))
                && !carried.names_one(entry, |name| absent.contains(name))
        });
        let entries: Vec<DumpEntry> = entries.cloned().collect();
        let client = self.target().await?;
        let (now, late) = late::part(&client, &entries).await?;
        if !late.is_empty() {
            let target = ConnInfo::parse(&self.config.target.url)?;
            State::new(target, self.config.migration.name.as_str()).record_late(&late).await?;
        }
        prepare_session(&client, &carried.settings).await?;
        client.batch_execute(PATIENCE).await.context("limiting the wait for locks")?;
        for entry in now {
            tokio::select! {
                biased;
                () = halt.cancelled() => return Err(interrupted("making foreign keys and triggers")),
                made = finish_one(&client, entry) => made.with_context(|| format!("making {}", entry.label()))?,
            }
        }
        Ok(())
    }
}

/// The names of the plan's tables at the target, of those relations that are there.
fn existing_shapes(work: &SchemaWork<'_>, there: &HashSet<TableName>) -> HashSet<TableName> {
    work.plan.tables().map(|table| table.shaped.name.clone()).filter(|name| there.contains(name)).collect()
}

async fn finish_one(client: &Client, entry: &DumpEntry) -> Result<()> {
    let statement = entry.sql.trim().trim_end_matches(';');
    let foreign = entry.kind == "FK CONSTRAINT" && !entry.says(&["NOT", "VALID"]);
    if foreign && let Some((alter, name)) = constraint(entry) {
        match patiently(client, &format!("{statement} NOT VALID")).await {
            Ok(()) => {
                return patiently(client, &format!("{alter} VALIDATE CONSTRAINT {name}")).await.map_err(failed(entry));
            }
            Err(error) if already_there(&error, statement) => return Ok(()),
            // A partitioned table takes no such key before 18: it is made in one go.
            Err(error) if error.code().is_some_and(|code| ["42809", "0A000"].contains(&code.code())) => {}
            Err(error) => return Err(explain(error, &entry.kind)),
        }
    }
    match patiently(client, &entry.sql).await {
        Err(error) if !already_there(&error, &entry.sql) => Err(explain(error, &entry.kind)),
        _ => Ok(()),
    }
}

fn failed(entry: &DumpEntry) -> impl Fn(tokio_postgres::Error) -> Error {
    |error| explain(error, &entry.kind)
}

/// `ALTER TABLE ONLY "a"."b"` and `"c"` of `ALTER TABLE ONLY "a"."b" ADD CONSTRAINT "c" FOREIGN KEY …`.
fn constraint(entry: &DumpEntry) -> Option<(&str, &str)> {
    let statement = entry.sql.find("ALTER TABLE").map(|at| &entry.sql[at..])?;
    let (alter, rest) = statement.split_once("ADD CONSTRAINT")?;
    let (name, _) = rest.split_once("FOREIGN KEY")?;
    Some((alter.trim(), name.trim()))
}

/// Runs a statement; a lock that is not to be had in a moment is asked for again and again.
pub(super) async fn patiently(client: &Client, sql: &str) -> Result<(), tokio_postgres::Error> {
    loop {
        match client.batch_execute(sql).await {
            Err(error) if error.code().is_some_and(|code| ["55P03", "40P01"].contains(&code.code())) => {
                tokio::time::sleep(PAUSE).await;
            }
            result => return result,
        }
    }
}
