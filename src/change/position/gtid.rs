//! MySQL's GTID sets.
//!
//! A transaction is `uuid:number`, from 8.3 on possibly `uuid:tag:number`. What a server has executed is a set of them with
//! holes: replicas commit out of order, and several servers write. It is held as intervals for each source. The server
//! prints it as `uuid:1-5:7,uuid:1-3:tag:1-2`, with a newline after each comma.
//! <https://dev.mysql.com/doc/refman/9.4/en/replication-gtids-concepts.html>

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use super::by_inclusion;
use crate::error::{Error, Kind, Result};

/// The longest tag there is.
const MAX_TAG: usize = 32;
/// One more than the highest number of a transaction (`GNO_END` of the server's `rpl_gtid.h`).
const END: u64 = i64::MAX as u64;

/// Where a transaction came from: a server's UUID and a tag, which is empty for ordinary transactions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tsid {
    /// The server's `server_uuid`.
    pub uuid: [u8; 16],
    /// The tag, in lower case; empty without one. An empty box costs no allocation.
    pub tag: Box<str>,
}

/// The id of one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Gtid {
    /// Where it came from.
    pub tsid: Tsid,
    /// Its number there, from 1.
    pub number: u64,
}

/// A run of numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Interval {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

#[derive(Debug, Clone)]
struct Member {
    tsid: Tsid,
    /// Ascending; between two of them a number is missing.
    intervals: Vec<Interval>,
}

/// The end of the interval that grew last: a stream adds the next number of one interval over and over, while clones of
/// the set are about. This way neither the clone nor the addition copies the rest.
#[derive(Debug, Clone, Copy)]
struct Growing {
    member: usize,
    interval: usize,
    last: u64,
}

/// A set of GTIDs. Cheap to clone, and to extend by the next number of an interval.
#[derive(Debug, Clone, Default)]
pub struct GtidSet {
    /// In ascending order of their TSIDs, none without an interval.
    members: Arc<Vec<Member>>,
    /// What its interval's end is instead of the one in `members`.
    growing: Option<Growing>,
}

impl GtidSet {
    /// Adds one transaction.
    pub fn insert(&mut self, gtid: &Gtid) {
        let Gtid { tsid, number } = gtid;
        if let Some(growing) = &mut self.growing {
            let member = &self.members[growing.member];
            let free = member.intervals.get(growing.interval + 1).is_none_or(|next| next.first > number + 1);
            if growing.last + 1 == *number && free && member.tsid == *tsid {
                growing.last = *number;
                return;
            }
        }
        if self.contains(gtid) {
            return;
        }
        self.settle();
        if let Ok(member) = self.find(tsid) {
            let intervals = &self.members[member].intervals;
            let next = intervals.partition_point(|interval| interval.first <= *number);
            let grows = next.checked_sub(1).filter(|&before| intervals[before].last + 1 == *number);
            let free = intervals.get(next).is_none_or(|next| next.first > number + 1);
            if let Some(interval) = grows.filter(|_| free) {
                self.growing = Some(Growing { member, interval, last: *number });
                return;
            }
        }
        self.insert_run(tsid, Interval { first: *number, last: *number });
    }

    /// Adds a run of transactions of one source. An empty run (its first above its last) adds nothing.
    pub fn insert_run(&mut self, tsid: &Tsid, run: Interval) {
        if run.first > run.last {
            return;
        }
        self.settle();
        let at = self.find(tsid);
        let members = Arc::make_mut(&mut self.members);
        let at = at.unwrap_or_else(|at| {
            members.insert(at, Member { tsid: tsid.clone(), intervals: Vec::new() });
            at
        });
        let intervals = &mut members[at].intervals;
        // Those that overlap or touch the run become one with it.
        let from = intervals.partition_point(|interval| interval.last.saturating_add(1) < run.first);
        let to = intervals.partition_point(|interval| interval.first <= run.last.saturating_add(1));
        let first = intervals.get(from).filter(|_| from < to).map_or(run.first, |i| i.first.min(run.first));
        let last = if from < to { intervals[to - 1].last.max(run.last) } else { run.last };
        intervals.splice(from..to, [Interval { first, last }]);
    }

