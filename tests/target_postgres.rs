//! The Postgres target against a real server: batches made by hand, and what the tables hold afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

#[path = "target_postgres/changed_keys.rs"]
mod changed_keys;
#[path = "target_postgres/load.rs"]
mod load;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cutwater::change::{Begin, ChangeEvent, Commit, Datum, Lsn, Message, Op, Position, Row, RowChange, Truncate};
use cutwater::config::{ApplyConfig, Existing, OnError, Url};
use cutwater::error::{Error, Kind};
use cutwater::postgres::ConnInfo;
use cutwater::schema::{Column, ColumnType, TableName, TableSchema};
use cutwater::source::{CopyChunk, CopyFormat, CopyStream, SourceIdentity};
use cutwater::target::postgres::{PgApplier, PgTarget};
use cutwater::target::state::LeaseOutcome;
use cutwater::target::state::{Lease, NewTable};
use cutwater::target::{Applied, Applier, Batch, BatchEnd, LoadMode, Target};
use jiff::Timestamp;
use support::Database;

/// A database with the state of a migration whose stream begins at 0/100.
struct Fixture {
    database: Database,
    target: PgTarget,
    lease: Lease,
    next: AtomicU64,
}

fn at(lsn: u64) -> Position {
    Lsn(lsn).into()
}

impl Fixture {
    async fn new(ddl: &str) -> Fixture {
        let (_, database) = support::pair().await;
        let url = database.url();
        Fixture::of(database, &url, ddl).await
    }

    /// By a role that may not switch constraints and triggers off for its sessions.
    async fn of_a_plain_role(ddl: &str) -> Fixture {
        let (_, database) = support::pair().await;
        let role = format!("plain_{}", database.name);
        database
            .execute(&format!(
                "CREATE ROLE {role} LOGIN; ALTER DATABASE {} OWNER TO {role}; ALTER SCHEMA public OWNER TO {role}",
                database.name
            ))
            .await;
        let url = database.server.url(&role, &database.name);
        Fixture::of(database, &url, &format!("SET ROLE {role}; {ddl}")).await
    }

    async fn of(database: Database, url: &str, ddl: &str) -> Fixture {
        database.execute(ddl).await;
        let info = ConnInfo::parse(&Url::new(url)).unwrap();
        // Origins belong to the whole server: each test is a migration of its own.
        let target = PgTarget::new(info, &database.name);
        target.state().install().await.unwrap();
        let source = SourceIdentity {
            engine: "postgres".into(),
            version: "15".into(),
            system_id: "1".into(),
            timeline: 1,
            database: "shop".into(),
        };
        target.state().begin("f", &source, "old", "new").await.unwrap();
        let lease = take_lease(&target, "first").await;
        target.state().set_slot_position(&lease, &at(0x100)).await.unwrap();
        Fixture { database, target, lease, next: AtomicU64::new(0x100) }
    }

    async fn applier(&self) -> PgApplier {
        self.target.applier(&self.lease, &ApplyConfig::default()).await.unwrap()
    }

    async fn setting_aside(&self) -> PgApplier {
        let config = ApplyConfig { on_error: OnError::DeadLetter, ..ApplyConfig::default() };
        self.target.applier(&self.lease, &config).await.unwrap()
    }

    /// A batch of whole source transactions.
    fn batch(&self, transactions: Vec<Vec<ChangeEvent>>) -> Batch {
        let mut events = Vec::new();
        for transaction in transactions {
            let end = self.next.fetch_add(0x100, Ordering::Relaxed) + 0x100;
            events.push(begin(end));
            events.extend(transaction);
            events.push(ChangeEvent::Commit(Commit { end: at(end), commit_time: Timestamp::UNIX_EPOCH }));
        }
        let position = at(self.next.load(Ordering::Relaxed));
        let end = BatchEnd::Commit { position, commit_time: Timestamp::UNIX_EPOCH };
        Batch { events, end, tolerate_missing: false }
    }

    async fn apply(&self, applier: &mut PgApplier, changes: Vec<ChangeEvent>) -> Result<Applied, Error> {
        applier.apply(self.batch(vec![changes])).await
    }

    /// The table's rows in text form, ordered.
    async fn rows(&self, table: &str) -> Vec<String> {
        let rows = self.database.connect().await.query(&format!("SELECT t::text FROM {table} t ORDER BY 1"), &[]).await;
        rows.unwrap().iter().map(|row| row.get(0)).collect()
    }

    async fn checkpoint(&self) -> Position {
        self.target.state().checkpoint().await.unwrap().unwrap().position
    }
}

async fn take_lease(target: &PgTarget, holder: &str) -> Lease {
    // The holder of before is "dead": tests do not wait for its lease to end.
    match target.state().take_lease(holder, Duration::from_secs(60), |_| true).await.unwrap() {
        LeaseOutcome::Taken(lease) => lease,
        LeaseOutcome::Held(holder) => panic!("held by {holder}"),
    }
}

fn begin(end: u64) -> ChangeEvent {
    ChangeEvent::Begin(Begin { xid: 7, commit_start: Lsn(end - 0x10).into(), commit_time: Timestamp::UNIX_EPOCH })
}

