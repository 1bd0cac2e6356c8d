//! The optional part of a table map: what the log tells of columns beyond what reading their bytes needs.
//!
//! Format: `Table_map_event::Optional_metadata_fields` in `libs/mysql/binlog/event/rows_event.{h,cpp}`; written by
//! `Table_map_log_event::init_metadata_fields` (`sql/log_event.cc`). A list of u8 type, length, value. What is sent
//! hangs on `binlog_row_metadata`: MySQL MINIMAL has signs, character sets of character columns and geometry types;
//! FULL has all; MariaDB NO_LOG has nothing at all.

use std::sync::Arc;

use super::cursor::{Cursor, malformed};
use super::table_map::{MappedColumn, column_type as t};
use crate::error::Result;

/// What was sent. Every list has one entry a column of the table, `None` for columns it does not concern.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableMetadata {
    /// Whether a number is unsigned.
    pub unsigned: Option<Vec<Option<bool>>>,
    /// The collation's number of character columns (63 = binary).
    pub collations: Option<Vec<Option<u32>>>,
    /// The collation's number of ENUM and SET columns.
    pub label_collations: Option<Vec<Option<u32>>>,
    /// The columns' names.
    pub names: Option<Vec<String>>,
    /// The labels of ENUM and SET columns, in the column's own character set.
    pub labels: Option<Vec<Option<Labels>>>,
    /// The geometry type's number.
    pub geometry: Option<Vec<Option<u64>>>,
    /// The primary key's columns, each with the number of characters that are part of the key (0 = all).
    pub primary_key: Option<Vec<(usize, u64)>>,
    /// Whether a column is visible (MySQL 8.0.23 and later).
    pub visible: Option<Vec<bool>>,
    /// The dimensions of a VECTOR column (MySQL 9).
    pub dimensions: Option<Vec<Option<u64>>>,
}

/// The labels of one ENUM or SET column.
pub type Labels = Arc<[Box<[u8]>]>;

/// Which columns the server that wrote the log counts: a YEAR is a number (MySQL's `has_signedess_information_type` in
/// `sql/field_common_properties.h`). A geometry is a text (of set `binary`) to MariaDB and not to MySQL.
#[derive(Debug, Clone, Copy)]
struct Counted {
    mariadb: bool,
}

impl Counted {
    fn number(self, column: &MappedColumn) -> bool {
        matches!(
            column.kind,
            t::DECIMAL
                | t::TINY
                | t::SHORT
                | t::INT24
                | t::LONG
                | t::LONGLONG
                | t::NEWDECIMAL
                | t::FLOAT
                | t::DOUBLE
                | t::YEAR
        )
    }

    fn text(self, column: &MappedColumn) -> bool {
        match column.kind {
            t::STRING
            | t::VAR_STRING
            | t::VARCHAR
            | t::TINY_BLOB
            | t::BLOB
            | t::MEDIUM_BLOB
            | t::LONG_BLOB
            | t::MARIA_BLOB_COMPRESSED
            | t::MARIA_VARCHAR_COMPRESSED => true,
            t::GEOMETRY => self.mariadb,
            _ => false,
        }
    }

    fn label(self, column: &MappedColumn) -> bool {
        column.has_labels()
    }
}

/// One of the questions above.
type Concerned = fn(Counted, &MappedColumn) -> bool;

