//! What `SHOW CREATE TABLE` of a MySQL or MariaDB server says, taken apart, and put together again for another server.
//!
//! In: the statement as the server prints it, with every name in backticks (`sql_quote_show_create`). Out: the lines that
//! make the table with its keys, and those that are made once the rows are there, with other names for the table and its
//! columns where a rule has them. A name is only ever changed where it stands as a name: comments, defaults and other texts
//! pass as they are.
//!
//! The grammar: <https://dev.mysql.com/doc/refman/8.4/en/show-create-table.html>, sql/sql_show.cc of both servers.

use std::ops::Range;

use super::{MyIdent, my_table};
use crate::schema::TableName;

/// A piece of a statement. All pieces together are the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// A name in backticks.
    Name,
    /// A text in quotes.
    Text,
    /// A word or a number.
    Word,
    /// Anything else, one character.
    Sign(char),
}

fn tokens(sql: &str) -> Vec<(Range<usize>, Token)> {
    let bytes = sql.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < sql.len() {
        let first = sql[at..].chars().next().unwrap_or_default();
        let (end, token) = match first {
            '`' => (quoted(bytes, at, false), Token::Name),
            '\'' | '"' => (quoted(bytes, at, true), Token::Text),
            c if c.is_alphanumeric() || c == '_' || c == '$' => {
                let word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
                (at + sql[at..].find(|c| !word(c)).unwrap_or(sql.len() - at), Token::Word)
            }
            c => (at + c.len_utf8(), Token::Sign(c)),
        };
        found.push((at..end, token));
        at = end;
    }
    found
}

/// The end of what is quoted from `at` on. A quote inside is doubled, in a text it may also stand behind a backslash.
fn quoted(bytes: &[u8], at: usize, escapes: bool) -> usize {
    let quote = bytes[at];
    let mut next = at + 1;
    while next < bytes.len() {
        match bytes[next] {
            b'\\' if escapes => next += 2,
            byte if byte == quote && bytes.get(next + 1) == Some(&quote) => next += 2,
            byte if byte == quote => return next + 1,
            _ => next += 1,
        }
    }
    bytes.len()
}

fn name_of(token: &str) -> String {
    token[1..token.len().max(2) - 1].replace("``", "`")
}

/// What one line of a table's definition is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A column.
    Column,
    /// The primary key.
    PrimaryKey,
    /// A unique key.
    UniqueKey,
    /// An index.
    Key,
    /// A full-text index, of which a table gets one at a time.
    FullText,
    /// A foreign key.
    ForeignKey,
    /// A CHECK of the table.
    Check,
    /// Anything else that belongs to the table (a period).
    Other,
}

/// One line of a table's definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What it is.
    pub kind: Kind,
    /// What that is called; empty where it has no name.
    pub name: String,
    text: String,
}

/// A table's definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShowCreate {
    /// Its lines, in order.
    pub lines: Vec<Line>,
    /// Everything behind them: the table's options and partitions.
    tail: String,
}

/// What names become at the target.
pub struct Names<'a> {
    /// The database of the table at the source, in which names without one are.
    pub database: &'a str,
    /// What a column is called there; `None`: it does not travel.
    pub column: &'a dyn Fn(&str) -> Option<String>,
    /// What a table, and a column of it, is called there; `None`: it is not part of the migration.
    pub table: &'a dyn Fn(&TableName) -> Option<TableName>,
    /// The same of a column of another table.
    pub column_of: &'a dyn Fn(&TableName, &str) -> Option<String>,
}

impl ShowCreate {
    /// Reads the statement; `None` if it is none.
    pub fn parse(sql: &str) -> Option<ShowCreate> {
        let all = tokens(sql);
        let open = all.iter().position(|(_, token)| *token == Token::Sign('('))?;
        let (mut depth, mut begun, mut lines) = (0, all[open].0.end, Vec::new());
        for (range, token) in &all[open..] {
            match token {
                Token::Sign('(') => depth += 1,
                Token::Sign(')') => depth -= 1,
                _ => {}
            }
            let ends = depth == 0;
            if ends || (depth == 1 && *token == Token::Sign(',')) {
                lines.push(Line::of(sql[begun..range.start].trim())?);
                begun = range.end;
            }
            if ends {
                return Some(ShowCreate { lines, tail: sql[range.end..].trim().to_owned() });
            }
        }
        None
    }

