//! Pages that are made from the code, or held against it: a new key, list or test cannot be forgotten.

#![allow(clippy::unwrap_used, reason = "a test dies of its errors")]

use std::collections::{BTreeMap, BTreeSet};

use cutwater::config::Config;
use cutwater::config::reference::{Key, keys, markdown};
use cutwater::config::restart;
use cutwater::schema::TableName;
use serde::Deserialize;

/// A new key is on the page, or this fails.
#[test]
fn config_md_is_what_the_types_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/config.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, markdown()).expect("docs/config.md can be written");
    }
    let page = std::fs::read_to_string(path).expect("docs/config.md is there");
    let different = page.lines().zip(markdown().lines().map(str::to_owned)).find(|(is, should)| is != should);
    assert!(
        page == markdown(),
        "docs/config.md is not what src/config says; write it again: UPDATE_DOCS=1 cargo test --test docs\n{different:#?}"
    );
}

/// Between these two lines of `docs/types.md` stands what the mapping says.
const MAPPING: [&str; 2] = ["<!-- MySQL to Postgres -->\n", "<!-- end -->"];

#[test]
fn types_md_has_the_mapping_that_the_code_has() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/types.md");
    let page = std::fs::read_to_string(path).expect("docs/types.md is there");
    let (before, rest) = page.split_once(MAPPING[0]).expect("the first line is there");
    let (_, after) = rest.split_once(MAPPING[1]).expect("the last line is there");
    let right = format!("{before}{}{}{}{after}", MAPPING[0], cutwater::schema::mapping::markdown(), MAPPING[1]);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &right).expect("docs/types.md can be written");
    }
    let page = std::fs::read_to_string(path).expect("docs/types.md is there");
    assert!(
        page == right,
        "docs/types.md is not what the code says; write it again: UPDATE_DOCS=1 cargo test --test docs"
    );
}

#[test]
fn every_key_is_documented_with_unit_and_default() {
    for key in keys() {
        assert!(!key.doc.is_empty(), "{}: write a doc comment for users", key.path);
        assert!(
            key.ty != "whole number" || key.unit.is_some(),
            "{}: say what it counts: #[schemars(extend(\"x-unit\" = \"rows\"))]",
            key.path
        );
        assert!(key.ty != "any", "{}: its type has no JsonSchema that says what it is", key.path);
    }
}

#[test]
fn every_key_stands_in_the_example_file() {
    let example = include_str!("../config/cutwater.example.toml");
    for key in keys() {
        let name = key.path.rsplit('.').next().expect("never empty");
        let stands = example.lines().any(|line| {
            let line = line.trim_start_matches("# ");
            line.starts_with(&format!("{name} = ")) || line.contains(&format!(" {name} = "))
        });
        assert!(stands || key.path.contains("rename."), "{} is not in config/cutwater.example.toml", key.path);
    }
}

#[test]
fn every_key_stands_in_exactly_one_of_the_lists_of_what_may_change() {
    let lists = [restart::MAY_CHANGE, restart::NEEDS_TABLES, restart::REFUSED].concat();
    let listed: BTreeSet<&str> = lists.iter().copied().collect();
    assert_eq!(listed.len(), lists.len(), "a key stands in two lists");
    let keys = keys();
    let real: BTreeSet<&str> = keys.iter().map(|key| key.path.as_str()).collect();
    assert_eq!(listed, real, "src/config/restart.rs: put the new key into the list that is true for it");
}

fn config(values: &BTreeMap<&str, toml::Value>) -> Config {
    let mut root = toml::Table::new();
    for (path, value) in values {
        let (section, rest) = path.split_once('.').expect("all keys are in sections");
        let mut table = match section.strip_suffix("[]") {
            None => root.entry(section).or_insert_with(|| toml::Table::new().into()),
            Some(name) => {
                let list = root.entry(name).or_insert_with(|| vec![toml::Value::Table(toml::Table::new())].into());
                &mut list[0]
            }
        };
        let mut steps: Vec<&str> = rest.split('.').collect();
        let last = steps.pop().expect("never empty");
        for step in steps {
            if let Some(list) = step.strip_suffix("[]") {
                let empty = || vec![toml::Value::Table(toml::Table::new())].into();
                table = &mut table.as_table_mut().expect("a table").entry(list).or_insert_with(empty)[0];
                continue;
            }
            table = table.as_table_mut().expect("a table").entry(step).or_insert_with(|| toml::Table::new().into());
        }
        table.as_table_mut().expect("a table").insert(last.to_owned(), value.clone());
    }
    Config::deserialize(root).unwrap_or_else(|error| panic!("{error} with {values:?}"))
}

