//! Why a batch, or a change, could not be applied as it was sent.

use super::pipeline::Failure;
use crate::error::{Error, Kind};
use crate::postgres::sqlstate_kind;
use crate::target::plan::Unfoldable;

/// Why a batch could not be applied as sets.
pub(super) enum Trouble {
    /// A statement failed or counted wrong.
    Failure(Failure),
    /// Something else.
    Error(Error),
    /// It contradicts itself.
    Unfoldable,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Trouble::Failure(failure)
    }
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        Trouble::Failure(Failure::Sql(error))
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Error(error)
    }
}

impl From<Unfoldable> for Trouble {
    fn from(_: Unfoldable) -> Self {
        Trouble::Unfoldable
    }
}

/// Whether an error is about a row, so that a replay can name it. Everything else (connection, disk, time-outs,
/// read-only, privileges) would fail for every row alike.
pub(super) fn is_about_a_row(error: &tokio_postgres::Error) -> bool {
    // 22 data, 23 constraints, 44 view checks, 54 limits (an index row that is too large), P0 raised by a trigger.
    error.code().is_some_and(|code| matches!(&code.code()[..2], "22" | "23" | "44" | "54" | "P0"))
        && error.code().is_some_and(|code| sqlstate_kind(code) != Kind::Transient)
}

/// Why a single change could not be sent.
pub(super) enum Stopped {
    Failure(Failure),
    Error(Error),
}
