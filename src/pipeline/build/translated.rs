//! The target's schema where the source is of another engine: made of its tables' definitions.
//!
//! In: the plan, and the [`Script`] that [`crate::schema::mapping`] makes of the source's catalogue. Out: what
//! [`super::SchemaWork`] makes between two Postgres servers, in the same steps, with the same promises; what has no
//! equivalent is listed and not made.
//!
//! A table that is there already is taken as it is. It gets the keys, indexes and constraints that it lacks, but for those
//! that only make sense for columns of the type they would have been given: these are named in the log.
//!
//! A source may hold rows that break its own constraints (`foreign_key_checks = 0`). Such a constraint is made `NOT VALID`:
//! it holds for every new row, and the log says what it found.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::errors::{already_there, explain};
use super::some::{PATIENCE, patiently};
use super::workers::{Statement as Work, side_by_side};
use super::{create, create_schema, existing, interrupted, late, prepare_session};
use crate::config::Config;
use crate::error::{Context, Error, Kind, Result};
use crate::pipeline::mapped;
use crate::pipeline::progress::Progress;
use crate::postgres::{Client, ConnInfo, connect};
use crate::schema::mapping::{Mapping, PgType, ddl};
use crate::schema::{Column, Object, Script, Statement, TableName};
use crate::target::postgres::late::{Late, count, role_may_switch_off};
use crate::target::state::State;
use crate::transform::{Plan, TablePlan};

/// The schema work of one run.
pub struct Translated<'a> {
    config: &'a Config,
    plan: &'a Plan,
    progress: &'a Arc<Progress>,
    /// Read from the source once, when first needed.
    read: OnceCell<FromSource>,
}

struct FromSource {
    script: Script,
    mapping: Mapping,
}

impl<'a> Translated<'a> {
    /// The work for `plan`. Connects to nothing yet.
    pub fn new(config: &'a Config, plan: &'a Plan, progress: &'a Arc<Progress>) -> Self {
        Translated { config, plan, progress, read: OnceCell::new() }
    }

    /// Makes the tables and all they need, unless every table exists.
    pub async fn create_tables(&self, halt: &CancellationToken) -> Result<()> {
        let client = self.target().await?;
        existing::refuse_firing_triggers(&client, self.plan).await?;
        let read = self.read().await?;
        let there = self.existing_tables(&client, self.plan).await?;
        if self.plan.tables().all(|table| there.contains(&table.shaped.name)) {
            tracing::info!("all tables exist at the target: nothing is created before the copy");
            return Ok(());
        }
        for line in self.not_carried().await? {
            tracing::info!("not carried over: {line}");
        }
        self.create(&client, &read.script, &|statement| !is_there(statement, &there), halt).await
    }

    /// Makes those of these tables that are missing, and what they need. What exists is not touched.
    pub async fn create_some(&self, tables: &HashSet<TableName>, halt: &CancellationToken) -> Result<()> {
        let client = self.target().await?;
        let wanted = self.plan.only(|name| tables.contains(name));
        let there = self.existing_tables(&client, &wanted).await?;
        if wanted.tables().all(|table| there.contains(&table.shaped.name)) {
            return Ok(());
        }
        let is_one = |of: &TableName| tables.contains(of);
        let new = |statement: &Statement| statement.of.as_ref().is_none_or(is_one) && !is_there(statement, &there);
        self.create(&client, &self.read().await?.script, &new, halt).await
    }

    async fn create(
        &self,
        client: &Client,
        script: &Script,
        wanted: &(dyn Fn(&Statement) -> bool + Sync),
        halt: &CancellationToken,
    ) -> Result<()> {
        let work = async {
            prepare_session(client, &self.settings(client).await?).await?;
            // All in one transaction: a crash leaves nothing behind that would look like a schema somebody made by hand.
            client.batch_execute("BEGIN").await?;
            for statement in script.before.iter().filter(|statement| wanted(statement)) {
                if statement.object == Object::Schema {
                    create_schema(client, &statement.name).await?;
                    continue;
                }
                let kind = statement.object.to_string().to_uppercase();
                create(client, &kind, &statement.sql, &statement.label()).await?;
            }
            client.batch_execute("COMMIT").await?;
            Ok::<_, Error>(())
        };
        tokio::select! {
            biased;
            () = halt.cancelled() => Err(interrupted("creating the tables")),
            made = work => made.context("creating the tables at the target"),
        }
    }

