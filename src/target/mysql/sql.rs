//! The statements that apply changes, as text.
//!
//! In: a table's [`Entry`] and rows. Out: statements of bounded size, each with the number of rows that it must touch.
//! Sets of rows are one INSERT of many rows, one DELETE of a list of keys, or, where several columns decide or are set, a
//! join with a derived table of literals. The join is a STRAIGHT_JOIN: the list is read once and each of its rows found by
//! the table's key; left to itself the optimizer may do it the other way round, and read the table.

use super::literal;
use super::tables::{Column, Entry};
use crate::change::{Datum, Row};
use crate::error::{Error, Kind, Result};
use crate::mysql::{Server, Session};
use crate::schema::MySqlKind;
use crate::target::plan::key_fields;

/// Rows of one statement: longer lists gain nothing, and the optimizer gives up looking rows up by their keys.
const ROWS: usize = 1000;
/// Bytes of one statement, unless a single row is larger.
const BYTES: usize = 512 << 10;

/// How a derived table of literals is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    /// MariaDB ≥ 10.3: `UNION ALL VALUES (1), (2)`
    Plain,
    /// MySQL ≥ 8.0.19: `UNION ALL VALUES ROW(1), ROW(2)`
    Row,
    /// Before: `UNION ALL SELECT 1 UNION ALL SELECT 2`
    Select,
}

/// Writes statements for a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer {
    values: Values,
    largest: usize,
}

/// A statement and how many rows it must touch.
pub(super) struct Statement {
    pub sql: Vec<u8>,
    pub rows: u64,
}

/// An update of a row: what is new, and the row that holds the key as it was, if that changes.
pub(super) type Changed<'r> = (&'r Row, Option<&'r Row>);

impl Writer {
    pub(super) fn new(session: &Session) -> Writer {
        let values = |server: &Server| match server.version {
            _ if server.is_mariadb() => Values::Plain,
            version if version >= (8, 0, 19) => Values::Row,
            _ => Values::Select,
        };
        Writer { values: values(session.server()), largest: super::session::largest_statement(session) }
    }

    /// Bytes of the largest statement.
    pub(super) fn largest(&self) -> usize {
        self.largest
    }

