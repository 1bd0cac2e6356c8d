//! The lease, and the epoch by which the target tells its holder from one who had it (TRAPS 1).
//!
//! In: who wants it. Out: a [`Lease`], or who has it. What can go wrong: another instance has raised the epoch
//! ([`Kind::Fenced`]).

use std::time::Duration;

use super::access::{State, Transaction};
use super::db::{Sql, params};
use super::{Lease, Phase};
use crate::error::{Error, Kind, Result};

/// The lease was taken, or somebody has it.
#[derive(Debug)]
pub enum LeaseOutcome {
    /// It is ours, under a new epoch.
    Taken(Lease),
    /// This holder has it and renews it.
    Held(String),
}

/// Unless it is validly held by somebody else. $4: a holder known to be dead.
const TAKE: Sql<'_> = Sql {
    postgres: "UPDATE cutwater.migration
                  SET epoch = epoch + 1, lease_holder = $2, lease_until = clock_timestamp() + make_interval(secs => $3)
                WHERE name = $1 AND (lease_until IS NULL OR lease_until < clock_timestamp() OR lease_holder IN ($2, $4))",
    mysql: "UPDATE cutwater.migration
               SET epoch = epoch + 1, lease_holder = $2,
                   lease_until = clock_timestamp() + INTERVAL CAST($3 * 1000000 AS SIGNED) MICROSECOND
             WHERE name = $1 AND (lease_until IS NULL OR lease_until < clock_timestamp() OR lease_holder IN ($2, $4))",
};

const RENEW: Sql<'_> = Sql {
    postgres: "UPDATE cutwater.migration SET lease_until = clock_timestamp() + make_interval(secs => $3)
                WHERE name = $1 AND epoch = $2",
    mysql: "UPDATE cutwater.migration
               SET lease_until = clock_timestamp() + INTERVAL CAST($3 * 1000000 AS SIGNED) MICROSECOND
             WHERE name = $1 AND epoch = $2",
};

impl State {
    /// Takes the lease for `ttl`, unless somebody else holds a valid one, and raises the epoch in every row that a target
    /// transaction begins with: the late COMMIT of a predecessor then finds no row to move on. Waits for transactions of
    /// the last holder that are still open, because they hold such rows.
    ///
    /// A holder that `is_dead` says is gone (a process of this machine that was killed) need not be waited for. Should it
    /// be wrong, the epoch still protects the data.
    pub async fn take_lease(&self, holder: &str, ttl: Duration, is_dead: fn(&str) -> bool) -> Result<LeaseOutcome> {
        let doing = "taking the migration's lease";
        let dead = self.migration().await?.and_then(|m| m.lease_holder).filter(|holder| is_dead(holder));
        let mut transaction = self.short_transaction(doing).await?;
        let params = params![self.name(), holder, ttl.as_secs_f64(), dead.as_deref()];
        if transaction.execute(doing, TAKE, params).await? == 0 {
            transaction.rollback().await?;
            let holder = self.migration().await?.and_then(|m| m.lease_holder);
            return Ok(LeaseOutcome::Held(holder.unwrap_or_default()));
        }
        let sql = "SELECT epoch FROM cutwater.migration WHERE name = $1";
        let rows = transaction.query(doing, sql, params![self.name()]).await?;
        let epoch: i64 = rows.first().ok_or_else(|| Error::new(Kind::Internal, "the migration is gone"))?.get(0)?;
        for sql in [
            "UPDATE cutwater.checkpoint SET epoch = $2 WHERE migration = $1 AND worker = 0",
            // Worker 0's transaction ends last: whoever holds another's row and waits for its would wait for somebody who
            // waits.
            "UPDATE cutwater.checkpoint SET epoch = $2 WHERE migration = $1 AND worker <> 0",
            "UPDATE cutwater.table_state SET epoch = $2 WHERE migration = $1",
        ] {
            transaction.execute(doing, sql, params![self.name(), epoch]).await?;
        }
        transaction.commit(doing).await?;
        Ok(LeaseOutcome::Taken(Lease { migration: self.name().to_owned(), epoch, holder: holder.into() }))
    }

    /// Keeps the lease for another `ttl`; [`Kind::Fenced`] if somebody has taken it over.
    pub async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<()> {
        let params = params![self.name(), lease.epoch, ttl.as_secs_f64()];
        expect_ours(self.execute("renewing the lease", RENEW, params).await?, lease)
    }

    /// Gives the lease up, so that a successor need not wait for its end.
    pub async fn release_lease(&self, lease: &Lease) -> Result<()> {
        let sql =
            "UPDATE cutwater.migration SET lease_until = NULL, lease_holder = NULL WHERE name = $1 AND epoch = $2";
        self.execute("releasing the lease", sql, params![self.name(), lease.epoch]).await.map(drop)
    }

    /// Locks the migration's row under our epoch; the phase it is in.
    pub(super) async fn lock(&self, transaction: &mut Transaction, lease: &Lease) -> Result<Phase> {
        let sql = "SELECT phase FROM cutwater.migration WHERE name = $1 AND epoch = $2 FOR SHARE";
        let rows = transaction.query("locking the migration's row", sql, params![self.name(), lease.epoch]).await?;
        rows.first().ok_or_else(|| fenced(lease))?.parse(0)
    }
}

pub(super) fn expect_ours(rows: u64, lease: &Lease) -> Result<()> {
    if rows == 1 { Ok(()) } else { Err(fenced(lease)) }
}

/// The error of a process that was fenced out: another instance has raised the epoch.
pub fn fenced(lease: &Lease) -> Error {
    Error::new(
        Kind::Fenced,
        format!(
            "another cutwater has taken over migration {:?} (our epoch {} is no longer the current one)",
            lease.migration, lease.epoch
        ),
    )
    .fix("nothing is lost; leave it to the other instance (cutwater status shows which)")
}