    /// Whether the transaction is in it.
    pub fn contains(&self, gtid: &Gtid) -> bool {
        let run = Interval { first: gtid.number, last: gtid.number };
        self.find(&gtid.tsid).is_ok_and(|member| self.includes_run(member, run))
    }

    /// Whether everything of `other` is in it.
    pub fn includes(&self, other: &GtidSet) -> bool {
        other.sources().all(|(tsid, mut intervals)| {
            self.find(tsid).is_ok_and(|member| intervals.all(|run| self.includes_run(member, run)))
        })
    }

    /// Adds everything of `other`.
    pub fn union(&mut self, other: &GtidSet) {
        if self.is_empty() {
            self.clone_from(other);
            return;
        }
        for (tsid, intervals) in other.sources() {
            intervals.for_each(|run| self.insert_run(tsid, run));
        }
    }

    /// What of it is not in `other`.
    pub fn minus(&self, other: &GtidSet) -> GtidSet {
        let mut rest = GtidSet::default();
        for (tsid, intervals) in self.sources() {
            let theirs: Vec<Interval> = other.find(tsid).map(|at| other.intervals(at).collect()).unwrap_or_default();
            for run in intervals {
                let mut first = run.first;
                for gone in theirs.iter().filter(|gone| gone.last >= run.first && gone.first <= run.last) {
                    rest.insert_run(tsid, Interval { first, last: gone.first.saturating_sub(1) });
                    first = gone.last + 1;
                }
                rest.insert_run(tsid, Interval { first, last: run.last });
            }
        }
        rest
    }

    /// How many transactions are in it.
    pub fn count(&self) -> u64 {
        self.sources().flat_map(|(_, intervals)| intervals).map(|run| run.last - run.first + 1).sum()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether a transaction with a tag is in it.
    pub fn has_tags(&self) -> bool {
        self.members.iter().any(|member| !member.tsid.tag.is_empty())
    }

    /// Its sources in ascending order, each with its runs in ascending order.
    pub fn sources(&self) -> impl Iterator<Item = (&Tsid, impl Iterator<Item = Interval>)> {
        self.members.iter().enumerate().map(|(at, member)| (&member.tsid, self.intervals(at)))
    }

    fn intervals(&self, member: usize) -> impl Iterator<Item = Interval> {
        let intervals = self.members[member].intervals.iter().enumerate();
        intervals.map(move |(at, interval)| Interval { first: interval.first, last: self.last(member, at) })
    }

    fn last(&self, member: usize, interval: usize) -> u64 {
        match self.growing {
            Some(growing) if (growing.member, growing.interval) == (member, interval) => growing.last,
            _ => self.members[member].intervals[interval].last,
        }
    }

    fn includes_run(&self, member: usize, run: Interval) -> bool {
        let after = self.members[member].intervals.partition_point(|interval| interval.first <= run.first);
        after.checked_sub(1).is_some_and(|at| self.last(member, at) >= run.last)
    }

    fn find(&self, tsid: &Tsid) -> Result<usize, usize> {
        self.members.binary_search_by(|member| member.tsid.cmp(tsid))
    }

    /// Writes the growing end where it belongs.
    fn settle(&mut self) {
        if let Some(Growing { member, interval, last }) = self.growing.take() {
            Arc::make_mut(&mut self.members)[member].intervals[interval].last = last;
        }
    }
}

impl PartialEq for GtidSet {
    fn eq(&self, other: &Self) -> bool {
        self.members.len() == other.members.len()
            && self.sources().zip(other.sources()).all(|((a, own), (b, theirs))| a == b && own.eq(theirs))
    }
}

impl Eq for GtidSet {}

impl Hash for GtidSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for (tsid, intervals) in self.sources() {
            tsid.hash(state);
            intervals.for_each(|interval| interval.hash(state));
        }
    }
}

impl PartialOrd for GtidSet {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        by_inclusion(self.includes(other), other.includes(self))
    }
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let hex: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let mut uuid = [0; 16];
    if hex.len() != 32 || !hex.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, digits) in uuid.iter_mut().zip(hex.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(uuid)
}

fn is_tag(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= MAX_TAG
        && bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|number| (1..END).contains(number))
}

fn interval(text: &str) -> Option<Interval> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(Interval { first: number(first)?, last: number(last)? })
}

