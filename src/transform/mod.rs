//! Rules, compiled once a table.
//!
//! In: the `[[transform]]` rules and the source's tables. Out: a [`Plan`] with one [`TablePlan`] a table: its name at
//! the target, which columns travel, and what they are called there. A table no rule matches passes its rows' bytes
//! untouched. The snapshot and `verify` use the same plan in their SELECT lists, so that all three agree on what a row
//! is. What can go wrong, all at compile time: a rule that matches nothing, a column that does not exist, a key column
//! left out, two tables or columns that end up with one name.

pub mod convert;
mod named;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::change::{Row, RowChange};
use crate::config::{Rename, TransformRule};
use crate::error::{Error, Kind, Result};
use crate::schema::{Key, Pattern, TableName, TableSchema};

/// What happens to every table of a migration.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    tables: BTreeMap<TableName, Arc<TablePlan>>,
    conversion: Option<Arc<dyn Conversion>>,
}

/// How the values of one engine become those of another.
pub trait Conversion: fmt::Debug + Send + Sync {
    /// What converts the rows of a table into one that looks like `there` at the target.
    fn compile(&self, table: &TablePlan, there: &TableSchema) -> Result<Arc<dyn Convert>>;
}

/// Makes a row of another engine's values out of one that has the plan's columns. Compiled once a table.
pub trait Convert: fmt::Debug + Send + Sync {
    /// The row, with the same columns. What a value cannot be made of is an error that names the column.
    fn row(&self, row: &Row) -> Result<Row>;
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
    /// What makes the target's values out of the source's. `None` between two servers of one engine: a value stays the
    /// bytes it arrived as.
    pub convert: Option<Arc<dyn Convert>>,
}

impl Plan {
    /// Compiles the rules against the tables of the source.
    pub fn compile(rules: &[TransformRule], tables: &[Arc<TableSchema>]) -> Result<Plan> {
        Plan::compiled(rules, tables, Named::Exist)
    }

    /// The same for tables that have been migrated for a while: a rule may name columns that are gone since.
    pub fn recompile(rules: &[TransformRule], tables: &[Arc<TableSchema>]) -> Result<Plan> {
        Plan::compiled(rules, tables, Named::MayBeGone)
    }

    fn compiled(rules: &[TransformRule], tables: &[Arc<TableSchema>], named: Named) -> Result<Plan> {
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
                Some(rule) => TablePlan::compile(rule, table, named)?,
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

    /// The same for some of its tables only.
    #[must_use]
    pub fn only(&self, wanted: impl Fn(&TableName) -> bool) -> Plan {
        let tables = self.tables.iter().filter(|(name, _)| wanted(name));
        let tables = tables.map(|(name, plan)| (name.clone(), Arc::clone(plan))).collect();
        Plan { tables, conversion: self.conversion.clone() }
    }

    /// The same between two engines.
    #[must_use]
    pub fn converting(self, conversion: Arc<dyn Conversion>) -> Plan {
        Plan { conversion: Some(conversion), ..self }
    }

    /// A plan for rows that are to be written to `there`: with what converts them, if the engines differ.
    pub fn fitted(&self, table: &Arc<TablePlan>, there: &TableSchema) -> Result<Arc<TablePlan>> {
        let Some(conversion) = &self.conversion else { return Ok(Arc::clone(table)) };
        Ok(Arc::new(TablePlan { convert: Some(conversion.compile(table, there)?), ..TablePlan::clone(table) }))
    }

    /// Takes in the tables of another plan that it does not have itself.
    pub fn join(&mut self, other: &Plan) {
        for (name, table) in &other.tables {
            self.tables.entry(name.clone()).or_insert_with(|| Arc::clone(table));
        }
    }

    /// The same with another plan for some of its tables.
    #[must_use]
    pub fn with(&self, tables: impl IntoIterator<Item = TablePlan>) -> Plan {
        let mut plan = self.clone();
        plan.tables.extend(tables.into_iter().map(|table| (table.source.name.clone(), Arc::new(table))));
        plan
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

/// Whether the columns that a rule names must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Exist,
    MayBeGone,
}

/// What a column of a source table is called at the target, whether or not the table has it now; `None`: it does not
/// travel.
pub fn target_column(rules: &[TransformRule], table: &TableName, column: &str) -> Option<String> {
    let of = |rule: &&TransformRule| Pattern::parse(&rule.pattern).is_ok_and(|pattern| pattern.matches(table));
    let Some(rule) = rules.iter().find(of) else { return Some(column.to_owned()) };
    let there = || rule.rename.columns.get(column).map_or(column, String::as_str).to_owned();
    travels(rule, column).then(there)
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
            convert: None,
        }
    }

