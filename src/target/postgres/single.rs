//! One change as the statements that carry it out alone: for tables without key, and for the replay.

use super::encode::Form;
use super::sql::Shape;
use super::tables::Entry;
use crate::change::{Op, Row, RowChange};
use crate::error::{Error, Kind, Result};
use crate::schema::IdentityColumn;
use crate::target::plan::{Image, complete_from_old, same_key, unchanged_columns};

/// One statement of a change; it must affect exactly one row.
pub(super) struct Step<'a> {
    pub shape: Shape,
    pub new: Image<'a>,
    pub origin: Option<&'a Row>,
}

impl Step<'_> {
    /// The form of its values.
    pub(super) fn form(&self) -> Form {
        Form::of(&self.new).or_else(|| self.origin.and_then(Form::of)).unwrap_or(Form::Binary)
    }
}

/// The statements of a change, in order.
pub(super) fn steps<'a>(entry: &Entry, change: &'a RowChange) -> Result<Vec<Step<'a>>> {
    let keyed = entry.schema.key.is_some();
    match change.op {
        Op::Insert => Ok(vec![Step { shape: Shape::Insert, new: Image::Sent(new_row(change)?), origin: None }]),
        Op::Delete => {
            let shape = if keyed { Shape::Delete } else { Shape::DeleteWhole };
            Ok(vec![Step { shape, new: Image::Sent(old_row(change, keyed)?), origin: None }])
        }
        Op::Update => {
            new_row(change)?;
            let new = complete_from_old(change).ok_or_else(incomplete)?;
            let unchanged = unchanged_columns(&new);
            if keyed {
                let origin = change.old.as_ref().filter(|old| !same_key(entry.key(), old, &new));
                let shape = Shape::Update { unchanged, key_moves: origin.is_some() };
                return Ok(vec![Step { shape, new, origin }]);
            }
            let old = old_row(change, keyed)?;
            let always = entry.target.attributes.iter().any(|a| a.identity == Some(IdentityColumn::Always));
            if always && unchanged.is_empty() {
                return Ok(vec![
                    Step { shape: Shape::DeleteWhole, new: Image::Sent(old), origin: None },
                    Step { shape: Shape::Insert, new, origin: None },
                ]);
            }
            Ok(vec![Step { shape: Shape::UpdateWhole { unchanged }, new, origin: Some(old) }])
        }
    }
}

fn new_row(change: &RowChange) -> Result<&Row> {
    change.new.as_ref().ok_or_else(incomplete)
}

/// The old image; of a table without key it must be the whole row.
fn old_row(change: &RowChange, keyed: bool) -> Result<&Row> {
    match &change.old {
        Some(old) if keyed || !change.old_is_key_only => Ok(old),
        _ => Err(Error::new(
            Kind::Schema,
            format!("{} has no key to find rows by, and its changes do not hold the old row", change.table.name),
        )
        .fix(format!("ALTER TABLE {} REPLICA IDENTITY FULL;  at the source", change.table.name.sql()))),
    }
}

fn incomplete() -> Error {
    Error::new(Kind::Protocol, "a change came without the row it is about")
}
