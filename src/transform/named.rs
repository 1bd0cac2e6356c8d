//! The names of a target of another engine, in a plan; and what the rules chose, in the mapping.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::{Plan, TablePlan};
use crate::error::{Error, Kind, Result};
use crate::schema::TableName;
use crate::schema::mapping::{MappedColumn, MappedTable, Mapping};

impl Plan {
    /// Gives every table and column the name that the mapping has for it, unless a rule named it, and leaves in the mapping
    /// what the plan has, by the names of the plan: rows and DDL then agree. Every table of the plan must be in the mapping.
    pub fn mapped(&self, mapping: &mut Mapping) -> Result<Plan> {
        let mut kept = BTreeMap::new();
        let mut tables = BTreeMap::new();
        let mut taken: HashMap<TableName, TableName> = HashMap::new();
        for plan in self.tables() {
            let source = &plan.source.name;
            let missing = || Error::new(Kind::Internal, format!("{source} is not in the mapping"));
            let mapped = mapping.tables.get(source).ok_or_else(missing)?;
            let (shaped, table) = named(plan, mapped).ok_or_else(missing)?;
            if let Some(other) = taken.insert(table.name.clone(), source.clone()) {
                let why = format!("{other} and {source} would both become {}", table.name);
                return Err(Error::new(Kind::Config, why).fix("give one of them another name: [[transform]] rename"));
            }
            let mut names = HashSet::new();
            if let Some(twice) = table.columns.iter().find(|column| !names.insert(&column.name)) {
                let why = format!("two columns of {source} would be called {:?}", twice.name);
                return Err(Error::new(Kind::Config, why).fix("give one of them another name: [[transform]] rename"));
            }
            kept.insert(source.clone(), table);
            tables.insert(source.clone(), Arc::new(shaped));
        }
        mapping.tables = kept;
        Ok(Plan { tables, conversion: self.conversion.clone() })
    }
}

/// The plan and the mapping of one table, with the same names; `None` if the mapping lacks a column.
fn named(plan: &TablePlan, mapped: &MappedTable) -> Option<(TablePlan, MappedTable)> {
    let source = &plan.source;
    let mut shaped = (*plan.shaped).clone();
    // What a rule did not touch is called there as it is at the source.
    if shaped.name.schema == source.name.schema {
        shaped.name.schema.clone_from(&mapped.name.schema);
    }
    if shaped.name.table == source.name.table {
        shaped.name.table.clone_from(&mapped.name.table);
    }
    let mut columns = Vec::with_capacity(shaped.columns.len());
    for (column, &index) in shaped.columns.iter_mut().zip(&plan.columns) {
        let at_source = &source.columns[index].name;
        let mapped = mapped.column(at_source)?;
        if column.name == *at_source {
            column.name.clone_from(&mapped.name);
        }
        columns.push(MappedColumn { name: column.name.clone(), ..mapped.clone() });
    }
    let table = MappedTable { name: shaped.name.clone(), columns };
    Some((TablePlan { shaped: Arc::new(shaped), ..plan.clone() }, table))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::config::{Rename, TransformRule};
    use crate::schema::mapping::PgType;
    use crate::schema::{Column, ColumnType, MySqlType, TableSchema};

    fn plan(rename: Rename, columns: &[&str]) -> (Plan, Mapping) {
        let ty = ColumnType::mysql("int", MySqlType::parse("int"));
        let of = ["Id", "Owner", "Note"].map(|name| Column::new(name, ty.clone()));
        let table = TableSchema::new(TableName::new("shop", "Accounts"), of.to_vec(), Some(vec![0]));
        let columns = columns.iter().map(|name| (*name).to_owned()).collect();
        let rule = TransformRule { pattern: "shop.Accounts".into(), rename, columns };
        let mapped = |name: &str| MappedColumn { source: name.into(), name: name.to_lowercase(), ty: PgType::Integer };
        let mapped = MappedTable {
            name: TableName::new("public", "accounts"),
            columns: ["Id", "Owner", "Note"].map(mapped).to_vec(),
        };
        let tables = BTreeMap::from([(table.name.clone(), mapped)]);
        (Plan::compile(&[rule], &[Arc::new(table)]).unwrap(), Mapping { tables })
    }

    #[test]
    fn a_rule_names_what_it_names_and_the_mapping_the_rest() {
        let rename = Rename {
            table: Some("Konten".into()),
            columns: BTreeMap::from([("Owner".into(), "Holder".into())]),
            ..Rename::default()
        };
        let (plan, mut mapping) = plan(rename, &["!Note"]);
        let plan = plan.mapped(&mut mapping).unwrap();
        let table = plan.tables().next().unwrap();
        assert_eq!(table.shaped.name, TableName::new("public", "Konten"));
        let names: Vec<&str> = table.shaped.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["id", "Holder"]);
        let mapped = &mapping.tables[&table.source.name];
        assert_eq!(mapped.name, table.shaped.name);
        let sources: Vec<(&str, &str)> = mapped.columns.iter().map(|c| (c.source.as_str(), c.name.as_str())).collect();
        assert_eq!(sources, [("Id", "id"), ("Owner", "Holder")], "a column that is left out is in no DDL");
    }

    #[test]
    fn names_that_become_one_are_refused() {
        let rename = Rename { columns: BTreeMap::from([("Owner".into(), "note".into())]), ..Rename::default() };
        let (plan, mut mapping) = plan(rename, &[]);
        assert!(plan.mapped(&mut mapping).unwrap_err().to_string().contains("\"note\""));
    }
}
