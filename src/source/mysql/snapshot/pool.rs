//! The sessions that see one snapshot. A copy takes one, and gives it back.

use tokio::sync::{Mutex, mpsc};

use crate::error::{Error, Kind, Result};
use crate::mysql::Session;

/// What every transaction of a snapshot holds from its beginning on: going back to it lets the locks on tables go that a
/// copy took (an ALTER waits for them, and every reader behind it, TRAPS 10), and fails if the transaction is another.
pub(super) const SAVEPOINT: &str = "cutwater";

/// The sessions that are free.
pub(super) struct Pool(Mutex<mpsc::UnboundedReceiver<Lent>>);

/// A session of the snapshot. Dropped without [`Lent::back`] it is gone for good.
pub(super) struct Lent {
    pub session: Session,
    home: mpsc::UnboundedSender<Lent>,
}

impl Pool {
    pub(super) fn new(sessions: Vec<Session>) -> Pool {
        let (home, free) = mpsc::unbounded_channel();
        for session in sessions {
            // Nobody has taken the other end yet.
            let _ = home.send(Lent { session, home: home.clone() });
        }
        Pool(Mutex::new(free))
    }

    /// A session, once one is free; its transaction is the one that the snapshot began with.
    pub(super) async fn take(&self) -> Result<Lent> {
        loop {
            // Only who has a session, and so can give one back, holds the channel open.
            let lent = self.0.lock().await.recv().await;
            let mut lent = lent.ok_or_else(|| {
                Error::new(Kind::Connection, "the sessions that see the snapshot have ended: it is made anew")
            })?;
            match lent.session.execute(format!("ROLLBACK TO SAVEPOINT {SAVEPOINT}")).await {
                Ok(_) => return Ok(lent),
                Err(error) => tracing::warn!(%error, "a session of the snapshot is gone"),
            }
        }
    }

    /// Ends all of them.
    pub(super) async fn close(&self) {
        let mut free = self.0.lock().await;
        free.close();
        while free.try_recv().is_ok() {}
    }
}

impl Lent {
    /// Gives it back, if it still is of the snapshot.
    pub(super) async fn back(mut self) {
        let sql = format!("ROLLBACK TO SAVEPOINT {SAVEPOINT}");
        let mut done = self.session.execute(&sql).await;
        if matches!(&done, Err(error) if error.why().contains("(error 1317)")) {
            // A KILL that came when its statement had ended already.
            done = self.session.execute(&sql).await;
        }
        match done {
            Ok(_) => {
                let home = self.home.clone();
                // Not there any more: the snapshot was dropped, and the session goes with it.
                let _ = home.send(self);
            }
            Err(error) => tracing::warn!(%error, "a session of the snapshot is gone"),
        }
    }
}
