//! The config's keys, as its types and their doc comments tell them: what `docs/config.md` is made from, and where an
//! error looks for the section that a misplaced key belongs to.
//!
//! In: the JSON schema that `schemars` derives from [`Config`]. Out: [`keys`] and [`markdown`]. A new key appears here by
//! itself; the test of the page says how to write it again.

use std::fmt::Write;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::{Config, restart};

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// `snapshot.workers`, `transform[].match`.
    pub path: String,
    /// `whole number`, `size`, `"stop"` or `"truncate"` …
    pub ty: String,
    /// What a whole number counts.
    pub unit: Option<String>,
    /// As it would stand in the file; `None`: it has to be given, or is absent by default.
    pub default: Option<String>,
    /// It has to be given.
    pub required: bool,
    /// The doc comment.
    pub doc: String,
    /// For a choice: each word with its doc comment.
    pub choices: Vec<(String, String)>,
}

/// A table of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// `[snapshot]`, `[[transform]]`
    pub title: String,
    /// The doc comment of the field in [`Config`].
    pub doc: String,
    /// Its keys, in the order of the type.
    pub keys: Vec<Key>,
}

/// All sections, in the order of the file.
pub fn sections() -> Vec<Section> {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let root: Value = settings.into_generator().into_root_schema_for::<Config>().into();
    // A JSON object does not keep the order of the type: as the file is read, and as the lists of what may change have it.
    let order = [restart::REFUSED, restart::NEEDS_TABLES, restart::MAY_CHANGE].concat();
    let mut sections = Vec::new();
    for (name, schema) in properties(&root) {
        let list = schema["type"] == "array";
        let (title, prefix, table) = match list {
            true => (format!("[[{name}]]"), format!("{name}[]"), &schema["items"]),
            false => (format!("[{name}]"), name.clone(), schema),
        };
        let mut keys = Vec::new();
        collect(&prefix, table, &mut keys);
        keys.sort_by_key(|key| place(&order, &key.path));
        // A list of tables inside of a table is written as one of its own: [[schema.type]].
        for (inner, schema) in properties(table).filter(|(_, schema)| is_list_of_tables(schema)) {
            let of = format!("{prefix}.{inner}[].");
            let (own, rest) = keys.into_iter().partition(|key| key.path.starts_with(&of));
            keys = rest;
            sections.push(Section { title: format!("[[{prefix}.{inner}]]"), doc: text(schema), keys: own });
        }
        sections.push(Section { title, doc: text(schema), keys });
    }
    sections.sort_by_key(|section| place(SECTIONS, section.title.trim_matches(['[', ']'])));
    sections
}

const SECTIONS: &[&str] = &[
    "migration",
    "source",
    "target",
    "snapshot",
    "apply",
    "schema",
    "schema.type",
    "values",
    "transform",
    "cutover",
    "telemetry",
];

fn place(order: &[&str], name: &str) -> usize {
    order.iter().position(|known| *known == name).unwrap_or(order.len())
}

/// All keys.
pub fn keys() -> Vec<Key> {
    sections().into_iter().flat_map(|section| section.keys).collect()
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

fn is_list_of_tables(schema: &Value) -> bool {
    schema["type"] == "array" && properties(&schema["items"]).next().is_some()
}

fn collect(prefix: &str, table: &Value, keys: &mut Vec<Key>) {
    let required: Vec<&str> = table["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, schema) in properties(table) {
        let path = format!("{prefix}.{name}");
        if properties(schema).next().is_some() {
            collect(&path, schema, keys);
            continue;
        }
        if is_list_of_tables(schema) {
            collect(&format!("{path}[]"), &schema["items"], keys);
            continue;
        }
        let choices = choices(schema);
        keys.push(Key {
            ty: type_of(schema, &choices),
            unit: schema["x-unit"].as_str().map(str::to_owned),
            default: schema.get("default").filter(|value| !value.is_null()).map(literal),
            required: required.contains(&name.as_str()),
            doc: text(schema),
            choices,
            path,
        });
    }
}

/// The doc comment on one line.
fn text(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn choices(schema: &Value) -> Vec<(String, String)> {
    let of = |list: &Value| -> Vec<(String, String)> {
        let word = |one: &Value| Some((one["const"].as_str()?.to_owned(), text(one)));
        list.as_array().into_iter().flatten().filter_map(word).collect()
    };
    let plain = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let plain = plain.map(|word| (word.to_owned(), String::new()));
    let nested = schema["anyOf"].as_array().into_iter().flatten().flat_map(choices);
    of(&schema["oneOf"]).into_iter().chain(plain).chain(nested).collect()
}

fn type_of(schema: &Value, choices: &[(String, String)]) -> String {
    if !choices.is_empty() {
        return choices.iter().map(|(word, _)| format!("`\"{word}\"`")).collect::<Vec<_>>().join(" or ");
    }
    if let Some(format) = ["size", "duration", "url", "address"].into_iter().find(|f| has_format(schema, f)) {
        return format.to_owned();
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect(),
        _ => Vec::new(),
    };
    match kinds[..] {
        ["integer"] => "whole number".to_owned(),
        ["number"] => "number".to_owned(),
        ["boolean"] => "`true` or `false`".to_owned(),
        ["array"] => "list of texts".to_owned(),
        ["object"] => "table of texts".to_owned(),
        ["string"] => "text".to_owned(),
        _ => "any".to_owned(),
    }
}

fn has_format(schema: &Value, format: &str) -> bool {
    let nested = schema["anyOf"].as_array().into_iter().flatten().any(|inner| has_format(inner, format));
    schema["format"] == format || nested
}

/// As TOML.
fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Array(items) if items.is_empty() => String::new(),
        Value::Object(items) if items.is_empty() => String::new(),
        other => other.to_string(),
    }
}

