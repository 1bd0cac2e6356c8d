//! The sessions that write, and the statements of a batch sent several at a time.
//!
//! In: statements, each with what it must answer. Out: they are sent as one packet of several statements as soon as a
//! packet's worth is there, and the answers are held against what was expected. What can go wrong: the server carries out
//! the statements in order and stops at the first error; a statement that counts other rows than it should, or that warns,
//! has been carried out, and so have those after it: whoever sent them goes back to a savepoint.
//!
//! A warning counts as a failure, because strict mode cuts a fraction's digits with no more than a note; those that say
//! nothing about a row are left out ([`harmless`]).

use std::sync::Mutex;

use mysql_async::prelude::Queryable;

use super::infile;
use super::tables::Entry;
use crate::change::Row;
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{MyConnInfo, Role, Session, code_kind, connect_as};

/// A session that hangs in mid-transaction is ended by the server after this many seconds: its successor waits for the rows
/// that it has locked.
const HANGS: u32 = 60;

/// A packet of statements is sent when it is as large as this.
const PACKET: usize = 1 << 20;

/// Room that the protocol needs in a packet beside the statement.
const OVERHEAD: usize = 1024;

/// Opens a session that writes rows: foreign keys are not checked, every value must fit, times are in UTC.
pub(super) async fn open(info: &MyConnInfo, migration: &str) -> Result<Session> {
    let mut session = connect_as(info, &format!("cutwater_{migration}"), Role::Writer).await?;
    if session.server().variable("idle_transaction_timeout").is_some() {
        session.execute(format!("SET SESSION idle_transaction_timeout = {HANGS}")).await?;
    }
    Ok(session)
}

/// Begins a transaction of a session that may hang in it. MySQL knows time-outs of sessions alone.
pub(super) fn begin(session: &Session) -> String {
    match session.server().is_mariadb() {
        true => "START TRANSACTION".to_owned(),
        false => format!("SET SESSION wait_timeout = {HANGS}; START TRANSACTION"),
    }
}

/// Ends it.
pub(super) fn commit(session: &Session) -> &'static str {
    match session.server().is_mariadb() {
        true => "COMMIT",
        false => "COMMIT; SET SESSION wait_timeout = 31536000",
    }
}

/// The largest statement that the server takes.
pub(super) fn largest_statement(session: &Session) -> usize {
    let packet = session.server().number("max_allowed_packet").unwrap_or(1 << 22);
    usize::try_from(packet).unwrap_or(usize::MAX).saturating_sub(OVERHEAD)
}

/// Why statements did not go through.
pub(super) enum Failure {
    /// The server refuses one.
    Sql(mysql_async::Error),
    /// One touched another number of rows than it should.
    Count { affected: u64 },
    /// One did something else to a value than was asked.
    Warned,
    /// The checkpoint is not ours any more.
    Fenced,
}

impl From<mysql_async::Error> for Failure {
    fn from(error: mysql_async::Error) -> Self {
        Failure::Sql(error)
    }
}

impl Failure {
    /// Whether it is about a row, so that a replay can name it. Everything else (connection, disk, time-outs, read-only,
    /// privileges) would fail for every row alike.
    pub(super) fn is_about_a_row(&self) -> bool {
        match self {
            Failure::Count { .. } | Failure::Warned => true,
            Failure::Sql(mysql_async::Error::Server(error)) => is_about_a_row(error.code),
            Failure::Sql(_) | Failure::Fenced => false,
        }
    }
}

/// Whether an error is about a row. Beside those of kind [`Kind::BadRow`]: a row that is too large for a page, an index
/// entry or key that is too long, and what a trigger, a function of a generated column or index says.
pub(super) fn is_about_a_row(code: u16) -> bool {
    code_kind(code) == Kind::BadRow
        || matches!(code, 1022 | 1169 | 1118 | 1071 | 1644 | 1713 | 3146 | 3147 | 3903..=3907)
}

/// Whether another row is in the way, which may be gone when the transaction ends.
pub(super) fn is_a_duplicate(code: u16) -> bool {
    matches!(code, 1022 | 1062 | 1169 | 1586)
}

/// Warnings that say nothing about a value: statements that are logged unsafely, words that will go, ranges that the
/// optimizer does not use.
pub(super) fn harmless(code: u32) -> bool {
    matches!(code, 1287 | 1592 | 1681 | 1707 | 3170 | 3719 | 3778 | 3135)
}

/// What a statement must answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected {
    /// It touches so many rows.
    Rows(u64),
    /// The checkpoint is moved on.
    Checkpoint,
    /// It says under which generation keys are kept.
    Told,
    /// It keeps keys, which are counted.
    Tracked,
    /// It writes rows whose number is not known.
    Any,
    /// It writes no rows.
    Control,
}

