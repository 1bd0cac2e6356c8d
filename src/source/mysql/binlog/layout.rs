//! How the values of one table are read: made once from a table map and what the catalogue adds, used for every row.

use std::sync::Arc;

use super::charset::Charset;
use super::metadata::Labels;
use super::table_map::{MappedColumn, TableMap, column_type as t};
use crate::error::{Error, Kind, Result};

/// What the catalogue knows of a column and the log may not say. What the log says is taken first: it is what the row was
/// written with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnHint {
    /// Whether the number is unsigned.
    pub unsigned: Option<bool>,
    /// The character set, `Binary` for binary types.
    pub charset: Option<Charset>,
    /// The labels of an ENUM or SET, in UTF-8.
    pub labels: Option<Labels>,
    /// Digits behind the second. Needed for MariaDB's own old form alone (`mysql56_temporal_format = OFF`).
    pub fsp: Option<u8>,
    /// A type of MariaDB that is stored as BINARY, which no log tells.
    pub fixed: Option<Fixed>,
}

/// Types of MariaDB that look like BINARY in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fixed {
    /// INET4: 4 bytes.
    Inet4,
    /// INET6: 16 bytes.
    Inet6,
    /// UUID: 16 bytes, the time's parts last to first.
    Uuid,
}

/// How one column is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnLayout {
    pub(super) form: Form,
}

/// The forms of values. Lengths are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    Null,
    Integer {
        bytes: u8,
        unsigned: bool,
    },
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Year,
    Bit {
        bytes: u8,
    },
    Date,
    TimeOld,
    DateTimeOld,
    TimestampOld,
    TimeHires {
        fsp: u8,
    },
    DateTimeHires {
        fsp: u8,
    },
    TimestampHires {
        fsp: u8,
    },
    Time2 {
        fsp: u8,
    },
    DateTime2 {
        fsp: u8,
    },
    Timestamp2 {
        fsp: u8,
    },
    /// Text or bytes with their length before them.
    Text {
        prefix: u8,
        charset: Charset,
    },
    Bytes {
        prefix: u8,
    },
    /// BINARY, whose zeros at the end are not in the log.
    Padded {
        prefix: u8,
        length: u16,
    },
    Fixed {
        prefix: u8,
        kind: Fixed,
    },
    /// MariaDB's compressed columns; `Binary` for the blobs.
    Compressed {
        prefix: u8,
        charset: Charset,
    },
    Enum {
        bytes: u8,
        labels: Labels,
    },
    Set {
        bytes: u8,
        labels: Labels,
    },
    Json {
        prefix: u8,
    },
}

impl ColumnLayout {
    /// Whether it is MySQL's JSON, which PARTIAL_UPDATE_ROWS may send as a difference.
    pub(super) fn is_json(&self) -> bool {
        matches!(self.form, Form::Json { .. })
    }
}

impl TableMap {
    /// How the rows of this table are read. `hints` is the catalogue's knowledge, a column each, or empty.
    ///
    /// An error (kind `Schema`) if neither log nor catalogue says what is needed, or if they have not the same columns.
    pub fn layout(&self, hints: &[ColumnHint]) -> Result<Vec<ColumnLayout>> {
        if !hints.is_empty() && hints.len() != self.columns.len() {
            return Err(Error::new(
                Kind::Schema,
                format!("the rows have {} columns, the table in the catalogue {}", self.columns.len(), hints.len()),
            )
            .context(self.whose()));
        }
        let none = ColumnHint::default();
        (0..self.columns.len())
            .map(|at| {
                let form = self.form(at, hints.get(at).unwrap_or(&none))?;
                Ok(ColumnLayout { form })
            })
            .collect::<Result<_>>()
            .map_err(|error: Error| error.context(self.whose()))
    }

    fn whose(&self) -> String {
        format!("reading changes of {}.{}", String::from_utf8_lossy(&self.schema), String::from_utf8_lossy(&self.table))
    }

    /// The column's name if the log tells it, its number otherwise.
    fn column_name(&self, at: usize) -> String {
        match self.metadata.names.as_ref().and_then(|names| names.get(at)) {
            Some(name) => format!("column `{name}`"),
            None => format!("column {}", at + 1),
        }
    }

