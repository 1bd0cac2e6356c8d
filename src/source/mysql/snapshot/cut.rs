//! Cuts a table into parts by its key.
//!
//! In: a session of the snapshot and a table. Out: conditions on its key that together are every row exactly once.
//!
//! A part begins at a key and ends before another. Both bounds are compared by the server, in the key's own collation, so
//! whatever a collation finds equal is on one side of a bound. Bounds over several columns are written out
//! (`a >= 1 AND (a > 1 OR (a = 1 AND b >= 2))`), because the servers find no range of an index in `(a, b) >= (1, 2)`.
//! A bound of text or bytes is the hexadecimal of what the server stores, with the column's character set before it.
//!
//! | key | bounds |
//! |---|---|
//! | one integer column | between the least and the greatest, halved while the server estimates too many rows |
//! | columns of which bounds can be written | every n-th key, found by walking along the index |
//! | others, or none | the table is one part |
//!
//! An enum in a key ends the columns that are used before it: it is ordered by number, and compared as text.

use std::collections::VecDeque;
use std::sync::Arc;

use mysql_async::prelude::Queryable;

use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{MyIdent, MyText, Session, my_table};
use crate::schema::{Column, MySqlKind, MySqlType, TableSchema};
use crate::source::mysql::without_transactions;

/// More parts than this are of no use.
const MOST_PARTS: u64 = 10_000;

/// The index of a table's key: its name, and its columns in the index's order.
pub(super) struct KeyIndex<'a> {
    name: String,
    columns: Vec<&'a Column>,
}

impl<'a> KeyIndex<'a> {
    /// The column by which the index is entered.
    pub(super) fn first(&self) -> Option<&'a Column> {
        self.columns.first().copied()
    }
}

/// The index that makes the table's key unique; an error if a snapshot fixes none of the table's rows (TRAPS 9).
pub(super) async fn key_index<'a>(session: &mut Session, table: &'a TableSchema) -> Result<Option<KeyIndex<'a>>> {
    let name = &table.name;
    let (schema, of) = (MyText(&name.schema), MyText(&name.table));
    let here = format!("table_schema = {schema} AND table_name = {of}");
    let sql = format!(
        "SELECT t.engine, e.transactions FROM information_schema.tables t \
         JOIN information_schema.engines e ON e.engine = t.engine WHERE {here}"
    );
    let engine = session.rows(sql).await?.into_iter().next();
    let Some([Some(engine), transactions]) = engine.as_deref() else {
        return Err(Error::new(Kind::Schema, format!("{name} is no longer there, or may not be read")));
    };
    if transactions.as_deref() != Some("YES") {
        return Err(without_transactions(name, engine));
    }
    let Some(key) = &table.key else { return Ok(None) };
    // The primary key stands first, as in the catalogue.
    let sql = format!(
        "SELECT index_name, column_name, sub_part FROM information_schema.statistics \
         WHERE non_unique = 0 AND {here} ORDER BY index_name <> 'PRIMARY', index_name, seq_in_index"
    );
    let mut found: Vec<(String, Option<Vec<&Column>>)> = Vec::new();
    for row in session.rows(sql).await? {
        let [Some(index), column, sub_part] = &row[..] else { continue };
        let column = column.as_deref().filter(|_| sub_part.is_none()).and_then(|column| table.column(column));
        match found.last_mut().filter(|(name, _)| name == index) {
            Some((_, columns)) => match (columns.as_mut(), column) {
                (Some(columns), Some(column)) => columns.push(column),
                _ => *columns = None,
            },
            None => found.push((index.clone(), column.map(|column| vec![column]))),
        }
    }
    let is_key = |columns: &[&Column]| {
        columns.len() == key.columns.len()
            && key.columns.iter().all(|&at| columns.iter().any(|column| column.name == table.columns[at].name))
    };
    let mut found = found.into_iter().filter_map(|(name, columns)| Some(KeyIndex { name, columns: columns? }));
    Ok(found.find(|index| is_key(&index.columns)))
}

/// A table that is one part.
pub(super) fn whole(table: &TableSchema) -> String {
    format!("FROM {}", my_table(&table.name))
}

