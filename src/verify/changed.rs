//! The comparison of what changed since the last clean one, behind a fence: its time grows with the changes and not with
//! the database.
//!
//! In: what the applier kept since that comparison ([`Scope::of`]). Out: a [`Report`] of the rows under those keys, read
//! at both ends, and of the tables of which it is not known what changed, whole. Nothing is waited for: behind the fence
//! both ends stand still. What it cannot see: a row that somebody else changed at the target and the source did not.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::pair::Pair;
use super::{Ends, Look, Options, Progress, Report, TableReport, partitions, settled, unfinished};
use tokio_util::task::TaskTracker;

use crate::error::{Context, Error, Result};
use crate::target::state::VerifyRecord;
use crate::target::state::{Changed, Tracked};
use crate::transform::{Plan, TablePlan};

/// Keys read at once, about.
const AT_ONCE: u64 = 5_000;
/// Keys a second that a comparison manages at least: a third of what two shared cores with both servers on them do.
const KEYS_PER_SECOND: f64 = 25_000.0;

/// From this many keys on it is asked whether reading everything is less work.
const MANY: u64 = 100_000;

/// What a final comparison has to read.
#[derive(Debug, Clone)]
pub enum Scope {
    /// The rows under these keys, and these tables.
    Changed {
        /// Keys, by the table they belong to.
        keys: Vec<Keys>,
        /// Tables compared whole, and why.
        whole: Vec<(Arc<TablePlan>, String)>,
    },
    /// Everything; why.
    All(String),
}

/// Keys of one table, kept under one generation.
#[derive(Debug, Clone)]
pub struct Keys {
    table: Arc<TablePlan>,
    generation: i64,
    count: u64,
}

impl Scope {
    /// What has to be compared, if the last comparison was `last`. Changes nothing.
    pub async fn of(ends: &Ends, plan: &Plan, last: Option<&VerifyRecord>) -> Result<Scope> {
        let Some(last) = last.filter(|last| last.differences == 0) else {
            return Ok(Scope::All("the last verify was not clean".into()));
        };
        let Some(generation) = last.generation else {
            return Ok(Scope::All("what changed since the last verify was not kept".into()));
        };
        if last.tables != plan.len() as u64 {
            return Ok(Scope::All(format!(
                "the last verify compared {} tables, now there are {}",
                last.tables,
                plan.len()
            )));
        }
        match ends.state.changed_since(generation).await? {
            Tracked::Lost(why) => Ok(Scope::All(why)),
            Tracked::Whole(changed) => {
                let moved = partitions::changed(ends, plan, last).await?;
                let scope = Scope::select(plan, &changed, &moved);
                let everything = last.duration_ms as f64 / 1000.0;
                if scope.keys() >= MANY && scope.seconds(plan, last) > everything {
                    return Ok(Scope::All(format!("that is less work than the {} rows that changed", scope.keys())));
                }
                Ok(scope)
            }
        }
    }

    fn select(plan: &Plan, changed: &Changed, moved: &[(String, String)]) -> Scope {
        let tables: HashMap<String, &Arc<TablePlan>> =
            plan.tables().map(|table| (table.shaped.name.sql(), table)).collect();
        let mut whole: BTreeMap<&str, (Arc<TablePlan>, String)> = BTreeMap::new();
        for (name, why) in &changed.whole {
            if let Some(&table) = tables.get(name) {
                whole.insert(name, (Arc::clone(table), why.clone()));
            }
        }
        for (name, table) in &tables {
            if let Some((_, why)) = moved.iter().find(|(moved, _)| *moved == table.source.name.to_string()) {
                whole.entry(name).or_insert_with(|| (Arc::clone(table), why.clone()));
            }
        }
        let mut keys = Vec::new();
        for group in &changed.keys {
            let Some(&table) = tables.get(&group.table) else { continue };
            let columns = table.shaped.key_columns().count() as i32;
            if group.columns != (columns..=columns) {
                whole.entry(&group.table).or_insert((Arc::clone(table), "its key was another one".into()));
            }
            keys.push(Keys { table: Arc::clone(table), generation: group.generation, count: group.count });
        }
        keys.retain(|keys| !whole.contains_key(keys.table.shaped.name.sql().as_str()));
        Scope::Changed { keys, whole: whole.into_values().collect() }
    }

    /// How long it may take in seconds, after a comparison of everything that took as long as `last`.
    pub fn seconds(&self, plan: &Plan, last: &VerifyRecord) -> f64 {
        let everything = last.duration_ms as f64 / 1000.0;
        let Scope::Changed { whole, .. } = self else { return everything };
        let bytes: u64 = whole.iter().map(|(table, _)| table.source.bytes).sum();
        let all: u64 = plan.tables().map(|table| table.source.bytes).sum();
        everything * bytes as f64 / all.max(1) as f64 + self.keys() as f64 / KEYS_PER_SECOND
    }

    /// Keys that changed; 0 if they are not known.
    pub fn keys(&self) -> u64 {
        match self {
            Scope::Changed { keys, .. } => keys.iter().map(|keys| keys.count).sum(),
            Scope::All(_) => 0,
        }
    }

    /// Whether it would be less after another clean verify.
    pub fn shrinks(&self) -> bool {
        match self {
            Scope::All(_) => true,
            Scope::Changed { whole, .. } => {
                self.keys() > 0 || whole.iter().any(|(table, _)| table.shaped.key.is_some())
            }
        }
    }

