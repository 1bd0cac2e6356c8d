//! What of a dump goes over for one plan, in which step, and by name what does not.
//!
//! An entry is left out if it names, outside of literals, a table that is not migrated or is made by the rules in
//! another shape, or anything that was left out for that reason (a view on a view). What merely hangs on a table that
//! is not migrated (its indexes, its comments) goes without a word; everything else that stays behind is listed in
//! [`Carried::not_carried`].

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{DumpEntry, Script, reshape};
use crate::error::{Error, Kind, Result};
use crate::schema::{Relkind, TableName};
use crate::transform::Plan;

/// The entries that go over, by step.
#[derive(Debug, Default)]
pub struct Carried {
    /// `SET` statements each session needs first.
    pub settings: Vec<String>,
    /// Schemas, types, functions, tables, views, sequences: before the rows. In order.
    pub before: Vec<DumpEntry>,
    /// Primary keys and unique indexes: what changes find their rows by.
    pub keys: Vec<DumpEntry>,
    /// All other indexes.
    pub indexes: Vec<DumpEntry>,
    /// What joins the indexes of partitions to those of their parents; after both lists.
    pub attaches: Vec<DumpEntry>,
    /// Foreign keys, triggers, rules, policies …: once the data is consistent. In order.
    pub after: Vec<DumpEntry>,
    /// What stays behind, in words.
    pub not_carried: Vec<String>,
    /// The root of each partition.
    pub roots: BTreeMap<TableName, TableName>,
}

/// Kinds that stay behind whatever they are about.
const NEVER: [&str; 9] = [
    "EVENT TRIGGER",
    "FOREIGN DATA WRAPPER",
    "SERVER",
    "USER MAPPING",
    "FOREIGN TABLE",
    "PUBLICATION",
    "PUBLICATION TABLE",
    "SUBSCRIPTION",
    "SECURITY LABEL",
];

/// Kinds that belong to the first table they name.
const OF_A_TABLE: [&str; 14] = [
    "INDEX",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "FK CONSTRAINT",
    "TRIGGER",
    "RULE",
    "POLICY",
    "ROW SECURITY",
    "DEFAULT",
    "COMMENT",
    "STATISTICS",
    "SEQUENCE OWNED BY",
    "TABLE ATTACH",
    "INDEX ATTACH",
];

/// Kinds that `pg_dump` writes only after the data.
const POST_DATA: [&str; 11] = [
    "INDEX",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "FK CONSTRAINT",
    "INDEX ATTACH",
    "TRIGGER",
    "RULE",
    "POLICY",
    "ROW SECURITY",
    "STATISTICS",
    "MATERIALIZED VIEW DATA",
];

/// Why something is not at the target.
#[derive(Debug, Clone, PartialEq)]
enum Absence {
    NotMigrated,
    Reshaped,
    LeftOut,
}

impl Absence {
    /// The same in words, of what is called so.
    fn of(&self, name: &TableName) -> String {
        match self {
            Absence::NotMigrated => format!("needs {name}, which is not migrated"),
            Absence::Reshaped => format!("is about {name}, which a rule gives another shape"),
            Absence::LeftOut => format!("needs {name}, which is not carried over"),
        }
    }
}

impl Carried {
    /// Nothing at all.
    pub const fn nothing() -> Carried {
        Carried {
            settings: Vec::new(),
            before: Vec::new(),
            keys: Vec::new(),
            indexes: Vec::new(),
            attaches: Vec::new(),
            after: Vec::new(),
            not_carried: Vec::new(),
            roots: BTreeMap::new(),
        }
    }

    /// Whether an entry names one of these tables, or a partition of one.
    pub fn names_one(&self, entry: &DumpEntry, is_one: impl Fn(&TableName) -> bool) -> bool {
        entry.names().iter().any(|name| is_one(self.roots.get(name).unwrap_or(name)))
    }

    /// Whether an entry belongs to one of these tables, or to a partition of one: the first that it names.
    pub fn is_of(&self, entry: &DumpEntry, is_one: impl Fn(&TableName) -> bool) -> bool {
        entry.names().first().is_some_and(|name| is_one(self.roots.get(name).unwrap_or(name)))
    }

    /// The indexes that keys and indexes of these tables are called, to find what attaches them.
    pub fn attaches_of(&self, is_one: impl Fn(&TableName) -> bool) -> Vec<&DumpEntry> {
        let lists = [&self.keys, &self.indexes];
        let own = lists.into_iter().flatten().filter(|entry| self.is_of(entry, &is_one));
        let made: HashSet<TableName> = own.flat_map(|entry| makes(entry, &entry.names()).collect::<Vec<_>>()).collect();
        self.attaches.iter().filter(|entry| entry.names().iter().any(|name| made.contains(name))).collect()
    }

