//! TABLE_MAP: which columns the rows after it have.
//!
//! Format: `Table_map_event` in `libs/mysql/binlog/event/rows_event.{h,cpp}`: u48 table number, u16 flags; database and
//! table name (u8 length, text, NUL), number of columns, a type byte each, their metadata, a bit each for NULL allowed,
//! and from MySQL 8.0.1 and MariaDB 10.5 on the optional metadata ([`TableMetadata`]).

use bytes::Bytes;

use super::cursor::{Cursor, malformed};
use super::metadata::TableMetadata;
use crate::error::Result;

/// Numbers of column types (`enum_field_types` in `include/field_types.h`; MariaDB's own in its `sql/field.h`).
#[allow(missing_docs, reason = "the names are the server's own")]
pub mod column_type {
    pub const DECIMAL: u8 = 0;
    pub const TINY: u8 = 1;
    pub const SHORT: u8 = 2;
    pub const LONG: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const DOUBLE: u8 = 5;
    pub const NULL: u8 = 6;
    pub const TIMESTAMP: u8 = 7;
    pub const LONGLONG: u8 = 8;
    pub const INT24: u8 = 9;
    pub const DATE: u8 = 10;
    pub const TIME: u8 = 11;
    pub const DATETIME: u8 = 12;
    pub const YEAR: u8 = 13;
    pub const NEWDATE: u8 = 14;
    pub const VARCHAR: u8 = 15;
    pub const BIT: u8 = 16;
    pub const TIMESTAMP2: u8 = 17;
    pub const DATETIME2: u8 = 18;
    pub const TIME2: u8 = 19;
    pub const MARIA_BLOB_COMPRESSED: u8 = 140;
    pub const MARIA_VARCHAR_COMPRESSED: u8 = 141;
    pub const VECTOR: u8 = 242;
    pub const JSON: u8 = 245;
    pub const NEWDECIMAL: u8 = 246;
    pub const ENUM: u8 = 247;
    pub const SET: u8 = 248;
    pub const TINY_BLOB: u8 = 249;
    pub const MEDIUM_BLOB: u8 = 250;
    pub const LONG_BLOB: u8 = 251;
    pub const BLOB: u8 = 252;
    pub const VAR_STRING: u8 = 253;
    pub const STRING: u8 = 254;
    pub const GEOMETRY: u8 = 255;
}

/// The most columns a table can have (`MAX_FIELDS`).
const MOST_COLUMNS: u64 = 4096;

/// A column as the event itself describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappedColumn {
    /// The real type, see [`column_type`]: ENUM and SET are found under STRING, whose metadata names them.
    pub kind: u8,
    /// What the type needs to be read, in the order of its bytes: first byte high where the server writes two values.
    pub metadata: u16,
    /// Whether it may be NULL.
    pub nullable: bool,
}

/// The columns of a table from here to the end of the statement.
#[derive(Debug, Clone)]
pub struct TableMap {
    /// The number that the row events name.
    pub table_id: u64,
    /// Flags (`TM_…`).
    pub flags: u16,
    /// The database.
    pub schema: Bytes,
    /// The table.
    pub table: Bytes,
    /// The columns in order.
    pub columns: Vec<MappedColumn>,
    /// What else the server tells of them.
    pub metadata: TableMetadata,
    /// The body, for comparing with an earlier event of the same table.
    body: Bytes,
}

impl TableMap {
    /// Whether `other` describes a table of the same name with the same columns, so that everything made from one
    /// serves for the other. The table's number may differ: it changes whenever the server opens the table anew.
    pub fn describes_the_same(&self, other: &TableMap) -> bool {
        // The number stands first, 4 or 6 bytes.
        self.body.len() == other.body.len() && self.body[6..] == other.body[6..]
    }

    pub(super) fn decode(body: &Bytes, post_header: usize, mariadb: bool) -> Result<TableMap> {
        let mut cursor = Cursor::new(body);
        let table_id = cursor.uint(if post_header == 6 { 4 } else { 6 })?;
        let flags = cursor.u16()?;
        let mut name = || -> Result<Bytes> {
            let length = cursor.lenenc()?;
            let name = cursor.take_u64(length)?;
            if cursor.u8()? == 0 { Ok(body.slice_ref(name)) } else { Err(malformed("a name does not end with NUL")) }
        };
        let (schema, table) = (name()?, name()?);
        let count = cursor.lenenc()?;
        if count > MOST_COLUMNS {
            return Err(malformed(format!("a table map has {count} columns")));
        }
        let types = cursor.take_u64(count)?;
        let mut metadata = Cursor::new(cursor.lenenc_bytes()?);
        let nullable = cursor.take(types.len().div_ceil(8))?;
        let columns = types
            .iter()
            .enumerate()
            .map(|(at, kind)| {
                let (kind, metadata) = read_column(*kind, &mut metadata)?;
                Ok(MappedColumn { kind, metadata, nullable: nullable[at / 8] >> (at % 8) & 1 == 1 })
            })
            .collect::<Result<Vec<_>>>()?;
        let metadata = TableMetadata::decode(cursor.rest(), &columns, mariadb)?;
        Ok(TableMap { table_id, flags, schema, table, columns, metadata, body: body.clone() })
    }
}

