//! Rules, compiled once a table.
//!
//! In: the `[[transform]]` rules and the source's tables. Out: a [`Plan`] with one [`TablePlan`] a table: its name at
//! the target, which columns travel, and what they are called there. A table no rule matches passes its rows' bytes
//! untouched. The snapshot and `verify` use the same plan in their SELECT lists, so that all three agree on what a row
//! is. What can go wrong, all at compile time: a rule that matches nothing, a column that does not exist, a key column
//! left out, two tables or columns that end up with one name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::change::{Row, RowChange};
use crate::config::TransformRule;
use crate::error::{Error, Kind, Result};
use crate::schema::{Key, Pattern, TableName, TableSchema};

/// What happens to every table of a migration.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    tables: BTreeMap<TableName, Arc<TablePlan>>,
}

/// What happens to one table.
#[derive(Debug, Clone)]
pub struct TablePlan {
    /// The table at the source.
    pub source: Arc<TableSchema>,
    /// Its shape after the rules: the names of the target, the types and ids of the source.
    pub shaped: Arc<TableSchema>,
    /// For each column of `shaped`, its index in `source`.
    pub columns: Vec<usize>,
    /// Whether rows pass untouched: every column travels, in order. Names may still differ.
    pub passthrough: bool,
    /// Whether the table or a column has another name, or a column is missing: its DDL cannot be copied as it is.
    pub reshaped: bool,
}

impl Plan {
    /// Compiles the rules against the tables of the source.
    pub fn compile(rules: &[TransformRule], tables: &[Arc<TableSchema>]) -> Result<Plan> {
        let patterns = rules.iter().map(|rule| Pattern::parse(&rule.pattern)).collect::<Result<Vec<_>>>()?;
        for (rule, pattern) in rules.iter().zip(&patterns) {
            let matched = tables.iter().filter(|table| pattern.matches(&table.name)).count();
            if matched == 0 {
                return Err(bad(rule, "it matches no table of the migration"));
            }
            if matched > 1 && rule.rename.table.is_some() {
                return Err(bad(rule, "it gives one name to several tables"));
            }
        }
        let mut plan = Plan::default();
        let mut taken: HashMap<TableName, TableName> = HashMap::new();
        for table in tables {
            let rule =
                rules.iter().zip(&patterns).find(|(_, pattern)| pattern.matches(&table.name)).map(|(rule, _)| rule);
            let compiled = match rule {
                Some(rule) => TablePlan::compile(rule, table)?,
                None => TablePlan::untouched(table),
            };
            if let Some(other) = taken.insert(compiled.shaped.name.clone(), table.name.clone()) {
                let why = format!("{other} and {} would both become {}", table.name, compiled.shaped.name);
                return Err(Error::new(Kind::Config, why));
            }
            plan.tables.insert(table.name.clone(), Arc::new(compiled));
        }
        Ok(plan)
    }

    /// The plan of a source table, if it is part of the migration.
    pub fn get(&self, source: &TableName) -> Option<&Arc<TablePlan>> {
        self.tables.get(source)
    }

    /// All tables, in name order.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<TablePlan>> {
        self.tables.values()
    }

    /// How many tables it covers.
    pub fn len(&self) -> usize {
        self.tables.len()
    }

    /// Whether it covers none.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }
}

fn bad(rule: &TransformRule, why: &str) -> Error {
    Error::new(Kind::Config, format!("[[transform]] match = {:?}: {why}", rule.pattern))
}

impl TablePlan {
    fn untouched(table: &Arc<TableSchema>) -> TablePlan {
        TablePlan {
            source: Arc::clone(table),
            shaped: Arc::clone(table),
            columns: (0..table.columns.len()).collect(),
            passthrough: true,
            reshaped: false,
        }
    }

    fn compile(rule: &TransformRule, table: &Arc<TableSchema>) -> Result<TablePlan> {
        let columns = chosen_columns(rule, table)?;
        for renamed in rule.rename.columns.keys() {
            if table.column(renamed).is_none() {
                return Err(bad(rule, &format!("rename: {} has no column {renamed:?}", table.name)));
            }
        }
        let key = match &table.key {
            None => None,
            Some(key) => {
                let position = |index: &usize| columns.iter().position(|column| column == index);
                let moved: Option<Vec<usize>> = key.columns.iter().map(position).collect();
                let missing = || bad(rule, &format!("columns: the key of {} cannot be left out", table.name));
                Some(Key { columns: moved.ok_or_else(missing)? })
            }
        };
        let mut shaped = TableSchema { key, ..(**table).clone() };
        shaped.name = TableName {
            schema: rule.rename.schema.clone().unwrap_or_else(|| table.name.schema.clone()),
            table: rule.rename.table.clone().unwrap_or_else(|| table.name.table.clone()),
        };
        shaped.columns = columns
            .iter()
            .map(|&index| {
                let mut column = table.columns[index].clone();
                if let Some(name) = rule.rename.columns.get(&column.name) {
                    column.name.clone_from(name);
                }
                column
            })
            .collect();
        let mut names = HashSet::new();
        if let Some(twice) = shaped.columns.iter().find(|column| !names.insert(&column.name)) {
            return Err(bad(rule, &format!("rename: two columns of {} would be called {:?}", table.name, twice.name)));
        }
        let passthrough = columns.iter().copied().eq(0..table.columns.len());
        let same_names = shaped.columns.iter().zip(&table.columns).all(|(a, b)| a.name == b.name);
        let reshaped = !passthrough || !same_names || shaped.name != table.name;
        Ok(TablePlan { source: Arc::clone(table), shaped: Arc::new(shaped), columns, passthrough, reshaped })
    }

    /// Brings a change into the target's shape.
    pub fn apply(&self, mut change: RowChange) -> RowChange {
        if !self.passthrough {
            change.old = change.old.map(|row| self.project(&row));
            change.new = change.new.map(|row| self.project(&row));
        }
        change.table = Arc::clone(&self.shaped);
        change
    }

    fn project(&self, row: &Row) -> Row {
        let fields: Vec<_> = row.fields().collect();
        self.columns.iter().map(|&index| fields[index]).collect()
    }
}

/// Indices of the columns that travel, in the source's order.
fn chosen_columns(rule: &TransformRule, table: &TableSchema) -> Result<Vec<usize>> {
    let excluded: Vec<&str> = rule.columns.iter().filter_map(|name| name.strip_prefix('!')).collect();
    let included: Vec<&str> = rule.columns.iter().map(String::as_str).filter(|name| !name.starts_with('!')).collect();
    for name in included.iter().chain(&excluded).filter(|name| **name != "*") {
        if table.column(name).is_none() {
            return Err(bad(rule, &format!("columns: {} has no column {name:?}", table.name)));
        }
    }
    let all = included.is_empty() || included.contains(&"*");
    let chosen = |name: &str| (all || included.contains(&name)) && !excluded.contains(&name);
    Ok((0..table.columns.len()).filter(|&index| chosen(&table.columns[index].name)).collect())
}
