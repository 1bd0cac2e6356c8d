//! Asking an end for rows by the texts of their keys, as they are at the target.
//!
//! A Postgres server reads them by its types' own input functions. At a MySQL or MariaDB server a text is made the literal
//! of the column's type that it came from: `t` is 1 there, `\x6162` the bytes. Where that cannot be done exactly ([`Literal::of`]
//! gives `None`: floats, sets, a text that became an address) the whole table is read for its rows instead. A server may
//! find other rows than was asked for, under a collation that finds `a` and `A` equal: whoever asks goes by the key that
//! comes back.

use crate::error::Result;
use crate::mysql::{MyIdent, MyText};
use crate::postgres::{Client, Equality};
use crate::schema::mapping::PgType;
use crate::schema::{Column, Ident, MySqlKind, MySqlType, TableName};

/// How one end is asked.
#[derive(Debug)]
pub(super) enum ByKey {
    /// The names of the columns, how they compare, and their types.
    Postgres(Vec<(String, Equality, String)>),
    /// The names of the columns, and what becomes of a text.
    MySql(Vec<(String, Literal)>),
}

/// What a key's text is at a MySQL or MariaDB server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Literal {
    Number,
    /// `t` or `f`.
    Truth,
    /// Ones and zeros.
    Bits,
    /// `\x0105`, as a number.
    HexNumber,
    /// `\x0105`, as bytes.
    Hex,
    /// A UUID that is kept as its bytes.
    UuidBytes,
    /// The bytes of the text.
    TextBytes,
    /// With a zone behind it, perhaps.
    Moment,
    /// With its length behind it, as a cast gives it.
    Address,
    Text,
}

impl ByKey {
    /// At a Postgres server.
    pub(super) async fn postgres(client: &Client, table: &TableName, columns: &[&Column]) -> Result<ByKey> {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let equal = Equality::of(client, table, &names).await?;
        let columns = columns.iter().zip(equal).map(|(column, equal)| (column.name.clone(), equal, column.ty.sql()));
        Ok(ByKey::Postgres(columns.collect()))
    }

    /// At a MySQL or MariaDB server; `there` are the same columns at the target.
    pub(super) fn mysql(columns: &[&Column], there: &[&Column]) -> Option<ByKey> {
        let literals = columns.iter().zip(there).map(|(column, there)| {
            let from = column.ty.mysql.as_deref()?;
            let to = match &there.ty.mysql {
                Some(_) => None,
                None => Some(PgType::parse(there.ty.display.rsplit('.').next().unwrap_or_default()).or(
                    // A type that was made for it.
                    (from.kind == MySqlKind::Enum).then_some(PgType::Enum),
                )?),
            };
            Some((column.name.clone(), Literal::of(from, to.as_ref())?))
        });
        literals.collect::<Option<_>>().map(ByKey::MySql)
    }

    /// What stands behind `SELECT … FROM table t` for these keys; `None` if the end cannot have any of them.
    pub(super) fn condition(&self, keys: &[&[String]]) -> Option<String> {
        match self {
            ByKey::Postgres(columns) => {
                let arrays = (0..columns.len()).map(|n| {
                    let texts = keys.iter().filter_map(|key| Some(format!("'{}'", key.get(n)?.replace('\'', "''"))));
                    format!("ARRAY[{}]::text[]", texts.collect::<Vec<_>>().join(", "))
                });
                let arrays = arrays.collect::<Vec<_>>().join(", ");
                let wanted = (0..columns.len()).map(|n| format!("k{n}")).collect::<Vec<_>>().join(", ");
                let join = columns.iter().enumerate().map(|(n, (name, equal, ty))| {
                    equal.condition(&format!("t.{}", Ident(name)), &format!("w.k{n}"), ty)
                });
                let join = join.collect::<Vec<_>>().join(" AND ");
                Some(format!(" JOIN unnest({arrays}) AS w({wanted}) ON {join}"))
            }
            ByKey::MySql(columns) => {
                let rows = keys.iter().filter_map(|key| {
                    let all = columns
                        .iter()
                        .zip(*key)
                        .map(|((name, literal), text)| Some(format!("t.{} = {}", MyIdent(name), literal.write(text)?)));
                    Some(format!("({})", all.collect::<Option<Vec<_>>>()?.join(" AND ")))
                });
                let rows: Vec<String> = rows.collect();
                (!rows.is_empty()).then(|| format!(" WHERE {}", rows.join(" OR ")))
            }
        }
    }
}

