//! What a statement in the log means to a reader of rows.
//!
//! A row-based log still has statements: transaction control, and DDL. In: the text of a Query event, its default database
//! and the tables that are migrated. Out: [`Meaning`]. What is neither control nor DDL changes rows without saying which,
//! and is never passed over (TRAPS 16); DDL is told apart by what it names. Only as much of the text is read as is needed to
//! find the names: comments are passed over, except those that the server executes.

use crate::schema::TableName;

/// What a statement comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// A transaction begins.
    Begin,
    /// It is committed.
    Commit,
    /// It is undone; rows of it that are in the log were kept by tables without transactions.
    Rollback,
    /// Part of it is undone, in the same way.
    RollbackTo,
    /// A note within it.
    Nothing,
    /// An XA transaction begins.
    XaStart,
    /// An XA transaction that was prepared before is committed or undone.
    XaEnd,
    /// Definitions of other things are changed.
    Elsewhere,
    /// Migrated tables are emptied.
    Truncate(TableName),
    /// The definition of this migrated table is changed.
    Alters(TableName),
    /// Rows are changed by it, and the log does not say which.
    Rows,
}

/// Reads a statement. `database` is the session's default, `is_migrated` knows the tables that matter.
pub fn meaning(
    sql: &str,
    database: &str,
    is_migrated: impl Fn(&TableName) -> bool,
    any_of: impl Fn(&str) -> Option<TableName>,
) -> Meaning {
    let tokens = tokens(sql);
    let mut rest = Tokens { all: &tokens, at: 0 };
    let verb = rest.word();
    match verb.as_str() {
        "BEGIN" => Meaning::Begin,
        "START" if rest.peek() == "TRANSACTION" => Meaning::Begin,
        "COMMIT" => Meaning::Commit,
        "ROLLBACK" if tokens.iter().any(|token| token.is("TO")) => Meaning::RollbackTo,
        "ROLLBACK" => Meaning::Rollback,
        "SAVEPOINT" | "RELEASE" => Meaning::Nothing,
        "XA" => match rest.word().as_str() {
            "START" | "BEGIN" => Meaning::XaStart,
            "COMMIT" | "ROLLBACK" => Meaning::XaEnd,
            _ => Meaning::Nothing,
        },
        "GRANT" | "REVOKE" | "SET" | "FLUSH" | "ANALYZE" | "OPTIMIZE" | "REPAIR" | "CHECK" | "INSTALL"
        | "UNINSTALL" | "CACHE" | "CHANGE" | "RESET" | "ROLE" => Meaning::Elsewhere,
        "TRUNCATE" => {
            rest.skip(&["TABLE"]);
            match rest.name(database).filter(|name| is_migrated(name)) {
                Some(name) => Meaning::Truncate(name),
                None => Meaning::Elsewhere,
            }
        }
        "RENAME" if matches!(rest.peek(), "TABLE" | "TABLES") => {
            rest.word();
            match rest.names(database, &["TO", "WAIT", "NOWAIT"]).into_iter().find(is_migrated_ref(&is_migrated)) {
                Some(name) => Meaning::Alters(name),
                None => Meaning::Elsewhere,
            }
        }
        "RENAME" => Meaning::Elsewhere,
        "CREATE" | "ALTER" | "DROP" => definition(&verb, &mut rest, database, &is_migrated, &any_of),
        _ => Meaning::Rows,
    }
}

fn is_migrated_ref<'a>(is_migrated: &'a impl Fn(&TableName) -> bool) -> impl FnMut(&TableName) -> bool + 'a {
    move |name| is_migrated(name)
}

/// Words between the verb and what it is about.
const BETWEEN: [&str; 8] = ["OR", "REPLACE", "ONLINE", "OFFLINE", "IGNORE", "UNIQUE", "FULLTEXT", "SPATIAL"];