/// A table as the stream describes it: columns as (name, type), the key by index.
fn table(name: &str, columns: &[(&str, &str)], key: Option<&[usize]>) -> Arc<TableSchema> {
    let ty = |ty: &str| ColumnType { has_equality: ty != "json", ..ColumnType::built_in(0, ty) };
    let columns = columns.iter().map(|&(name, of)| Column::new(name, ty(of))).collect();
    Arc::new(TableSchema::new(TableName::new("public", name), columns, key.map(<[usize]>::to_vec)))
}

/// A field: `None` is NULL, `"\u{0}"` a value that was not sent.
const UNSENT: Option<&str> = Some("\u{0}");

fn text(fields: &[Option<&str>]) -> Row {
    fields
        .iter()
        .map(|field| match field {
            None => Datum::Null,
            Some("\u{0}") => Datum::Unchanged,
            Some(value) => Datum::Text(value.as_bytes()),
        })
        .collect()
}

fn insert(table: &Arc<TableSchema>, new: Row) -> ChangeEvent {
    change(table, Op::Insert, None, Some(new))
}

fn update(table: &Arc<TableSchema>, new: Row) -> ChangeEvent {
    change(table, Op::Update, None, Some(new))
}

fn rekey(table: &Arc<TableSchema>, old: Row, new: Row) -> ChangeEvent {
    change(table, Op::Update, Some(old), Some(new))
}

fn delete(table: &Arc<TableSchema>, old: Row) -> ChangeEvent {
    change(table, Op::Delete, Some(old), None)
}

fn change(table: &Arc<TableSchema>, op: Op, old: Option<Row>, new: Option<Row>) -> ChangeEvent {
    let old_is_key_only = table.key.is_some();
    ChangeEvent::Row(RowChange { table: Arc::clone(table), op, old, old_is_key_only, new })
}

const USERS: &str = "CREATE TABLE users (id int PRIMARY KEY, name text, note text)";

fn users() -> Arc<TableSchema> {
    table("users", &[("id", "int4"), ("name", "text"), ("note", "text")], Some(&[0]))
}

fn user(id: &str, name: &str, note: Option<&str>) -> Row {
    text(&[Some(id), Some(name), note])
}

fn user_key(id: &str) -> Row {
    text(&[Some(id), None, None])
}

#[tokio::test]
async fn every_operation_reaches_the_table_and_moves_the_checkpoint() {
    let f = Fixture::new(USERS).await;
    let mut applier = f.applier().await;
    assert_eq!(applier.checkpoint().get(), &at(0x100));
    let t = users();
    let first = vec![insert(&t, user("1", "ann", None)), insert(&t, user("2", "bob\t\\N\n", Some("x")))];
    let applied = f.apply(&mut applier, first).await.unwrap();
    assert_eq!(applied.durable.unwrap().get(), &at(0x200));
    assert_eq!((applied.transactions, applied.replayed), (1, false));
    assert_eq!(applied.rows[&(t.name.clone(), Op::Insert)], 2);
    let second = vec![update(&t, user("1", "anna", Some("y"))), delete(&t, user_key("2"))];
    f.apply(&mut applier, second).await.unwrap();
    assert_eq!(f.rows("users").await, ["(1,anna,y)"]);
    assert_eq!(f.checkpoint().await, at(0x300));
    let checkpoint = f.target.state().checkpoint().await.unwrap().unwrap();
    assert_eq!((checkpoint.changes, checkpoint.transactions, checkpoint.divergences), (4, 2, 0));
    assert_eq!(checkpoint.commit_time, Some(Timestamp::UNIX_EPOCH));
    assert_eq!(applier.advance(&at(0x900)).await.unwrap().get(), &at(0x900));
    assert_eq!(f.checkpoint().await, at(0x900));
}

#[tokio::test]
async fn large_sets_of_every_operation_go_through_in_both_forms() {
    let f = Fixture::new(USERS).await;
    let mut applier = f.applier().await;
    let t = users();
    let binary = |id: i32, name: &str| -> Row {
        [Datum::Binary(&id.to_be_bytes()), Datum::Binary(name.as_bytes()), Datum::Null].into_iter().collect()
    };
    for form in ["text", "binary"] {
        let row = |id: i32, name: &str| match form {
            "text" => user(&id.to_string(), name, None),
            _ => binary(id, name),
        };
        let applied = f.apply(&mut applier, (0..1000).map(|id| insert(&t, row(id, "a"))).collect()).await.unwrap();
        assert!(!applied.replayed);
        let mut changes: Vec<_> = (0..500).map(|id| update(&t, row(id, "b"))).collect();
        changes.extend((500..900).map(|id| delete(&t, row(id, ""))));
        changes.extend((900..1000).map(|id| rekey(&t, row(id, ""), row(id + 1000, "c"))));
        let applied = f.apply(&mut applier, changes).await.unwrap();
        assert!(!applied.replayed);
        let sum =
            "SELECT string_agg(name || n, ',' ORDER BY name) FROM (SELECT name, count(*) n FROM users GROUP BY 1) x";
        assert_eq!(f.database.value::<String>(sum).await, "b500,c100");
        f.apply(
            &mut applier,
            vec![ChangeEvent::Truncate(Truncate {
                tables: vec![t.clone()],
                restart_identity: false,
                conditions: vec![],
                elsewhere: vec![],
            })],
        )
        .await
        .unwrap();
        assert!(f.rows("users").await.is_empty());
    }
}

