//! The MySQL and MariaDB target against real servers: batches made by hand, and what the tables hold afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

#[path = "target_mysql/cascades.rs"]
mod cascades;
#[path = "target_mysql/fixture.rs"]
mod fixture;
#[path = "target_mysql/load.rs"]
mod load;
#[path = "target_mysql/rates.rs"]
mod rates;
mod support;
#[path = "target_mysql/values.rs"]
mod values_of_all_types;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use cutwater::change::ChangeEvent;
use cutwater::change::{Datum, Message, Op, Row};
use cutwater::config::ApplyConfig;
use cutwater::error::Kind;
use cutwater::schema::{Column, TableSchema};
use cutwater::target::{Applier, Target};
use fixture::*;
use jiff::Timestamp;
use support::wait_for;

const USERS: &str = "CREATE TABLE users (id int PRIMARY KEY, name varchar(40), note text)";

fn user(id: i32, name: &str, note: Option<&str>) -> Row {
    row(&[Some(&id.to_string()), Some(name), note])
}

fn user_key(id: i32) -> Row {
    row(&[Some(&id.to_string()), None, None])
}

#[tokio::test]
async fn every_operation_reaches_the_table_and_moves_the_checkpoint() {
    on_both(USERS, async |f| {
        let mut applier = f.applier().await;
        assert_eq!(applier.checkpoint().get(), &at(0x100));
        let t = f.table("users").await;
        let first = vec![insert(&t, user(1, "ann", None)), insert(&t, user(2, "b'o\"b\t\\N\n\0", Some("x")))];
        let applied = f.apply(&mut applier, first).await.unwrap();
        assert_eq!(applied.durable.unwrap().get(), &at(0x200));
        assert_eq!((applied.transactions, applied.replayed), (1, false));
        assert_eq!(applied.rows[&(t.name.clone(), Op::Insert)], 2);
        assert_eq!(f.rows("users").await, ["1,ann,", "2,b'o\"b\t\\N\n\0,x"]);
        f.apply_as_sets(&mut applier, vec![update(&t, user(1, "anna", Some("y"))), delete(&t, user_key(2))]).await;
        assert_eq!(f.rows("users").await, ["1,anna,y"]);
        assert_eq!(f.checkpoint().await, at(0x300));
        let checkpoint = f.target.state().checkpoint().await.unwrap().unwrap();
        assert_eq!((checkpoint.changes, checkpoint.transactions, checkpoint.divergences), (4, 2, 0));
        assert_eq!(checkpoint.commit_time, Some(Timestamp::UNIX_EPOCH));
        // An update to what is there already finds its row.
        f.apply_as_sets(&mut applier, vec![update(&t, user(1, "anna", Some("y")))]).await;
        assert_eq!(applier.advance(&at(0x900)).await.unwrap().get(), &at(0x900));
        assert_eq!(f.checkpoint().await, at(0x900));
        let standing = f.target.standing().await.unwrap();
        assert!(standing.version.starts_with(|c: char| c.is_ascii_digit()), "{standing:?}");
        assert!((standing.now.as_second() - Timestamp::now().as_second()).abs() < 60, "{standing:?}");
    })
    .await;
}

#[tokio::test]
async fn large_sets_of_every_operation_go_through() {
    on_both(USERS, async |f| {
        let mut applier = f.applier().await;
        let t = f.table("users").await;
        f.apply_as_sets(&mut applier, (0..3000).map(|id| insert(&t, user(id, "a", None))).collect()).await;
        let mut changes: Vec<_> = (0..1500).map(|id| update(&t, user(id, "b", None))).collect();
        changes.extend((1500..2700).map(|id| delete(&t, user_key(id))));
        changes.extend((2700..3000).map(|id| rekey(&t, user_key(id), user(id + 3000, "c", None))));
        f.apply_as_sets(&mut applier, changes).await;
        let sum = "SELECT GROUP_CONCAT(name, n ORDER BY name) FROM (SELECT name, count(*) n FROM users GROUP BY 1) x";
        assert_eq!(f.value(sum).await.as_deref(), Some("b1500,c300"));
        f.apply(&mut applier, vec![truncate(&t), insert(&t, user(1, "d", None))]).await.unwrap();
        assert_eq!(f.rows("users").await, ["1,d,"]);
    })
    .await;
}