fn definition(
    verb: &str,
    rest: &mut Tokens<'_>,
    database: &str,
    is_migrated: &impl Fn(&TableName) -> bool,
    any_of: &impl Fn(&str) -> Option<TableName>,
) -> Meaning {
    rest.skip(&BETWEEN);
    let alters = |names: Vec<TableName>| match names.into_iter().find(|name| is_migrated(name)) {
        Some(name) => Meaning::Alters(name),
        None => Meaning::Elsewhere,
    };
    match rest.word().as_str() {
        "TEMPORARY" => Meaning::Elsewhere,
        "TABLE" | "TABLES" => {
            let unless_there = rest.skip(&["IF", "NOT", "EXISTS"]).contains(&"NOT");
            match verb {
                // There already: nothing happens.
                "CREATE" if unless_there => Meaning::Elsewhere,
                "DROP" => alters(rest.names(database, &["WAIT", "NOWAIT", "RESTRICT", "CASCADE"])),
                _ => {
                    let mut names: Vec<TableName> = rest.name(database).into_iter().collect();
                    if verb == "ALTER" {
                        names.extend(rest.named_later(database));
                    }
                    alters(names)
                }
            }
        }
        "INDEX" => {
            while rest.at < rest.all.len() && rest.peek() != "ON" {
                rest.at += 1;
            }
            rest.at += 1;
            alters(rest.name(database).into_iter().collect())
        }
        "DATABASE" | "SCHEMA" if verb == "DROP" => {
            rest.skip(&["IF", "EXISTS"]);
            match rest.identifier().and_then(|name| any_of(&name)) {
                Some(name) => Meaning::Alters(name),
                None => Meaning::Elsewhere,
            }
        }
        _ => Meaning::Elsewhere,
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// A bare word: a keyword or a name.
    Word(String),
    /// A name in backticks or double quotes.
    Quoted(String),
    /// A text; what is in it does not matter.
    Text,
    Sign(char),
}

impl Token {
    fn is(&self, word: &str) -> bool {
        matches!(self, Token::Word(own) if own.eq_ignore_ascii_case(word))
    }
}

struct Tokens<'a> {
    all: &'a [Token],
    at: usize,
}

