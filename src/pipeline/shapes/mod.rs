//! Changes of a table's shape at the source, in mid-stream.
//!
//! In: the tables as the stream describes them, the shapes the state remembers, both catalogues. Out: for each
//! description the plan by which its rows are written ([`Shapes::learn`]), and, where the target has to change first, a
//! [`ShapeChange`] that the applier carries out in the transaction of the batch that first needs it, together with the
//! checkpoint. So it happens once, whatever is killed when.
//!
//! What is compared is the stream with what the *target* was brought to. The source's catalogue, which may be hours
//! ahead, is only asked for what the stream does not tell ([`decide`]). An ALTER that no row follows never appears in
//! the stream: now and then the catalogue is looked at ([`Shapes::look`]), and once the stream has passed the place
//! where it looked so, the target follows too.
//!
//! What can go wrong: a change that cannot be followed ([`Kind::Schema`]): it stops before anything of the new shape is
//! applied, with the statement to run at the target. The same run goes on once the target has that shape.

mod decide;
mod settle;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::sync::Arc;

use self::decide::{Decision, Seen, tell};
use crate::change::{CommitStart, Position};
use crate::config::{Ddl, TransformRule};
use crate::error::{Error, Kind, Result};
use crate::pipeline::{leaves, membership};
use crate::schema::{Facts, Patterns, ReplicaIdentity, Shape, ShapeChange, TableName, TableSchema};
use crate::source::{AnySource, Source};
use crate::transform::{Plan, TablePlan, target_column};

pub use settle::settle;

/// Where in the log something was seen, for people.
type Place<'a> = &'a (dyn Display + Sync);

/// What the tables of a stream look like, and how that became so.
pub struct Shapes {
    source: AnySource,
    /// How plans are fitted to the target's tables: a plan without tables.
    fitting: Plan,
    rules: Vec<TransformRule>,
    follow: bool,
    /// Whether the stream's values are in binary form.
    binary: bool,
    tables: HashMap<TableName, Known>,
    looked: Option<String>,
    /// The catalogue's tables that differ from what the target follows, and a place in the log after which the stream
    /// shows them so.
    ahead: Option<(Position, Vec<Arc<TableSchema>>)>,
    partitions: Option<leaves::Watch>,
    membership: Option<membership::Watch>,
}

struct Known {
    plan: Arc<TablePlan>,
    /// What the target was brought to, changes on their way included.
    shape: Shape,
    /// The target's table, likewise.
    target: TableSchema,
}

/// How the rows of a description are written.
pub struct Learned {
    /// Their plan.
    pub plan: Arc<TablePlan>,
    /// What has to happen first.
    pub change: Option<Arc<ShapeChange>>,
}

impl Shapes {
    /// The shapes of the plan's tables, as the state remembers them; `there` are the target's tables in the plan's order.
    pub fn new(
        source: &AnySource,
        (rules, ddl): (&[TransformRule], Ddl),
        binary: bool,
        plan: &Plan,
        mut stored: HashMap<TableName, Shape>,
        there: Vec<Option<Arc<TableSchema>>>,
    ) -> Shapes {
        let known = plan.tables().zip(there).filter_map(|(plan, target)| {
            let name = plan.source.name.clone();
            let shape = stored.remove(&name)?;
            Some((name, Known { plan: Arc::clone(plan), shape, target: (*target?).clone() }))
        });
        Shapes {
            tables: known.collect(),
            fitting: plan.only(|_| false),
            source: source.clone(),
            rules: rules.to_vec(),
            follow: ddl == Ddl::Follow,
            binary,
            looked: None,
            ahead: None,
            partitions: None,
            membership: None,
        }
    }

    /// Looks at the partitions too, and whether the tables are still published.
    pub fn watching(self, partitions: leaves::Watch, membership: membership::Watch) -> Shapes {
        Shapes { partitions: Some(partitions), membership: Some(membership), ..self }
    }

