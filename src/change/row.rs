//! A row as the bytes it arrived as.
//!
//! Layout of a row, the tuple layout of Postgres' logical replication protocol
//! (<https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>, `TupleData`), so that a row from
//! there is a slice of the received frame and costs no copy:
//!
//! ```text
//! i16 number of fields, then per field
//!   'n'                            NULL
//!   'u'                            unchanged TOAST value, not sent
//!   't' i32 length, bytes          text form
//!   'b' i32 length, bytes          binary form of the source's engine
//! ```
//! All integers are big-endian. Other engines' readers write the same layout with [`RowBuilder`].

use bytes::{BufMut, Bytes, BytesMut};

/// One row image. Cheap to clone: it shares the frame it was cut from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row(Bytes);

/// One field of a row, borrowed from its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Datum<'a> {
    /// SQL NULL.
    Null,
    /// A value that did not change and was not sent (TOAST).
    Unchanged,
    /// The source's text form.
    Text(&'a [u8]),
    /// The source engine's binary form.
    Binary(&'a [u8]),
}

impl<'a> Datum<'a> {
    /// The bytes of a value, whichever form it has.
    pub fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Datum::Text(bytes) | Datum::Binary(bytes) => Some(bytes),
            Datum::Null | Datum::Unchanged => None,
        }
    }
}

impl Row {
    /// Takes a tuple in the layout above; `None` if the bytes are not one complete tuple.
    pub fn parse(bytes: Bytes) -> Option<Row> {
        let length = Self::measure(&bytes)?;
        (length == bytes.len()).then_some(Row(bytes))
    }

    /// The length in bytes of the tuple at the start of `bytes`; `None` if it is cut short or malformed.
    pub fn measure(bytes: &[u8]) -> Option<usize> {
        let count = i16::from_be_bytes(bytes.get(..2)?.try_into().ok()?);
        let mut at = 2usize;
        for _ in 0..u16::try_from(count).ok()? {
            match bytes.get(at)? {
                b'n' | b'u' => at += 1,
                b't' | b'b' => {
                    let length = i32::from_be_bytes(bytes.get(at + 1..at + 5)?.try_into().ok()?);
                    at = at.checked_add(5 + usize::try_from(length).ok()?)?;
                }
                _ => return None,
            }
        }
        (at <= bytes.len()).then_some(at)
    }

    /// Cuts the tuple at the start of `frame` off and returns it, without copying.
    pub fn split_from(frame: &mut Bytes) -> Option<Row> {
        let length = Self::measure(frame)?;
        Some(Row(frame.split_to(length)))
    }

    /// How many fields it has.
    pub fn len(&self) -> usize {
        usize::from(u16::from_be_bytes([self.0[0], self.0[1]]))
    }

    /// Whether it has no field at all (a table without columns).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the image in bytes.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// Its fields in order.
    pub fn fields(&self) -> Fields<'_> {
        Fields { rest: &self.0[2..], left: self.len() }
    }

    /// The field at `index` (walks the fields before it).
    pub fn get(&self, index: usize) -> Option<Datum<'_>> {
        self.fields().nth(index)
    }

    /// Whether a field is missing because it was not sent.
    pub fn has_unchanged(&self) -> bool {
        self.fields().any(|datum| datum == Datum::Unchanged)
    }

    /// The tuple's bytes in the layout above.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

