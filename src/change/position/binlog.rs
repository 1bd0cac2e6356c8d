//! A place in the binary log of a MySQL or MariaDB server: a file and a byte offset in it.
//!
//! The files are called `<base>.<number>`; the number grows by one with each and may outgrow its six digits, so places are
//! ordered by the number and never by the name. Files of another base are another log: nothing is before or after it.
//! <https://dev.mysql.com/doc/refman/8.4/en/binary-log.html>

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Kind, Result};

/// A byte offset in a file of a binary log. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BinlogPlace {
    file: Arc<str>,
    number: u64,
    offset: u64,
}

impl BinlogPlace {
    /// The byte `offset` of `file`. An error if the name does not end in a number.
    pub fn new(file: &str, offset: u64) -> Result<BinlogPlace> {
        let number = file.rsplit_once('.').and_then(|(_, number)| number.parse().ok());
        let number =
            number.ok_or_else(|| Error::new(Kind::Protocol, format!("{file:?} is no file of a binary log")))?;
        Ok(BinlogPlace { file: file.into(), number, offset })
    }

    /// The file's name.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The file's number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes from the beginning of the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Another place in the same file.
    pub fn to(&self, offset: u64) -> BinlogPlace {
        BinlogPlace { offset, ..self.clone() }
    }

    fn base(&self) -> &str {
        self.file.rsplit_once('.').map_or("", |(base, _)| base)
    }
}

impl PartialOrd for BinlogPlace {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let same_log = Arc::ptr_eq(&self.file, &other.file) || self.base() == other.base();
        same_log.then(|| (self.number, self.offset).cmp(&(other.number, other.offset)))
    }
}

impl fmt::Display for BinlogPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)
    }
}

impl FromStr for BinlogPlace {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (file, offset) = text.trim().rsplit_once(':')?;
            BinlogPlace::new(file, offset.parse().ok()?).ok()
        };
        parse().ok_or_else(|| Error::new(Kind::Protocol, format!("{text:?} is no place in a binary log (file:offset)")))
    }
}

/// The files that a server's log is made of, and their sizes: what lies between two places in bytes. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogFiles(Arc<[(u64, u64)]>);

impl LogFiles {
    /// Numbers of files and their sizes in bytes, in ascending order.
    pub fn new(files: impl IntoIterator<Item = (u64, u64)>) -> LogFiles {
        LogFiles(files.into_iter().collect())
    }

    /// The size of all of them in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|(_, size)| size).sum()
    }

    /// Bytes of log between two places; `None` if a file between them is not known.
    pub fn between(&self, earlier: &BinlogPlace, later: &BinlogPlace) -> Option<u64> {
        match earlier.partial_cmp(later)? {
            Ordering::Equal | Ordering::Greater => Some(0),
            Ordering::Less if earlier.number == later.number => Some(later.offset - earlier.offset),
            Ordering::Less => {
                let whole = self.0.iter().filter(|(number, _)| (earlier.number..later.number).contains(number));
                let (files, bytes) = whole.fold((0, 0u64), |(files, sum), (_, size)| (files + 1, sum + size));
                let known = files == later.number - earlier.number;
                known.then(|| (bytes + later.offset).saturating_sub(earlier.offset))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> BinlogPlace {
        text.parse().expect("a place")
    }

    #[test]
    fn places_are_ordered_by_the_number_of_the_file() {
        assert!(at("binlog.000009:900") < at("binlog.000010:4"));
        assert!(at("binlog.999999:900") < at("binlog.1000000:4"));
        assert!(at("binlog.000010:4") < at("binlog.000010:30"));
        assert_eq!(at("a.000001:4").partial_cmp(&at("b.000002:4")), None);
    }

    #[test]
    fn a_base_may_hold_dots_and_colons() {
        let place = at("db1.example:3306-bin.000042:1234");
        assert_eq!((place.file(), place.number(), place.offset()), ("db1.example:3306-bin.000042", 42, 1234));
        assert_eq!(place.to_string(), "db1.example:3306-bin.000042:1234");
        assert_eq!(place.to(4).to_string(), "db1.example:3306-bin.000042:4");
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in ["", "binlog:4", "binlog.000001", "binlog.000001:", "binlog.000001:-4", "binlog.x:4"] {
            assert!(text.parse::<BinlogPlace>().is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_between_places_count_the_files_between() {
        let files = LogFiles::new([(9, 1000), (10, 500), (11, 70)]);
        assert_eq!(files.between(&at("b.000009:900"), &at("b.000011:50")), Some(100 + 500 + 50));
        assert_eq!(files.between(&at("b.000011:10"), &at("b.000011:50")), Some(40));
        assert_eq!(files.between(&at("b.000011:50"), &at("b.000011:10")), Some(0));
        assert_eq!(files.between(&at("b.000008:900"), &at("b.000011:50")), None, "8 is gone");
        assert_eq!(files.bytes(), 1570);
    }
}
