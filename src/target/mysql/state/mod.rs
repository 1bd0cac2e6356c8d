//! The state's database in a MySQL or MariaDB target: database `cutwater`, laid out by `install.sql`.
//!
//! In: statements of [`crate::target::state`], most of them in the words of Postgres ([`dialect`]). Out: their rows. See
//! [`crate::target::state::db`] for what this is behind.
//!
//! What differs from Postgres, and how it is the same from outside:
//!
//! - **Names are told apart byte for byte**: `Users`, `users` and, where the server has such a collation, `users ` are
//!   three tables ([`collation`]).
//! - **There are no lists of values** in MySQL 5.7 and MariaDB 10.5: a statement with a list is run once for each of its
//!   rows, in one transaction.
//! - **Foreign keys lock the parent's row** to share it, where Postgres only keeps its key: beside a take-over, which
//!   changes that row, a statement may be the victim of a dead-lock ([`Why::Locked`], and of kind `Transient`). Appliers do
//!   not check foreign keys, so none of their batches is.
//! - **DDL commits by itself**: a layout that was laid in part is finished by the next `install`.

mod dialect;
mod values;

use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params as Values, Row as Found};

use crate::error::{Error, Kind, Result};
use crate::mysql::{self, MyConnInfo, Server};
use crate::target::state::db::{Failed, How, Params, Row, Why};

/// A session that was idle for this long is asked whether it is there, before a statement is lost with it.
const IDLE: Duration = Duration::from_secs(1);

/// A session with it.
pub(crate) struct Session {
    session: mysql::Session,
    used: Instant,
    broken: bool,
    in_transaction: bool,
}

impl Session {
    pub async fn open(info: &MyConnInfo, name: &str) -> Result<Session> {
        let session = mysql::connect(info, name).await?;
        Ok(Session { session, used: Instant::now(), broken: false, in_transaction: false })
    }

    pub async fn is_alive(&mut self) -> bool {
        if self.used.elapsed() > IDLE && self.session.conn().ping().await.is_err() {
            self.broken = true;
        }
        !self.broken
    }

    pub async fn execute(&mut self, sql: &str, params: Params<'_>) -> Result<u64, Failed> {
        let done = self.run(sql, params).await;
        self.noted(done)
    }

    pub async fn query(&mut self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Failed> {
        let found = self.find(sql, params).await;
        self.noted(found)
    }

    pub async fn begin(&mut self, how: How) -> Result<(), Failed> {
        if let Some(patience) = how.patience {
            let seconds = patience.as_secs().max(1);
            self.statement(&format!("SET SESSION innodb_lock_wait_timeout = {seconds}")).await?;
        }
        self.statement("START TRANSACTION").await?;
        self.in_transaction = true;
        Ok(())
    }

    pub async fn commit(&mut self) -> Result<(), Failed> {
        self.statement("COMMIT").await?;
        self.in_transaction = false;
        Ok(())
    }

    pub async fn rollback(&mut self) -> Result<(), Failed> {
        self.statement("ROLLBACK").await?;
        self.in_transaction = false;
        Ok(())
    }

    pub async fn install(&mut self) -> Result<(), Failed> {
        let collate = format!("COLLATE {}", collation(self.session.server()));
        for statement in include_str!("install.sql").trim_end().split_terminator(";\n") {
            self.statement(&statement.replace("COLLATE NAMES", &collate)).await?;
        }
        Ok(())
    }

    pub async fn drop_layout(&mut self) -> Result<(), Failed> {
        self.statement("DROP DATABASE cutwater").await
    }

    async fn statement(&mut self, sql: &str) -> Result<(), Failed> {
        let done = self.session.conn().query_drop(sql).await.map_err(Failed::from);
        self.noted(done)
    }

    async fn run(&mut self, sql: &str, params: Params<'_>) -> Result<u64, Failed> {
        let (sql, places) = dialect::translate(sql);
        let Some(rows) = values::rows(params) else {
            return affected(self.session.conn(), &sql, values::of(params, &places, 0)).await;
        };
        let alone = !self.in_transaction && rows > 1;
        if alone {
            self.begin(How::default()).await?;
        }
        let mut touched = 0;
        for row in 0..rows {
            touched += affected(self.session.conn(), &sql, values::of(params, &places, row)).await?;
        }
        if alone {
            self.commit().await?;
        }
        Ok(touched)
    }

    async fn find(&mut self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Failed> {
        let (sql, places) = dialect::translate(sql);
        let found: Vec<Found> = self.session.conn().exec(sql, values::of(params, &places, 0)).await?;
        Ok(found.into_iter().map(values::read).collect::<Result<_>>()?)
    }

    /// Takes note of when the session was used, and whether it can be again: a transaction of ours that has failed in the
    /// middle is still open in it.
    fn noted<T>(&mut self, done: Result<T, Failed>) -> Result<T, Failed> {
        self.used = Instant::now();
        if let Err(failed) = &done {
            self.broken |= self.in_transaction || failed.error.kind() == Kind::Connection;
        }
        done
    }
}

async fn affected(conn: &mut Conn, sql: &str, values: Values) -> Result<u64, Failed> {
    conn.exec_drop(sql, values).await?;
    Ok(conn.affected_rows())
}

/// The collation in which every two different texts are different. `utf8mb4_bin`, which all servers have, takes no notice of
/// spaces at the end; it stands in for servers that have no other.
/// <https://dev.mysql.com/doc/refman/8.4/en/charset-collation-information-schema.html>,
/// <https://mariadb.com/kb/en/supported-character-sets-and-collations/#no-pad-collations>
fn collation(server: &Server) -> &'static str {
    match server.version {
        _ if server.is_mariadb() => "utf8mb4_nopad_bin",
        version if version >= (8, 0, 17) => "utf8mb4_0900_bin",
        _ => "utf8mb4_bin",
    }
}

impl From<mysql_async::Error> for Failed {
    fn from(error: mysql_async::Error) -> Self {
        let why = match &error {
            // ER_BAD_DB_ERROR, ER_NO_SUCH_TABLE; ER_BAD_FIELD_ERROR; ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK.
            mysql_async::Error::Server(error) => match error.code {
                1049 | 1146 => Why::NoTable,
                1054 => Why::NoColumn,
                1205 | 1213 => Why::Locked,
                _ => Why::Other,
            },
            _ => Why::Other,
        };
        Failed { why, error: Error::from(error) }
    }
}
