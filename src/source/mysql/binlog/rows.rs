//! The row events: which rows were written, changed, deleted.
//!
//! Format: `Rows_event` in `libs/mysql/binlog/event/rows_event.{h,cpp}`: u48 table number, u16 flags, in version 2 also
//! u16 length and data besides; number of columns, a bit each for being in the image (updates: one list for each image),
//! then the images, one behind the other. MariaDB's compressed events have everything behind the bits deflated.

use bytes::Bytes;

use super::compressed;
use super::cursor::{Cursor, malformed};
use super::field::{self, OnInvalid, Partial, Present, Scratch};
use super::header::kind;
use super::layout::ColumnLayout;
use crate::change::{Row, RowBuilder};
use crate::error::Result;

/// What a row event does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsKind {
    /// New rows: images after.
    Insert,
    /// Changed rows: an image before and an image after each.
    Update,
    /// Changed rows whose JSON columns may come as differences (`PARTIAL_UPDATE_ROWS`).
    PartialUpdate,
    /// Deleted rows: images before.
    Delete,
}

/// A row event whose images were not read yet.
#[derive(Debug, Clone)]
pub struct Rows {
    /// The number of the table map before it.
    pub table_id: u64,
    /// What it does.
    pub kind: RowsKind,
    /// Flags; see [`ends_statement`](Self::ends_statement).
    pub flags: u16,
    columns: usize,
    before: Bytes,
    after: Bytes,
    images: Bytes,
}

impl Rows {
    /// The statement's last event (`STMT_END_F`): table maps from before it are no longer valid.
    pub fn ends_statement(&self) -> bool {
        self.flags & 1 != 0
    }

    /// The statement ran with `foreign_key_checks = 0` (`NO_FOREIGN_KEY_CHECKS_F`).
    pub fn without_foreign_keys(&self) -> bool {
        self.flags & 2 != 0
    }

    /// Made by a foreign key's action, not by the statement (`USE_SQL_FOREIGN_KEY_F`; MySQL 9.6 and later log these).
    pub fn by_foreign_key(&self) -> bool {
        self.flags & 16 != 0
    }

    /// Which columns the images before hold (with `binlog_row_image = MINIMAL` the key's alone).
    pub fn before(&self) -> Present<'_> {
        Present::new(&self.before, self.columns)
    }

    /// Which columns the images after hold.
    pub fn after(&self) -> Present<'_> {
        Present::new(&self.after, self.columns)
    }

    /// Bytes of the images.
    pub fn size(&self) -> usize {
        self.images.len()
    }

    /// The images, for [`RowReader::next`].
    pub fn images(&self) -> Images<'_> {
        Images { rows: self, rest: Cursor::new(&self.images) }
    }

    pub(super) fn decode(event: u8, body: &Bytes, post_header: usize) -> Result<Rows> {
        let (does, version, deflated) = match event {
            kind::WRITE_ROWS_V1 => (RowsKind::Insert, 1, false),
            kind::UPDATE_ROWS_V1 => (RowsKind::Update, 1, false),
            kind::DELETE_ROWS_V1 => (RowsKind::Delete, 1, false),
            kind::MARIA_WRITE_ROWS_COMPRESSED_V1 => (RowsKind::Insert, 1, true),
            kind::MARIA_UPDATE_ROWS_COMPRESSED_V1 => (RowsKind::Update, 1, true),
            kind::MARIA_DELETE_ROWS_COMPRESSED_V1 => (RowsKind::Delete, 1, true),
            kind::MARIA_WRITE_ROWS_COMPRESSED => (RowsKind::Insert, 2, true),
            kind::MARIA_UPDATE_ROWS_COMPRESSED => (RowsKind::Update, 2, true),
            kind::MARIA_DELETE_ROWS_COMPRESSED => (RowsKind::Delete, 2, true),
            kind::WRITE_ROWS => (RowsKind::Insert, 2, false),
            kind::UPDATE_ROWS => (RowsKind::Update, 2, false),
            kind::PARTIAL_UPDATE_ROWS => (RowsKind::PartialUpdate, 2, false),
            _ => (RowsKind::Delete, 2, false),
        };
        let mut cursor = Cursor::new(body);
        let table_id = cursor.uint(if post_header == 6 { 4 } else { 6 })?;
        let flags = cursor.u16()?;
        if version == 2 {
            // Its own two bytes are counted. Partitions and NDB's notes, which no reader needs.
            let extra = cursor.u16()?;
            cursor.take(usize::from(extra).checked_sub(2).ok_or_else(|| malformed("a row event is malformed"))?)?;
        }
        let columns = cursor.lenenc()?;
        let bits = usize::try_from(columns.div_ceil(8)).map_err(|_| malformed("a row event is malformed"))?;
        let mut list = || Ok::<_, crate::error::Error>(body.slice_ref(cursor.take(bits)?));
        let first = list()?;
        let (before, after) = match does {
            RowsKind::Insert => (Bytes::new(), first),
            RowsKind::Delete => (first, Bytes::new()),
            RowsKind::Update | RowsKind::PartialUpdate => (first, list()?),
        };
        let images = body.slice_ref(cursor.rest());
        let images = if deflated { compressed::inflate(&images)? } else { images };
        // Columns were as many bits as there are bytes for, so this is no claim any more.
        Ok(Rows { table_id, kind: does, flags, columns: columns as usize, before, after, images })
    }
}

