//! What the Postgres source promises, on a real server.
#![allow(clippy::print_stderr, clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cutwater::change::{Budget, ChangeEvent, Datum, Durable, Message, Op, Position, Row, RowChange};
use cutwater::config::Url;
use cutwater::error::Kind;
use cutwater::postgres::{ConnInfo, Purpose, Wire, connect};
use cutwater::schema::{Patterns, ReplicaIdentity, TableSchema};
use cutwater::source::postgres::{PgSource, PgStream, describe_difference};
use cutwater::source::{ChangeStream, CopyFormat, Snapshot, Source, StreamItem};
use futures::TryStreamExt;
use support::{LocalPostgres, ServerOptions, wait_for, within};

const PATIENCE: Duration = Duration::from_secs(20);

fn info(url: &str) -> ConnInfo {
    ConnInfo::parse(&Url::new(url)).unwrap()
}

/// A source with its tables, published, with its slot.
struct Fixture {
    source: PgSource,
    tables: Vec<Arc<TableSchema>>,
    from: Position,
}

async fn fixture(url: &str, name: &str) -> Fixture {
    let source = PgSource::new(info(url), name);
    let tables = source.tables(&Patterns::default()).await.unwrap();
    source.prepare(&tables).await.unwrap();
    let snapshot = source.create_slot().await.unwrap();
    let from = snapshot.position().clone();
    Fixture { source, tables, from }
}

impl Fixture {
    async fn stream(&self) -> PgStream {
        self.source.stream(&self.from, &self.tables, &Budget::new(64 << 20)).await.unwrap()
    }
}

/// Events until as many commits with rows, truncates or messages have come.
async fn transactions(stream: &mut PgStream, count: usize) -> Vec<Vec<ChangeEvent>> {
    let mut transactions = transactions_with_begin(stream, count).await;
    transactions.iter_mut().for_each(|events| drop(events.remove(0)));
    transactions
}

/// As [`transactions`], each with its Begin before it.
async fn transactions_with_begin(stream: &mut PgStream, count: usize) -> Vec<Vec<ChangeEvent>> {
    let collect = async {
        let (mut done, mut open) = (Vec::new(), Vec::new());
        while done.len() < count {
            let StreamItem::Events(chunk) = stream.next().await.unwrap() else { continue };
            for event in chunk.events {
                match event {
                    ChangeEvent::Begin(_) => {
                        assert!(open.is_empty());
                        open.push(event);
                    }
                    ChangeEvent::Commit(_) if open.len() == 1 => open.clear(),
                    ChangeEvent::Commit(_) => done.push(std::mem::take(&mut open)),
                    event => open.push(event),
                }
            }
        }
        done
    };
    within("the transactions", PATIENCE, collect).await
}

fn rows(transaction: &[ChangeEvent]) -> Vec<&RowChange> {
    transaction.iter().filter_map(|e| if let ChangeEvent::Row(row) = e { Some(row) } else { None }).collect()
}