#[tokio::test]
async fn chains_of_changes_fold_to_what_they_come_to() {
    let f = Fixture::new(USERS).await;
    let mut applier = f.applier().await;
    let t = users();
    f.apply(&mut applier, (1..=4).map(|id| insert(&t, user(&id.to_string(), "old", Some("kept")))).collect())
        .await
        .unwrap();
    let changes = vec![
        insert(&t, user("9", "new", Some("n"))),
        rekey(&t, user_key("9"), text(&[Some("10"), Some("moved"), UNSENT])),
        insert(&t, user("11", "gone", None)),
        delete(&t, user_key("11")),
        rekey(&t, user_key("1"), text(&[Some("5"), Some("one"), UNSENT])),
        rekey(&t, user_key("5"), text(&[Some("6"), Some("uno"), UNSENT])),
        delete(&t, user_key("2")),
        insert(&t, user("2", "again", None)),
        update(&t, text(&[Some("3"), Some("three"), UNSENT])),
        update(&t, text(&[Some("3"), UNSENT, Some("set")])),
        rekey(&t, user_key("4"), user("1", "four", Some("full"))),
    ];
    let applied = f.apply(&mut applier, changes).await.unwrap();
    assert!(!applied.replayed);
    assert_eq!(f.rows("users").await, ["(1,four,full)", "(10,moved,n)", "(2,again,)", "(3,three,set)", "(6,uno,kept)"]);
}

#[tokio::test]
async fn unchanged_toast_keeps_its_value() {
    let f = Fixture::new(USERS).await;
    let mut applier = f.applier().await;
    let t = users();
    f.apply(&mut applier, vec![insert(&t, user("1", "a", Some("large")))]).await.unwrap();
    f.apply(&mut applier, vec![update(&t, text(&[Some("1"), Some("b"), UNSENT]))]).await.unwrap();
    assert_eq!(f.rows("users").await, ["(1,b,large)"]);
}

#[tokio::test]
async fn values_that_pass_through_a_secondary_unique_index_fall_back_and_succeed() {
    let f = Fixture::new("CREATE TABLE seats (id int PRIMARY KEY, seat int UNIQUE)").await;
    let mut applier = f.applier().await;
    let t = table("seats", &[("id", "int4"), ("seat", "int4")], Some(&[0]));
    let seat = |id: i32, seat: i32| text(&[Some(&id.to_string()), Some(&seat.to_string())]);
    f.apply(&mut applier, (1..=3).map(|id| insert(&t, seat(id, id))).collect()).await.unwrap();
    // As one statement, which begins with the row that was touched first, 1 would meet 2.
    let changes = vec![update(&t, seat(1, 1)), update(&t, seat(3, 4)), update(&t, seat(2, 3)), update(&t, seat(1, 2))];
    let applied = f.apply(&mut applier, changes).await.unwrap();
    assert!(applied.replayed);
    assert_eq!(f.rows("seats").await, ["(1,2)", "(2,3)", "(3,4)"]);
    // UPDATE seats SET seat = seat + 1 under a deferrable constraint of the source: even one by one 1 meets 2.
    let changes = vec![update(&t, seat(1, 3)), update(&t, seat(2, 4)), update(&t, seat(3, 5))];
    let applied = f.apply(&mut applier, changes).await.unwrap();
    assert!(applied.replayed);
    assert_eq!(f.rows("seats").await, ["(1,3)", "(2,4)", "(3,5)"]);
    assert_eq!(f.checkpoint().await, at(0x400));
}

#[tokio::test]
async fn a_swap_under_a_deferrable_constraint_succeeds() {
    let f = Fixture::new("CREATE TABLE seats (id int PRIMARY KEY, seat int UNIQUE DEFERRABLE, note text)").await;
    let mut applier = f.applier().await;
    let t = table("seats", &[("id", "int4"), ("seat", "int4"), ("note", "text")], Some(&[0]));
    let seat = |id: &str, seat: &str, note| text(&[Some(id), Some(seat), note]);
    f.apply(&mut applier, vec![insert(&t, seat("1", "1", None)), insert(&t, seat("2", "2", None))]).await.unwrap();
    let changes = vec![update(&t, seat("1", "2", Some("x"))), update(&t, seat("2", "1", UNSENT))];
    f.apply(&mut applier, changes).await.unwrap();
    assert_eq!(f.rows("seats").await, ["(1,2,x)", "(2,1,)"]);
}

