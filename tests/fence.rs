//! The fence on a real server: what it refuses, when it lets go, and whom it never harms.
#![allow(clippy::unwrap_used, dead_code, reason = "in a test a panic is the report; support is shared")]

mod support;

use std::time::{Duration, Instant};

use cutwater::config::Url;
use cutwater::error::Kind;
use cutwater::postgres::{Client, ConnInfo, connect};
use cutwater::schema::{Patterns, TableName};
use cutwater::source::postgres::fence::{self, Armed, FenceStep, Request};
use support::{Database, wait_for};

const TABLES: &str = "
    CREATE SCHEMA cutwater;
    CREATE TABLE cutwater.fence (migration text PRIMARY KEY, nonce text NOT NULL, epoch bigint NOT NULL,
                                 state text NOT NULL, deadline timestamptz);
    CREATE TABLE plain (id int PRIMARY KEY, v text);
    CREATE TABLE parts (id int, v text) PARTITION BY LIST (id);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
    CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2) PARTITION BY LIST (id);
    CREATE TABLE parts_2a PARTITION OF parts_2 FOR VALUES IN (2);
    INSERT INTO plain VALUES (1, 'one');
    INSERT INTO parts VALUES (1, 'one'), (2, 'two');";

const LONG: Duration = Duration::from_secs(60);

async fn source() -> Database {
    let (source, _) = support::pair().await;
    source.execute(TABLES).await;
    source
}

async fn session(database: &Database) -> Client {
    connect(&ConnInfo::parse(&Url::new(database.url())).unwrap(), "cutwater_shop_fence").await.unwrap()
}

async fn arm(client: &Client, nonce: &str, hold: Duration, budget: Duration) -> cutwater::error::Result<Armed> {
    arm_on(client, &["plain", "parts"], nonce, hold, budget).await
}

async fn arm_on(
    client: &Client,
    tables: &[&str],
    nonce: &str,
    hold: Duration,
    budget: Duration,
) -> cutwater::error::Result<Armed> {
    let tables: Vec<TableName> = tables.iter().map(|table| TableName::new("public", *table)).collect();
    let patterns = Patterns::default();
    let request = Request {
        migration: "shop",
        tables: &tables,
        patterns: &patterns,
        nonce,
        epoch: 7,
        max_downtime: hold,
        budget,
        target: "postgres new:5432/shop",
    };
    fence::arm(client, &request).await
}