    /// Builds what is missing: keys first, then the other indexes, then the statistics.
    pub async fn build_keys_and_indexes(&self, halt: &CancellationToken) -> Result<()> {
        let script = &self.read().await?.script;
        self.progress.set_indexes(0, (script.keys.len() + script.indexes.len() + script.after.len()) as u64);
        self.build(self.plan, Some(self.progress), halt).await
    }

    /// The same for these tables, which nobody writes to but us.
    pub async fn index_some(&self, tables: &HashSet<TableName>, halt: &CancellationToken) -> Result<()> {
        self.build(&self.plan.only(|name| tables.contains(name)), None, halt).await
    }

    async fn build(&self, plan: &Plan, progress: Option<&Arc<Progress>>, halt: &CancellationToken) -> Result<()> {
        let FromSource { script, .. } = self.read().await?;
        let client = self.target().await?;
        let settings = self.settings(&client).await?;
        let info = ConnInfo::parse(&self.config.target.url)?;
        let workers = self.config.snapshot.workers;
        let types = self.types(&client).await?;
        for stage in [&script.keys, &script.indexes] {
            let ours = stage.iter().filter(|statement| statement.concerns(|name| plan.get(name).is_some()));
            let ours: Vec<&Statement> = ours.filter(|statement| self.fits(statement, &types)).collect();
            let work = ours.iter().map(|statement| Work { label: statement.label(), sql: statement.sql.clone() });
            side_by_side(&info, work.collect(), &settings, workers, progress, halt).await?;
            made(&client, &ours).await?;
        }
        let analyze = plan.tables().map(|table| Work {
            label: format!("statistics of {}", table.shaped.name),
            sql: format!("ANALYZE {}", table.shaped.name.sql()),
        });
        side_by_side(&info, analyze.collect(), &settings, workers, None, halt).await
    }

    /// Makes CHECKs and foreign keys, without what has to do with a table of `absent`. Only once the target holds one
    /// consistent state of the source, and while nothing is applied.
    pub async fn finish_constraints(&self, absent: &HashSet<TableName>, halt: &CancellationToken) -> Result<()> {
        let FromSource { script, .. } = self.read().await?;
        if self.progress.view().indexes_total == 0 {
            let built = script.keys.len() + script.indexes.len();
            self.progress.set_indexes(built as u64, (built + script.after.len()) as u64);
        }
        let wanted = |statement: &Statement| !statement.concerns(|name| absent.contains(name));
        self.finish(&wanted, None, halt).await
    }

    /// The same for these tables, while others are written to.
    pub async fn finish_some(
        &self,
        tables: &HashSet<TableName>,
        absent: &HashSet<TableName>,
        halt: &CancellationToken,
    ) -> Result<()> {
        let wanted = |statement: &Statement| {
            statement.concerns(|name| tables.contains(name)) && !statement.concerns(|name| absent.contains(name))
        };
        self.finish(&wanted, Some(PATIENCE), halt).await
    }

