//! Places in a source's change log.
//!
//! | type | advances when | never set to | drives |
//! |---|---|---|---|
//! | [`Position`] (received) | a commit or an idle keepalive arrives | a place in the middle of a transaction | the batch's end |
//! | [`Durable<Position>`] | the target has committed and flushed the batch that ends there | anything merely sent | what is confirmed to the source |
//! | [`CommitStart`] | a transaction begins | | whether a copy at a position holds the transaction |
//!
//! A Postgres position is a number. A MySQL or MariaDB position is a set of GTIDs, with the place in the server's log files
//! beside it: sets have holes and several domains, so nothing may be concluded from "the last GTID" (TRAPS 3).

mod binlog;
mod gtid;
mod lsn;
mod mariadb;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use binlog::{BinlogPlace, LogFiles};
pub use gtid::{Gtid, GtidSet, Interval, Tsid};
pub use lsn::Lsn;
pub use mariadb::{MariaGtid, MariaGtidSet};

use crate::error::{Error, Kind};

/// A place in the change log of a source, of whichever engine.
///
/// Positions are partially ordered: a MySQL position is a set and is compared by inclusion. Postgres positions of one
/// server and timeline are totally ordered; identity and timeline are kept beside the checkpoint, see
/// [`crate::target::state::Migration`]. Positions of two engines are not comparable.
///
/// The text form says what it is: `0/16B3748`, `mysql:binlog.000042:1234/3e11fa47-…:1-5`,
/// `mariadb:master-bin.000003:328/0-1-270`; without GTIDs it ends at the offset.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Position {
    /// The end of a commit record in Postgres' write-ahead log.
    Postgres(Lsn),
    /// What a MySQL server has executed.
    MySql(BinlogPosition<GtidSet>),
    /// What a MariaDB server has executed.
    MariaDb(BinlogPosition<MariaGtidSet>),
}

/// What was executed, and where the log stood then. `S` is the set of GTIDs of the server's kind.
///
/// Where GTIDs are in use they alone are compared, because they mean the same on every server of a group; the place says
/// how many bytes are between two positions. Otherwise it is compared by place. One with GTIDs and one without are not
/// comparable: somebody has switched them on or off between the two.
#[derive(Debug, Clone)]
pub struct BinlogPosition<S> {
    /// The transactions executed; `None` where GTIDs are not in use.
    pub executed: Option<S>,
    /// The end of the last of them in the log.
    pub at: BinlogPlace,
}

impl<S: PartialOrd> PartialOrd for BinlogPosition<S> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (&self.executed, &other.executed) {
            (Some(own), Some(theirs)) => own.partial_cmp(theirs),
            (None, None) => self.at.partial_cmp(&other.at),
            _ => None,
        }
    }
}

impl<S: PartialEq> PartialEq for BinlogPosition<S> {
    fn eq(&self, other: &Self) -> bool {
        match (&self.executed, &other.executed) {
            (Some(own), Some(theirs)) => own == theirs,
            (None, None) => self.at == other.at,
            _ => false,
        }
    }
}

impl<S: Eq> Eq for BinlogPosition<S> {}

impl<S: Hash> Hash for BinlogPosition<S> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.executed {
            Some(executed) => executed.hash(state),
            None => self.at.hash(state),
        }
    }
}

impl<S: Clone> BinlogPosition<S> {
    /// The least position that includes both.
    fn join(&self, other: &Self, union: fn(&mut S, &S)) -> Self {
        let at = if self.at < other.at { &other.at } else { &self.at };
        let mut executed = self.executed.clone();
        if let (Some(own), Some(theirs)) = (&mut executed, &other.executed) {
            union(own, theirs);
        }
        BinlogPosition { executed, at: at.clone() }
    }
}

impl<S: fmt::Display> fmt::Display for BinlogPosition<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.executed {
            Some(executed) => write!(f, "{}/{executed}", self.at),
            None => self.at.fmt(f),
        }
    }
}

impl<S: FromStr<Err = Error>> FromStr for BinlogPosition<S> {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once('/') {
            Some((at, executed)) => Ok(BinlogPosition { executed: Some(executed.parse()?), at: at.parse()? }),
            None => Ok(BinlogPosition { executed: None, at: text.parse()? }),
        }
    }
}

impl Position {
    /// The LSN of a Postgres position; an error for another engine's.
    pub fn lsn(&self) -> Result<Lsn, Error> {
        match self {
            Position::Postgres(lsn) => Ok(*lsn),
            other => Err(Error::new(Kind::Internal, format!("{other} is no position of a Postgres server"))),
        }
    }

