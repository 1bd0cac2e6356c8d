//! What every applier keeps of a batch, whatever its engine: pure bookkeeping, no statement is written here.
//!
//! In: the events of a batch. Out: how many changes of what they are, what they say about a fence, whose keys a verify
//! wants kept, and, where a batch does not go through as sets, the order in which its rows are tried one by one.
//!
//! | file | what it is |
//! |---|---|
//! | `fence` | the fence behind whose marker the stream is, and whether it held |
//! | `tracking` | which keys a batch has to keep, and how many were kept |
//! | `replay` | a batch in source order, row by row: what is tried again, what is set aside, what stops the run |

pub(in crate::target) mod fence;
pub(in crate::target) mod replay;
pub(in crate::target) mod tracking;

use std::collections::HashMap;

use super::{Applied, Batch};
use crate::change::{ChangeEvent, Op};
use crate::error::{Error, Kind};
use crate::schema::TableName;

/// A target transaction that waits for the rest of its source transaction.
#[derive(Default)]
pub(in crate::target) struct OpenTransaction {
    pub changes: u64,
    pub transactions: u64,
    pub divergences: u64,
    pub notes: fence::Notes,
    pub replay: replay::Carried,
}

/// Counts a batch's changes by table and operation, and its transactions; returns the number of changes.
pub(in crate::target) fn count(events: &[ChangeEvent], applied: &mut Applied) -> u64 {
    // Runs of changes share one table: a name is only cloned when it changes.
    let mut changes = 0;
    let mut run: Option<(&TableName, Op, u64)> = None;
    let flush = |run: &mut Option<(&TableName, Op, u64)>, rows: &mut HashMap<(TableName, Op), u64>| {
        if let Some((name, op, count)) = run.take() {
            *rows.entry((name.clone(), op)).or_default() += count;
        }
    };
    for event in events {
        match event {
            ChangeEvent::Row(change) => {
                changes += 1;
                match &mut run {
                    Some((name, op, count)) if std::ptr::eq(*name, &change.table.name) && *op == change.op => {
                        *count += 1;
                    }
                    _ => {
                        flush(&mut run, &mut applied.rows);
                        run = Some((&change.table.name, change.op, 1));
                    }
                }
            }
            ChangeEvent::Truncate(_) => changes += 1,
            ChangeEvent::Commit(_) => applied.transactions += 1,
            ChangeEvent::Begin(_) | ChangeEvent::Schema(_) | ChangeEvent::Alter(_) | ChangeEvent::Message(_) => {}
        }
    }
    flush(&mut run, &mut applied.rows);
    changes
}

/// Whether it only begins or ends a transaction: then no savepoint is needed.
pub(in crate::target) fn has_nothing(batch: &Batch, open: &OpenTransaction) -> bool {
    let writes =
        |event: &ChangeEvent| matches!(event, ChangeEvent::Row(_) | ChangeEvent::Truncate(_) | ChangeEvent::Alter(_));
    !open.replay.waits() && !batch.events.iter().any(writes)
}

/// Target tables that should be empty hold so many rows.
pub(in crate::target) fn not_empty(full: &[(&TableName, i64)]) -> Error {
    let lines: Vec<String> = full
        .iter()
        .map(|(name, rows)| format!("{name} ({} {})", grouped(*rows), if *rows == 1 { "row" } else { "rows" }))
        .collect();
    let tables = if lines.len() == 1 { "a target table holds" } else { "target tables hold" };
    Error::new(Kind::NotEmpty, format!("{tables} rows already: {}", lines.join(", ")))
        .fix("set [target] existing = \"truncate\" to empty them first, or empty them yourself")
}

/// `1204` as `1,204`.
fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
