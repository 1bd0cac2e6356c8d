#![allow(clippy::unwrap_used, reason = "a test may panic")]
//! Applying the plan to a table in memory gives what applying the changes one by one gives.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::change::Op;
use crate::schema::{Column, ColumnType, TableName};

pub(crate) fn table(key: Option<Vec<usize>>) -> Arc<TableSchema> {
    let columns = ["a", "k", "b"].map(|name| Column::new(name, ColumnType::built_in(25, "text")));
    Arc::new(TableSchema::new(TableName::new("public", "t"), columns.into(), key))
}

/// Key → the two other columns. The key is the middle column.
type Model = BTreeMap<u8, [u8; 2]>;

/// A change as the generator makes it; it becomes an event if it is valid at that moment.
#[derive(Debug, Clone)]
enum Step {
    Insert {
        key: u8,
        values: [u8; 2],
    },
    /// A `None` value is one that was not sent.
    Update {
        key: u8,
        to: u8,
        values: [Option<u8>; 2],
    },
    Delete {
        key: u8,
    },
    Truncate,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0u8..5;
    let step = prop_oneof![
        4 => (key.clone(), any::<[u8; 2]>()).prop_map(|(key, values)| Step::Insert { key, values }),
        6 => (key.clone(), key.clone(), any::<bool>(), any::<[Option<u8>; 2]>())
            .prop_map(|(key, to, stays, values)| Step::Update { key, to: if stays { key } else { to }, values }),
        3 => key.prop_map(|key| Step::Delete { key }),
        1 => Just(Step::Truncate),
    ];
    proptest::collection::vec(step, 0..40)
}

fn row(a: Option<u8>, key: u8, b: Option<u8>) -> Row {
    let field = |value: &Option<u8>| value.map(|v| [v]);
    let (a, b) = (field(&a), field(&b));
    let mut builder = RowBuilder::default();
    builder.push(a.as_ref().map_or(Datum::Unchanged, |v| Datum::Binary(v)));
    builder.push(Datum::Binary(&[key]));
    builder.push(b.as_ref().map_or(Datum::Unchanged, |v| Datum::Binary(v)));
    builder.finish()
}

fn key_row(key: u8) -> Row {
    [Datum::Null, Datum::Binary(&[key]), Datum::Null].into_iter().collect()
}

/// Carries the steps out on the model one by one and returns the events of those that were possible.
fn sequential(model: &mut Model, table: &Arc<TableSchema>, steps: &[Step]) -> Vec<ChangeEvent> {
    let mut events = Vec::new();
    let change =
        |op, old, new| ChangeEvent::Row(RowChange { table: Arc::clone(table), op, old, old_is_key_only: true, new });
    for step in steps {
        match step {
            Step::Insert { key, values } if !model.contains_key(key) => {
                model.insert(*key, *values);
                events.push(change(Op::Insert, None, Some(row(Some(values[0]), *key, Some(values[1])))));
            }
            Step::Update { key, to, values } if model.contains_key(key) && (key == to || !model.contains_key(to)) => {
                let before = model.remove(key).unwrap();
                model.insert(*to, [values[0].unwrap_or(before[0]), values[1].unwrap_or(before[1])]);
                let old = (key != to).then(|| key_row(*key));
                events.push(change(Op::Update, old, Some(row(values[0], *to, values[1]))));
            }
            Step::Delete { key } if model.remove(key).is_some() => {
                events.push(change(Op::Delete, Some(key_row(*key)), None));
            }
            Step::Truncate => {
                model.clear();
                events.push(ChangeEvent::Truncate(Truncate {
                    tables: vec![Arc::clone(table)],
                    restart_identity: false,
                    conditions: vec![],
                    elsewhere: vec![],
                }));
            }
            _ => {}
        }
    }
    events
}

fn byte(row: &Row, index: usize) -> Option<u8> {
    row.get(index).unwrap().bytes().map(|bytes| bytes[0])
}