    /// INSERTs of whole rows.
    pub(super) fn insert<'r>(&self, entry: &Entry, rows: impl Iterator<Item = &'r Row>) -> Result<Vec<Statement>> {
        let mut head = format!("INSERT INTO {} (", entry.sql).into_bytes();
        for (n, column) in entry.columns.iter().enumerate() {
            comma(&mut head, n);
            head.extend_from_slice(column.sql.as_bytes());
        }
        head.extend_from_slice(b") VALUES ");
        let between = |_| -> &'static [u8] { b", " };
        self.lists(
            entry,
            (&head, b""),
            between,
            rows,
            |row| row,
            |out, row, _| {
                out.push(b'(');
                for (n, (column, datum)) in entry.columns.iter().zip(row.fields()).enumerate() {
                    comma(out, n);
                    literal::push(out, &column.ty, datum);
                }
                out.push(b')');
            },
        )
    }

    /// DELETEs by key.
    pub(super) fn delete<'r>(&self, entry: &Entry, rows: impl Iterator<Item = &'r Row>) -> Result<Vec<Statement>> {
        let key = entry.key();
        if let [column] = key {
            let column = &entry.columns[*column];
            let head = format!("DELETE FROM {} WHERE {} IN (", entry.sql, column.sql);
            let between = |_| -> &'static [u8] { b", " };
            return self.lists(
                entry,
                (head.as_bytes(), b")"),
                between,
                rows,
                |row| row,
                |out, row, _| {
                    key_fields(key, row).for_each(|datum| literal::push(out, &column.ty, datum));
                },
            );
        }
        if entry.joins() {
            let tail = format!(") AS d STRAIGHT_JOIN {} AS t ON {}", entry.sql, matches(entry, 0));
            let rows = rows.map(|row| (row, None));
            return self.derived(entry, "DELETE t FROM (", &tail, &[], key, rows);
        }
        rows.map(|row| self.single(entry, &format!("DELETE FROM {}", entry.sql), |out| by_key(out, entry, row)))
            .collect()
    }

    /// UPDATEs by key of everything but these columns.
    pub(super) fn update<'r>(
        &self,
        entry: &Entry,
        unchanged: &[usize],
        key_moves: bool,
        rows: impl Iterator<Item = Changed<'r>>,
    ) -> Result<Vec<Statement>> {
        let set = self.set(entry, unchanged, key_moves);
        if entry.joins() && !set.is_empty() {
            let assign: Vec<String> = set
                .iter()
                .enumerate()
                .map(|(n, &column)| format!("t.{} = d.c{n}", entry.columns[column].sql))
                .chain(stays(entry, &set).map(|column| format!("t.{column} = t.{column}")))
                .collect();
            let tail = format!(
                ") AS d STRAIGHT_JOIN {} AS t ON {} SET {}",
                entry.sql,
                matches(entry, set.len()),
                assign.join(", ")
            );
            return self.derived(entry, "UPDATE (", &tail, &set, entry.key(), rows);
        }
        rows.map(|(new, origin)| {
            self.single(entry, &format!("UPDATE {} SET ", entry.sql), |out| {
                assignments(out, entry, &set, new);
                by_key(out, entry, origin.unwrap_or(new));
            })
        })
        .collect()
    }

    /// A DELETE of one row that equals the old image.
    pub(super) fn delete_whole(&self, entry: &Entry, old: &Row) -> Result<Statement> {
        self.single(entry, &format!("DELETE FROM {}", entry.sql), |out| by_whole(out, entry, old))
    }

    /// An UPDATE of one row that equals the old image.
    pub(super) fn update_whole(&self, entry: &Entry, unchanged: &[usize], new: &Row, old: &Row) -> Result<Statement> {
        let set: Vec<usize> = (0..entry.columns.len()).filter(|column| !unchanged.contains(column)).collect();
        self.single(entry, &format!("UPDATE {} SET ", entry.sql), |out| {
            assignments(out, entry, &set, new);
            by_whole(out, entry, old);
        })
    }

    /// Columns that an update sets; of one that sets nothing the key, to what it is: it checks that the row is there.
    fn set(&self, entry: &Entry, unchanged: &[usize], key_moves: bool) -> Vec<usize> {
        let stays = |column: &usize| unchanged.contains(column) || (!key_moves && entry.key().contains(column));
        let set: Vec<usize> = (0..entry.columns.len()).filter(|column| !stays(column)).collect();
        if set.is_empty() { entry.key().to_vec() } else { set }
    }

    /// Statements around a derived table whose columns `c0`, `c1` … are those of `set` and then those of `key`.
    pub(super) fn derived<'r>(
        &self,
        entry: &Entry,
        head: &str,
        tail: &str,
        set: &[usize],
        key: &[usize],
        rows: impl Iterator<Item = Changed<'r>>,
    ) -> Result<Vec<Statement>> {
        let types: Vec<_> = set.iter().chain(key).map(|&column| &entry.columns[column].ty).collect();
        let values = self.values;
        let mut fields: Vec<Datum<'_>> = Vec::new();
        let push = |out: &mut Vec<u8>, (new, origin): Changed<'r>, first: bool| {
            fields.clear();
            fields.extend(new.fields());
            let chosen = set.iter().map(|&column| fields.get(column).copied().unwrap_or(Datum::Null));
            let chosen = chosen.chain(key_fields(key, origin.unwrap_or(new)));
            out.extend_from_slice(match values {
                Values::Plain if !first => b"(",
                Values::Row if !first => b"ROW(",
                _ => b"SELECT ",
            });
            for (n, (ty, datum)) in types.iter().zip(chosen).enumerate() {
                comma(out, n);
                literal::push(out, ty, datum);
                if first {
                    out.extend_from_slice(format!(" AS c{n}").as_bytes());
                }
            }
            if !first && values != Values::Select {
                out.push(b')');
            }
        };
        let between = |count: usize| -> &'static [u8] {
            match values {
                Values::Select => b" UNION ALL ",
                _ if count == 1 => b" UNION ALL VALUES ",
                _ => b", ",
            }
        };
        self.lists(entry, (head.as_bytes(), tail.as_bytes()), between, rows, |(new, _)| new, push)
    }

    /// Statements that hold a list of rows each. A row is written by `push`, which is told whether it is the first.
    fn lists<'r, T: Copy>(
        &self,
        entry: &Entry,
        (head, tail): (&[u8], &[u8]),
        between: impl Fn(usize) -> &'static [u8],
        rows: impl Iterator<Item = T>,
        new: impl Fn(T) -> &'r Row,
        mut push: impl FnMut(&mut Vec<u8>, T, bool),
    ) -> Result<Vec<Statement>> {
        let enough = BYTES.min(self.largest / 2);
        let mut statements = Vec::new();
        let mut sql = Vec::new();
        let mut count = 0;
        let mut end = |sql: &mut Vec<u8>, count: &mut usize| {
            sql.extend_from_slice(tail);
            statements.push(Statement { sql: std::mem::take(sql), rows: std::mem::take(count) as u64 });
        };
        for row in rows {
            if count > 0 {
                let before = sql.len();
                sql.extend_from_slice(between(count));
                push(&mut sql, row, false);
                count += 1;
                if sql.len() + tail.len() > self.largest {
                    // It has to go alone.
                    sql.truncate(before);
                    count -= 1;
                    end(&mut sql, &mut count);
                }
            }
            if count == 0 {
                sql.extend_from_slice(head);
                push(&mut sql, row, true);
                count = 1;
                if sql.len() + tail.len() > self.largest {
                    return Err(too_large(entry, sql.len() + tail.len(), self.largest, &key_of(entry, new(row))));
                }
            }
            if count == ROWS || sql.len() >= enough {
                end(&mut sql, &mut count);
            }
        }
        if count > 0 {
            end(&mut sql, &mut count);
        }
        Ok(statements)
    }

    fn single(&self, entry: &Entry, head: &str, push: impl FnOnce(&mut Vec<u8>)) -> Result<Statement> {
        let mut sql = head.as_bytes().to_vec();
        push(&mut sql);
        if sql.len() > self.largest {
            return Err(too_large(entry, sql.len(), self.largest, ""));
        }
        Ok(Statement { sql, rows: 1 })
    }
}

