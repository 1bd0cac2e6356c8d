//! How the state is reached: one lazily made, lazily remade session for single statements, so that a broken connection
//! heals by itself, and a session of its own for each transaction.
//!
//! In: the statements of the other files of this folder. Out: rows, or an error that says what was being done.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::db::{Database, Failed, How, Params, Row, Session, Sql, Why};
use super::format;
use crate::error::{Context, Error, Result};

/// Access to what is remembered of a migration. Clones share one connection.
#[derive(Clone)]
pub struct State {
    database: Database,
    migration: String,
    shared: Arc<Mutex<Option<Session>>>,
}

impl State {
    /// The state of `migration` in this database, which is the target. Connects when first used.
    pub fn new(database: impl Into<Database>, migration: impl Into<String>) -> Self {
        State { database: database.into(), migration: migration.into(), shared: Arc::default() }
    }

    /// The migration's name.
    pub fn name(&self) -> &str {
        &self.migration
    }

    /// The shared session, for as long as this is held. Who uses it takes it out and puts it back when it is done: what is
    /// broken off in the middle, or has failed, is not used again.
    pub(super) async fn shared(&self) -> Result<(Session, Home)> {
        let mut home = Arc::clone(&self.shared).lock_owned().await;
        if let Some(mut session) = home.take()
            && session.is_alive().await
        {
            return Ok((session, home));
        }
        let mut session = self.open().await?;
        format::check(&mut session, &self.migration).await?;
        Ok((session, home))
    }

    async fn open(&self) -> Result<Session> {
        Session::open(&self.database, &format!("cutwater_{}", self.migration)).await
    }

    /// Runs a statement; how many rows it touched.
    pub(in crate::target) async fn execute<'a>(
        &self,
        doing: &str,
        sql: impl Into<Sql<'a>>,
        params: Params<'_>,
    ) -> Result<u64> {
        let (mut session, mut home) = self.shared().await?;
        let done = session.execute(sql.into(), params).await;
        *home = Some(session);
        done.context(doing)
    }

    /// Rows of a reading statement; none if the layout or a table of it does not exist yet.
    pub(in crate::target) async fn query<'a>(
        &self,
        doing: &str,
        sql: impl Into<Sql<'a>>,
        params: Params<'_>,
    ) -> Result<Vec<Row>> {
        let (mut session, mut home) = self.shared().await?;
        let found = session.query(sql.into(), params).await;
        *home = Some(session);
        match found {
            Err(failed) if failed.why == Why::NoTable => Ok(Vec::new()),
            found => found.context(doing),
        }
    }

    /// Begins a transaction in a session of its own.
    pub(super) async fn begin_with(&self, doing: &str, how: How) -> Result<Transaction> {
        let mut session = self.open().await?;
        session.begin(how).await.context(doing)?;
        Ok(Transaction { session, home: None })
    }

    /// The same, of the ordinary kind.
    pub(super) async fn transaction(&self, doing: &str) -> Result<Transaction> {
        self.begin_with(doing, How::default()).await
    }

    /// Begins a transaction in the shared session, which nobody else uses meanwhile.
    pub(super) async fn short_transaction(&self, doing: &str) -> Result<Transaction> {
        let (mut session, home) = self.shared().await?;
        session.begin(How::default()).await.context(doing)?;
        Ok(Transaction { session, home: Some(home) })
    }
}

/// Where a session goes back to.
type Home = OwnedMutexGuard<Option<Session>>;

/// A transaction. Dropped before its commit, it leaves nothing, and what it has locked is free.
pub struct Transaction {
    session: Session,
    home: Option<Home>,
}

impl Transaction {
    /// Runs a statement; how many rows it touched.
    pub(super) async fn execute<'a>(
        &mut self,
        doing: &str,
        sql: impl Into<Sql<'a>>,
        params: Params<'_>,
    ) -> Result<u64> {
        self.try_execute(sql, params).await.context(doing)
    }

    /// Rows that it finds.
    pub(super) async fn query<'a>(
        &mut self,
        doing: &str,
        sql: impl Into<Sql<'a>>,
        params: Params<'_>,
    ) -> Result<Vec<Row>> {
        self.try_query(sql, params).await.context(doing)
    }

    /// The same, for those who know what to do about some failures.
    pub(super) async fn try_execute<'a>(&mut self, sql: impl Into<Sql<'a>>, params: Params<'_>) -> Result<u64, Failed> {
        self.session.execute(sql.into(), params).await
    }

    /// The same.
    pub(super) async fn try_query<'a>(
        &mut self,
        sql: impl Into<Sql<'a>>,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Failed> {
        self.session.query(sql.into(), params).await
    }

    /// Ends it.
    pub(super) async fn commit(mut self, doing: &str) -> Result<()> {
        self.session.commit().await.context(doing)?;
        self.go_home();
        Ok(())
    }

    /// Takes it back.
    pub(super) async fn rollback(mut self) -> Result<(), Error> {
        self.session.rollback().await?;
        self.go_home();
        Ok(())
    }

    fn go_home(self) {
        if let Some(mut home) = self.home {
            *home = Some(self.session);
        }
    }
}