/// Carries a plan out. Every delete and update must find its row, every insert a free key.
fn apply(model: &mut Model, stages: &[Stage<'_>]) {
    for stage in stages {
        if !stage.truncates.is_empty() {
            model.clear();
        }
        for table in &stage.tables {
            let Work::Folded(effect) = &table.work else { panic!("a keyed table is folded") };
            for row in &effect.deletes {
                assert!(model.remove(&byte(row, 1).unwrap()).is_some(), "a delete found no row");
            }
            // As one statement sees them: all rows are looked up before any is changed.
            let mut moved = Vec::new();
            for group in &effect.updates {
                for update in &group.rows {
                    assert_eq!(update.origin.is_some(), group.key_moves);
                    let from = byte(update.origin.as_deref().unwrap_or(&update.new), 1).unwrap();
                    let before = model.remove(&from).expect("an update found no row");
                    assert_eq!(unchanged_columns(&update.new), group.unchanged);
                    let values = [0, 2].map(|i| byte(&update.new, i));
                    let after = [values[0].unwrap_or(before[0]), values[1].unwrap_or(before[1])];
                    moved.push((byte(&update.new, 1).unwrap(), after));
                }
            }
            for (key, values) in moved {
                assert!(model.insert(key, values).is_none(), "two rows have one key");
            }
            for row in &effect.inserts {
                let values = [byte(row, 0).expect("an insert is complete"), byte(row, 2).expect("complete")];
                assert!(model.insert(byte(row, 1).unwrap(), values).is_none(), "an insert met a row");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn the_net_effect_equals_the_changes_one_by_one(start in any::<[Option<[u8; 2]>; 5]>(), steps in steps()) {
        let table = table(Some(vec![1]));
        let start: Model = start.into_iter().enumerate().filter_map(|(k, v)| Some((k as u8, v?))).collect();
        let mut expected = start.clone();
        let events = sequential(&mut expected, &table, &steps);
        let mut actual = start;
        apply(&mut actual, &plan(&events).expect("valid changes fold"));
        prop_assert_eq!(actual, expected);
    }
}

#[test]
fn a_table_without_key_keeps_every_change_in_order() {
    let table = table(None);
    let insert = |key| {
        let new = Some(row(Some(1), key, Some(1)));
        ChangeEvent::Row(RowChange {
            table: Arc::clone(&table),
            op: Op::Insert,
            old: None,
            old_is_key_only: false,
            new,
        })
    };
    let events = [insert(1), insert(1), insert(2)];
    let stages = plan(&events).unwrap();
    let Work::Ordered(changes) = &stages[0].tables[0].work else { panic!("not folded") };
    assert_eq!(
        changes.iter().map(|c| byte(c.new.as_ref().unwrap(), 1)).collect::<Vec<_>>(),
        [Some(1), Some(1), Some(2)]
    );
}

#[test]
fn a_key_that_is_inserted_twice_cannot_be_folded() {
    let table = table(Some(vec![1]));
    let new = || Some(row(Some(1), 1, Some(1)));
    let insert =
        || RowChange { table: Arc::clone(&table), op: Op::Insert, old: None, old_is_key_only: false, new: new() };
    assert_eq!(plan(&[ChangeEvent::Row(insert()), ChangeEvent::Row(insert())]).unwrap_err(), Unfoldable);
}

#[test]
fn a_key_change_that_something_follows_stays_one() {
    let table = table(Some(vec![1]));
    let (old, new) = (Some(key_row(1)), Some(row(Some(7), 2, Some(8))));
    let change = RowChange { table: Arc::clone(&table), op: Op::Update, old, old_is_key_only: true, new };
    let events = [ChangeEvent::Row(change)];
    let stages = plan_keeping(&events, &|name| name.table == "t").unwrap();
    let Work::Folded(effect) = &stages[0].tables[0].work else { panic!("folded") };
    assert!(effect.deletes.is_empty() && effect.inserts.is_empty());
    assert!(effect.updates[0].key_moves && effect.updates[0].unchanged.is_empty());
}

#[test]
fn an_incomplete_chain_of_key_changes_stays_one_update_of_the_first_key() {
    let table = table(Some(vec![1]));
    let step = |from: u8, to: u8, a: Option<u8>| {
        let (old, new) = (Some(key_row(from)), Some(row(a, to, None)));
        ChangeEvent::Row(RowChange { table: Arc::clone(&table), op: Op::Update, old, old_is_key_only: true, new })
    };
    let events = [step(1, 2, Some(7)), step(2, 3, None)];
    let stages = plan(&events).unwrap();
    let Work::Folded(effect) = &stages[0].tables[0].work else { panic!("folded") };
    assert!(effect.deletes.is_empty() && effect.inserts.is_empty());
    let [group] = &effect.updates[..] else { panic!("one group") };
    assert_eq!((group.unchanged.as_slice(), group.key_moves, group.rows.len()), (&[2][..], true, 1));
    let update = &group.rows[0];
    assert_eq!(byte(update.origin.as_ref().unwrap(), 1), Some(1));
    assert_eq!((byte(&update.new, 0), byte(&update.new, 1)), (Some(7), Some(3)));
}
