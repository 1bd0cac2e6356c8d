//! Values of the state as Postgres sends and takes them, in the binary format.

use ::bytes::BytesMut;
use jiff::Timestamp;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::target::state::db::{Param, Value};

type Bad = Box<dyn std::error::Error + Sync + Send>;

/// Microseconds from the Unix epoch to that of Postgres, 2000-01-01.
const EPOCH: i64 = 946_684_800_000_000;

impl ToSql for Param<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Bad> {
        match self {
            Param::Null => return Ok(IsNull::Yes),
            Param::Text(text) => text.to_sql(ty, out)?,
            Param::Int(int) => match *ty {
                Type::INT4 => i32::try_from(*int)?.to_sql(ty, out)?,
                Type::OID => u32::try_from(*int)?.to_sql(ty, out)?,
                _ => int.to_sql(ty, out)?,
            },
            Param::Float(float) => float.to_sql(ty, out)?,
            Param::Bool(bool) => bool.to_sql(ty, out)?,
            Param::Time(time) => (time.as_microsecond() - EPOCH).to_sql(&Type::INT8, out)?,
            Param::Json(json) => json.to_sql(ty, out)?,
            Param::Texts(texts) => texts.to_sql(ty, out)?,
            Param::Ints(ints) => ints.to_sql(ty, out)?,
        };
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Bad> {
        Ok(match *ty {
            Type::BOOL => Value::Bool(bool::from_sql(ty, raw)?),
            Type::INT4 => Value::Int(i32::from_sql(ty, raw)?.into()),
            Type::OID => Value::Int(u32::from_sql(ty, raw)?.into()),
            Type::INT8 => Value::Int(i64::from_sql(ty, raw)?),
            Type::TIMESTAMPTZ => {
                let since = i64::from_sql(&Type::INT8, raw)?;
                Value::Time(Timestamp::from_microsecond(since.saturating_add(EPOCH))?)
            }
            Type::JSONB => Value::Json(serde_json::Value::from_sql(ty, raw)?),
            _ => Value::Text(String::from_sql(ty, raw)?),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, Bad> {
        Ok(Value::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