/// The real type of a column and its metadata (`Field::save_field_metadata` of each type in `sql/field.cc`).
fn read_column(kind: u8, metadata: &mut Cursor<'_>) -> Result<(u8, u16)> {
    use column_type as t;
    Ok(match kind {
        t::FLOAT
        | t::DOUBLE
        | t::TINY_BLOB
        | t::MEDIUM_BLOB
        | t::LONG_BLOB
        | t::BLOB
        | t::GEOMETRY
        | t::JSON
        | t::VECTOR
        | t::MARIA_BLOB_COMPRESSED
        | t::TIME2
        | t::DATETIME2
        | t::TIMESTAMP2 => (kind, u16::from(metadata.u8()?)),
        // The longest value in bytes.
        t::VARCHAR | t::VAR_STRING | t::MARIA_VARCHAR_COMPRESSED => (kind, metadata.u16()?),
        // Odd bits and bytes; precision and scale.
        t::BIT | t::NEWDECIMAL => (kind, u16::from_be_bytes(metadata.array()?)),
        t::STRING | t::ENUM | t::SET => {
            let [real, length] = metadata.array()?;
            // A CHAR longer than 255 bytes hides bits 8 and 9 of its length, inverted, in bits 4 and 5 of the type
            // (`Field_string::do_save_field_metadata`).
            if real & 0x30 == 0x30 {
                (real, u16::from(length))
            } else {
                (real | 0x30, u16::from(length) | u16::from(real & 0x30 ^ 0x30) << 4)
            }
        }
        _ => (kind, 0),
    })
}

/// Test events, shared with the tests of the rows.
#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    /// A table map with `columns` as (type, metadata) and the optional metadata given.
    pub(in super::super) fn event(columns: &[(u8, &[u8])], optional: &[u8]) -> Bytes {
        let mut body = vec![7, 0, 0, 0, 0, 0, 1, 0];
        body.extend_from_slice(b"\x04shop\0\x06orders\0");
        body.push(columns.len() as u8);
        body.extend(columns.iter().map(|(kind, _)| *kind));
        body.push(columns.iter().map(|(_, metadata)| metadata.len()).sum::<usize>() as u8);
        body.extend(columns.iter().flat_map(|(_, metadata)| metadata.iter()));
        body.extend(vec![0xFF; columns.len().div_ceil(8)]);
        body.extend_from_slice(optional);
        body.into()
    }

    #[test]
    fn columns_are_read_with_their_real_type() {
        let body = event(
            &[
                (column_type::LONG, &[]),
                (column_type::STRING, &[column_type::ENUM, 2]),
                (column_type::STRING, &[0xEE, 0xFC]),
                (column_type::VARCHAR, &[0x2C, 1]),
                (column_type::NEWDECIMAL, &[65, 30]),
                (column_type::DATETIME2, &[6]),
            ],
            &[],
        );
        let map = TableMap::decode(&body, 8, false).unwrap();
        assert_eq!((&map.schema[..], &map.table[..], map.table_id), (&b"shop"[..], &b"orders"[..], 7));
        let columns: Vec<_> = map.columns.iter().map(|column| (column.kind, column.metadata)).collect();
        assert_eq!(
            columns,
            [
                (column_type::LONG, 0),
                (column_type::ENUM, 2),
                (column_type::STRING, 0xFC | 0x100),
                (column_type::VARCHAR, 300),
                (column_type::NEWDECIMAL, 65 << 8 | 30),
                (column_type::DATETIME2, 6)
            ]
        );
        for end in 0..body.len() {
            assert!(TableMap::decode(&body.slice(..end), 8, false).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_table_opened_anew_is_the_same_table() {
        let body = event(&[(column_type::LONG, &[])], &[]);
        let mut reopened = body.to_vec();
        reopened[0] = 8;
        let (a, b) =
            (TableMap::decode(&body, 8, false).unwrap(), TableMap::decode(&reopened.into(), 8, false).unwrap());
        assert!(a.describes_the_same(&b) && a.table_id != b.table_id);
        let wider = event(&[(column_type::LONGLONG, &[])], &[]);
        assert!(!a.describes_the_same(&TableMap::decode(&wider, 8, false).unwrap()));
    }
}
