//! The target's schema between two MySQL or MariaDB servers: the source's own `SHOW CREATE TABLE`.
//!
//! In: the plan, and what the source says of its tables. Out: tables with their keys before the copy; the other indexes,
//! all of a table in one pass over its rows, after it, and foreign keys, which the rows are not held against. What is there is skipped by name. A statement commits by itself here, so an interruption leaves whole tables and
//! whole indexes, and the same command goes on with the others.
//!
//! Between the two flavours a definition is changed only where the other does not know something: a collation becomes the
//! nearest that it has, an index over an expression stays behind where there is none; both are listed. What else it does
//! not understand stops with the server's own words: make that table by hand, and it is taken as it is.
//!
//! Triggers stay behind, and are listed: the stream brings what the source's did (TRAPS 15), and MySQL has no switch that
//! keeps the target's from doing it again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::workers::{Builder, Statement as Work, built_by};
use super::{existing, interrupted};
use crate::config::Config;
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::show_create::{Kind as LineKind, Names, ShowCreate, with_collations, with_defaults_in_parentheses};
use crate::mysql::{MyConnInfo, MyIdent, Session, catalog, connect, my_table};
use crate::pipeline::mapped::Definitions;
use crate::pipeline::progress::Progress;
use crate::pipeline::tables::absent;
use crate::schema::{Object, Script, Statement, TableDefinition, TableName};
use crate::target::state::State;
use crate::transform::{Plan, TablePlan};

/// How long the lock of a table is waited for, in seconds, and how long it is left to the others after that.
const PATIENCE: &str = "SET lock_wait_timeout = 1";
const PAUSE: Duration = Duration::from_millis(300);

/// The schema work of one run.
pub struct Alike<'a> {
    config: &'a Config,
    plan: &'a Plan,
    progress: &'a Arc<Progress>,
    /// Read from both ends once, when first needed.
    read: OnceCell<Script>,
}

impl<'a> Alike<'a> {
    /// The work for `plan`. Connects to nothing yet.
    pub fn new(config: &'a Config, plan: &'a Plan, progress: &'a Arc<Progress>) -> Self {
        Alike { config, plan, progress, read: OnceCell::new() }
    }

    /// Makes the tables that are missing.
    pub async fn create_tables(&self, halt: &CancellationToken) -> Result<()> {
        self.create(self.plan, halt).await
    }

    /// Makes those of these tables that are missing.
    pub async fn create_some(&self, tables: &HashSet<TableName>, halt: &CancellationToken) -> Result<()> {
        self.create(&self.plan.only(|name| tables.contains(name)), halt).await
    }

    async fn create(&self, plan: &Plan, halt: &CancellationToken) -> Result<()> {
        let mut session = self.target().await?;
        let there = self.there(&mut session).await?;
        for table in plan.tables() {
            let Some(definition) = there.get(&table.shaped.name) else { continue };
            let has = |name: &str| definition.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
            existing::lacking(table, &has, &|_, column| column.ty.display.clone())?;
        }
        if plan.tables().all(|table| there.contains_key(&table.shaped.name)) {
            tracing::info!("all tables exist at the target: nothing is created before the copy");
            return Ok(());
        }
        let script = self.script().await?;
        for line in self.not_carried().await? {
            tracing::info!("not carried over: {line}");
        }
        let wanted = |statement: &&Statement| match (&statement.of, &statement.on) {
            (Some(of), Some(on)) => plan.get(of).is_some() && !there.contains_key(on),
            _ => true,
        };
        for statement in script.before.iter().filter(wanted) {
            tokio::select! {
                biased;
                () = halt.cancelled() => return Err(interrupted("creating the tables")),
                made = session.execute(&statement.sql) => {
                    made.map_err(|error| explain(error, statement)).context("creating the tables at the target")?;
                }
            }
        }
        Ok(())
    }