    /// Sorts a dump for `plan`. Refuses triggers that would fire while changes are applied (TRAPS 15).
    pub fn sort(script: Script, plan: &Plan) -> Result<Carried> {
        let mut carried = Carried { settings: script.settings, ..Carried::default() };
        carried.roots = roots(&script.entries);
        let mut absent = absent_relations(&script.entries, &carried.roots, plan);
        for table in plan.tables().filter(|table| table.reshaped) {
            if table.source.kind == Relkind::Partitioned {
                let (from, to) = (&table.source.name, &table.shaped.name);
                carried.not_carried.push(format!("partitions of {from}: {to} is made as one table"));
            }
        }
        // What is made for another name belongs to the source's table all the same.
        let names = plan.tables().map(|table| (&table.shaped.name, &table.source.name));
        carried.roots.extend(names.filter(|(to, from)| to != from).map(|(to, from)| (to.clone(), from.clone())));
        let mut post_data = false;
        let mut made_after: HashSet<TableName> = HashSet::new();
        let mut reshaper = reshape::Reshaper::new(plan);
        for mut entry in script.entries {
            post_data |= POST_DATA.contains(&entry.kind.as_str());
            let mut names = entry.names();
            let lacks =
                |name: &TableName| absent.get(name).filter(|why| **why != Absence::Reshaped).map(|why| why.of(name));
            let reshaped = reshaper.entry(&entry, &names, lacks);
            let concerned = reshaped.is_some();
            match reshaped {
                Some(Ok(shaped)) => (names, entry) = (shaped.names(), shaped),
                Some(Err(why)) => {
                    absent.extend(makes(&entry, &names).map(|name| (name, Absence::LeftOut)));
                    carried.not_carried.push(format!("{}: {why}", entry.label()));
                    continue;
                }
                None => {}
            }
            match leave_out(&entry, &names, &absent).filter(|_| !concerned) {
                Some(reason) => {
                    for name in makes(&entry, &names) {
                        // A table keeps the reason it was left out for.
                        absent.entry(name).or_insert(Absence::LeftOut);
                    }
                    if let Some(reason) = reason {
                        carried.not_carried.push(format!("{}: {reason}", entry.label()));
                    }
                    continue;
                }
                None => check_fires_always(&entry)?,
            }
            let unique = entry.says(&["PRIMARY", "KEY"]) || entry.says(&["UNIQUE"]);
            let on_late_view = names.iter().any(|name| made_after.contains(name));
            match entry.kind.as_str() {
                "MATERIALIZED VIEW" if post_data => {
                    made_after.extend(makes(&entry, &names));
                    carried.after.push(entry);
                }
                // The rows of the view are not there before it is refreshed; and it may not be there itself yet.
                "INDEX" if on_late_view => carried.after.push(entry),
                "CONSTRAINT" | "INDEX" if unique => carried.keys.push(entry),
                "CONSTRAINT" | "INDEX" => carried.indexes.push(entry),
                "INDEX ATTACH" => carried.attaches.push(entry),
                // Tables of another shape are made after all others.
                _ if post_data || concerned => carried.after.push(entry),
                _ => carried.before.push(entry),
            }
        }
        Ok(carried)
    }

    /// Everything as one script, in the order in which it is run.
    pub fn script(&self) -> String {
        let lists = [&self.before, &self.keys, &self.indexes, &self.attaches, &self.after];
        let mut text = self.settings.join("\n");
        for entry in lists.into_iter().flatten() {
            text.push_str("\n\n");
            text.push_str(&entry.sql);
        }
        text.push('\n');
        text
    }
}

fn of<'a>(entries: &'a [DumpEntry], kind: &'static str) -> impl Iterator<Item = Vec<TableName>> + 'a {
    entries.iter().filter(move |entry| entry.kind == kind).map(DumpEntry::names)
}

/// The root of each partition.
fn roots(entries: &[DumpEntry]) -> BTreeMap<TableName, TableName> {
    let parent_of: HashMap<TableName, TableName> =
        of(entries, "TABLE ATTACH").filter_map(|names| Some((names.get(1)?.clone(), names.first()?.clone()))).collect();
    let root_of = |name: &TableName| {
        let mut root = name;
        while let Some(parent) = parent_of.get(root) {
            root = parent;
        }
        root.clone()
    };
    parent_of.keys().map(|partition| (partition.clone(), root_of(partition))).collect()
}