/// Two values that the key's type allows.
fn two(key: &Key) -> [toml::Value; 2] {
    let texts = |a: &str, b: &str| [toml::Value::from(a), toml::Value::from(b)];
    match key.ty.as_str() {
        _ if key.choices.len() > 1 => texts(&key.choices[0].0, &key.choices[1].0),
        "whole number" => [1.into(), 2.into()],
        "number" => [1.5.into(), 2.5.into()],
        "`true` or `false`" => [true.into(), false.into()],
        "size" => texts("1MB", "2MB"),
        "duration" => texts("1s", "2s"),
        "address" => texts("127.0.0.1:1", "127.0.0.1:2"),
        "url" => texts("postgres://a/b", "postgres://a/c"),
        "list of texts" => [vec!["id"].into(), vec!["id", "more"].into()],
        "table of texts" => {
            let named = |to: &str| toml::Table::from_iter([("mail".to_owned(), to.into())]);
            [named("one").into(), named("two").into()]
        }
        _ if key.path == "transform[].match" => texts("public.users", "public.others"),
        _ if key.path == "schema.type[].match" => texts("public.users.id", "public.others.id"),
        _ => texts("one", "two"),
    }
}

/// What the state would record, and what has its own comparison there (the name, the list of tables).
fn recorded(config: &Config) -> (String, String, String, Vec<String>) {
    let users = TableName::new("public", "users");
    let name = config.migration.name.clone();
    (config.fingerprint(), name, config.rule_of(&users), config.source.tables.clone())
}

#[test]
fn the_lists_of_what_may_change_are_what_the_state_records() {
    let keys = keys();
    let base: BTreeMap<&str, toml::Value> = keys.iter().map(|key| (key.path.as_str(), two(key)[0].clone())).collect();
    let before = recorded(&config(&base));
    for key in &keys {
        let mut changed = base.clone();
        changed.insert(&key.path, two(key)[1].clone());
        let after = recorded(&config(&changed));
        let path = key.path.as_str();
        if restart::MAY_CHANGE.contains(&path) {
            assert_eq!(before, after, "{path} may not change after all");
        } else if restart::REFUSED.contains(&path) {
            assert_ne!((&before.0, &before.1), (&after.0, &after.1), "{path} is not noticed");
        } else {
            assert_eq!((&before.0, &before.1), (&after.0, &after.1), "{path} would be refused");
            assert_ne!((before.2.as_str(), &before.3), (after.2.as_str(), &after.3), "{path} is not noticed");
        }
    }
}

/// The map of docs/architecture.md and src/lib.rs, from the top down: a module uses only what stands below it.
const MAP: &[&str] = &[
    "cli",
    "cutover",
    "verify",
    "pipeline",
    "telemetry",
    "transform",
    "target",
    "source",
    "postgres",
    "mysql",
    "endpoint",
    "config",
    "change",
    "schema",
    "error",
];

#[test]
fn arrows_between_modules_point_down_only() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut up = Vec::new();
    for (level, module) in MAP.iter().enumerate() {
        let (folder, file) = (root.join(module), root.join(format!("{module}.rs")));
        let mut files = if file.exists() { vec![file] } else { Vec::new() };
        let mut folders = if folder.exists() { vec![folder] } else { Vec::new() };
        assert!(!files.is_empty() || !folders.is_empty(), "there is no module {module} any more");
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.extension() {
                    _ if path.is_dir() => folders.push(path),
                    Some(extension) if extension == "rs" => files.push(path),
                    _ => {}
                }
            }
        }
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                for used in line.split("crate::").skip(1) {
                    let used = used.split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or_default();
                    if MAP[..level].contains(&used) {
                        up.push(format!("{}: {module} uses {used}, which stands above it", file.display()));
                    }
                }
            }
        }
    }
    assert!(up.is_empty(), "{up:#?}");
    let map = include_str!("../docs/architecture.md");
    for module in MAP {
        assert!(map.contains(&format!("`src/{module}`")), "src/{module} is not on the map of docs/architecture.md");
    }
    let modules = include_str!("../src/lib.rs").lines().filter_map(|line| line.strip_prefix("pub mod "));
    for module in modules {
        assert!(MAP.contains(&module.trim_end_matches(';')), "{module} is on no map");
    }
}