/// The message a statement is refused with; a panic if it is not.
async fn refused(client: &tokio_postgres::Client, sql: &str) -> String {
    let Err(error) = client.batch_execute(sql).await else { panic!("passed the fence: {sql}") };
    let error = error.as_db_error().unwrap();
    assert!(error.message().starts_with("cutwater: "), "{sql}: {}", error.message());
    error.message().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_write_is_refused() {
    let source = source().await;
    let old = source.connect().await;
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM plain").await.unwrap();
    let client = session(&source).await;
    arm(&client, "n1", LONG, LONG).await.unwrap();

    // Its snapshot is older than the fence.
    refused(&old, "INSERT INTO plain VALUES (3, 'three')").await;
    old.batch_execute("ROLLBACK").await.unwrap();
    let app = source.connect().await;
    let message = refused(&app, "INSERT INTO plain VALUES (2, 'two')").await;
    assert!(message.contains("new:5432/shop"), "{message}");
    for sql in [
        "UPDATE plain SET v = 'x'",
        "UPDATE plain SET v = 'x' WHERE false",
        "DELETE FROM plain",
        "TRUNCATE plain",
        "INSERT INTO parts VALUES (1, 'again')",
        "INSERT INTO parts_1 VALUES (1, 'direct')",
        "INSERT INTO parts_2a VALUES (2, 'direct')",
        "TRUNCATE parts_2a",
        "WITH w AS (UPDATE parts_2 SET v = 'x' RETURNING 1) SELECT * FROM w",
    ] {
        refused(&app, sql).await;
        // What a logical replication worker or a restore would do.
        refused(&app, &format!("SET session_replication_role = replica; {sql}")).await;
        app.batch_execute("RESET session_replication_role").await.unwrap();
    }
    let sink = app.copy_in::<_, bytes::Bytes>("COPY parts_1 FROM STDIN").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    let rows = async {
        futures::SinkExt::send(&mut sink, bytes::Bytes::from_static(b"1\tcopied\n")).await?;
        sink.as_mut().finish().await
    };
    assert!(rows.await.is_err(), "COPY passed the fence");
    // Readers are not disturbed.
    assert_eq!(source.value::<i64>("SELECT count(*) FROM parts").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_lets_go_by_itself() {
    let source = source().await;
    let client = session(&source).await;
    let armed = arm(&client, "n1", Duration::from_millis(700), LONG).await.unwrap();
    drop(client);
    let app = source.connect().await;
    refused(&app, "UPDATE plain SET v = 'early'").await;
    wait_for("the fence to expire", Duration::from_secs(5), async || {
        app.batch_execute("UPDATE plain SET v = 'late'").await.is_ok()
    })
    .await;
    assert!(armed.since.elapsed() >= Duration::from_millis(700));
    app.batch_execute("INSERT INTO parts VALUES (1, 'later'); DELETE FROM parts WHERE v = 'one'").await.unwrap();
    assert_eq!(source.value::<i64>("SELECT count(*) FROM parts").await, 2, "an expired fence changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_point_of_no_return_it_never_lets_go() {
    let source = source().await;
    let client = session(&source).await;
    let hold = Duration::from_millis(600);
    arm(&client, "n1", hold, LONG).await.unwrap();
    assert!(!fence::make_permanent(&client, "shop", "other", 7, "new").await.unwrap(), "another attempt's nonce");
    assert!(!fence::make_permanent(&client, "shop", "n1", 8, "new").await.unwrap(), "another epoch");
    assert!(fence::make_permanent(&client, "shop", "n1", 7, "new").await.unwrap());
    tokio::time::sleep(hold).await;
    let app = source.connect().await;
    refused(&app, "UPDATE plain SET v = 'late'").await;
    let state = fence::state(&client, "shop").await.unwrap().unwrap();
    assert_eq!((state.step, state.refuses), (FenceStep::Permanent, true));
    assert_eq!(fence::disarm(&client, "shop", "n1").await.unwrap_err().kind(), Kind::Refused);
    assert_eq!(arm(&client, "n2", hold, LONG).await.unwrap_err().kind(), Kind::Refused);
    refused(&app, "UPDATE plain SET v = 'still'").await;
    fence::drop_all(&client, "shop").await.unwrap();
    app.batch_execute("UPDATE plain SET v = 'torn down'").await.unwrap();
    assert_eq!(source.value::<i64>("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_deadline_there_is_no_point_of_no_return() {
    let source = source().await;
    let client = session(&source).await;
    arm(&client, "n1", Duration::from_millis(300), LONG).await.unwrap();
    let app = source.connect().await;
    wait_for("the fence to expire", Duration::from_secs(5), async || {
        app.batch_execute("UPDATE plain SET v = 'x'").await.is_ok()
    })
    .await;
    assert!(!fence::make_permanent(&client, "shop", "n1", 7, "new").await.unwrap());
    app.batch_execute("UPDATE plain SET v = 'y'").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifted_fence_lets_everything_pass_and_can_be_taken_again() {
    let source = source().await;
    let client = session(&source).await;
    arm(&client, "n1", LONG, LONG).await.unwrap();
    // A reader keeps the triggers from being dropped; the writes must go on all the same.
    let reader = source.connect().await;
    reader.batch_execute("BEGIN; SELECT * FROM plain").await.unwrap();
    fence::disarm(&client, "shop", "n1").await.unwrap();
    let app = source.connect().await;
    app.batch_execute("UPDATE plain SET v = 'x'; INSERT INTO parts VALUES (1, 'x'); TRUNCATE parts_2a").await.unwrap();
    assert_eq!(source.value::<String>("SELECT v FROM plain").await, "x", "a lifted fence swallows no row");
    arm(&client, "n2", LONG, LONG).await.unwrap();
    refused(&app, "UPDATE plain SET v = 'y'").await;
    fence::disarm(&client, "shop", "n1").await.unwrap();
    refused(&app, "UPDATE plain SET v = 'an old attempt lifts nothing'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_in_the_way_is_named_and_never_the_victim() {
    let source = source().await;
    let app = source.connect().await;
    let pid: i32 = app.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    app.batch_execute("SET application_name = 'nightly'; BEGIN; UPDATE plain SET v = 'mine'").await.unwrap();
    let client = session(&source).await;
    let error = arm(&client, "n1", LONG, Duration::from_secs(2)).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), Kind::Transient);
    for part in [&format!("pid {pid}"), "nightly", "UPDATE plain", "pg_terminate_backend"] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
    // It goes on to a table that the fence had asked for before: its transaction must live.
    app.batch_execute("UPDATE parts SET v = 'mine too'; COMMIT").await.unwrap();
    arm(&client, "n1", LONG, LONG).await.unwrap();
}

/// The fence holds the first table and waits for the second, whose writer then wants the first: below deadlock_timeout
/// the fence gives way, and the writer's transaction commits (TRAPS 20).
#[tokio::test(flavor = "multi_thread")]
async fn crossing_writers_always_commit() {
    let source = source().await;
    let client = session(&source).await;
    let fencing = tokio::spawn(async move {
        for n in 0..6 {
            let nonce = format!("n{n}");
            if arm(&client, &nonce, LONG, Duration::from_secs(8)).await.is_ok() {
                fence::disarm(&client, "shop", &nonce).await.unwrap();
            }
        }
    });
    let app = source.connect().await;
    let started = Instant::now();
    let mut committed = 0;
    while !fencing.is_finished() && started.elapsed() < Duration::from_secs(40) {
        for pair in [["parts", "plain"], ["plain", "parts"]] {
            app.batch_execute("BEGIN").await.unwrap();
            let mut outcome = Ok(());
            for table in pair {
                if outcome.is_ok() {
                    outcome = app.batch_execute(&format!("UPDATE {table} SET v = 'w'")).await;
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
            }
            app.batch_execute(if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" }).await.unwrap();
            match outcome {
                Ok(()) => committed += 1,
                Err(error) => {
                    let error = error.as_db_error().unwrap();
                    assert!(error.message().starts_with("cutwater: "), "a victim: {error:?}");
                }
            }
        }
    }
    fencing.await.unwrap();
    assert!(committed > 0);
}

/// The fence has the first table and waits for the second and the third together no longer than the server waits before
/// it looks for deadlocks: whoever waits for the first, and has the third, is never the one that is killed (TRAPS 20).
#[tokio::test(flavor = "multi_thread")]
async fn however_many_tables_a_fence_waits_for_one_after_the_other_it_gives_way_in_time() {
    let source = source().await;
    source.execute("CREATE TABLE last (id int PRIMARY KEY, v text); INSERT INTO last VALUES (1, 'one')").await;
    let name = &source.name;
    source.execute(&format!("ALTER DATABASE {name} SET deadlock_timeout = '3s'")).await;
    let begin = |table: &'static str| {
        let source = &source;
        async move {
            let client = source.connect().await;
            (client, format!("BEGIN; UPDATE {table} SET v = 'w'"))
        }
    };
    let (second, hold_second) = begin("parts_1").await;
    let (third, hold_third) = begin("last").await;
    let waits = async |relation: &str, mode: &str| {
        let sql = format!(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{relation}'::regclass AND mode = '{mode}'
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        );
        source.value::<i64>(&sql).await > 0
    };
    let mut tried = false;
    for round in 0..20 {
        // Older transactions are waited for without any lock: both are begun just before the fence.
        let client = session(&source).await;
        second.batch_execute(&hold_second).await.unwrap();
        third.batch_execute(&hold_third).await.unwrap();
        let fencing = tokio::spawn(async move {
            let nonce = format!("n{round}");
            let tables = ["plain", "parts", "last"];
            let armed = arm_on(&client, &tables, &nonce, LONG, Duration::from_secs(8)).await;
            if armed.is_ok() {
                fence::disarm(&client, "shop", &nonce).await.unwrap();
            }
        });
        let began = Instant::now();
        let mut waiting = false;
        while !waiting && !fencing.is_finished() && began.elapsed() < Duration::from_secs(2) {
            waiting = waits("parts_1", "ShareRowExclusiveLock").await;
        }
        if !waiting {
            // They had become too old for it before it looked.
            second.batch_execute("ROLLBACK").await.unwrap();
            third.batch_execute("ROLLBACK").await.unwrap();
            fencing.await.unwrap();
            continue;
        }
        tried = true;
        let crossing = async {
            third.batch_execute("UPDATE plain SET v = 'w'").await?;
            third.batch_execute("COMMIT").await
        };
        let letting_go = async {
            tokio::time::sleep(Duration::from_millis(1600)).await;
            second.batch_execute("COMMIT").await.unwrap();
        };
        let (crossed, ()) = tokio::join!(crossing, letting_go);
        crossed.unwrap_or_else(|error| panic!("a victim: {error:?}"));
        fencing.await.unwrap();
        break;
    }
    assert!(tried, "the fence was never seen to wait for the second table");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_is_named() {
    let options = support::ServerOptions::new().setting("max_prepared_transactions", "5");
    let server = support::postgres_with(options).await;
    let source = Database { server: std::sync::Arc::new(server), name: "postgres".into() };
    source.execute(TABLES).await;
    source
        .connect()
        .await
        .batch_execute("BEGIN; UPDATE plain SET v = 'x'; PREPARE TRANSACTION 'order 66'")
        .await
        .unwrap();
    let client = session(&source).await;
    let text = arm(&client, "n1", LONG, Duration::from_secs(1)).await.unwrap_err().to_string();
    assert!(text.contains("prepared transaction \"order 66\"") && text.contains("ROLLBACK PREPARED"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_autovacuum_is_cancelled() {
    let options = support::ServerOptions::new()
        .setting("autovacuum_naptime", "1s")
        .setting("autovacuum_vacuum_cost_delay", "100ms")
        .setting("autovacuum_vacuum_cost_limit", "1");
    let server = support::postgres_with(options).await;
    let source = Database { server: std::sync::Arc::new(server), name: "postgres".into() };
    source.execute(TABLES).await;
    source.execute("INSERT INTO plain SELECT n, repeat('x', 500) FROM generate_series(10, 60000) n").await;
    source.execute("DELETE FROM plain WHERE id > 5").await;
    wait_for("autovacuum to begin on the table", Duration::from_secs(40), async || {
        source
            .value::<bool>(
                "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                  WHERE a.backend_type = 'autovacuum worker' AND l.relation = 'plain'::regclass
                    AND l.mode = 'ShareUpdateExclusiveLock' AND a.query NOT LIKE '%wraparound%')",
            )
            .await
    })
    .await;
    let client = session(&source).await;
    arm(&client, "n1", LONG, Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_made_since_the_copy_is_refused() {
    let source = source().await;
    source.execute("CREATE TABLE made_meanwhile (id int)").await;
    let client = session(&source).await;
    let error = arm(&client, "n1", LONG, LONG).await.unwrap_err();
    assert!(error.kind() == Kind::Schema && error.to_string().contains("public.made_meanwhile"), "{error}");
    source.connect().await.batch_execute("UPDATE plain SET v = 'nothing was fenced'").await.unwrap();
}