    /// Builds the indexes that are missing, and the statistics; then the foreign keys, before the first change is applied:
    /// what those do to other rows is not in every source's log, and is done at the target by what they say (TRAPS 14).
    pub async fn build_keys_and_indexes(&self, halt: &CancellationToken) -> Result<()> {
        self.build(self.plan, Some(self.progress), halt).await?;
        let state = State::new(self.info()?, self.config.migration.name.as_str());
        let absent = absent(&state.tables().await?);
        self.finish(&|statement| !statement.concerns(|name| absent.contains(name)), halt).await
    }

    /// The same for these tables, which nobody writes to but us.
    pub async fn index_some(&self, tables: &HashSet<TableName>, halt: &CancellationToken) -> Result<()> {
        self.build(&self.plan.only(|name| tables.contains(name)), None, halt).await
    }

    async fn build(&self, plan: &Plan, progress: Option<&Arc<Progress>>, halt: &CancellationToken) -> Result<()> {
        let script = self.script().await?;
        let there = self.there(&mut self.target().await?).await?;
        let missing = |statement: &&Statement| {
            let definition = statement.on.as_ref().and_then(|on| there.get(on));
            statement.concerns(|name| plan.get(name).is_some())
                && definition
                    .is_some_and(|table| !table.indexes.iter().any(|index| same_name(&index.name, &statement.name)))
        };
        let work = together(script.indexes.iter().filter(missing));
        if let Some(progress) = progress {
            progress.set_indexes(0, (work.len() + script.after.len()) as u64);
        }
        let builder = AtMySql { info: self.info()? };
        let workers = self.config.snapshot.workers;
        built_by(&builder, work, workers, progress, halt).await?;
        let analyze = plan.tables().map(|table| Work {
            label: format!("statistics of {}", table.shaped.name),
            sql: format!("ANALYZE NO_WRITE_TO_BINLOG TABLE {}", my_table(&table.shaped.name)),
        });
        built_by(&builder, analyze.collect(), workers, None, halt).await
    }

    /// Makes the foreign keys that are still missing, without those that have to do with a table of `absent`.
    pub async fn finish_constraints(&self, absent: &HashSet<TableName>, halt: &CancellationToken) -> Result<()> {
        let script = self.script().await?;
        if self.progress.view().indexes_total == 0 {
            self.progress.set_indexes(0, script.after.len() as u64);
        }
        self.finish(&|statement| !statement.concerns(|name| absent.contains(name)), halt).await
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
        self.finish(&wanted, halt).await
    }

    async fn finish(&self, wanted: &(dyn Fn(&Statement) -> bool + Sync), halt: &CancellationToken) -> Result<()> {
        let script = self.script().await?;
        let mut session = self.target().await?;
        let there = self.there(&mut session).await?;
        // The rows are as the source has them, orphans too, if there are any: they are not looked at again.
        session.execute("SET foreign_key_checks = 0").await?;
        session.execute(PATIENCE).await?;
        for statement in script.after.iter().filter(|statement| wanted(statement)) {
            let label = statement.label();
            let definition = statement.on.as_ref().and_then(|on| there.get(on));
            let has =
                |table: &TableDefinition| table.foreign_keys.iter().any(|key| same_name(&key.name, &statement.name));
            if definition.is_some_and(has) {
                self.progress.index_ended(&label, true);
                continue;
            }
            self.progress.index_begun(&label);
            let made = tokio::select! {
                biased;
                () = halt.cancelled() => Err(interrupted("making foreign keys")),
                made = patiently(&mut session, &statement.sql) => made.map_err(|error| explain(error, statement)),
            };
            self.progress.index_ended(&label, made.is_ok());
            made?;
        }
        Ok(())
    }

    /// What the target will not have, in words.
    pub async fn not_carried(&self) -> Result<Vec<String>> {
        let mut lines = self.script().await?.not_carried.clone();
        lines.push("accounts and their rights".to_owned());
        Ok(lines)
    }

    /// Everything that would be run at the target, as one script.
    pub async fn ddl_text(&self) -> Result<String> {
        Ok(self.script().await?.to_string())
    }

    /// The statements, by the stages of a migration.
    pub async fn script(&self) -> Result<&Script> {
        self.read.get_or_try_init(|| self.read_source()).await
    }

