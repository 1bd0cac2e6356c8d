//! Which Postgres type a MySQL or MariaDB type becomes: the one place that decides it.
//!
//! [`MYSQL_TO_POSTGRES`] is the table that `docs/types.md` shows; a test holds it against [`default_type`].

use super::PgType;
use crate::schema::{MySqlKind, MySqlType};

/// One line of the documented mapping.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The types at the source, each as `information_schema` prints it.
    pub from: &'static [&'static str],
    /// The type at the target.
    pub to: &'static str,
    /// What else `[[schema.type]]` may choose.
    pub or: &'static [&'static str],
    /// What to know, and which setting decides where a value cannot be carried exactly.
    pub note: &'static str,
}

const fn row(from: &'static [&'static str], to: &'static str, or: &'static [&'static str], note: &'static str) -> Row {
    Row { from, to, or, note }
}

/// Every type of the two servers.
pub const MYSQL_TO_POSTGRES: &[Row] = &[
    row(
        &["tinyint(1)"],
        "boolean",
        &["smallint"],
        "0 is false, 1 is true; any other number: `out_of_range` (`\"clamp\"`: true)",
    ),
    row(
        &["tinyint(4)", "tinyint(3) unsigned", "smallint"],
        "smallint",
        &["integer", "bigint", "numeric(20)", "boolean", "text"],
        "that a number is not negative is not checked at the target; `zerofill` does not pad there",
    ),
    row(
        &["smallint unsigned", "mediumint", "mediumint unsigned", "int"],
        "integer",
        &["smallint", "bigint", "numeric(20)", "boolean", "text"],
        "into a smaller type: `out_of_range`",
    ),
    row(&["int unsigned", "bigint"], "bigint", &["integer", "numeric(20)", "text"], ""),
    row(
        &["bigint unsigned"],
        "numeric(20)",
        &["bigint", "text"],
        "`bigint` where it is AUTO_INCREMENT, or refers to such a column: an identity has no larger type. Past 9223372036854775807: `out_of_range`",
    ),
    row(&["decimal(10,2)"], "numeric(10,2)", &["text"], "every digit stays"),
    row(&["float"], "real", &["double precision", "text"], "the same number; `float(7,3)` rounds at the source only"),
    row(&["double"], "double precision", &["text"], "the same number"),
    row(&["bit(1)"], "boolean", &["bit(1)", "smallint"], ""),
    row(&["bit(20)"], "bit(20)", &["bigint", "numeric(20)", "bytea"], "numbers are unsigned"),
    row(&["year"], "smallint", &["integer", "text"], "0000 is 0"),
    row(&["date"], "date", &["text"], "`0000-00-00`, days and months 00, year 0000, 31 February: `zero_date`"),
    row(
        &["datetime(6)"],
        "timestamp",
        &["timestamp with time zone", "text"],
        "as many digits of a second as at the source. Without a zone at both ends; with one it is taken for UTC. `zero_date`",
    ),
    row(
        &["timestamp(6)"],
        "timestamp with time zone",
        &["timestamp", "text"],
        "the same moment; `timestamp` holds it in UTC. `zero_date`",
    ),
    row(
        &["time(6)"],
        "time",
        &["interval", "text"],
        "negative, or past 24:00:00: `out_of_range`, or `interval`, which holds all of them",
    ),
    row(
        &["char(10)", "varchar(10)"],
        "varchar(10)",
        &["text", "citext", "uuid", "inet", "json", "jsonb"],
        "`char` without the blanks at its end, as the source gives it. A `_ci` collation finds `a` and `A` equal, the target does not: `citext` does. NUL: `nul_byte`; not UTF-8: `invalid_text`",
    ),
    row(
        &["tinytext", "text", "mediumtext", "longtext"],
        "text",
        &["citext", "json", "jsonb"],
        "NUL: `nul_byte`; not UTF-8: `invalid_text`",
    ),
    row(
        &["binary(16)", "varbinary(16)", "tinyblob", "blob", "mediumblob", "longblob"],
        "bytea",
        &["uuid", "text"],
        "`uuid` takes 16 bytes as they are; anything else: `out_of_range`",
    ),
    row(
        &["enum('a','b')"],
        "text",
        &["enum", "varchar", "citext"],
        "with a CHECK of the labels; `enum` makes a type. The empty value of an invalid write: `out_of_range`",
    ),
    row(&["set('a','b')"], "text[]", &["text"], "with a CHECK of the labels; in the order of the definition"),
    row(
        &["json"],
        "jsonb",
        &["json", "text"],
        "of equal keys MySQL itself has kept one. MariaDB's `json` becomes `json`, because it keeps blanks, order and equal keys. `\\u0000`: `nul_byte`",
    ),
    row(
        &[
            "geometry",
            "point",
            "linestring",
            "polygon",
            "multipoint",
            "multilinestring",
            "multipolygon",
            "geomcollection",
        ],
        "bytea",
        &["geometry"],
        "EWKB, the SRID in it; `geometry` needs PostGIS",
    ),
    row(&["vector(3)"], "real[]", &["bytea"], ""),
    row(&["uuid"], "uuid", &["text"], "MariaDB"),
    row(&["inet4", "inet6"], "inet", &["text"], "MariaDB"),
];

