//! Statements sent without waiting for the answers of those before them.
//!
//! tokio-postgres sends a statement when its future is first polled, and the server answers in the order of sending. So
//! a statement is polled once when it is pushed, and awaited later; one round trip then serves a whole batch.

use std::collections::VecDeque;
use std::future::{Future, poll_fn, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tokio_postgres::Statement;

use super::encode::Raw;
use crate::postgres::Client;

/// Answers that may be outstanding: bounds the memory of the answers, and is far beyond what a round trip needs.
const WINDOW: usize = 256;

type Answer = Pin<Box<dyn Future<Output = Result<u64, tokio_postgres::Error>> + Send>>;

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
    waiting: VecDeque<(Option<Expected>, Answer)>,
}

struct Expected {
    what: String,
    rows: u64,
}

impl Pipeline {
    pub(super) fn new(client: &Arc<Client>) -> Self {
        Pipeline { client: Arc::clone(client), waiting: VecDeque::new() }
    }

    /// Sends a statement that must affect `rows` rows.
    pub(super) async fn statement(
        &mut self,
        what: impl Into<String>,
        statement: Statement,
        params: Vec<Raw>,
        rows: u64,
    ) -> Result<(), Failure> {
        let client = Arc::clone(&self.client);
        let answer = async move { client.execute_raw(&statement, params).await };
        self.push(Some(Expected { what: what.into(), rows }), Box::pin(answer)).await
    }

    /// Sends text without parameters.
    pub(super) async fn text(&mut self, sql: String) -> Result<(), Failure> {
        let client = Arc::clone(&self.client);
        self.push(None, Box::pin(async move { client.batch_execute(&sql).await.map(|()| 0) })).await
    }

    async fn push(&mut self, expected: Option<Expected>, mut answer: Answer) -> Result<(), Failure> {
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
        let affected = answer.await?;
        match expected {
            Some(Expected { what, rows }) if rows != affected => Err(Failure::Count { what, expected: rows, affected }),
            _ => Ok(()),
        }
    }
}
