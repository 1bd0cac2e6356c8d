//! The partitions that a partitioned table's rows lie in, and what became of them.
//!
//! Changes of partitions arrive under the root's name. What is done to a partition as a whole does not arrive at all: a
//! TRUNCATE of one, and rows that come or go with ATTACH and DETACH. The catalogue tells: by the partitions there are, by
//! how each came to its place, and by the file its rows lie in.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The partitions of every partitioned table, by the table's name at the source, then by their OID.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Leaves(pub BTreeMap<String, BTreeMap<u32, Leaf>>);

/// A partition, at any level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// Its name.
    pub name: String,
    /// The file of its rows; 0 if it is partitioned itself.
    pub file: u32,
    /// The transaction that made it a partition.
    pub attached: String,
}

/// What became of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    /// It was none before.
    Attached,
    /// It was taken out and put back.
    Reattached,
    /// It is none any more.
    Detached,
    /// Its rows lie in another file.
    Rewritten,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafChange {
    /// The partitioned table.
    pub table: String,
    /// OID of the partition.
    pub id: u32,
    /// The partition as it is now; as it was if it is gone.
    pub leaf: Leaf,
    /// What happened.
    pub became: Became,
}

impl Leaves {
    /// What happened between this look and a later one, in the tables that both know.
    pub fn until(&self, now: &Leaves) -> Vec<LeafChange> {
        let mut changes = Vec::new();
        for (table, after) in &now.0 {
            let Some(before) = self.0.get(table) else { continue };
            let mut add = |id: u32, leaf: &Leaf, became| {
                changes.push(LeafChange { table: table.clone(), id, leaf: leaf.clone(), became });
            };
            for (&id, leaf) in after {
                match before.get(&id) {
                    Some(old) if old.attached == leaf.attached && old.file == leaf.file => {}
                    Some(old) if old.attached == leaf.attached => add(id, leaf, Became::Rewritten),
                    Some(_) => add(id, leaf, Became::Reattached),
                    None => add(id, leaf, Became::Attached),
                }
            }
            for (&id, leaf) in before.iter().filter(|(id, _)| !after.contains_key(id)) {
                add(id, leaf, Became::Detached);
            }
        }
        changes
    }
}

impl fmt::Display for LeafChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LeafChange { table, leaf, became, .. } = self;
        let name = &leaf.name;
        match became {
            Became::Attached => {
                write!(f, "{name} became a partition of {table}: rows it brought are not in the stream")
            }
            Became::Reattached => {
                write!(
                    f,
                    "partition {name} of {table} was detached and attached again: what it gained and lost meanwhile is not in the stream"
                )
            }
            Became::Detached => write!(f, "{name} is no partition of {table} any more: its rows stay at the target"),
            Became::Rewritten => write!(
                f,
                "partition {name} of {table} was emptied by a TRUNCATE of its own, which is not in the stream, or \
                 rewritten (VACUUM FULL, CLUSTER)"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(of: &[(u32, u32, &str)]) -> Leaves {
        let leaf = |&(id, file, attached): &(u32, u32, &str)| {
            (id, Leaf { name: format!("p{id}"), file, attached: attached.into() })
        };
        Leaves(BTreeMap::from([("t".to_owned(), of.iter().map(leaf).collect())]))
    }

    #[test]
    fn every_change_of_a_partition_is_told_and_nothing_else() {
        let before = leaves(&[(1, 10, "5"), (2, 20, "5"), (3, 30, "5"), (4, 40, "5")]);
        assert_eq!(before.until(&before), []);
        assert_eq!(Leaves::default().until(&before), [], "a table that was not known");
        let after = leaves(&[(1, 10, "5"), (2, 21, "5"), (3, 30, "6"), (5, 50, "7")]);
        let seen: Vec<(u32, Became)> = before.until(&after).iter().map(|change| (change.id, change.became)).collect();
        assert_eq!(
            seen,
            [(2, Became::Rewritten), (3, Became::Reattached), (5, Became::Attached), (4, Became::Detached)]
        );
    }
}
