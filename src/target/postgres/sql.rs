//! The text of the statements that apply changes, and which fields of a row their parameters are.
//!
//! In: a table and the [`Shape`] of what is to be done. Out: a [`Prepared`] text with its [`Layout`]. Sets of rows come
//! in as array parameters:
//!
//! - binary form: an array per column of the column's own type;
//! - text form: an array of text per column, cast to the column's type (without modifier: a value that is too long is
//!   refused by the assignment, not cut by the cast), or of bpchar where a cast function from text exists;
//! - binary form with an array-typed column: that cannot be the element of an array, so one array of the table's row
//!   type per row image.

use crate::error::{Error, Kind, Result};
use crate::schema::{Ident, IdentityColumn};

use super::catalog::{Attribute, TargetTable};
use super::encode::Form;

/// What a statement does. With the form, it identifies a prepared statement of a table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Shape {
    /// COPY of new rows.
    Copy,
    /// A few new rows.
    Insert,
    /// Deletes by key.
    Delete,
    /// Updates by key.
    Update { unchanged: Vec<usize>, key_moves: bool },
    /// Keys into `cutwater.changed_key`: after the keys' come migration, generation and table.
    Track,
    /// One delete of a table without key: one row that equals the old image.
    DeleteWhole,
    /// One update of a table without key, which has no GENERATED ALWAYS identity column: an UPDATE may not set one.
    UpdateWhole { unchanged: Vec<usize> },
}

/// Which of the two rows of a change a value is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The new row; of a delete, the row that holds the key.
    New,
    /// The row that holds the key as it was.
    Origin,
}

/// How rows become parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    /// One array a slot: the column at this index of that side.
    Arrays(Vec<(Side, usize)>),
    /// One array of records a side; of the side's row only these columns, the others NULL.
    Records(Vec<(Side, Vec<usize>)>),
    /// One plain parameter a slot.
    Single(Vec<(Side, usize)>),
    /// COPY: no parameters.
    None,
    /// Of a table without columns: an array with as many NULLs as there are rows.
    Count,
}

/// A statement and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prepared {
    pub sql: String,
    pub layout: Layout,
}

/// What statements are written from.
pub(super) struct Writer<'a> {
    pub table: &'a TargetTable,
    /// Index of the target's attribute for each column of the changes.
    pub attributes: &'a [usize],
    /// Key columns, indices into the columns of the changes.
    pub key: &'a [usize],
    pub form: Form,
}