    async fn read_source(&self) -> Result<Script> {
        let found = Definitions::read(self.config, self.plan).await?;
        let mut source = self.session(&MyConnInfo::parse(&self.config.source.url)?).await?;
        source.execute("SET sql_quote_show_create = 1").await?;
        let mut target = self.target().await?;
        let collations = Collations::of(&mut target).await?;
        let mysql = !target.server().is_mariadb();
        let definitions: HashMap<&TableName, &TableDefinition> =
            found.tables.iter().map(|definition| (&definition.table.name, definition)).collect();
        let mut writer = Writer { script: Script::default(), plan: self.plan, definitions, collations, mysql };
        let databases: BTreeSet<&str> = self.plan.tables().map(|table| table.shaped.name.schema.as_str()).collect();
        for database in databases {
            let sql = format!("CREATE DATABASE IF NOT EXISTS {}", MyIdent(database));
            writer.script.before.push(statement(Object::Schema, database, None, sql + ";"));
        }
        for table in self.plan.tables() {
            let name = &table.source.name;
            let rows = source.rows(format!("SHOW CREATE TABLE {}", my_table(name))).await;
            let rows = rows.with_context(|| format!("reading the definition of {name}"))?;
            let text = rows.into_iter().next().and_then(|row| row.into_iter().nth(1).flatten());
            let parsed = text.as_deref().and_then(ShowCreate::parse).ok_or_else(|| {
                Error::new(Kind::Protocol, format!("the source's definition of {name} is not understood"))
            })?;
            writer.table(table, &parsed);
        }
        for other in &found.others {
            let why = match other.kind.as_str() {
                "trigger" => "what it does comes with the stream; make it at the target once that is live",
                _ => "make it at the target by its own SHOW CREATE",
            };
            writer.script.not_carried.push(format!("{} {}: {why}", other.kind, other.name));
        }
        Ok(writer.script)
    }

    fn info(&self) -> Result<MyConnInfo> {
        MyConnInfo::parse(&self.config.target.url)
    }

    async fn target(&self) -> Result<Session> {
        self.session(&self.info()?).await
    }

    async fn session(&self, info: &MyConnInfo) -> Result<Session> {
        connect(info, &format!("cutwater_{}", self.config.migration.name)).await
    }

    /// The target's tables in the databases of the plan.
    async fn there(&self, session: &mut Session) -> Result<HashMap<TableName, TableDefinition>> {
        let databases: BTreeSet<String> = self.plan.tables().map(|table| table.shaped.name.schema.clone()).collect();
        let databases: Vec<String> = databases.into_iter().collect();
        let found = catalog::read(session, &databases).await.context("looking for the tables at the target")?;
        Ok(found.tables.into_iter().map(|table| (table.table.name.clone(), table)).collect())
    }
}

/// Names of indexes and keys are compared regardless of case by every server.
fn same_name(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}

fn statement(object: Object, name: &str, table: Option<&TablePlan>, sql: String) -> Statement {
    Statement {
        object,
        name: name.to_owned(),
        of: table.map(|table| table.source.name.clone()),
        on: table.map(|table| table.shaped.name.clone()),
        refers: None,
        typed: Vec::new(),
        sql,
    }
}

/// All indexes of a table in one statement, but for full-text ones, of which InnoDB builds one at a time.
fn together<'s>(statements: impl Iterator<Item = &'s Statement>) -> Vec<Work> {
    let mut of: BTreeMap<&TableName, Vec<&str>> = BTreeMap::new();
    let mut alone = Vec::new();
    for statement in statements {
        let Some(on) = &statement.on else { continue };
        let add = statement.sql.strip_prefix(&alter(on)).map(|add| add.trim_end_matches(';'));
        match add.filter(|add| !add.starts_with("ADD FULLTEXT")) {
            Some(add) => of.entry(on).or_default().push(add),
            None => alone.push(Work { label: statement.label(), sql: statement.sql.clone() }),
        }
    }
    let grouped = of
        .into_iter()
        .map(|(on, adds)| Work { label: format!("indexes of {on}"), sql: format!("{}{}", alter(on), adds.join(", ")) });
    grouped.chain(alone).collect()
}