/// What a type becomes when no rule says otherwise; `None` for a type that is not known.
pub fn default_type(ty: &MySqlType) -> Option<PgType> {
    use MySqlKind as K;
    Some(match ty.kind {
        K::TinyInt if ty.length == Some(1) && !ty.unsigned => PgType::Boolean,
        K::TinyInt => PgType::SmallInt,
        K::SmallInt if !ty.unsigned => PgType::SmallInt,
        K::SmallInt | K::MediumInt => PgType::Integer,
        K::Int if !ty.unsigned => PgType::Integer,
        K::Int => PgType::BigInt,
        K::BigInt if !ty.unsigned => PgType::BigInt,
        K::BigInt => PgType::Numeric(Some((20, 0))),
        K::Decimal => PgType::Numeric(Some((ty.precision.unwrap_or(10), ty.scale.unwrap_or(0)))),
        K::Float => PgType::Real,
        K::Double => PgType::Double,
        K::Bit if ty.length.unwrap_or(1) == 1 => PgType::Boolean,
        K::Bit => PgType::Bit(ty.length.unwrap_or(1)),
        K::Year => PgType::SmallInt,
        K::Date => PgType::Date,
        K::DateTime => PgType::Timestamp(ty.fsp),
        K::Timestamp => PgType::TimestampTz(ty.fsp),
        K::Time => PgType::Time(ty.fsp),
        // char(0) exists there, and holds the empty text.
        K::Char | K::VarChar => PgType::VarChar(Some(ty.length.unwrap_or(1).max(1))),
        K::LongText if ty.json_alias => PgType::Json,
        K::TinyText | K::Text | K::MediumText | K::LongText | K::Enum => PgType::Text,
        K::Binary | K::VarBinary | K::TinyBlob | K::Blob | K::MediumBlob | K::LongBlob | K::Geometry => PgType::Bytea,
        K::Set => PgType::TextArray,
        K::Json => PgType::JsonB,
        K::Vector => PgType::RealArray,
        K::Uuid => PgType::Uuid,
        K::Inet4 | K::Inet6 => PgType::Inet,
        K::Other => return None,
    })
}

/// Whether values of `from` can be written as `to`.
pub fn convertible(from: &MySqlType, to: &PgType) -> bool {
    use MySqlKind as K;
    use PgType as P;
    let number = matches!(to, P::SmallInt | P::Integer | P::BigInt | P::Numeric(_));
    match from.kind {
        K::TinyInt | K::SmallInt | K::MediumInt | K::Int | K::BigInt => number || to.is_text() || *to == P::Boolean,
        K::Year => number || to.is_text(),
        // Nothing is rounded: a type with fewer digits behind the point is none.
        K::Decimal => match to {
            P::Numeric(digits) => digits.is_none_or(|(_, scale)| scale >= from.scale.unwrap_or(0)),
            to => to.is_text(),
        },
        K::Float => matches!(to, P::Real | P::Double) || to.is_text(),
        K::Double => matches!(to, P::Double) || to.is_text(),
        K::Bit => {
            let length = from.length.unwrap_or(1);
            number || *to == P::Bit(length) || *to == P::Bytea || (*to == P::Boolean && length == 1)
        }
        K::Date => *to == P::Date || to.is_text(),
        K::DateTime | K::Timestamp => match to {
            P::Timestamp(digits) | P::TimestampTz(digits) => *digits >= from.fsp,
            to => to.is_text(),
        },
        K::Time => match to {
            P::Time(digits) | P::Interval(digits) => *digits >= from.fsp,
            to => to.is_text(),
        },
        K::Char | K::VarChar | K::TinyText | K::Text | K::MediumText | K::LongText => {
            to.is_text() || matches!(to, P::Json | P::JsonB | P::Uuid | P::Inet)
        }
        K::Binary | K::VarBinary | K::TinyBlob | K::Blob | K::MediumBlob | K::LongBlob => {
            matches!(to, P::Bytea | P::Uuid) || to.is_text()
        }
        K::Enum => *to == P::Enum || to.is_text(),
        K::Set => *to == P::TextArray || to.is_text(),
        K::Json => matches!(to, P::Json | P::JsonB) || to.is_text(),
        K::Geometry => matches!(to, P::Bytea | P::Geometry),
        K::Vector => matches!(to, P::RealArray | P::Bytea),
        K::Uuid => *to == P::Uuid || to.is_text(),
        K::Inet4 | K::Inet6 => *to == P::Inet || to.is_text(),
        K::Other => false,
    }
}

/// The page's table, as Markdown.
pub fn markdown() -> String {
    let mut out =
        String::from("| MySQL, MariaDB | Postgres | or, by `[[schema.type]]` | to know |\n|---|---|---|---|\n");
    let list = |types: &[&str]| types.iter().map(|ty| format!("`{ty}`")).collect::<Vec<_>>().join(" ");
    for row in MYSQL_TO_POSTGRES {
        out.push_str(&format!("| {} | `{}` | {} | {} |\n", list(row.from), row.to, list(row.or), row.note));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_table_is_what_the_code_does() {
        for row in MYSQL_TO_POSTGRES {
            for from in row.from {
                let ty = MySqlType::parse(from);
                let mapped = default_type(&ty).unwrap_or_else(|| panic!("{from} is not mapped"));
                let documented = match row.to {
                    "varchar(10)" => PgType::VarChar(ty.length),
                    to => PgType::parse(to).expect("a type"),
                };
                assert_eq!(mapped, documented, "{from}");
                assert!(convertible(&ty, &mapped), "{from} to {mapped}");
                for or in row.or {
                    let other = PgType::parse(or).unwrap_or_else(|| panic!("{or}"));
                    assert!(convertible(&ty, &other), "{from} to {or}");
                }
            }
        }
    }
}