impl Writer<'_> {
    pub(super) fn write(&self, shape: &Shape) -> Result<Prepared> {
        let all: Vec<usize> = (0..self.attributes.len()).collect();
        match shape {
            Shape::Copy => Ok(Prepared { sql: self.copy(), layout: Layout::None }),
            Shape::Insert if all.is_empty() => Ok(Prepared {
                sql: format!("INSERT INTO {} SELECT FROM unnest($1::pg_catalog.text[])", self.table.name.sql()),
                layout: Layout::Count,
            }),
            Shape::Insert => {
                let source = self.source(&slots(Side::New, &all));
                let sql = format!(
                    "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}",
                    self.table.name.sql(),
                    self.names(&all),
                    source.list(),
                    source.from
                );
                Ok(Prepared { sql, layout: source.layout })
            }
            Shape::Delete => {
                let source = self.source(&slots(Side::New, self.key));
                let sql = format!(
                    "DELETE FROM {} AS t USING {} WHERE {}",
                    self.table.only(),
                    source.from,
                    self.key_matches(&source, Side::New)
                );
                Ok(Prepared { sql, layout: source.layout })
            }
            Shape::Update { unchanged, key_moves } => self.update(unchanged, *key_moves),
            Shape::Track => Ok(self.track()),
            Shape::DeleteWhole => {
                let (find, layout) = self.find_whole(Side::New, 1);
                let sql = format!(
                    "WITH found AS MATERIALIZED ({find}) DELETE FROM {} AS t WHERE {AT_FOUND}",
                    self.table.only()
                );
                Ok(Prepared { sql, layout: Layout::Single(layout) })
            }
            Shape::UpdateWhole { unchanged } => {
                let set: Vec<usize> = all.into_iter().filter(|column| !unchanged.contains(column)).collect();
                let mut layout = slots(Side::New, &set);
                let assignments: Vec<String> = set
                    .iter()
                    .enumerate()
                    .map(|(n, &c)| format!("{} = {}", Ident(&self.attribute(c).name), self.parameter(n + 1, c)))
                    .collect();
                let (find, more) = self.find_whole(Side::Origin, layout.len() + 1);
                layout.extend(more);
                let sql = format!(
                    "WITH found AS MATERIALIZED ({find}) UPDATE {} AS t SET {} WHERE {AT_FOUND}",
                    self.table.only(),
                    assignments.join(", ")
                );
                Ok(Prepared { sql, layout: Layout::Single(layout) })
            }
        }
    }

    /// The text of a key is what `key::text` gives at either end: the form in which verify names and finds rows.
    fn track(&self) -> Prepared {
        let source = self.source(&slots(Side::New, self.key));
        let texts = self.key.iter().map(|&c| format!("({})::pg_catalog.text", source.expression(Side::New, c)));
        let place = 1 + match &source.layout {
            Layout::Records(sides) => sides.len(),
            _ => self.key.len(),
        };
        let sql = format!(
            "INSERT INTO cutwater.changed_key (migration, generation, tbl, hash, key) \
             SELECT ${place}::pg_catalog.text, ${}::pg_catalog.int8, ${}::pg_catalog.text, \
                    pg_catalog.hashtextextended(k.key::pg_catalog.text COLLATE \"C\", 0), k.key \
               FROM (SELECT ARRAY[{}] AS key FROM {}) k ON CONFLICT DO NOTHING",
            place + 1,
            place + 2,
            texts.collect::<Vec<_>>().join(", "),
            source.from
        );
        Prepared { sql, layout: source.layout }
    }

    fn copy(&self) -> String {
        let all: Vec<usize> = (0..self.attributes.len()).collect();
        let format = match self.form {
            Form::Text => "text",
            Form::Binary => "binary",
        };
        format!("COPY {}{} FROM STDIN (FORMAT {format})", self.table.name.sql(), copy_list(&self.names(&all)))
    }

    fn update(&self, unchanged: &[usize], key_moves: bool) -> Result<Prepared> {
        let stays = |column: &usize| !key_moves && self.key.contains(column);
        let columns = 0..self.attributes.len();
        let mut set: Vec<usize> = columns.filter(|column| !unchanged.contains(column) && !stays(column)).collect();
        let replaces = set.iter().any(|&column| self.is_always(column));
        if set.is_empty() {
            // Nothing to set: the statement only checks that the row is there.
            set = self.key.to_vec();
            if set.iter().any(|&column| self.is_always(column)) {
                set.clear();
            }
        }
        let mut wanted = slots(Side::New, &set);
        let by = if key_moves { Side::Origin } else { Side::New };
        for &column in self.key {
            if !wanted.contains(&(by, column)) {
                wanted.push((by, column));
            }
        }
        let source = self.source(&wanted);
        let matches = self.key_matches(&source, by);
        if replaces {
            return Ok(Prepared { sql: self.replace(&set, &source, &matches), layout: source.layout });
        }
        if set.is_empty() {
            // Only a key that may not be set: locking the row finds it as an update would.
            let sql = format!("SELECT 1 FROM {} AS t, {} WHERE {matches}", self.table.only(), source.from);
            return Ok(Prepared { sql, layout: source.layout });
        }
        let assignments: Vec<String> = set
            .iter()
            .map(|&c| format!("{} = {}", Ident(&self.attribute(c).name), source.expression(Side::New, c)))
            .collect();
        let sql = format!(
            "UPDATE {} AS t SET {} FROM {} WHERE {matches}",
            self.table.only(),
            assignments.join(", "),
            source.from
        );
        Ok(Prepared { sql, layout: source.layout })
    }

    /// An UPDATE may not set a GENERATED ALWAYS identity column, an INSERT may: the row is taken out and put back whole,
    /// with what the change does not hold as it was.
    fn replace(&self, set: &[usize], source: &RowSource, matches: &str) -> String {
        let stored: Vec<usize> =
            (0..self.table.attributes.len()).filter(|&index| !self.table.attributes[index].generated).collect();
        let names: Vec<String> =
            stored.iter().map(|&index| Ident(&self.table.attributes[index].name).to_string()).collect();
        let values: Vec<String> = stored
            .iter()
            .zip(&names)
            .enumerate()
            .map(|(n, (index, name))| match set.iter().find(|&&column| self.attributes[column] == *index) {
                Some(&column) => format!("{} AS v{n}", source.expression(Side::New, column)),
                None => format!("t.{name} AS v{n}"),
            })
            .collect();
        format!(
            "WITH gone AS (DELETE FROM {} AS t USING {} WHERE {matches} RETURNING {}) \
             INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT * FROM gone",
            self.table.only(),
            source.from,
            values.join(", "),
            self.table.name.sql(),
            names.join(", ")
        )
    }

    /// Selects the place of one row that equals the old image in every column.
    fn find_whole(&self, side: Side, first_parameter: usize) -> (String, Vec<(Side, usize)>) {
        let all: Vec<usize> = (0..self.attributes.len()).collect();
        let conditions: Vec<String> = all
            .iter()
            .map(|&column| {
                let attribute = self.attribute(column);
                let (name, value) = (Ident(&attribute.name), self.parameter(first_parameter + column, column));
                // 1.0 equals 1.00, and json has no "=": the text form decides. That of a record, because its fields are
                // printed by their output functions; a cast to text would lose blanks, or be one of the user's own.
                let as_text = format!("ROW(s.{name})::pg_catalog.text = ROW({value})::pg_catalog.text");
                match &attribute.equality {
                    Some(schema) if schema == "pg_catalog" && attribute.equality_is_identity() => {
                        format!("s.{name} IS NOT DISTINCT FROM {value}")
                    }
                    _ => as_text,
                }
            })
            .collect();
        let filter = if conditions.is_empty() { "true".to_owned() } else { conditions.join(" AND ") };
        let sql = format!("SELECT s.tableoid, s.ctid FROM {} AS s WHERE {filter} LIMIT 1", self.table.only());
        (sql, slots(side, &all))
    }

    /// A plain parameter, typed as the column.
    fn parameter(&self, number: usize, column: usize) -> String {
        let ty = self.attribute(column).type_sql();
        match self.form {
            Form::Binary => format!("${number}::{ty}"),
            Form::Text => format!("${number}::{}::{ty}", self.attribute(column).text_carrier().sql()),
        }
    }

    fn attribute(&self, column: usize) -> &Attribute {
        &self.table.attributes[self.attributes[column]]
    }

    fn is_always(&self, column: usize) -> bool {
        self.attribute(column).identity == Some(IdentityColumn::Always)
    }

    fn names(&self, columns: &[usize]) -> String {
        columns.iter().map(|&c| Ident(&self.attribute(c).name).to_string()).collect::<Vec<_>>().join(", ")
    }

    fn key_matches(&self, source: &RowSource, side: Side) -> String {
        self.key
            .iter()
            .map(|&column| {
                let attribute = self.attribute(column);
                let schema = attribute.equality.as_deref().unwrap_or("pg_catalog");
                let value = source.expression(side, column);
                let as_base = attribute.domain_of.as_ref().map(|base| format!("::{base}")).unwrap_or_default();
                format!("t.{}{as_base} OPERATOR({}.=) {value}{as_base}", Ident(&attribute.name), Ident(schema))
            })
            .collect::<Vec<_>>()
            .join(" AND ")
    }

    /// The rows as a FROM item called `u`, and the expression of each slot.
    fn source(&self, wanted: &[(Side, usize)]) -> RowSource {
        let records = self.form == Form::Binary && wanted.iter().any(|&(_, column)| self.attribute(column).is_array);
        if records { self.records(wanted) } else { self.arrays(wanted) }
    }

    // `unnest` of several arrays is grammar, not a function: it must not be qualified (search_path is pg_catalog).
    fn arrays(&self, wanted: &[(Side, usize)]) -> RowSource {
        let mut params = Vec::new();
        let mut names = Vec::new();
        let mut expressions = Vec::new();
        for (n, &(side, column)) in wanted.iter().enumerate() {
            let ty = self.attribute(column).type_sql();
            names.push(format!("c{n}"));
            match self.form {
                Form::Binary => {
                    params.push(format!("${}::{ty}[]", n + 1));
                    expressions.push((side, column, format!("u.c{n}")));
                }
                Form::Text => {
                    params.push(format!("${}::{}[]", n + 1, self.attribute(column).text_carrier().sql()));
                    expressions.push((side, column, format!("u.c{n}::{ty}")));
                }
            }
        }
        let from = format!("unnest({}) AS u({})", params.join(", "), names.join(", "));
        RowSource { from, expressions, layout: Layout::Arrays(wanted.to_vec()) }
    }

    fn records(&self, wanted: &[(Side, usize)]) -> RowSource {
        let width = self.table.attributes.len();
        let mut sides: Vec<(Side, Vec<usize>)> = Vec::new();
        let mut expressions = Vec::new();
        for &(side, column) in wanted {
            let index = sides.iter().position(|(other, _)| *other == side).unwrap_or_else(|| {
                sides.push((side, Vec::new()));
                sides.len() - 1
            });
            sides[index].1.push(column);
            expressions.push((side, column, format!("u.c{}", index * width + self.attributes[column])));
        }
        let params: Vec<String> = (1..=sides.len()).map(|n| format!("${n}::{}[]", self.table.name.sql())).collect();
        let names: Vec<String> = (0..sides.len() * width).map(|n| format!("c{n}")).collect();
        let from = format!("unnest({}) AS u({})", params.join(", "), names.join(", "));
        RowSource { from, expressions, layout: Layout::Records(sides) }
    }
}

