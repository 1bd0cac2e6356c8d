//! MariaDB's GTIDs: `domain-server-sequence`.
//!
//! Each domain is a log of its own, in which the sequence only grows; so the last GTID of a domain says what of it was
//! executed, and a position is the last one of each. That holds where the server keeps `gtid_strict_mode`; without it
//! sequences may run backwards, and positions must go by file and offset. <https://mariadb.com/kb/en/gtid/>

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use super::by_inclusion;
use crate::error::{Error, Kind, Result};

/// The id of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MariaGtid {
    /// The replication domain.
    pub domain: u32,
    /// The server that wrote it first.
    pub server: u32,
    /// Its number in the domain.
    pub sequence: u64,
}

/// The last transaction of each domain: everything before it in the domain is included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct MariaGtidSet(
    /// One of a domain, in ascending order of the domains.
    Vec<MariaGtid>,
);

impl MariaGtidSet {
    /// Whether the transaction is included.
    pub fn contains(&self, gtid: &MariaGtid) -> bool {
        self.last(gtid.domain).is_some_and(|last| gtid.sequence <= last.sequence)
    }

    /// Takes in the transaction, and with it what came before it in its domain.
    pub fn insert(&mut self, gtid: MariaGtid) {
        match self.0.binary_search_by_key(&gtid.domain, |last| last.domain) {
            Ok(at) if self.0[at].sequence < gtid.sequence => self.0[at] = gtid,
            Ok(_) => {}
            Err(at) => self.0.insert(at, gtid),
        }
    }

    /// The last transaction of a domain.
    pub fn last(&self, domain: u32) -> Option<&MariaGtid> {
        self.0.binary_search_by_key(&domain, |last| last.domain).ok().map(|at| &self.0[at])
    }

    /// The last transaction of each domain, in ascending order of the domains.
    pub fn iter(&self) -> impl Iterator<Item = &MariaGtid> {
        self.0.iter()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether everything of `other` is included.
    pub fn includes(&self, other: &MariaGtidSet) -> bool {
        other.0.iter().all(|theirs| {
            // One number given by two servers: two histories, and neither includes the other.
            self.last(theirs.domain).is_some_and(|own| {
                own.sequence > theirs.sequence || (own.sequence, own.server) == (theirs.sequence, theirs.server)
            })
        })
    }

    /// Takes in everything of `other`.
    pub fn union(&mut self, other: &MariaGtidSet) {
        other.0.iter().for_each(|gtid| self.insert(*gtid));
    }
}

impl PartialOrd for MariaGtidSet {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        by_inclusion(self.includes(other), other.includes(self))
    }
}

impl fmt::Display for MariaGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

impl FromStr for MariaGtid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.trim().split('-');
        let mut parse = || {
            let domain = parts.next()?.parse().ok()?;
            let server = parts.next()?.parse().ok()?;
            let sequence = parts.next()?.parse().ok()?;
            parts.next().is_none().then_some(MariaGtid { domain, server, sequence })
        };
        parse().ok_or_else(|| Error::new(Kind::Protocol, format!("{text:?} is no GTID (domain-server-sequence)")))
    }
}

impl fmt::Display for MariaGtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, gtid) in self.0.iter().enumerate() {
            write!(f, "{}{gtid}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for MariaGtidSet {
    type Err = Error;

    /// As the server prints it (`@@gtid_binlog_pos`): `0-1-270,1-2-5`, or nothing.
    fn from_str(text: &str) -> Result<Self> {
        let mut set = MariaGtidSet::default();
        for gtid in text.split(',').filter(|part| !part.trim().is_empty()) {
            set.insert(gtid.parse()?);
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(text: &str) -> MariaGtidSet {
        text.parse().expect("a set")
    }

    #[test]
    fn inclusion_is_decided_in_each_domain() {
        assert!(set("0-1-5,1-2-7") > set("0-1-5,1-2-6"));
        assert!(set("0-1-5,1-2-7") > set("0-1-5"));
        assert_eq!(set("0-1-5,1-2-6").partial_cmp(&set("0-1-4,1-2-7")), None);
        assert!(set("0-2-6") > set("0-1-5"), "another server went on in the domain");
        assert!(set("0-1-5").contains(&"0-9-3".parse().expect("a GTID")));
        assert!(!set("0-1-5").contains(&"1-1-1".parse().expect("a GTID")));
    }

    #[test]
    fn one_number_of_two_servers_is_two_histories() {
        assert_eq!(set("0-1-5").partial_cmp(&set("0-2-5")), None);
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for text in ["0-1", "0-1-2-3", "a-1-2", "0-1--2", "0-1-99999999999999999999", "4294967296-1-1"] {
            assert!(text.parse::<MariaGtidSet>().is_err(), "{text}");
        }
        assert!(set(" ").is_empty());
    }

    fn any_gtid() -> impl Strategy<Value = MariaGtid> {
        (0..4u32, 1..40u64).prop_map(|(domain, sequence)| MariaGtid { domain, server: 1, sequence })
    }

    fn of(gtids: &[MariaGtid]) -> MariaGtidSet {
        let mut set = MariaGtidSet::default();
        gtids.iter().for_each(|gtid| set.insert(*gtid));
        set
    }

    proptest! {
        #[test]
        fn a_union_is_the_least_that_includes_both(
            a in prop::collection::vec(any_gtid(), 0..12),
            b in prop::collection::vec(any_gtid(), 0..12),
            probe in any_gtid(),
        ) {
            let (a, b) = (of(&a), of(&b));
            let mut both = a.clone();
            both.union(&b);
            prop_assert!(both.includes(&a) && both.includes(&b));
            prop_assert_eq!(both.contains(&probe), a.contains(&probe) || b.contains(&probe));
            prop_assert_eq!(a.includes(&b), both == a);
            prop_assert_eq!(both.to_string().parse::<MariaGtidSet>().expect("its own text"), both);
        }
    }
}