#[tokio::test]
async fn chains_of_changes_fold_to_what_they_come_to() {
    on_both(USERS, async |f| {
        let mut applier = f.applier().await;
        let t = f.table("users").await;
        f.apply_as_sets(&mut applier, (1..=4).map(|id| insert(&t, user(id, "old", Some("kept")))).collect()).await;
        let changes = vec![
            insert(&t, user(9, "new", Some("n"))),
            rekey(&t, user_key(9), row(&[Some("10"), Some("moved"), UNSENT])),
            insert(&t, user(11, "gone", None)),
            delete(&t, user_key(11)),
            rekey(&t, user_key(1), row(&[Some("5"), Some("one"), UNSENT])),
            rekey(&t, user_key(5), row(&[Some("6"), Some("uno"), UNSENT])),
            delete(&t, user_key(2)),
            insert(&t, user(2, "again", None)),
            update(&t, row(&[Some("3"), Some("three"), UNSENT])),
            update(&t, row(&[Some("3"), UNSENT, Some("set")])),
            rekey(&t, user_key(4), user(1, "four", Some("full"))),
        ];
        f.apply_as_sets(&mut applier, changes).await;
        assert_eq!(f.rows("users").await, ["1,four,full", "10,moved,n", "2,again,", "3,three,set", "6,uno,kept"]);
    })
    .await;
}

/// MINIMAL and NOBLOB images leave columns out: what the target would change in them by itself stays too.
#[tokio::test]
async fn a_column_that_was_not_sent_keeps_its_value() {
    let ddl = "CREATE TABLE users (id int PRIMARY KEY, name varchar(40), note text,
                 changed timestamp(3) NULL DEFAULT NULL ON UPDATE CURRENT_TIMESTAMP(3))";
    on_both(ddl, async |f| {
        let mut applier = f.applier().await;
        let t = f.table("users").await;
        let before = row(&[Some("1"), Some("a"), Some("large"), Some("2020-01-02 03:04:05.678")]);
        f.apply_as_sets(&mut applier, vec![insert(&t, before)]).await;
        f.apply_as_sets(&mut applier, vec![update(&t, row(&[Some("1"), Some("b"), UNSENT, UNSENT]))]).await;
        assert_eq!(f.rows("users").await, ["1,b,large,2020-01-02 03:04:05.678"]);
        // Nor in the images of a table that has no key.
        let t = f.keyless("users").await;
        let old = row(&[Some("1"), Some("b"), Some("large"), Some("2020-01-02 03:04:05.678")]);
        let change = rekey(&t, old, row(&[Some("1"), Some("c"), UNSENT, UNSENT]));
        f.apply(&mut applier, vec![change]).await.unwrap();
        assert_eq!(f.rows("users").await, ["1,c,large,2020-01-02 03:04:05.678"]);
    })
    .await;
}

#[tokio::test]
async fn values_that_pass_through_a_secondary_unique_index_fall_back_and_succeed() {
    on_both("CREATE TABLE seats (id int PRIMARY KEY, seat int UNIQUE)", async |f| {
        let mut applier = f.applier().await;
        let t = f.table("seats").await;
        let seat = |id: i32, seat: i32| values(&[&id.to_string(), &seat.to_string()]);
        f.apply_as_sets(&mut applier, (1..=3).map(|id| insert(&t, seat(id, id))).collect()).await;
        // As one statement, which begins with the row that was touched first, 1 would meet 2.
        let changes =
            vec![update(&t, seat(1, 1)), update(&t, seat(3, 4)), update(&t, seat(2, 3)), update(&t, seat(1, 2))];
        let applied = f.apply(&mut applier, changes).await.unwrap();
        assert!(applied.replayed);
        assert_eq!(f.rows("seats").await, ["1,2", "2,3", "3,4"]);
        // Valid only at the end of the source's transaction.
        let changes = vec![update(&t, seat(1, 3)), update(&t, seat(2, 4)), update(&t, seat(3, 5))];
        let applied = f.apply(&mut applier, changes).await.unwrap();
        assert!(applied.replayed);
        assert_eq!(f.rows("seats").await, ["1,3", "2,4", "3,5"]);
        assert_eq!(f.checkpoint().await, at(0x400));
    })
    .await;
}

