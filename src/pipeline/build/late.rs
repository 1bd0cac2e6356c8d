//! Which entries of the dump wait for the cutover, because they would act on what is applied.
//!
//! In: the entries that are made last, and what the role may do at the target. Out: those that are made now, and those
//! that are written down for the cutover ([`crate::target::postgres::late`]).

use crate::error::{Context, Error, Kind, Result};
use crate::pipeline::dump::{DumpEntry, Token, tokens};
use crate::postgres::Client;
use crate::schema::{Statement, TableName};
use crate::target::postgres::late::{Late, LateKind, role_may_switch_off};

/// Parts the entries.
pub(super) async fn part<'a>(client: &Client, entries: &'a [DumpEntry]) -> Result<(Vec<&'a DumpEntry>, Vec<Late>)> {
    let acting = !role_may_switch_off(client).await?;
    let mut now = Vec::new();
    let mut late: Vec<Late> = Vec::new();
    for entry in entries {
        let waits = match kind_of(entry) {
            Some(LateKind::RowSecurity) => binds_us(client, entry).await?,
            // What a comment is on may wait; it comes after it.
            Some(LateKind::Comment) => late.iter().any(|late| late.kind != LateKind::RowSecurity),
            Some(_) => acting,
            None => false,
        };
        match kind_of(entry).filter(|_| waits) {
            Some(kind) => late.push(of(entry, kind)?),
            None => now.push(entry),
        }
    }
    Ok((now, late))
}

fn kind_of(entry: &DumpEntry) -> Option<LateKind> {
    match entry.kind.as_str() {
        "FK CONSTRAINT" => Some(LateKind::ForeignKey),
        "TRIGGER" => Some(LateKind::Trigger),
        "RULE" => Some(LateKind::Rule),
        "ROW SECURITY" => Some(LateKind::RowSecurity),
        "COMMENT" if ["CONSTRAINT", "TRIGGER", "RULE"].iter().any(|on| entry.says(&["COMMENT", "ON", on])) => {
            Some(LateKind::Comment)
        }
        _ => None,
    }
}

/// Whether the table's policies, once switched on, would bind the role that writes to it.
async fn binds_us(client: &Client, entry: &DumpEntry) -> Result<bool> {
    let Some(TableName { schema, table }) = entry.names().into_iter().next() else { return Ok(false) };
    let row = client
        .query_opt(include_str!("row_security_binds.sql"), &[&schema, &table])
        .await
        .with_context(|| entry.label())?;
    Ok(row.is_some_and(|row| row.get(0)))
}

fn of(entry: &DumpEntry, kind: LateKind) -> Result<Late> {
    let mut names = entry.names().into_iter();
    let unreadable = || Error::new(Kind::Internal, format!("{} is not written as it should be", entry.label()));
    let table = names.next().ok_or_else(unreadable)?;
    let mut late = Late { kind, table, refers: None, name: String::new(), sql: entry.sql.clone(), validated: true };
    match kind {
        LateKind::ForeignKey => {
            let at = constraint_at(&entry.sql).ok_or_else(unreadable)?;
            late.refers = Some(names.next().ok_or_else(unreadable)?);
            let body = entry.sql[at..].trim_end().trim_end_matches(';').trim_end();
            late.validated = !body.ends_with("NOT VALID");
            late.sql = body.trim_end_matches("NOT VALID").trim_end().to_owned();
            late.name = first_name(body).ok_or_else(unreadable)?;
        }
        // `CREATE TRIGGER "name" …`: the table's name comes later.
        LateKind::Trigger | LateKind::Rule => late.name = first_name(&entry.sql).ok_or_else(unreadable)?,
        LateKind::Comment => late.name.clone_from(&entry.name),
        LateKind::RowSecurity => {}
    }
    Ok(late)
}

/// The same for a foreign key that is made of the definitions of another engine's table.
pub(super) fn foreign_key(statement: &Statement) -> Result<Late> {
    let unreadable = || Error::new(Kind::Internal, format!("{} is not written as it should be", statement.label()));
    let at = constraint_at(&statement.sql).ok_or_else(unreadable)?;
    let (_, refers) = statement.refers.clone().ok_or_else(unreadable)?;
    Ok(Late {
        kind: LateKind::ForeignKey,
        table: statement.on.clone().ok_or_else(unreadable)?,
        refers: Some(refers),
        name: statement.name.clone(),
        sql: statement.sql[at..].trim_end().trim_end_matches(';').to_owned(),
        validated: true,
    })
}

/// Where `ADD CONSTRAINT` begins.
fn constraint_at(sql: &str) -> Option<usize> {
    let found: Vec<_> = tokens(sql).collect();
    let pair =
        found.windows(2).find(|pair| (pair[0].1, pair[1].1) == (Token::Word("ADD"), Token::Word("CONSTRAINT")))?;
    Some(pair[0].0)
}

fn first_name(sql: &str) -> Option<String> {
    tokens(sql).find_map(|(_, token)| match token {
        Token::Ident(name) => Some(name.replace("\"\"", "\"")),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, sql: &str) -> DumpEntry {
        DumpEntry { name: "x".into(), kind: kind.into(), schema: None, owner: None, sql: sql.into() }
    }

    #[test]
    fn a_foreign_key_is_read_as_what_adds_it() {
        let sql = "ALTER TABLE ONLY \"a\".\"t; ADD CONSTRAINT\"\n    ADD CONSTRAINT \"k\"\"1\" FOREIGN KEY (\"x\") REFERENCES \
                   \"b\".\"p\"(\"id\") ON DELETE CASCADE NOT VALID;";
        let late = of(&entry("FK CONSTRAINT", sql), LateKind::ForeignKey).expect("well formed");
        assert_eq!((late.name.as_str(), late.validated), ("k\"1", false));
        assert_eq!(late.refers, Some(TableName::new("b", "p")));
        assert_eq!(
            late.sql,
            "ADD CONSTRAINT \"k\"\"1\" FOREIGN KEY (\"x\") REFERENCES \"b\".\"p\"(\"id\") ON DELETE CASCADE"
        );
    }

    #[test]
    fn a_trigger_is_called_by_its_own_name() {
        let sql = "CREATE TRIGGER \"audit\" AFTER INSERT ON \"a\".\"t\" FOR EACH ROW EXECUTE FUNCTION \"a\".\"f\"();";
        let late = of(&entry("TRIGGER", sql), LateKind::Trigger).expect("well formed");
        assert_eq!((late.name.as_str(), late.table), ("audit", TableName::new("a", "t")));
    }
}
