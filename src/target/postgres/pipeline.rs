//! Statements sent without waiting for the answers of those before them.
//!
//! tokio-postgres sends a statement when its future is first polled, and the server answers in the order of sending. So
//! a statement is polled once when it is pushed, and awaited later; one round trip then serves a whole batch.

use std::collections::VecDeque;
use std::future::{Future, poll_fn, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use futures::TryStreamExt as _;
use tokio_postgres::{Row, Statement};

use super::encode::Raw;
use crate::postgres::Client;

/// Answers that may be outstanding: bounds the memory of the answers, and is far beyond what a round trip needs.
const WINDOW: usize = 256;

type Answer = Pin<Box<dyn Future<Output = Result<Answered, tokio_postgres::Error>> + Send>>;

/// What a statement came to.
struct Answered {
    affected: u64,
    /// Of a statement that returns one: the first column of its first row.
    value: Option<i64>,
}

/// Why a pipeline did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server refused a statement.
    Sql(tokio_postgres::Error),
    /// A statement affected another number of rows than it should have.
    Count {
        /// Which statement, for the log.
        what: String,
        expected: u64,
        affected: u64,
    },
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Failure::Sql(error)
    }
}

/// Statements on their way.
pub(super) struct Pipeline {
    client: Arc<Client>,
    waiting: VecDeque<(Expected, Answer)>,
    tracked: u64,
    told: Option<i64>,
}

enum Expected {
    /// Any number of rows.
    Any,
    /// Any number, and they are counted.
    Tracked,
    Rows {
        what: String,
        rows: u64,
        /// It says something.
        tells: bool,
    },
}

impl Pipeline {
    pub(super) fn new(client: &Arc<Client>) -> Self {
        Pipeline { client: Arc::clone(client), waiting: VecDeque::new(), tracked: 0, told: None }
    }

    /// Rows affected by [`Pipeline::tracking`] statements that were answered.
    pub(super) fn tracked(&self) -> u64 {
        self.tracked
    }

    /// What the [`Pipeline::asking`] statement answered, once it has.
    pub(super) fn told(&self) -> Option<i64> {
        self.told
    }

    /// Sends a statement that must affect `rows` rows.
    pub(super) async fn statement(
        &mut self,
        what: impl Into<String>,
        statement: Statement,
        params: Vec<Raw>,
        rows: u64,
    ) -> Result<(), Failure> {
        let expected = Expected::Rows { what: what.into(), rows, tells: false };
        self.send(expected, statement, params).await
    }

    /// Sends a statement that may affect any number of rows, which are counted.
    pub(super) async fn tracking(&mut self, statement: Statement, params: Vec<Raw>) -> Result<(), Failure> {
        self.send(Expected::Tracked, statement, params).await
    }

    /// Sends a statement that may affect any number of rows.
    pub(super) async fn any(&mut self, statement: Statement, params: Vec<Raw>) -> Result<(), Failure> {
        self.send(Expected::Any, statement, params).await
    }

    /// Sends a statement that must affect one row and says something about it.
    pub(super) async fn asking(
        &mut self,
        what: impl Into<String>,
        statement: Statement,
        params: Vec<Raw>,
    ) -> Result<(), Failure> {
        let client = Arc::clone(&self.client);
        let answer = async move {
            let rows: Vec<Row> = client.query_raw(&statement, params).await?.try_collect().await?;
            let value = rows.first().and_then(|row| row.get(0));
            Ok(Answered { affected: rows.len() as u64, value })
        };
        self.push(Expected::Rows { what: what.into(), rows: 1, tells: true }, Box::pin(answer)).await
    }

    async fn send(&mut self, expected: Expected, statement: Statement, params: Vec<Raw>) -> Result<(), Failure> {
        let client = Arc::clone(&self.client);
        let answer = async move {
            let affected = client.execute_raw(&statement, params).await?;
            Ok(Answered { affected, value: None })
        };
        self.push(expected, Box::pin(answer)).await
    }

    /// Sends text without parameters.
    pub(super) async fn text(&mut self, sql: String) -> Result<(), Failure> {
        let client = Arc::clone(&self.client);
        let answer = async move {
            client.batch_execute(&sql).await?;
            Ok(Answered { affected: 0, value: None })
        };
        self.push(Expected::Any, Box::pin(answer)).await
    }

    async fn push(&mut self, expected: Expected, mut answer: Answer) -> Result<(), Failure> {
        let answer = match poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx))).await {
            Poll::Ready(result) => Box::pin(ready(result)),
            Poll::Pending => answer,
        };
        self.waiting.push_back((expected, answer));
        while self.waiting.len() > WINDOW {
            self.next().await?;
        }
        Ok(())
    }

    /// Waits for all answers; the first that is wrong is the result.
    pub(super) async fn finish(&mut self) -> Result<(), Failure> {
        while !self.waiting.is_empty() {
            self.next().await?;
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<(), Failure> {
        let Some((expected, answer)) = self.waiting.pop_front() else { return Ok(()) };
        let Answered { affected, value } = answer.await?;
        match expected {
            Expected::Rows { what, rows, .. } if rows != affected => {
                return Err(Failure::Count { what, expected: rows, affected });
            }
            Expected::Rows { tells: true, .. } => self.told = value,
            Expected::Tracked => self.tracked += affected,
            Expected::Rows { .. } | Expected::Any => {}
        }
        Ok(())
    }
}