/// What a change of a table begins with.
fn alter(table: &TableName) -> String {
    format!("ALTER TABLE {} ", my_table(table))
}

struct Writer<'a> {
    script: Script,
    plan: &'a Plan,
    definitions: HashMap<&'a TableName, &'a TableDefinition>,
    collations: Collations,
    /// Whether the target is MySQL: it has indexes over expressions, and wants a default that is one in parentheses.
    mysql: bool,
}

impl Writer<'_> {
    /// What a column is called at the target; `None`: it does not travel. A computed one is computed there too.
    fn column(&self, table: &TableName, column: &str) -> Option<String> {
        let plan = self.plan.get(table)?;
        let known = self.definitions.get(table).and_then(|definition| definition.column(column));
        match known.map(|column| column.generated.is_some()) {
            Some(false) => plan.target_name(column).map(str::to_owned),
            // A sequence, say, in a default.
            Some(true) | None => Some(column.to_owned()),
        }
    }

    fn table(&mut self, table: &TablePlan, parsed: &ShowCreate) {
        let (source, there) = (&table.source.name, &table.shaped.name);
        let (mut lines, mut later, mut left) = (Vec::new(), Vec::new(), Vec::new());
        let names = Names {
            database: &source.schema,
            column: &|column| self.column(source, column),
            table: &|table| self.plan.get(table).map(|plan| plan.shaped.name.clone()),
            column_of: &|table, column| self.column(table, column),
        };
        // A column that counts has to be the first of some key from the beginning.
        let counts = parsed.auto_increment().map(str::to_owned);
        let is_key = |kind: &LineKind| matches!(kind, LineKind::PrimaryKey | LineKind::UniqueKey);
        let first_of = |line: &crate::mysql::show_create::Line| counts.is_some() && line.first_column() == counts;
        let mut counted = parsed.lines.iter().any(|line| is_key(&line.kind) && first_of(line));
        for line in &parsed.lines {
            let renamed = match line.renamed(&names) {
                Ok(renamed) => renamed,
                Err(_) if line.kind == LineKind::Column && !line.is_generated() => continue,
                Err(lacks) => {
                    left.push(format!("{} of {source}: {lacks} does not travel", said(line)));
                    continue;
                }
            };
            if line.is_over_an_expression() && !self.mysql {
                left.push(format!("{} of {source}: it is over an expression, and MariaDB has none", said(line)));
                continue;
            }
            match line.kind {
                LineKind::Key if !counted && first_of(line) => {
                    counted = true;
                    lines.push(renamed);
                }
                LineKind::Key | LineKind::FullText => {
                    later.push((Object::Index, line, format!("{}ADD {renamed};", alter(there))));
                }
                LineKind::ForeignKey => {
                    later.push((Object::ForeignKey, line, format!("{}ADD {renamed};", alter(there))));
                }
                _ => lines.push(renamed),
            }
        }
        let create = parsed.create(there, &lines, &names);
        let mut changed = BTreeSet::new();
        let sql = self.collations.fit(&create, &mut changed);
        let sql = if self.mysql { with_defaults_in_parentheses(&sql) } else { sql };
        left.extend(changed.into_iter().map(|(was, is)| format!("collation {was} of {source}: it becomes {is}")));
        let refers = |line: &crate::mysql::show_create::Line| {
            let refers = line.refers_to(&source.schema)?;
            let there = self.plan.get(&refers)?.shaped.name.clone();
            Some((refers, there))
        };
        let later: Vec<Statement> = later
            .into_iter()
            .map(|(object, line, sql)| Statement {
                refers: refers(line),
                ..statement(object, &line.name, Some(table), sql)
            })
            .collect();
        self.script.before.push(statement(Object::Table, &there.table, Some(table), sql));
        self.script.not_carried.append(&mut left);
        for statement in later {
            match statement.object {
                Object::ForeignKey => self.script.after.push(statement),
                _ => self.script.indexes.push(statement),
            }
        }
    }
}