    /// `CREATE TABLE` with these lines under another name; `options` changes a word of what stands behind the lines.
    pub fn create(&self, name: &TableName, lines: &[String], names: &Names<'_>) -> String {
        let tail = renamed_in_partitions(&self.tail, names);
        format!("CREATE TABLE {} (\n  {}\n) {tail};", my_table(name), lines.join(",\n  "))
    }

    /// The column that counts by itself.
    pub fn auto_increment(&self) -> Option<&str> {
        let counts = |line: &&Line| {
            line.kind == Kind::Column
                && tokens(&line.text).into_iter().any(|(range, token)| {
                    token == Token::Word && line.text[range].eq_ignore_ascii_case("AUTO_INCREMENT")
                })
        };
        self.lines.iter().find(counts).map(|line| line.name.as_str())
    }
}

impl Line {
    fn of(text: &str) -> Option<Line> {
        let words: Vec<(Range<usize>, Token)> = tokens(text)
            .into_iter()
            .filter(|(_, token)| !matches!(token, Token::Sign(c) if c.is_whitespace()))
            .collect();
        let word =
            |at: usize| words.get(at).map(|(range, _)| text[range.clone()].to_ascii_uppercase()).unwrap_or_default();
        let name = |at: usize| {
            let named = words.get(at).filter(|(_, token)| *token == Token::Name);
            named.map(|(range, _)| name_of(&text[range.clone()])).unwrap_or_default()
        };
        let (kind, name) = match (words.first()?.1, word(0).as_str(), word(1).as_str()) {
            (Token::Name, ..) => (Kind::Column, name(0)),
            (_, "PRIMARY", _) => (Kind::PrimaryKey, String::new()),
            (_, "UNIQUE", _) => (Kind::UniqueKey, name(2)),
            (_, "FULLTEXT", _) => (Kind::FullText, name(2)),
            (_, "SPATIAL", _) => (Kind::Key, name(2)),
            (_, "KEY", _) => (Kind::Key, name(1)),
            (_, "CONSTRAINT", _) if word(2) == "FOREIGN" => (Kind::ForeignKey, name(1)),
            (_, "CONSTRAINT", _) => (Kind::Check, name(1)),
            (_, "CHECK", _) => (Kind::Check, String::new()),
            _ => (Kind::Other, String::new()),
        };
        Some(Line { kind, name, text: text.to_owned() })
    }

    /// The first column that a key is of.
    pub fn first_column(&self) -> Option<String> {
        let all = tokens(&self.text);
        let open = all.iter().position(|(_, token)| *token == Token::Sign('('))?;
        let (range, _) = all[open..].iter().find(|(_, token)| *token == Token::Name)?;
        Some(name_of(&self.text[range.clone()]))
    }

    /// Whether a key is over an expression, which MariaDB does not have.
    pub fn is_over_an_expression(&self) -> bool {
        let all: Vec<Token> = tokens(&self.text).into_iter().map(|(_, token)| token).collect();
        let pair = [Token::Sign('('), Token::Sign('(')];
        matches!(self.kind, Kind::Key | Kind::UniqueKey) && all.windows(2).any(|two| two == pair)
    }

    /// Whether it is a column whose values are computed.
    pub fn is_generated(&self) -> bool {
        let words = tokens(&self.text).into_iter().filter(|(_, token)| *token == Token::Word);
        let words: Vec<String> = words.map(|(range, _)| self.text[range].to_ascii_uppercase()).collect();
        self.kind == Kind::Column && words.windows(2).any(|two| two[0] == "GENERATED" && two[1] == "ALWAYS")
    }

