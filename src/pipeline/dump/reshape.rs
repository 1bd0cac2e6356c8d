//! The source's indexes and constraints for tables that the rules give another shape.
//!
//! In: a statement that `pg_dump` or the catalogue wrote with every identifier quoted. Out: the same statement about the
//! target's tables and columns, or why there is none: a column it needs does not travel. What an identifier stands for is
//! told by where it stands; function, type, operator class and collation keep their names.

use super::DumpEntry;
use super::script::{Token, tokens};
use crate::schema::{Ident, TableName};
use crate::transform::{Plan, TablePlan};

/// Words after which an identifier is no column.
const NAMES_FOLLOW: [&str; 7] = ["CONSTRAINT", "INDEX", "USING", "TABLESPACE", "COLLATE", "ON", "STATISTICS"];

/// Whether the entry is about the shape of a table of the plan that the rules reshape, and can be written for the target.
pub(super) fn concerns(entry: &DumpEntry, names: &[TableName], plan: &Plan) -> bool {
    let ours = |name: &TableName| plan.get(name).is_some();
    matches!(entry.kind.as_str(), "INDEX" | "CONSTRAINT" | "FK CONSTRAINT")
        && !entry.says(&["PRIMARY", "KEY"])
        && names.first().is_some_and(ours)
        && names.iter().any(|name| plan.get(name).is_some_and(|table| table.reshaped))
}

/// The entry for the target, or why there is none.
pub(super) fn entry(entry: &DumpEntry, names: &[TableName], plan: &Plan) -> Result<DumpEntry, String> {
    let table = names.first().and_then(|name| plan.get(name)).ok_or("is about no table of the migration")?;
    if entry.says(&["ALTER", "INDEX"]) {
        return Err("sets an option of the index".to_owned());
    }
    let (from, to) = (&table.source.name, &table.shaped.name);
    let name = entry.name.strip_prefix(from.table.as_str()).filter(|rest| rest.starts_with(' '));
    Ok(DumpEntry {
        name: name.map_or_else(|| entry.name.clone(), |rest| format!("{}{rest}", to.table)),
        schema: Some(to.schema.clone()),
        sql: statement(&entry.sql, plan, None)?,
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
                    let there = column(table, &unquoted(name)).ok_or_else(|| {
                        format!("needs column {:?} of {}, which does not travel", unquoted(name), table.source.name)
                    })?;
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
