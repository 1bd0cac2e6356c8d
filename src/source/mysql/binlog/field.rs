//! One row image into one row of the pipeline.
//!
//! In flow the bytes of an image, the bits that say which columns it holds, and how each is read; out flow the fields of
//! a [`Row`](crate::change::Row): text as the server prints it, raw bytes for binary types, `Unchanged` for columns that
//! the image does not hold. Each field is written where it will stay; nothing is allocated per field.
//!
//! Format of an image: `Rows_event` in `libs/mysql/binlog/event/rows_event.h`, `unpack_row` in `sql/rpl_record.cc`: one
//! bit for NULL for each column held, then the values, each as its type's `Field::pack` in `sql/field.cc` left it.

use super::charset::Charset;
use super::compressed;
use super::cursor::{Cursor, malformed};
use super::layout::{ColumnLayout, Fixed, Form};
use super::metadata::Labels;
use super::number::{self, Out};
use super::{fixed, json, temporal};
use crate::change::{Datum, RowBuilder};
use crate::error::{Error, Kind, Result};

/// Which columns an image holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present<'a> {
    bits: &'a [u8],
    columns: usize,
}

impl<'a> Present<'a> {
    /// A bit for each of `columns`, the lowest of the first byte first.
    pub(super) fn new(bits: &'a [u8], columns: usize) -> Self {
        debug_assert!(bits.len() == columns.div_ceil(8));
        Present { bits, columns }
    }

    /// Whether column `at` is held.
    #[inline]
    pub fn holds(self, at: usize) -> bool {
        at < self.columns && self.bits[at / 8] >> (at % 8) & 1 == 1
    }

    /// Whether every column is.
    pub fn holds_all(self) -> bool {
        self.count() == self.columns
    }

    /// How many are.
    pub fn count(self) -> usize {
        (0..self.columns).filter(|at| self.holds(*at)).count()
    }
}

/// A text that its character set does not define (law 8).
#[derive(Debug, Clone, Copy)]
pub struct InvalidText<'a> {
    /// The column's place in the table, from 0 on.
    pub column: usize,
    /// Its character set.
    pub charset: Charset,
    /// The value as it was stored.
    pub bytes: &'a [u8],
    /// Where in it the first undefined byte stands.
    pub at: usize,
}

/// What stands in the row for an invalid text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Substitute {
    /// NULL.
    Null,
    /// This text, in UTF-8.
    Text(Vec<u8>),
}

/// Decides over invalid texts.
pub type OnInvalid<'a> = dyn FnMut(InvalidText<'_>) -> Result<Substitute> + 'a;

/// The policy that ends the run.
pub fn refuse_invalid(invalid: InvalidText<'_>) -> Result<Substitute> {
    Err(Error::new(
        Kind::BadRow,
        format!(
            "column {} holds a byte ({:#04x} at {}) that its character set {} does not define",
            invalid.column + 1,
            invalid.bytes.get(invalid.at).copied().unwrap_or_default(),
            invalid.at,
            invalid.charset.name()
        ),
    )
    .fix("correct the value on the source, or say in [values] what is to become of such text"))
}

/// Buffers that are used again for every row.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    inflated: Vec<u8>,
    /// Where the JSON documents of the image before stand, for the differences in the image after.
    pub(super) documents: Vec<Option<(usize, usize)>>,
}

/// Reads one image and appends its fields to `row`; gives back how many bytes it took.
///
/// An error leaves the row incomplete.
pub fn write_row(
    image: &[u8],
    present: Present<'_>,
    columns: &[ColumnLayout],
    row: &mut RowBuilder,
    on_invalid: &mut OnInvalid<'_>,
) -> Result<usize> {
    let mut cursor = Cursor::new(image);
    let mut scratch = Scratch::default();
    write_image(&mut cursor, present, columns, None, row, &mut scratch, on_invalid)?;
    Ok(image.len() - cursor.len())
}

/// What an image after of `PARTIAL_UPDATE_ROWS` has besides: which JSON columns are differences to the image before.
pub(super) struct Partial<'a> {
    /// The bytes in which [`Scratch::documents`] stand.
    pub(super) before: &'a [u8],
}

