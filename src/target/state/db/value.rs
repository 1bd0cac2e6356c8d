//! What statements take and give, alike for every engine.

use std::str::FromStr;

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use crate::error::{Error, Kind, Result};
use crate::schema::TableName;

/// A parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Param<'a> {
    Null,
    Text(&'a str),
    Int(i64),
    Float(f64),
    Bool(bool),
    Time(Timestamp),
    Json(&'a serde_json::Value),
    /// One value for each row of a list, see [`super::Session::execute`].
    Texts(&'a [&'a str]),
    Ints(&'a [i64]),
}

pub(crate) type Params<'a> = &'a [Param<'a>];

/// Makes a list of parameters of values that can be one.
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$($crate::target::state::db::Param::from($value)),*] };
}
pub(in crate::target) use params;

macro_rules! from {
    ($($ty:ty => |$value:ident| $param:expr;)*) => {
        $(impl<'a> From<$ty> for Param<'a> {
            fn from($value: $ty) -> Self {
                $param
            }
        })*
    };
}

from! {
    &'a str => |text| Param::Text(text);
    &'a String => |text| Param::Text(text);
    i64 => |int| Param::Int(int);
    i32 => |int| Param::Int(int.into());
    u32 => |int| Param::Int(int.into());
    f64 => |float| Param::Float(float);
    bool => |bool| Param::Bool(bool);
    Timestamp => |time| Param::Time(time);
    &'a serde_json::Value => |json| Param::Json(json);
    &'a [&'a str] => |texts| Param::Texts(texts);
    &'a Vec<&'a str> => |texts| Param::Texts(texts);
    &'a Vec<i64> => |ints| Param::Ints(ints);
}

impl<'a, T: Into<Param<'a>>> From<Option<T>> for Param<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Param::Null, Into::into)
    }
}

/// A value of a row.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Text(String),
    Int(i64),
    Bool(bool),
    Time(Timestamp),
    Json(serde_json::Value),
}

/// A row, by the place of its columns.
#[derive(Debug, Clone)]
pub(crate) struct Row(pub Vec<Value>);

impl Row {
    /// The value at this place. An error if it is none of that kind: somebody else has written it.
    pub fn get<T: FromValue>(&self, at: usize) -> Result<T> {
        let value = self.0.get(at).unwrap_or(&Value::Null);
        T::from_value(value).ok_or_else(|| {
            Error::new(
                Kind::Internal,
                format!("the state cannot be read: {value:?} is no {}", std::any::type_name::<T>()),
            )
        })
    }

    /// A word or position that knows how to read itself.
    pub fn parse<T: FromStr<Err = Error>>(&self, at: usize) -> Result<T> {
        self.get::<String>(at)?.parse()
    }

    /// The same, or nothing.
    pub fn parse_opt<T: FromStr<Err = Error>>(&self, at: usize) -> Result<Option<T>> {
        self.get::<Option<String>>(at)?.map(|text| text.parse()).transpose()
    }

    /// A table's name, which lies in this column and the next.
    pub fn name(&self, at: usize) -> Result<TableName> {
        Ok(TableName::new(self.get::<String>(at)?, self.get::<String>(at + 1)?))
    }

    /// A record that was written as JSON.
    pub fn json<T: DeserializeOwned>(&self, at: usize) -> Result<T> {
        let read = match self.0.get(at).unwrap_or(&Value::Null) {
            Value::Json(json) => T::deserialize(json),
            Value::Text(text) => serde_json::from_str(text),
            _ => T::deserialize(serde_json::Value::Null),
        };
        read.map_err(|error| Error::new(Kind::Internal, format!("the state cannot be read: {error}")))
    }
}

/// What a [`Value`] can be read as.
pub(crate) trait FromValue: Sized {
    fn from_value(value: &Value) -> Option<Self>;
}

impl FromValue for String {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }
}

impl FromValue for i64 {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Int(int) => Some(*int),
            _ => None,
        }
    }
}

impl FromValue for i32 {
    fn from_value(value: &Value) -> Option<Self> {
        i64::from_value(value)?.try_into().ok()
    }
}

impl FromValue for u32 {
    fn from_value(value: &Value) -> Option<Self> {
        i64::from_value(value)?.try_into().ok()
    }
}

impl FromValue for bool {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(bool) => Some(*bool),
            // MySQL has no other.
            Value::Int(int) => Some(*int != 0),
            _ => None,
        }
    }
}

impl FromValue for Timestamp {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Time(time) => Some(*time),
            _ => None,
        }
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}