    /// The plan for another shape of a table: `left_out` columns do not travel, `renamed` ones have these names at the
    /// target.
    pub fn for_shape(
        rules: &[TransformRule],
        table: &Arc<TableSchema>,
        left_out: &[String],
        renamed: &BTreeMap<String, String>,
    ) -> Result<TablePlan> {
        let of =
            |rule: &&TransformRule| Pattern::parse(&rule.pattern).is_ok_and(|pattern| pattern.matches(&table.name));
        let Some(rule) = rules.iter().find(of) else {
            if left_out.is_empty() && renamed.is_empty() {
                return Ok(TablePlan::untouched(table));
            }
            let rename = Rename { columns: renamed.clone(), ..Rename::default() };
            let columns = left_out.iter().map(|name| format!("!{name}")).collect();
            let rule = TransformRule { pattern: String::new(), rename, columns };
            return TablePlan::compile(&rule, table, Named::MayBeGone);
        };
        let mut rule = rule.clone();
        rule.columns.extend(left_out.iter().map(|name| format!("!{name}")));
        rule.rename.columns.extend(renamed.clone());
        TablePlan::compile(&rule, table, Named::MayBeGone)
    }

    fn compile(rule: &TransformRule, table: &Arc<TableSchema>, named: Named) -> Result<TablePlan> {
        let columns = chosen_columns(rule, table, named)?;
        for renamed in rule.rename.columns.keys() {
            if named == Named::Exist && table.column(renamed).is_none() {
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
        let (source, shaped) = (Arc::clone(table), Arc::new(shaped));
        Ok(TablePlan { source, shaped, columns, passthrough, reshaped, convert: None })
    }

    /// What a column of the source's table is called at the target; `None`: it does not travel.
    pub fn target_name(&self, column: &str) -> Option<&str> {
        let place = self.columns.iter().position(|&index| self.source.columns[index].name == column)?;
        Some(&self.shaped.columns[place].name)
    }

    /// Brings a change into the target's shape.
    pub fn apply(&self, mut change: RowChange) -> Result<RowChange> {
        if !self.passthrough {
            change.old = change.old.map(|row| self.project(&row));
            change.new = change.new.map(|row| self.project(&row));
        }
        if let Some(convert) = &self.convert {
            let converted = |row: Option<Row>| row.map(|row| convert.row(&row)).transpose().map_err(|e| self.blame(&e));
            change.old = converted(change.old)?;
            change.new = converted(change.new)?;
        }
        change.table = Arc::clone(&self.shaped);
        Ok(change)
    }

    /// The same for copied rows, which have the plan's columns already: [`crate::source::CopyFormat::Rows`] where there is
    /// something to convert.
    pub fn convert_rows(&self, mut rows: Bytes) -> Result<Bytes> {
        let Some(convert) = &self.convert else { return Ok(rows) };
        let mut converted = BytesMut::with_capacity(rows.len());
        while !rows.is_empty() {
            let cut = || Error::new(Kind::Protocol, format!("a copied row of {} is cut in two", self.source.name));
            let row = Row::split_from(&mut rows).ok_or_else(cut)?;
            converted.extend_from_slice(convert.row(&row).map_err(|error| self.blame(&error))?.as_bytes());
        }
        Ok(converted.freeze())
    }

    fn blame(&self, error: &Error) -> Error {
        error.clone().context(format!("converting a row of {}", self.source.name))
    }

    fn project(&self, row: &Row) -> Row {
        let fields: Vec<_> = row.fields().collect();
        self.columns.iter().map(|&index| fields[index]).collect()
    }
}

/// Indices of the columns that travel, in the source's order.
fn chosen_columns(rule: &TransformRule, table: &TableSchema, named: Named) -> Result<Vec<usize>> {
    let names = rule.columns.iter().map(|name| name.strip_prefix('!').unwrap_or(name));
    for name in names.filter(|name| *name != "*") {
        if named == Named::Exist && table.column(name).is_none() {
            return Err(bad(rule, &format!("columns: {} has no column {name:?}", table.name)));
        }
    }
    Ok((0..table.columns.len()).filter(|&index| travels(rule, &table.columns[index].name)).collect())
}

fn travels(rule: &TransformRule, column: &str) -> bool {
    let excluded = rule.columns.iter().filter_map(|name| name.strip_prefix('!')).any(|name| name == column);
    let mut included = rule.columns.iter().map(String::as_str).filter(|name| !name.starts_with('!')).peekable();
    !excluded && (included.peek().is_none() || included.any(|name| name == "*" || name == column))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Datum, Op};

    /// Puts a mark before every value; refuses an empty one.
    #[derive(Debug)]
    struct Marking;

    impl Convert for Marking {
        fn row(&self, row: &Row) -> Result<Row> {
            let mut fields = Vec::new();
            for datum in row.fields() {
                fields.push(match datum {
                    Datum::Text(b"") => return Err(Error::new(Kind::BadRow, "an empty value")),
                    Datum::Text(value) => Some([b"+", value].concat()),
                    _ => None,
                });
            }
            Ok(fields.iter().map(|value| value.as_ref().map_or(Datum::Null, |value| Datum::Text(value))).collect())
        }
    }

    /// Marks what goes to a table that has a column for each of the plan's.
    #[derive(Debug)]
    struct MarkingAll;

    impl Conversion for MarkingAll {
        fn compile(&self, table: &TablePlan, there: &TableSchema) -> Result<Arc<dyn Convert>> {
            let why = || Error::new(Kind::Schema, "the target lacks a column");
            (table.columns.len() == there.columns.len()).then(|| Arc::new(Marking) as _).ok_or_else(why)
        }
    }

    #[test]
    fn a_plan_between_two_engines_is_fitted_to_the_target_s_table_and_so_are_its_parts() {
        let table = Arc::new(TableSchema::new(TableName::new("public", "users"), Vec::new(), None));
        let plan = Plan::compile(&[], &[Arc::clone(&table)]).expect("it can be");
        let planned = Arc::clone(plan.get(&table.name).expect("it can be"));
        assert!(plan.fitted(&planned, &table).expect("it can be").convert.is_none(), "one engine: nothing to convert");
        let plan = plan.converting(Arc::new(MarkingAll)).only(|_| true);
        let fitted = plan.fitted(&planned, &table).expect("it can be");
        assert_eq!(fitted.convert_rows(row(&[b"a"]).as_bytes().clone()).expect("it can be"), row(&[b"+a"]).as_bytes());
        let planned = Arc::new(TablePlan { columns: vec![0], ..TablePlan::clone(&planned) });
        assert_eq!(plan.fitted(&planned, &table).expect_err("it cannot be").kind(), Kind::Schema);
    }

    fn row(values: &[&[u8]]) -> Row {
        values.iter().map(|value| Datum::Text(value)).collect()
    }

    #[test]
    fn values_are_converted_alike_in_changes_and_copies_and_an_error_names_the_table() {
        let table = Arc::new(TableSchema::new(TableName::new("public", "users"), Vec::new(), None));
        let plan = TablePlan { convert: Some(Arc::new(Marking)), ..TablePlan::untouched(&table) };
        let change = |new| RowChange {
            table: Arc::clone(&table),
            op: Op::Insert,
            old: None,
            old_is_key_only: false,
            new: Some(new),
        };
        let changed = plan.apply(change(row(&[b"a", b"b"]))).expect("it can be");
        assert_eq!(changed.new, Some(row(&[b"+a", b"+b"])));
        let copied = [row(&[b"a", b"b"]), row(&[b"c"])].map(|row| row.as_bytes().clone()).concat();
        let mut copied = plan.convert_rows(copied.into()).expect("it can be");
        assert_eq!(Row::split_from(&mut copied), changed.new);
        assert_eq!(Row::split_from(&mut copied), Some(row(&[b"+c"])));
        assert!(copied.is_empty());
        for error in [
            plan.apply(change(row(&[b""]))).expect_err("it cannot be"),
            plan.convert_rows(row(&[b""]).as_bytes().clone()).expect_err("it cannot be"),
        ] {
            assert_eq!(error.kind(), Kind::BadRow);
            assert!(error.to_string().contains("public.users"), "{error}");
        }
        let cut = row(&[b"a"]).as_bytes().slice(..4);
        assert_eq!(plan.convert_rows(cut.clone()).expect_err("it cannot be").kind(), Kind::Protocol);
        assert_eq!(
            TablePlan::untouched(&table).convert_rows(cut.clone()).expect("it can be"),
            cut,
            "nothing is looked at"
        );
    }
}