    /// Whether everything up to `goal` is in it: by inclusion, so that "not reached" is not the same as "before".
    pub fn reaches(&self, goal: &Position) -> bool {
        self >= goal
    }

    /// The least position that includes both; of two that cannot be compared at all, this one.
    #[must_use]
    pub fn join(&self, other: &Position) -> Position {
        match (self, other) {
            (Position::Postgres(own), Position::Postgres(theirs)) => Position::Postgres(*own.max(theirs)),
            (Position::MySql(own), Position::MySql(theirs)) => Position::MySql(own.join(theirs, GtidSet::union)),
            (Position::MariaDb(own), Position::MariaDb(theirs)) => {
                Position::MariaDb(own.join(theirs, MariaGtidSet::union))
            }
            _ => self.clone(),
        }
    }

    /// Bytes of log between `earlier` and here, 0 if `earlier` includes this one; `None` if that cannot be told.
    /// `files` are those of the source's log where it has files.
    pub fn bytes_since(&self, earlier: &Position, files: &LogFiles) -> Option<u64> {
        if earlier.reaches(self) {
            return Some(0);
        }
        match (earlier, self) {
            (Position::Postgres(earlier), Position::Postgres(later)) => Some(later.since(*earlier)),
            (Position::MySql(BinlogPosition { at: earlier, .. }), Position::MySql(BinlogPosition { at, .. }))
            | (Position::MariaDb(BinlogPosition { at: earlier, .. }), Position::MariaDb(BinlogPosition { at, .. })) => {
                files.between(earlier, at)
            }
            _ => None,
        }
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Position::Postgres(a), Position::Postgres(b)) => a.partial_cmp(b),
            (Position::MySql(a), Position::MySql(b)) => a.partial_cmp(b),
            (Position::MariaDb(a), Position::MariaDb(b)) => a.partial_cmp(b),
            _ => None,
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
        let text = text.trim();
        if let Some(rest) = text.strip_prefix("mysql:") {
            return rest.parse().map(Position::MySql);
        }
        if let Some(rest) = text.strip_prefix("mariadb:") {
            return rest.parse().map(Position::MariaDb);
        }
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
            Position::MySql(position) => write!(f, "mysql:{position}"),
            Position::MariaDb(position) => write!(f, "mariadb:{position}"),
        }
    }
}

/// Where a transaction's commit starts in the log, and its GTID if it has one: what tells it from all others, so that a
/// position can be asked whether it holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitStart {
    /// Where the commit record starts in Postgres' write-ahead log.
    Postgres(Lsn),
    /// A transaction of a MySQL server.
    MySql {
        /// Its GTID; `None` where they are not in use.
        gtid: Option<Gtid>,
        /// Where its first event starts.
        at: BinlogPlace,
    },
    /// A transaction of a MariaDB server.
    MariaDb {
        /// Its GTID; `None` where positions go by file and offset.
        gtid: Option<MariaGtid>,
        /// Where its first event starts.
        at: BinlogPlace,
    },
}

impl CommitStart {
    /// Whether a copy taken at `position` holds the transaction. A commit that starts at the position itself is the first
    /// that it does not hold.
    pub fn is_in(&self, position: &Position) -> bool {
        match (self, position) {
            (CommitStart::Postgres(start), Position::Postgres(lsn)) => start < lsn,
            (CommitStart::MySql { gtid, at }, Position::MySql(position)) => match (gtid, &position.executed) {
                (Some(gtid), Some(executed)) => executed.contains(gtid),
                (None, None) => *at < position.at,
                _ => false,
            },
            (CommitStart::MariaDb { gtid, at }, Position::MariaDb(position)) => match (gtid, &position.executed) {
                (Some(gtid), Some(executed)) => executed.contains(gtid),
                (None, None) => *at < position.at,
                _ => false,
            },
            _ => false,
        }
    }
}

impl From<Lsn> for CommitStart {
    fn from(lsn: Lsn) -> Self {
        CommitStart::Postgres(lsn)
    }
}

impl fmt::Display for CommitStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommitStart::Postgres(lsn) => lsn.fmt(f),
            CommitStart::MySql { gtid: Some(gtid), at } => write!(f, "{gtid} ({at})"),
            CommitStart::MariaDb { gtid: Some(gtid), at } => write!(f, "{gtid} ({at})"),
            CommitStart::MySql { at, .. } | CommitStart::MariaDb { at, .. } => at.fmt(f),
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