/// Tables, partitions and sequences of the source that are not at the target under their own name.
fn absent_relations(
    entries: &[DumpEntry],
    roots: &BTreeMap<TableName, TableName>,
    plan: &Plan,
) -> HashMap<TableName, Absence> {
    let mut absent = HashMap::new();
    for names in of(entries, "TABLE") {
        let Some(name) = names.first() else { continue };
        match plan.get(name).or_else(|| plan.get(roots.get(name)?)) {
            Some(table) if table.reshaped => drop(absent.insert(name.clone(), Absence::Reshaped)),
            Some(_) => {}
            None => drop(absent.insert(name.clone(), Absence::NotMigrated)),
        }
    }
    for names in of(entries, "SEQUENCE OWNED BY") {
        if let [sequence, table, ..] = &names[..]
            && let Some(why) = absent.get(table).cloned()
        {
            absent.insert(sequence.clone(), why);
        }
    }
    absent
}

/// `None`: it goes over. `Some(None)`: it stays behind, as it should. `Some(Some(reason))`: it stays behind and somebody
/// may miss it.
#[allow(clippy::option_option, reason = "three answers, each used once")]
fn leave_out(entry: &DumpEntry, names: &[TableName], absent: &HashMap<TableName, Absence>) -> Option<Option<String>> {
    let kind = entry.kind.as_str();
    if NEVER.contains(&kind) {
        return Some(Some("is not carried over".to_owned()));
    }
    // Only an extension's owner may comment on it, and that is often the server's administrator.
    if kind == "COMMENT" && entry.says(&["COMMENT", "ON", "EXTENSION"]) {
        return Some(None);
    }
    let own = names.first().and_then(|name| absent.get(name));
    if kind == "TABLE" && own.is_none() {
        // A table of the migration is never left out: if something it needs is missing, making it says so.
        return None;
    }
    let (name, why) = names.iter().find_map(|name| Some((name, absent.get(name)?)))?;
    let hangs_on_it = matches!(kind, "TABLE" | "SEQUENCE") || OF_A_TABLE.contains(&kind);
    Some(match (own, why) {
        (Some(Absence::NotMigrated | Absence::LeftOut), _) if hangs_on_it => None,
        (Some(Absence::Reshaped), _) if matches!(kind, "TABLE" | "TABLE ATTACH" | "SEQUENCE" | "SEQUENCE OWNED BY") => {
            None
        }
        // Own DDL makes the key, the defaults and the checks.
        (Some(Absence::Reshaped), _)
            if entry.says(&["PRIMARY", "KEY"]) || matches!(kind, "DEFAULT" | "CHECK CONSTRAINT") =>
        {
            None
        }
        (_, why) => Some(why.of(name)),
    })
}

/// The relations and functions that an entry makes.
pub(super) fn makes(entry: &DumpEntry, names: &[TableName]) -> impl Iterator<Item = TableName> {
    let name = match entry.kind.as_str() {
        "TABLE" | "VIEW" | "MATERIALIZED VIEW" | "SEQUENCE" | "FUNCTION" | "PROCEDURE" | "AGGREGATE" | "TYPE"
        | "DOMAIN" | "FOREIGN TABLE" => names.first().cloned(),
        "INDEX" => entry.schema.as_ref().map(|schema| TableName::new(schema, &entry.name)),
        // `orders orders_pkey`: the index has the constraint's name.
        "CONSTRAINT" => names.first().and_then(|table| {
            let name = entry.name.strip_prefix(table.table.as_str())?.strip_prefix(' ')?;
            Some(TableName::new(&table.schema, name))
        }),
        _ => None,
    };
    name.into_iter()
}

fn check_fires_always(entry: &DumpEntry) -> Result<()> {
    for what in ["TRIGGER", "RULE"] {
        for when in ["ALWAYS", "REPLICA"] {
            if !entry.says(&["ENABLE", when, what]) {
                continue;
            }
            let (what, names) = (what.to_lowercase(), entry.names());
            let table = names.first().map_or_else(|| entry.name.clone(), TableName::sql);
            return Err(Error::new(
                Kind::Schema,
                format!(
                    "{} is ENABLE {when}: at the target it would fire a second time for every change that is applied",
                    entry.label()
                ),
            )
            .fix(format!(
                "make it an ordinary {what} at the source for the migration (ALTER TABLE {table} ENABLE {} …), or drop it \
                 there and create it at the target after the cutover",
                what.to_uppercase()
            )));
        }
    }
    Ok(())
}