/// Iterator over a row's fields.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Datum<'a>;

    #[inline]
    fn next(&mut self) -> Option<Datum<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (kind, rest) = self.rest.split_first()?;
        self.rest = rest;
        match kind {
            b'n' => Some(Datum::Null),
            b'u' => Some(Datum::Unchanged),
            kind => {
                let (length, rest) = self.rest.split_first_chunk::<4>()?;
                let (value, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
                self.rest = rest;
                Some(if *kind == b'b' { Datum::Binary(value) } else { Datum::Text(value) })
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// Writes a row field by field.
#[derive(Debug)]
pub struct RowBuilder {
    bytes: BytesMut,
    count: u16,
}

impl Default for RowBuilder {
    fn default() -> Self {
        Self::with_capacity(64)
    }
}

impl RowBuilder {
    /// A builder with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(capacity + 2);
        bytes.put_i16(0);
        RowBuilder { bytes, count: 0 }
    }

    /// Appends a field.
    pub fn push(&mut self, datum: Datum<'_>) {
        self.count += 1;
        let (kind, value) = match datum {
            Datum::Null => return self.bytes.put_u8(b'n'),
            Datum::Unchanged => return self.bytes.put_u8(b'u'),
            Datum::Text(value) => (b't', value),
            Datum::Binary(value) => (b'b', value),
        };
        self.bytes.put_u8(kind);
        self.bytes.put_u32(value.len() as u32);
        self.bytes.put_slice(value);
    }

    /// Appends a text field that `write` appends to the row's own buffer, so that a value is decoded where it will
    /// stay. After an error the row is as it was before.
    pub fn text_with<E>(&mut self, write: impl FnOnce(&mut BytesMut) -> Result<(), E>) -> Result<(), E> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(b"t\0\0\0\0");
        if let Err(error) = write(&mut self.bytes) {
            self.bytes.truncate(start);
            return Err(error);
        }
        let length = (self.bytes.len() - start - 5) as u32;
        self.bytes[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
        self.count += 1;
        Ok(())
    }

    /// The finished row. The builder begins the next one behind it, in the same block as long as that has room.
    pub fn take(&mut self) -> Row {
        self.bytes[..2].copy_from_slice(&self.count.to_be_bytes());
        let row = Row(self.bytes.split().freeze());
        self.count = 0;
        self.bytes.put_i16(0);
        row
    }

    /// Drops the fields of a row that is not wanted after all.
    pub fn clear(&mut self) {
        self.bytes.truncate(2);
        self.count = 0;
    }

    /// The finished row.
    pub fn finish(mut self) -> Row {
        self.bytes[..2].copy_from_slice(&self.count.to_be_bytes());
        Row(self.bytes.freeze())
    }
}

impl<'a> FromIterator<Datum<'a>> for Row {
    fn from_iter<I: IntoIterator<Item = Datum<'a>>>(fields: I) -> Row {
        let mut builder = RowBuilder::default();
        fields.into_iter().for_each(|datum| builder.push(datum));
        builder.finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_row_gives_back_the_fields_it_was_built_from() {
        let fields = [Datum::Null, Datum::Text(b"a"), Datum::Unchanged, Datum::Binary(b""), Datum::Binary(&[0, 255])];
        let row: Row = fields.into_iter().collect();
        assert_eq!(row.fields().collect::<Vec<_>>(), fields);
        assert_eq!(row.get(1), Some(Datum::Text(b"a")));
        assert!(row.has_unchanged());
        assert_eq!(Row::parse(row.as_bytes().clone()), Some(row));
    }

    #[test]
    fn rows_made_one_behind_the_other_do_not_touch_each_other() {
        let mut builder = RowBuilder::with_capacity(16);
        builder
            .text_with(|out| {
                out.put_slice(b"12");
                Ok::<_, ()>(())
            })
            .unwrap();
        assert_eq!(
            builder.text_with(|out| {
                out.put_slice(b"half");
                Err(())
            }),
            Err(())
        );
        builder.push(Datum::Null);
        let first = builder.take();
        builder.push(Datum::Binary(b"x"));
        builder.clear();
        builder.push(Datum::Text(b"second"));
        let second = builder.take();
        assert_eq!(first.fields().collect::<Vec<_>>(), [Datum::Text(b"12"), Datum::Null]);
        assert_eq!(second.fields().collect::<Vec<_>>(), [Datum::Text(b"second")]);
    }

    #[test]
    fn a_tuple_cut_short_anywhere_is_no_row() {
        let row: Row = [Datum::Text(b"abc"), Datum::Null, Datum::Binary(b"xyz")].into_iter().collect();
        for end in 0..row.size() {
            assert_eq!(Row::parse(row.as_bytes().slice(..end)), None, "cut at {end}");
        }
    }
}