    /// How rows of this description are written from now on. `at` is where in the log it was met.
    pub async fn learn(&mut self, table: &Arc<TableSchema>, at: Option<&CommitStart>) -> Result<Learned> {
        let Learned { plan, change } = self.learn_as(table, at.map(|at| at as Place<'_>), false).await?;
        let plan = match self.tables.get(&plan.source.name) {
            Some(known) => self.fitting.fitted(&plan, &known.target)?,
            None => plan,
        };
        Ok(Learned { plan, change })
    }

    /// `current`: it is the catalogue's description, and the stream has come to where it looked so.
    async fn learn_as(&mut self, table: &Arc<TableSchema>, at: Option<Place<'_>>, current: bool) -> Result<Learned> {
        let mut table = Arc::clone(table);
        let name = match self.tables.iter().find(|(_, known)| known.shape.id == table.id) {
            Some((name, _)) => name.clone(),
            None if self.tables.contains_key(&table.name) => return Err(no_longer_there(&table.name, None)),
            None => return Err(Error::new(Kind::Internal, format!("{} is not of the migration", table.name))),
        };
        if table.name != name {
            // It was renamed; perhaps only for a while.
            let now = self.source.name_of(table.id).await?;
            if now.as_ref() != Some(&name) {
                return Err(no_longer_there(&name, now.as_ref().or(Some(&table.name))));
            }
            Arc::make_mut(&mut table).name.clone_from(&name);
        }
        let known = &self.tables[&name];
        // The whole old row tells nothing about which columns were unique at that place of the log.
        if !current
            && table.replica_identity == ReplicaIdentity::Full
            && !known.shape.key.iter().eq(table.key_columns().map(|column| &column.name))
        {
            Arc::make_mut(&mut table).key = None;
        }
        let held =
            |column: &str| self.at_target(known, column).is_none_or(|there| known.target.column(&there).is_some());
        let keyed_alike = known.shape.key.iter().eq(table.key_columns().map(|column| &column.name));
        let same = known.shape.is_of(&table) || (!keyed_alike && self.only_the_identity_differs(known, &table));
        if same && table.columns.iter().all(|column| held(&column.name)) {
            let plan = if *table == *known.plan.source {
                Arc::clone(&known.plan)
            } else {
                Arc::new(TablePlan::for_shape(&self.rules, &table, &[], &BTreeMap::new())?)
            };
            self.check_form(&plan, &known.target)?;
            return Ok(Learned { plan, change: None });
        }
        let facts = self.source.facts(&[table.id]).await?.remove(&table.id).unwrap_or_default();
        complete(&mut table, &self.source.tables(&Patterns::default()).await?);
        let decision = self.decide(&name, &table, &facts, true)?;
        if !decision.stops.is_empty() {
            let (what, fix) = tell(&decision.stops);
            return Err(stopped(&(format!("{name} was altered at the source: {what}"), fix), at));
        }
        self.take_over(&name, &table, &facts, decision)
    }

    /// What a column is called at the target, whether or not the table has it now; `None`: it does not travel.
    fn at_target(&self, known: &Known, column: &str) -> Option<String> {
        match known.plan.source.column(column) {
            Some(_) => known.plan.target_name(column).map(str::to_owned),
            None => target_column(&self.rules, &known.plan.source.name, column),
        }
    }

    fn only_the_identity_differs(&self, known: &Known, table: &TableSchema) -> bool {
        let keyless = Shape { key: Vec::new(), ..known.shape.clone() };
        let keyless_table = TableSchema { key: None, ..table.clone() };
        table.replica_identity != ReplicaIdentity::Default && keyless.is_of(&keyless_table)
    }

    fn decide(&self, name: &TableName, table: &TableSchema, facts: &Facts, rows_exist: bool) -> Result<Decision> {
        let known = &self.tables[name];
        let names = |column: &str| self.at_target(known, column);
        let (shape, target, follow) = (&known.shape, &known.target, self.follow);
        Ok(Seen { table, shape, facts, target, names: &names, follow, rows_exist }.decide())
    }

    fn take_over(
        &mut self,
        name: &TableName,
        table: &Arc<TableSchema>,
        facts: &Facts,
        decision: Decision,
    ) -> Result<Learned> {
        let plan = Arc::new(TablePlan::for_shape(&self.rules, table, &decision.left_out, &decision.renamed)?);
        let known = self.tables.get_mut(name).expect("the caller found it");
        let mut target = known.target.clone();
        target.columns.extend(decision.added.iter().cloned());
        let mut shape = Shape::of(table, facts);
        for column in &mut shape.columns {
            column.number = column.number.or_else(|| known.shape.column(&column.name)?.number);
        }
        let is_now = facts.columns.iter().filter(|now| !now.dropped).all(|now| table.column(&now.name).is_some())
            && shape.columns.iter().all(|column| facts.live(&column.name).is_some());
        if !is_now {
            // The files are those of a later shape: a rewrite for that one would go unnoticed.
            shape.files.clone_from(&known.shape.files);
        }
        if !decision.left_out.is_empty() || !decision.renamed.is_empty() {
            // An older shape than the target's: what is remembered is the newer one, with what it got just now.
            let mut newer = known.shape.clone();
            let added = |name: &String| decision.added.iter().any(|column| column.name == *name);
            newer.columns.extend(shape.columns.into_iter().filter(|column| added(&column.name)));
            shape = newer;
        }
        for note in &decision.notes {
            tracing::warn!("{name}: {note}");
        }
        let changed = shape != known.shape || !decision.statements.is_empty();
        let source = name.clone();
        let change = ShapeChange {
            source,
            target: target.name.clone(),
            statements: decision.statements,
            afterwards: decision.afterwards,
            shape,
        };
        for statement in &change.statements {
            tracing::info!("{name} was altered at the source; the target follows: {statement}");
        }
        known.shape = change.shape.clone();
        known.target = target;
        let known = &self.tables[name];
        self.check_form(&plan, &known.target)?;
        Ok(Learned { plan, change: changed.then(|| Arc::new(change)) })
    }

    /// Binary values mean the same only in the same type. The next stream is text if this one ought to have been.
    fn check_form(&self, plan: &TablePlan, target: &TableSchema) -> Result<()> {
        let differs = |column: &&crate::schema::Column| {
            let there = target.column(&column.name);
            !column.ty.portable_binary
                || there.is_some_and(|t| (&t.ty.schema, &t.ty.name) != (&column.ty.schema, &column.ty.name))
        };
        match plan.shaped.columns.iter().find(differs).filter(|_| self.binary) {
            None => Ok(()),
            Some(column) => {
                self.source.require_text();
                let why = format!("column {:?} of {} cannot be sent in binary form", column.name, plan.source.name);
                Err(Error::new(Kind::Transient, format!("{why}: the stream is read again as text")))
            }
        }
    }

    /// Looks whether the source's catalogue is another than the one the target follows.
    pub async fn look(&mut self) -> Result<()> {
        if let Some(partitions) = &mut self.partitions {
            partitions.look().await?;
        }
        let ids: Vec<u32> = self.tables.values().map(|known| known.shape.id).collect();
        let (looks, at) = self.source.look(&ids).await?;
        // After it: what is wrong with the publication now says more than that it was altered.
        let published = match &self.membership {
            Some(membership) => membership.look().await,
            None => Ok(()),
        };
        if published.is_ok() && self.looked.as_ref() == Some(&looks) {
            return Ok(());
        }
        let now = self.source.tables(&Patterns::default()).await?;
        let mut ahead = Vec::new();
        for (name, known) in &self.tables {
            match now.iter().find(|table| table.name == *name) {
                Some(table) if table.id == known.shape.id => {
                    if !known.shape.is_of(table) {
                        ahead.push(Arc::clone(table));
                    }
                }
                _ => return Err(no_longer_there(name, self.source.name_of(known.shape.id).await?.as_ref())),
            }
        }
        // A table that is gone is no longer published either: that it is gone says more.
        published?;
        self.ahead = Some((at, ahead)).filter(|(_, ahead)| !ahead.is_empty());
        self.looked = Some(looks);
        Ok(())
    }

    /// What the target has to do now that everything up to `durable` is applied: changes that no row has followed yet.
    pub async fn catch_up(&mut self, durable: &Position) -> Result<Vec<Arc<ShapeChange>>> {
        let due = self.ahead.take_if(|(at, _)| durable >= at);
        let mut changes = Vec::new();
        for table in due.map(|(_, tables)| tables).unwrap_or_default() {
            changes.extend(self.learn_as(&table, Some(durable), true).await?.change);
        }
        Ok(changes)
    }
}

/// Gives columns that the stream describes by a type's number alone the types that the catalogue knows.
fn complete(table: &mut Arc<TableSchema>, now: &[Arc<TableSchema>]) {
    let same = |a: &crate::schema::ColumnType, b: &crate::schema::ColumnType| {
        a.oid != 0 && (a.oid, a.modifier) == (b.oid, b.modifier)
    };
    for column in &mut Arc::make_mut(table).columns {
        let all = || now.iter().flat_map(|table| &table.columns);
        if let Some(known) = all().find(|other| same(&other.ty, &column.ty)) {
            column.ty = known.ty.clone();
        }
    }
}

/// The error about a table that was dropped, or is called `now`.
pub fn no_longer_there(name: &TableName, now: Option<&TableName>) -> Error {
    stopped(&decide::no_longer_there(name, now), None)
}

fn stopped((what, fix): &(String, String), at: Option<Place<'_>>) -> Error {
    let at = at.map_or_else(String::new, |at| format!(" (at {at})"));
    Error::new(Kind::Schema, format!("{what}{at}")).fix(fix.clone())
}