impl Tsid {
    /// An ordinary source.
    pub fn untagged(uuid: [u8; 16]) -> Tsid {
        Tsid { uuid, tag: Box::default() }
    }
}

impl fmt::Display for Tsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.uuid.iter().enumerate() {
            let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        if self.tag.is_empty() { Ok(()) } else { write!(f, ":{}", self.tag) }
    }
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.tsid, self.number)
    }
}

impl FromStr for Gtid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (source, last) = text.trim().rsplit_once(':')?;
            let (source, tag) = source.split_once(':').map_or((source, ""), |(source, tag)| (source, tag));
            (tag.is_empty() || is_tag(tag)).then_some(())?;
            let tsid = Tsid { uuid: uuid(source)?, tag: tag.to_ascii_lowercase().into() };
            Some(Gtid { tsid, number: number(last)? })
        };
        parse().ok_or_else(|| Error::new(Kind::Protocol, format!("{text:?} is no GTID (uuid:number)")))
    }
}

impl fmt::Display for GtidSet {
    /// As the server prints it, without the newlines: the tags of a UUID follow its ordinary transactions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before: Option<&Tsid> = None;
        for (tsid, intervals) in self.sources() {
            match before {
                Some(before) if before.uuid == tsid.uuid => write!(f, ":{}", tsid.tag)?,
                Some(_) => write!(f, ",{tsid}")?,
                None => write!(f, "{tsid}")?,
            }
            for Interval { first, last } in intervals {
                write!(f, ":{first}")?;
                if last > first {
                    write!(f, "-{last}")?;
                }
            }
            before = Some(tsid);
        }
        Ok(())
    }
}

impl FromStr for GtidSet {
    type Err = Error;