#[tokio::test]
async fn a_bad_row_is_named_and_nothing_of_its_batch_stays() {
    on_both("CREATE TABLE users (id int PRIMARY KEY, name varchar(8), note text)", async |f| {
        let mut applier = f.applier().await;
        let t = f.table("users").await;
        let mut changes: Vec<_> = (1..100).map(|id| insert(&t, user(id, "ok", None))).collect();
        changes.push(insert(&t, user(100, "much too long", None)));
        let error = f.apply(&mut applier, changes).await.unwrap_err();
        assert_eq!(error.kind(), Kind::BadRow, "{error}");
        let message = error.message();
        for part in [".users", "id = 100", "0/1F0", "Data too long for column 'name'"] {
            assert!(message.contains(part), "{part:?} in {message}");
        }
        assert!(error.suggestion().unwrap().contains("on_error = \"dead-letter\""), "{error}");
        assert!(f.rows("users").await.is_empty());
        assert_eq!(f.checkpoint().await, at(0x100));
        // The applier is spent, a new one goes on from the checkpoint.
        assert_eq!(applier.apply(f.batch(vec![])).await.unwrap_err().kind(), Kind::Internal);
        assert_eq!(f.applier().await.checkpoint().get(), &at(0x100));
    })
    .await;
}

/// Strict mode cuts the digits of a fraction with no more than a note.
#[tokio::test]
async fn a_value_that_would_be_cut_is_refused() {
    on_both("CREATE TABLE prices (id int PRIMARY KEY, price decimal(10, 2))", async |f| {
        let t = f.table("prices").await;
        let error = f.apply(&mut f.applier().await, vec![insert(&t, values(&["1", "1.239"]))]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::BadRow, "{error}");
        assert!(error.message().contains("'price'"), "{error}");
        f.known(&[&t]).await;
        let error = f.load(&t, cutwater::target::LoadMode::Append, &[values(&["1", "1.239"])]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::BadRow, "{error}");
        assert!(f.rows("prices").await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_row_set_aside_is_in_the_dead_letters_and_the_others_arrive() {
    on_both("CREATE TABLE users (id int PRIMARY KEY, name varchar(8), note text)", async |f| {
        let mut applier = f.setting_aside().await;
        let t = f.table("users").await;
        let bad = user(2, "much too long", None);
        let changes = vec![
            insert(&t, user(1, "a", None)),
            insert(&t, bad.clone()),
            insert(&t, user(3, "c", None)),
            delete(&t, user_key(77)),
        ];
        let applied = f.apply(&mut applier, changes).await.unwrap();
        assert_eq!((applied.dead_letters, applied.divergences, applied.replayed), (2, 1, true));
        assert_eq!(f.rows("users").await, ["1,a,", "3,c,"]);
        assert_eq!(f.target.state().dead_letters().await.unwrap(), 2);
        let sql = format!(
            "SELECT HEX(new_row) FROM cutwater.dead_letter WHERE `key` = 'id = 2' AND migration = '{}'",
            f.database
        );
        let hex = f.value(&sql).await.unwrap();
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        assert_eq!(Row::parse(Bytes::from(bytes)), Some(bad));
        assert_eq!(f.target.state().checkpoint().await.unwrap().unwrap().divergences, 1);
    })
    .await;
}

#[tokio::test]
async fn an_update_that_finds_no_row_is_a_named_divergence() {
    on_both(USERS, async |f| {
        let t = f.table("users").await;
        for changes in [vec![update(&t, user(42, "x", None))], vec![delete(&t, user_key(42))]] {
            let batch = f.batch(vec![vec![insert(&t, user(1, "a", None))], changes]);
            let error = f.applier().await.apply(batch).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Divergence, "{error}");
            assert!(error.message().contains(".users (id = 42)"), "{error}");
            assert!(f.rows("users").await.is_empty());
            f.next.store(0x100, Ordering::Relaxed);
        }
        // Behind a copy that a TRUNCATE has emptied it is none (TRAPS 7).
        let mut batch = f.batch(vec![vec![update(&t, user(42, "x", None)), insert(&t, user(1, "a", None))]]);
        batch.tolerate_missing = true;
        f.applier().await.apply(batch).await.unwrap();
        assert_eq!(f.rows("users").await, ["1,a,"]);
    })
    .await;
}

#[tokio::test]
async fn a_raised_epoch_fences_the_applier_of_before() {
    on_both(USERS, async |f| {
        let t = f.table("users").await;
        let mut first = f.applier().await;
        let second_lease = take_lease(&f.target, "second").await;
        let error = f.apply(&mut first, vec![insert(&t, user(1, "late", None))]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Fenced);
        assert!(f.rows("users").await.is_empty());
        assert_eq!(f.target.applier(&f.lease, &ApplyConfig::default()).await.err().unwrap().kind(), Kind::Fenced);
        f.next.store(0x100, Ordering::Relaxed);
        let mut second = f.target.applier(&second_lease, &ApplyConfig::default()).await.unwrap();
        f.apply(&mut second, vec![insert(&t, user(1, "right", None))]).await.unwrap();
        assert_eq!(f.rows("users").await, ["1,right,"]);
    })
    .await;
}

#[tokio::test]
async fn a_successor_waits_for_a_transaction_that_is_open_and_sees_its_checkpoint() {
    on_both(USERS, async |f| {
        let t = f.table("users").await;
        let mut first = f.applier().await;
        first.apply(part(vec![begin(0x200), insert(&t, user(1, "a", None))])).await.unwrap();
        let target = f.target.clone();
        let mut taking = tokio::spawn(async move { take_lease(&target, "second").await });
        let waits = "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'";
        wait_for("the successor waits for the lock", Duration::from_secs(60), async || {
            // The server shows what it last saw, until nobody has asked for a tenth of a second.
            tokio::time::sleep(Duration::from_millis(200)).await;
            f.value(waits).await.as_deref() != Some("0")
        })
        .await;
        assert!(!taking.is_finished());
        first.apply(last_part(vec![commit(0x200)], 0x200)).await.unwrap();
        let lease = support::within("taking the lease", Duration::from_secs(60), &mut taking).await.unwrap();
        let second = f.target.applier(&lease, &ApplyConfig::default()).await.unwrap();
        assert_eq!(second.checkpoint().get(), &at(0x200));
        f.next.store(0x200, Ordering::Relaxed);
        let late = f.apply(&mut first, vec![insert(&t, user(2, "late", None))]).await.unwrap_err();
        assert_eq!(late.kind(), Kind::Fenced, "{late}");
        assert_eq!(f.rows("users").await, ["1,a,"]);
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_is_killed_in_mid_batch_leaves_nothing() {
    on_both(USERS, async |f| {
        let t = f.table("users").await;
        let mut applier = f.applier().await;
        applier.apply(part(vec![begin(0x200), insert(&t, user(1, "a", None))])).await.unwrap();
        let sql = "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx t
                     JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id WHERE p.db = DATABASE()";
        let id = f.value(sql).await.expect("the applier's transaction");
        f.execute(&format!("KILL {id}")).await;
        let last = vec![insert(&t, user(2, "b", None)), commit(0x200)];
        let error = applier.apply(last_part(last, 0x200)).await.unwrap_err();
        assert!(matches!(error.kind(), Kind::Connection | Kind::Transient), "{error:?}");
        assert!(f.rows("users").await.is_empty());
        assert_eq!(f.applier().await.checkpoint().get(), &at(0x100));
    })
    .await;
}

#[tokio::test]
async fn a_large_transaction_in_parts_is_invisible_until_its_commit() {
    on_both(USERS, async |f| {
        let t = f.table("users").await;
        let mut applier = f.applier().await;
        let mut events = vec![begin(0x200)];
        events.extend((0..100).map(|id| insert(&t, user(id, "a", None))));
        assert!(applier.apply(part(events)).await.unwrap().durable.is_none());
        let second = vec![
            insert(&t, user(200, "x", None)),
            rekey(&t, user_key(200), user(201, "y", None)),
            update(&t, user(0, "b", None)),
        ];
        applier.apply(part(second)).await.unwrap();
        let third = vec![delete(&t, user_key(1)), insert(&t, user(300, "a", None)), update(&t, user(201, "z", None))];
        applier.apply(part(third)).await.unwrap();
        assert!(f.rows("users").await.is_empty());
        assert_eq!(f.checkpoint().await, at(0x100));
        let applied = applier.apply(last_part(vec![commit(0x200)], 0x200)).await.unwrap();
        assert_eq!(applied.durable.unwrap().get(), &at(0x200));
        assert_eq!(f.rows("users").await.len(), 101);
        let checkpoint = f.target.state().checkpoint().await.unwrap().unwrap();
        assert_eq!((checkpoint.changes, checkpoint.transactions), (106, 1));
    })
    .await;
}

#[tokio::test]
async fn a_replay_of_one_part_keeps_the_parts_before() {
    on_both("CREATE TABLE seats (id int PRIMARY KEY, seat int UNIQUE)", async |f| {
        let mut applier = f.applier().await;
        let t = f.table("seats").await;
        let seat = |id: i32, seat: i32| values(&[&id.to_string(), &seat.to_string()]);
        f.apply_as_sets(&mut applier, (1..=3).map(|id| insert(&t, seat(id, id))).collect()).await;
        applier.apply(part(vec![begin(0x300), insert(&t, seat(9, 9))])).await.unwrap();
        // 1 takes the seat that 2 leaves only in the next part.
        let applied = applier.apply(part(vec![update(&t, seat(1, 2))])).await.unwrap();
        assert!(applied.replayed);
        applier.apply(last_part(vec![update(&t, seat(2, 7)), commit(0x300)], 0x300)).await.unwrap();
        assert_eq!(f.rows("seats").await, ["1,2", "2,7", "3,3", "9,9"]);
    })
    .await;
}

#[tokio::test]
async fn one_of_two_equal_rows_without_a_key_goes() {
    on_both("CREATE TABLE log (a int, v varchar(20), d double)", async |f| {
        let mut applier = f.applier().await;
        let t = f.table("log").await;
        assert!(t.key.is_none());
        let line = |v: &str| row(&[None, Some(v), Some("0.1")]);
        let changes = ["x", "x", "X", "x "].map(|v| insert(&t, line(v)));
        f.apply_as_sets(&mut applier, changes.into()).await;
        f.apply_as_sets(&mut applier, vec![delete(&t, line("x"))]).await;
        assert_eq!(f.rows("log").await, [",X,0.1", ",x ,0.1", ",x,0.1"]);
        // What only a collation takes for equal is another row.
        f.apply_as_sets(&mut applier, vec![rekey(&t, line("X"), line("y")), delete(&t, line("x "))]).await;
        assert_eq!(f.rows("log").await, [",x,0.1", ",y,0.1"]);
        let error = f.apply(&mut applier, vec![delete(&t, line("Y"))]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Divergence, "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_truncate_in_the_middle_of_a_batch_divides_it() {
    let ddl = "CREATE TABLE users (id int PRIMARY KEY, name varchar(40), note text);
               CREATE TABLE pets (id int PRIMARY KEY, owner int, FOREIGN KEY (owner) REFERENCES users (id))";
    on_both(ddl, async |f| {
        let mut applier = f.applier().await;
        let (t, pets) = (f.table("users").await, f.table("pets").await);
        f.apply_as_sets(&mut applier, vec![insert(&t, user(1, "a", None)), insert(&pets, values(&["1", "1"]))]).await;
        let changes = vec![
            insert(&t, user(2, "b", None)),
            update(&t, user(1, "c", None)),
            truncate(&pets),
            truncate(&t),
            insert(&t, user(2, "d", None)),
        ];
        f.apply_as_sets(&mut applier, changes).await;
        assert_eq!(f.rows("users").await, ["2,d,"]);
        assert!(f.rows("pets").await.is_empty());
        // It goes back with its batch.
        let bad = vec![truncate(&t), update(&t, user(2, "e", None))];
        assert_eq!(f.apply(&mut applier, bad).await.unwrap_err().kind(), Kind::Divergence);
        assert_eq!(f.rows("users").await, ["2,d,"]);
    })
    .await;
}

#[tokio::test]
async fn what_the_target_lacks_or_has_too_much_of_is_named_with_what_to_do() {
    let ddl = "CREATE TABLE users (id int PRIMARY KEY, name varchar(40));
               CREATE TABLE pets (id int PRIMARY KEY);
               CREATE TRIGGER fires AFTER INSERT ON pets FOR EACH ROW SET @fired = 1";
    on_both(ddl, async |f| {
        let named = async |table: Arc<TableSchema>, fields: &[&str]| {
            let error = f.apply(&mut f.applier().await, vec![insert(&table, values(fields))]).await.unwrap_err();
            f.next.store(0x100, Ordering::Relaxed);
            assert_eq!(error.kind(), Kind::Schema, "{error}");
            error
        };
        let users = f.table("users").await;
        let mut more = TableSchema::clone(&users);
        more.columns.push(Column::new("note", users.columns[1].ty.clone()));
        let error = named(more.into(), &["1", "a", "b"]).await;
        assert!(error.message().contains("has no column \"note\""), "{error}");
        assert!(error.suggestion().unwrap().contains("ADD COLUMN `note` varchar(40)"), "{error}");
        let mut nowhere = TableSchema::clone(&users);
        nowhere.name.table = "nowhere".into();
        let error = named(nowhere.into(), &["1", "a"]).await;
        assert!(error.message().contains(".nowhere"), "{error}");
        let error = named(f.table("pets").await, &["1"]).await;
        assert!(error.message().contains("has triggers, which would fire a second time"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn the_fences_marker_is_recorded_and_a_change_behind_it_breaks_it() {
    on_both(USERS, async |f| {
        let t = f.table("users").await;
        let mut applier = f.applier().await;
        let state = f.target.state();
        state.begin_cutover("n1", Timestamp::UNIX_EPOCH).await.unwrap();
        let marker = ChangeEvent::Message(Message::Fence { nonce: "n1".into() });
        let applied = f.apply(&mut applier, vec![insert(&t, user(1, "a", None)), marker]).await.unwrap();
        assert_eq!(applied.fence.as_deref(), Some("n1"));
        let cutover = state.cutover().await.unwrap().unwrap();
        assert_eq!((cutover.drained_at, cutover.broken), (Some(at(0x200)), None));
        // A new applier learns of the fence from the state.
        drop(applier);
        let mut applier = f.applier().await;
        f.apply(&mut applier, vec![insert(&t, user(2, "b", None))]).await.unwrap();
        let broken = state.cutover().await.unwrap().unwrap().broken.unwrap();
        assert!(broken.contains(".users changed at 0/2F0"), "{broken}");
        assert_eq!(f.rows("users").await.len(), 2);
    })
    .await;
}

impl Fixture {
    /// Keys kept under a generation, and tables marked whole, as `table key` and `table: why`.
    async fn kept(&self, generation: i64) -> Vec<String> {
        let name = &self.database;
        let sql = format!(
            "SELECT CONCAT(tbl, ' ', `key`) FROM cutwater.changed_key
              WHERE migration = '{name}' AND generation = {generation}
             UNION ALL SELECT CONCAT(tbl, ': ', why) FROM cutwater.changed_table
              WHERE migration = '{name}' AND generation = {generation}"
        );
        let rows = self.session().await.rows(sql).await.unwrap();
        let mut kept: Vec<String> = rows.into_iter().map(|row| row[0].clone().unwrap().replace(name, "shop")).collect();
        kept.sort();
        kept
    }
}

#[tokio::test]
async fn while_a_verify_asks_the_keys_of_every_batch_are_kept() {
    let ddl = "CREATE TABLE seats (at date, id binary(2), seat int UNIQUE, PRIMARY KEY (at, id));
               CREATE TABLE log (v text)";
    on_both(ddl, async |f| {
        let mut applier = f.applier().await;
        let (t, log) = (f.table("seats").await, f.table("log").await);
        let seat = |id: u8, seat: i32| -> Row {
            let seat = seat.to_string();
            [Datum::Text(b"2026-02-01"), Datum::Binary(&[0, id]), Datum::Text(seat.as_bytes())].into_iter().collect()
        };
        let keys = |ids: &[u8]| -> Vec<String> {
            ids.iter().map(|id| format!("\"shop\".\"seats\" [\"2026-02-01\",\"00{id:02x}\"]")).collect()
        };
        f.apply_as_sets(&mut applier, (1..=5).map(|id| insert(&t, seat(id, id.into()))).collect()).await;
        let state = f.target.state();
        assert_eq!(state.begin_tracking().await.unwrap(), Some(1));
        f.apply_as_sets(&mut applier, vec![update(&t, seat(1, 1))]).await;
        assert_eq!(f.kept(1).await, keys(&[1]));
        // Inserted and deleted at once is no change; of a key that moves both are.
        let changes = vec![
            delete(&t, seat(2, 2)),
            rekey(&t, seat(3, 3), seat(8, 3)),
            insert(&t, seat(9, 9)),
            insert(&t, seat(7, 7)),
            delete(&t, seat(7, 7)),
        ];
        f.apply_as_sets(&mut applier, changes).await;
        assert_eq!(f.kept(1).await, keys(&[1, 2, 3, 8, 9]));
        // Replayed: 5 takes the seat that 4 leaves.
        let applied = f.apply(&mut applier, vec![update(&t, seat(5, 4)), update(&t, seat(4, 41))]).await.unwrap();
        assert!(applied.replayed);
        assert_eq!(f.kept(1).await, keys(&[1, 2, 3, 4, 5, 8, 9]));
        // The next generation begins with the next batch, and a successor goes on with it.
        assert_eq!(state.begin_tracking().await.unwrap(), Some(2));
        f.apply_as_sets(&mut applier, vec![insert(&log, values(&["x"])), update(&t, seat(9, 90))]).await;
        drop(applier);
        let mut applier = f.applier().await;
        f.apply_as_sets(&mut applier, vec![update(&t, seat(8, 3))]).await;
        f.apply_as_sets(&mut applier, vec![truncate(&t), insert(&t, seat(50, 1))]).await;
        let mut expected = vec!["\"shop\".\"log\": it has no key".to_owned()];
        expected.extend(keys(&[8, 9, 50]));
        expected.push("\"shop\".\"seats\": it was truncated".to_owned());
        assert_eq!(f.kept(2).await, expected);
        let changed = state.changed_since(1).await.unwrap();
        assert!(format!("{changed:?}").contains("columns: 2..=2"), "{changed:?}");
    })
    .await;
}

/// What is more than a packet goes in several; a row that no packet holds is named.
#[tokio::test]
async fn statements_keep_to_what_the_server_takes() {
    on_both("CREATE TABLE files (id int PRIMARY KEY, content longblob, note varchar(20))", async |f| {
        let packet: usize = f.value("SELECT @@max_allowed_packet").await.unwrap().parse().unwrap();
        f.execute("SET GLOBAL max_allowed_packet = 1048576").await;
        let t = f.table("files").await;
        let file = |id: i32, bytes: usize| -> Row {
            let (id, content) = (id.to_string(), vec![b'\''; bytes]);
            [Datum::Text(id.as_bytes()), Datum::Binary(&content), Datum::Null].into_iter().collect()
        };
        let mut applier = f.applier().await;
        // 800 kB with the backslashes: no two fit, and beside a small one only half of them.
        let sizes = [400_000, 10, 400_000, 400_000, 10];
        let rows = sizes.iter().zip(1..);
        f.apply_as_sets(&mut applier, rows.clone().map(|(size, id)| insert(&t, file(id, *size))).collect()).await;
        f.apply_as_sets(&mut applier, rows.map(|(size, id)| update(&t, file(id, *size + 1))).collect()).await;
        let sum = f.value("SELECT SUM(LENGTH(content)) FROM files").await;
        assert_eq!(sum.unwrap(), (1_200_020 + sizes.len()).to_string());
        // A file has no such limit.
        f.known(&[&t]).await;
        let loaded = f.load(&t, cutwater::target::LoadMode::Append, &[file(8, 3 << 20)]).await;
        let error = f.apply(&mut applier, vec![insert(&t, file(9, 700_000))]).await.unwrap_err();
        f.execute(&format!("SET GLOBAL max_allowed_packet = {packet}")).await;
        assert_eq!(error.kind(), Kind::ServerSetting, "{error}");
        assert!(error.message().contains("files (id = 9)"), "{error}");
        assert!(error.suggestion().unwrap().contains("SET GLOBAL max_allowed_packet = 2097152"), "{error}");
        assert_eq!(loaded.unwrap().rows, 1);
        assert_eq!(f.rows("files").await.len(), 6);
    })
    .await;
}

/// Worker 0's row alone is confirmed: it commits last, and the others only have their tables.
#[tokio::test]
async fn several_workers_apply_each_its_own_tables() {
    let ddl = "CREATE TABLE users (id int PRIMARY KEY, name varchar(40), note text);
               CREATE TABLE pets (id int PRIMARY KEY, name varchar(40))";
    on_both(ddl, async |f| {
        let (t, pets) = (f.table("users").await, f.table("pets").await);
        f.known(&[&t, &pets]).await;
        for table in [&t, &pets] {
            f.target.finish_table(&f.lease, &table.name, &at(0x100), 0).await.unwrap();
        }
        let config = ApplyConfig { workers: 2, ..ApplyConfig::default() };
        let routing = f.target.state().route(&f.lease, 2).await.unwrap();
        assert_eq!(routing.workers(), 2);
        let mut both = f.target.workers(&f.lease, &config, &routing).await.unwrap();
        let changes = vec![insert(&t, user(1, "a", None)), insert(&pets, values(&["1", "rex"])), truncate(&t)];
        let applied = both.apply(f.batch(vec![changes])).await.unwrap();
        assert_eq!(applied.durable.unwrap().get(), &at(0x200));
        assert!(f.rows("users").await.is_empty());
        assert_eq!(f.rows("pets").await, ["1,rex"]);
        let error =
            both.apply(f.batch(vec![vec![insert(&t, user(2, "b", None)), update(&pets, values(&["7", "nobody"]))]]));
        assert_eq!(error.await.unwrap_err().kind(), Kind::Divergence);
        // What another worker has of it stays, and is left out when the stream comes again (TRAPS 4).
        assert_eq!(f.checkpoint().await, at(0x200));
    })
    .await;
}