fn too_large(entry: &Entry, bytes: usize, largest: usize, key: &str) -> Error {
    let why = format!(
        "a row of {}{key} is a statement of {bytes} bytes, and the target takes {largest} (max_allowed_packet)",
        entry.schema.name
    );
    let megabytes = (bytes + (1 << 16)).div_ceil(1 << 20).next_power_of_two();
    Error::new(Kind::ServerSetting, why).fix(format!(
        "SET GLOBAL max_allowed_packet = {};  at the target (it takes up to 1 GB), and in its configuration",
        (megabytes << 20).min(1 << 30)
    ))
}

/// ` (id = 5)`, for people.
fn key_of(entry: &Entry, row: &Row) -> String {
    let words: Vec<String> = entry
        .key()
        .iter()
        .zip(key_fields(entry.key(), row))
        .map(|(&column, datum)| {
            let value = datum.bytes().map_or_else(|| "NULL".into(), String::from_utf8_lossy);
            format!("{} = {value}", entry.schema.columns[column].name)
        })
        .collect();
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

fn comma(out: &mut Vec<u8>, n: usize) {
    if n > 0 {
        out.extend_from_slice(b", ");
    }
}

/// Columns that an UPDATE would change by itself, and must not: the source's row says what is in them.
fn stays<'e>(entry: &'e Entry, set: &'e [usize]) -> impl Iterator<Item = &'e str> {
    let unset =
        |(n, column): (usize, &'e Column)| (column.on_update && !set.contains(&n)).then_some(column.sql.as_str());
    entry.columns.iter().enumerate().filter_map(unset).chain(entry.others_on_update.iter().map(String::as_str))
}

fn assignments(out: &mut Vec<u8>, entry: &Entry, set: &[usize], new: &Row) {
    let mut n = 0;
    for (index, (column, datum)) in entry.columns.iter().zip(new.fields()).enumerate() {
        if set.contains(&index) {
            comma(out, n);
            out.extend_from_slice(format!("{} = ", column.sql).as_bytes());
            literal::push(out, &column.ty, datum);
            n += 1;
        }
    }
    for column in stays(entry, set) {
        comma(out, n);
        out.extend_from_slice(format!("{column} = {column}").as_bytes());
        n += 1;
    }
}

/// `WHERE` by the key in a row.
pub(super) fn by_key(out: &mut Vec<u8>, entry: &Entry, row: &Row) {
    for (n, (&column, datum)) in entry.key().iter().zip(key_fields(entry.key(), row)).enumerate() {
        out.extend_from_slice(if n == 0 { b" WHERE " } else { b" AND " });
        let column = &entry.columns[column];
        out.extend_from_slice(format!("{} = ", column.sql).as_bytes());
        literal::push(out, &column.ty, datum);
    }
}

/// `WHERE` all columns are what they are in a row, to the byte; one of such rows.
fn by_whole(out: &mut Vec<u8>, entry: &Entry, row: &Row) {
    use MySqlKind as K;
    for (n, (column, datum)) in entry.columns.iter().zip(row.fields()).enumerate() {
        out.extend_from_slice(if n == 0 { b" WHERE " } else { b" AND " });
        let name = &column.sql;
        let ty = &column.ty;
        match datum {
            Datum::Null | Datum::Unchanged => out.extend_from_slice(format!("{name} IS NULL").as_bytes()),
            // A collation finds texts equal that are not, and a document's numbers 1 and 1.0: the bytes decide. The first
            // condition is for an index.
            Datum::Text(text) if ty.is_text() || matches!(ty.kind, K::Enum | K::Set | K::Json) => {
                if matches!(ty.kind, K::Char | K::VarChar) {
                    out.extend_from_slice(format!("{name} = ").as_bytes());
                    literal::quoted(out, text);
                    out.extend_from_slice(b" AND ");
                }
                let bytes = format!("CAST(CONVERT({name} USING utf8mb4) AS BINARY) = _binary");
                out.extend_from_slice(bytes.as_bytes());
                literal::quoted(out, text);
            }
            Datum::Binary(bytes) if matches!(ty.kind, K::Geometry | K::Vector) => {
                out.extend_from_slice(format!("HEX({name}) = '").as_bytes());
                for byte in bytes {
                    out.extend_from_slice(format!("{byte:02X}").as_bytes());
                }
                out.push(b'\'');
            }
            datum => {
                out.extend_from_slice(format!("{name} = ").as_bytes());
                literal::push(out, ty, datum);
            }
        }
    }
    out.extend_from_slice(b" LIMIT 1");
}

/// `t`'s key equals that of the derived table `d`, whose key columns begin at `c<first>`; in each column's own type and
/// collation, so that its index is used.
pub(super) fn matches(entry: &Entry, first: usize) -> String {
    let conditions = entry.key().iter().enumerate().map(|(n, &column)| {
        let column = &entry.columns[column];
        format!("t.{} = {}", column.sql, typed(column, &format!("d.c{}", first + n)))
    });
    conditions.collect::<Vec<_>>().join(" AND ")
}

/// A literal's value in the type of a column.
pub(super) fn typed(column: &Column, value: &str) -> String {
    use MySqlKind as K;
    let ty = &column.ty;
    match ty.kind {
        K::Decimal => {
            format!("CAST({value} AS DECIMAL({}, {}))", ty.precision.unwrap_or(10), ty.scale.unwrap_or(0))
        }
        K::Date => format!("CAST({value} AS DATE)"),
        K::DateTime | K::Timestamp => format!("CAST({value} AS DATETIME({}))", ty.fsp),
        K::Time => format!("CAST({value} AS TIME({}))", ty.fsp),
        K::Year => format!("CAST({value} AS UNSIGNED)"),
        _ if ty.is_text() => match (ty.charset.as_deref(), ty.collation.as_deref()) {
            (Some("utf8mb4"), Some(collation)) => format!("{value} COLLATE {collation}"),
            (Some(charset), Some(collation)) => format!("CONVERT({value} USING {charset}) COLLATE {collation}"),
            _ => value.to_owned(),
        },
        _ => value.to_owned(),
    }
}
