//! Every version of Postgres that is a source: what must hold on each. A version whose server cannot be had here is
//! reported on stderr as not run.
#![allow(clippy::unwrap_used, reason = "a test dies of its errors")]

#[path = "versions/decoder.rs"]
mod decoder;
#[path = "versions/heartbeat.rs"]
mod heartbeat;
#[path = "versions/membership.rs"]
mod membership;
mod support;

use std::time::Duration;

use support::{Cutwater, Server, assert_equal, on_every_version, pair, site_of, wait_for};

const MINUTE: Duration = Duration::from_secs(60);
const TABLES: [&str; 3] = ["public.item", "public.whole", "public.part"];

/// Made at both ends: the installed `pg_dump` is older than some of these servers.
const SCHEMA: &str = "
    CREATE TABLE public.item (id bigint PRIMARY KEY, name text, price numeric, at timestamptz, tags text[], doc jsonb, body text);
    ALTER TABLE public.item ALTER body SET STORAGE EXTERNAL;
    CREATE TABLE public.whole (a int, b text); ALTER TABLE public.whole REPLICA IDENTITY FULL;
    CREATE TABLE public.part (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
    CREATE TABLE public.part_1 PARTITION OF public.part FOR VALUES FROM (0) TO (1000);
    CREATE TABLE public.part_2 PARTITION OF public.part FOR VALUES FROM (1000) TO (2000);";

on_every_version!(a_migration_arrives_exactly);
async fn a_migration_arrives_exactly(server: Server) {
    let name = server.database().await;
    let (_, target) = pair().await;
    let run = |sql: &'static str| server.execute(&name, sql);
    run(SCHEMA).await;
    target.execute(SCHEMA).await;
    run("INSERT INTO public.item SELECT i, 'n' || i, i / 7.0, '2026-01-01'::timestamptz + i * interval '1 hour',
             ARRAY['a', NULL, i::text], jsonb_build_object('i', i), repeat('body ' || i, CASE WHEN i % 10 = 0 THEN 2000 ELSE 1 END)
         FROM generate_series(1, 500) AS i;
         INSERT INTO public.whole SELECT i, NULLIF('w' || i, 'w7') FROM generate_series(1, 20) AS i;
         INSERT INTO public.part SELECT i * 10, 'p' || i FROM generate_series(1, 150) AS i")
    .await;
    let cutwater = Cutwater::new(&server.url(&name), &target.url());
    let migration = cutwater.start(&["run"]);
    wait_for("streaming", MINUTE, async || migration.stderr().contains("streaming")).await;

    run("INSERT INTO public.item VALUES (1000, 'é', 'NaN', 'infinity', '{}', 'null', NULL)").await;
    run("UPDATE public.item SET name = 'a body that is not sent again' WHERE id % 10 = 0").await;
    run("UPDATE public.item SET id = id + 10000 WHERE id % 20 = 0").await;
    run("DELETE FROM public.item WHERE id % 3 = 0").await;
    run("UPDATE public.whole SET b = 'x' WHERE a < 5; DELETE FROM public.whole WHERE b IS NULL").await;
    run("UPDATE public.part SET id = id + 1001 WHERE id < 100; DELETE FROM public.part WHERE id = 500").await;
    run("BEGIN; INSERT INTO public.part VALUES (1, 'kept'); SAVEPOINT s; INSERT INTO public.part VALUES (2, 'not kept');
         ROLLBACK TO SAVEPOINT s; COMMIT")
    .await;
    run("TRUNCATE public.whole; INSERT INTO public.whole VALUES (1, 'after the truncate'); INSERT INTO public.item VALUES (-1)")
        .await;
    wait_for("the last row", MINUTE, async || {
        target.value::<i64>("SELECT count(*) FROM public.item WHERE id = -1").await == 1
    })
    .await;
    migration.sigint();
    migration.wait(MINUTE).await.assert_code(0);

    // From an origin that is gone when the transaction is decoded: 13 then sends a message with nothing in it.
    server
        .execute(
            &name,
            &format!(
                "SELECT pg_replication_origin_create('{name}'), pg_replication_origin_session_setup('{name}');
                 SELECT pg_replication_origin_xact_setup('0/1234', now()); INSERT INTO public.item VALUES (-2)"
            ),
        )
        .await;
    // The session that used it may still be on its way out.
    let drop = format!("SELECT pg_catalog.pg_replication_origin_drop('{name}')");
    wait_for("the origin to be free", MINUTE, async || server.connect(&name).await.batch_execute(&drop).await.is_ok())
        .await;
    cutwater.run(&["run", "--until", "caught-up"], MINUTE).await.assert_code(0);
    assert_equal(&server.url(&name), &target.url(), &TABLES).await;
}

on_every_version!(nothing_of_a_transaction_is_seen_before_its_commit);
/// TRAPS 5: neither a transaction that is far larger than what the server decodes in memory, nor one that is prepared, nor
/// the part of one that was rolled back.
async fn nothing_of_a_transaction_is_seen_before_its_commit(server: Server) {
    let name = server.database().await;
    let (_, target) = pair().await;
    let table = "CREATE TABLE public.item (id int PRIMARY KEY, v text)";
    server.execute(&name, table).await;
    target.execute(table).await;
    let cutwater = Cutwater::new(&server.url(&name), &target.url());
    let migration = cutwater.start(&["run"]);
    wait_for("streaming", MINUTE, async || migration.stderr().contains("streaming")).await;

    let count = async || target.value::<i64>("SELECT count(*) FROM public.item").await;
    let mut beats = 0;
    // A row that is committed behind the open work shows that the stream has passed it.
    let mut passed = async |what: &str| {
        beats += 1;
        server.execute(&name, &format!("INSERT INTO public.item VALUES (-{beats}, 'passed')")).await;
        wait_for(what, MINUTE, async || {
            target.value::<i64>(&format!("SELECT count(*) FROM public.item WHERE id = -{beats}")).await == 1
        })
        .await;
        i64::from(beats)
    };
    let writer = server.connect(&name).await;
    let insert = |from: u32, to: u32| {
        format!("INSERT INTO public.item SELECT i, repeat('x' || i, 40) FROM generate_series({from}, {to}) AS i")
    };
    writer
        .batch_execute(&format!("BEGIN; {}; SAVEPOINT s; {}", insert(1, 5_000), insert(10_001, 15_000)))
        .await
        .unwrap();
    let beside = passed("what was written beside the open transaction").await;
    assert_eq!(count().await, beside);
    writer.batch_execute(&format!("ROLLBACK TO SAVEPOINT s; {}", insert(20_001, 21_000))).await.unwrap();
    let beside = passed("what was written beside the rolled back part").await;
    assert_eq!(count().await, beside);
    writer.batch_execute("COMMIT").await.unwrap();
    wait_for("the large transaction", MINUTE, async || {
        let rows = count().await;
        assert!(rows == beside || rows == beside + 6_000, "{rows} rows");
        rows > beside
    })
    .await;

    for (gid, range) in [("kept", (30_001, 31_000)), ("undone", (40_001, 41_000))] {
        let prepare = format!("BEGIN; {}; PREPARE TRANSACTION '{name}_{gid}'", insert(range.0, range.1));
        writer.batch_execute(&prepare).await.unwrap();
    }
    let beside = passed("what was written beside the prepared transactions").await;
    assert_eq!(count().await, beside + 6_000);
    writer.batch_execute(&format!("COMMIT PREPARED '{name}_kept'")).await.unwrap();
    writer.batch_execute(&format!("ROLLBACK PREPARED '{name}_undone'")).await.unwrap();
    let beside = passed("the prepared transaction").await;
    assert_eq!(count().await, beside + 7_000);
    migration.sigint();
    migration.wait(MINUTE).await.assert_code(0);
    assert_equal(&server.url(&name), &target.url(), &["public.item"]).await;
}

/// Sessions are switched to no time-outs in the startup packet: a statement that does it would be ended by them.
#[tokio::test(flavor = "multi_thread")]
async fn time_outs_of_the_role_of_a_millisecond_end_nothing_of_ours() {
    let test = "time_outs_of_the_role_of_a_millisecond_end_nothing_of_ours";
    let (Some(source), Some(target)) = (site_of(18, test).await, site_of(17, test).await) else { return };
    let role = format!("hasty_{}", source.name);
    for end in [&source, &target] {
        let mut sql = format!("CREATE ROLE {role} LOGIN SUPERUSER; CREATE TABLE t (id int PRIMARY KEY, v text);");
        for name in ["statement", "lock", "idle_in_transaction_session", "idle_session", "transaction"] {
            sql.push_str(&format!("ALTER ROLE {role} SET {name}_timeout = '1ms';"));
        }
        end.execute(&sql).await;
    }
    source.execute("INSERT INTO t SELECT i, 'v' FROM generate_series(1, 20000) i").await;
    let config = format!(
        "[migration]\nname = \"{}\"\n[source]\nurl = \"{}\"\n[target]\nurl = \"{}\"\n",
        source.name,
        source.url_of(&role),
        target.url_of(&role)
    );
    let cutwater = Cutwater::with_config(&config);
    cutwater.run(&["run", "--until", "caught-up"], MINUTE).await.assert_code(0);
    source.execute("UPDATE t SET v = 'w' WHERE id % 3 = 0; DELETE FROM t WHERE id % 7 = 0").await;
    cutwater.run(&["run", "--until", "caught-up"], MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), &["public.t"]).await;
    cutwater.run(&["verify"], MINUTE).await.assert_code(0);
}

/// New in 18. Their rows arrive, and the cutover's comparison of both ends does not take them for a difference.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_keys_of_partitioned_tables_that_do_not_hold_hinder_nothing() {
    let test = "foreign_keys_of_partitioned_tables_that_do_not_hold_hinder_nothing";
    let (Some(source), Some(target)) = (site_of(18, test).await, site_of(18, test).await) else { return };
    let tables = "CREATE TABLE parent (id int PRIMARY KEY);
                  CREATE TABLE child (id int PRIMARY KEY, parent int) PARTITION BY RANGE (id);
                  CREATE TABLE child_1 PARTITION OF child FOR VALUES FROM (0) TO (100);";
    let key = "ALTER TABLE child ADD CONSTRAINT link FOREIGN KEY (parent) REFERENCES parent NOT VALID";
    source.execute(&format!("{tables} INSERT INTO child VALUES (1, 404); {key}")).await;
    // The installed pg_dump is older than that.
    target.execute(&format!("{tables} {key}")).await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    let run = cutwater.start(&["run"]);
    wait_for("streaming", MINUTE, async || run.stderr().contains("streaming")).await;
    source.execute("INSERT INTO parent VALUES (7); INSERT INTO child VALUES (2, 7)").await;
    wait_for("the row", MINUTE, async || target.value::<i64>("SELECT count(*) FROM child").await == 2).await;
    cutwater.run(&["verify"], MINUTE).await.assert_code(0);
    cutwater.run(&["cutover", "--wait", "--max-lag", "30s", "--max-downtime", "60s"], MINUTE).await.assert_code(0);
    run.wait(MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), &["public.parent", "public.child"]).await;
    let valid = "SELECT convalidated FROM pg_constraint WHERE conname = 'link' AND conparentid = 0";
    assert!(!target.value::<bool>(valid).await);
}
