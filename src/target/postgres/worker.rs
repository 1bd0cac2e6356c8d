//! What an applier needs to be one of several beside each other ([`crate::target::parallel`]).

use super::apply::PgApplier;
use crate::error::{Context, Result};
use crate::postgres::Client;
use crate::target::parallel::Worker;

/// A worker that waits longer than this for a lock at the target waits, perhaps, for another worker that waits for it: the
/// server does not see that they belong together. The batch is then tried again.
const LOCK_TIMEOUT: &str = "60s";

/// Makes a session fit to be one of several.
pub(super) async fn prepare(client: &Client) -> Result<()> {
    client.batch_execute(&format!("SET lock_timeout = '{LOCK_TIMEOUT}'")).await.context("opening the applier")
}

impl Worker for PgApplier {
    async fn stay(&self) -> Result<()> {
        self.client.batch_execute("SELECT").await.context("keeping a transaction open")
    }

    fn passed(&mut self, nonce: &str) {
        self.fence.passed(nonce);
    }
}
