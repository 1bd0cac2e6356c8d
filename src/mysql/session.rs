//! SQL sessions.
//!
//! In: where to connect and for what. Out: a [`Session`] whose answers do not depend on how server and account are set:
//! everything that changes what a statement means or how long it may take is set when it begins. What can go wrong: see
//! [`error`](super::code_kind). After an error of kind `Connection` the session is of no more use.

use std::collections::BTreeMap;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, InfileData, Params, Row, Value};

use super::dial::dial;
use super::{MyConnInfo, Server};
use crate::error::{Context, Error, Kind, Result};

/// What a session is for, which decides its isolation and its patience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads a snapshot, or follows the binary log: repeatable reads, and as slow as whoever takes its rows.
    Reader,
    /// Applies rows: read committed, foreign keys not checked.
    Writer,
    /// Asks about the server and its tables, keeps the state, runs DDL: read committed.
    Metadata,
}

/// A row of an answer, as text; `None` is NULL.
pub type TextRow = Vec<Option<String>>;

/// What statements mean here, whatever the server's `sql_mode` is:
/// - a value that does not fit is an error and is not cut (`STRICT_ALL_TABLES`), but any date that some server accepts is
///   accepted, zero and invalid ones too;
/// - 0 in an AUTO_INCREMENT column is 0;
/// - another storage engine than the one asked for is an error;
/// - double quotes are texts, backslashes escape, CHAR comes without padding.
const SQL_MODE: &str = "STRICT_ALL_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION";

/// A session. Its connection ends when it is dropped.
pub struct Session {
    conn: Conn,
    server: Server,
    label: String,
}

/// Connects for questions about the server, state and DDL: [`Role::Metadata`].
pub async fn connect(info: &MyConnInfo, application_name: &str) -> Result<Session> {
    connect_as(info, application_name, Role::Metadata).await
}

/// Connects, asks what the server is, and pins the session as its role wants it.
pub async fn connect_as(info: &MyConnInfo, application_name: &str, role: Role) -> Result<Session> {
    let begin = async {
        let conn = dial(info, application_name).await?;
        tokio::time::timeout(info.connect_timeout, Session::begin(conn, info.label(), role)).await.map_err(|_| {
            let seconds = info.connect_timeout.as_secs();
            Error::new(Kind::Connection, format!("{} did not answer within {seconds} s", info.host))
        })?
    };
    begin.await.with_context(|| format!("connecting to {} as {:?}", info.label(), info.user))
}

/// What is set for a role. Of these, what the server does not have is left out: a variable that is not in
/// `variables.sql` would never be set.
fn pins(role: Role, server: &Server) -> Vec<(&'static str, String)> {
    let quoted = |text: &str| format!("'{text}'");
    // Without row events InnoDB refuses writes below repeatable read (error 1665).
    let by_statement = server.logs() && server.variable("binlog_format") == Some("STATEMENT");
    let isolation = match role {
        Role::Writer | Role::Metadata if !by_statement => "READ-COMMITTED",
        _ => "REPEATABLE-READ",
    };
    // Seconds. A metadata lock is waited for at length by the copy alone: it is the only one that cannot be repeated
    // cheaply, and it stands in nobody's way.
    let patience = if role == Role::Reader { "600" } else { "60" };
    let checks = if role == Role::Writer { "0" } else { "1" };
    [
        ("time_zone", quoted("+00:00")),
        ("lc_messages", quoted("en_US")),
        ("transaction_isolation", quoted(isolation)),
        ("tx_isolation", quoted(isolation)),
        ("transaction_read_only", "0".into()),
        ("tx_read_only", "0".into()),
        ("completion_type", "0".into()),
        ("sql_auto_is_null", "0".into()),
        ("sql_safe_updates", "0".into()),
        ("sql_big_selects", "1".into()),
        ("sql_select_limit", "18446744073709551615".into()),
        // The longest that every server takes is a year. The default ends a session that waits for a slow target.
        ("wait_timeout", "31536000".into()),
        ("net_read_timeout", "3600".into()),
        ("net_write_timeout", "3600".into()),
        ("max_execution_time", "0".into()),
        ("max_statement_time", "0".into()),
        ("idle_transaction_timeout", "0".into()),
        ("idle_readonly_transaction_timeout", "0".into()),
        ("idle_write_transaction_timeout", "0".into()),
        ("lock_wait_timeout", patience.into()),
        ("innodb_lock_wait_timeout", patience.into()),
        ("foreign_key_checks", checks.into()),
        // Never off: InnoDB would then take a second row with the same unique key.
        ("unique_checks", "1".into()),
    ]
    .into_iter()
    // MySQL has both names of one setting for a while.
    .filter(|(name, _)| server.variable(name).is_some())
    .collect()
}

impl Session {
    async fn begin(mut conn: Conn, label: String, role: Role) -> Result<Session> {
        let rows: Vec<Row> = conn.query(include_str!("variables.sql")).await?;
        let mut variables = BTreeMap::new();
        for row in rows {
            if let [Some(name), Some(value)] = &text_row(row)?[..] {
                variables.insert(name.to_lowercase(), value.clone());
            }
        }
        let server = Server::new(variables)?;
        let mut settings = format!("SET NAMES utf8mb4, autocommit = 1, sql_mode = '{SQL_MODE}'");
        for (name, value) in pins(role, &server) {
            settings += &format!(", {name} = {value}");
        }
        conn.query_drop(settings).await.context("setting the session up")?;
        Ok(Session { conn, server, label })
    }