const HEAD: &str = "\
<!-- Made from the doc comments of src/config. Write it again with: UPDATE_DOCS=1 cargo test --test docs -->

# The config file

`cutwater.toml` in the current folder, or `-c FILE`. `cutwater init` writes one, and
[config/cutwater.example.toml](../config/cutwater.example.toml) is one to begin from. An unknown key or a wrong type is an error
that points at its line. `${NAME}` in a text is taken from the environment, `${file:/path}` from a file.

| type | is written |
|---|---|
| size | `\"512MB\"`, `\"16MiB\"`, `\"120GB\"` (powers of 1024), or a number of bytes |
| duration | `\"250ms\"`, `\"30s\"`, `\"5m\"`, `\"24h\"`, `\"1d\"` |
| url | `\"postgres://user@host:port/database\"` with libpq's parameters |
| address | `\"127.0.0.1:9464\"` |
";

/// The page `docs/config.md`.
pub fn markdown() -> String {
    let mut out = HEAD.to_owned();
    for section in sections() {
        let _ = writeln!(out, "\n## `{}`\n", section.title);
        let doc =
            section.doc.trim_start_matches(&format!("`{}`", section.title)).trim_start_matches([':', ',', '.', ' ']);
        if !doc.is_empty() {
            let _ = writeln!(out, "{}\n", capital(doc));
        }
        let _ = writeln!(out, "| key | type | default | is |\n|---|---|---|---|");
        for key in &section.keys {
            let of = section.title.trim_matches(['[', ']']);
            let name = key.path.strip_prefix(of).unwrap_or(&key.path).trim_start_matches(['[', ']', '.']);
            let ty = match &key.unit {
                Some(unit) => format!("{}, {unit}", key.ty),
                None => key.ty.clone(),
            };
            let default = match (&key.default, key.required) {
                (_, true) => "must be given".to_owned(),
                (Some(text), _) if !text.is_empty() => format!("`{text}`"),
                _ => "none".to_owned(),
            };
            let mut doc = key.doc.clone();
            for (word, meaning) in key.choices.iter().filter(|(_, meaning)| !meaning.is_empty()) {
                let meaning = meaning.trim_end_matches('.');
                let _ = write!(doc, " `\"{word}\"`: {}.", lower(meaning));
            }
            let _ = writeln!(out, "| `{name}` | {ty} | {default} | {} |", doc.replace('|', "\\|"));
        }
    }
    out.push_str(LISTS);
    let list = |keys: &[&str]| keys.iter().map(|key| format!("`{}`", shown(key))).collect::<Vec<_>>().join(", ");
    let _ = writeln!(out, "| may change, the next run takes it up | {} |", list(restart::MAY_CHANGE));
    let _ = writeln!(
        out,
        "| needs `cutwater tables` (`add`, `remove`; for a rule `resync`); `run` names the tables and the command | {} |",
        list(restart::NEEDS_TABLES)
    );
    let _ = writeln!(
        out,
        "| refused: it would be another migration (of a URL only hosts, ports and database count; user, password and TLS may change) | {} |",
        list(restart::REFUSED)
    );
    out
}

const LISTS: &str = "
## What may change while a migration lives

| | keys |
|---|---|
";

fn shown(path: &str) -> String {
    path.replace("[]", "")
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