/// The selections of about `chunk_rows` rows each.
pub(super) async fn cut(session: &mut Session, table: &Arc<TableSchema>, chunk_rows: u64) -> Result<Vec<String>> {
    let whole = whole(table);
    let index = key_index(session, table).await?;
    let pieces = table.estimated_rows.div_ceil(chunk_rows.max(1)).min(MOST_PARTS);
    let Some(mut index) = index.filter(|_| pieces > 1) else { return Ok(vec![whole]) };
    let from = format!("{whole} FORCE INDEX ({})", MyIdent(&index.name));
    let doing = || format!("cutting {} by its key", table.name);
    let bounds: Vec<Vec<String>> = if let [column] = index.columns[..]
        && is_integer(column)
    {
        let bounds = integer_bounds(session, table, column, pieces).await.with_context(doing)?;
        bounds.into_iter().map(|bound| vec![bound.to_string()]).collect()
    } else {
        let usable = index.columns.iter().take_while(|column| Literal::of(column).is_some()).count();
        index.columns.truncate(usable);
        match usable {
            0 => Vec::new(),
            _ => walked_bounds(session, &index.columns, &from, chunk_rows).await.with_context(doing)?,
        }
    };
    if bounds.is_empty() {
        return Ok(vec![whole]);
    }
    let names: Vec<String> = index.columns.iter().map(|column| MyIdent(&column.name).to_string()).collect();
    let lower = std::iter::once(None).chain(bounds.iter().map(Some));
    let upper = bounds.iter().map(Some).chain(std::iter::once(None));
    let part = |(lower, upper): (Option<&Vec<String>>, Option<&Vec<String>>)| {
        let lower = lower.map(|bound| beyond(&names, bound, ">", true));
        let upper = upper.map(|bound| beyond(&names, bound, "<", false));
        let conditions: Vec<String> = lower.into_iter().chain(upper).collect();
        format!("{from} WHERE {}", conditions.join(" AND "))
    };
    Ok(lower.zip(upper).map(part).collect())
}

/// The row of these columns is on the `side` (`<` or `>`) of the bound, or the bound itself.
fn beyond(names: &[String], bound: &[String], side: &str, or_equal: bool) -> String {
    let (name, value) = (&names[0], &bound[0]);
    let equal = if or_equal { "=" } else { "" };
    if names.len() == 1 {
        return format!("{name} {side}{equal} {value}");
    }
    // What the first column alone says is what the index is entered by.
    let rest = beyond(&names[1..], &bound[1..], side, or_equal);
    format!("({name} {side}= {value} AND ({name} {side} {value} OR ({name} = {value} AND {rest})))")
}

fn is_integer(column: &Column) -> bool {
    column.ty.mysql.as_deref().is_some_and(MySqlType::is_integer)
}

/// Bounds between the least and the greatest key. Where keys lie close, ranges are halved until the server estimates no more
/// than twice what is wanted in them.
pub(super) async fn integer_bounds(
    session: &mut Session,
    table: &TableSchema,
    column: &Column,
    pieces: u64,
) -> Result<Vec<i128>> {
    // Without FORCE INDEX, for which MySQL does not look into the index before it guesses.
    let (name, from) = (MyIdent(&column.name), whole(table));
    let ends = session.rows(format!("SELECT MIN({name}) + 0, MAX({name}) + 0 {from}")).await?;
    let number = |at: usize| ends.first()?.get(at)?.as_ref()?.parse::<i128>().ok();
    let (Some(least), Some(most)) = (number(0), number(1)) else { return Ok(Vec::new()) };
    let pieces = i128::from(pieces);
    let end = most + 1;
    let at = |piece: i128| least + (end - least) * piece / pieces;
    let wanted = (table.estimated_rows as f64 / pieces as f64).max(1.0);
    let mut open: VecDeque<(i128, i128)> = (0..pieces).map(|piece| (at(piece), at(piece + 1))).collect();
    let mut bounds = Vec::new();
    // Rows that are estimated since the last bound.
    let mut gathered = 0.0;
    while let Some((lower, upper)) = open.pop_front() {
        if lower >= upper {
            continue;
        }
        let sql = format!("EXPLAIN FORMAT=TRADITIONAL SELECT 1 {from} WHERE {name} >= {lower} AND {name} < {upper}");
        let rows = estimate(session, &sql).await?.unwrap_or(wanted);
        if rows > 2.0 * wanted && upper - lower > 1 && bounds.len() + open.len() < MOST_PARTS as usize {
            let middle = lower + (upper - lower) / 2;
            open.push_front((middle, upper));
            open.push_front((lower, middle));
            continue;
        }
        // The first part has no lower bound. Ranges with next to nothing in them go with their neighbours.
        if lower > least && gathered + rows > 1.5 * wanted {
            bounds.push(lower);
            gathered = 0.0;
        }
        gathered += rows;
    }
    Ok(bounds)
}

