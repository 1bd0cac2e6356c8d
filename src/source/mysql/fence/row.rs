//! The row about a fence at the source: `cutwater.fence`.
//!
//! It is written before the locks are taken: behind them, and under `super_read_only`, nothing can be. So it says which
//! attempt it is and by which way; whether that is in force is asked of the server.

use crate::error::{Context, Error, Kind, Result};
use crate::mysql::Session;

use super::accounts::Account;
use super::way::Way;

/// What the row says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// Begun: what is in force says how far it is.
    Armed,
    /// Past the point of no return.
    Permanent,
    /// Taken back.
    Lifted,
}

/// The row.
#[derive(Debug, Clone)]
pub(super) struct FenceRow {
    pub nonce: String,
    pub epoch: i64,
    pub word: Word,
    pub way: Way,
    /// Microseconds since 1970, by the source's clock.
    pub deadline: i64,
    /// The accounts that are locked by it, or will be.
    pub accounts: Vec<Account>,
}

/// Makes the table. Database and table are DDL, which commits by itself; what is there stays.
pub(super) async fn install(session: &mut Session) -> Result<()> {
    let doing = "making cutwater.fence at the source";
    for statement in include_str!("install.sql").trim_end().split_terminator(";\n") {
        session.execute(statement).await.context(doing)?;
    }
    Ok(())
}

/// The migration's row; `None` if there never was one.
pub(super) async fn read(session: &mut Session, migration: &str) -> Result<Option<FenceRow>> {
    let sql = "SELECT nonce, epoch, state, way, deadline, accounts FROM cutwater.fence WHERE migration = ?";
    let rows = match session.rows_with(sql, (migration,)).await {
        Ok(rows) => rows,
        // No such database, no such table; or no right to it, which whoever made it would have.
        Err(error) if matches!(error.kind(), Kind::Schema | Kind::Config) => return Ok(None),
        Err(error) if error.kind() == Kind::Privilege && error.why().contains("1142") => return Ok(None),
        Err(error) => return Err(error.context("reading the fence's state")),
    };
    rows.first().map(|row| parse(row)).transpose()
}

fn parse(row: &[Option<String>]) -> Result<FenceRow> {
    let broken = || Error::new(Kind::Internal, "the row in cutwater.fence at the source is not understood");
    let [Some(nonce), Some(epoch), Some(word), Some(way), Some(deadline), Some(accounts)] = row else {
        return Err(broken());
    };
    Ok(FenceRow {
        nonce: nonce.clone(),
        epoch: epoch.parse().map_err(|_| broken())?,
        word: match word.as_str() {
            "armed" => Word::Armed,
            "permanent" => Word::Permanent,
            _ => Word::Lifted,
        },
        way: Way::parse(way).ok_or_else(broken)?,
        deadline: deadline.parse().map_err(|_| broken())?,
        accounts: serde_json::from_str(accounts).map_err(|_| broken())?,
    })
}

/// Writes the row of an attempt that begins, unless that of another one is permanent.
pub(super) async fn arm(session: &mut Session, migration: &str, row: &FenceRow) -> Result<()> {
    if read(session, migration).await?.is_some_and(|found| found.word == Word::Permanent) {
        return Err(Error::new(Kind::Refused, "the fence of an earlier cutover is permanent: the target is live")
            .fix("cutwater status"));
    }
    let accounts = serde_json::to_string(&row.accounts).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
    let sql = "REPLACE INTO cutwater.fence (migration, nonce, epoch, state, way, deadline, accounts)
               VALUES (?, ?, ?, 'armed', ?, ?, ?)";
    let values = (migration, &row.nonce, row.epoch, row.way.word(), row.deadline, accounts);
    session.execute_with(sql, values).await.context("noting the fence at the source")?;
    Ok(())
}

/// Moves the row of this attempt on.
pub(super) async fn write(session: &mut Session, migration: &str, nonce: &str, word: Word) -> Result<()> {
    let word = match word {
        Word::Armed => "armed",
        Word::Permanent => "permanent",
        Word::Lifted => "lifted",
    };
    let sql = "UPDATE cutwater.fence SET state = ? WHERE migration = ? AND nonce = ?";
    session.execute_with(sql, (word, migration, nonce)).await.context("noting the fence at the source")?;
    Ok(())
}

/// Removes the row and, if nothing else is in it, the database.
pub(super) async fn remove(session: &mut Session, migration: &str) -> Result<Vec<String>> {
    let doing = "removing cutwater.fence at the source";
    session.execute_with("DELETE FROM cutwater.fence WHERE migration = ?", (migration,)).await.context(doing)?;
    if session.value("SELECT 1 FROM cutwater.fence LIMIT 1").await.context(doing)?.is_some() {
        return Ok(vec![format!("the fence of {migration}")]);
    }
    session.execute("DROP TABLE cutwater.fence").await.context(doing)?;
    let others = "SELECT 1 FROM information_schema.tables WHERE table_schema = 'cutwater' LIMIT 1";
    if session.value(others).await.context(doing)?.is_some() {
        // The state of a migration whose target this server is.
        return Ok(vec!["table cutwater.fence".to_owned()]);
    }
    session.execute("DROP DATABASE cutwater").await.context(doing)?;
    Ok(vec!["database cutwater".to_owned()])
}
