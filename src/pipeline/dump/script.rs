//! Reading `pg_dump`'s plain script back into its entries.
//!
//! In: the script, made with `--quote-all-identifiers`. Out: its settings and its [`DumpEntry`]s, in order. An entry
//! begins with a comment that `pg_dump` writes (`_printTocEntry` in `pg_backup_archiver.c`):
//! ```text
//! --
//! -- Name: orders; Type: TABLE; Schema: public; Owner: -
//! --
//! ```
//! Function bodies, comments and defaults may hold text that looks just like it, so the script is lexed: a header counts
//! only outside of every kind of quote.

use crate::schema::TableName;

/// One object of the source, as the statements that make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpEntry {
    /// As `pg_dump` names it: `orders`, `orders orders_pkey`, `total(integer)`. For people; what an entry is about is in
    /// [`DumpEntry::names`].
    pub name: String,
    /// `TABLE`, `INDEX`, `FK CONSTRAINT` …
    pub kind: String,
    /// Its schema; `None` for what lives in none.
    pub schema: Option<String>,
    /// Its owner; `None` without ownership.
    pub owner: Option<String>,
    /// The statements.
    pub sql: String,
}

/// A script taken apart.
#[derive(Debug, Default)]
pub struct Script {
    /// `SET` statements that every session needs before it runs an entry.
    pub settings: Vec<String>,
    /// The entries in an order that respects what needs what.
    pub entries: Vec<DumpEntry>,
}