    /// What the server is and how it was set when the session began.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// `mysql old:3306/shop`, for people.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The session's id at the server, which `KILL` takes.
    pub fn id(&self) -> u32 {
        self.conn.id()
    }

    /// Runs one statement or several; the number of rows that the last one found (not only those that it changed).
    pub async fn execute(&mut self, sql: impl AsRef<str>) -> Result<u64> {
        self.conn.query_drop(sql.as_ref()).await?;
        Ok(self.conn.affected_rows())
    }

    /// As [`Session::execute`], with values for its question marks.
    pub async fn execute_with(&mut self, sql: impl AsRef<str>, values: impl Into<Params> + Send) -> Result<u64> {
        self.conn.exec_drop(sql.as_ref(), values.into()).await?;
        Ok(self.conn.affected_rows())
    }

    /// All rows of an answer.
    pub async fn rows(&mut self, sql: impl AsRef<str>) -> Result<Vec<TextRow>> {
        let rows: Vec<Row> = self.conn.query(sql.as_ref()).await?;
        rows.into_iter().map(text_row).collect()
    }

    /// As [`Session::rows`], with values for its question marks.
    pub async fn rows_with(&mut self, sql: impl AsRef<str>, values: impl Into<Params> + Send) -> Result<Vec<TextRow>> {
        let rows: Vec<Row> = self.conn.exec(sql.as_ref(), values.into()).await?;
        rows.into_iter().map(text_row).collect()
    }

    /// The first column of the first row; `None` if there is no row, or it is NULL.
    pub async fn value(&mut self, sql: impl AsRef<str>) -> Result<Option<String>> {
        Ok(self.rows(sql).await?.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
    }

    /// Runs a `LOAD DATA LOCAL INFILE` (its file's name does not matter) with `data` as the file; the number of rows.
    pub async fn load(&mut self, sql: impl AsRef<str>, data: InfileData) -> Result<u64> {
        // The driver wants a handler that is Sync, and a stream is not: the lock is taken once.
        let data = std::sync::Mutex::new(Some(data));
        self.conn.set_infile_handler(async move {
            let taken = data.lock().ok().and_then(|mut data| data.take());
            taken.ok_or_else(|| std::io::Error::other("the data was taken already").into())
        });
        self.conn.query_drop(sql.as_ref()).await?;
        Ok(self.conn.affected_rows())
    }

    /// The driver's connection, for what is not here: answers that are streamed, statements prepared once.
    pub fn conn(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// Gives the connection away, for the binary log.
    pub fn into_conn(self) -> Conn {
        self.conn
    }

    /// Ends the session and waits for it: what it held is free afterwards.
    pub async fn close(self) -> Result<()> {
        Ok(self.conn.disconnect().await?)
    }
}

impl std::fmt::Debug for Session {
    // Not the driver's own, which shows the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({}, {}, id {})", self.label, self.server, self.conn.id())
    }
}

fn text_row(row: Row) -> Result<TextRow> {
    let columns = row.columns();
    let text = |(index, value): (usize, Value)| match value {
        Value::NULL => Ok(None),
        Value::Bytes(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| {
            let name = columns.get(index).map(|column| column.name_str().into_owned()).unwrap_or_default();
            Error::new(Kind::Protocol, format!("column {name:?} of the answer is not text"))
        }),
        // Of statements with values, whose answers are typed: without the quotes that texts and dates have in SQL.
        typed => Ok(Some(typed.as_sql(true).trim_matches('\'').to_owned())),
    };
    row.unwrap().into_iter().enumerate().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::server::server;

    #[test]
    fn a_variable_is_pinned_where_the_server_has_it() {
        let old = server(&[("version", "5.6.24"), ("tx_isolation", "x"), ("wait_timeout", "1")]);
        let set = pins(Role::Reader, &old);
        let names: Vec<&str> = set.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["tx_isolation", "wait_timeout"]);
    }

    #[test]
    fn every_pin_is_a_variable_that_is_asked_for() {
        let asked = include_str!("variables.sql");
        let all: Vec<(&str, &str)> = asked.split('\'').skip(1).step_by(2).map(|name| (name, "1.1")).collect();
        let known = pins(Role::Writer, &server(&all)).len();
        // Of every pair of names one is newer; all others are set: 23 in all.
        assert_eq!(known, 23, "a pin is missing in variables.sql, and would never be set");
    }

    #[test]
    fn where_statements_are_logged_a_writer_reads_repeatably() {
        let variables = [("version", "8.0.1"), ("transaction_isolation", "x"), ("log_bin", "ON")];
        let isolation = |format| pins(Role::Writer, &server(&[&variables[..], &[("binlog_format", format)]].concat()));
        assert_eq!(isolation("ROW")[0].1, "'READ-COMMITTED'");
        assert_eq!(isolation("STATEMENT")[0].1, "'REPEATABLE-READ'");
    }
}
