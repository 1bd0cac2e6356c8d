//! The keys of changed rows are kept while a verify asks for them.

use super::*;

impl Fixture {
    /// Keys kept under a generation, and tables marked whole, as `table key` and `table: why`.
    async fn kept(&self, generation: i64) -> Vec<String> {
        let sql = format!(
            "SELECT tbl || ' ' || key::text FROM cutwater.changed_key WHERE generation = {generation}
             UNION ALL SELECT tbl || ': ' || why FROM cutwater.changed_table WHERE generation = {generation}"
        );
        let rows = self.database.connect().await.query(&sql, &[]).await.unwrap();
        let mut kept: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        kept.sort();
        kept
    }
}

#[tokio::test]
async fn while_a_verify_asks_the_keys_of_every_batch_are_kept() {
    let f = Fixture::new(
        "CREATE TABLE seats (at date, id int, seat int UNIQUE, PRIMARY KEY (at, id)); CREATE TABLE log (v text)",
    )
    .await;
    let mut applier = f.applier().await;
    let t = table("seats", &[("at", "date"), ("id", "int4"), ("seat", "int4")], Some(&[0, 1]));
    let log = table("log", &[("v", "text")], None);
    let seat = |id: i32, seat: i32| text(&[Some("2026-02-01"), Some(&id.to_string()), Some(&seat.to_string())]);
    let binary = |id: i32, seat: i32| -> Row {
        let (id, seat) = (id.to_be_bytes(), seat.to_be_bytes());
        [Datum::Binary(&9528_i32.to_be_bytes()), Datum::Binary(&id), Datum::Binary(&seat)].into_iter().collect()
    };
    let keys = |ids: &[i32]| -> Vec<String> {
        ids.iter().map(|id| format!("\"public\".\"seats\" {{2026-02-01,{id}}}")).collect()
    };
    let before: Vec<_> = (1..=5).map(|id| insert(&t, seat(id, id))).collect();
    f.apply(&mut applier, before).await.unwrap();
    let state = f.target.state();
    assert_eq!(state.begin_tracking().await.unwrap(), Some(1));
    f.apply(&mut applier, vec![update(&t, seat(1, 1))]).await.unwrap();
    assert_eq!(f.kept(1).await, keys(&[1]));
    // Inserted and deleted at once is no change; of a key that moves both are.
    let changes = vec![
        delete(&t, seat(2, 2)),
        rekey(&t, seat(3, 3), seat(8, 3)),
        insert(&t, seat(9, 9)),
        insert(&t, seat(7, 7)),
        delete(&t, seat(7, 7)),
    ];
    f.apply(&mut applier, changes).await.unwrap();
    assert_eq!(f.kept(1).await, keys(&[1, 2, 3, 8, 9]));
    // The same text whatever form the stream has.
    f.apply(&mut applier, vec![update(&t, binary(4, 40)), update(&t, binary(1, 1))]).await.unwrap();
    assert_eq!(f.kept(1).await, keys(&[1, 2, 3, 4, 8, 9]));
    // Replayed: 5 takes the seat that 4 leaves.
    let applied = f.apply(&mut applier, vec![update(&t, seat(5, 40)), update(&t, seat(4, 41))]).await.unwrap();
    assert!(applied.replayed);
    assert_eq!(f.kept(1).await, keys(&[1, 2, 3, 4, 5, 8, 9]));
    // The next generation begins with the next batch, and a successor goes on with it.
    assert_eq!(state.begin_tracking().await.unwrap(), Some(2));
    f.apply(&mut applier, vec![insert(&log, text(&[Some("x")])), update(&t, seat(9, 90))]).await.unwrap();
    drop(applier);
    let mut applier = f.applier().await;
    f.apply(&mut applier, vec![update(&t, seat(8, 3))]).await.unwrap();
    let all = Truncate { tables: vec![t.clone()], restart_identity: false, conditions: vec![], elsewhere: vec![] };
    f.apply(&mut applier, vec![ChangeEvent::Truncate(all), insert(&t, seat(50, 1))]).await.unwrap();
    let mut expected = vec!["\"public\".\"log\": it has no key".to_owned()];
    expected.extend(keys(&[50, 8, 9]));
    expected.push("\"public\".\"seats\": it was truncated".to_owned());
    assert_eq!(f.kept(2).await, expected);
    // A clean verify under the second forgets the first.
    state.set_verify(1, 0, 5, Some(2), None).await.unwrap();
    assert!(f.kept(1).await.is_empty());
    assert_eq!(f.kept(2).await, expected);
}

/// What a verify reads must not change by a batch that did not know that its keys are wanted.
#[tokio::test]
async fn a_verify_that_asks_for_keys_waits_for_the_batch_under_way() {
    let f = Fixture::new(USERS).await;
    let t = users();
    let mut applier = f.applier().await;
    let open = |events| Batch { events, end: BatchEnd::Open, tolerate_missing: false };
    applier.apply(open(vec![begin(0x200), insert(&t, user("1", "a", None))])).await.unwrap();
    let asking = tokio::spawn({
        let state = f.target.state().clone();
        async move { state.begin_tracking().await.unwrap() }
    });
    let waits = "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%FROM cutwater.checkpoint%FOR UPDATE'";
    support::wait_for("it to wait", Duration::from_secs(20), async || f.database.value::<i64>(waits).await == 1).await;
    let end = BatchEnd::Commit { position: at(0x200), commit_time: Timestamp::UNIX_EPOCH };
    let last = vec![insert(&t, user("2", "a", None))];
    applier.apply(Batch { events: last, end, tolerate_missing: false }).await.unwrap();
    assert_eq!(asking.await.unwrap(), Some(1));
    assert_eq!(f.rows("users").await.len(), 2, "what was not kept is visible now");
    assert!(f.kept(1).await.is_empty());
    f.next.store(0x200, Ordering::Relaxed);
    f.apply(&mut applier, vec![update(&t, user("2", "b", None))]).await.unwrap();
    assert_eq!(f.kept(1).await, ["\"public\".\"users\" {2}"]);
}