    /// The line with the names of the target; the name of a column that does not travel if it has one.
    pub fn renamed(&self, names: &Names<'_>) -> Result<String, String> {
        let all = tokens(&self.text);
        let is_name = |at: usize| all.get(at).is_some_and(|(_, token)| *token == Token::Name);
        let mut out = String::with_capacity(self.text.len());
        // Names before the first parenthesis are the key's own; of a foreign key, the table and columns it refers to come
        // behind REFERENCES.
        let own = !matches!(self.kind, Kind::Column | Kind::Other);
        let (mut inside, mut refers, mut at) = (!own, None::<TableName>, 0);
        while at < all.len() {
            let (range, token) = &all[at];
            let text = &self.text[range.clone()];
            match token {
                Token::Sign('(') => inside = true,
                Token::Word if self.kind == Kind::ForeignKey && text.eq_ignore_ascii_case("REFERENCES") => {
                    out.push_str("REFERENCES ");
                    let first = (at + 1..all.len()).find(|at| is_name(*at)).ok_or("REFERENCES")?;
                    let second = first + 2;
                    let qualified =
                        all.get(first + 1).is_some_and(|(_, token)| *token == Token::Sign('.')) && is_name(second);
                    let name = |at: usize| name_of(&self.text[all[at].0.clone()]);
                    let table = match qualified {
                        true => TableName::new(name(first), name(second)),
                        false => TableName::new(names.database, name(first)),
                    };
                    out.push_str(&my_table(&(names.table)(&table).ok_or_else(|| table.to_string())?));
                    refers = Some(table);
                    at = if qualified { second } else { first } + 1;
                    continue;
                }
                Token::Name if inside => {
                    let name = name_of(text);
                    let there = match &refers {
                        Some(table) => (names.column_of)(table, &name),
                        None => (names.column)(&name),
                    };
                    out.push_str(&MyIdent(&there.ok_or(name)?).to_string());
                    at += 1;
                    continue;
                }
                _ => {}
            }
            out.push_str(text);
            at += 1;
        }
        Ok(out)
    }

    /// The table a foreign key refers to.
    pub fn refers_to(&self, database: &str) -> Option<TableName> {
        let seen = std::cell::RefCell::new(None);
        let names = Names {
            database,
            column: &|name| Some(name.to_owned()),
            table: &|table| {
                seen.replace(Some(table.clone()));
                Some(table.clone())
            },
            column_of: &|_, name| Some(name.to_owned()),
        };
        self.renamed(&names).ok()?;
        seen.into_inner()
    }
}

/// What stands behind the lines, with the new names of the columns that rows are parted by. Partitions have names of their
/// own, which are not columns'.
fn renamed_in_partitions(tail: &str, names: &Names<'_>) -> String {
    let mut out = String::with_capacity(tail.len());
    let (mut by, mut depth, mut inside) = (false, 0_u32, false);
    for (range, token) in tokens(tail) {
        let text = &tail[range];
        match token {
            Token::Word => {
                let word = text.to_ascii_uppercase();
                // PARTITION BY RANGE COLUMNS (…), SUBPARTITION BY HASH (…)
                by = (by || word == "BY") && (word != "PARTITIONS" && word != "SUBPARTITIONS");
            }
            Token::Sign('(') => {
                depth += 1;
                inside |= by && depth == 1;
                by = false;
            }
            Token::Sign(')') => {
                depth = depth.saturating_sub(1);
                inside &= depth > 0;
            }
            Token::Name if inside => {
                let name = name_of(text);
                out.push_str(&MyIdent(&(names.column)(&name).unwrap_or(name)).to_string());
                continue;
            }
            _ => {}
        }
        out.push_str(text);
    }
    out
}

/// A statement with each collation that `other` has another one for in its place: `COLLATE x`, `COLLATE=x`.
pub fn with_collations(sql: &str, other: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut collates = false;
    for (range, token) in tokens(sql) {
        let text = &sql[range];
        match token {
            Token::Word if collates => {
                out.push_str(&other(text).unwrap_or_else(|| text.to_owned()));
                collates = false;
                continue;
            }
            Token::Word => collates = text.eq_ignore_ascii_case("COLLATE"),
            Token::Sign(c) if c.is_whitespace() || c == '=' => {}
            _ => collates = false,
        }
        out.push_str(text);
    }
    out
}

