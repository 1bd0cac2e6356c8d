//! Reads values again that the stream did not send, because they did not change and are stored out of line.
//!
//! In: a row as the stream sent it. Out: the same row with those values as they are at the source *now*, and whether that
//! is still the version the stream told of. Used only where a row appears in the target that no copy has (TRAPS 6).

use bytes::{BufMut, Bytes, BytesMut};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::change::{Datum, Lsn, Row, RowBuilder};
use crate::error::Result;
use crate::postgres::Client;
use crate::schema::{Ident, TableSchema};
use crate::source::Reread;

/// A value in its binary form, whatever its type.
#[derive(Debug)]
struct Raw(Bytes);

impl ToSql for Raw {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Raw(Bytes::copy_from_slice(raw)))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Completes `row` of `table`, which transaction `xid` wrote.
pub(super) async fn read(client: &Client, table: &TableSchema, row: &Row, xid: u32) -> Result<Reread> {
    let text = row.fields().any(|datum| matches!(datum, Datum::Text(_)));
    let wanted: Vec<usize> = (0..row.len()).filter(|&index| row.get(index) == Some(Datum::Unchanged)).collect();
    let columns = wanted.iter().map(|&index| {
        let column = Ident(&table.columns[index].name).to_string();
        if text { format!("{column}::pg_catalog.text") } else { column }
    });
    let key = table.key.as_ref().map_or(&[][..], |key| &key.columns);
    let values: Vec<Raw> = key
        .iter()
        .map(|&index| Raw(row.get(index).and_then(Datum::bytes).map(Bytes::copy_from_slice).unwrap_or_default()))
        .collect();
    let conditions = key.iter().enumerate().map(|(number, &index)| {
        let column = &table.columns[index];
        let cast = if text { "::pg_catalog.text" } else { "" };
        format!("{} = ${}{cast}::{}", Ident(&column.name), number + 1, column.ty.sql())
    });
    let columns: Vec<String> = std::iter::once("xmin::pg_catalog.text::int8".to_owned()).chain(columns).collect();
    let conditions: Vec<String> = conditions.collect();
    let sql = format!("SELECT {} FROM {} WHERE {}", columns.join(", "), table.name.sql(), conditions.join(" AND "));
    let params: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
    let found = client.query_opt(&sql, &params).await?;
    let complete = found.as_ref().map(|found| {
        let mut builder = RowBuilder::with_capacity(row.size() + 1024);
        let mut read = (1..).map(|index| found.get::<_, Option<Raw>>(index));
        for datum in row.fields() {
            if datum != Datum::Unchanged {
                builder.push(datum);
                continue;
            }
            let value = read.next().expect("there is one for each that is missing");
            builder.push(match &value {
                None => Datum::Null,
                Some(Raw(bytes)) if text => Datum::Text(bytes),
                Some(Raw(bytes)) => Datum::Binary(bytes),
            });
        }
        builder.finish()
    });
    if found.is_some_and(|found| found.get::<_, i64>(0) == i64::from(xid)) {
        return Ok(Reread { row: complete, changed_before: None });
    }
    // Asked after the row was read: whatever was seen of it was committed before.
    let at = client.query_one("SELECT pg_catalog.pg_current_wal_insert_lsn()::text", &[]).await?;
    let at: Lsn = at.get::<_, &str>(0).parse()?;
    Ok(Reread { row: complete, changed_before: Some(at.into()) })
}
