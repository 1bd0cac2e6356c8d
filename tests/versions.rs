//! Every version of Postgres that is a source: what must hold on each. A version whose server cannot be had here is
//! reported on stderr as not run.
#![allow(clippy::unwrap_used, reason = "a test dies of its errors")]

mod support;

use std::time::Duration;

use support::{Cutwater, Server, assert_equal, on_every_version, pair, wait_for};

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
    assert_equal(&server.url(&name), &target.url(), &TABLES).await;
}