/// A piece of SQL text, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// `-- …` to the end of the line, or `/* … */`.
    Comment(&'a str),
    /// A string literal of any kind, with its quotes.
    Text(&'a str),
    /// A double-quoted identifier, without its quotes, `""` not undone.
    Ident(&'a str),
    /// A keyword or a bare identifier or a number.
    Word(&'a str),
    /// Any other character.
    Symbol(char),
}

/// The tokens of `sql` with their place; white space is left out.
pub fn tokens(sql: &str) -> impl Iterator<Item = (usize, Token<'_>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += sql[at..].len() - sql[at..].trim_start().len();
        let rest = &sql[at..];
        let first = rest.chars().next()?;
        let start = at;
        let (length, token) = match first {
            '-' if rest.starts_with("--") => {
                let length = rest.find('\n').unwrap_or(rest.len());
                (length, Token::Comment(&rest[..length]))
            }
            '/' if rest.starts_with("/*") => {
                let length = block_comment(rest);
                (length, Token::Comment(&rest[..length]))
            }
            '"' => {
                let length = quoted(rest, '"', false);
                (length, Token::Ident(rest[1..length].strip_suffix('"').unwrap_or(&rest[1..length])))
            }
            '\'' => {
                let length = quoted(rest, '\'', false);
                (length, Token::Text(&rest[..length]))
            }
            'E' | 'e' if rest[1..].starts_with('\'') => {
                let length = 1 + quoted(&rest[1..], '\'', true);
                (length, Token::Text(&rest[..length]))
            }
            '$' => match dollar_quoted(rest) {
                Some(length) => (length, Token::Text(&rest[..length])),
                None => (1, Token::Symbol('$')),
            },
            c if is_word(c) => {
                let length = rest.find(|c: char| !is_word(c) && c != '$').unwrap_or(rest.len());
                (length, Token::Word(&rest[..length]))
            }
            c => (c.len_utf8(), Token::Symbol(c)),
        };
        at += length;
        Some((start, token))
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || !c.is_ascii() && !c.is_whitespace()
}

fn quoted(rest: &str, quote: char, backslash: bool) -> usize {
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if backslash && c == '\\' {
            chars.next();
        } else if c == quote {
            match chars.peek() {
                Some((_, next)) if *next == quote => drop(chars.next()),
                _ => return at + 1,
            }
        }
    }
    rest.len()
}

fn dollar_quoted(rest: &str) -> Option<usize> {
    let tag_end = 1 + rest[1..].find('$')?;
    let tag = &rest[..=tag_end];
    let name = &tag[1..tag_end];
    if name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(is_word) {
        return None;
    }
    let body = &rest[tag.len()..];
    Some(body.find(tag).map_or(rest.len(), |end| tag.len() * 2 + end))
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

impl Script {
    /// Takes the script apart.
    pub fn parse(script: &str) -> Script {
        let mut headers = Vec::new();
        let mut end = script.len();
        let mut last: Option<(usize, &str)> = None;
        for (at, token) in tokens(script) {
            let Token::Comment(comment) = token else {
                last = None;
                continue;
            };
            let after_rule = last.filter(|(start, text)| *text == "--" && start + 3 == at);
            if let Some((start, _)) = after_rule {
                if let Some(header) = Header::parse(comment) {
                    headers.push((start, at + comment.len(), header));
                } else if comment == "-- PostgreSQL database dump complete" {
                    end = start;
                }
            }
            last = Some((at, comment));
        }
        let first = headers.first().map_or(end, |(start, ..)| *start);
        let mut found = Script { settings: statements(&script[..first]), entries: Vec::new() };
        // `SET default_table_access_method` stands before the header of the table it is meant for, at the end of
        // whatever entry came before; that entry may be left out, so the setting moves to where it belongs.
        let mut method = None;
        found.settings.retain(|setting| match access_method(setting) {
            Some(name) => {
                method = Some(name.to_owned());
                false
            }
            None => true,
        });
        for (index, (_, body, header)) in headers.iter().enumerate() {
            let stop = headers.get(index + 1).map_or(end, |(start, ..)| *start);
            let text = &script[*body..stop];
            let mut sql = text.strip_prefix("\n--\n").unwrap_or(text).trim();
            let mut next = None;
            while let Some((before, line)) = sql.rsplit_once('\n').or(Some(("", sql))) {
                if let Some(name) = access_method(line) {
                    next.get_or_insert(name.to_owned());
                } else if !line.starts_with("SET default_tablespace = ") {
                    break;
                }
                sql = before.trim_end();
                if sql.is_empty() {
                    break;
                }
            }
            let takes_method = matches!(header.kind, "TABLE" | "MATERIALIZED VIEW");
            let prefix = match &method {
                Some(method) if takes_method && method.trim_matches('"') != "heap" => {
                    format!("SET default_table_access_method = {method};\n")
                }
                _ => String::new(),
            };
            method = next.or(method);
            // "*not* creating schema, since initdb creates it": `public`, if its owner is not what `initdb` made it, as in
            // every database that was begun before Postgres 15.
            if tokens(sql).all(|(_, token)| matches!(token, Token::Comment(_))) {
                continue;
            }
            found.entries.push(DumpEntry {
                name: header.name.to_owned(),
                kind: header.kind.to_owned(),
                schema: (header.schema != "-").then(|| header.schema.to_owned()),
                owner: (header.owner != "-").then(|| header.owner.to_owned()),
                sql: prefix + sql,
            });
        }
        found
    }
}

/// The single-line statements before the first entry; psql's own commands (`\restrict`) are not among them.
fn statements(preamble: &str) -> Vec<String> {
    preamble
        .lines()
        .filter(|line| line.starts_with("SET ") || line.starts_with("SELECT pg_catalog.set_config"))
        .map(str::to_owned)
        .collect()
}

fn access_method(line: &str) -> Option<&str> {
    line.strip_prefix("SET default_table_access_method = ")?.strip_suffix(';')
}

struct Header<'a> {
    name: &'a str,
    kind: &'a str,
    schema: &'a str,
    owner: &'a str,
}

impl<'a> Header<'a> {
    /// Read from the right: a name may hold anything, what follows it hardly.
    fn parse(comment: &'a str) -> Option<Header<'a>> {
        let rest = comment.strip_prefix("-- Name: ")?;
        let (rest, owner) = rest.rsplit_once("; Owner: ")?;
        let (rest, schema) = rest.rsplit_once("; Schema: ")?;
        let (name, kind) = rest.rsplit_once("; Type: ")?;
        let owner = owner.split_once("; Tablespace: ").map_or(owner, |(owner, _)| owner);
        Some(Header { name, kind, schema, owner })
    }
}

impl DumpEntry {
    /// Every `"schema"."name"` in its statements outside of literals, in order, with the repetitions.
    pub fn names(&self) -> Vec<TableName> {
        let tokens: Vec<Token<'_>> = tokens(&self.sql).map(|(_, token)| token).collect();
        let mut names = Vec::new();
        let mut at = 0;
        while at + 2 < tokens.len() {
            match tokens[at..at + 3] {
                [Token::Ident(schema), Token::Symbol('.'), Token::Ident(name)] => {
                    names.push(TableName::new(schema.replace("\"\"", "\""), name.replace("\"\"", "\"")));
                    at += 3;
                }
                _ => at += 1,
            }
        }
        names
    }

    /// Whether its statements hold these keywords one after the other, outside of literals and identifiers.
    pub fn says(&self, keywords: &[&str]) -> bool {
        let words: Vec<Option<&str>> = tokens(&self.sql)
            .filter(|(_, token)| !matches!(token, Token::Comment(_)))
            .map(|(_, token)| if let Token::Word(word) = token { Some(word) } else { None })
            .collect();
        words.windows(keywords.len()).any(|window| {
            window.iter().zip(keywords).all(|(word, keyword)| word.is_some_and(|w| w.eq_ignore_ascii_case(keyword)))
        })
    }

    /// `index public.orders_customer_idx`, for people.
    pub fn label(&self) -> String {
        let kind = self.kind.to_lowercase();
        match &self.schema {
            Some(schema) => format!("{kind} {schema}.{}", self.name),
            None => format!("{kind} {}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = r#"--
-- PostgreSQL database dump
--

\restrict abc

-- Dumped from database version 15.18

SET statement_timeout = 0;
SET check_function_bodies = false;
SELECT pg_catalog.set_config('search_path', '', false);

--
-- Name: public; Type: SCHEMA; Schema: -; Owner: -
--

-- *not* creating schema, since initdb creates it


--
-- Name: f(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION "public"."f"() RETURNS "void"
    LANGUAGE "sql"
    AS $_$
--
-- Name: fake; Type: TABLE; Schema: public; Owner: -
--
SELECT $1 $_$;


SET default_table_access_method = "columnar";

--
-- Name: odd; Type: x; Type: TABLE; Schema: we"ird; Owner: -
--

CREATE TABLE "we""ird"."odd; Type: x" (
    "a" "text" DEFAULT '
--
-- Name: fake; Type: TABLE; Schema: public; Owner: -
--
'
);

ALTER TABLE ONLY "we""ird"."odd; Type: x" REPLICA IDENTITY FULL;


--
-- PostgreSQL database dump complete
--

\unrestrict abc
"#;

    #[test]
    fn text_that_looks_like_a_header_is_not_one() {
        let script = Script::parse(SCRIPT);
        let heads: Vec<_> = script.entries.iter().map(|e| (e.name.as_str(), e.kind.as_str())).collect();
        assert_eq!(heads, [("f()", "FUNCTION"), ("odd; Type: x", "TABLE")]);
        assert!(script.entries[0].sql.ends_with("SELECT $1 $_$;"), "{}", script.entries[0].sql);
        assert!(script.entries[1].sql.ends_with("REPLICA IDENTITY FULL;"), "{}", script.entries[1].sql);
        assert_eq!(script.settings.len(), 3, "{:?}", script.settings);
    }

    #[test]
    fn an_entry_of_comments_is_none() {
        assert!(Script::parse(SCRIPT).entries.iter().all(|entry| entry.kind != "SCHEMA"));
    }

    #[test]
    fn a_tables_access_method_moves_to_the_table() {
        let script = Script::parse(SCRIPT);
        assert!(script.entries[1].sql.starts_with("SET default_table_access_method = \"columnar\";\nCREATE TABLE"));
    }

    #[test]
    fn names_are_found_outside_of_literals_only() {
        let entry = &Script::parse(SCRIPT).entries[1];
        let name = TableName::new("we\"ird", "odd; Type: x");
        assert_eq!(entry.names(), [name.clone(), name]);
        assert!(entry.says(&["REPLICA", "IDENTITY", "FULL"]));
        assert!(!entry.says(&["TYPE", "TABLE"]));
    }
}
