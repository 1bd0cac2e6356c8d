//! `[[schema.type]]`: which type a column becomes, by choice.

use super::{PgType, convertible, default_type};
use crate::error::{Error, Kind, Result};
use crate::schema::{Column, MySqlKind, MySqlType, Pattern, TableName};

/// The rules in order; the first that matches a column is its rule.
#[derive(Debug, Clone, Default)]
pub struct Rules(Vec<Rule>);

#[derive(Debug, Clone)]
struct Rule {
    matches: Matches,
    text: String,
    ty: PgType,
}

/// What a rule is for.
#[derive(Debug, Clone)]
pub enum Matches {
    /// `database.table.column`
    Column(Pattern, Pattern),
    /// `tinyint(1)`; whether it names lengths too.
    Type(Box<MySqlType>, bool),
}

impl Matches {
    /// Reads `database.table.column` with `*` and `?`, or a type.
    pub fn parse(text: &str) -> Result<Matches> {
        let text = text.trim();
        let bad = |why: &str| {
            Error::new(Kind::Config, format!("{text:?} is neither a column nor a type: {why}"))
                .fix("write database.table.column, for example \"shop.*.flags\", or a type, for example \"tinyint(1)\"")
        };
        let ty = MySqlType::parse(text);
        if ty.kind != MySqlKind::Other && !before_parenthesis(text).contains('.') {
            return Ok(Matches::Type(Box::new(ty), text.contains('(')));
        }
        let mut quoted = false;
        let mut dots = Vec::new();
        for (at, c) in text.char_indices() {
            match c {
                '"' => quoted = !quoted,
                '.' if !quoted => dots.push(at),
                _ => {}
            }
        }
        let [_, last] = dots[..] else { return Err(bad("a column has two dots, a type none")) };
        let table = Pattern::parse(&text[..last])?;
        // A pattern has two parts: the table's is any.
        let column = Pattern::parse(&format!("*.{}", &text[last + 1..])).map_err(|_| bad("the column is missing"))?;
        Ok(Matches::Column(table, column))
    }

    fn matches(&self, table: &TableName, column: &Column) -> bool {
        match self {
            Matches::Column(of, name) => of.matches(table) && name.matches(&TableName::new("", column.name.as_str())),
            Matches::Type(wanted, exact) => column.ty.mysql.as_deref().is_some_and(|ty| {
                let same = ty.kind == wanted.kind && ty.unsigned == wanted.unsigned;
                let sizes = |ty: &MySqlType| (ty.length, ty.precision, ty.scale, ty.fsp, ty.labels.clone());
                same && (!exact || sizes(ty) == sizes(wanted))
            }),
        }
    }

    /// Whether it may concern a column of this table.
    pub fn concerns(&self, table: &TableName) -> bool {
        match self {
            Matches::Column(of, _) => of.matches(table),
            Matches::Type(..) => true,
        }
    }
}

fn before_parenthesis(text: &str) -> &str {
    text.split('(').next().unwrap_or_default()
}

impl Rules {
    /// Reads pairs of what a rule matches and the type it gives.
    pub fn parse<'a>(rules: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Rules> {
        let read = |(matches, ty): (&str, &str)| {
            let unknown = || {
                Error::new(Kind::Config, format!("{ty:?} is no type that a column can become"))
                    .fix("docs/types.md has the list")
            };
            Ok(Rule {
                text: format!("[[schema.type]] match = {matches:?}"),
                matches: Matches::parse(matches)?,
                ty: PgType::parse(ty).ok_or_else(unknown)?,
            })
        };
        Ok(Rules(rules.into_iter().map(read).collect::<Result<_>>()?))
    }

    /// The type that a rule gives to a column.
    pub(super) fn find(&self, table: &TableName, column: &Column) -> Option<&PgType> {
        self.0.iter().find(|rule| rule.matches.matches(table, column)).map(|rule| &rule.ty)
    }

    /// The type a column becomes: by rule, or the default one.
    pub fn choose(&self, table: &TableName, column: &Column) -> Result<PgType> {
        let unknown = || {
            let why = format!("{table}.{} is of type {}, which is not carried", column.name, column.ty.display);
            Error::new(Kind::Schema, why).fix(format!("leave the table out: tables = [\"!{table}\"]"))
        };
        let from = column.ty.mysql.as_deref().ok_or_else(unknown)?;
        let Some(rule) = self.0.iter().find(|rule| rule.matches.matches(table, column)) else {
            return default_type(from).ok_or_else(unknown);
        };
        if !convertible(from, &rule.ty) {
            let why = format!(
                "{}: {table}.{} is {}, which cannot become {}",
                rule.text, column.name, column.ty.display, rule.ty
            );
            return Err(Error::new(Kind::Config, why).fix("docs/types.md has the list"));
        }
        Ok(rule.ty.clone())
    }
}