/// `index by_note`
fn said(line: &crate::mysql::show_create::Line) -> String {
    let kind = match line.kind {
        LineKind::Column => "column",
        LineKind::PrimaryKey => "primary key",
        LineKind::ForeignKey => "foreign key",
        LineKind::Check => "check",
        LineKind::Other => "period",
        LineKind::UniqueKey | LineKind::Key | LineKind::FullText => "index",
    };
    format!("{kind} {}", line.name).trim_end().to_owned()
}

/// The collations that the target knows.
struct Collations(HashSet<String>);

impl Collations {
    async fn of(target: &mut Session) -> Result<Collations> {
        // MariaDB has collations of several character sets since 10.10; only the full name says which.
        let full = "SELECT full_collation_name FROM information_schema.collation_character_set_applicability";
        let plain = "SELECT collation_name FROM information_schema.collations";
        let rows = match target.server().is_mariadb() && target.server().version >= (10, 10, 0) {
            true => target.rows(full).await,
            false => target.rows(plain).await,
        };
        let rows = rows.context("asking the target for its collations")?;
        Ok(Collations(rows.into_iter().flatten().flatten().map(|name| name.to_lowercase()).collect()))
    }

    /// The statement with the nearest that there is for each that there is not; these are noted.
    fn fit(&self, sql: &str, changed: &mut BTreeSet<(String, String)>) -> String {
        let noted = std::cell::RefCell::new(BTreeSet::new());
        let fitted = with_collations(sql, &|name| {
            let other = self.nearest(name)?;
            noted.borrow_mut().insert((name.to_owned(), other.clone()));
            Some(other)
        });
        changed.append(&mut noted.into_inner());
        fitted
    }

    /// What stands for a collation that is not known: of the same character set, and as particular about case and accents.
    fn nearest(&self, name: &str) -> Option<String> {
        let name = name.to_lowercase();
        if self.0.contains(&name) {
            return None;
        }
        let (charset, rest) = name.split_once('_')?;
        let candidates: &[&str] = match () {
            () if rest.ends_with("as_ci") => &["uca1400_as_ci", "0900_as_ci", "unicode_520_ci", "unicode_ci"],
            () if rest.ends_with("_ci") => &["uca1400_ai_ci", "0900_ai_ci", "unicode_520_ci", "unicode_ci"],
            () if rest.ends_with("_cs") => &["uca1400_as_cs", "0900_as_cs", "bin"],
            () => &["bin"],
        };
        candidates.iter().map(|rest| format!("{charset}_{rest}")).find(|name| self.0.contains(name))
    }
}

/// Builds at a MySQL or MariaDB server.
#[derive(Clone)]
struct AtMySql {
    info: MyConnInfo,
}

impl Builder for AtMySql {
    type Session = Session;

    async fn open(&self) -> Result<Session> {
        connect(&self.info, "cutwater_build").await
    }

    async fn build(&self, session: &mut Session, Work { label, sql }: &Work) -> Result<()> {
        session.execute(sql).await.map(drop).with_context(|| format!("building {label}"))
    }
}

/// Runs a statement; a lock that is not to be had in a moment is asked for again and again.
async fn patiently(session: &mut Session, sql: &str) -> Result<()> {
    loop {
        match session.execute(sql).await {
            Err(error) if error.kind() == Kind::Transient => tokio::time::sleep(PAUSE).await,
            result => return result.map(drop),
        }
    }
}

/// The server's words, and the way around them.
fn explain(error: Error, statement: &Statement) -> Error {
    let made = error.context(statement.label());
    match (made.kind(), &statement.on) {
        (Kind::Connection | Kind::Transient | Kind::Privilege, _) | (_, None) => made,
        (_, Some(on)) if made.suggestion().is_none() => made.fix(format!(
            "make {on} at the target yourself (cutwater schema prints the statement): it is taken as it is"
        )),
        _ => made,
    }
}