#[allow(clippy::too_many_arguments, reason = "the buffers of one reader, given through")]
pub(super) fn write_image(
    cursor: &mut Cursor<'_>,
    present: Present<'_>,
    columns: &[ColumnLayout],
    partial: Option<&Partial<'_>>,
    row: &mut RowBuilder,
    scratch: &mut Scratch,
    on_invalid: &mut OnInvalid<'_>,
) -> Result<()> {
    if present.columns != columns.len() {
        return Err(malformed(format!("a row has {} columns, its table {}", present.columns, columns.len())));
    }
    let differences = match partial {
        Some(_) => difference_bits(cursor, columns)?,
        None => &[],
    };
    let nulls = cursor.take(present.count().div_ceil(8))?;
    let (mut held, mut documents) = (0, 0);
    for (at, column) in columns.iter().enumerate() {
        let is_difference = !differences.is_empty() && column.is_json() && {
            documents += 1;
            differences[(documents - 1) / 8] >> ((documents - 1) % 8) & 1 == 1
        };
        if !present.holds(at) {
            row.push(Datum::Unchanged);
            continue;
        }
        let null = nulls[held / 8] >> (held % 8) & 1 == 1;
        held += 1;
        if null {
            row.push(Datum::Null);
        } else if let (true, Some(partial)) = (is_difference, partial) {
            let document = scratch.documents.get(at).copied().flatten();
            write_difference(cursor, document.map(|(from, to)| &partial.before[from..to]), at, row)?;
        } else {
            write_field(cursor, &column.form, at, row, scratch, on_invalid)?;
        }
    }
    Ok(())
}

/// `value_options`, and if its first bit is set a bit for each JSON column of the table
/// (`Rows_log_event` with `PARTIAL_UPDATE_ROWS_EVENT`, `sql/rpl_record.cc`).
fn difference_bits<'a>(cursor: &mut Cursor<'a>, columns: &[ColumnLayout]) -> Result<&'a [u8]> {
    match cursor.lenenc()? {
        0 => Ok(&[]),
        1 => cursor.take(columns.iter().filter(|column| column.is_json()).count().div_ceil(8)),
        other => Err(malformed(format!("a partial row has options {other:#x}, which are not known"))),
    }
}

#[cold]
fn write_difference(cursor: &mut Cursor<'_>, before: Option<&[u8]>, at: usize, row: &mut RowBuilder) -> Result<()> {
    let length = cursor.u32()?;
    let differences = cursor.take(length as usize)?;
    let before = before.ok_or_else(|| {
        Error::new(
            Kind::ServerSetting,
            format!("column {} comes as a difference to a JSON document that the row does not hold", at + 1),
        )
        .fix("SET GLOBAL binlog_row_image = FULL;  or  SET GLOBAL binlog_row_value_options = '';  on the source")
    })?;
    row.text_with(|out| json::write_changed(before, differences, out))
}

/// Notes where the JSON documents of an image stand, which was read without an error before.
pub(super) fn note_documents(
    image: &[u8],
    present: Present<'_>,
    columns: &[ColumnLayout],
    scratch: &mut Scratch,
) -> Result<()> {
    let mut cursor = Cursor::new(image);
    let nulls = cursor.take(present.count().div_ceil(8))?;
    scratch.documents.clear();
    let mut held = 0;
    for (at, column) in columns.iter().enumerate() {
        let mut document = None;
        if present.holds(at) {
            let null = nulls[held / 8] >> (held % 8) & 1 == 1;
            held += 1;
            if !null {
                let value = value_of(&mut cursor, &column.form)?;
                if column.is_json() {
                    let end = image.len() - cursor.len();
                    document = Some((end - value.len(), end));
                }
            }
        }
        scratch.documents.push(document);
    }
    Ok(())
}

