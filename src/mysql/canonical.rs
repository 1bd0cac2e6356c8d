//! How a column is asked for, so that its values come in the one form that rows have everywhere.
//!
//! In: a column of a MySQL or MariaDB table. Out: the expression of a SELECT in a [`Session`](super::Session) whose answers
//! come in the text protocol, and whether its bytes are text. What is selected so is byte for byte what the binary log's
//! decoder makes of the same value (`source::mysql::binlog`).
//!
//! | type | as the server prints it | in a row |
//! |---|---|---|
//! | `float` | six digits, of which some are lost | widened to double: `1.100000023841858` |
//! | `double(10,2)` | two digits after the point | all digits that it has |
//! | `zerofill` | padded with zeros | the number |
//! | everything else | | the same |

use super::MyIdent;
use crate::schema::{Column, MySqlKind, MySqlType};

/// The expression that gives the column's values in the form of rows. Times need a session in UTC, texts one in utf8mb4.
pub fn canonical(column: &Column) -> String {
    let name = MyIdent(&column.name);
    match column.ty.mysql.as_deref() {
        // Not `+ 0e0`, by which a negative zero would lose its sign.
        Some(MySqlType { kind: MySqlKind::Float | MySqlKind::Double, .. }) => format!("{name} * 1e0"),
        Some(MySqlType { zerofill: true, .. }) => format!("{name} + 0"),
        _ => name.to_string(),
    }
}

/// Whether the column's values are [`Datum::Binary`](crate::change::Datum::Binary) in a row.
pub fn is_binary(column: &Column) -> bool {
    column.ty.mysql.as_deref().is_some_and(MySqlType::is_bytes)
}
