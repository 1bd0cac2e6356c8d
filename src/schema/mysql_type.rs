//! What a MySQL or MariaDB server says about a column's type.
//!
//! In: `COLUMN_TYPE` of `information_schema.COLUMNS`, which every version prints in the form that `SHOW CREATE TABLE`
//! uses (<https://dev.mysql.com/doc/refman/8.4/en/information-schema-columns-table.html>), and the columns beside it.
//! Out: [`MySqlType`]. What can go wrong: a type this version of Cutwater does not know is [`MySqlKind::Other`], which
//! `check` refuses by name.

/// The base type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is the server's own word for it")]
pub enum MySqlKind {
    TinyInt,
    SmallInt,
    MediumInt,
    Int,
    BigInt,
    Decimal,
    Float,
    Double,
    Bit,
    Year,
    Date,
    DateTime,
    Timestamp,
    Time,
    Char,
    VarChar,
    TinyText,
    Text,
    MediumText,
    LongText,
    Binary,
    VarBinary,
    TinyBlob,
    Blob,
    MediumBlob,
    LongBlob,
    Enum,
    Set,
    Json,
    /// `geometry` and its subtypes (`point`, `polygon` …): all are stored alike.
    Geometry,
    /// Floats of 4 bytes, little-endian (MySQL 9, MariaDB 11.7).
    Vector,
    /// MariaDB.
    Uuid,
    /// MariaDB.
    Inet4,
    /// MariaDB.
    Inet6,
    /// A type that is not known here.
    Other,
}

/// A column's type, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MySqlType {
    /// The base type.
    pub kind: MySqlKind,
    /// Numbers: UNSIGNED (ZEROFILL implies it).
    pub unsigned: bool,
    /// Numbers: ZEROFILL, which pads with zeros when printed.
    pub zerofill: bool,
    /// Characters of `char`/`varchar`, bytes of `binary`/`varbinary`, bits of `bit`, dimensions of `vector`, and for
    /// integers the display width, where the server prints one (`tinyint(1)`).
    pub length: Option<u32>,
    /// `decimal(p,s)`, `float(p,s)`, `double(p,s)`: p.
    pub precision: Option<u32>,
    /// … s.
    pub scale: Option<u32>,
    /// Digits of a fraction of a second: `datetime`, `timestamp`, `time`.
    pub fsp: u8,
    /// Character set of text, enum and set.
    pub charset: Option<String>,
    /// Their collation.
    pub collation: Option<String>,
    /// Labels of enum and set, in order.
    pub labels: Vec<String>,
    /// Spatial reference system that a geometry column is restricted to (MySQL 8).
    pub srid: Option<u32>,
    /// Not part of `SELECT *`.
    pub invisible: bool,
    /// MariaDB's `json`: a `longtext` with a `json_valid` check. Never set for MySQL's own `json`.
    pub json_alias: bool,
}

impl MySqlType {
    /// Reads `COLUMN_TYPE`: `bigint(20) unsigned`, `enum('a','b''c')`, `datetime(6)`.
    pub fn parse(column_type: &str) -> MySqlType {
        let end = column_type.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(column_type.len());
        let (word, rest) = column_type.split_at(end);
        let kind = kind(&word.to_ascii_lowercase());
        let mut ty = MySqlType {
            kind,
            unsigned: false,
            zerofill: false,
            length: None,
            precision: None,
            scale: None,
            fsp: 0,
            charset: None,
            collation: None,
            labels: Vec::new(),
            srid: None,
            invisible: false,
            json_alias: false,
        };
        if matches!(kind, MySqlKind::Enum | MySqlKind::Set) {
            ty.labels = labels(rest);
            return ty;
        }
        let (arguments, attributes) = match rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            Some((arguments, attributes)) => (arguments, attributes),
            None => ("", rest),
        };
        let mut numbers = arguments.split(',').map(|number| number.trim().parse::<u32>().ok());
        let (first, second) = (numbers.next().flatten(), numbers.next().flatten());
        match kind {
            MySqlKind::Decimal | MySqlKind::Float | MySqlKind::Double => (ty.precision, ty.scale) = (first, second),
            MySqlKind::DateTime | MySqlKind::Timestamp | MySqlKind::Time => ty.fsp = first.unwrap_or(0).min(6) as u8,
            _ => ty.length = first,
        }
        let attributes = attributes.to_ascii_lowercase();
        ty.zerofill = attributes.contains("zerofill");
        ty.unsigned = ty.zerofill || attributes.contains("unsigned");
        ty
    }

    /// Whether values are text to the server: with a character set, or MariaDB's json.
    pub fn is_text(&self) -> bool {
        use MySqlKind::{Char, LongText, MediumText, Text, TinyText, VarChar};
        matches!(self.kind, Char | VarChar | TinyText | Text | MediumText | LongText)
    }

    /// Whether values are bytes: the canonical form of a row has them as [`Binary`](crate::change::Datum::Binary).
    pub fn is_bytes(&self) -> bool {
        use MySqlKind::{Binary, Bit, Blob, Geometry, LongBlob, MediumBlob, TinyBlob, VarBinary, Vector};
        matches!(self.kind, Binary | VarBinary | TinyBlob | Blob | MediumBlob | LongBlob | Bit | Geometry | Vector)
    }

    /// Whether it is one of the integer types.
    pub fn is_integer(&self) -> bool {
        use MySqlKind::{BigInt, Int, MediumInt, SmallInt, TinyInt};
        matches!(self.kind, TinyInt | SmallInt | MediumInt | Int | BigInt)
    }

    /// Whether its collation finds strings equal that differ in their letters (`_ci`, and `_ai` by accents).
    pub fn folds_case(&self) -> bool {
        self.collation.as_deref().is_some_and(|name| name.ends_with("_ci") || name.contains("_ci_"))
    }
}