/// The bytes of a value without the length before it.
fn value_of<'a>(cursor: &mut Cursor<'a>, form: &Form) -> Result<&'a [u8]> {
    let length = match form {
        Form::Null => 0,
        Form::Integer { bytes, .. } | Form::Bit { bytes } | Form::Enum { bytes, .. } | Form::Set { bytes, .. } => {
            usize::from(*bytes)
        }
        Form::Year => 1,
        Form::Float | Form::TimestampOld => 4,
        Form::Double | Form::DateTimeOld => 8,
        Form::Decimal { precision, scale } => number::decimal_size(*precision, *scale).unwrap_or(usize::MAX),
        Form::Date | Form::TimeOld => 3,
        Form::Time2 { fsp } => 3 + usize::from(fsp.div_ceil(2)),
        Form::DateTime2 { fsp } => 5 + usize::from(fsp.div_ceil(2)),
        Form::Timestamp2 { fsp } | Form::TimestampHires { fsp } => 4 + usize::from(fsp.div_ceil(2)),
        Form::TimeHires { fsp } => temporal::TIME_HIRES_BYTES[usize::from(*fsp.min(&6))],
        Form::DateTimeHires { fsp } => temporal::DATETIME_HIRES_BYTES[usize::from(*fsp.min(&6))],
        Form::Text { prefix, .. }
        | Form::Bytes { prefix }
        | Form::Padded { prefix, .. }
        | Form::Fixed { prefix, .. }
        | Form::Compressed { prefix, .. }
        | Form::Json { prefix } => return prefixed(cursor, *prefix),
    };
    cursor.take(length)
}

#[inline]
fn prefixed<'a>(cursor: &mut Cursor<'a>, prefix: u8) -> Result<&'a [u8]> {
    let length = match prefix {
        1 => usize::from(cursor.u8()?),
        2 => usize::from(cursor.u16()?),
        wide => cursor.uint(usize::from(wide))? as usize,
    };
    cursor.take(length)
}

#[inline]
fn write_field(
    cursor: &mut Cursor<'_>,
    form: &Form,
    at: usize,
    row: &mut RowBuilder,
    scratch: &mut Scratch,
    on_invalid: &mut OnInvalid<'_>,
) -> Result<()> {
    match form {
        Form::Integer { bytes, unsigned } => {
            let number = match bytes {
                4 => u64::from(cursor.u32()?),
                8 => cursor.u64()?,
                other => cursor.uint(usize::from(*other))?,
            };
            row.text_with(|out| {
                if *unsigned {
                    number::write_u64(number, out);
                } else {
                    let unused = 64 - 8 * u32::from(*bytes);
                    number::write_i64((number << unused) as i64 >> unused, out);
                }
                Ok(())
            })
        }
        Form::Text { prefix, charset } => write_text(prefixed(cursor, *prefix)?, *charset, at, row, on_invalid),
        Form::Bytes { prefix } => {
            row.push(Datum::Binary(prefixed(cursor, *prefix)?));
            Ok(())
        }
        Form::Padded { prefix, length } => {
            let (value, length) = (prefixed(cursor, *prefix)?, usize::from(*length));
            if value.len() > length {
                return Err(malformed("a BINARY is longer than its column"));
            }
            let mut padded = [0; 1024];
            match padded.get_mut(..length) {
                Some(padded) => {
                    padded[..value.len()].copy_from_slice(value);
                    row.push(Datum::Binary(padded));
                }
                None => return Err(malformed("a BINARY is longer than any can be")),
            }
            Ok(())
        }
        Form::Decimal { precision, scale } => {
            row.text_with(|out| number::write_decimal(cursor, *precision, *scale, out))
        }
        Form::Float => {
            let number = f32::from_le_bytes(cursor.array()?);
            row.text_with(|out| {
                number::write_double(f64::from(number), out);
                Ok(())
            })
        }
        Form::Double => {
            let number = f64::from_le_bytes(cursor.array()?);
            row.text_with(|out| {
                number::write_double(number, out);
                Ok(())
            })
        }
        Form::DateTime2 { fsp } => row.text_with(|out| temporal::datetime2(cursor, *fsp, out)),
        Form::Timestamp2 { fsp } => row.text_with(|out| temporal::timestamp2(cursor, *fsp, out)),
        Form::Time2 { fsp } => row.text_with(|out| temporal::time2(cursor, *fsp, out)),
        Form::Date => row.text_with(|out| temporal::date(cursor, out)),
        Form::Year => {
            let year = u64::from(cursor.u8()?);
            row.text_with(|out| {
                number::write_padded(if year == 0 { 0 } else { 1900 + year }, 4, out);
                Ok(())
            })
        }
        Form::TimeOld => row.text_with(|out| temporal::time_old(cursor, out)),
        Form::DateTimeOld => row.text_with(|out| temporal::datetime_old(cursor, out)),
        Form::TimestampOld => row.text_with(|out| temporal::timestamp_old(cursor, out)),
        Form::TimeHires { fsp } => row.text_with(|out| temporal::time_hires(cursor, *fsp, out)),
        Form::DateTimeHires { fsp } => row.text_with(|out| temporal::datetime_hires(cursor, *fsp, out)),
        Form::TimestampHires { fsp } => row.text_with(|out| temporal::timestamp_hires(cursor, *fsp, out)),
        Form::Bit { bytes } => {
            row.push(Datum::Binary(cursor.take(usize::from(*bytes))?));
            Ok(())
        }
        Form::Enum { bytes, labels } => {
            let ordinal = cursor.uint(usize::from(*bytes))?;
            row.push(Datum::Text(label(labels, ordinal)?));
            Ok(())
        }
        Form::Set { bytes, labels } => {
            let members = cursor.uint(usize::from(*bytes))?;
            row.text_with(|out| write_set(members, labels, out))
        }
        Form::Json { prefix } => {
            let document = prefixed(cursor, *prefix)?;
            row.text_with(|out| json::write(document, out))
        }
        Form::Fixed { prefix, kind } => {
            let value = prefixed(cursor, *prefix)?;
            row.text_with(|out| write_fixed(value, *kind, out))
        }
        Form::Compressed { prefix, charset } => {
            let value = compressed::inflate_column(prefixed(cursor, *prefix)?, &mut scratch.inflated)?;
            if *charset == Charset::Binary {
                row.push(Datum::Binary(value));
                return Ok(());
            }
            write_text(value, *charset, at, row, on_invalid)
        }
        Form::Null => {
            row.push(Datum::Null);
            Ok(())
        }
    }
}