/// TRAPS 13. A session in the replica role does not look at deferrable constraints; one of a plain role does.
#[tokio::test]
async fn values_that_cross_under_a_deferrable_constraint_pass_for_a_plain_role_too() {
    let f = Fixture::of_a_plain_role(
        "CREATE TABLE seats (id int PRIMARY KEY, seat int UNIQUE DEFERRABLE, note text);
         CREATE TABLE turns (id int PRIMARY KEY DEFERRABLE, note text)",
    )
    .await;
    let mut applier = f.applier().await;
    let t = table("seats", &[("id", "int4"), ("seat", "int4"), ("note", "text")], Some(&[0]));
    let seat = |id: &str, seat: &str, note| text(&[Some(id), Some(seat), note]);
    f.apply(&mut applier, (1..=3).map(|id| insert(&t, seat(&id.to_string(), &id.to_string(), None))).collect())
        .await
        .unwrap();
    // UPDATE seats SET seat = seat + 1: no order of them passes row by row, and other columns make it several sets.
    let changes = vec![
        update(&t, seat("1", "2", Some("x"))),
        update(&t, seat("2", "3", UNSENT)),
        update(&t, seat("3", "1", Some("y"))),
    ];
    let applied = f.apply(&mut applier, changes).await.unwrap();
    assert!(applied.replayed);
    assert_eq!(f.rows("seats").await, ["(1,2,x)", "(2,3,)", "(3,1,y)"]);
    // A key that is deferrable at the source is no key in the stream: whole rows, one by one.
    let turns = table("turns", &[("id", "int4"), ("note", "text")], None);
    let turn = |id: &str, note: &str| text(&[Some(id), Some(note)]);
    f.apply(&mut applier, vec![insert(&turns, turn("1", "a")), insert(&turns, turn("2", "b"))]).await.unwrap();
    let changes = vec![rekey(&turns, turn("1", "a"), turn("2", "a")), rekey(&turns, turn("2", "b"), turn("1", "b"))];
    f.apply(&mut applier, changes).await.unwrap();
    assert_eq!(f.rows("turns").await, ["(1,b)", "(2,a)"]);
    // And what does not fit in the end is found, and named.
    let error = f.apply(&mut applier, vec![update(&t, seat("1", "3", Some("x")))]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::BadRow);
    assert!(error.message().contains("public.seats"), "{error}");
}

#[tokio::test]
async fn a_bad_row_is_named_and_nothing_of_its_batch_stays() {
    let f = Fixture::new("CREATE TABLE users (id int PRIMARY KEY, name varchar(5), note text)").await;
    let mut applier = f.applier().await;
    let t = users();
    let mut changes: Vec<_> = (1..100).map(|id| insert(&t, user(&id.to_string(), "ok", None))).collect();
    changes.push(insert(&t, user("100", "too long", None)));
    let error = f.apply(&mut applier, changes).await.unwrap_err();
    assert_eq!(error.kind(), Kind::BadRow);
    let message = error.message();
    for part in ["public.users", "id = 100", "0/1F0", "too long for type character varying(5)"] {
        assert!(message.contains(part), "{part:?} in {message}");
    }
    assert!(error.suggestion().unwrap().contains("on_error = \"dead-letter\""), "{error}");
    assert!(f.rows("users").await.is_empty());
    assert_eq!(f.checkpoint().await, at(0x100));
    // The applier is spent, a new one goes on from the checkpoint.
    assert_eq!(applier.apply(f.batch(vec![])).await.unwrap_err().kind(), Kind::Internal);
    assert_eq!(f.applier().await.checkpoint().get(), &at(0x100));
}

#[tokio::test]
async fn a_row_set_aside_is_in_the_dead_letters_and_the_others_arrive() {
    let f = Fixture::new("CREATE TABLE users (id int PRIMARY KEY, name varchar(5), note text)").await;
    let mut applier = f.setting_aside().await;
    let t = users();
    let bad = user("2", "too long", None);
    let changes = vec![
        insert(&t, user("1", "a", None)),
        insert(&t, bad.clone()),
        insert(&t, user("3", "c", None)),
        delete(&t, user_key("77")),
    ];
    let applied = f.apply(&mut applier, changes).await.unwrap();
    assert_eq!((applied.dead_letters, applied.divergences, applied.replayed), (2, 1, true));
    assert_eq!(f.rows("users").await, ["(1,a,)", "(3,c,)"]);
    assert_eq!(f.target.state().dead_letters().await.unwrap(), 2);
    let row: Vec<u8> = f.database.value("SELECT new_row FROM cutwater.dead_letter WHERE key = 'id = 2'").await;
    assert_eq!(Row::parse(Bytes::from(row)), Some(bad));
    assert_eq!(f.target.state().checkpoint().await.unwrap().unwrap().divergences, 1);
}

#[tokio::test]
async fn an_update_that_finds_no_row_is_a_named_divergence() {
    let f = Fixture::new(USERS).await;
    let t = users();
    let binary_key =
        |id: i32| [Datum::Binary(&id.to_be_bytes()), Datum::Null, Datum::Null].into_iter().collect::<Row>();
    for changes in [vec![update(&t, user("42", "x", None))], vec![delete(&t, binary_key(42))]] {
        let mut applier = f.applier().await;
        let batch = f.batch(vec![vec![insert(&t, user("1", "a", None))], changes]);
        let error = applier.apply(batch).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Divergence, "{error}");
        assert!(error.message().contains("public.users (id = 42)"), "{error}");
        assert!(f.rows("users").await.is_empty());
        f.next.store(0x100, Ordering::Relaxed);
    }
    // Behind a copy that a TRUNCATE has emptied it is none (TRAPS 7).
    let mut batch = f.batch(vec![vec![update(&t, user("42", "x", None)), insert(&t, user("1", "a", None))]]);
    batch.tolerate_missing = true;
    f.applier().await.apply(batch).await.unwrap();
    assert_eq!(f.rows("users").await, ["(1,a,)"]);
}

