//! Identifiers, quoted by construction.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An identifier that prints itself double-quoted, as SQL wants it. Postgres and ANSI rule: a quote inside is doubled.
#[derive(Debug, Clone, Copy)]
pub struct Ident<'a>(pub &'a str);

impl fmt::Display for Ident<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

/// A table's full name. `Display` is for people (`public.users`); [`TableName::sql`] is for statements.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableName {
    /// Postgres: the schema. MySQL: the database.
    pub schema: String,
    /// The table itself.
    pub table: String,
}

impl TableName {
    /// As a pattern that matches it alone, fit for a shell: what the advice of commands names.
    pub fn pattern(&self) -> String {
        let plain = |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if plain(&self.schema) && plain(&self.table) {
            return self.to_string();
        }
        format!("'{}'", self.sql().replace('\'', "'\\''"))
    }

    /// A name from its two parts, unquoted.
    pub fn new(schema: impl Into<String>, table: impl Into<String>) -> Self {
        TableName { schema: schema.into(), table: table.into() }
    }

    /// The name quoted for a statement: `"public"."users"`.
    pub fn sql(&self) -> String {
        format!("{}.{}", Ident(&self.schema), Ident(&self.table))
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_inside_an_identifier_is_doubled() {
        assert_eq!(TableName::new("we\"ird", "Ünï.côde").sql(), "\"we\"\"ird\".\"Ünï.côde\"");
    }
}
