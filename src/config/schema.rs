//! `[schema]` and `[[schema.type]]`: names and types at a target of another engine.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::mapping::{Naming, Rules};

/// `[schema]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SchemaConfig {
    /// The schema that the tables of the database in the source's URL come into; other databases keep their names.
    pub namespace: String,
    /// What becomes of the case of names.
    pub names: Names,
    /// `[[schema.type]]`: which type a column becomes, where [types.md](types.md) has several; the first rule that
    /// matches a column is its rule.
    #[serde(rename = "type")]
    pub types: Vec<TypeRule>,
}

impl Default for SchemaConfig {
    fn default() -> Self {
        SchemaConfig { namespace: "public".into(), names: Names::Lower, types: Vec::new() }
    }
}

/// `[schema] names`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Names {
    /// Names are lower-cased, so that an application's unquoted SQL still finds them.
    #[default]
    Lower,
    /// Names stay as they are, and an upper-case letter has to be quoted.
    Keep,
}

/// One `[[schema.type]]`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TypeRule {
    /// Columns of the source, as `database.table.column` with `*` and `?`, or a type of the source, as `tinyint(1)` or
    /// `bigint unsigned`.
    #[serde(rename = "match")]
    pub pattern: String,
    /// The type at the target.
    #[serde(rename = "type")]
    pub ty: String,
}

impl SchemaConfig {
    /// The rules, read.
    pub fn rules(&self) -> crate::error::Result<Rules> {
        Rules::parse(self.types.iter().map(|rule| (rule.pattern.as_str(), rule.ty.as_str())))
    }

    /// How names are mapped, for a source whose URL names this database.
    pub fn naming(&self, database: &str) -> Naming {
        Naming { database: database.to_owned(), namespace: self.namespace.clone(), lower: self.names == Names::Lower }
    }
}