    async fn finish(
        &self,
        wanted: &(dyn Fn(&Statement) -> bool + Sync),
        patience: Option<&str>,
        halt: &CancellationToken,
    ) -> Result<()> {
        let FromSource { script, .. } = self.read().await?;
        let client = self.target().await?;
        let acting = !role_may_switch_off(&client).await?;
        let types = self.types(&client).await?;
        let wanted = script.after.iter().filter(|statement| wanted(statement) && self.fits(statement, &types));
        let (late, now): (Vec<&Statement>, Vec<&Statement>) =
            wanted.partition(|statement| acting && statement.object == Object::ForeignKey);
        let late: Vec<Late> = late.into_iter().map(late::foreign_key).collect::<Result<_>>()?;
        if let Some(words) = count(&late) {
            tracing::info!("session_replication_role is not permitted at the target: {words} are made at the cutover");
            let target = ConnInfo::parse(&self.config.target.url)?;
            State::new(target, self.config.migration.name.as_str()).record_late(&late).await?;
            late.iter().map(Late::label).for_each(|label| self.progress.index_ended(&label, true));
        }
        prepare_session(&client, &self.settings(&client).await?).await?;
        if let Some(patience) = patience {
            client.batch_execute(patience).await.context("limiting the wait for locks")?;
        }
        for statement in now {
            let label = statement.label();
            self.progress.index_begun(&label);
            let made = tokio::select! {
                biased;
                () = halt.cancelled() => Err(interrupted("making constraints")),
                made = add_constraint(&client, statement) => made.with_context(|| format!("making {label}")),
            };
            self.progress.index_ended(&label, made.is_ok());
            made?;
        }
        Ok(())
    }

    /// What the target will not have, in words.
    pub async fn not_carried(&self) -> Result<Vec<String>> {
        let mut lines = self.read().await?.script.not_carried.clone();
        lines.push("accounts and their rights".to_owned());
        Ok(lines)
    }

    /// The statements, by the stages of a migration.
    pub async fn script(&self) -> Result<&Script> {
        Ok(&self.read().await?.script)
    }

    /// Names and types at the target.
    pub async fn mapping(&self) -> Result<&Mapping> {
        Ok(&self.read().await?.mapping)
    }

    /// Everything that would be run at the target, as one script.
    pub async fn ddl_text(&self) -> Result<String> {
        Ok(self.read().await?.script.to_string())
    }

    async fn target(&self) -> Result<Client> {
        let name = &self.config.migration.name;
        connect(&ConnInfo::parse(&self.config.target.url)?, &format!("cutwater_{name}")).await
    }

    async fn read(&self) -> Result<&FromSource> {
        let read = async {
            let found = mapped::Definitions::read(self.config, self.plan).await?;
            let mut mapping = found.mapping(self.config)?;
            // The names of the plan, which the rules chose.
            self.plan.mapped(&mut mapping)?;
            let nullable_dates = self.config.values.zero_date == crate::config::ZeroDate::Null;
            let script = ddl::postgres(&found.tables, &found.others, &mapping, nullable_dates);
            Ok::<_, Error>(FromSource { script, mapping })
        };
        self.read.get_or_try_init(|| read).await
    }

    /// How statements are read: names are written with their schemas, but for types that an extension brought.
    async fn settings(&self, client: &Client) -> Result<Vec<String>> {
        let sql = "SELECT coalesce(string_agg(DISTINCT quote_ident(n.nspname), ', '), '') FROM pg_extension e
                     JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname IN ('citext', 'postgis')";
        let extensions: String =
            client.query_one(sql, &[]).await.context("looking for extensions at the target")?.get(0);
        let comma = if extensions.is_empty() { "" } else { ", " };
        Ok(vec![
            format!("SET search_path = public{comma}{extensions}"),
            "SET standard_conforming_strings = on".to_owned(),
        ])
    }

    async fn existing_tables(&self, client: &Client, plan: &Plan) -> Result<HashSet<TableName>> {
        let mapping = &self.read().await?.mapping;
        let type_of = |table: &TablePlan, column: &Column| {
            let mapped = mapping.tables.get(&table.source.name);
            let mapped = mapped.and_then(|mapped| mapped.columns.iter().find(|other| other.name == column.name));
            mapped.map_or_else(String::new, |mapped| mapped.ty.to_string())
        };
        existing::tables(client, plan, &type_of).await
    }

