//! How the columns of a key are compared with values that are read from text.
//!
//! In: a table at one end and its columns. Out: a condition for each. A domain over an enum, a range or an array has no
//! `=` of its own, and our sessions see no operators but the system's: both would be errors, not differences.

use super::Client;
use crate::error::{Context, Result};
use crate::schema::{Ident, TableName};

/// How one column compares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Equality {
    /// What a domain is of in the end.
    base: Option<String>,
    /// The schema of its operator.
    schema: Option<String>,
}

impl Equality {
    /// How these columns compare, in their order.
    pub async fn of(client: &Client, table: &TableName, columns: &[&str]) -> Result<Vec<Equality>> {
        let rows = client
            .query(include_str!("equality.sql"), &[&table.schema, &table.table, &columns])
            .await
            .with_context(|| format!("reading how the key of {table} compares"))?;
        Ok(rows.iter().map(|row| Equality { base: row.get(0), schema: row.get(1) }).collect())
    }

    /// `column = text::ty`.
    pub fn condition(&self, column: &str, text: &str, ty: &str) -> String {
        let base = self.base.as_ref().map(|base| format!("::{base}")).unwrap_or_default();
        let schema = Ident(self.schema.as_deref().unwrap_or("pg_catalog"));
        format!("{column}{base} OPERATOR({schema}.=) {text}::{ty}{base}")
    }
}