#[tokio::test]
async fn a_raised_epoch_fences_the_applier_of_before() {
    let f = Fixture::new(USERS).await;
    let t = users();
    let mut first = f.applier().await;
    let second_lease = take_lease(&f.target, "second").await;
    let error = f.apply(&mut first, vec![insert(&t, user("1", "late", None))]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Fenced);
    assert!(f.rows("users").await.is_empty());
    assert_eq!(f.target.applier(&f.lease, &ApplyConfig::default()).await.err().unwrap().kind(), Kind::Fenced);
    f.next.store(0x100, Ordering::Relaxed);
    let mut second = f.target.applier(&second_lease, &ApplyConfig::default()).await.unwrap();
    f.apply(&mut second, vec![insert(&t, user("1", "right", None))]).await.unwrap();
    assert_eq!(f.rows("users").await, ["(1,right,)"]);
}

#[tokio::test]
async fn a_successor_waits_for_a_transaction_that_is_open_and_sees_its_checkpoint() {
    let f = Fixture::new(USERS).await;
    let t = users();
    let mut first = f.applier().await;
    let part = Batch {
        events: vec![begin(0x200), insert(&t, user("1", "a", None))],
        end: BatchEnd::Open,
        tolerate_missing: false,
    };
    first.apply(part).await.unwrap();
    let target = f.target.clone();
    let mut taking = tokio::spawn(async move { take_lease(&target, "second").await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    support::wait_for("the successor waits for the lock", Duration::from_secs(10), async || {
        f.database.value::<i64>(waits).await == 1
    })
    .await;
    assert!(!taking.is_finished());
    let commit = ChangeEvent::Commit(Commit { end: at(0x200), commit_time: Timestamp::UNIX_EPOCH });
    let end = BatchEnd::Commit { position: at(0x200), commit_time: Timestamp::UNIX_EPOCH };
    first.apply(Batch { events: vec![commit], end, tolerate_missing: false }).await.unwrap();
    let lease = support::within("taking the lease", Duration::from_secs(10), &mut taking).await.unwrap();
    let second = f.target.applier(&lease, &ApplyConfig::default()).await.unwrap();
    assert_eq!(second.checkpoint().get(), &at(0x200));
    f.next.store(0x200, Ordering::Relaxed);
    let late = f.apply(&mut first, vec![insert(&t, user("2", "late", None))]).await.unwrap_err();
    // Its session may have been ended for the origin that it held.
    assert!(matches!(late.kind(), Kind::Fenced | Kind::Connection), "{late}");
    assert_eq!(f.rows("users").await, ["(1,a,)"]);
}

#[tokio::test]
async fn a_large_transaction_in_parts_is_invisible_until_its_commit() {
    let f = Fixture::new(USERS).await;
    let t = users();
    let mut applier = f.applier().await;
    let open = |events| Batch { events, end: BatchEnd::Open, tolerate_missing: false };
    let mut events = vec![begin(0x200)];
    events.extend((0..100).map(|id| insert(&t, user(&id.to_string(), "a", None))));
    let applied = applier.apply(open(events)).await.unwrap();
    assert!(applied.durable.is_none());
    // The second part has to be replayed; the first must stay.
    let second = vec![
        insert(&t, user("200", "x", None)),
        rekey(&t, user_key("200"), user("201", "y", None)),
        update(&t, user("0", "b", None)),
    ];
    applier.apply(open(second)).await.unwrap();
    let doubled =
        vec![delete(&t, user_key("1")), insert(&t, user("300", "a", None)), update(&t, user("201", "z", None))];
    applier.apply(open(doubled)).await.unwrap();
    assert!(f.rows("users").await.is_empty());
    assert_eq!(f.checkpoint().await, at(0x100));
    let end = BatchEnd::Commit { position: at(0x200), commit_time: Timestamp::UNIX_EPOCH };
    let commit = ChangeEvent::Commit(Commit { end: at(0x200), commit_time: Timestamp::UNIX_EPOCH });
    let applied = applier.apply(Batch { events: vec![commit], end, tolerate_missing: false }).await.unwrap();
    assert_eq!(applied.durable.unwrap().get(), &at(0x200));
    assert_eq!(f.rows("users").await.len(), 101);
    let checkpoint = f.target.state().checkpoint().await.unwrap().unwrap();
    assert_eq!((checkpoint.changes, checkpoint.transactions), (106, 1));
}

#[tokio::test]
async fn a_replay_of_one_part_keeps_the_parts_before() {
    let f = Fixture::new("CREATE TABLE seats (id int PRIMARY KEY, seat int UNIQUE)").await;
    let mut applier = f.applier().await;
    let t = table("seats", &[("id", "int4"), ("seat", "int4")], Some(&[0]));
    let seat = |id: i32, seat: i32| text(&[Some(&id.to_string()), Some(&seat.to_string())]);
    f.apply(&mut applier, (1..=3).map(|id| insert(&t, seat(id, id))).collect()).await.unwrap();
    let open = |events| Batch { events, end: BatchEnd::Open, tolerate_missing: false };
    applier.apply(open(vec![begin(0x300), insert(&t, seat(9, 9))])).await.unwrap();
    // 1 takes the seat that 2 leaves only in the next part.
    let applied = applier.apply(open(vec![update(&t, seat(1, 2))])).await.unwrap();
    assert!(applied.replayed);
    let end = BatchEnd::Commit { position: at(0x300), commit_time: Timestamp::UNIX_EPOCH };
    let commit = ChangeEvent::Commit(Commit { end: at(0x300), commit_time: Timestamp::UNIX_EPOCH });
    let last = vec![update(&t, seat(2, 7)), commit];
    applier.apply(Batch { events: last, end, tolerate_missing: false }).await.unwrap();
    assert_eq!(f.rows("seats").await, ["(1,2)", "(2,7)", "(3,3)", "(9,9)"]);
}

/// An origin has one session. That of a frozen predecessor is ended, for transactions without a mark would come back by
/// a stream in the other direction; somebody else's is named.
#[tokio::test]
async fn the_replication_origin_is_taken_from_a_predecessor_and_never_gone_without() {
    let f = Fixture::new(USERS).await;
    let t = users();
    let name = format!("cutwater_{}", f.database.name);
    // Whoever asks for it is told who has it.
    let holder = async || {
        let sql = format!("SELECT pg_replication_origin_session_setup('{name}')");
        match f.database.connect().await.batch_execute(&sql).await {
            Ok(()) => None,
            Err(error) => error.as_db_error().unwrap().message().rsplit(' ').next().map(str::to_owned),
        }
    };
    let mut frozen = f.applier().await;
    let before = holder().await.unwrap();
    let lease = take_lease(&f.target, "second").await;
    let mut successor = f.target.applier(&lease, &ApplyConfig::default()).await.unwrap();
    let after = holder().await.unwrap();
    assert_ne!(before, after);
    let alive = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {before}");
    support::wait_for("its end", Duration::from_secs(60), async || f.database.value::<i64>(&alive).await == 0).await;
    f.apply(&mut successor, vec![insert(&t, user("1", "a", None))]).await.unwrap();
    assert!(f.apply(&mut frozen, vec![insert(&t, user("2", "late", None))]).await.is_err());
    assert_eq!(f.rows("users").await, ["(1,a,)"]);
    // A process of before does not end its successor's.
    assert_eq!(f.target.applier(&f.lease, &ApplyConfig::default()).await.err().unwrap().kind(), Kind::Fenced);
    assert_eq!(holder().await, Some(after));

    drop(successor);
    let stranger = f.database.connect().await;
    let setup = format!("SELECT pg_replication_origin_session_setup('{name}')");
    support::wait_for("the origin", Duration::from_secs(60), async || stranger.batch_execute(&setup).await.is_ok())
        .await;
    let pid: i32 = stranger.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let error = f.target.applier(&lease, &ApplyConfig::default()).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Transient, "{error}");
    assert!(error.message().contains(&format!("held by process {pid} of the target")), "{error}");
    drop(stranger);
    support::wait_for("the applier", Duration::from_secs(60), async || {
        f.target.applier(&lease, &ApplyConfig::default()).await.is_ok()
    })
    .await;
}

/// What a deferred constraint refuses at the end of a transaction: the server names no row of the stream.
#[tokio::test]
async fn of_a_transaction_that_a_deferred_constraint_refuses_only_the_culprits_are_set_aside() {
    // As for a role that may not switch them off: the constraints hold in our sessions too.
    let f = Fixture::new(
        "CREATE TABLE seats (id int PRIMARY KEY, seat int UNIQUE DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE nodes (id int PRIMARY KEY, peer int REFERENCES nodes DEFERRABLE INITIALLY DEFERRED);
         DO $$ DECLARE t record; BEGIN
             FOR t IN SELECT tgrelid::regclass AS rel, tgname FROM pg_trigger WHERE tgisinternal LOOP
                 EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', t.rel, t.tgname);
             END LOOP;
         END $$",
    )
    .await;
    let seats = table("seats", &[("id", "int4"), ("seat", "int4")], Some(&[0]));
    let nodes = table("nodes", &[("id", "int4"), ("peer", "int4")], Some(&[0]));
    let row = |id: i32, other: i32| text(&[Some(&id.to_string()), Some(&other.to_string())]);
    let aside = async || -> Vec<String> {
        let sql = "WITH gone AS (DELETE FROM cutwater.dead_letter RETURNING id, tbl, op, key)
                   SELECT concat_ws(' ', tbl, op, key) FROM gone ORDER BY id";
        f.database.connect().await.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    };
    let mut applier = f.setting_aside().await;
    f.apply(&mut applier, (1..=40).map(|id| insert(&seats, row(id, id))).collect()).await.unwrap();

    // Two swap, all others move on by one, one takes a seat for a moment; one takes a seat that nobody leaves. A
    // transaction before and one after it are not concerned.
    let mut changes = vec![update(&seats, row(1, 2)), insert(&seats, row(100, 2)), update(&seats, row(2, 1))];
    changes.push(insert(&seats, row(101, 9)));
    changes.extend((3..=40).map(|id| update(&seats, row(id, id + 1))));
    changes.push(update(&seats, row(101, 500)));
    let batch = f.batch(vec![vec![insert(&seats, row(98, 98))], changes, vec![insert(&seats, row(99, 99))]]);
    let applied = applier.apply(batch).await.unwrap();
    assert_eq!((applied.dead_letters, applied.divergences), (1, 0));
    assert_eq!(aside().await, ["public.seats insert id = 100"]);
    let there = "SELECT count(*) FROM seats WHERE (id, seat) IN ((1, 2), (2, 1), (98, 98), (99, 99), (101, 500))
                                              OR (id BETWEEN 3 AND 40 AND seat = id + 1)";
    assert_eq!(f.database.value::<i64>(there).await, 5 + 38);

    // Several are to blame, between two that fit only together.
    let changes = vec![
        insert(&seats, row(200, 41)),
        update(&seats, row(1, 1)),
        insert(&seats, row(201, 99)),
        update(&seats, row(2, 2)),
        insert(&nodes, row(1, 2)),
        insert(&nodes, row(3, 77)),
        insert(&nodes, row(2, 1)),
    ];
    f.apply(&mut applier, changes).await.unwrap();
    let blamed = ["public.seats insert id = 200", "public.seats insert id = 201", "public.nodes insert id = 3"];
    let mut set_aside = aside().await;
    set_aside.sort_unstable_by_key(|line| blamed.iter().position(|known| known == line));
    assert_eq!(set_aside, blamed);
    assert_eq!(f.rows("nodes").await, ["(1,2)", "(2,1)"]);
    assert_eq!(f.rows("(SELECT * FROM seats WHERE id < 3 OR id > 198)").await, ["(1,1)", "(2,2)"]);

    // What an earlier part of a large transaction did is no longer known row by row: it stops, and nothing is lost.
    let open =
        Batch { events: vec![begin(0x900), insert(&seats, row(300, 1))], end: BatchEnd::Open, tolerate_missing: false };
    applier.apply(open).await.unwrap();
    let end = BatchEnd::Commit { position: at(0x900), commit_time: Timestamp::UNIX_EPOCH };
    let commit = ChangeEvent::Commit(Commit { end: at(0x900), commit_time: Timestamp::UNIX_EPOCH });
    let events = vec![insert(&seats, row(301, 301)), commit];
    let error = applier.apply(Batch { events, end, tolerate_missing: false }).await.unwrap_err();
    assert_eq!(error.kind(), Kind::BadRow, "{error}");
    assert!(error.message().contains("public.seats"), "{error}");
    assert!(f.rows("(SELECT * FROM seats WHERE id > 299)").await.is_empty());
}

#[tokio::test]
async fn array_and_json_columns_and_foreign_types_arrive_in_both_forms() {
    let f = Fixture::new(
        "CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
         CREATE TABLE things (gone int, id positive PRIMARY KEY, tags text[], doc json, m mood,
                              twice int GENERATED ALWAYS AS (id * 2) STORED);
         ALTER TABLE things DROP COLUMN gone",
    )
    .await;
    let mut applier = f.applier().await;
    let t = table("things", &[("id", "positive"), ("tags", "_text"), ("doc", "json"), ("m", "mood")], Some(&[0]));
    // {x,NULL} as array_send writes it.
    let tags =
        [&[0u8, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 25, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, b'x'][..], &[255; 4]].concat();
    let binary = |id: i32, doc: &str, mood: &str| -> Row {
        let id = id.to_be_bytes();
        [Datum::Binary(&id), Datum::Binary(&tags), Datum::Binary(doc.as_bytes()), Datum::Binary(mood.as_bytes())]
            .into_iter()
            .collect()
    };
    let textual = |id: &str, doc: &str, mood: &str| text(&[Some(id), Some("{x,NULL}"), Some(doc), Some(mood)]);
    f.apply(&mut applier, vec![insert(&t, binary(1, "{\"a\": 1}", "sad")), insert(&t, binary(2, "[]", "sad"))])
        .await
        .unwrap();
    let unsent: Row = [Datum::Binary(&7i32.to_be_bytes()), Datum::Unchanged, Datum::Unchanged, Datum::Binary(b"happy")]
        .into_iter()
        .collect();
    f.apply(&mut applier, vec![update(&t, binary(1, "{}", "happy")), rekey(&t, binary(2, "", ""), unsent)])
        .await
        .unwrap();
    let other = "INSERT INTO things VALUES (100, '{}', '1', 'sad')";
    f.database.execute(other).await;
    f.apply(&mut applier, vec![delete(&t, binary(100, "", ""))]).await.unwrap();
    let expected = ["(1,\"{x,NULL}\",{},happy,2)", "(7,\"{x,NULL}\",[],happy,14)"];
    assert_eq!(f.rows("things").await, expected);
    // The same in text form.
    f.database.execute("TRUNCATE things").await;
    f.apply(&mut applier, vec![insert(&t, textual("1", "{\"a\": 1}", "sad")), insert(&t, textual("2", "[]", "sad"))])
        .await
        .unwrap();
    let unsent = text(&[Some("7"), UNSENT, UNSENT, Some("happy")]);
    let changes = vec![update(&t, textual("1", "{}", "happy")), rekey(&t, textual("2", "", ""), unsent)];
    let applied = f.apply(&mut applier, changes).await.unwrap();
    assert!(!applied.replayed);
    assert_eq!(f.rows("things").await, expected);
}

#[tokio::test]
async fn one_of_two_equal_rows_without_a_key_goes() {
    let f = Fixture::new("CREATE TABLE log (n numeric, doc json, at point)").await;
    let mut applier = f.applier().await;
    let t = table("log", &[("n", "numeric"), ("doc", "json"), ("at", "point")], None);
    let row = |n: &str, doc: Option<&str>| text(&[Some(n), doc, Some("(1,2)")]);
    let mut changes: Vec<_> = (0..3).map(|_| insert(&t, row("1.0", Some("{}")))).collect();
    changes.extend([insert(&t, row("1.00", None)), delete(&t, row("1.0", Some("{}")))]);
    changes.push(rekey(&t, row("1.0", Some("{}")), row("2.0", Some("[]"))));
    let applied = f.apply(&mut applier, changes).await.unwrap();
    assert!(!applied.replayed);
    assert_eq!(f.rows("log").await, ["(1.0,{},\"(1,2)\")", "(1.00,,\"(1,2)\")", "(2.0,[],\"(1,2)\")"]);
    f.apply(&mut applier, vec![delete(&t, row("1.00", None))]).await.unwrap();
    assert_eq!(f.rows("log").await.len(), 2);
    let error = f.apply(&mut applier, vec![delete(&t, row("5", None))]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Divergence);
    assert!(error.message().contains("public.log (n = 5, doc = NULL"), "{error}");
}

#[tokio::test]
async fn identity_columns_that_are_generated_always_take_the_sources_values() {
    let f = Fixture::new(
        "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, extra text DEFAULT 'd');
         CREATE TABLE notes (id int PRIMARY KEY, number bigint GENERATED ALWAYS AS IDENTITY, name text)",
    )
    .await;
    let mut applier = f.applier().await;
    let t = table("orders", &[("id", "int8"), ("name", "text")], Some(&[0]));
    let notes = table("notes", &[("id", "int4"), ("number", "int8"), ("name", "text")], Some(&[0]));
    let order = |id: &str, name| text(&[Some(id), name]);
    let mut changes: Vec<_> = (1..=100).map(|id| insert(&t, order(&id.to_string(), Some("a")))).collect();
    changes.push(insert(&notes, text(&[Some("1"), Some("500"), Some("a")])));
    f.apply(&mut applier, changes).await.unwrap();
    f.database.execute("DELETE FROM orders WHERE id > 2; UPDATE orders SET extra = 'mine'").await;
    let changes = vec![
        update(&t, order("1", Some("b"))),
        rekey(&t, order("2", None), order("900", UNSENT)),
        insert(&t, order("901", Some("new"))),
        update(&notes, text(&[Some("1"), Some("600"), UNSENT])),
    ];
    let applied = f.apply(&mut applier, changes).await.unwrap();
    assert!(!applied.replayed);
    assert_eq!(f.rows("orders").await, ["(1,b,mine)", "(900,a,mine)", "(901,new,d)"]);
    assert_eq!(f.rows("notes").await, ["(1,600,a)"]);
}

#[tokio::test]
async fn a_truncate_in_the_middle_of_a_batch_divides_it() {
    let f = Fixture::new(&format!("{USERS}; CREATE TABLE pets (id int PRIMARY KEY, owner int REFERENCES users)")).await;
    let mut applier = f.applier().await;
    let (t, pets) = (users(), table("pets", &[("id", "int4"), ("owner", "int4")], Some(&[0])));
    f.apply(&mut applier, vec![insert(&t, user("1", "a", None)), insert(&pets, text(&[Some("1"), Some("1")]))])
        .await
        .unwrap();
    let changes = vec![
        insert(&t, user("2", "before", None)),
        ChangeEvent::Truncate(Truncate {
            tables: vec![t.clone(), pets.clone()],
            restart_identity: true,
            conditions: vec![],
            elsewhere: vec![],
        }),
        insert(&t, user("1", "after", None)),
    ];
    let applied = f.apply(&mut applier, changes).await.unwrap();
    assert!(!applied.replayed);
    assert_eq!(f.rows("users").await, ["(1,after,)"]);
    assert!(f.rows("pets").await.is_empty());
}

#[tokio::test]
async fn a_missing_table_or_column_is_named_with_what_to_do() {
    let f = Fixture::new("CREATE TABLE users (id int PRIMARY KEY, name text)").await;
    let error = f.apply(&mut f.applier().await, vec![insert(&users(), user("1", "a", None))]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Schema);
    assert!(error.message().contains("no column \"note\""), "{error}");
    assert!(error.suggestion().unwrap().contains("ADD COLUMN \"note\" text"), "{error}");
    let t = table("nowhere", &[("id", "int4")], Some(&[0]));
    let error = f.apply(&mut f.applier().await, vec![insert(&t, text(&[Some("1")]))]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Schema);
    assert!(error.message().contains("no table public.nowhere"), "{error}");
}

#[tokio::test]
async fn the_fences_marker_is_recorded_and_a_change_behind_it_breaks_it() {
    let f = Fixture::new(USERS).await;
    let t = users();
    let mut applier = f.applier().await;
    let state = f.target.state();
    state.begin_cutover("n1", Timestamp::UNIX_EPOCH).await.unwrap();
    let marker = ChangeEvent::Message(Message::Fence { nonce: "n1".into() });
    let applied = f.apply(&mut applier, vec![insert(&t, user("1", "a", None)), marker]).await.unwrap();
    assert_eq!(applied.fence.as_deref(), Some("n1"));
    let cutover = state.cutover().await.unwrap().unwrap();
    assert_eq!((cutover.drained_at, cutover.broken), (Some(at(0x200)), None));
    // A new applier learns of the fence from the state.
    drop(applier);
    let mut applier = f.applier().await;
    f.apply(&mut applier, vec![insert(&t, user("2", "b", None))]).await.unwrap();
    let broken = state.cutover().await.unwrap().unwrap().broken.unwrap();
    assert!(broken.starts_with("public.users changed at 0/2F0"), "{broken}");
    assert_eq!(f.rows("users").await.len(), 2);
}
