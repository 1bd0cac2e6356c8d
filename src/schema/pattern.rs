//! Which tables: `schema.table` with `*` and `?`, `!` excludes, double quotes around odd names.

use super::TableName;
use crate::error::{Error, Kind, Result};

/// One `schema.table` glob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    schema: Vec<Glob>,
    table: Vec<Glob>,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Glob {
    Literal(char),
    One,
    Many,
}

impl Pattern {
    /// Reads `schema.table`. A part in double quotes is literal (`""` inside stands for one quote).
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::new(Kind::Config, format!("{text:?} is no table pattern: {why}"))
                .fix("write schema.table, for example \"public.*\" or \"public.\\\"Odd Name\\\"\"")
        };
        let mut parts = vec![Vec::new()];
        let mut chars = text.trim().chars().peekable();
        let mut quoted = false;
        while let Some(c) = chars.next() {
            let part = parts.last_mut().expect("there is always one part");
            match c {
                '"' if quoted && chars.peek() == Some(&'"') => {
                    chars.next();
                    part.push(Glob::Literal('"'));
                }
                '"' => quoted = !quoted,
                c if quoted => part.push(Glob::Literal(c)),
                '.' => parts.push(Vec::new()),
                '*' => part.push(Glob::Many),
                '?' => part.push(Glob::One),
                c => part.push(Glob::Literal(c)),
            }
        }
        if quoted {
            return Err(bad("a double quote is not closed"));
        }
        let [schema, table] = <[Vec<Glob>; 2]>::try_from(parts).map_err(|_| bad("it needs exactly one dot"))?;
        if schema.is_empty() || table.is_empty() {
            return Err(bad("schema and table must not be empty"));
        }
        Ok(Pattern { schema, table, text: text.trim().to_owned() })
    }

    /// Whether the table's name fits.
    pub fn matches(&self, name: &TableName) -> bool {
        glob(&self.schema, &name.schema) && glob(&self.table, &name.table)
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn glob(pattern: &[Glob], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    // Greedy match with one point to come back to: linear for every pattern people write.
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(Glob::Literal(c)) if *c == text[t] => (p, t) = (p + 1, t + 1),
            Some(Glob::One) => (p, t) = (p + 1, t + 1),
            Some(Glob::Many) => {
                retry = Some((p, t));
                p += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    (p, t) = (star + 1, from + 1);
                    retry = Some((star, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|g| *g == Glob::Many)
}

/// A list of patterns: a table is in if an including one matches it and no `!` one does. The default is every table that
/// there is.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
    /// The database of the URL says which tables there are.
    of_the_database: bool,
}

impl Patterns {
    /// Reads the list of the config file; an empty list, or one of exclusions only, includes everything.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self> {
        let mut patterns = Patterns::default();
        for text in texts {
            match text.as_ref().trim().strip_prefix('!') {
                Some(text) => patterns.exclude.push(Pattern::parse(text)?),
                None => patterns.include.push(Pattern::parse(text.as_ref())?),
            }
        }
        patterns.of_the_database = patterns.include.is_empty();
        Ok(patterns)
    }

    /// Whether the table takes part.
    pub fn includes(&self, name: &TableName) -> bool {
        (self.include.is_empty() || self.include.iter().any(|p| p.matches(name)))
            && !self.exclude.iter().any(|p| p.matches(name))
    }

    /// Whether a config names no table to be in: then the database of its URL says which there are.
    pub fn name_nothing(&self) -> bool {
        self.of_the_database
    }

    /// Including patterns that match none of `names`: most likely typing mistakes.
    pub fn without_match<'a>(&'a self, names: &[TableName]) -> Vec<&'a str> {
        self.include.iter().filter(|p| !names.iter().any(|n| p.matches(n))).map(Pattern::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn includes(patterns: &[&str], name: (&str, &str)) -> bool {
        Patterns::parse(patterns).expect("valid").includes(&TableName::new(name.0, name.1))
    }

    #[test]
    fn exclusion_wins_over_inclusion() {
        let patterns = ["public.*", "!public.audit_*"];
        assert!(includes(&patterns, ("public", "orders")));
        assert!(!includes(&patterns, ("public", "audit_2019")));
        assert!(!includes(&patterns, ("other", "orders")));
    }

    #[test]
    fn quotes_make_a_name_literal() {
        assert!(includes(&["public.\"a.b*\""], ("public", "a.b*")));
        assert!(!includes(&["public.\"a.b*\""], ("public", "a.bc")));
        assert!(includes(&["public.\"say \"\"hi\"\"\""], ("public", "say \"hi\"")));
    }

    #[test]
    fn globs_match_as_in_a_shell() {
        assert!(includes(&["p*c.a?c*"], ("public", "abcdef")));
        assert!(!includes(&["p*c.a?c"], ("public", "abcd")));
        assert!(includes(&["*.*"], ("x", "y")));
    }

    #[test]
    fn a_pattern_without_a_dot_is_refused() {
        assert_eq!(Patterns::parse(&["users"]).expect_err("no dot").kind(), Kind::Config);
    }
}
