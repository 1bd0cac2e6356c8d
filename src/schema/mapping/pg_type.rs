//! The Postgres types that a value of another engine may become.

use std::fmt;

/// A Postgres type, as the mapping names it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is Postgres' own word for it")]
pub enum PgType {
    Boolean,
    SmallInt,
    Integer,
    BigInt,
    /// Precision and scale; without them unlimited.
    Numeric(Option<(u32, u32)>),
    Real,
    Double,
    Text,
    /// Characters; without a number unlimited.
    VarChar(Option<u32>),
    CiText,
    Bytea,
    /// Bits.
    Bit(u32),
    Date,
    /// Digits of the second's fraction, as in the three after it.
    Time(u8),
    Timestamp(u8),
    TimestampTz(u8),
    Interval(u8),
    Json,
    JsonB,
    Uuid,
    Inet,
    TextArray,
    RealArray,
    /// A type made for the column, with the labels of its enum.
    Enum,
    /// PostGIS.
    Geometry,
}

impl PgType {
    /// Reads a type as people and `format_type` write it: `numeric(20)`, `character varying(40)`, `timestamptz(3)`.
    /// `None` if it is none of those that the mapping has.
    pub fn parse(text: &str) -> Option<PgType> {
        let text = text.trim().to_ascii_lowercase();
        let (word, numbers) = match text.split_once('(') {
            None => (text.clone(), Vec::new()),
            Some((before, rest)) => {
                let (inside, after) = rest.split_once(')')?;
                let numbers = inside.split(',').map(|n| n.trim().parse().ok()).collect::<Option<Vec<u32>>>()?;
                (format!("{}{after}", before.trim_end()), numbers)
            }
        };
        let word = word.split_whitespace().collect::<Vec<_>>().join(" ");
        let fraction = || u8::try_from(numbers.first().copied().unwrap_or(6)).ok().filter(|digits| *digits <= 6);
        let ty = match (word.as_str(), &numbers[..]) {
            ("boolean" | "bool", []) => PgType::Boolean,
            ("smallint" | "int2", []) => PgType::SmallInt,
            ("integer" | "int" | "int4", []) => PgType::Integer,
            ("bigint" | "int8", []) => PgType::BigInt,
            ("numeric" | "decimal", []) => PgType::Numeric(None),
            ("numeric" | "decimal", [p]) => PgType::Numeric(Some((*p, 0))),
            ("numeric" | "decimal", [p, s]) => PgType::Numeric(Some((*p, *s))),
            ("real" | "float4", []) => PgType::Real,
            ("double precision" | "float8", []) => PgType::Double,
            ("text", []) => PgType::Text,
            ("character varying" | "varchar", []) => PgType::VarChar(None),
            ("character varying" | "varchar", [n]) => PgType::VarChar(Some(*n)),
            ("citext", []) => PgType::CiText,
            ("bytea", []) => PgType::Bytea,
            ("bit", []) => PgType::Bit(1),
            ("bit", [n]) => PgType::Bit(*n),
            ("date", []) => PgType::Date,
            ("time" | "time without time zone", _) => PgType::Time(fraction()?),
            ("timestamp" | "timestamp without time zone", _) => PgType::Timestamp(fraction()?),
            ("timestamptz" | "timestamp with time zone", _) => PgType::TimestampTz(fraction()?),
            ("interval", _) => PgType::Interval(fraction()?),
            ("json", []) => PgType::Json,
            ("jsonb", []) => PgType::JsonB,
            ("uuid", []) => PgType::Uuid,
            ("inet", []) => PgType::Inet,
            ("text[]", []) => PgType::TextArray,
            ("real[]" | "float4[]", []) => PgType::RealArray,
            ("enum", []) => PgType::Enum,
            ("geometry", []) => PgType::Geometry,
            _ => return None,
        };
        Some(ty)
    }

    /// Whether it is a number to SQL.
    pub fn is_number(&self) -> bool {
        use PgType::{BigInt, Double, Integer, Numeric, Real, SmallInt};
        matches!(self, SmallInt | Integer | BigInt | Numeric(_) | Real | Double)
    }

    /// Whether values are plain text.
    pub fn is_text(&self) -> bool {
        matches!(self, PgType::Text | PgType::VarChar(_) | PgType::CiText)
    }
}

impl fmt::Display for PgType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Six digits are what the type has without a number.
        let fraction = |word: &str, digits: u8, zone: &str| match digits {
            6 => format!("{word}{zone}"),
            digits => format!("{word}({digits}){zone}"),
        };
        let text = match self {
            PgType::Boolean => "boolean".into(),
            PgType::SmallInt => "smallint".into(),
            PgType::Integer => "integer".into(),
            PgType::BigInt => "bigint".into(),
            PgType::Numeric(None) => "numeric".into(),
            PgType::Numeric(Some((p, 0))) => format!("numeric({p})"),
            PgType::Numeric(Some((p, s))) => format!("numeric({p},{s})"),
            PgType::Real => "real".into(),
            PgType::Double => "double precision".into(),
            PgType::Text => "text".into(),
            PgType::VarChar(None) => "varchar".into(),
            PgType::VarChar(Some(n)) => format!("varchar({n})"),
            PgType::CiText => "citext".into(),
            PgType::Bytea => "bytea".into(),
            PgType::Bit(n) => format!("bit({n})"),
            PgType::Date => "date".into(),
            PgType::Time(digits) => fraction("time", *digits, ""),
            PgType::Timestamp(digits) => fraction("timestamp", *digits, ""),
            PgType::TimestampTz(digits) => fraction("timestamp", *digits, " with time zone"),
            PgType::Interval(digits) => fraction("interval", *digits, ""),
            PgType::Json => "json".into(),
            PgType::JsonB => "jsonb".into(),
            PgType::Uuid => "uuid".into(),
            PgType::Inet => "inet".into(),
            PgType::TextArray => "text[]".into(),
            PgType::RealArray => "real[]".into(),
            PgType::Enum => "enum".into(),
            PgType::Geometry => "geometry".into(),
        };
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_read_as_people_and_as_the_server_write_it() {
        for (text, shown) in [
            ("NUMERIC(20)", "numeric(20)"),
            ("numeric(10, 2)", "numeric(10,2)"),
            ("character varying(40)", "varchar(40)"),
            ("timestamp(3) with time zone", "timestamp(3) with time zone"),
            ("timestamptz", "timestamp with time zone"),
            ("timestamp(0) without time zone", "timestamp(0)"),
            ("double precision", "double precision"),
            ("text[]", "text[]"),
        ] {
            assert_eq!(PgType::parse(text).map(|ty| ty.to_string()).as_deref(), Some(shown), "{text}");
        }
        for text in ["hstore", "varchar(x)", "time(9)", "integer(4)"] {
            assert_eq!(PgType::parse(text), None, "{text}");
        }
    }
}