fn text(row: &Row) -> Vec<String> {
    row.fields()
        .map(|field| match field {
            Datum::Null => "NULL".into(),
            Datum::Unchanged => "UNCHANGED".into(),
            Datum::Text(text) => String::from_utf8_lossy(text).into_owned(),
            Datum::Binary(bytes) => format!("{bytes:?}"),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_change_arrives_with_what_it_needs() {
    let (db, _) = support::pair().await;
    db.execute(
        r#"CREATE TABLE "Odd ""name" ("Id" int PRIMARY KEY, "sp ace" text);
           ALTER TABLE "Odd ""name" ALTER "sp ace" SET STORAGE EXTERNAL;
           CREATE TABLE whole (a int, b text); ALTER TABLE whole REPLICA IDENTITY FULL;
           CREATE TABLE part (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
           CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (100);
           CREATE TABLE gen (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED, dropped int, z text);
           ALTER TABLE gen DROP COLUMN dropped"#,
    )
    .await;
    let fixture = fixture(&db.url(), "kinds").await;
    let mut stream = fixture.stream().await;
    for sql in [
        r#"INSERT INTO "Odd ""name" VALUES (1, repeat('x', 100000))"#,
        r#"UPDATE "Odd ""name" SET "Id" = 2"#,
        r#"DELETE FROM "Odd ""name""#,
        "INSERT INTO whole VALUES (1, NULL)",
        "UPDATE whole SET b = 'é'",
        "DELETE FROM whole",
        "INSERT INTO part VALUES (7, 'seven')",
        "INSERT INTO gen VALUES (3, DEFAULT, 'z')",
        "TRUNCATE whole, part RESTART IDENTITY",
    ] {
        db.execute(sql).await;
    }
    let got = transactions(&mut stream, 9).await;

    let insert = rows(&got[0])[0];
    assert_eq!((insert.op, insert.table.name.table.as_str()), (Op::Insert, "Odd \"name"));
    assert_eq!(text(insert.new.as_ref().unwrap())[1].len(), 100_000);

    let key_change = rows(&got[1])[0];
    assert!(key_change.old_is_key_only);
    assert_eq!(text(key_change.old.as_ref().unwrap()), ["1", "NULL"]);
    assert_eq!(text(key_change.new.as_ref().unwrap()), ["2", "UNCHANGED"], "an unchanged TOAST value is not sent");
    assert!(Arc::ptr_eq(&insert.table, &key_change.table));
    assert_eq!(insert.table.key.as_ref().unwrap().columns, [0]);

    let delete = rows(&got[2])[0];
    assert_eq!((delete.op, text(delete.old.as_ref().unwrap())[0].as_str()), (Op::Delete, "2"));

    let full = rows(&got[4])[0];
    assert_eq!(full.table.replica_identity, ReplicaIdentity::Full);
    assert!(!full.old_is_key_only && full.table.key.is_none());
    assert_eq!(text(full.old.as_ref().unwrap()), ["1", "NULL"]);
    assert_eq!(text(full.new.as_ref().unwrap()), ["1", "é"]);
    assert_eq!(text(rows(&got[5])[0].old.as_ref().unwrap()), ["1", "é"]);

    assert_eq!(rows(&got[6])[0].table.name.table, "part", "a partition's row comes under its root's name");
    let generated = rows(&got[7])[0];
    assert_eq!(text(generated.new.as_ref().unwrap()), ["3", "z"], "generated and dropped columns do not travel");
    assert_eq!(generated.table.columns.len(), 2);

    let [ChangeEvent::Truncate(truncate)] = &got[8][..] else { panic!("{:?}", got[8]) };
    let names: BTreeSet<_> = truncate.tables.iter().map(|table| table.name.table.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["part", "whole"]));
    assert!(truncate.restart_identity);
    stream.close().await.unwrap();
    assert_eq!(fixture.source.slot().await.unwrap().unwrap().active_pid, None, "a closed stream frees its slot");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_stream_carries_binary_values() {
    let (db, _) = support::pair().await;
    db.execute("CREATE TABLE t (id int PRIMARY KEY)").await;
    let fixture = fixture(&db.url(), "binary").await;
    fixture.source.set_binary(true);
    let mut stream = fixture.stream().await;
    db.execute("INSERT INTO t VALUES (258)").await;
    let got = transactions(&mut stream, 1).await;
    assert_eq!(rows(&got[0])[0].new.as_ref().unwrap().get(0), Some(Datum::Binary(&[0, 0, 1, 2])));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_our_own_armed_fence_is_a_marker() {
    let (db, _) = support::pair().await;
    db.execute("CREATE TABLE t (id int PRIMARY KEY)").await;
    let fixture = fixture(&db.url(), "marked").await;
    let mut stream = fixture.stream().await;
    db.execute("INSERT INTO cutwater.fence VALUES ('other', 'n0', 1, 'armed', now())").await;
    db.execute("INSERT INTO cutwater.fence VALUES ('marked', 'n1', 1, 'lifted', now())").await;
    db.execute("UPDATE cutwater.fence SET state = 'armed', nonce = 'n2' WHERE migration = 'marked'").await;
    let got = transactions(&mut stream, 1).await;
    let [ChangeEvent::Message(message)] = &got[0][..] else { panic!("{:?}", got[0]) };
    assert_eq!(*message, Message::Fence { nonce: "n2".into() });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_table_is_announced_before_its_first_row() {
    let (db, _) = support::pair().await;
    db.execute("CREATE TABLE t (id int PRIMARY KEY, a text)").await;
    let fixture = fixture(&db.url(), "changed").await;
    let mut stream = fixture.stream().await;
    db.execute("ALTER TABLE t ADD COLUMN b int").await;
    db.execute("INSERT INTO t VALUES (1, 'a', 2)").await;
    let got = transactions(&mut stream, 1).await;
    let ChangeEvent::Schema(new) = &got[0][0] else { panic!("{:?}", got[0]) };
    assert!(describe_difference(&fixture.tables[0], new).contains("column \"b\" is new"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_hears_from_us_while_nobody_reads_the_stream() {
    let server = support::postgres_with(ServerOptions::new().setting("wal_sender_timeout", "2s")).await;
    let url = server.url("postgres", "postgres");
    server.execute("postgres", "CREATE TABLE t (id serial PRIMARY KEY, v text)").await.unwrap();
    let fixture = fixture(&url, "slow").await;
    // A budget so small that the reader soon has to wait for it.
    let mut stream = fixture.source.stream(&fixture.from, &fixture.tables, &Budget::new(256 << 10)).await.unwrap();
    for _ in 0..20 {
        let insert = "INSERT INTO t (v) SELECT repeat('x', 1000) FROM generate_series(1, 2000)";
        server.execute("postgres", insert).await.unwrap();
    }
    // The claim is about time: three times the server's patience pass without anybody reading.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let read = async {
        let mut count = 0;
        while count < 40_000 {
            if let StreamItem::Events(chunk) = stream.next().await.unwrap() {
                count += chunk.events.iter().filter(|event| matches!(event, ChangeEvent::Row(_))).count();
            }
        }
        count
    };
    assert_eq!(within("the rest of the stream", PATIENCE, read).await, 40_000);
    assert!(!server.log().contains("terminating walsender process due to replication timeout"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_stream_advances_and_confirms_only_what_is_durable() {
    let (db, _) = support::pair().await;
    db.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE UNLOGGED TABLE not_ours (id int)").await;
    let fixture = fixture(&db.url(), "idle").await;
    let mut stream = fixture.stream().await;
    let started = fixture.source.slot().await.unwrap().unwrap().confirmed;
    // Work in another database moves the log on without a change for us.
    let head = fixture.source.head().await.unwrap().position;
    db.server
        .execute("postgres", "CREATE TABLE IF NOT EXISTS elsewhere (id int); INSERT INTO elsewhere VALUES (1)")
        .await
        .unwrap();
    let later = fixture.source.head().await.unwrap().position;
    assert!(later > head);
    let idle = async {
        loop {
            if let StreamItem::Idle(position) = stream.next().await.unwrap()
                && position >= later
            {
                return position;
            }
        }
    };
    let idle = within("an idle position past the other database's work", PATIENCE, idle).await;
    // Wherever the reader is, the server hears only what is durable: also in the status update that comes next.
    let now: String = db.value("SELECT clock_timestamp()::text").await;
    let heard = format!(
        "SELECT count(*) FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid
          WHERE s.database = current_database() AND r.reply_time > '{now}'"
    );
    wait_for("a status update", PATIENCE, async || db.value::<i64>(&heard).await > 0).await;
    assert_eq!(fixture.source.slot().await.unwrap().unwrap().confirmed, started, "nothing was said to be durable");
    stream.confirm(&Durable::committed(idle.clone()));
    wait_for("the confirmation", PATIENCE, async || fixture.source.slot().await.unwrap().unwrap().confirmed == idle)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_ahead_of_the_checkpoint_is_refused() {
    let (db, _) = support::pair().await;
    db.execute("CREATE TABLE t (id int PRIMARY KEY)").await;
    let fixture = fixture(&db.url(), "ahead").await;
    let mut stream = fixture.stream().await;
    db.execute("INSERT INTO t VALUES (1)").await;
    transactions(&mut stream, 1).await;
    let head = fixture.source.head().await.unwrap().position;
    stream.confirm(&Durable::committed(head));
    stream.close().await.unwrap();
    let error = fixture.source.stream(&fixture.from, &fixture.tables, &Budget::new(1 << 20)).await.err().unwrap();
    assert_eq!(error.kind(), Kind::SlotLost, "{error}");
    fixture.source.drop_slot().await.unwrap();
    let error = fixture.source.stream(&fixture.from, &fixture.tables, &Budget::new(1 << 20)).await.err().unwrap();
    assert_eq!(error.kind(), Kind::SlotLost, "{error}");
}

async fn copy_all(
    snapshot: &impl Snapshot,
    table: &Arc<TableSchema>,
    chunk_rows: u64,
    format: CopyFormat,
) -> (usize, Vec<u8>, u64) {
    let parts = snapshot.parts(table, chunk_rows).await.unwrap();
    let columns: Vec<usize> = (0..table.columns.len()).collect();
    let (mut bytes, mut rows) = (Vec::new(), 0);
    for part in &parts {
        let chunks: Vec<_> = snapshot.copy(part, &columns, format).await.unwrap().try_collect().await.unwrap();
        for chunk in chunks {
            bytes.extend_from_slice(&chunk.bytes);
            rows += chunk.rows;
        }
    }
    (parts.len(), bytes, rows)
}

fn ids(text: &[u8]) -> Vec<i64> {
    let text = std::str::from_utf8(text).unwrap();
    text.lines().map(|line| line.split('\t').next().unwrap().parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_a_snapshot_together_are_the_table() {
    let (db, _) = support::pair().await;
    db.execute(
        "CREATE TABLE big (id bigint PRIMARY KEY, v text);
         INSERT INTO big SELECT g, repeat('v', 20) FROM generate_series(1, 30000) g;
         CREATE TABLE part (id bigint PRIMARY KEY, v text) PARTITION BY RANGE (id);
         CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (100);
         CREATE TABLE part_2 (v text, gone int, id bigint NOT NULL);
         ALTER TABLE part_2 DROP COLUMN gone;
         ALTER TABLE part ATTACH PARTITION part_2 FOR VALUES FROM (100) TO (1000);
         INSERT INTO part SELECT g, 'v' FROM generate_series(1, 500) g;
         CREATE TABLE empty (id int PRIMARY KEY)",
    )
    .await;
    db.execute("ANALYZE").await;
    let source = PgSource::new(info(&db.url()), "parts");
    let tables = source.tables(&Patterns::default()).await.unwrap();
    source.prepare(&tables).await.unwrap();
    let snapshot = source.create_slot().await.unwrap();
    // After the snapshot: not in it.
    db.execute("INSERT INTO big SELECT g, 'late' FROM generate_series(30001, 31000) g; DELETE FROM big WHERE id <= 10")
        .await;
    let table = |name: &str| tables.iter().find(|table| table.name.table == name).unwrap();

    let (parts, bytes, rows) = copy_all(&snapshot, table("big"), 5000, CopyFormat::PgText).await;
    assert!(parts >= 5, "{parts} parts");
    let mut got = ids(&bytes);
    got.sort_unstable();
    assert_eq!(got, (1..=30_000).collect::<Vec<_>>());
    assert_eq!(rows, 30_000);

    let (parts, bytes, rows) = copy_all(&snapshot, table("part"), 5000, CopyFormat::PgText).await;
    assert_eq!((parts, rows), (2, 500), "each partition is a part");
    let mut got = ids(&bytes);
    got.sort_unstable();
    assert_eq!(got, (1..=500).collect::<Vec<_>>(), "columns come in the root's order");

    let (_, bytes, rows) = copy_all(&snapshot, table("empty"), 5000, CopyFormat::PgBinary).await;
    assert_eq!((rows, bytes.len()), (0, 21));
    let (_, bytes, rows) = copy_all(&snapshot, table("big"), 1_000_000, CopyFormat::PgBinary).await;
    assert_eq!(rows, 30_000);
    assert!(bytes.starts_with(b"PGCOPY\n\xff\r\n\0") && bytes.ends_with(&[0xff, 0xff]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_rewritten_between_two_parts_is_not_pieced_together() {
    let (db, _) = support::pair().await;
    db.execute("CREATE TABLE t (id bigint PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 20000)").await;
    let source = PgSource::new(info(&db.url()), "rewritten");
    let tables = source.tables(&Patterns::default()).await.unwrap();
    source.prepare(&tables).await.unwrap();
    let snapshot = source.create_slot().await.unwrap();
    let parts = snapshot.parts(&tables[0], 5000).await.unwrap();
    assert!(parts.len() > 1);
    db.execute("CLUSTER t USING t_pkey").await;
    let error = snapshot.copy(&parts[0], &[0], CopyFormat::PgText).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Transient, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_after_snapshot_has_no_gap_and_no_overlap() {
    let (db, _) = support::pair().await;
    db.execute("CREATE TABLE t (id bigserial PRIMARY KEY, v int)").await;
    let enough = Arc::new(AtomicBool::new(false));
    let writer = {
        let (client, enough) = (db.connect().await, Arc::clone(&enough));
        tokio::spawn(async move {
            let mut written = 0;
            while !enough.load(Ordering::Relaxed) {
                client.execute("INSERT INTO t (v) VALUES ($1)", &[&written]).await.unwrap();
                written += 1;
            }
            usize::try_from(written).unwrap()
        })
    };
    let source = PgSource::new(info(&db.url()), "seam");
    let tables = source.tables(&Patterns::default()).await.unwrap();
    source.prepare(&tables).await.unwrap();
    wait_for("some rows", PATIENCE, async || db.value::<i64>("SELECT count(*) FROM t").await > 100).await;
    let snapshot = source.create_slot().await.unwrap();
    let (_, bytes, _) = copy_all(&snapshot, &tables[0], 1_000_000, CopyFormat::PgText).await;
    let mut seen = ids(&bytes);
    let copied = seen.len();
    let mut stream = source.stream(snapshot.position(), &tables, &Budget::new(64 << 20)).await.unwrap();
    let more = format!("SELECT count(*) > {copied} + 100 FROM t");
    wait_for("rows behind the copy", PATIENCE, async || db.value::<bool>(&more).await).await;
    enough.store(true, Ordering::Relaxed);
    let written = writer.await.unwrap();
    // A temporary snapshot in the middle has its own exact place.
    let later = source.temporary_snapshot().await.unwrap();
    let (_, bytes, _) = copy_all(&later, &tables[0], 1_000_000, CopyFormat::PgText).await;
    assert_eq!(ids(&bytes).len(), written);
    for transaction in transactions(&mut stream, written - copied).await {
        for row in rows(&transaction) {
            seen.push(text(row.new.as_ref().unwrap())[0].parse().unwrap());
        }
    }
    assert!((100..written).contains(&copied), "{copied} rows were copied");
    seen.sort_unstable();
    assert!(seen.into_iter().eq(1..=i64::try_from(written).unwrap()));
}

/// TRAPS 6: it is in the log, and no snapshot sees it before the standby has answered. A snapshot that came with the log's
/// end as its position would be without it, and the stream from there on too.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_waits_for_a_standby_is_in_a_later_snapshot_or_behind_its_position() {
    let server = support::postgres().await;
    let execute = async |sql: &str| server.execute("postgres", sql).await.unwrap();
    execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 10)").await;
    let fixture = fixture(&server.url("postgres", "postgres"), "standby").await;
    let mut stream = fixture.stream().await;
    execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
    execute("SELECT pg_reload_conf()").await;
    let waits = server.connect("postgres").await.unwrap();
    wait_for("the setting", PATIENCE, async || {
        let shown = waits.query_one("SHOW synchronous_standby_names", &[]).await.unwrap();
        shown.get::<_, &str>(0) == "nobody"
    })
    .await;
    let commit = tokio::spawn(async move { waits.batch_execute("INSERT INTO t VALUES (11)").await });
    let seen = async |sql: &str| {
        let client = server.connect("postgres").await.unwrap();
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) > 0
    };
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    wait_for("the commit to wait", PATIENCE, async || seen(waiting).await).await;
    let source = fixture.source.clone();
    let mut taking = tokio::spawn(async move { source.temporary_snapshot().await.map(Arc::new) });
    // Either it waits for that transaction's end, or it is there at once: both may be right.
    let made = "SELECT count(*) FROM pg_replication_slots WHERE temporary";
    wait_for("the snapshot to be asked for", PATIENCE, async || taking.is_finished() || seen(made).await).await;
    let early = tokio::time::timeout(Duration::from_secs(1), &mut taking).await;
    let copied =
        async |snapshot: &_| ids(&copy_all(snapshot, &fixture.tables[0], 1_000_000, CopyFormat::PgText).await.1);
    let (mut early_ids, mut snapshot) = (None, None);
    if let Ok(taken) = early {
        let taken = taken.unwrap().unwrap();
        early_ids = Some(copied(&*taken).await);
        snapshot = Some(taken);
    }
    execute("ALTER SYSTEM RESET synchronous_standby_names").await;
    execute("SELECT pg_reload_conf()").await;
    within("the commit", PATIENCE, commit).await.unwrap().unwrap();
    let snapshot = match snapshot {
        Some(snapshot) => snapshot,
        None => within("the snapshot", PATIENCE, taking).await.unwrap().unwrap(),
    };
    let mut got = match early_ids {
        Some(ids) => ids,
        None => copied(&*snapshot).await,
    };
    for transaction in transactions_with_begin(&mut stream, 1).await {
        let (begin, row) = (&transaction[0], rows(&transaction)[0]);
        let ChangeEvent::Begin(begin) = begin else { panic!("{begin:?}") };
        if !begin.is_in(snapshot.position()) {
            got.push(text(row.new.as_ref().unwrap())[0].parse().unwrap());
        }
    }
    got.sort_unstable();
    assert_eq!(got, (1..=11).collect::<Vec<_>>(), "once, and not in neither");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_updates_would_fail_is_refused_with_the_statement() {
    let (db, _) = support::pair().await;
    db.execute(
        "CREATE TABLE no_key (a int);
         CREATE TABLE p (a int PRIMARY KEY) PARTITION BY RANGE (a);
         CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (9);
         ALTER TABLE p REPLICA IDENTITY FULL",
    )
    .await;
    let source = PgSource::new(info(&db.url()), "refused");
    let tables = source.tables(&Patterns::default()).await.unwrap();
    let error = source.prepare(&tables).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Schema);
    let fix = error.suggestion().unwrap();
    assert!(fix.contains("ALTER TABLE \"public\".\"no_key\" REPLICA IDENTITY FULL;"), "{fix}");
    assert!(fix.contains("ALTER TABLE public.p_1 REPLICA IDENTITY FULL;"), "{fix}");
}

#[tokio::test(flavor = "multi_thread")]
async fn teardown_leaves_nothing_and_may_be_run_again() {
    let (db, _) = support::pair().await;
    db.execute("CREATE TABLE t (id int PRIMARY KEY)").await;
    let fixture = fixture(&db.url(), "gone").await;
    // Prepared again: the same; with another set of tables: that set.
    fixture.source.prepare(&fixture.tables).await.unwrap();
    db.execute("CREATE TABLE u (id int PRIMARY KEY)").await;
    let both = fixture.source.tables(&Patterns::default()).await.unwrap();
    fixture.source.prepare(&both).await.unwrap();
    let published = "SELECT count(*) FROM pg_publication_tables WHERE pubname = 'cutwater_gone'";
    assert_eq!(db.value::<i64>(published).await, 3);
    // Somebody still reads the slot: it is ended.
    let _stream = fixture.stream().await;
    let removed = fixture.source.teardown().await.unwrap();
    assert_eq!(removed, ["slot cutwater_gone", "publication cutwater_gone", "table cutwater.fence", "schema cutwater"]);
    assert!(fixture.source.teardown().await.unwrap().is_empty());
    let left = "SELECT count(*) FROM pg_namespace WHERE nspname = 'cutwater'";
    assert_eq!(db.value::<i64>(left).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_knows_keys_and_types() {
    let (db, _) = support::pair().await;
    db.execute(
        "CREATE TYPE mood AS ENUM ('a'); CREATE TYPE pair AS (a int, b int); CREATE DOMAIN money_t AS numeric(10, 2);
         CREATE TYPE span AS RANGE (subtype = float8);
         CREATE TABLE types (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m mood, ms mood[], p pair, d money_t,
             r span, i int[], j json, jb jsonb, v varchar(40), pt point, x xid, rc regclass);
         CREATE TABLE deferrable_key (a int PRIMARY KEY DEFERRABLE);
         CREATE TABLE by_index (a int NOT NULL, b int NOT NULL, c text, UNIQUE (b, a));
         ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_b_a_key;
         CREATE TABLE full_unique (a int NOT NULL UNIQUE, b int UNIQUE); ALTER TABLE full_unique REPLICA IDENTITY FULL;
         CREATE TABLE full_partial (a int NOT NULL); CREATE UNIQUE INDEX ON full_partial (a) WHERE a > 0;
         ALTER TABLE full_partial REPLICA IDENTITY FULL;
         CREATE TABLE full_others (a int UNIQUE, b int NOT NULL, c text NOT NULL, d int NOT NULL UNIQUE DEFERRABLE);
         CREATE INDEX ON full_others (b); CREATE UNIQUE INDEX ON full_others (lower(c));
         ALTER TABLE full_others REPLICA IDENTITY FULL;
         CREATE UNLOGGED TABLE unlogged (a int)",
    )
    .await;
    let source = PgSource::new(info(&db.url()), "catalog");
    let tables = source.tables(&Patterns::default()).await.unwrap();
    let names: Vec<_> = tables.iter().map(|table| table.name.table.as_str()).collect();
    assert_eq!(names, ["by_index", "deferrable_key", "full_others", "full_partial", "full_unique", "types"]);
    let key = |index: usize| tables[index].key.as_ref().map(|key| key.columns.clone());
    assert_eq!([key(0), key(1), key(2), key(3), key(4)], [Some(vec![0, 1]), None, None, None, Some(vec![0])]);
    let portable = |name: &str| tables[5].column(name).unwrap().ty.portable_binary;
    for name in ["id", "m", "d", "r", "i", "j", "jb", "v", "pt"] {
        assert!(portable(name), "{name} is portable");
    }
    for name in ["ms", "p", "rc"] {
        assert!(!portable(name), "{name} is not portable");
    }
    let equal = |name: &str| tables[5].column(name).unwrap().ty.has_equality;
    for name in ["id", "m", "ms", "d", "r", "i", "jb", "v"] {
        assert!(equal(name), "{name} has equality");
    }
    for name in ["j", "pt"] {
        assert!(!equal(name), "{name} has none");
    }
    let identity = source.identity().await.unwrap();
    assert_eq!((identity.engine.as_str(), identity.database.as_str()), ("postgres", db.name.as_str()));
}

/// Both ways of connecting answer alike.
async fn both(url: &str) -> Result<(), cutwater::error::Error> {
    let info = info(url);
    let sql = connect(&info, "test").await.map(drop);
    let wire = Wire::connect(&info, "test", Purpose::Replication).await;
    let wire = match wire {
        Ok(mut wire) => wire.query("SELECT 1").await.map(drop),
        Err(error) => Err(error),
    };
    match (sql, wire) {
        (Ok(()), Ok(())) => Ok(()),
        (Err(sql), Err(wire)) => {
            assert_eq!(sql.kind(), wire.kind(), "{sql}\n{wire}");
            Err(wire)
        }
        (sql, wire) => panic!("they differ: {sql:?} {wire:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_authenticating_works_and_a_wrong_password_is_said_to_be_wrong() {
    let server = support::postgres_with(
        ServerOptions::new()
            .setting("max_wal_senders", "4")
            .hba("host all scram 127.0.0.1/32 scram-sha-256")
            .hba("host all md5 127.0.0.1/32 md5")
            .hba("host all clear 127.0.0.1/32 password")
            .hba("host all trusted 127.0.0.1/32 trust"),
    )
    .await;
    server
        .execute(
            "postgres",
            "CREATE ROLE scram LOGIN REPLICATION PASSWORD 's3/cret:x'; CREATE ROLE clear LOGIN REPLICATION PASSWORD 's3/cret:x';
             CREATE ROLE trusted LOGIN REPLICATION; SET password_encryption = 'md5';
             CREATE ROLE md5 LOGIN REPLICATION PASSWORD 's3/cret:x'",
        )
        .await
        .unwrap();
    for role in ["scram", "md5", "clear"] {
        both(&server.url_with_password(role, "s3/cret:x", "postgres")).await.unwrap();
        for url in [server.url_with_password(role, "wrong", "postgres"), server.url(role, "postgres")] {
            let error = both(&url).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Authentication, "{error}");
            assert!(error.suggestion().is_some() && !error.to_string().contains("s3/"), "{error}");
        }
    }
    both(&server.url("trusted", "postgres")).await.unwrap();
    both(&server.socket_url("scram", "postgres")).await.unwrap();
    let error = both(&server.url("nobody", "postgres")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Authentication, "{error}");
    let error = both(&server.url("trusted", "missing")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config, "{error}");
    let error = both("postgres://u@127.0.0.1:1/d").await.unwrap_err();
    assert!(error.kind() == Kind::Connection && error.why().contains("refused"), "{error}");
    let error = both("postgres://u@no-such-host.invalid/d?sslmode=disable").await.unwrap_err();
    assert!(error.kind() == Kind::Connection && error.why().contains("no-such-host.invalid"), "{error}");
    let error = both(&(server.url("trusted", "postgres") + "?sslmode=require")).await.unwrap_err();
    assert!(error.why().contains("does not speak TLS"), "{error}");
    // The first server that answers is taken.
    let port = server.port();
    both(&format!("postgres://trusted@127.0.0.1:1,127.0.0.1:{port}/postgres")).await.unwrap();
}

fn openssl(folder: &std::path::Path, arguments: &str) -> bool {
    let run = std::process::Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output();
    run.is_ok_and(|output| output.status.success())
}

/// A server with TLS by an authority of its own, for `localhost`; `None` without openssl.
async fn tls_server() -> Option<(LocalPostgres, tempfile::TempDir)> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("san"), "subjectAltName=DNS:localhost").unwrap();
    let made = openssl(
        folder.path(),
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca",
    ) && openssl(
        folder.path(),
        "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost",
    ) && openssl(
        folder.path(),
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -sha256 -extfile san -out server.crt",
    );
    if !made {
        eprintln!("NOT RUN: there is no openssl to make certificates with");
        return None;
    }
    let server = support::postgres_with(ServerOptions::new().hba("hostssl all all 127.0.0.1/32 scram-sha-256")).await;
    let data = server.data_directory();
    let owner = std::fs::metadata(&data).unwrap();
    for file in ["server.crt", "server.key"] {
        std::fs::copy(folder.path().join(file), data.join(file)).unwrap();
        chown(data.join(file), Some(owner.uid()), Some(owner.gid())).unwrap();
        std::fs::set_permissions(data.join(file), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    for sql in ["ALTER SYSTEM SET ssl = on", "CREATE ROLE u LOGIN REPLICATION PASSWORD 'p'", "SELECT pg_reload_conf()"]
    {
        server.execute("postgres", sql).await.unwrap();
    }
    wait_for("TLS", PATIENCE, async || {
        let client = server.connect("postgres").await.unwrap();
        client.query_one("SHOW ssl", &[]).await.unwrap().get::<_, &str>(0) == "on"
    })
    .await;
    Some((server, folder))
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_checks_what_its_sslmode_says() {
    let Some((server, folder)) = tls_server().await else { return };
    let ca = folder.path().join("ca.pem");
    let url = |host: &str, options: &str| {
        format!("postgres://u:p@{host}:{}/postgres?{options}", server.port()).replace("CA", ca.to_str().unwrap())
    };
    both(&url("localhost", "sslmode=verify-full&sslrootcert=CA")).await.unwrap();
    both(&url("127.0.0.1", "sslmode=verify-ca&sslrootcert=CA")).await.unwrap();
    for mode in ["require", "prefer", "allow"] {
        both(&url("127.0.0.1", &format!("sslmode={mode}"))).await.unwrap();
    }
    let error = both(&url("127.0.0.1", "sslmode=verify-full&sslrootcert=CA")).await.unwrap_err();
    assert!(error.kind() == Kind::Authentication && error.why().contains("not trusted"), "{error}");
    for mode in ["verify-full", "verify-ca"] {
        let error = both(&url("localhost", &format!("sslmode={mode}"))).await.unwrap_err();
        assert!(error.why().contains("not trusted") || error.why().contains("no certificate authorities"), "{error}");
        assert!(error.suggestion().unwrap().contains("sslrootcert"), "{error}");
    }
    let error = both(&url("127.0.0.1", "sslmode=disable")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Authentication, "{error}");
    // The server's own word for it: the SCRAM exchange was bound to this TLS channel.
    let client = connect(&info(&url("127.0.0.1", "sslmode=require")), "test").await.unwrap();
    let row = client.query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await.unwrap();
    assert!(row.get::<_, bool>(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_replicate_says_what_to_change() {
    let server = support::postgres_with(ServerOptions::new().setting("wal_level", "replica")).await;
    let source = PgSource::new(info(&server.url("postgres", "postgres")), "refused");
    let error = source.create_slot().await.err().unwrap();
    assert_eq!(error.kind(), Kind::ServerSetting, "{error}");
    assert!(error.suggestion().unwrap().contains("wal_level"), "{error}");
    server.execute("postgres", "CREATE ROLE plain LOGIN").await.unwrap();
    let source = PgSource::new(info(&server.url("plain", "postgres")), "refused");
    let error = source.create_slot().await.err().unwrap();
    assert_eq!(error.kind(), Kind::Privilege, "{error}");
    assert!(error.suggestion().unwrap().contains("REPLICATION"), "{error}");
}
