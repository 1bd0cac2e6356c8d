//! Places in a source's change log.
//!
//! | type | advances when | never set to | drives |
//! |---|---|---|---|
//! | [`Position`] (received) | a commit or an idle keepalive arrives | a place in the middle of a transaction | the batch's end |
//! | [`Durable<Position>`] | the target has committed and flushed the batch that ends there | anything merely sent | what is confirmed to the source |

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind};

/// A Postgres log sequence number: a byte offset in the write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Bytes of log between `earlier` and here; 0 if `earlier` is in fact later.
    pub fn since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let (high, low) = text.trim().split_once('/')?;
            let high = u32::from_str_radix(high, 16).ok()?;
            let low = u32::from_str_radix(low, 16).ok()?;
            Some(Lsn(u64::from(high) << 32 | u64::from(low)))
        };
        parse().ok_or_else(|| Error::new(Kind::Protocol, format!("{text:?} is not an LSN")))
    }
}

/// A place in the change log of a source, of whichever engine.
///
/// Positions are partially ordered: a MySQL position is a set and is compared by inclusion. Postgres positions of one
/// server and timeline are totally ordered; identity and timeline are kept beside the checkpoint, see
/// [`crate::target::state::Migration`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Position {
    /// The end of a commit record in Postgres' write-ahead log.
    Postgres(Lsn),
}

impl Position {
    /// The LSN of a Postgres position.
    pub fn lsn(&self) -> Lsn {
        match self {
            Position::Postgres(lsn) => *lsn,
        }
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Position::Postgres(a), Position::Postgres(b)) => a.partial_cmp(b),
        }
    }
}

impl From<Lsn> for Position {
    fn from(lsn: Lsn) -> Self {
        Position::Postgres(lsn)
    }
}

impl FromStr for Position {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        text.parse().map(Position::Postgres)
    }
}

impl TryFrom<String> for Position {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Position> for String {
    fn from(position: Position) -> String {
        position.to_string()
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::Postgres(lsn) => lsn.fmt(f),
        }
    }
}

/// A position up to which everything is committed **and flushed** at the target (law 1).
///
/// Only a target's applier makes one, after its commit returned; only this may be confirmed to the source.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
pub struct Durable<P>(P);

impl<P> Durable<P> {
    /// States that `position` is committed and flushed at the target. For appliers and the checkpoint reader only.
    pub fn committed(position: P) -> Self {
        Durable(position)
    }

    /// The position itself.
    pub fn get(&self) -> &P {
        &self.0
    }
}