/// The column list of a COPY; a table without columns has none, and `()` is no syntax.
pub(super) fn copy_list(names: &str) -> String {
    if names.is_empty() { String::new() } else { format!(" ({names})") }
}

/// TID scans find the row at once; `tableoid` tells the partitions apart.
const AT_FOUND: &str = "t.ctid = (SELECT ctid FROM found) AND t.tableoid = (SELECT tableoid FROM found)";

fn slots(side: Side, columns: &[usize]) -> Vec<(Side, usize)> {
    columns.iter().map(|&column| (side, column)).collect()
}

struct RowSource {
    from: String,
    expressions: Vec<(Side, usize, String)>,
    layout: Layout,
}

impl RowSource {
    fn expression(&self, side: Side, column: usize) -> &str {
        let found = self.expressions.iter().find(|(s, c, _)| (*s, *c) == (side, column));
        found.map(|(_, _, expression)| expression.as_str()).expect("every slot used was asked for")
    }

    fn list(&self) -> String {
        self.expressions.iter().map(|(_, _, expression)| expression.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// The target has no such table.
pub(super) fn no_table(name: &crate::schema::TableName) -> Error {
    Error::new(Kind::Schema, format!("the target has no table {name}")).fix(format!(
        "create {name} at the target (cutwater schema prints its DDL), or leave it out with [source] tables = [\"!{name}\"]"
    ))
}
