//! Rows of a MySQL or MariaDB source into the text that Postgres reads.
//!
//! In: a row in the source's canonical form (text as the server prints it, bytes as they are stored). Out: a row of the
//! same fields whose values are the text form of the target's types; where the type prints one text for a value, it is
//! that text, so that a comparison of both ends can go by bytes (not so for floats and JSON, which are compared by value).
//! What a column needs is decided once a table, in [`Converter::compile`]; a row then costs no allocation beyond itself
//! and a scratch buffer that is kept.
//!
//! A value that the target's type does not have follows `[values]`. The default is to stop, with table, key, column,
//! value and the setting to change (law 8). NULL and values that were not sent pass as they are.

mod step;
mod time;

use std::cell::Cell;
use std::sync::Arc;

use super::{Conversion, Convert, TablePlan};
use crate::change::{Datum, Row, RowBuilder};
use crate::config::ValuesConfig;
use crate::error::{Error, Kind, Result};
use crate::schema::mapping::{PgType, convertible};
use crate::schema::{self, MySqlKind, TableSchema};
use step::{Done, Refused, Step};

/// What makes a table's rows fit for the target.
#[derive(Debug, Clone)]
pub struct Converter {
    table: Arc<TableSchema>,
    columns: Vec<Column>,
    values: ValuesConfig,
    /// Whether no value of it ever changes.
    untouched: bool,
}

#[derive(Debug, Clone)]
struct Column {
    to: PgType,
    step: Step,
    in_key: bool,
}

