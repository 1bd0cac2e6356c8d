//! From one engine's tables to another's: names, types, and the DDL that makes them.
//!
//! In: [`TableDefinition`]s of a MySQL or MariaDB server, and what the config chose ([`Rules`], [`Naming`]). Out: a
//! [`Mapping`]: for each table what it and its columns are called at the target and of which type they are there, from
//! which `transform::convert` makes its converters and [`ddl`] its statements. What can go wrong, all of it before
//! anything is made: a type that is not known, a rule that asks for what cannot be, two names that become one, a name
//! that is too long.

pub mod ddl;
mod pg_type;
mod rules;
mod to_postgres;
mod translate;

use std::collections::{BTreeMap, HashMap};

pub use pg_type::PgType;
pub use rules::{Matches, Rules};
pub use to_postgres::{MYSQL_TO_POSTGRES, Row, convertible, default_type, markdown};

use crate::error::{Error, Kind, Result};
use crate::schema::{MySqlKind, TableDefinition, TableName};

/// What identifiers become.
#[derive(Debug, Clone)]
pub struct Naming {
    /// The database of the source's URL …
    pub database: String,
    /// … becomes this schema; other databases keep their names.
    pub namespace: String,
    /// Whether names are lower-cased, so that unquoted SQL still finds them.
    pub lower: bool,
}

/// Tables of one engine as tables of the other.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// By name at the source.
    pub tables: BTreeMap<TableName, MappedTable>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedTable {
    /// Its name at the target.
    pub name: TableName,
    /// The columns that travel, in order.
    pub columns: Vec<MappedColumn>,
}

/// One column that travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedColumn {
    /// Its name at the source.
    pub source: String,
    /// Its name at the target.
    pub name: String,
    /// Its type at the target.
    pub ty: PgType,
}

impl MappedTable {
    /// The column that is called so at the source.
    pub fn column(&self, source: &str) -> Option<&MappedColumn> {
        self.columns.iter().find(|column| column.source == source)
    }

    /// The types of its columns, in order.
    pub fn types(&self) -> Vec<PgType> {
        self.columns.iter().map(|column| column.ty.clone()).collect()
    }
}

impl Mapping {
    /// Maps these tables.
    pub fn compile(tables: &[TableDefinition], rules: &Rules, naming: &Naming) -> Result<Mapping> {
        let mut mapping = Mapping { tables: BTreeMap::new() };
        let mut taken: HashMap<TableName, &TableName> = HashMap::new();
        for definition in tables {
            let source = &definition.table.name;
            let schema = match source.schema == naming.database {
                true => naming.namespace.clone(),
                false => naming.identifier(&source.schema, || format!("the database {:?}", source.schema))?,
            };
            let what = || format!("the table {source}");
            let name = TableName { schema, table: naming.identifier(&source.table, what)? };
            if let Some(other) = taken.insert(name.clone(), source) {
                let why = format!("{other} and {source} would both become {name}");
                return Err(
                    Error::new(Kind::Config, why).fix("[schema] names = \"keep\" keeps upper and lower case apart")
                );
            }
            let mut columns: Vec<MappedColumn> = Vec::new();
            for column in &definition.table.columns {
                let what = || format!("the column {source}.{}", column.name);
                let name = naming.identifier(&column.name, what)?;
                if let Some(other) = columns.iter().find(|other| other.name == name) {
                    let why = format!(
                        "{source}: columns {:?} and {:?} would both become {name:?}",
                        other.source, column.name
                    );
                    return Err(
                        Error::new(Kind::Config, why).fix("[schema] names = \"keep\" keeps upper and lower case apart")
                    );
                }
                let ty = rules.choose(source, column)?;
                columns.push(MappedColumn { source: column.name.clone(), name, ty });
            }
            mapping.tables.insert(source.clone(), MappedTable { name, columns });
        }
        mapping.fit_identities(tables, rules);
        Ok(mapping)
    }

    /// An identity is at most a `bigint`, and so is what refers to it: `bigint unsigned` becomes that there.
    fn fit_identities(&mut self, tables: &[TableDefinition], rules: &Rules) {
        let wide = |definition: &TableDefinition, column: &str| {
            let column = definition.table.column(column)?;
            let ty = column.ty.mysql.as_deref()?;
            let free = rules.find(&definition.table.name, column).is_none();
            (ty.kind == MySqlKind::BigInt && ty.unsigned && free).then_some(())
        };
        for definition in tables {
            for column in definition.columns.iter().filter(|column| column.auto_increment) {
                if wide(definition, &column.name).is_some() {
                    self.set(&definition.table.name, &column.name, PgType::BigInt);
                }
            }
        }
        // Keys refer to columns that refer in turn: until nothing changes any more.
        let mut changed = true;
        while std::mem::take(&mut changed) {
            for definition in tables {
                for key in &definition.foreign_keys {
                    for (here, there) in key.columns.iter().zip(&key.referenced_columns) {
                        let parent = self.tables.get(&key.referenced).and_then(|table| table.column(there));
                        let Some(ty) = parent.map(|column| column.ty.clone()) else { continue };
                        if wide(definition, here).is_some() && ty == PgType::BigInt {
                            changed |= self.set(&definition.table.name, here, ty);
                        }
                    }
                }
            }
        }
    }

    fn set(&mut self, table: &TableName, column: &str, ty: PgType) -> bool {
        let columns = self.tables.get_mut(table).into_iter().flat_map(|table| &mut table.columns);
        match columns.into_iter().find(|mapped| mapped.source == column) {
            Some(mapped) if mapped.ty != ty => {
                mapped.ty = ty;
                true
            }
            _ => false,
        }
    }
}

/// The longest identifier of Postgres, in bytes (`NAMEDATALEN` - 1).
pub const LONGEST_NAME: usize = 63;

impl Naming {
    /// What an identifier is called at the target.
    fn identifier(&self, name: &str, what: impl FnOnce() -> String) -> Result<String> {
        let mapped = if self.lower { name.to_lowercase() } else { name.to_owned() };
        if mapped.len() > LONGEST_NAME {
            let why = format!("the name of {} has {} bytes, Postgres allows {LONGEST_NAME}", what(), mapped.len());
            return Err(Error::new(Kind::Config, why)
                .fix("leave it out with [source] tables, or give it a shorter name at the source"));
        }
        Ok(mapped)
    }
}

#[cfg(test)]
mod tests;
