//! The application's session at MySQL and MariaDB.

use mysql_async::prelude::Queryable;

use super::{Answer, Broken, Rows, Write};
use crate::config::Url;
use crate::error::{Error, Result};
use crate::mysql::{self, MyConnInfo, MyText};

pub(super) struct MySession {
    session: mysql::Session,
    /// A lock that the server takes from the session when it ends. Ids of sessions begin anew with the server.
    name: String,
    closed: bool,
}

/// Errors at COMMIT that say that nothing was committed: a dead-lock, a lock that was not free, a server that only reads.
/// Everything else may have come after the commit, or while the server went down.
const NOT_COMMITTED: [u16; 5] = [1213, 1205, 1290, 1836, 1792];

impl From<mysql_async::Error> for Broken {
    fn from(error: mysql_async::Error) -> Broken {
        Broken { answered: matches!(error, mysql_async::Error::Server(_)), error: error.into() }
    }
}

/// The statement of a write. `$1`, `$2` … stand for its values.
fn sql(write: Write) -> &'static str {
    match write {
        Write::Journal => "INSERT INTO journal (writer, sequence) VALUES ($1, $2)",
        Write::Transfer => {
            "UPDATE accounts SET balance = $2, version = $3, updated_at = CURRENT_TIMESTAMP(6) WHERE id = $1"
        }
        Write::NewOrder => {
            "INSERT INTO orders (account_id, total, tags, attributes) VALUES ($1, $2 / 100.0,
                JSON_ARRAY('live', NULL, 'ü\"\\\\'), JSON_OBJECT('writer', $3))"
        }
        Write::NewItems => {
            "INSERT INTO order_items (order_id, line, sku, quantity, price)
             SELECT $1, line, CONCAT('SKU-', line), line, line * 1.25
               FROM (SELECT 1 AS line UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5) AS five
              WHERE line <= $2"
        }
        Write::ChangeOrder => {
            "UPDATE orders SET status = ELT(1 + $2 % 4, 'new', 'paid', 'shipped', 'returned'), version = $2
              WHERE id = $1"
        }
        Write::DeleteOrder => "DELETE FROM order_items WHERE order_id = $1; DELETE FROM orders WHERE id = $1",
        Write::NewDocument => {
            "INSERT INTO documents (id, reference, title, body) VALUES ($1, UUID(), 'live', $text)"
        }
        Write::ChangeDocument => "UPDATE documents SET title = CONCAT('version ', $2), version = $2 WHERE id = $1",
        Write::MoveDocument => "UPDATE documents SET id = $3, version = $2 WHERE id = $1",
        // One at a time: no server tells the ids of several.
        Write::NewEvents => {
            "INSERT INTO events (happened_on, kind, payload, weight)
             VALUES (DATE_ADD('2026-01-01', INTERVAL FLOOR(RAND() * 400) DAY), 'live', JSON_OBJECT('n', $1), RAND())"
        }
        Write::DeleteEvent => "DELETE FROM events WHERE id = $1",
    }
}

/// The statement with its values.
fn filled(write: Write, values: &[i64], text: &str) -> String {
    let mut filled = sql(write).replace("$text", &MyText(text).to_string());
    for (index, value) in values.iter().enumerate() {
        filled = filled.replace(&format!("${}", index + 1), &value.to_string());
    }
    filled
}

impl MySession {
    pub(super) async fn connect(url: &str) -> Result<MySession> {
        let info = MyConnInfo::parse(&Url::new(url))?;
        let mut session = mysql::connect(&info, "cutwater-demo-writer").await?;
        let name = format!("cutwater-demo-writer {:016x}", rand::random::<u64>());
        session.execute(format!("DO GET_LOCK({}, 0)", MyText(&name))).await?;
        let deep = match session.server().is_mariadb() {
            true => "SET SESSION max_recursive_iterations = 4294967295",
            false => "SET SESSION cte_max_recursion_depth = 4294967295",
        };
        session.execute(deep).await?;
        Ok(MySession { session, name, closed: false })
    }

    pub(super) fn name(&self) -> String {
        self.name.clone()
    }

    pub(super) async fn is_there(&mut self, name: &str) -> Result<bool> {
        let sql = format!("SELECT IS_USED_LOCK({})", MyText(name));
        let answer = self.session.conn().query_first::<Option<u64>, _>(sql).await;
        Ok(self.noted(answer).map_err(Error::from)?.flatten().is_some())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) async fn execute(&mut self, sql: &str) -> Answer<()> {
        let done = self.session.conn().query_drop(sql).await;
        self.noted(done)
    }

    pub(super) async fn commit(&mut self) -> Answer<()> {
        let done = self.session.conn().query_drop("COMMIT").await;
        let refused = match &done {
            Err(mysql_async::Error::Server(error)) => NOT_COMMITTED.contains(&error.code),
            _ => false,
        };
        self.noted(done).map_err(|broken| Broken { answered: refused, ..broken })
    }

    pub(super) async fn rows(&mut self, sql: &str) -> Answer<Rows> {
        self.session.rows(sql).await.map_err(|error| Broken { error, answered: false })
    }

    pub(super) async fn write(&mut self, write: Write, values: &[i64], text: &str) -> Answer<Vec<i64>> {
        match write {
            Write::NewEvents => {
                let mut ids = Vec::new();
                for number in 1..=values.first().copied().unwrap_or(0) {
                    self.execute(&filled(write, &[number], text)).await?;
                    ids.extend(self.made());
                }
                Ok(ids)
            }
            _ => {
                self.execute(&filled(write, values, text)).await?;
                Ok(if write == Write::NewOrder { self.made().into_iter().collect() } else { Vec::new() })
            }
        }
    }

    /// The id that the last statement made.
    fn made(&mut self) -> Option<i64> {
        self.session.conn().last_insert_id().and_then(|id| i64::try_from(id).ok())
    }

    /// Takes note of a session that is of no more use: whatever is not an answer of the server has ended it.
    fn noted<T>(&mut self, done: mysql_async::Result<T>) -> Answer<T> {
        done.map_err(|error| {
            let broken = Broken::from(error);
            self.closed |= !broken.answered;
            broken
        })
    }
}