fn kind(word: &str) -> MySqlKind {
    use MySqlKind as K;
    match word {
        "tinyint" => K::TinyInt,
        "smallint" => K::SmallInt,
        "mediumint" => K::MediumInt,
        "int" | "integer" => K::Int,
        "bigint" => K::BigInt,
        "decimal" | "numeric" => K::Decimal,
        "float" => K::Float,
        "double" => K::Double,
        "bit" => K::Bit,
        "year" => K::Year,
        "date" => K::Date,
        "datetime" => K::DateTime,
        "timestamp" => K::Timestamp,
        "time" => K::Time,
        "char" => K::Char,
        "varchar" => K::VarChar,
        "tinytext" => K::TinyText,
        "text" => K::Text,
        "mediumtext" => K::MediumText,
        "longtext" => K::LongText,
        "binary" => K::Binary,
        "varbinary" => K::VarBinary,
        "tinyblob" => K::TinyBlob,
        "blob" => K::Blob,
        "mediumblob" => K::MediumBlob,
        "longblob" => K::LongBlob,
        "enum" => K::Enum,
        "set" => K::Set,
        "json" => K::Json,
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
        | "geometrycollection" | "geomcollection" => K::Geometry,
        "vector" => K::Vector,
        "uuid" => K::Uuid,
        "inet4" => K::Inet4,
        "inet6" => K::Inet6,
        _ => K::Other,
    }
}

/// The labels of `('a','b''c','d\\e')`: a quote is doubled, and `append_unescaped` (sql/table.cc) writes NUL, line feed,
/// carriage return and backslash with a backslash.
fn labels(text: &str) -> Vec<String> {
    let mut labels = Vec::new();
    let mut chars = text.chars().peekable();
    while chars.by_ref().any(|c| c == '\'') {
        let mut label = String::new();
        while let Some(c) = chars.next() {
            match c {
                '\'' if chars.peek() == Some(&'\'') => label.extend(chars.next()),
                '\'' => break,
                '\\' => label.push(match chars.next() {
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('0') => '\0',
                    Some(other) => other,
                    None => '\\',
                }),
                c => label.push(c),
            }
        }
        labels.push(label);
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_every_version_are_read() {
        let ty = MySqlType::parse("bigint(20) unsigned");
        assert_eq!((ty.kind, ty.unsigned, ty.length), (MySqlKind::BigInt, true, Some(20)));
        let ty = MySqlType::parse("tinyint(3) unsigned zerofill");
        assert_eq!((ty.kind, ty.unsigned, ty.zerofill), (MySqlKind::TinyInt, true, true));
        let ty = MySqlType::parse("decimal(65,30)");
        assert_eq!((ty.precision, ty.scale, ty.length), (Some(65), Some(30), None));
        assert_eq!(MySqlType::parse("datetime(6)").fsp, 6);
        assert!(MySqlType::parse("double unsigned").unsigned);
        let ty = MySqlType::parse("varchar(100) /*M!100301 COMPRESSED*/");
        assert_eq!((ty.kind, ty.length), (MySqlKind::VarChar, Some(100)));
        assert_eq!(MySqlType::parse("geomcollection").kind, MySqlKind::Geometry);
        assert_eq!(MySqlType::parse("hyperloglog(4)").kind, MySqlKind::Other);
    }

    #[test]
    fn labels_keep_quotes_commas_backslashes_and_nothing() {
        let ty = MySqlType::parse(r"enum('a','b''c','c\\d','e\nf','ü,x','')");
        assert_eq!(ty.labels, ["a", "b'c", "c\\d", "e\nf", "ü,x", ""]);
    }
}