    /// In words: `the 17 rows that changed since the last verify, and all of public.log (it has no key)`.
    pub fn words(&self) -> String {
        match self {
            Scope::All(why) => format!("all rows of all tables ({why})"),
            Scope::Changed { whole, .. } => {
                let mut words = format!("the {} rows that changed since the last verify", self.keys());
                for (table, why) in whole.iter().take(5) {
                    words.push_str(&format!(", all of {} ({why})", table.source.name));
                }
                if whole.len() > 5 {
                    words.push_str(&format!(", all of {} more tables", whole.len() - 5));
                }
                words
            }
        }
    }
}

/// One thing for a worker to do.
enum Task {
    Whole(Arc<TablePlan>),
    /// Keys whose hash lies in the range.
    Keys {
        table: Arc<TablePlan>,
        generation: i64,
        from: i64,
        to: i64,
    },
}

impl Task {
    fn table(&self) -> &Arc<TablePlan> {
        match self {
            Task::Whole(table) | Task::Keys { table, .. } => table,
        }
    }
}

/// Compares what `scope` names, behind a fence. Differences are recorded in the state, so that no cutover begins before
/// the next clean verify; a clean comparison is not, since it says nothing of what it did not read.
pub async fn run(
    ends: &Ends,
    plan: &Plan,
    keys: &[Keys],
    whole: &[(Arc<TablePlan>, String)],
    options: &Options,
    progress: Progress<'_>,
) -> Result<Report> {
    let started = Instant::now();
    let mut tasks: VecDeque<Task> = whole.iter().map(|(table, _)| Task::Whole(Arc::clone(table))).collect();
    tasks.extend(keys.iter().flat_map(slices));
    let total = tasks.len();
    let queue = Mutex::new(tasks);
    let tables: Mutex<BTreeMap<String, TableReport>> = Mutex::default();
    let done = Mutex::new(0);
    let behind = Mutex::new(None);
    let seed: i64 = rand::random();
    let tracker = TaskTracker::new();
    let look = Look { ends, options, seed, behind: &behind, tracker: &tracker };
    let worker = async || {
        if total == 0 {
            return Ok::<(), Error>(());
        }
        let mut pair = Pair::open(&look, plan).await?;
        loop {
            let next = queue.lock().expect("no holder panics").pop_front();
            let Some(task) = next else { return Ok(()) };
            let found = match &task {
                Task::Whole(table) => pair.compare(&look, table).await,
                Task::Keys { table, generation, from, to } => {
                    let keys = ends.state.changed_keys(*generation, &table.shaped.name, *from..=*to).await;
                    match keys {
                        Ok(keys) => pair.compare_keys(&look, table, &keys).await,
                        Err(error) => Err(error),
                    }
                }
            };
            let found = found.with_context(|| format!("comparing {}", task.table().source.name))?;
            let mut done = done.lock().expect("no holder panics");
            *done += 1;
            progress(&found, *done, total);
            add(&mut tables.lock().expect("no holder panics"), found, options.named_rows);
        }
    };
    let workers = options.workers.clamp(1, total.max(1));
    let work = futures::future::try_join_all((0..workers).map(|_| worker()));
    let outcome = match options.budget {
        None => Ok(work.await),
        Some(budget) => tokio::time::timeout(budget, work).await.map_err(|_| budget),
    };
    settled(&tracker).await;
    match outcome {
        Ok(outcome) => drop(outcome?),
        Err(budget) => {
            let queue = queue.into_inner().expect("no holder panics");
            let mut left: Vec<String> = queue.iter().map(|task| task.table().source.name.to_string()).collect();
            left.dedup();
            return Err(unfinished(&left, budget));
        }
    }
    let tables = tables.into_inner().expect("no holder panics").into_values().collect();
    let report = Report { tables, duration_ms: started.elapsed().as_millis() as u64, behind: None };
    if !report.clean() {
        ends.state.set_verify(report.tables.len() as u64, report.differences(), report.duration_ms, None, None).await?;
    }
    Ok(report)
}

/// Hashes are spread evenly: equal ranges of them hold about equally many keys.
fn slices(keys: &Keys) -> impl Iterator<Item = Task> + use<'_> {
    let count = keys.count.div_ceil(AT_ONCE).max(1);
    let width = (1_u128 << 64) / u128::from(count);
    let bound = move |n: u64| (i128::from(i64::MIN) + (u128::from(n) * width) as i128) as i64;
    (0..count).map(move |n| Task::Keys {
        table: Arc::clone(&keys.table),
        generation: keys.generation,
        from: bound(n),
        to: if n + 1 == count { i64::MAX } else { bound(n + 1) - 1 },
    })
}

fn add(tables: &mut BTreeMap<String, TableReport>, found: TableReport, named: usize) {
    let Some(sum) = tables.get_mut(&found.source) else {
        tables.insert(found.source.clone(), found);
        return;
    };
    sum.rows_source += found.rows_source;
    sum.rows_target += found.rows_target;
    sum.rechecked += found.rechecked;
    sum.differing += found.differing;
    sum.rows.extend(found.rows);
    sum.rows.truncate(named);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{TableName, TableSchema};

    fn keys(count: u64) -> Keys {
        let table = Arc::new(TableSchema::new(TableName::new("public", "t"), Vec::new(), None));
        let plan = Plan::compile(&[], &[table]).expect("no rules, no mistakes");
        Keys { table: Arc::clone(plan.tables().next().expect("one")), generation: 1, count }
    }

    #[test]
    fn slices_cover_every_hash_once() {
        for count in [0, 1, AT_ONCE, AT_ONCE + 1, 1_000_000, 1_234_567] {
            let mut next = i128::from(i64::MIN);
            for task in slices(&keys(count)) {
                let Task::Keys { from, to, .. } = task else { panic!("keys only") };
                assert_eq!(i128::from(from), next);
                next = i128::from(to) + 1;
            }
            assert_eq!(next, i128::from(i64::MAX) + 1, "{count}");
        }
    }
}