    /// The types of the columns as they are at the target, by table and column there.
    async fn types(&self, client: &Client) -> Result<HashMap<(TableName, String), String>> {
        let (schemas, names): (Vec<&str>, Vec<&str>) =
            self.plan.tables().map(|t| (t.shaped.name.schema.as_str(), t.shaped.name.table.as_str())).unzip();
        let rows = client.query(include_str!("types.sql"), &[&schemas, &names]).await;
        let rows = rows.context("looking at the columns of the target's tables")?;
        Ok(rows
            .iter()
            .map(|row| ((TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1)), row.get(2)), row.get(3)))
            .collect())
    }

    /// Whether the statement makes sense for the columns as they are at the target; if not, that is told.
    fn fits(&self, statement: &Statement, types: &HashMap<(TableName, String), String>) -> bool {
        let (Some(of), Some(on)) = (&statement.of, &statement.on) else { return true };
        let mapped = self.read.get().and_then(|read| read.mapping.tables.get(of));
        for name in &statement.typed {
            let column = mapped.and_then(|table| table.columns.iter().find(|column| column.name == *name));
            let there = types.get(&(on.clone(), name.clone()));
            let (Some(column), Some(there)) = (column, there) else { continue };
            // citext may be public.citext; a type that was made for an enum is none of those that have a word.
            let is = PgType::parse(there.rsplit('.').next().unwrap_or_default()).unwrap_or(PgType::Enum);
            let fits = match statement.object {
                Object::ForeignKey => ddl::comparable(&is, &column.ty),
                _ => is == column.ty,
            };
            if !fits {
                let label = statement.label();
                tracing::warn!(
                    "{label} is left to you: {on}.{name} is {there} there, and would have become {}",
                    column.ty
                );
                return false;
            }
        }
        true
    }
}

/// Whether a statement is about a table that was made before.
fn is_there(statement: &Statement, there: &HashSet<TableName>) -> bool {
    statement.on.as_ref().is_some_and(|on| there.contains(on))
}

/// An error if one of these keys and indexes is not there although it was found to be: something else has its name.
async fn made(client: &Client, statements: &[&Statement]) -> Result<()> {
    let named = |statement: &&&Statement| statement.object != Object::PrimaryKey;
    let statements: Vec<_> = statements.iter().filter(named).filter_map(|s| Some((s, s.on.as_ref()?))).collect();
    let schemas: Vec<&str> = statements.iter().map(|(_, on)| on.schema.as_str()).collect();
    let tables: Vec<&str> = statements.iter().map(|(_, on)| on.table.as_str()).collect();
    let names: Vec<&str> = statements.iter().map(|(statement, _)| statement.name.as_str()).collect();
    let doing = "looking for the indexes that were made";
    let rows = client.query(include_str!("indexes_missing.sql"), &[&schemas, &tables, &names]).await.context(doing)?;
    let Some(place) = rows.first().and_then(|row| usize::try_from(row.get::<_, i64>(0)).ok()) else { return Ok(()) };
    let Some((statement, on)) = statements.get(place - 1) else { return Ok(()) };
    let why = format!("{} was not made: something else in the schema {:?} has its name", statement.label(), on.schema);
    Err(Error::new(Kind::Schema, why).fix(format!("rename that, or make the index yourself: {}", statement.sql)))
}

/// Makes a CHECK or a foreign key. First for new rows alone, under a lock that is held for a moment; then the rows that are
/// there are looked at, while others read and write.
async fn add_constraint(client: &Client, statement: &Statement) -> Result<()> {
    let Some(on) = &statement.on else { return Ok(()) };
    let add = statement.sql.trim_end_matches(';');
    let kind = statement.object.to_string();
    match patiently(client, &format!("{add} NOT VALID")).await {
        Err(error) if !already_there(&error, add) => return Err(explain(error, &kind)),
        _ => {}
    }
    let name = crate::schema::Ident(&statement.name);
    match patiently(client, &format!("ALTER TABLE {} VALIDATE CONSTRAINT {name}", on.sql())).await {
        Err(error) if error.code().is_some_and(|code| code.code().starts_with("23")) => {
            let found = Error::from(error);
            tracing::warn!("{} holds for new rows only: {}", statement.label(), found.why());
            Ok(())
        }
        Err(error) => Err(explain(error, &kind)),
        Ok(()) => Ok(()),
    }
}
