//! The source's indexes, constraints, policies, triggers and comments for tables that the rules give another shape.
//!
//! In: a statement that `pg_dump` or the catalogue wrote with every identifier quoted. Out: the same statement about the
//! target's tables and columns, or why there is none: a column it needs does not travel, or it holds text of its own (a
//! trigger's function) that may name columns which are called otherwise there. What an identifier stands for is told by
//! where it stands; function, type, operator class, role and collation keep their names.

use std::collections::{HashMap, HashSet};

use super::DumpEntry;
use super::carried::makes;
use super::script::{Token, tokens};
use crate::schema::{Ident, TableName};
use crate::transform::{Plan, TablePlan};

/// Words after which an identifier is no column.
const NAMES_FOLLOW: [&str; 10] =
    ["CONSTRAINT", "INDEX", "USING", "TABLESPACE", "COLLATE", "ON", "STATISTICS", "POLICY", "TRIGGER", "AS"];

/// Brings the entries of a dump, in its order, into the shape of the target's tables.
pub(super) struct Reshaper<'a> {
    plan: &'a Plan,
    /// Constraints, policies and triggers that go over: what a comment on one may be about.
    kept: HashSet<(TableName, String)>,
    /// The indexes that go over, with their names there.
    indexes: HashMap<TableName, TableName>,
    /// What is made there.
    taken: HashSet<TableName>,
}

impl<'a> Reshaper<'a> {
    pub(super) fn new(plan: &'a Plan) -> Reshaper<'a> {
        Reshaper { plan, kept: HashSet::new(), indexes: HashMap::new(), taken: HashSet::new() }
    }

    /// The entry for the target, or why there is none. `None`: it is not about the shape of a table that the rules
    /// reshape, or cannot be written for the target. `lacks`: why the target does not have what is called so.
    pub(super) fn entry(
        &mut self,
        entry: &DumpEntry,
        names: &[TableName],
        lacks: impl Fn(&TableName) -> Option<String>,
    ) -> Option<Result<DumpEntry, String>> {
        let first = names.first()?;
        if entry.kind == "COMMENT" && entry.says(&["COMMENT", "ON", "INDEX"]) {
            let there = self.indexes.get(first).filter(|there| *there != first)?;
            return Some(Ok(DumpEntry { sql: entry.sql.replacen(&first.sql(), &there.sql(), 1), ..entry.clone() }));
        }
        let table = self.plan.get(first)?;
        let concerned = match entry.kind.as_str() {
            "INDEX" | "CONSTRAINT" | "FK CONSTRAINT" => {
                !entry.says(&["PRIMARY", "KEY"])
                    && names.iter().any(|name| self.plan.get(name).is_some_and(|table| table.reshaped))
            }
            "POLICY" | "ROW SECURITY" | "TRIGGER" => table.reshaped,
            "COMMENT" => table.reshaped && self.is_about_what_is_there(entry, first),
            _ => false,
        };
        if !concerned {
            return None;
        }
        let lacking = names.iter().find_map(lacks);
        let written = lacking.map_or_else(|| write(entry, self.plan, table), Err).and_then(|there| {
            let twice = makes(&there, &there.names()).find(|name| !self.taken.insert(name.clone()));
            match twice {
                Some(twice) => Err(format!("{twice} is another's name there")),
                None => Ok(there),
            }
        });
        if let Ok(there) = &written {
            match entry.kind.as_str() {
                "INDEX" => {
                    let named = |entry: &DumpEntry| Some(TableName::new(entry.schema.as_ref()?, &entry.name));
                    self.indexes.extend(named(entry).zip(named(there)));
                }
                "COMMENT" | "ROW SECURITY" => {}
                _ => drop(self.kept.insert((first.clone(), own_name(entry, table).to_owned()))),
            }
        }
        Some(written)
    }

    /// Whether a comment is on a table, a column, or on something of a table that goes over.
    fn is_about_what_is_there(&self, entry: &DumpEntry, table: &TableName) -> bool {
        let mut tokens = tokens(&entry.sql).map(|(_, token)| token).skip(2);
        match (tokens.next(), tokens.next()) {
            (Some(Token::Word("TABLE" | "COLUMN")), _) => true,
            (Some(Token::Word("CONSTRAINT" | "POLICY" | "TRIGGER")), Some(Token::Ident(name))) => {
                self.kept.contains(&(table.clone(), unquoted(name)))
            }
            _ => false,
        }
    }
}

/// `orders_pkey` of `orders orders_pkey`.
fn own_name<'a>(entry: &'a DumpEntry, table: &TablePlan) -> &'a str {
    let name = entry.name.strip_prefix(table.source.name.table.as_str());
    name.and_then(|name| name.strip_prefix(' ')).unwrap_or(&entry.name)
}

