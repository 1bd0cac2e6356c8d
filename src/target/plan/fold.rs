//! The fold of one table: what became of each row the batch touched.
//!
//! A row's life within the batch is an [`Entity`]. It is found by the key the row has *now*, and remembers the key it had
//! when the batch began. A key is the bytes of the key columns: the source sends the stored value each time, so equal
//! bytes are the same row, and nothing needs to be decoded. No key is copied: the table holds hashes and indices.

use std::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{Image, NetEffect, Unfoldable, Update, UpdateGroup, complete_from_old, fill_unchanged, unchanged_columns};
use crate::change::{Datum, Op, Row, RowChange};

pub(super) struct Fold<'a> {
    /// Indices of the key columns, ascending.
    key: &'a [usize],
    /// Whether a key change stays one, even where it could be a delete and an insert.
    keeps_moves: bool,
    hasher: DefaultHashBuilder,
    /// (hash, index into `entities`) of each row that is known to be there, by its present key.
    alive: HashTable<(u64, u32)>,
    entities: Vec<Entity<'a>>,
}

struct Entity<'a> {
    /// Holds the key the row had when the batch began; `None` if it was not there then.
    origin: Option<Image<'a>>,
    /// What is known of the row now; `None` once it is gone.
    image: Option<Image<'a>>,
}

impl<'a> Fold<'a> {
    pub(super) fn new(key: &'a [usize], keeps_moves: bool) -> Self {
        Fold { key, keeps_moves, hasher: DefaultHashBuilder::default(), alive: HashTable::new(), entities: Vec::new() }
    }

    pub(super) fn add(&mut self, change: &'a RowChange) -> Result<(), Unfoldable> {
        match change.op {
            Op::Insert => {
                let new = Image::Sent(change.new.as_ref().ok_or(Unfoldable)?);
                self.spawn(Entity { origin: None, image: Some(new) })
            }
            Op::Update => {
                let new = complete_from_old(change).ok_or(Unfoldable)?;
                match &change.old {
                    Some(old) if !self.same_key(old, &new) => self.moves(old, new),
                    _ => self.update(change.new.as_ref().ok_or(Unfoldable)?, new),
                }
            }
            Op::Delete => {
                let old = change.old.as_ref().ok_or(Unfoldable)?;
                match self.take(old) {
                    Some(index) => self.entities[index].image = None,
                    None => self.entities.push(Entity { origin: Some(Image::Sent(old)), image: None }),
                }
                Ok(())
            }
        }
    }

    /// An update that leaves the key alone.
    fn update(&mut self, sent: &'a Row, new: Image<'a>) -> Result<(), Unfoldable> {
        let Some(index) = self.find(&new) else {
            let origin = if self.has_key(sent) { Image::Sent(sent) } else { new.clone() };
            return self.spawn(Entity { origin: Some(origin), image: Some(new) });
        };
        self.merge(index, new);
        Ok(())
    }

    /// An update that changes the key.
    fn moves(&mut self, old: &'a Row, new: Image<'a>) -> Result<(), Unfoldable> {
        let Some(index) = self.take(old) else {
            return self.spawn(Entity { origin: Some(Image::Sent(old)), image: Some(new) });
        };
        self.merge(index, new);
        self.register(index)
    }

    fn merge(&mut self, index: usize, new: Image<'a>) {
        let entity = &mut self.entities[index];
        let merged = match &entity.image {
            Some(before) if new.has_unchanged() => Image::Merged(fill_unchanged(&new, before)),
            _ => new,
        };
        entity.image = Some(merged);
    }

    fn spawn(&mut self, entity: Entity<'a>) -> Result<(), Unfoldable> {
        self.entities.push(entity);
        self.register(self.entities.len() - 1)
    }