/// What is left of an event's images.
#[derive(Debug, Clone, Copy)]
pub struct Images<'a> {
    rows: &'a Rows,
    rest: Cursor<'a>,
}

impl Images<'_> {
    /// Bytes not read yet.
    pub fn left(&self) -> usize {
        self.rest.len()
    }
}

/// One row's images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowImages {
    /// Before the change; none for new rows.
    pub before: Option<Row>,
    /// After it; none for deleted rows.
    pub after: Option<Row>,
}

/// Reads the rows of one event after the other. Keeps its buffers, and makes rows one behind the other in blocks of
/// memory that they share.
#[derive(Debug, Default)]
pub struct RowReader {
    row: RowBuilder,
    scratch: Scratch,
}

impl RowReader {
    /// A reader.
    pub fn new() -> Self {
        Self { row: RowBuilder::with_capacity(64 * 1024), scratch: Scratch::default() }
    }

    /// The next row; `None` at the end. After an error the event is not to be read on.
    pub fn next(
        &mut self,
        images: &mut Images<'_>,
        columns: &[ColumnLayout],
        on_invalid: &mut OnInvalid<'_>,
    ) -> Result<Option<RowImages>> {
        if images.rest.is_empty() {
            return Ok(None);
        }
        let rows = images.rows;
        if rows.columns != columns.len() {
            return Err(malformed(format!("a row has {} columns, its table {}", rows.columns, columns.len())));
        }
        let unread = images.rest.len();
        let whole = images.rest.rest();
        let mut before = None;
        if rows.kind != RowsKind::Insert {
            before = Some(self.image(&mut images.rest, rows.before(), columns, None, on_invalid)?);
        }
        let mut after = None;
        match rows.kind {
            RowsKind::Delete => {}
            RowsKind::Insert | RowsKind::Update => {
                after = Some(self.image(&mut images.rest, rows.after(), columns, None, on_invalid)?);
            }
            RowsKind::PartialUpdate => {
                field::note_documents(whole, rows.before(), columns, &mut self.scratch)?;
                let partial = Partial { before: whole };
                after = Some(self.image(&mut images.rest, rows.after(), columns, Some(&partial), on_invalid)?);
            }
        }
        if images.rest.len() == unread {
            // A table without columns in the image: there is no telling how many rows that is.
            return Err(malformed("a row event has rows without bytes"));
        }
        Ok(Some(RowImages { before, after }))
    }

