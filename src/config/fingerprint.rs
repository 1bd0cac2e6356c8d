//! What a config says about a migration that cannot change under it.
//!
//! Two things are recorded when a migration begins: its ends ([`Config::fingerprint`], in the migration's row) and, for
//! each table, what its rule makes of it ([`Config::rule_of`], in the table's row). A changed end is another migration and
//! refused; a changed rule names the tables that it shapes, and they are copied again. Everything else may change between
//! two runs: [`super::restart`] holds the three lists.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Config, Names, Url};
use crate::schema::mapping::Matches;
use crate::schema::{Pattern, TableName};

/// Both ends without users, passwords and TLS settings, as they are recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedEnds {
    /// Hosts, ports and database of the source's URL.
    pub source: String,
    /// … of the target's.
    pub target: String,
}

impl Config {
    /// The ends, as the state records them: JSON of [`RecordedEnds`].
    pub fn fingerprint(&self) -> String {
        serde_json::to_string(&self.recorded_ends()).expect("two strings are JSON")
    }

    /// The ends without users and secrets.
    pub fn recorded_ends(&self) -> RecordedEnds {
        RecordedEnds { source: end(&self.source.url), target: end(&self.target.url) }
    }

    /// What the rules make of a table, as the state records it: empty if they leave it as it is.
    pub fn rule_of(&self, table: &TableName) -> String {
        let matches = |text: &str| Pattern::parse(text).is_ok_and(|pattern| pattern.matches(table));
        let rule = self.transform.iter().find(|rule| matches(&rule.pattern));
        let mut effect = serde_json::Map::new();
        let mut note = |key: &str, value: serde_json::Value| drop(effect.insert(key.to_owned(), value));
        let concerns = |text: &str| Matches::parse(text).is_ok_and(|of| of.concerns(table));
        let types = self.schema.types.iter().filter(|rule| concerns(&rule.pattern));
        let types: Vec<_> = types.map(|rule| serde_json::json!([rule.pattern, rule.ty])).collect();
        if !types.is_empty() {
            note("types", types.into());
        }
        if self.schema.namespace != "public" {
            note("namespace", self.schema.namespace.as_str().into());
        }
        if self.schema.names != Names::Lower {
            note("names", "keep".into());
        }
        let Some(rule) = rule else {
            return if effect.is_empty() { String::new() } else { serde_json::Value::Object(effect).to_string() };
        };
        if let Some(schema) = rule.rename.schema.as_ref().filter(|schema| **schema != table.schema) {
            note("schema", schema.as_str().into());
        }
        if let Some(name) = rule.rename.table.as_ref().filter(|name| **name != table.table) {
            note("table", name.as_str().into());
        }
        let renamed: Vec<_> = rule.rename.columns.iter().filter(|(from, to)| from != to).collect();
        if !renamed.is_empty() {
            note("renamed", renamed.into_iter().map(|(from, to)| (from.clone(), to.clone())).collect());
        }
        if rule.columns.iter().any(|column| column != "*") {
            note("columns", rule.columns.clone().into());
        }
        if effect.is_empty() { String::new() } else { serde_json::Value::Object(effect).to_string() }
    }

    /// What states of format 1 recorded: a hash over the name, the ends and the text of all rules.
    pub fn fingerprint_of_format_1(&self) -> String {
        let mut hash = Fields(Sha256::new());
        hash.field(&self.migration.name);
        hash.field(&end(&self.source.url));
        hash.field(&end(&self.target.url));
        for rule in &self.transform {
            hash.field("rule");
            hash.field(&rule.pattern);
            hash.field(rule.rename.schema.as_deref().unwrap_or_default());
            hash.field(rule.rename.table.as_deref().unwrap_or_default());
            for (from, to) in &rule.rename.columns {
                hash.field("rename");
                hash.field(from);
                hash.field(to);
            }
            for column in &rule.columns {
                hash.field("column");
                hash.field(column);
            }
        }
        hash.0.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

struct Fields(Sha256);

impl Fields {
    /// With its length first, so that two lists of fields never run into the same bytes.
    fn field(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text);
    }
}

/// Hosts, ports and database of a URL, also where they are given as parameters (a Unix socket's folder).
fn end(url: &Url) -> String {
    let url = url.expose();
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (path, params) = rest.split_once('?').unwrap_or((rest, ""));
    let place = path.rsplit_once('@').map_or(path, |(_, place)| place);
    let mut kept: Vec<&str> = params
        .split('&')
        .filter(|param| {
            ["host=", "hostaddr=", "port=", "dbname=", "socket=", "database="].iter().any(|key| param.starts_with(key))
        })
        .collect();
    kept.sort_unstable();
    format!("{place}?{}", kept.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(source: &str, rest: &str) -> Config {
        let text = format!(
            "[migration]\nname = \"shop\"\n[source]\nurl = \"{source}\"\ntables = [\"public.*\"]\n\
             [target]\nurl = \"postgres://b@new/shop\"\n{rest}"
        );
        Config::parse(&text, "c").expect("valid")
    }

    const OLD: &str = "postgres://a@old/shop";

    #[test]
    fn secrets_and_users_are_not_part_of_an_end() {
        let first = config("postgres://a:one@old:5432/shop", "").fingerprint();
        assert_eq!(first, config("postgres://c:two@old:5432/shop?sslmode=require", "").fingerprint());
        assert!(!first.contains("one"));
    }

    #[test]
    fn another_end_is_another_fingerprint() {
        let first = config(OLD, "").fingerprint();
        assert_ne!(first, config("postgres://a@other/shop", "").fingerprint());
        assert_ne!(first, config("postgres://a@/shop?host=/tmp", "").fingerprint());
    }

    #[test]
    fn a_rule_counts_for_the_tables_it_shapes_and_for_no_other() {
        let (users, orders) = (TableName::new("public", "users"), TableName::new("public", "orders"));
        let rule = config(OLD, "[[transform]]\nmatch = \"public.users\"\ncolumns = [\"!mail\"]\n");
        assert_eq!(rule.rule_of(&users), r#"{"columns":["!mail"]}"#);
        assert_eq!(rule.rule_of(&orders), "");
        let nothing =
            config(OLD, "[[transform]]\nmatch = \"public.*\"\ncolumns = [\"*\"]\nrename = { schema = \"public\" }\n");
        assert_eq!(nothing.rule_of(&users), "", "a rule that changes nothing is no rule");
    }

    /// Written by the release whose states had format 1: it must be found again for ever.
    #[test]
    fn the_fingerprint_of_format_1_is_what_it_was() {
        let rules = "[[transform]]\nmatch = \"public.users\"\nrename = { table = \"people\", columns = { mail = \"email\" } }\ncolumns = [\"!note\"]\n";
        assert_eq!(config(OLD, rules).fingerprint_of_format_1(), "3e4869f94d53ce90079cb137ededa3de");
        assert_eq!(config(OLD, "").fingerprint_of_format_1(), "37e6b5d74e1a763f1713591222f5861f");
    }
}
