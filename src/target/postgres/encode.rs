//! Rows into the bytes of statements: COPY streams and array parameters.
//!
//! In: [`Row`]s as they came, all in one [`Form`]. Out: what Postgres reads, without a value being looked at: in binary
//! form a field is copied with its length, in text form COPY's escapes are added. Formats:
//! <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9> (COPY),
//! `array_recv` in src/backend/utils/adt/arrayfuncs.c, `record_recv` in src/backend/utils/adt/rowtypes.c.

use bytes::{BufMut, Bytes, BytesMut};
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

use crate::change::{Datum, Row};
use crate::error::{Error, Kind, Result};

/// The form in which the stream sends values. One form for a whole stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Form {
    Text,
    Binary,
}

impl Form {
    /// The form of a row; `None` if it holds no value.
    pub(super) fn of(row: &Row) -> Option<Form> {
        row.fields().find_map(|datum| match datum {
            Datum::Text(_) => Some(Form::Text),
            Datum::Binary(_) => Some(Form::Binary),
            Datum::Null | Datum::Unchanged => None,
        })
    }

    /// The value's bytes, `None` for NULL; an error if it has the other form or was not sent.
    fn value<'a>(self, datum: Datum<'a>) -> Result<Option<&'a [u8]>> {
        match (self, datum) {
            (_, Datum::Null) => Ok(None),
            (Form::Text, Datum::Text(value)) | (Form::Binary, Datum::Binary(value)) => Ok(Some(value)),
            (_, Datum::Unchanged) => Err(Error::new(Kind::Internal, "a value that was not sent is needed")),
            _ => Err(Error::new(Kind::Internal, "values of one table come in text and in binary form")),
        }
    }
}

/// Size at which a chunk of a COPY is sent: large enough that the socket is written to seldom.
const COPY_CHUNK: usize = 128 << 10;

/// Writes rows as COPY data.
pub(super) struct CopyEncoder {
    form: Form,
    buffer: BytesMut,
}

impl CopyEncoder {
    pub(super) fn new(form: Form) -> Self {
        let mut buffer = BytesMut::with_capacity(COPY_CHUNK + (8 << 10));
        if form == Form::Binary {
            // Signature, flags, length of the header's extension.
            buffer.put_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        }
        CopyEncoder { form, buffer }
    }

    /// Appends a row; returns a chunk when one is full.
    pub(super) fn push(&mut self, row: &Row) -> Result<Option<Bytes>> {
        match self.form {
            Form::Binary => self.binary(row)?,
            Form::Text => self.text(row)?,
        }
        if self.buffer.len() < COPY_CHUNK {
            return Ok(None);
        }
        let next = BytesMut::with_capacity(COPY_CHUNK + (8 << 10));
        Ok(Some(std::mem::replace(&mut self.buffer, next).freeze()))
    }

    /// The last chunk.
    pub(super) fn finish(mut self) -> Bytes {
        if self.form == Form::Binary {
            self.buffer.put_i16(-1);
        }
        self.buffer.freeze()
    }

    fn binary(&mut self, row: &Row) -> Result<()> {
        let out = &mut self.buffer;
        // A NULL grows from one byte to four.
        out.reserve(row.size() + 4 * row.len());
        out.put_i16(row.len() as i16);
        for datum in row.fields() {
            match datum {
                Datum::Binary(value) => {
                    out.put_i32(value.len() as i32);
                    out.put_slice(value);
                }
                other => {
                    Form::Binary.value(other)?;
                    out.put_i32(-1);
                }
            }
        }
        Ok(())
    }

    fn text(&mut self, row: &Row) -> Result<()> {
        let out = &mut self.buffer;
        out.reserve(row.size() + 2 * row.len());
        for (index, datum) in row.fields().enumerate() {
            if index > 0 {
                out.put_u8(b'\t');
            }
            match Form::Text.value(datum)? {
                None => out.put_slice(b"\\N"),
                Some(value) => escape(out, value),
            }
        }
        out.put_u8(b'\n');
        Ok(())
    }
}

fn escape(out: &mut BytesMut, value: &[u8]) {
    let mut rest = value;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\\' | b'\t' | b'\n' | b'\r')) {
        out.put_slice(&rest[..at]);
        out.put_u8(b'\\');
        out.put_u8(match rest[at] {
            b'\t' => b't',
            b'\n' => b'n',
            b'\r' => b'r',
            other => other,
        });
        rest = &rest[at + 1..];
    }
    out.put_slice(rest);
}

