//! The few expressions that mean the same at both ends: conditions of CHECK constraints.
//!
//! In: a condition in MySQL's words. Out: the same in Postgres' words, or `None`: then it is listed as not carried.
//! Understood are columns, numbers, plain texts, comparisons, `and`, `or`, `not`, `in`, `between`, `is null`, `+`, `-`, `*`
//! and parentheses, over columns that are numbers, dates, or texts that are not compared regardless of case. A `/` is
//! not: an integer divided is an integer there.

use super::MappedTable;
use crate::schema::{Ident, TableDefinition};

const WORDS: [&str; 7] = ["and", "or", "not", "in", "between", "is", "null"];

pub(super) fn condition(clause: &str, table: &TableDefinition, mapped: &MappedTable) -> Option<String> {
    let mut out = String::new();
    let mut rest = clause.trim();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '`' => {
                let end = rest[1..].find('`')? + 1;
                let name = &rest[1..end];
                let column = mapped.column(name)?;
                let ty = table.column(name)?.ty.mysql.as_deref()?;
                let plain = column.ty.is_number() || (column.ty.is_text() && !ty.folds_case());
                if !plain {
                    return None;
                }
                out.push_str(&Ident(&column.name).to_string());
                end + 1
            }
            '\'' => {
                let end = rest[1..].find('\'')? + 1;
                let text = &rest[1..end];
                if text.contains('\\') || rest[end + 1..].starts_with('\'') {
                    return None;
                }
                out.push_str(&format!("'{text}'"));
                end + 1
            }
            c if c.is_ascii_digit() => {
                let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
                out.push_str(&rest[..end]);
                end
            }
            c if c.is_ascii_alphabetic() || c == '_' => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                let word = rest[..end].to_ascii_lowercase();
                // The character set before a text: _utf8mb4'a'.
                let charset = word.starts_with('_') && rest[end..].starts_with('\'');
                if !charset {
                    if !WORDS.contains(&word.as_str()) {
                        return None;
                    }
                    out.push_str(&word);
                }
                end
            }
            '(' | ')' | ',' | ' ' | '+' | '-' | '*' | '=' => {
                out.push(first);
                1
            }
            '<' | '>' | '!' => {
                let operator = ["<=>", "<=", ">=", "<>", "!=", "<", ">"].into_iter().find(|op| rest.starts_with(op))?;
                if operator == "<=>" {
                    return None;
                }
                out.push_str(operator);
                operator.len()
            }
            _ => return None,
        };
        rest = &rest[length..];
    }
    Some(out)
}