thread_local! {
    /// Where a value is written that is not a part of what came; kept from row to row.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Converter {
    /// What converts rows of these columns of `source` for a table as it is at the target; `shaped` has the same columns by
    /// their names there. A type that the mapping does not have is one that was made for an enum.
    pub fn into_table(
        source: &TableSchema,
        columns: &[usize],
        shaped: &TableSchema,
        there: &TableSchema,
        values: ValuesConfig,
    ) -> Result<Converter> {
        let picked = columns.iter().map(|&index| source.columns[index].clone()).collect();
        let table = TableSchema { columns: picked, key: shaped.key.clone(), ..source.clone() };
        let type_of = |column: &schema::Column| {
            let at_target = there.column(&column.name).ok_or_else(|| {
                let why = format!("{} has no column {:?} for what {} holds", there.name, column.name, source.name);
                Error::new(Kind::Schema, why)
            })?;
            let enumerated = column.ty.mysql.as_deref().is_some_and(|ty| ty.kind == MySqlKind::Enum);
            // citext is public.citext to a session that sees the server's own types alone.
            let display = at_target.ty.display.rsplit('.').next().unwrap_or_default();
            PgType::parse(display).or(enumerated.then_some(PgType::Enum)).ok_or_else(|| {
                let why = format!("{}.{} is {}, into which nothing is converted", there.name, column.name, display);
                Error::new(Kind::Schema, why).fix("docs/types.md has the types that a column may have there")
            })
        };
        let types = shaped.columns.iter().map(type_of).collect::<Result<Vec<_>>>()?;
        Converter::compile(&Arc::new(table), &types, values)
    }

    /// Compiles the conversion of a source table's rows, its columns into these types of the target.
    pub fn compile(table: &Arc<TableSchema>, types: &[PgType], values: ValuesConfig) -> Result<Converter> {
        let mut columns = Vec::with_capacity(table.columns.len());
        for (place, (column, to)) in table.columns.iter().zip(types).enumerate() {
            let from = column.ty.mysql.as_deref().filter(|from| convertible(from, to)).ok_or_else(|| {
                let why = format!("{}.{}: {} cannot be carried as {to}", table.name, column.name, column.ty.display);
                Error::new(Kind::Schema, why)
                    .fix("choose another type with [[schema.type]]; docs/types.md has the list")
            })?;
            let in_key = table.key.as_ref().is_some_and(|key| key.columns.contains(&place));
            columns.push(Column { step: Step::compile(from, to), to: to.clone(), in_key });
        }
        if types.len() != table.columns.len() {
            let why = format!("{} has {} columns, {} types are given", table.name, table.columns.len(), types.len());
            return Err(Error::new(Kind::Internal, why));
        }
        let untouched = columns.iter().all(|column| matches!(column.step, Step::Same));
        Ok(Converter { table: Arc::clone(table), columns, values, untouched })
    }

    /// Converts one row; it may be an old image that holds the key alone.
    pub fn row(&self, row: &Row) -> Result<Row> {
        if self.untouched {
            return Ok(row.clone());
        }
        if row.len() != self.columns.len() {
            let why = format!("a row of {} has {} fields, not {}", self.table.name, row.len(), self.columns.len());
            return Err(Error::new(Kind::Protocol, why));
        }
        let mut scratch = SCRATCH.take();
        let converted = self.write(row, &mut scratch);
        // A value of many megabytes is no reason to hold as much for ever.
        if scratch.capacity() <= 1 << 20 {
            SCRATCH.set(scratch);
        }
        converted
    }

    fn write(&self, row: &Row, scratch: &mut Vec<u8>) -> Result<Row> {
        let mut out = RowBuilder::with_capacity(row.size() + row.size() / 4);
        for (place, (datum, column)) in row.fields().zip(&self.columns).enumerate() {
            let Some(value) = datum.bytes() else {
                out.push(datum);
                continue;
            };
            scratch.clear();
            match column.step.convert(value, self.values, scratch) {
                Ok(Done::Same(value)) => out.push(Datum::Text(value)),
                Ok(Done::Written) => out.push(Datum::Text(scratch)),
                Ok(Done::Null) if column.in_key => {
                    let why = "the policy makes it NULL, which a key cannot be".to_owned();
                    return Err(self.refusal(row, place, value, &Refused { why, setting: "" }));
                }
                Ok(Done::Null) => out.push(Datum::Null),
                Err(refused) => return Err(self.refusal(row, place, value, &refused)),
            }
        }
        Ok(out.finish())
    }

    /// Table, key, column, value and the setting to change.
    #[cold]
    fn refusal(&self, row: &Row, place: usize, value: &[u8], refused: &Refused) -> Error {
        let column = &self.table.columns[place];
        let keys = self.table.key.iter().flat_map(|key| &key.columns);
        let key: Vec<String> = keys
            .map(|&at| {
                let value = row.get(at).and_then(Datum::bytes).map_or("NULL".to_owned(), shortened);
                format!("{} = {value}", self.table.columns[at].name)
            })
            .collect();
        let key = if key.is_empty() { "a row without key".to_owned() } else { format!("the row {}", key.join(", ")) };
        let why = format!(
            "{}: {key}: column {:?} ({}) holds {}, which {} cannot hold: {}",
            self.table.name,
            column.name,
            column.ty.display,
            shortened(value),
            self.columns[place].to,
            refused.why
        );
        let rule = format!("[[schema.type]] match = \"{}.{}\" with another type", self.table.name, column.name);
        let fix = match refused.setting {
            "" => rule,
            setting => format!("set {setting} in [values], or {rule}"),
        };
        Error::new(Kind::BadRow, why).fix(fix)
    }
}

impl Convert for Converter {
    fn row(&self, row: &Row) -> Result<Row> {
        Converter::row(self, row)
    }
}

/// From MySQL or MariaDB to Postgres, by these policies.
#[derive(Debug, Clone, Copy)]
pub struct MySqlToPostgres(pub ValuesConfig);

impl Conversion for MySqlToPostgres {
    fn compile(&self, table: &TablePlan, there: &TableSchema) -> Result<Arc<dyn Convert>> {
        let converter = Converter::into_table(&table.source, &table.columns, &table.shaped, there, self.0)?;
        Ok(Arc::new(converter))
    }
}

/// A value for people: at most 40 characters, bytes as hex.
fn shortened(value: &[u8]) -> String {
    let head = &value[..value.len().min(160)];
    let printable = |text: &&str| !text.chars().any(char::is_control);
    // A character may be cut in two at the end of what is looked at.
    let text = match std::str::from_utf8(head) {
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&head[..error.valid_up_to()]).ok(),
        other => other.ok(),
    };
    let text = match text.filter(printable) {
        Some(text) => text.to_owned(),
        None => format!("\\x{}", head.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    };
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() || head.len() < value.len() {
        short.push('…');
    }
    format!("\"{short}\"")
}

#[cfg(test)]
mod tests;