    /// As the server prints it (`@@gtid_executed`), with or without spaces and newlines; or nothing.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |part: &str| {
            let part = part.trim();
            Error::new(Kind::Protocol, format!("{part:?} is no part of a GTID set (uuid:first-last)"))
        };
        let mut set = GtidSet::default();
        for source in text.split(',').map(str::trim).filter(|source| !source.is_empty()) {
            let mut parts = source.split(':').map(str::trim);
            let uuid = parts.next().and_then(uuid).ok_or_else(|| wrong(source))?;
            let mut tsid = Tsid::untagged(uuid);
            // A UUID, and a tag, must be followed by numbers.
            let mut bare = true;
            for part in parts {
                if is_tag(part) && (!bare || tsid.tag.is_empty()) {
                    tsid.tag = part.to_ascii_lowercase().into();
                    bare = true;
                } else {
                    set.insert_run(&tsid, interval(part).ok_or_else(|| wrong(source))?);
                    bare = false;
                }
            }
            if bare {
                return Err(wrong(source));
            }
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "726757ad-4455-11e8-ae04-0242ac110002";

    fn set(text: &str) -> GtidSet {
        text.replace('A', A).replace('B', B).parse().expect("a set")
    }

    fn gtid(text: &str) -> Gtid {
        text.replace('A', A).replace('B', B).parse().expect("a GTID")
    }

    #[test]
    fn what_the_server_prints_is_read() {
        let printed = format!("{A}:1-5:7:9-10,\n{B}:1-3:blue:1-2:green_1:4");
        let read: GtidSet = printed.parse().expect("a set");
        assert_eq!(read.to_string(), printed.replace('\n', ""));
        assert_eq!(read.count(), 5 + 1 + 2 + 3 + 2 + 1);
        assert!(read.contains(&gtid("B:green_1:4")) && !read.contains(&gtid("B:4")));
        assert!(read.has_tags() && !set("A:1").has_tags());
    }

    #[test]
    fn upper_case_no_dashes_spaces_overlaps_and_any_order_are_one_set() {
        let same = format!(" {}:7 : 1-3:2-5 ,{B}:Blue:1", A.to_uppercase().replace('-', ""));
        assert_eq!(same.parse::<GtidSet>().expect("a set"), set("B:blue:1,A:1-5:7"));
        assert_eq!(set("A:1-5:6"), set("A:1-6"), "they touch");
        assert_eq!(set("A:5-3,B:1"), set("B:1"), "an interval that ends before it begins is empty");
        assert!(set("").is_empty());
    }

    #[test]
    fn what_is_no_set_is_refused() {
        let long = format!("{A}:{}:1", "a".repeat(33));
        let bad =
            ["x", A, "A:", "A:0", "A:1-", "A:-1", "A:a-b:1", "A:tag", "A:1:tag", "A:a:b:1", "A:9223372036854775807"];
        for text in bad.iter().map(|text| text.replace('A', A)).chain([long]) {
            assert!(text.parse::<GtidSet>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_hole_is_not_included() {
        assert!(!set("A:1-5:7-9").contains(&gtid("A:6")));
        assert!(set("A:1-5:7-9") < set("A:1-9"));
        assert_eq!(set("A:1-5:7-9").partial_cmp(&set("A:1-6")), None);
        assert_eq!(set("A:1-5").partial_cmp(&set("B:1-5")), None);
        assert!(set("A:1-5") < set("A:1-5,B:1"));
        assert_eq!(set("A:1-9,B:4").minus(&set("A:1-5:7,B:1-3")), set("A:6:8-9,B:4"));
    }

    #[test]
    fn a_clone_does_not_see_what_is_added_later() {
        let mut grows = set("A:1-5:9");
        let mut seen = vec![grows.clone()];
        for number in 6..=8 {
            grows.insert(&gtid(&format!("A:{number}")));
            seen.push(grows.clone());
        }
        grows.insert(&gtid("B:1"));
        let text: Vec<String> = seen.iter().map(|set| set.to_string().replace(A, "A")).collect();
        assert_eq!(text, ["A:1-5:9", "A:1-6:9", "A:1-7:9", "A:1-9"]);
        assert_eq!(grows, set("A:1-9,B:1"));
    }

    /// A set as it would be without intervals.
    type Plain = BTreeSet<(u8, u8, u64)>;

    fn tsid((uuid, tag): (u8, u8)) -> Tsid {
        let tag = if tag == 0 { String::new() } else { format!("t{tag}") };
        Tsid { uuid: [uuid; 16], tag: tag.into() }
    }

    fn plain_gtid((uuid, tag, number): (u8, u8, u64)) -> Gtid {
        Gtid { tsid: tsid((uuid, tag)), number }
    }

    fn built(plain: &Plain) -> GtidSet {
        let mut set = GtidSet::default();
        plain.iter().for_each(|&one| set.insert(&plain_gtid(one)));
        set
    }

    fn any() -> impl Strategy<Value = Plain> {
        prop::collection::btree_set((0..3u8, 0..2u8, 1..16u64), 0..40)
    }

    proptest! {
        #[test]
        fn a_set_is_what_was_put_into_it(numbers in prop::collection::vec((0..3u8, 0..2u8, 1..16u64), 0..60)) {
            let mut set = GtidSet::default();
            let mut plain = Plain::new();
            for one in numbers {
                let before = set.clone();
                set.insert(&plain_gtid(one));
                prop_assert_eq!(&before, &built(&plain));
                plain.insert(one);
                prop_assert_eq!(set.count(), plain.len() as u64);
            }
            for (uuid, tag, number) in (0..3).flat_map(|u| (0..2).flat_map(move |t| (1..17).map(move |n| (u, t, n)))) {
                let one = (uuid, tag, number);
                prop_assert_eq!(set.contains(&plain_gtid(one)), plain.contains(&one));
            }
            prop_assert_eq!(set.to_string().parse::<GtidSet>().expect("its own text"), set);
        }

        #[test]
        fn union_inclusion_and_difference_are_those_of_sets(a in any(), b in any()) {
            let (own, theirs) = (built(&a), built(&b));
            let mut both = own.clone();
            both.union(&theirs);
            prop_assert_eq!(&both, &built(&a.union(&b).copied().collect()));
            prop_assert!(both >= own && both >= theirs);
            prop_assert_eq!(own.includes(&theirs), b.is_subset(&a));
            prop_assert_eq!(own == theirs, a == b);
            prop_assert_eq!(own.minus(&theirs), built(&a.difference(&b).copied().collect()));
        }

        #[test]
        fn any_text_is_a_set_or_an_error(text in "[0-9a-f:,_ -]{0,80}") {
            let _ = text.parse::<GtidSet>();
        }
    }
}