/// The order of two sets, by whether each includes the other.
fn by_inclusion(first_includes: bool, second_includes: bool) -> Option<Ordering> {
    match (first_includes, second_includes) {
        (true, true) => Some(Ordering::Equal),
        (true, false) => Some(Ordering::Greater),
        (false, true) => Some(Ordering::Less),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn at(text: &str) -> Position {
        text.replace("UUID", UUID).parse().expect("a position")
    }

    #[test]
    fn a_position_comes_back_from_its_text() {
        let texts = [
            "0/16B3748",
            "mysql:binlog.000042:1234",
            "mysql:binlog.000042:1234/",
            "mysql:binlog.000042:1234/UUID:1-5:7:blue:1-2",
            "mariadb:master-bin.000003:328/0-1-270,1-2-5",
            "mariadb:a:b.000003:328",
        ];
        for text in texts.map(|text| text.replace("UUID", UUID)) {
            let position: Position = text.parse().expect("a position");
            assert_eq!(position.to_string(), text);
            let json = serde_json::to_string(&position).expect("text");
            assert_eq!(serde_json::from_str::<Position>(&json).expect("its own JSON"), position);
        }
        for text in
            ["", "mysql:", "mysql:binlog.000042", "mysql:binlog.000042:4/x", "oracle:1", "mariadb:m.000001:4/1-2"]
        {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }

    #[test]
    fn gtids_decide_where_they_are_in_use_and_the_place_where_they_are_not() {
        assert!(at("mysql:b.000009:4/UUID:1-5") > at("mysql:b.000010:4/UUID:1-4"), "another server's files");
        assert_eq!(at("mysql:b.000009:4/UUID:1-5"), at("mysql:b.000010:4/UUID:1-5"));
        assert!(at("mysql:b.000009:900") < at("mysql:b.000010:4"));
        assert_eq!(at("mysql:b.000009:4").partial_cmp(&at("mysql:b.000009:4/UUID:1-5")), None);
        assert_eq!(at("mysql:b.000009:4").partial_cmp(&at("mariadb:b.000009:4")), None);
        assert_eq!(at("0/1").partial_cmp(&at("mariadb:b.000009:4")), None);
    }

    #[test]
    fn a_copy_is_asked_for_the_transaction_and_not_for_its_number() {
        let copy = at("mysql:b.000009:400/UUID:1-5:8");
        let holds = |number: u64, place: &str| {
            let gtid = Some(format!("{UUID}:{number}").parse().expect("a GTID"));
            CommitStart::MySql { gtid, at: place.parse().expect("a place") }.is_in(&copy)
        };
        assert!(holds(5, "b.000009:300") && holds(8, "b.000010:300"));
        assert!(!holds(6, "b.000009:300") && !holds(7, "b.000009:300") && !holds(9, "b.000001:4"));
        let by_place = |place: &str| {
            let start = CommitStart::MariaDb { gtid: None, at: place.parse().expect("a place") };
            start.is_in(&at("mariadb:b.000009:400"))
        };
        assert!(by_place("b.000009:399") && by_place("b.000008:900"));
        assert!(!by_place("b.000009:400"), "it starts where the copy was taken");
        assert!(CommitStart::from(Lsn(9)).is_in(&Lsn(10).into()) && !CommitStart::from(Lsn(10)).is_in(&Lsn(10).into()));
    }

    #[test]
    fn what_joins_two_positions_includes_both() {
        let (a, b) = (at("mysql:b.000009:400/UUID:1-5:8"), at("mysql:b.000009:300/UUID:1-7"));
        assert_eq!(a.partial_cmp(&b), None);
        assert_eq!(a.join(&b).to_string(), format!("mysql:b.000009:400/{UUID}:1-8"));
        assert!(a.join(&b).reaches(&a) && a.join(&b).reaches(&b));
        assert_eq!(at("0/5").join(&at("0/7")), at("0/7"));
    }

    #[test]
    fn the_distance_is_in_bytes_of_log() {
        let files = LogFiles::new([(8, 1000), (9, 500)]);
        let head = at("mysql:b.000009:400/UUID:1-8");
        assert_eq!(head.bytes_since(&at("mysql:b.000008:900/UUID:1-5"), &files), Some(500));
        assert_eq!(head.bytes_since(&at("mysql:b.000007:900/UUID:1-5"), &files), None);
        assert_eq!(head.bytes_since(&at("mysql:b.000008:900/UUID:1-8"), &files), Some(0), "nothing is missing");
        assert_eq!(at("0/30").bytes_since(&at("0/10"), &LogFiles::default()), Some(0x20));
    }
}