#[inline]
fn write_text(
    value: &[u8],
    charset: Charset,
    column: usize,
    row: &mut RowBuilder,
    on_invalid: &mut OnInvalid<'_>,
) -> Result<()> {
    let Err(undecodable) = row.text_with(|out| charset.decode(value, out)) else { return Ok(()) };
    match on_invalid(InvalidText { column, charset, bytes: value, at: undecodable.at })? {
        Substitute::Null => row.push(Datum::Null),
        Substitute::Text(text) => row.push(Datum::Text(&text)),
    }
    Ok(())
}

/// The label of an ENUM; 0 is the empty text that stands for a value that was refused.
fn label(labels: &Labels, ordinal: u64) -> Result<&[u8]> {
    let Some(at) = ordinal.checked_sub(1) else { return Ok(b"") };
    usize::try_from(at).ok().and_then(|at| labels.get(at)).map(|label| &**label).ok_or_else(|| no_such_label(ordinal))
}

fn write_set(mut members: u64, labels: &Labels, out: &mut Out) -> Result<()> {
    let mut first = true;
    while members > 0 {
        let at = members.trailing_zeros() as usize;
        members &= members - 1;
        if !first {
            out.extend_from_slice(b",");
        }
        first = false;
        out.extend_from_slice(labels.get(at).ok_or_else(|| no_such_label(at as u64 + 1))?);
    }
    Ok(())
}

#[cold]
fn no_such_label(ordinal: u64) -> Error {
    Error::new(Kind::Schema, format!("a row has label {ordinal} of an ENUM or SET that has not as many"))
        .fix("the labels known are not those that the row was written with: SET GLOBAL binlog_row_metadata = FULL;")
}

fn write_fixed(value: &[u8], kind: Fixed, out: &mut Out) -> Result<()> {
    match kind {
        Fixed::Inet4 => fixed::inet4(value, out),
        Fixed::Inet6 => fixed::inet6(value, out),
        Fixed::Uuid => fixed::uuid(value, out),
    }
}