/// A statement of MariaDB's as MySQL reads it: there the call that is a column's default stands in parentheses, unless it
/// is the present moment. <https://dev.mysql.com/doc/refman/8.4/en/data-type-defaults.html>
pub fn with_defaults_in_parentheses(sql: &str) -> String {
    let tokens = tokens(sql);
    let mut out = String::with_capacity(sql.len() + 2);
    let (mut default, mut depth, mut call) = (false, 0_usize, false);
    for (place, (range, token)) in tokens.iter().enumerate() {
        let text = &sql[range.clone()];
        let calls = tokens.get(place + 1).is_some_and(|(_, next)| *next == Token::Sign('('));
        match token {
            Token::Word if default && calls && !text.eq_ignore_ascii_case("current_timestamp") => {
                out.push('(');
                (default, call, depth) = (false, true, 0);
            }
            Token::Word if !call => default = text.eq_ignore_ascii_case("DEFAULT"),
            Token::Sign(c) if !call && !c.is_whitespace() => default = false,
            Token::Name | Token::Text if !call => default = false,
            Token::Sign('(') => depth += 1,
            Token::Sign(')') if depth == 1 => {
                out.push_str("))");
                call = false;
                continue;
            }
            Token::Sign(')') => depth -= 1,
            _ => {}
        }
        out.push_str(text);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    /// Everything in a text looks like something else.
    const ORDERS: &str = "CREATE TABLE `orders` (\n  `Id` bigint unsigned NOT NULL AUTO_INCREMENT,\n  `note` varchar(90) DEFAULT \
        'KEY `Id` (x), it''s \\' COLLATE a' COMMENT '`Id`, ),(',\n  `twice` int GENERATED ALWAYS AS ((`Id` * 2)) VIRTUAL,\n  \
        `we``ird` enum('a,b','c)') COLLATE utf8mb4_0900_ai_ci DEFAULT NULL,\n  PRIMARY KEY (`Id`),\n  UNIQUE KEY `Id` (`note`(10)),\n  \
        KEY `by_note` (`note`,`Id` DESC) COMMENT 'x, KEY',\n  FULLTEXT KEY `words` (`note`),\n  KEY `low` ((lower(`note`))),\n  \
        CONSTRAINT `Id_fk` FOREIGN KEY (`Id`) REFERENCES `other`.`Id` (`Id`) ON DELETE CASCADE,\n  CONSTRAINT `c` CHECK \
        ((`Id` > 0) and (`note` <> _utf8mb4'`Id`'))\n) ENGINE=InnoDB AUTO_INCREMENT=9 DEFAULT CHARSET=utf8mb4 \
        COLLATE=utf8mb4_0900_ai_ci COMMENT='`Id` BY (`Id`)'\n/*!50100 PARTITION BY RANGE (`Id`)\n(PARTITION `Id` VALUES LESS \
        THAN (10) ENGINE = InnoDB) */";

    #[test]
    fn a_definition_is_taken_apart_and_put_together_again() {
        let parsed = ShowCreate::parse(ORDERS).unwrap();
        let kinds: Vec<(Kind, &str)> =
            parsed.lines.iter().map(|line| (line.kind.clone(), line.name.as_str())).collect();
        assert_eq!(
            kinds,
            [
                (Kind::Column, "Id"),
                (Kind::Column, "note"),
                (Kind::Column, "twice"),
                (Kind::Column, "we`ird"),
                (Kind::PrimaryKey, ""),
                (Kind::UniqueKey, "Id"),
                (Kind::Key, "by_note"),
                (Kind::FullText, "words"),
                (Kind::Key, "low"),
                (Kind::ForeignKey, "Id_fk"),
                (Kind::Check, "c"),
            ]
        );
        assert_eq!(parsed.auto_increment(), Some("Id"));
        assert!(parsed.lines[2].is_generated() && !parsed.lines[1].is_generated());
        assert!(parsed.lines[8].is_over_an_expression() && !parsed.lines[5].is_over_an_expression());
        assert_eq!(parsed.lines[9].refers_to("shop"), Some(TableName::new("other", "Id")));
        let same = Names {
            database: "shop",
            column: &|name| Some(name.to_owned()),
            table: &|table| Some(table.clone()),
            column_of: &|_, name| Some(name.to_owned()),
        };
        let lines: Vec<String> = parsed.lines.iter().map(|line| line.renamed(&same).unwrap()).collect();
        let again = parsed.create(&TableName::new("shop", "orders"), &lines, &same);
        assert_eq!(again, ORDERS.replacen("`orders`", "`shop`.`orders`", 1) + ";");
    }

    #[test]
    fn a_name_is_changed_where_it_is_a_name_and_nowhere_else() {
        let parsed = ShowCreate::parse(ORDERS).unwrap();
        let names = Names {
            database: "shop",
            column: &|name| match name {
                "Id" => Some("number".into()),
                "we`ird" => None,
                name => Some(name.to_owned()),
            },
            table: &|table| (table.schema == "other").then(|| TableName::new("far", "parents")),
            column_of: &|_, name| Some(format!("p_{name}")),
        };
        let lines: Vec<Result<String, String>> = parsed.lines.iter().map(|line| line.renamed(&names)).collect();
        let line = |at: usize| lines[at].as_deref().unwrap();
        assert_eq!(line(0), "`number` bigint unsigned NOT NULL AUTO_INCREMENT");
        assert_eq!(Ok(line(1)), parsed.lines[1].renamed(&names).as_deref(), "a text is left alone");
        assert!(line(1).contains("KEY `Id` (x)") && line(1).contains("COMMENT '`Id`, ),('"));
        assert_eq!(line(2), "`twice` int GENERATED ALWAYS AS ((`number` * 2)) VIRTUAL");
        assert_eq!(lines[3], Err("we`ird".to_owned()));
        assert_eq!(line(5), "UNIQUE KEY `Id` (`note`(10))", "the key keeps its name");
        assert_eq!(line(6), "KEY `by_note` (`note`,`number` DESC) COMMENT 'x, KEY'");
        assert_eq!(
            line(9),
            "CONSTRAINT `Id_fk` FOREIGN KEY (`number`) REFERENCES `far`.`parents` (`p_Id`) ON DELETE CASCADE"
        );
        assert_eq!(line(10), "CONSTRAINT `c` CHECK ((`number` > 0) and (`note` <> _utf8mb4'`Id`'))");
        let made = parsed.create(&TableName::new("far", "o"), &[], &names);
        assert!(made.contains("PARTITION BY RANGE (`number`)\n(PARTITION `Id` VALUES LESS"), "{made}");
        assert!(made.contains("COMMENT='`Id` BY (`Id`)'"), "{made}");
    }

    #[test]
    fn a_call_that_is_a_default_stands_in_parentheses() {
        let maria = "CREATE TABLE `t` (\n  `a` char(36) DEFAULT uuid(),\n  `b` int DEFAULT (1 + 2),\n  `c` timestamp(6) DEFAULT \
            current_timestamp(6) ON UPDATE current_timestamp(6),\n  `d` text DEFAULT concat('DEFAULT (',lower('x)')),\n  `e` int \
            DEFAULT NULL,\n  `f` int GENERATED ALWAYS AS (`e`) VIRTUAL\n) DEFAULT CHARSET=utf8mb4";
        let mysql = maria
            .replace("uuid()", "(uuid())")
            .replace("concat('DEFAULT (',lower('x)'))", "(concat('DEFAULT (',lower('x)')))");
        assert_eq!(with_defaults_in_parentheses(maria), mysql);
        assert_eq!(with_defaults_in_parentheses(&mysql), mysql, "MySQL's own stays as it is");
    }

    #[test]
    fn collations_are_changed_where_they_are_collations() {
        let other = |name: &str| (name == "utf8mb4_0900_ai_ci").then(|| "utf8mb4_uca1400_ai_ci".to_owned());
        let made = with_collations(ORDERS, &other);
        assert_eq!(made.matches("uca1400").count(), 2, "{made}");
        assert!(made.contains("COLLATE a' COMMENT") && !made.contains("0900"));
    }
}
