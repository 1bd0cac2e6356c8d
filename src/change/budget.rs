//! Law 4: one budget of bytes for everything in flight.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that may be between the source's socket and the target's commit. Clones share the same budget.
#[derive(Debug, Clone)]
pub struct Budget {
    permits: Arc<Semaphore>,
    total: u32,
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
pub struct Share(#[allow(dead_code, reason = "held for its Drop")] OwnedSemaphorePermit);

/// The budget counts in KiB, so that a semaphore's 32-bit permits cover terabytes.
const UNIT: usize = 1024;

impl Budget {
    /// A budget of `bytes`.
    pub fn new(bytes: u64) -> Self {
        let total = u32::try_from(bytes / UNIT as u64).unwrap_or(u32::MAX >> 4).max(1);
        Budget { permits: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Waits until `bytes` are free and takes them. A request larger than the whole budget gets all of it, alone: a
    /// single frame must pass, however large.
    pub async fn take(&self, bytes: usize) -> Share {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.total);
        let permit = Arc::clone(&self.permits).acquire_many_owned(units).await;
        Share(permit.expect("the semaphore is never closed"))
    }
}