/// Statements on their way.
pub(super) struct Script {
    text: Vec<u8>,
    expected: Vec<Expected>,
    largest: usize,
    /// What [`Expected::Told`] answered.
    pub told: Option<i64>,
    /// Keys that were kept.
    pub tracked: u64,
}

impl Script {
    pub(super) fn new(largest: usize) -> Script {
        Script { text: Vec::new(), expected: Vec::new(), largest, told: None, tracked: 0 }
    }

    /// Adds a statement, or a few that expect the same of the last and nothing of the others.
    pub(super) async fn push(
        &mut self,
        session: &mut Session,
        sql: impl AsRef<[u8]>,
        expected: Expected,
    ) -> Result<(), Failure> {
        let sql = sql.as_ref();
        if !self.text.is_empty() && self.text.len() + sql.len() + 2 > self.largest.min(PACKET) {
            self.flush(session).await?;
        }
        if !self.text.is_empty() {
            self.text.extend_from_slice(b";\n");
        }
        self.text.extend_from_slice(sql);
        self.expected.push(expected);
        Ok(())
    }

    /// Sends what is there, and then rows as a file; every one must be taken as it is.
    pub(super) async fn load<'r>(
        &mut self,
        session: &mut Session,
        entry: &Entry,
        rows: impl ExactSizeIterator<Item = &'r Row>,
    ) -> Result<(), Failure> {
        self.flush(session).await?;
        let count = rows.len() as u64;
        // The driver wants a handler that is Sync, and a stream is not: the lock is taken once.
        let data = Mutex::new(Some(infile::data_of(rows)));
        session.conn().set_infile_handler(async move {
            let taken = data.lock().ok().and_then(|mut data| data.take());
            taken.ok_or_else(|| std::io::Error::other("the data was taken already").into())
        });
        session.conn().query_drop(infile::statement(entry)).await?;
        match session.conn().affected_rows() {
            affected if affected != count => Err(Failure::Count { affected }),
            _ if session.conn().get_warnings() > 0 => Err(Failure::Warned),
            _ => Ok(()),
        }
    }

    /// Sends what is there and waits for all answers.
    pub(super) async fn flush(&mut self, session: &mut Session) -> Result<(), Failure> {
        if self.text.is_empty() {
            return Ok(());
        }
        let text = std::mem::take(&mut self.text);
        let expected = std::mem::take(&mut self.expected);
        let mut failure = None;
        let mut answers = session.conn().query_iter(&text[..]).await?;
        for expected in expected {
            let (affected, warnings) = (answers.affected_rows(), answers.warnings());
            let mut first: Option<mysql_async::Row> = None;
            // Brings up the statement's own error, and steps on to the next answer.
            while let Some(row) = answers.next().await? {
                first.get_or_insert(row);
            }
            let wrong = match expected {
                Expected::Rows(rows) if affected != rows => Some(Failure::Count { affected }),
                Expected::Checkpoint if affected != 1 => Some(Failure::Fenced),
                Expected::Rows(_) | Expected::Any if warnings > 0 => Some(Failure::Warned),
                Expected::Told => {
                    self.told = first.and_then(|row| row.get::<Option<i64>, _>(0)).flatten();
                    None
                }
                Expected::Tracked => {
                    self.tracked += affected;
                    None
                }
                _ => None,
            };
            // What failed first is the reason.
            failure = failure.or(wrong);
        }
        answers.drop_result().await?;
        self.text = text;
        self.text.clear();
        failure.map_or(Ok(()), Err)
    }
}

/// What the last statement warned about a value, if it did.
pub(super) async fn warning(session: &mut Session) -> Result<Option<Error>> {
    let rows = session.rows("SHOW WARNINGS").await.context("asking what a statement warned of")?;
    let said = rows.into_iter().find_map(|row| {
        let code: u32 = row.get(1)?.as_ref()?.parse().ok()?;
        (!harmless(code)).then(|| (code, row.get(2).cloned().flatten().unwrap_or_default()))
    });
    Ok(said.map(|(code, message)| Error::new(Kind::BadRow, format!("{message} (warning {code})"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_waiting_is_not_blamed_on_a_row() {
        for code in [1205, 1213, 1021, 1053, 1317] {
            assert!(!is_about_a_row(code), "{code}");
            assert!(matches!(code_kind(code), Kind::Transient | Kind::Connection), "{code}");
        }
        for code in [1062, 1264, 1406, 1048, 3819, 4025, 1118] {
            assert!(is_about_a_row(code), "{code}");
        }
        assert!(is_a_duplicate(1062) && !is_a_duplicate(1406));
    }
}