    fn form(&self, at: usize, hint: &ColumnHint) -> Result<Form> {
        let column = self.columns[at];
        let low = column.metadata as u8;
        let high = (column.metadata >> 8) as u8;
        Ok(match column.kind {
            t::NULL => Form::Null,
            t::TINY => self.integer(1, at, hint)?,
            t::SHORT => self.integer(2, at, hint)?,
            t::INT24 => self.integer(3, at, hint)?,
            t::LONG => self.integer(4, at, hint)?,
            t::LONGLONG => self.integer(8, at, hint)?,
            t::FLOAT => Form::Float,
            t::DOUBLE => Form::Double,
            t::NEWDECIMAL => Form::Decimal { precision: high, scale: low },
            t::YEAR => Form::Year,
            // Odd bits first, then whole bytes (`Field_bit::do_save_field_metadata`).
            t::BIT => Form::Bit { bytes: (u16::from(low) + u16::from(high > 0)).min(255) as u8 },
            t::DATE | t::NEWDATE => Form::Date,
            t::TIME => with_fsp(hint, Form::TimeOld, |fsp| Form::TimeHires { fsp }),
            t::DATETIME => with_fsp(hint, Form::DateTimeOld, |fsp| Form::DateTimeHires { fsp }),
            t::TIMESTAMP => with_fsp(hint, Form::TimestampOld, |fsp| Form::TimestampHires { fsp }),
            t::TIME2 => Form::Time2 { fsp: low },
            t::DATETIME2 => Form::DateTime2 { fsp: low },
            t::TIMESTAMP2 => Form::Timestamp2 { fsp: low },
            t::VARCHAR | t::VAR_STRING => self.text(prefix_for(column.metadata), at, hint)?,
            t::STRING => match (hint.fixed, self.text(prefix_for(column.metadata), at, hint)?) {
                (Some(kind), _) => Form::Fixed { prefix: prefix_for(column.metadata), kind },
                (None, Form::Bytes { prefix }) => Form::Padded { prefix, length: column.metadata },
                (None, text) => text,
            },
            t::TINY_BLOB | t::BLOB | t::MEDIUM_BLOB | t::LONG_BLOB => self.text(blob_prefix(low)?, at, hint)?,
            t::MARIA_VARCHAR_COMPRESSED => {
                // One byte of the length is the header's (`Field_varstring_compressed`).
                Form::Compressed { prefix: prefix_for(column.metadata), charset: self.charset(at, hint)? }
            }
            t::MARIA_BLOB_COMPRESSED => {
                Form::Compressed { prefix: blob_prefix(low)?, charset: self.charset(at, hint)? }
            }
            t::GEOMETRY | t::VECTOR => Form::Bytes { prefix: blob_prefix(low)? },
            t::JSON => Form::Json { prefix: blob_prefix(low)? },
            t::ENUM => Form::Enum { bytes: label_bytes(low, &[1, 2])?, labels: self.labels(at, hint)? },
            t::SET => Form::Set { bytes: label_bytes(low, &[1, 2, 3, 4, 8])?, labels: self.labels(at, hint)? },
            other => {
                return Err(Error::new(
                    Kind::Schema,
                    format!("{} has type {other}, which is not known", self.column_name(at)),
                )
                .fix("leave the table out, or change the column's type on the source"));
            }
        })
    }

    fn integer(&self, bytes: u8, at: usize, hint: &ColumnHint) -> Result<Form> {
        let sent = self.metadata.unsigned.as_ref().and_then(|columns| columns[at]);
        match sent.or(hint.unsigned) {
            Some(unsigned) => Ok(Form::Integer { bytes, unsigned }),
            None => Err(self.not_told(at, "is unsigned")),
        }
    }

    fn text(&self, prefix: u8, at: usize, hint: &ColumnHint) -> Result<Form> {
        Ok(match self.charset(at, hint)? {
            Charset::Binary => Form::Bytes { prefix },
            charset => Form::Text { prefix, charset },
        })
    }

    fn charset(&self, at: usize, hint: &ColumnHint) -> Result<Charset> {
        match self.metadata.collations.as_ref().and_then(|columns| columns[at]) {
            Some(collation) => self.known_collation(at, collation),
            None => hint.charset.ok_or_else(|| self.not_told(at, "is text, and in which character set")),
        }
    }

    fn known_collation(&self, at: usize, collation: u32) -> Result<Charset> {
        Charset::of_collation(collation).ok_or_else(|| {
            Error::new(
                Kind::Schema,
                format!("{} has collation number {collation}, which is not known", self.column_name(at)),
            )
            .fix("convert the column to utf8mb4 on the source, or leave the table out")
        })
    }

    /// The labels in UTF-8.
    fn labels(&self, at: usize, hint: &ColumnHint) -> Result<Labels> {
        let metadata = &self.metadata;
        if let Some(labels) = metadata.labels.as_ref().and_then(|columns| columns[at].as_ref()) {
            let charset = match metadata.label_collations.as_ref().and_then(|columns| columns[at]) {
                Some(collation) => self.known_collation(at, collation)?,
                None => hint.charset.unwrap_or(Charset::Utf8mb4),
            };
            return labels
                .iter()
                .map(|label| {
                    let mut text = bytes::BytesMut::new();
                    charset.decode(label, &mut text).map_err(|_| {
                        Error::new(
                            Kind::Schema,
                            format!("a label of {} is no {} text", self.column_name(at), charset.name()),
                        )
                    })?;
                    Ok(Box::from(&text[..]))
                })
                .collect::<Result<Vec<_>>>()
                .map(Arc::from);
        }
        hint.labels.clone().ok_or_else(|| self.not_told(at, "has which labels"))
    }

    #[cold]
    fn not_told(&self, at: usize, what: &str) -> Error {
        Error::new(
            Kind::Schema,
            format!("neither the binlog nor the catalogue says whether {} {what}", self.column_name(at)),
        )
        .fix("SET GLOBAL binlog_row_metadata = FULL;  on the source")
    }
}

fn with_fsp(hint: &ColumnHint, old: Form, hires: impl FnOnce(u8) -> Form) -> Form {
    match hint.fsp {
        Some(fsp @ 1..=6) => hires(fsp),
        _ => old,
    }
}

/// CHAR and VARCHAR have one byte of length up to 255 bytes, two above.
fn prefix_for(longest: u16) -> u8 {
    if longest > 255 { 2 } else { 1 }
}

fn blob_prefix(bytes: u8) -> Result<u8> {
    one_of(bytes, &[1, 2, 3, 4])
}

fn label_bytes(bytes: u8, allowed: &[u8]) -> Result<u8> {
    one_of(bytes, allowed)
}

fn one_of(bytes: u8, allowed: &[u8]) -> Result<u8> {
    if allowed.contains(&bytes) {
        Ok(bytes)
    } else {
        Err(super::cursor::malformed(format!("a column's values or lengths have {bytes} bytes")))
    }
}

impl MappedColumn {
    /// Whether it is ENUM or SET.
    pub fn has_labels(&self) -> bool {
        matches!(self.kind, t::ENUM | t::SET)
    }
}
