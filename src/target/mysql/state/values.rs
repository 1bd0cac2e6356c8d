//! Values of the state as MySQL takes and sends them, in the binary protocol.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use mysql_async::{Params as Values, Row as Found, Value as Raw};

use crate::error::{Error, Kind, Result};
use crate::target::state::db::{Param, Params, Row, Value};

/// How many rows the lists among the parameters have; `None`: there is none.
pub(super) fn rows(params: Params<'_>) -> Option<usize> {
    params.iter().find_map(|param| match param {
        Param::Texts(texts) => Some(texts.len()),
        Param::Ints(ints) => Some(ints.len()),
        _ => None,
    })
}

/// The values for the question marks; of lists, those of this row.
pub(super) fn of(params: Params<'_>, places: &[usize], row: usize) -> Values {
    if places.is_empty() {
        return Values::Empty;
    }
    Values::Positional(
        places.iter().map(|&place| params.get(place).map_or(Raw::NULL, |param| raw(param, row))).collect(),
    )
}

fn raw(param: &Param<'_>, row: usize) -> Raw {
    match param {
        Param::Null => Raw::NULL,
        Param::Text(text) => Raw::from(*text),
        Param::Int(int) => Raw::from(*int),
        Param::Float(float) => Raw::from(*float),
        Param::Bool(bool) => Raw::from(*bool),
        Param::Time(time) => {
            let time = time.to_zoned(TimeZone::UTC).datetime();
            let small = |number: i8| number.unsigned_abs();
            Raw::Date(
                time.year().unsigned_abs(),
                small(time.month()),
                small(time.day()),
                small(time.hour()),
                small(time.minute()),
                small(time.second()),
                (time.subsec_nanosecond() / 1000).unsigned_abs(),
            )
        }
        Param::Json(json) => Raw::from(json.to_string()),
        Param::Texts(texts) => Raw::from(texts[row]),
        Param::Ints(ints) => Raw::from(ints[row]),
    }
}

/// A row that was found.
pub(super) fn read(found: Found) -> Result<Row> {
    found.unwrap().into_iter().map(value).collect::<Result<_>>().map(Row)
}

fn value(raw: Raw) -> Result<Value> {
    let unreadable = |what: String| Error::new(Kind::Internal, format!("the state cannot be read: {what}"));
    Ok(match raw {
        Raw::NULL => Value::Null,
        Raw::Int(int) => Value::Int(int),
        Raw::UInt(int) => Value::Int(int.try_into().map_err(|_| unreadable(format!("{int} is too large")))?),
        Raw::Bytes(text) => Value::Text(String::from_utf8(text).map_err(|error| unreadable(error.to_string()))?),
        Raw::Date(year, month, day, hour, minute, second, micros) => {
            let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z");
            Value::Time(text.parse::<Timestamp>().map_err(|error| unreadable(error.to_string()))?)
        }
        Raw::Float(_) | Raw::Double(_) | Raw::Time(..) => return Err(unreadable("a value of no kind of ours".into())),
    })
}