    fn image(
        &mut self,
        cursor: &mut Cursor<'_>,
        present: Present<'_>,
        columns: &[ColumnLayout],
        partial: Option<&Partial<'_>>,
        on_invalid: &mut OnInvalid<'_>,
    ) -> Result<Row> {
        match field::write_image(cursor, present, columns, partial, &mut self.row, &mut self.scratch, on_invalid) {
            Ok(()) => Ok(self.row.take()),
            Err(error) => {
                self.row.clear();
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::super::charset::Charset;
    use super::super::layout::ColumnHint;
    use super::super::table_map::tests::event;
    use super::super::table_map::{TableMap, column_type as t};
    use super::*;
    use crate::change::Datum;
    use crate::error::Kind;
    use crate::source::mysql::binlog::{Substitute, refuse_invalid};

    fn layout(columns: &[(u8, &[u8])], hints: &[ColumnHint]) -> Vec<ColumnLayout> {
        TableMap::decode(&event(columns, &[]), 8, false).unwrap().layout(hints).unwrap()
    }

    fn id_and_text() -> Vec<ColumnLayout> {
        let hint = |charset: &str| ColumnHint {
            unsigned: Some(false),
            charset: Charset::named(charset),
            ..ColumnHint::default()
        };
        layout(&[(t::LONG, &[]), (t::VARCHAR, &[40, 0])], &[hint("binary"), hint("utf8mb4")])
    }

    fn body(rest: &[u8]) -> Bytes {
        [&[7, 0, 0, 0, 0, 0, 1, 0, 2, 0][..], rest].concat().into()
    }

    fn all(rows: &Rows, columns: &[ColumnLayout]) -> Result<Vec<RowImages>> {
        let (mut reader, mut images, mut found) = (RowReader::new(), rows.images(), Vec::new());
        while let Some(row) = reader.next(&mut images, columns, &mut refuse_invalid)? {
            found.push(row);
        }
        Ok(found)
    }

    fn fields(row: Option<&Row>) -> Vec<String> {
        let show = |datum: Datum<'_>| match datum {
            Datum::Null => "NULL".to_owned(),
            Datum::Unchanged => "-".to_owned(),
            Datum::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
            Datum::Binary(bytes) => format!("{bytes:02x?}"),
        };
        row.map(|row| row.fields().map(show).collect()).unwrap_or_default()
    }

    #[test]
    fn an_update_has_both_images_and_leaves_out_what_was_not_logged() {
        // Before: the key alone. After: the text alone.
        let body = body(b"\x02\x01\x02\x00\x05\0\0\0\x00\x02hi\x00\xFF\xFF\xFF\xFF\x01");
        let rows = Rows::decode(kind::UPDATE_ROWS, &body, 10).unwrap();
        assert!(rows.ends_statement() && !rows.before().holds_all());
        let found = all(&rows, &id_and_text()).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(fields(found[0].before.as_ref()), ["5", "-"]);
        assert_eq!(fields(found[0].after.as_ref()), ["-", "hi"]);
        assert_eq!(fields(found[1].before.as_ref()), ["-1", "-"]);
        assert_eq!(fields(found[1].after.as_ref()), ["-", "NULL"]);
    }

    #[test]
    fn rows_cut_short_anywhere_are_an_error() {
        let whole = body(b"\x02\x03\x00\x05\0\0\0\x02hi");
        let columns = id_and_text();
        assert_eq!(all(&Rows::decode(kind::WRITE_ROWS, &whole, 10).unwrap(), &columns).unwrap().len(), 1);
        for end in 0..whole.len() {
            let read = Rows::decode(kind::WRITE_ROWS, &whole.slice(..end), 10).and_then(|rows| all(&rows, &columns));
            match read {
                Ok(rows) => assert!(rows.is_empty() && end == 12, "cut at {end}"),
                Err(error) => assert_eq!(error.kind(), Kind::Protocol),
            }
        }
        assert!(Rows::decode(kind::WRITE_ROWS, &body(b"\xFE\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"), 10).is_err());
        // Another number of columns than the table has.
        assert!(all(&Rows::decode(kind::WRITE_ROWS, &body(b"\x03\x07\x00"), 10).unwrap(), &columns).is_err());
    }

    #[test]
    fn a_text_that_its_set_does_not_define_is_the_callers_to_decide() {
        let body = body(b"\x02\x03\x00\x05\0\0\0\x02h\xFF");
        let rows = Rows::decode(kind::WRITE_ROWS, &body, 10).unwrap();
        let columns = id_and_text();
        let error = all(&rows, &columns).unwrap_err();
        assert_eq!(error.kind(), Kind::BadRow);
        assert!(error.why().contains("column 2") && error.why().contains("utf8mb4"), "{error}");
        let mut replace = |invalid: field::InvalidText<'_>| {
            assert_eq!((invalid.column, invalid.bytes, invalid.at), (1, &b"h\xFF"[..], 1));
            Ok(Substitute::Text(b"h?".to_vec()))
        };
        let row = RowReader::new().next(&mut rows.images(), &columns, &mut replace).unwrap().unwrap();
        assert_eq!(fields(row.after.as_ref()), ["5", "h?"]);
    }

    #[test]
    fn what_neither_log_nor_catalogue_tells_is_an_error() {
        let map = TableMap::decode(&event(&[(t::LONG, &[])], &[]), 8, false).unwrap();
        let error = map.layout(&[]).unwrap_err();
        assert_eq!(error.kind(), Kind::Schema);
        assert!(error.message().contains("shop.orders") && error.suggestion().unwrap().contains("FULL"), "{error}");
        assert!(map.layout(&[ColumnHint::default(), ColumnHint::default()]).is_err());
    }

    #[test]
    fn every_form_of_value_cut_short_is_an_error_and_never_more_memory_than_its_bytes() {
        let labels = Some([Box::from(&b"a"[..])].into());
        let hint = ColumnHint { unsigned: Some(true), charset: Some(Charset::Binary), labels, ..ColumnHint::default() };
        let columns: &[(u8, &[u8])] = &[
            (t::TINY, &[]),
            (t::SHORT, &[]),
            (t::INT24, &[]),
            (t::LONG, &[]),
            (t::LONGLONG, &[]),
            (t::FLOAT, &[4]),
            (t::DOUBLE, &[8]),
            (t::NEWDECIMAL, &[65, 30]),
            (t::YEAR, &[]),
            (t::BIT, &[1, 7]),
            (t::DATE, &[]),
            (t::TIME, &[]),
            (t::DATETIME, &[]),
            (t::TIMESTAMP, &[]),
            (t::TIME2, &[6]),
            (t::DATETIME2, &[5]),
            (t::TIMESTAMP2, &[3]),
            (t::VARCHAR, &[0, 1]),
            (t::STRING, &[254, 9]),
            (t::STRING, &[t::ENUM, 2]),
            (t::STRING, &[t::SET, 8]),
            (t::LONG_BLOB, &[4]),
            (t::JSON, &[4]),
            (t::GEOMETRY, &[4]),
            (t::VECTOR, &[4]),
            (t::MARIA_BLOB_COMPRESSED, &[3]),
        ];
        for column in columns {
            let layout = layout(&[*column], std::slice::from_ref(&hint));
            for fill in [0x00, 0x01, 0x7F, 0x80, 0xFF] {
                for length in 0..48 {
                    let image = [&[0][..], &vec![fill; length]].concat();
                    let mut row = RowBuilder::default();
                    let _ = field::write_row(&image, Present::new(&[1], 1), &layout, &mut row, &mut refuse_invalid);
                    assert!(row.finish().size() < 4096);
                }
            }
        }
    }
}
