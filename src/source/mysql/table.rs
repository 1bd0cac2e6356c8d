//! A migrated table, as the stream needs it: how its rows in the log are read, and which of their columns travel.
//!
//! The log names columns by their place alone, or also by name, and may not tell sign, character set or labels: the
//! catalogue does. So both must speak of the same table. Where they do not, the table was altered between the place in
//! the log and now; then the rows cannot be read for certain, and the error says what differs.

use std::sync::Arc;

use super::binlog::{Charset, ColumnHint, ColumnLayout, Fixed, TableMap, column_type};
use crate::change::{Datum, Row};
use crate::error::{Error, Kind, Result};
use crate::schema::{ColumnDefinition, DefaultValue, MySqlKind, TableDefinition, TableSchema};

/// A migrated table.
pub(super) struct Streamed {
    /// As the pipeline knows it.
    pub table: Arc<TableSchema>,
    /// All columns, those that do not travel among them.
    columns: Vec<ColumnDefinition>,
    hints: Vec<ColumnHint>,
    /// The places of the columns that travel; `None`: all do.
    travels: Option<Vec<usize>>,
    /// How rows are read, and the description that says so.
    layout: Option<(TableMap, Arc<[ColumnLayout]>)>,
}

impl Streamed {
    /// `table` is as the pipeline knows it, `definition` what the catalogue says now.
    pub(super) fn new(table: &Arc<TableSchema>, definition: TableDefinition) -> Result<Streamed> {
        let same = |a: &TableSchema, b: &TableSchema| {
            a.columns.len() == b.columns.len()
                && a.columns.iter().zip(&b.columns).all(|(a, b)| a.name == b.name && a.ty.display == b.ty.display)
        };
        if !same(table, &definition.table) {
            return Err(altered(&table.name.to_string(), "its columns are not those that the migration knows"));
        }
        let columns = definition.columns;
        let travels = columns.iter().any(|column| column.generated.is_some()).then(|| {
            let places = columns.iter().enumerate().filter(|(_, column)| column.generated.is_none());
            places.map(|(at, _)| at).collect()
        });
        let hints = columns.iter().map(hint).collect();
        Ok(Streamed { table: Arc::clone(table), columns, hints, travels, layout: None })
    }

    /// How the rows after this table map are read.
    pub(super) fn layout(&mut self, map: &TableMap) -> Result<Arc<[ColumnLayout]>> {
        if let Some((known, layout)) = &self.layout
            && known.describes_the_same(map)
        {
            return Ok(Arc::clone(layout));
        }
        self.check(map)?;
        let layout: Arc<[ColumnLayout]> = map.layout(&self.hints)?.into();
        self.layout = Some((map.clone(), Arc::clone(&layout)));
        Ok(layout)
    }

    /// Whether the log speaks of the table that the catalogue knows.
    fn check(&self, map: &TableMap) -> Result<()> {
        let name = self.table.name.to_string();
        if map.columns.len() != self.columns.len() {
            let (logged, known) = (map.columns.len(), self.columns.len());
            return Err(altered(&name, &format!("the log has {logged} columns, the catalogue {known}")));
        }
        for (at, (logged, known)) in map.columns.iter().zip(&self.columns).enumerate() {
            let logged_name = map.metadata.names.as_ref().and_then(|names| names.get(at));
            if let Some(logged) = logged_name.filter(|logged| **logged != known.name) {
                let what = format!("column {} is {logged:?} in the log and {:?} in the catalogue", at + 1, known.name);
                return Err(altered(&name, &what));
            }
            let kind = known.ty.mysql.as_ref().map_or(MySqlKind::Other, |ty| ty.kind);
            if !fits(logged.kind, kind) {
                let what =
                    format!("column {:?} is {} now, and something else in the log", known.name, known.ty.display);
                return Err(altered(&name, &what));
            }
        }
        Ok(())
    }

    /// The columns that travel.
    pub(super) fn travelling(&self, row: Row) -> Row {
        match &self.travels {
            None => row,
            Some(places) => {
                let fields: Vec<Datum<'_>> = row.fields().collect();
                places.iter().map(|&at| fields[at]).collect()
            }
        }
    }
}