impl Tokens<'_> {
    /// The next word in capitals; empty if it is none.
    fn word(&mut self) -> String {
        let word = self.peek_owned();
        self.at += 1;
        word
    }

    fn peek_owned(&self) -> String {
        match self.all.get(self.at) {
            Some(Token::Word(word)) => word.to_ascii_uppercase(),
            _ => String::new(),
        }
    }

    /// Compares only; the known words are short.
    fn peek(&self) -> &'static str {
        const KNOWN: [&str; 5] = ["TRANSACTION", "TABLE", "TABLES", "ON", "TO"];
        let token = self.all.get(self.at);
        KNOWN.into_iter().find(|known| token.is_some_and(|token| token.is(known))).unwrap_or("")
    }

    /// Passes over these words; which there were.
    fn skip(&mut self, words: &[&'static str]) -> Vec<&'static str> {
        let mut found = Vec::new();
        while let Some(word) =
            words.iter().copied().find(|word| self.all.get(self.at).is_some_and(|token| token.is(word)))
        {
            found.push(word);
            self.at += 1;
        }
        found
    }

    fn identifier(&mut self) -> Option<String> {
        let name = match self.all.get(self.at)? {
            Token::Word(name) | Token::Quoted(name) => name.clone(),
            Token::Text | Token::Sign(_) => return None,
        };
        self.at += 1;
        Some(name)
    }

    /// `table` or `database.table`.
    fn name(&mut self, database: &str) -> Option<TableName> {
        let first = self.identifier()?;
        if self.all.get(self.at) != Some(&Token::Sign('.')) {
            return Some(TableName::new(database, first));
        }
        self.at += 1;
        Some(TableName::new(first, self.identifier()?))
    }

    /// Names with commas or these words between them.
    fn names(&mut self, database: &str, between: &[&'static str]) -> Vec<TableName> {
        let mut names = Vec::new();
        self.skip(&["IF", "EXISTS"]);
        while self.at < self.all.len() {
            if self.all[self.at] == Token::Sign(',') || !self.skip(between).is_empty() {
                self.at += usize::from(self.all.get(self.at) == Some(&Token::Sign(',')));
                continue;
            }
            match self.name(database) {
                Some(name) => names.push(name),
                None => self.at += 1,
            }
        }
        names
    }

    /// Names that an ALTER TABLE has behind RENAME and WITH TABLE.
    fn named_later(&mut self, database: &str) -> Vec<TableName> {
        let mut names = Vec::new();
        while self.at < self.all.len() {
            let (renames, swaps) = (self.all[self.at].is("RENAME"), self.all[self.at].is("WITH"));
            self.at += 1;
            if renames {
                self.skip(&["TO", "AS"]);
                names.extend(self.name(database));
            } else if swaps && !self.skip(&["TABLE"]).is_empty() {
                names.extend(self.name(database));
            }
        }
        names
    }
}

fn tokens(sql: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = sql;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("/*!") || rest.starts_with("/*M!") {
            // Executed: what stands in it counts. A version may come first.
            rest = rest[rest.find('!').map_or(0, |at| at + 1)..].trim_start_matches(|c: char| c.is_ascii_digit());
        } else if rest.starts_with("*/") {
            rest = &rest[2..];
        } else if rest.starts_with("/*") {
            rest = rest.split_once("*/").map_or("", |(_, after)| after);
        } else if c == '#' || rest.starts_with("-- ") || rest.starts_with("--\n") || rest.starts_with("--\t") {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
        } else if c == '`' || c == '"' || c == '\'' {
            let (text, after) = quoted(rest, c);
            tokens.push(if c == '\'' { Token::Text } else { Token::Quoted(text) });
            rest = after;
        } else if is_word(c) {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        } else {
            if !c.is_whitespace() {
                tokens.push(Token::Sign(c));
            }
            rest = &rest[c.len_utf8()..];
        }
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$' | '@') || !c.is_ascii()
}

/// What stands between quotes, and what comes after. A quote is doubled inside, or in a text escaped.
fn quoted(text: &str, quote: char) -> (String, &str) {
    let mut inside = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && quote != '`' {
            chars.next();
        } else if c != quote {
            inside.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == quote) {
            inside.push(c);
            chars.next();
        } else {
            return (inside, &text[at + c.len_utf8()..]);
        }
    }
    (inside, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sql: &str) -> Meaning {
        let ours = ["orders", "we`ird", "users"].map(|table| TableName::new("shop", table));
        meaning(
            sql,
            "shop",
            |name| ours.contains(name),
            |database| ours.iter().find(|name| name.schema == database).cloned(),
        )
    }

    fn alters(table: &str) -> Meaning {
        Meaning::Alters(TableName::new("shop", table))
    }

    #[test]
    fn transaction_control_is_known() {
        assert_eq!(of("BEGIN"), Meaning::Begin);
        assert_eq!(of("START TRANSACTION"), Meaning::Begin);
        assert_eq!(of("COMMIT"), Meaning::Commit);
        assert_eq!(of("ROLLBACK"), Meaning::Rollback);
        assert_eq!(of("ROLLBACK TO `s1`"), Meaning::RollbackTo);
        assert_eq!(of("SAVEPOINT `s1`"), Meaning::Nothing);
        assert_eq!(of("XA START X'31',X'',1"), Meaning::XaStart);
        assert_eq!(of("XA END X'31',X'',1"), Meaning::Nothing);
        assert_eq!(of("XA COMMIT X'31',X'',1"), Meaning::XaEnd);
    }

    #[test]
    fn ddl_of_a_migrated_table_is_found_however_it_is_written() {
        for sql in [
            "ALTER TABLE orders ADD c int",
            "alter /* orders? */ online table `shop` . `orders` add c int",
            "/*!50000 ALTER*/ TABLE shop.orders ENGINE = InnoDB",
            "-- a note\nDROP TABLE IF EXISTS `other`.`orders`, `orders` /* generated by server */",
            "CREATE UNIQUE INDEX i USING BTREE ON orders (a)",
            "DROP INDEX `i` ON `orders`",
            "CREATE OR REPLACE TABLE orders (a int)",
            "RENAME TABLE a TO b, b TO orders",
            "ALTER TABLE x RENAME TO orders",
            "ALTER TABLE x EXCHANGE PARTITION p WITH TABLE orders",
        ] {
            assert_eq!(of(sql), alters("orders"), "{sql}");
        }
        assert_eq!(of("ALTER TABLE `we``ird` ADD c int"), alters("we`ird"));
        assert_eq!(of("DROP DATABASE IF EXISTS shop"), alters("orders"));
        assert_eq!(of("TRUNCATE orders"), Meaning::Truncate(TableName::new("shop", "orders")));
        assert_eq!(of("TRUNCATE TABLE `shop`.`users`"), Meaning::Truncate(TableName::new("shop", "users")));
    }

    #[test]
    fn ddl_of_other_things_is_passed_over() {
        for sql in [
            "ALTER TABLE other.orders ADD c int",
            "CREATE TABLE new_orders LIKE orders",
            "CREATE TABLE IF NOT EXISTS orders (a int)",
            "CREATE TABLE log (orders int COMMENT 'orders', KEY orders (orders))",
            "DROP TEMPORARY TABLE IF EXISTS `orders`",
            "CREATE TEMPORARY TABLE orders (a int)",
            "CREATE DEFINER=`root`@`localhost` TRIGGER t AFTER INSERT ON orders FOR EACH ROW DELETE FROM x",
            "DROP DATABASE other",
            "GRANT SELECT ON shop.orders TO a",
            "ANALYZE TABLE orders",
            "TRUNCATE TABLE other.orders",
            "RENAME USER a TO b",
        ] {
            assert_eq!(of(sql), Meaning::Elsewhere, "{sql}");
        }
    }

    #[test]
    fn whatever_else_it_is_may_change_rows() {
        for sql in
            ["INSERT INTO orders VALUES (1)", "update other.x set a = 1", "CALL p()", "LOAD DATA INFILE 'x'", "", "?"]
        {
            assert_eq!(of(sql), Meaning::Rows, "{sql}");
        }
    }

    #[test]
    fn a_name_in_a_text_is_no_name() {
        assert_eq!(of("ALTER TABLE x COMMENT = 'it''s \\' RENAME TO orders'"), Meaning::Elsewhere);
    }
}