/// How many rows the server expects a SELECT to read.
async fn estimate(session: &mut Session, explain: &str) -> Result<Option<f64>> {
    let row: Option<mysql_async::Row> = session.conn().query_first(explain).await?;
    let rows = row.and_then(|row| row.get_opt::<Option<String>, _>("rows")?.ok().flatten());
    Ok(rows.and_then(|rows| rows.parse().ok()))
}

/// Every `chunk_rows`-th key, as literals.
async fn walked_bounds(
    session: &mut Session,
    columns: &[&Column],
    from: &str,
    chunk_rows: u64,
) -> Result<Vec<Vec<String>>> {
    let names: Vec<String> = columns.iter().map(|column| MyIdent(&column.name).to_string()).collect();
    let literals: Vec<Literal> = columns.iter().filter_map(|column| Literal::of(column)).collect();
    let asked: Vec<String> = literals.iter().zip(&names).map(|(literal, name)| literal.asked(name)).collect();
    let (asked, order) = (asked.join(", "), names.join(", "));
    let mut bounds: Vec<Vec<String>> = Vec::new();
    while (bounds.len() as u64) < MOST_PARTS {
        let after = bounds.last().map(|bound| format!(" WHERE {}", beyond(&names, bound, ">", false)));
        let after = after.unwrap_or_default();
        let sql = format!("SELECT {asked} {from}{after} ORDER BY {order} LIMIT 1 OFFSET {}", chunk_rows.max(1));
        let Some(row) = session.rows(sql).await?.into_iter().next() else { break };
        let bound = row.into_iter().zip(&literals).map(|(value, literal)| Some(literal.written(&value?)));
        let Some(bound) = bound.collect::<Option<Vec<String>>>() else { break };
        bounds.push(bound);
    }
    Ok(bounds)
}

/// How a value of a column is asked for and written as a literal that compares with the column as the value does.
enum Literal {
    /// As it is printed.
    Number,
    /// The printed text, in quotes.
    Quoted,
    /// The stored bytes, with the character set that says what they are.
    Hex(String),
}

impl Literal {
    fn of(column: &Column) -> Option<Literal> {
        use MySqlKind as K;
        let ty = column.ty.mysql.as_deref()?;
        Some(match ty.kind {
            K::TinyInt | K::SmallInt | K::MediumInt | K::Int | K::BigInt | K::Decimal | K::Year => Literal::Number,
            K::Date | K::DateTime | K::Timestamp | K::Time | K::Uuid | K::Inet4 | K::Inet6 => Literal::Quoted,
            K::Char | K::VarChar | K::TinyText | K::Text | K::MediumText | K::LongText => {
                Literal::Hex(ty.charset.clone()?)
            }
            K::Binary | K::VarBinary | K::TinyBlob | K::Blob | K::MediumBlob | K::LongBlob => {
                Literal::Hex("binary".to_owned())
            }
            _ => return None,
        })
    }

    fn asked(&self, name: &str) -> String {
        match self {
            // Zeros that pad a number do no harm; a sign and digits are all there is.
            Literal::Number | Literal::Quoted => name.to_owned(),
            Literal::Hex(_) => format!("HEX({name})"),
        }
    }

    fn written(&self, value: &str) -> String {
        match self {
            Literal::Number => value.to_owned(),
            Literal::Quoted => MyText(value).to_string(),
            Literal::Hex(charset) => format!("_{charset} X'{value}'"),
        }
    }
}