/// A parameter whose bytes are ready in the type's binary form.
#[derive(Debug, Clone)]
pub(super) struct Raw(pub Option<Bytes>);

impl Raw {
    /// One value of a row. In text form the parameter is of type text, whose binary form is the text itself.
    pub(super) fn of(form: Form, datum: Datum<'_>) -> Result<Raw> {
        Ok(Raw(form.value(datum)?.map(Bytes::copy_from_slice)))
    }

    /// A text.
    pub(super) fn text(value: &str) -> Raw {
        Raw(Some(Bytes::copy_from_slice(value.as_bytes())))
    }
}

impl ToSql for Raw {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match &self.0 {
            Some(bytes) => {
                out.put_slice(bytes);
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Binary
    }

    to_sql_checked!();
}

/// A one-dimensional array being built.
pub(super) struct ArrayBuilder {
    buffer: BytesMut,
    count: i32,
    nulls: bool,
}

impl ArrayBuilder {
    /// An array of elements of the type with this OID, with room for `bytes` of them.
    pub(super) fn new(element: u32, bytes: usize) -> Self {
        let mut buffer = BytesMut::with_capacity(20 + bytes);
        buffer.put_i32(1); // dimensions
        buffer.put_i32(0); // whether there are NULLs, see finish
        buffer.put_u32(element);
        buffer.put_i32(0); // elements, see finish
        buffer.put_i32(1); // lower bound
        ArrayBuilder { buffer, count: 0, nulls: false }
    }

    /// Appends a field in `form`.
    pub(super) fn push(&mut self, form: Form, datum: Datum<'_>) -> Result<()> {
        self.count += 1;
        let value = form.value(datum)?;
        self.nulls |= value.is_none();
        put_field(&mut self.buffer, value);
        Ok(())
    }

    /// Appends a record in binary form, of (type OID, value) pairs.
    pub(super) fn push_record<'a>(
        &mut self,
        fields: impl ExactSizeIterator<Item = (u32, Option<Datum<'a>>)>,
    ) -> Result<()> {
        self.count += 1;
        let start = self.buffer.len();
        self.buffer.put_i32(0);
        self.buffer.put_i32(fields.len() as i32);
        for (oid, datum) in fields {
            self.buffer.put_u32(oid);
            put_field(&mut self.buffer, Form::Binary.value(datum.unwrap_or(Datum::Null))?);
        }
        let length = (self.buffer.len() - start - 4) as i32;
        self.buffer[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    pub(super) fn finish(mut self) -> Raw {
        self.buffer[4..8].copy_from_slice(&i32::from(self.nulls).to_be_bytes());
        self.buffer[12..16].copy_from_slice(&self.count.to_be_bytes());
        Raw(Some(self.buffer.freeze()))
    }
}

fn put_field(out: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        Some(value) => {
            out.put_i32(value.len() as i32);
            out.put_slice(value);
        }
        None => out.put_i32(-1),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn copy_text_escapes_what_would_end_a_field_or_a_row() {
        let mut encoder = CopyEncoder::new(Form::Text);
        let row = [Datum::Text(b"a\tb\nc\rd\\N"), Datum::Null, Datum::Text(b"")].into_iter().collect();
        assert!(encoder.push(&row).unwrap().is_none());
        assert_eq!(&encoder.finish()[..], b"a\\tb\\nc\\rd\\\\N\t\\N\t\n");
    }

    #[test]
    fn copy_binary_keeps_lengths_and_drops_kinds() {
        let mut encoder = CopyEncoder::new(Form::Binary);
        let row = [Datum::Binary(b"xy"), Datum::Null].into_iter().collect();
        assert!(encoder.push(&row).unwrap().is_none());
        assert_eq!(&encoder.finish()[19..], b"\0\x02\0\0\0\x02xy\xff\xff\xff\xff\xff\xff");
    }

    #[test]
    fn a_value_of_the_other_form_is_refused() {
        let row = [Datum::Text(b"1")].into_iter().collect();
        assert!(CopyEncoder::new(Form::Binary).push(&row).is_err());
    }
}