    /// Makes a living entity findable by its present key; nobody else may be there.
    fn register(&mut self, index: usize) -> Result<(), Unfoldable> {
        let Fold { key, hasher, alive, entities, .. } = self;
        let row = entities[index].image.as_ref().ok_or(Unfoldable)?;
        let hash = hash_key(hasher, key, row).ok_or(Unfoldable)?;
        let number = u32::try_from(index).map_err(|_| Unfoldable)?;
        let same = |&(other, at): &(u64, u32)| other == hash && is_at(entities, key, at, row);
        match alive.entry(hash, same, |entry| entry.0) {
            hashbrown::hash_table::Entry::Occupied(_) => Err(Unfoldable),
            hashbrown::hash_table::Entry::Vacant(free) => {
                free.insert((hash, number));
                Ok(())
            }
        }
    }

    fn find(&self, row: &Row) -> Option<usize> {
        let hash = hash_key(&self.hasher, self.key, row)?;
        let same = |&(other, at): &(u64, u32)| other == hash && is_at(&self.entities, self.key, at, row);
        self.alive.find(hash, same).map(|&(_, at)| at as usize)
    }

    /// Finds the row with this key and makes it unfindable.
    fn take(&mut self, row: &Row) -> Option<usize> {
        let Fold { key, hasher, alive, entities, .. } = self;
        let hash = hash_key(hasher, key, row)?;
        let same = |&(other, at): &(u64, u32)| other == hash && is_at(entities, key, at, row);
        let entry = alive.find_entry(hash, same).ok()?;
        Some(entry.remove().0.1 as usize)
    }

    fn same_key(&self, a: &Row, b: &Row) -> bool {
        same_key(self.key, a, b)
    }

    fn has_key(&self, row: &Row) -> bool {
        key_fields(self.key, row).all(|datum| datum != Datum::Unchanged)
    }

    pub(super) fn finish(self) -> NetEffect<'a> {
        let mut effect = NetEffect::default();
        for Entity { origin, image } in self.entities {
            match (origin, image) {
                (None, None) => {}
                (None, Some(new)) => effect.inserts.push(new),
                (Some(origin), None) => effect.deletes.push(origin),
                (Some(origin), Some(new)) => {
                    let unchanged = if new.has_unchanged() { unchanged_columns(&new) } else { Vec::new() };
                    let key_moves = !same_key(self.key, &origin, &new);
                    if key_moves && unchanged.is_empty() && !self.keeps_moves {
                        effect.deletes.push(origin);
                        effect.inserts.push(new);
                    } else {
                        let update = Update { origin: key_moves.then_some(origin), new };
                        group(&mut effect.updates, unchanged, key_moves).push(update);
                    }
                }
            }
        }
        effect
    }
}

fn group<'g, 'a>(
    groups: &'g mut Vec<UpdateGroup<'a>>,
    unchanged: Vec<usize>,
    key_moves: bool,
) -> &'g mut Vec<Update<'a>> {
    let found = groups.iter().position(|group| group.key_moves == key_moves && group.unchanged == unchanged);
    let index = found.unwrap_or_else(|| {
        groups.push(UpdateGroup { unchanged, key_moves, rows: Vec::new() });
        groups.len() - 1
    });
    &mut groups[index].rows
}

fn is_at(entities: &[Entity<'_>], key: &[usize], at: u32, row: &Row) -> bool {
    entities[at as usize].image.as_ref().is_some_and(|image| same_key(key, image, row))
}

/// Whether two rows have the same bytes in the columns at these indices (ascending).
pub fn same_key(key: &[usize], a: &Row, b: &Row) -> bool {
    key_fields(key, a).eq(key_fields(key, b))
}

/// The fields of the key, in one walk over the row.
pub fn key_fields<'r>(key: &'r [usize], row: &'r Row) -> impl Iterator<Item = Datum<'r>> {
    let mut fields = row.fields();
    let mut at = 0;
    key.iter().filter_map(move |&index| {
        let datum = fields.nth(index - at);
        at = index + 1;
        datum
    })
}

/// `None` if a part of the key was not sent.
fn hash_key(hasher: &DefaultHashBuilder, key: &[usize], row: &Row) -> Option<u64> {
    let mut state = hasher.build_hasher();
    for datum in key_fields(key, row) {
        match datum {
            Datum::Unchanged => return None,
            datum => {
                state.write(datum.bytes().unwrap_or_default());
                state.write_u8(0);
            }
        }
    }
    Some(state.finish())
}