impl Streamed {
    /// A new row of which not everything was logged: with `binlog_row_image = MINIMAL` the server leaves out what the
    /// statement did not name, and a replica puts its own defaults there.
    pub(super) fn completed(&self, row: &Row) -> Result<Row> {
        let columns = self.columns.iter().filter(|column| column.generated.is_none());
        let mut fields = Vec::with_capacity(row.len());
        for (sent, column) in row.fields().zip(columns) {
            fields.push(match sent {
                Datum::Unchanged => default_of(column).ok_or_else(|| self.unknown_default(column))?,
                sent => sent,
            });
        }
        Ok(fields.into_iter().collect())
    }

    fn unknown_default(&self, column: &ColumnDefinition) -> Error {
        let why = format!("a new row of {} was logged without {:?}", self.table.name, column.name);
        Error::new(Kind::ServerSetting, why).fix(
            "what the server put there cannot be told for certain: SET GLOBAL binlog_row_image = FULL at the source, then \
             cutwater teardown, and cutwater run copies everything anew",
        )
    }
}

/// What a column has that no statement named, if it looks the same in a definition and in a row.
fn default_of(column: &ColumnDefinition) -> Option<Datum<'_>> {
    use MySqlKind as K;
    let ty = column.ty.mysql.as_ref()?;
    match &column.default {
        None if !column.not_null => Some(Datum::Null),
        Some(DefaultValue::Literal(text)) if !ty.zerofill => {
            let alike = matches!(
                ty.kind,
                K::TinyInt
                    | K::SmallInt
                    | K::MediumInt
                    | K::Int
                    | K::BigInt
                    | K::Decimal
                    | K::Char
                    | K::VarChar
                    | K::Enum
                    | K::Set
                    | K::Date
            );
            alike.then_some(Datum::Text(text.as_bytes()))
        }
        _ => None,
    }
}

fn altered(table: &str, what: &str) -> Error {
    Error::new(Kind::Schema, format!("{table} was altered at the source between this place in its log and now: {what}"))
        .fix("cutwater tables resync copies the table anew, as it is now")
}

fn hint(column: &ColumnDefinition) -> ColumnHint {
    let Some(ty) = &column.ty.mysql else { return ColumnHint::default() };
    let text = ty.charset.as_deref().and_then(Charset::named);
    let labels = ty.labels.iter().map(|label| label.as_bytes().into());
    ColumnHint {
        unsigned: Some(ty.unsigned),
        charset: if ty.is_bytes() { Some(Charset::Binary) } else { text },
        labels: matches!(ty.kind, MySqlKind::Enum | MySqlKind::Set).then(|| labels.collect()),
        fsp: Some(ty.fsp),
        fixed: match ty.kind {
            MySqlKind::Uuid => Some(Fixed::Uuid),
            MySqlKind::Inet4 => Some(Fixed::Inet4),
            MySqlKind::Inet6 => Some(Fixed::Inet6),
            _ => None,
        },
    }
}

/// Whether the log's type can be the catalogue's.
fn fits(logged: u8, known: MySqlKind) -> bool {
    use MySqlKind as K;
    use column_type as t;
    match logged {
        t::TINY => known == K::TinyInt,
        t::SHORT => known == K::SmallInt,
        t::INT24 => known == K::MediumInt,
        t::LONG => known == K::Int,
        t::LONGLONG => known == K::BigInt,
        t::FLOAT => known == K::Float,
        t::DOUBLE => known == K::Double,
        t::NEWDECIMAL => known == K::Decimal,
        t::YEAR => known == K::Year,
        t::BIT => known == K::Bit,
        t::DATE | t::NEWDATE => known == K::Date,
        t::TIME | t::TIME2 => known == K::Time,
        t::DATETIME | t::DATETIME2 => known == K::DateTime,
        t::TIMESTAMP | t::TIMESTAMP2 => known == K::Timestamp,
        t::ENUM => known == K::Enum,
        t::SET => known == K::Set,
        t::JSON => known == K::Json,
        t::GEOMETRY => known == K::Geometry,
        // Texts and bytes share types, and MariaDB has more that look like them.
        _ => !matches!(
            known,
            K::TinyInt
                | K::SmallInt
                | K::MediumInt
                | K::Int
                | K::BigInt
                | K::Float
                | K::Double
                | K::Decimal
                | K::Year
                | K::Bit
                | K::Date
                | K::Time
                | K::DateTime
                | K::Timestamp
                | K::Enum
                | K::Set
        ),
    }
}