impl TableMetadata {
    pub(super) fn decode(bytes: &[u8], columns: &[MappedColumn], mariadb: bool) -> Result<Self> {
        let counted = Counted { mariadb };
        let mut cursor = Cursor::new(bytes);
        let mut found = TableMetadata::default();
        while !cursor.is_empty() {
            let field = cursor.u8()?;
            let mut value = Cursor::new(cursor.lenenc_bytes()?);
            match field {
                1 => found.unsigned = Some(signs(value.rest(), columns, counted)?),
                2 => found.collations = Some(default_and_others(&mut value, columns, counted, Counted::text)?),
                3 => found.collations = Some(one_each(&mut value, columns, counted, Counted::text)?),
                4 => {
                    let mut names = Vec::with_capacity(columns.len());
                    while !value.is_empty() {
                        names.push(String::from_utf8_lossy(value.lenenc_bytes()?).into_owned());
                    }
                    found.names = (names.len() == columns.len()).then_some(names);
                }
                5 => labels(&mut value, columns, t::SET, &mut found.labels)?,
                6 => labels(&mut value, columns, t::ENUM, &mut found.labels)?,
                7 => found.geometry = Some(numbers(&mut value, columns, t::GEOMETRY)?),
                8 => found.primary_key = Some(key(&mut value, columns, false)?),
                9 => found.primary_key = Some(key(&mut value, columns, true)?),
                10 => found.label_collations = Some(default_and_others(&mut value, columns, counted, Counted::label)?),
                11 => found.label_collations = Some(one_each(&mut value, columns, counted, Counted::label)?),
                12 => {
                    let bits = value.rest();
                    found.visible = Some((0..columns.len()).map(|at| bit(bits, at)).collect::<Result<_>>()?);
                }
                13 => found.dimensions = Some(numbers(&mut value, columns, t::VECTOR)?),
                // A later server's: it describes, nothing is read by it.
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Bit `at`, counted from the highest of the first byte.
fn bit(bits: &[u8], at: usize) -> Result<bool> {
    let byte = bits.get(at / 8).ok_or_else(|| malformed("a table map's bits are cut short"))?;
    Ok(byte >> (7 - at % 8) & 1 == 1)
}

fn signs(bits: &[u8], columns: &[MappedColumn], counted: Counted) -> Result<Vec<Option<bool>>> {
    let mut at = 0;
    columns
        .iter()
        .map(|column| {
            if !counted.number(column) {
                return Ok(None);
            }
            at += 1;
            bit(bits, at - 1).map(Some)
        })
        .collect()
}

/// A value for each concerned column: one for all, then pairs of index (among the concerned) and value.
fn default_and_others(
    value: &mut Cursor<'_>,
    columns: &[MappedColumn],
    counted: Counted,
    concerned: Concerned,
) -> Result<Vec<Option<u32>>> {
    let default = number(value)?;
    let mut found: Vec<_> = columns.iter().map(|column| concerned(counted, column).then_some(default)).collect();
    while !value.is_empty() {
        let index = value.lenenc()?;
        let other = number(value)?;
        let mut slots = found.iter_mut().flatten();
        let slot = usize::try_from(index).ok().and_then(|index| slots.nth(index));
        *slot.ok_or_else(|| malformed("a table map has a character set for a column that is none"))? = other;
    }
    Ok(found)
}

fn one_each(
    value: &mut Cursor<'_>,
    columns: &[MappedColumn],
    counted: Counted,
    concerned: Concerned,
) -> Result<Vec<Option<u32>>> {
    columns.iter().map(|column| if concerned(counted, column) { number(value).map(Some) } else { Ok(None) }).collect()
}

fn number(value: &mut Cursor<'_>) -> Result<u32> {
    u32::try_from(value.lenenc()?).map_err(|_| malformed("a table map has a collation that is none"))
}

fn numbers(value: &mut Cursor<'_>, columns: &[MappedColumn], kind: u8) -> Result<Vec<Option<u64>>> {
    columns.iter().map(|column| if column.kind == kind { value.lenenc().map(Some) } else { Ok(None) }).collect()
}

fn labels(
    value: &mut Cursor<'_>,
    columns: &[MappedColumn],
    kind: u8,
    found: &mut Option<Vec<Option<Labels>>>,
) -> Result<()> {
    let found = found.get_or_insert_with(|| vec![None; columns.len()]);
    for (_, slot) in columns.iter().zip(found).filter(|(column, _)| column.kind == kind) {
        let count = value.lenenc()?;
        // Each takes a byte at least: a count that was only claimed fails before it costs anything.
        let labels: Result<Vec<Box<[u8]>>> = (0..count).map(|_| Ok(value.lenenc_bytes()?.into())).collect();
        *slot = Some(labels?.into());
    }
    Ok(())
}

fn key(value: &mut Cursor<'_>, columns: &[MappedColumn], with_prefix: bool) -> Result<Vec<(usize, u64)>> {
    let mut key = Vec::new();
    while !value.is_empty() {
        let column = usize::try_from(value.lenenc()?).ok().filter(|column| *column < columns.len());
        let column = column.ok_or_else(|| malformed("a table map's primary key names a column that is not there"))?;
        key.push((column, if with_prefix { value.lenenc()? } else { 0 }));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::super::table_map::TableMap;
    use super::super::table_map::tests::event;
    use super::*;

    const COLUMNS: [(u8, &[u8]); 8] = [
        (t::LONG, &[]),
        (t::VARCHAR, &[10, 0]),
        (t::STRING, &[t::ENUM, 1]),
        (t::TINY, &[]),
        (t::BLOB, &[2]),
        (t::STRING, &[t::SET, 1]),
        (t::GEOMETRY, &[4]),
        (t::VECTOR, &[4]),
    ];
    const OPTIONAL: &[&[u8]] = &[
        &[1, 1, 0b0100_0000],
        &[2, 3, 45, 1, 63],
        &[4, 16, 1, b'a', 1, b'b', 1, b'c', 1, b'd', 1, b'e', 1, b'f', 1, b'g', 1, b'h'],
        &[5, 5, 2, 1, b'x', 1, b'y'],
        &[6, 4, 1, 2, b'e', b'n'],
        &[7, 1, 1],
        &[9, 4, 0, 0, 1, 3],
        &[11, 2, 8, 45],
        &[12, 1, 0b1111_1110],
        &[13, 1, 3],
        &[99, 1, 0],
    ];

    #[test]
    fn everything_that_is_sent_finds_its_column() {
        let metadata = TableMap::decode(&event(&COLUMNS, &OPTIONAL.concat()), 8, false).unwrap().metadata;
        let unsigned = metadata.unsigned.unwrap();
        assert_eq!((unsigned[0], unsigned[1], unsigned[3]), (Some(false), None, Some(true)));
        let collations = metadata.collations.unwrap();
        assert_eq!((collations[1], collations[2], collations[4]), (Some(45), None, Some(63)));
        assert_eq!(metadata.names.unwrap()[7], "h");
        let labels = metadata.labels.unwrap();
        assert_eq!(labels[2].as_ref().unwrap()[0].as_ref(), b"en");
        assert_eq!(labels[5].as_ref().unwrap()[1].as_ref(), b"y");
        assert_eq!(metadata.label_collations.unwrap()[5], Some(45));
        assert_eq!(metadata.primary_key.unwrap(), [(0, 0), (1, 3)]);
        assert_eq!(metadata.geometry.unwrap()[6], Some(1));
        assert_eq!(metadata.dimensions.unwrap()[7], Some(3));
        assert_eq!(metadata.visible.unwrap(), [true, true, true, true, true, true, true, false]);
    }

    #[test]
    fn the_two_servers_count_columns_differently() {
        let columns: [(u8, &[u8]); 4] = [(t::YEAR, &[]), (t::TINY, &[]), (t::GEOMETRY, &[4]), (t::BLOB, &[2])];
        let read =
            |optional: &[u8], mariadb| TableMap::decode(&event(&columns, optional), 8, mariadb).unwrap().metadata;
        let maria = read(&[1, 1, 0b1000_0000, 3, 2, 63, 45], true);
        assert_eq!(maria.unsigned.unwrap(), [Some(true), Some(false), None, None]);
        assert_eq!(maria.collations.unwrap(), [None, None, Some(63), Some(45)]);
        let mysql = read(&[1, 1, 0b1000_0000, 3, 1, 45], false);
        assert_eq!(mysql.unsigned.unwrap(), [Some(true), Some(false), None, None]);
        assert_eq!(mysql.collations.unwrap(), [None, None, None, Some(45)]);
    }

    #[test]
    fn metadata_cut_inside_a_field_is_an_error() {
        let whole = OPTIONAL.concat();
        let between: Vec<usize> = (0..=OPTIONAL.len()).map(|count| OPTIONAL[..count].concat().len()).collect();
        for end in (0..whole.len()).filter(|end| !between.contains(end)) {
            assert!(TableMap::decode(&event(&COLUMNS, &whole[..end]), 8, false).is_err(), "cut at {end}");
        }
        for wrong in [&[2, 3, 45, 9, 63][..], &[8, 1, 9], &[6, 9, 0xFE, 255, 255, 255, 255, 255, 255, 255, 255]] {
            assert!(TableMap::decode(&event(&COLUMNS, wrong), 8, false).is_err());
        }
    }
}