impl Literal {
    /// What a column's value is asked for by, if its text at the target is that of `to`; `None` for a MySQL or MariaDB
    /// target, where it is that of the column itself.
    fn of(from: &MySqlType, to: Option<&PgType>) -> Option<Literal> {
        use MySqlKind as K;
        let number = from.is_integer() || matches!(from.kind, K::Decimal | K::Year);
        Some(match (from.kind, to) {
            (K::Float | K::Double | K::Json | K::Geometry | K::Vector | K::Other, _) => return None,
            (K::Bit, None | Some(PgType::Bytea)) => Literal::HexNumber,
            (K::Bit, Some(PgType::Bit(_))) => Literal::Bits,
            (_, Some(PgType::Boolean)) => Literal::Truth,
            (K::Bit, _) => Literal::Number,
            _ if number => Literal::Number,
            (K::Date | K::DateTime | K::Timestamp | K::Time, _) => Literal::Moment,
            (K::Enum | K::Uuid, _) => Literal::Text,
            (K::Set, Some(PgType::TextArray)) => return None,
            (K::Inet4 | K::Inet6, Some(PgType::Inet)) => Literal::Address,
            (K::Inet4 | K::Inet6 | K::Set, _) => Literal::Text,
            (_, None | Some(PgType::Bytea)) if from.is_bytes() => Literal::Hex,
            (_, Some(PgType::Uuid)) if from.is_bytes() => Literal::UuidBytes,
            _ if from.is_bytes() => Literal::TextBytes,
            // The target prints another text than the one that the source keeps.
            (_, Some(PgType::Uuid | PgType::Inet | PgType::Json | PgType::JsonB)) => return None,
            _ => Literal::Text,
        })
    }

    fn write(self, text: &str) -> Option<String> {
        // A MySQL target's applier keeps the digits alone.
        let hex = || {
            Some(text.strip_prefix("\\x").unwrap_or(text))
                .filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
        };
        Some(match self {
            Literal::Number => {
                let digits = text.strip_prefix('-').unwrap_or(text);
                let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
                (plain && digits.starts_with(|c: char| c.is_ascii_digit())).then(|| text.to_owned())?
            }
            Literal::Truth => (if text.starts_with('t') { "1" } else { "0" }).to_owned(),
            Literal::Bits => u64::from_str_radix(text, 2).ok()?.to_string(),
            Literal::HexNumber => u64::from_str_radix(hex()?, 16).ok()?.to_string(),
            Literal::Hex => format!("x'{}'", hex()?),
            Literal::UuidBytes => {
                let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
                format!("x'{hex}'")
            }
            Literal::TextBytes => format!("x'{}'", text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>()),
            Literal::Moment => MyText(text.strip_suffix("+00").unwrap_or(text)).to_string(),
            Literal::Address => {
                let bits = if text.contains(':') { "/128" } else { "/32" };
                MyText(text.strip_suffix(bits).unwrap_or(text)).to_string()
            }
            Literal::Text => MyText(text).to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(from: &str, to: Option<&str>, text: &str) -> Option<String> {
        let to = to.map(|to| PgType::parse(to).expect("a type"));
        Literal::of(&MySqlType::parse(from), to.as_ref())?.write(text)
    }

    #[test]
    fn a_text_of_the_target_finds_the_value_it_came_from() {
        for (from, to, text, wanted) in [
            ("bigint unsigned", Some("numeric(20)"), "18446744073709551615", "18446744073709551615"),
            ("int", Some("text"), "-5", "-5"),
            ("tinyint(1)", Some("boolean"), "t", "1"),
            ("bit(1)", Some("boolean"), "f", "0"),
            ("bit(9)", Some("bit(9)"), "100000001", "257"),
            ("bit(9)", Some("bytea"), "\\x0101", "257"),
            ("bit(9)", None, "\\x0101", "257"),
            ("varbinary(9)", Some("bytea"), "\\x00ff", "x'00ff'"),
            ("varbinary(9)", None, "\\x", "x''"),
            ("varbinary(9)", None, "00ff", "x'00ff'"),
            ("varbinary(9)", Some("text"), "ab", "x'6162'"),
            ("binary(16)", Some("uuid"), "0b1e7a5c-1d2f-4a3b-8c4d-5e6f70819203", "x'0b1e7a5c1d2f4a3b8c4d5e6f70819203'"),
            ("timestamp(6)", Some("timestamptz"), "2024-01-01 10:00:00.1+00", "'2024-01-01 10:00:00.1'"),
            ("varchar(10)", Some("varchar(10)"), "it's \\", "'it\\'s \\\\'"),
            ("enum('a')", Some("enum"), "a", "'a'"),
            ("inet6", Some("inet"), "::1/128", "'::1'"),
        ] {
            assert_eq!(literal(from, to, text).as_deref(), Some(wanted), "{from} to {to:?}");
        }
    }

    #[test]
    fn what_would_not_find_it_is_not_asked_for() {
        for (from, to) in [
            ("double", Some("double precision")),
            ("float", None),
            ("set('a','b')", Some("text[]")),
            ("varchar(36)", Some("uuid")),
            ("varchar(40)", Some("inet")),
        ] {
            assert_eq!(literal(from, to, "1"), None, "{from} to {to:?}");
        }
        // Nothing but a number is put into a statement as one.
        assert_eq!(literal("int", Some("integer"), "1 OR 1=1"), None);
        assert_eq!(literal("varbinary(9)", Some("bytea"), "\\x' OR 1=1"), None);
    }
}