fn write(entry: &DumpEntry, plan: &Plan, table: &TablePlan) -> Result<DumpEntry, String> {
    if entry.says(&["ALTER", "INDEX"]) {
        return Err("sets an option of the index".to_owned());
    }
    let (from, to) = (&table.source.name, &table.shaped.name);
    let same_columns = table.passthrough
        && table.shaped.columns.iter().zip(&table.source.columns).all(|(there, here)| there.name == here.name);
    if entry.kind == "TRIGGER" && !same_columns {
        return Err(format!("its function may name columns of {from} that have another name there, or do not travel"));
    }
    let rest = entry.name.strip_prefix(from.table.as_str());
    let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with(' '));
    Ok(DumpEntry {
        name: rest.map_or_else(|| entry.name.clone(), |rest| format!("{}{rest}", to.table)),
        schema: Some(to.schema.clone()),
        sql: statement(&entry.sql, plan, Some(table))?,
        ..entry.clone()
    })
}

/// The statement for the target, or why there is none. `about`: the table it is about, if it does not say so itself.
pub fn statement(sql: &str, plan: &Plan, about: Option<&TablePlan>) -> Result<String, String> {
    let tokens: Vec<(usize, Token<'_>)> =
        tokens(sql).filter(|(_, token)| !matches!(token, Token::Comment(_))).collect();
    let token = |at: usize| tokens.get(at).map(|(_, token)| *token);
    let mut own = about;
    let mut referenced: Option<&TablePlan> = None;
    let mut out = String::new();
    let mut copied = 0;
    let mut put = |from: usize, to: usize, text: &str| {
        out.push_str(&sql[copied..from]);
        out.push_str(text);
        copied = to;
    };
    let mut at = 0;
    while let Some(here) = token(at) {
        let before = at.checked_sub(1).and_then(token);
        match here {
            // Storage options.
            Token::Word("WITH") if token(at + 1) == Some(Token::Symbol('(')) => {
                while token(at).is_some_and(|token| token != Token::Symbol(')')) {
                    at += 1;
                }
            }
            Token::Word("SELECT") if before == Some(Token::Symbol('(')) => {
                return Err("looks into tables by a query of its own".into());
            }
            // The roles of a policy.
            Token::Word("TO") => {
                while token(at + 1)
                    .is_some_and(|token| !matches!(token, Token::Word("USING" | "WITH") | Token::Symbol(';')))
                {
                    at += 1;
                }
            }
            Token::Symbol(')') => referenced = None,
            Token::Ident(name) if token(at + 1) == Some(Token::Symbol('.')) => {
                let Some(Token::Ident(second)) = token(at + 2) else { return Err("is not written as expected".into()) };
                let refers = before == Some(Token::Word("REFERENCES"));
                let table = TableName::new(unquoted(name), unquoted(second));
                let is_table = refers || token(at + 3) != Some(Token::Symbol('('));
                match plan.get(&table).filter(|_| is_table) {
                    Some(_) if before == Some(Token::Symbol(':')) => {
                        return Err(format!("uses the row type of {table}"));
                    }
                    Some(plan) => {
                        let (from, to) = (tokens[at].0, tokens[at + 2].0 + second.len() + 2);
                        put(from, to, &plan.shaped.name.sql());
                        // `"schema"."table"."column"`, of COMMENT ON COLUMN.
                        if let (Some(Token::Symbol('.')), Some(Token::Ident(third))) = (token(at + 3), token(at + 4)) {
                            let there = travelling(plan, third)?;
                            put(tokens[at + 4].0, tokens[at + 4].0 + third.len() + 2, &Ident(there).to_string());
                        }
                        if refers {
                            referenced = Some(plan);
                        } else {
                            own = Some(plan);
                        }
                    }
                    None if refers => return Err(format!("needs {table}, which is not migrated")),
                    None => {}
                }
                at += 2;
            }
            Token::Ident(name) if is_column(before, token(at + 1)) => {
                let Some(table) = referenced.or(own) else { return Err("is not written as expected".into()) };
                if table.reshaped {
                    let there = travelling(table, name)?;
                    put(tokens[at].0, tokens[at].0 + name.len() + 2, &Ident(there).to_string());
                }
            }
            _ => {}
        }
        at += 1;
    }
    put(sql.len(), sql.len(), "");
    Ok(out)
}

fn travelling<'a>(table: &'a TablePlan, name: &str) -> Result<&'a str, String> {
    column(table, &unquoted(name))
        .ok_or_else(|| format!("needs column {:?} of {}, which does not travel", unquoted(name), table.source.name))
}

fn is_column(before: Option<Token<'_>>, after: Option<Token<'_>>) -> bool {
    let named = match before {
        // An operator class, or a type.
        Some(Token::Ident(_) | Token::Symbol(')' | ':' | '.')) => true,
        Some(Token::Word(word)) => NAMES_FOLLOW.contains(&word),
        _ => false,
    };
    !named && after != Some(Token::Symbol('('))
}

/// What a column is called at the target.
pub fn column<'a>(table: &'a TablePlan, name: &str) -> Option<&'a str> {
    let at = table.columns.iter().position(|&index| table.source.columns[index].name == name)?;
    Some(&table.shaped.columns[at].name)
}

fn unquoted(name: &str) -> String {
    name.replace("\"\"", "\"")
}
