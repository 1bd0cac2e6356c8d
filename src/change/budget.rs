//! Law 4: one budget of bytes for everything in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that may be between the source's socket and the target's commit. Clones share the same budget.
#[derive(Debug, Clone)]
pub struct Budget {
    permits: Arc<Semaphore>,
    total: Arc<AtomicU32>,
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
pub struct Share(OwnedSemaphorePermit);

impl Share {
    /// How much of the budget it is.
    pub fn bytes(&self) -> usize {
        self.0.num_permits() * UNIT
    }
}

/// The budget counts in KiB, so that a semaphore's 32-bit permits cover terabytes.
const UNIT: usize = 1024;

impl Budget {
    /// A budget of `bytes`.
    pub fn new(bytes: u64) -> Self {
        let total = units(bytes);
        Budget { permits: Arc::new(Semaphore::new(total as usize)), total: Arc::new(AtomicU32::new(total)) }
    }

    /// Makes it at least `bytes`. It never shrinks: shares of the old size are about.
    pub fn grow(&self, bytes: u64) {
        let wanted = units(bytes);
        let before = self.total.fetch_max(wanted, Ordering::Relaxed);
        self.permits.add_permits(wanted.saturating_sub(before) as usize);
    }

    /// Waits until `bytes` are free and takes them. A request for more than three quarters of the budget gets those: a
    /// single frame must pass, however large, also while the rest of a batch's worth waits for what is behind it.
    pub async fn take(&self, bytes: usize) -> Share {
        let total = self.total.load(Ordering::Relaxed);
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, total - total / 4);
        let permit = Arc::clone(&self.permits).acquire_many_owned(units).await;
        Share(permit.expect("the semaphore is never closed"))
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes / UNIT as u64).unwrap_or(u32::MAX >> 4).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_largest_request_passes_beside_a_batch_that_waits_for_it() {
        let budget = Budget::new(4 << 16);
        let _waits = budget.take(1 << 16).await;
        drop(budget.take(usize::MAX).await);
    }

    #[tokio::test]
    async fn a_budget_that_grows_lets_the_waiting_go_on() {
        let budget = Budget::new(1 << 20);
        let all = budget.take(1 << 20).await;
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.take(1 << 19).await }
        });
        budget.grow(2 << 20);
        let half = waiting.await.expect("the new room is enough");
        budget.grow(1 << 20);
        drop((all, half));
        drop(budget.take(usize::MAX).await);
        assert_eq!(budget.permits.available_permits(), 2048);
    }
}
