//! The row about an attempt at a cutover.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::word::words;
use crate::change::Position;

/// Where a cutover is. Each step is written before the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CutoverStep {
    /// The nonce is chosen; the fence may or may not have been taken.
    Fencing,
    /// The source rejects writes until the deadline.
    Fenced,
    /// Everything before the fence is durable at the target.
    Drained,
    /// Final verify was clean, sequences are set.
    Verified,
    /// The fence is permanent: from here it only goes forward.
    Switching,
    /// The switch command has succeeded: the target is live.
    Done,
    /// Taken back before the point of no return: the source is live.
    Undone,
}

words! { CutoverStep, "cutover step":
    Fencing => "fencing",
    Fenced => "fenced",
    Drained => "drained",
    Verified => "verified",
    Switching => "switching",
    Done => "done",
    Undone => "undone",
}

/// A row of `cutwater.cutover`: one attempt.
#[derive(Debug, Clone)]
pub struct Cutover {
    /// Names the attempt and its fence.
    pub nonce: String,
    /// How far it is.
    pub step: CutoverStep,
    /// When it began, by the target's clock.
    pub started_at: Timestamp,
    /// When the fence expires by itself, by the source's clock.
    pub deadline: Option<Timestamp>,
    /// Set by the applier, in the batch's own transaction, when the fence's marker was applied.
    pub drained_at: Option<Position>,
    /// Set by the applier when a migrated table changed after the marker: the fence was broken (TRAPS 19).
    pub broken: Option<String>,
    /// What was done or why it was undone, for `report`.
    pub note: Option<String>,
}
