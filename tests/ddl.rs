//! Changes of a table's shape at the source in mid-migration: what can follow does, everything else stops before it and
//! goes on once the target was changed as the error says.

#![allow(clippy::unwrap_used, reason = "a test dies of its errors")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::Rng;
use support::{Cutwater, Database, Finished, assert_equal, pair, rng, wait_for};

const MINUTE: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(150);
const UNTIL: &[&str] = &["run", "--until", "caught-up"];

async fn items() -> (Database, Database, Cutwater) {
    let (source, target) = pair().await;
    source
        .execute(
            "CREATE TYPE public.mood AS ENUM ('good', 'bad');
             CREATE TABLE public.item (id int PRIMARY KEY, v varchar(20), n int DEFAULT 0, m public.mood DEFAULT 'good');
             INSERT INTO public.item SELECT i, 'v' || i FROM generate_series(1, 200) AS i",
        )
        .await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    (source, target, cutwater)
}

async fn same(source: &Database, target: &Database, tables: &[&str]) {
    assert_equal(&source.url(), &target.url(), tables).await;
}

fn assert_says(finished: &Finished, parts: &[&str]) {
    for part in parts {
        assert!(finished.stderr.contains(part), "{part:?} is missing in:\n{}", finished.stderr);
    }
}

/// The statements that the error tells to run at the target.
fn told(finished: &Finished) -> String {
    let (_, fix) = finished.stderr.rsplit_once("fix: ").unwrap_or_else(|| panic!("no fix in\n{}", finished.stderr));
    let (statements, _) = fix.split_once("  at the target").unwrap_or_else(|| panic!("nothing to run in\n{fix}"));
    statements.to_owned()
}

async fn has_column(at: &Database, table: &str, column: &str) -> bool {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attname = '{column}'
                        AND NOT attisdropped)"
    );
    at.value(&sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn added_columns_follow_exactly_under_writes_and_kills() {
    let (source, target, cutwater) = items().await;
    source
        .execute(
            "CREATE TABLE public.part (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
                    CREATE TABLE public.part_1 PARTITION OF public.part FOR VALUES FROM (0) TO (100);
                    CREATE TABLE public.part_2 PARTITION OF public.part FOR VALUES FROM (100) TO (100000);
                    INSERT INTO public.part SELECT i, 'p' || i FROM generate_series(1, 200) AS i;
                    CREATE TABLE public.\"Full\" (a int, b text);
                    ALTER TABLE public.\"Full\" REPLICA IDENTITY FULL;
                    INSERT INTO public.\"Full\" SELECT i % 50, 'f' FROM generate_series(1, 100) AS i",
        )
        .await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    let source = Arc::new(source);
    let done = Arc::new(AtomicBool::new(false));
    let (writing, over) = (Arc::clone(&source), Arc::clone(&done));
    let mut random = rng();
    let writer = tokio::spawn(async move {
        let client = writing.connect().await;
        let mut id = 1000;
        while !over.load(Ordering::Relaxed) {
            id += 1;
            let sql = format!(
                "BEGIN; INSERT INTO public.item (id, v) VALUES ({id}, 'w'); INSERT INTO public.part (id) VALUES ({id});
                 UPDATE public.item SET v = 'u{id}' WHERE id = {id} - 7; DELETE FROM public.item WHERE id = {id} - 50;
                 UPDATE public.part SET id = id + 50000 WHERE id = {id} - 900 AND id < 100;
                 INSERT INTO public.\"Full\" (a, b) VALUES ({id}, 'f'); DELETE FROM public.\"Full\" WHERE a = {id} - 20; COMMIT"
            );
            client.batch_execute(&sql).await.unwrap();
        }
    });
    let alters = [
        "ALTER TABLE public.item ADD COLUMN a text",
        "ALTER TABLE public.item ADD COLUMN five int NOT NULL DEFAULT 5",
        "ALTER TABLE public.part ADD COLUMN seen timestamptz DEFAULT now(), ADD COLUMN tags text[] DEFAULT '{a,\"b c\"}'",
        // A default that changes afterwards: the older rows keep the first.
        "ALTER TABLE public.item ADD COLUMN d text DEFAULT 'it''s'",
        "ALTER TABLE public.item ALTER COLUMN d SET DEFAULT 'later'",
        "ALTER TABLE public.\"Full\" ADD COLUMN \"Odd \"\" name\" numeric(10, 2) DEFAULT 1.50",
        // In one transaction with rows before and after it, and a default that only counts for rows to come.
        "BEGIN; INSERT INTO public.item (id) VALUES (-1); ALTER TABLE public.item ADD COLUMN u uuid; \
         ALTER TABLE public.item ALTER COLUMN u SET DEFAULT gen_random_uuid(); \
         INSERT INTO public.item (id) VALUES (-2); UPDATE public.item SET u = gen_random_uuid() WHERE id % 3 = 0; COMMIT",
        "ALTER TABLE public.item ADD COLUMN mood public.mood DEFAULT 'bad'",
        // One that is gone before a run that is down has seen it.
        "ALTER TABLE public.part ADD COLUMN short int DEFAULT 9",
        "ALTER TABLE public.part DROP COLUMN short",
    ];
    let mut run = cutwater.start(&["run"]);
    for (number, alter) in alters.iter().enumerate() {
        // `short` comes and goes while nobody looks.
        let down = number >= alters.len() - 2;
        if down || random.random_bool(0.5) {
            run.kill9();
        }
        source.execute(alter).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..150))).await;
        if !down && !run.is_running() {
            run = cutwater.start(&["run"]);
            tokio::time::sleep(Duration::from_millis(random.random_range(0..1500))).await;
        }
    }
    done.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    cutwater.run(UNTIL, LONG).await.assert_code(0);
    same(&source, &target, &["public.item", "public.part", "public.\"Full\""]).await;
    cutwater.run(&["verify"], MINUTE).await.assert_code(0);
}

/// What rows to come would get, and what would be refused, is in no stream.
#[tokio::test(flavor = "multi_thread")]
async fn what_changed_and_is_in_no_stream_keeps_the_cutover_shut_until_the_target_has_it_too() {
    let (source, target, cutwater) = items().await;
    source.execute("ALTER TABLE public.item ADD COLUMN k int DEFAULT 1").await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    let refused = async || cutwater.run(&["cutover", "--dry-run"], MINUTE).await.assert_code(3).stdout;
    let before = refused().await;
    assert!(!before.contains("\ndefaults "), "{before}");
    source
        .execute(
            "ALTER TABLE public.item ALTER COLUMN v SET DEFAULT 'it''s', ALTER COLUMN v SET NOT NULL,
                                     ALTER COLUMN k DROP DEFAULT",
        )
        .await;
    let shut = refused().await;
    for part in ["public.item.v DEFAULT 'it''s'", "(target: none)", "public.item.v NOT NULL", "public.item.k without"] {
        assert!(shut.contains(part), "{part:?} is missing in:\n{shut}");
    }
    let gate = &shut[shut.find("\ndefaults ").unwrap()..];
    let (_, statements) = gate.split_once("fix: on the target").unwrap();
    target.execute(statements.lines().next().unwrap()).await;
    let after = refused().await;
    assert!(!after.contains("\ndefaults "), "{after}");
    let alter = "ALTER TABLE public.item ADD CONSTRAINT item_small CHECK (n < 1000) NOT VALID;
                 CREATE INDEX item_v ON public.item (v); ALTER TYPE public.mood ADD VALUE 'odd'";
    for statement in alter.split(';') {
        source.execute(statement).await;
    }
    let shut = refused().await;
    for part in ["check item_small of public.item", "index item_v of public.item", "label 'odd' of public.mood"] {
        assert!(shut.contains(part), "{part:?} is missing in:\n{shut}");
    }
    for statement in alter.split(';') {
        target.execute(statement).await;
    }
    let after = refused().await;
    assert!(!after.contains("\nobjects "), "{after}");
    // What the application would get is now the same.
    let definition =
        "SELECT string_agg(concat_ws(' ', attname, attnotnull, pg_get_expr(adbin, adrelid)), ', ' ORDER BY attnum)
                        FROM pg_attribute LEFT JOIN pg_attrdef ON attrelid = adrelid AND attnum = adnum
                       WHERE attrelid = 'public.item'::regclass AND attnum > 0 AND NOT attisdropped";
    assert_eq!(source.value::<String>(definition).await, target.value::<String>(definition).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_no_row_follows_arrives_too() {
    let (source, target, cutwater) = items().await;
    let mut run = cutwater.start(&["run"]);
    wait_for("the stream", MINUTE, async || run.stderr().contains("following the source")).await;
    source.execute("ALTER TABLE public.item ADD COLUMN quiet int DEFAULT 3").await;
    wait_for("the column", MINUTE, async || has_column(&target, "public.item", "quiet").await).await;
    same(&source, &target, &["public.item"]).await;
    run.kill9();
    // … and so it does if it came while nobody ran, and no row ever follows.
    source.execute("ALTER TABLE public.item ADD COLUMN quieter text").await;
    let verify = cutwater.run(&["verify"], MINUTE).await.assert_code(1);
    assert_says(&verify, &["public.item", "quieter", "not arrived"]);
    let mut run = cutwater.start(&["run"]);
    wait_for("the column", MINUTE, async || has_column(&target, "public.item", "quieter").await).await;
    run.kill9();
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_added_inside_a_transaction_larger_than_a_batch_follow() {
    let (source, target, cutwater) = items().await;
    let cutwater = cutwater.and("[apply]\nbatch_rows = 50");
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    source
        .execute(
            "BEGIN; INSERT INTO public.item (id) SELECT generate_series(1000, 1199); UPDATE public.item SET n = 1 WHERE id > 1100;
             ALTER TABLE public.item ADD COLUMN a int NOT NULL DEFAULT 5; ALTER TABLE public.item ALTER COLUMN a SET DEFAULT 6;
             INSERT INTO public.item (id) SELECT generate_series(1200, 1399); UPDATE public.item SET a = 7 WHERE id % 3 = 0;
             ALTER TABLE public.item ADD COLUMN b timestamptz DEFAULT now(); DELETE FROM public.item WHERE id % 5 = 0;
             INSERT INTO public.item (id, b) SELECT i, clock_timestamp() FROM generate_series(1400, 1599) AS i; COMMIT",
        )
        .await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    same(&source, &target, &["public.item"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_follow_stops_before_it_and_goes_on_once_the_target_has_changed_too() {
    let (source, target, cutwater) = items().await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    let steps: [(&str, &str, &str, &str); 7] = [
        ("ALTER TABLE public.item RENAME COLUMN v TO w", "w", "column \"v\" is called \"w\" now", "RENAME COLUMN"),
        ("ALTER TABLE public.item DROP COLUMN n", "w", "column \"n\" (integer) is gone", "DROP COLUMN"),
        (
            "ALTER TABLE public.item ALTER COLUMN w TYPE varchar(30)",
            "w",
            "was character varying(20), is character varying(30)",
            "TYPE",
        ),
        (
            "ALTER TABLE public.item ALTER COLUMN id TYPE bigint",
            "w",
            "column \"id\" was integer, is bigint",
            "TYPE bigint",
        ),
        // Dropped and made anew with the same type in the same place is not renamed.
        (
            "ALTER TABLE public.item DROP COLUMN w, ADD COLUMN x varchar(30)",
            "x",
            "column \"w\" (character varying(30)) is gone",
            "DROP",
        ),
        (
            "ALTER TABLE public.item DROP CONSTRAINT item_pkey, ADD PRIMARY KEY (id, m)",
            "x",
            "primary key was (id), is (id, m)",
            "PRIMARY KEY",
        ),
        (
            "ALTER TABLE public.item RENAME COLUMN x TO y; ALTER TABLE public.item ADD COLUMN z int DEFAULT 4",
            "y",
            "column \"x\" is called \"y\"",
            "RENAME",
        ),
    ];
    let mut id = 1000;
    for (alter, column, what, how) in steps {
        // Rows of the old shape that are not yet applied, then the change with rows of the new one behind it.
        id += 10;
        source
            .execute(&format!(
                "INSERT INTO public.item (id) VALUES ({id}); UPDATE public.item SET m = 'bad' WHERE id = {id} - 10"
            ))
            .await;
        source.execute(alter).await;
        source.execute(&format!("INSERT INTO public.item (id, {column}) VALUES ({id} + 1, 'new')")).await;
        let stopped = cutwater.run(UNTIL, MINUTE).await.assert_code(1);
        assert_says(&stopped, &["public.item", what, how, "(at ", "then run again"]);
        assert_eq!(
            target.value::<i64>(&format!("SELECT count(*) FROM public.item WHERE id = {id}")).await,
            1,
            "what came before"
        );
        assert_eq!(
            target.value::<i64>(&format!("SELECT count(*) FROM public.item WHERE id = {id} + 1")).await,
            0,
            "what came after"
        );
        // Again without having done it: the same answer.
        let again = cutwater.run(UNTIL, MINUTE).await.assert_code(1);
        assert_eq!(told(&again), told(&stopped));
        target.execute(&told(&stopped).replace("<its primary key>", "item_pkey")).await;
        cutwater.run(UNTIL, MINUTE).await.assert_code(0);
        same(&source, &target, &["public.item"]).await;
    }
    // Rows of both shapes in one transaction: the older ones are written as the target is by now.
    source.execute("BEGIN; INSERT INTO public.item (id, y, z) VALUES (1, 'both', 8) ON CONFLICT (id, m) DO UPDATE SET z = 8;
                    ALTER TABLE public.item DROP COLUMN z; INSERT INTO public.item (id, y) VALUES (5000, 'after');
                    ALTER TABLE public.item RENAME COLUMN y TO yy; INSERT INTO public.item (id, yy) VALUES (5001, 'after'); COMMIT").await;
    for _ in 0..2 {
        let stopped = cutwater.run(UNTIL, MINUTE).await.assert_code(1);
        target.execute(&told(&stopped)).await;
    }
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    same(&source, &target, &["public.item"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_with_a_value_of_its_own_in_every_row_stops() {
    let (source, target, cutwater) = items().await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    // Also without the default that gave it away.
    source.execute("ALTER TABLE public.item ADD COLUMN r float8 DEFAULT random(); ALTER TABLE public.item ALTER COLUMN r DROP DEFAULT").await;
    source.execute("INSERT INTO public.item (id, r) VALUES (1000, 1)").await;
    let stopped = cutwater.run(UNTIL, MINUTE).await.assert_code(1);
    assert_says(
        &stopped,
        &["what existing rows have in it is not in the stream", "ADD COLUMN \"r\" double precision;"],
    );
    assert!(!has_column(&target, "public.item", "r").await);
    target.execute("ALTER TABLE public.item ADD COLUMN r double precision").await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    assert_eq!(target.value::<f64>("SELECT r FROM public.item WHERE id = 1000").await, 1.0);
    source.execute("ALTER TABLE public.item ADD COLUMN s int GENERATED ALWAYS AS IDENTITY").await;
    source.execute("INSERT INTO public.item (id) VALUES (1001)").await;
    let stopped = cutwater.run(UNTIL, MINUTE).await.assert_code(1);
    assert_says(&stopped, &["column \"s\" is new (integer)", "it takes values of its own"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_stops_at_an_added_column_too() {
    let (source, target, cutwater) = items().await;
    let cutwater = cutwater.and("[apply]\nddl = \"stop\"");
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    source.execute("ALTER TABLE public.item ADD COLUMN a text").await;
    source.execute("INSERT INTO public.item (id, a) VALUES (1000, 'a')").await;
    let stopped = cutwater.run(UNTIL, MINUTE).await.assert_code(1);
    assert_says(&stopped, &["column \"a\" is new (text), and [apply] ddl = \"stop\""]);
    target.execute(&told(&stopped)).await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    same(&source, &target, &["public.item"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_hold_for_columns_that_come_and_go() {
    let (source, target) = pair().await;
    source
        .execute(
            "CREATE TABLE public.some (id int PRIMARY KEY, a text, b text); INSERT INTO public.some VALUES (1, 'a', 'b');
             CREATE TABLE public.less (id int PRIMARY KEY, a text, secret text); INSERT INTO public.less VALUES (1, 'a', 's')",
        )
        .await;
    let cutwater = Cutwater::new(&source.url(), &target.url()).and(
        "[[transform]]\nmatch = \"public.some\"\ncolumns = [\"id\", \"a\"]\n
         [[transform]]\nmatch = \"public.less\"\ncolumns = [\"!secret\"]\nrename = { table = \"more\", columns = { a = \"aa\" } }\n",
    );
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    // A list of columns never gets longer; what is left out may do as it likes.
    source.execute("ALTER TABLE public.some ADD COLUMN c int DEFAULT 3; ALTER TABLE public.some DROP COLUMN b; INSERT INTO public.some VALUES (2, 'x', 3)").await;
    source.execute("ALTER TABLE public.less DROP COLUMN secret; ALTER TABLE public.less ADD COLUMN n int DEFAULT 7; INSERT INTO public.less VALUES (2, 'x', 8)").await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    let some: String = target.value("SELECT string_agg(t::text, ' ' ORDER BY id) FROM public.some t").await;
    assert_eq!(some, "(1,a) (2,x)");
    let less: String =
        target.value("SELECT string_agg(format('%s %s %s', id, aa, n), ', ' ORDER BY id) FROM public.more").await;
    assert_eq!(less, "1 a 7, 2 x 8");
    // A renamed column that is renamed at the source.
    source.execute("ALTER TABLE public.less RENAME COLUMN a TO a2; INSERT INTO public.less VALUES (3, 'y', 9)").await;
    let stopped = cutwater.run(UNTIL, MINUTE).await.assert_code(1);
    assert_says(&stopped, &["ALTER TABLE \"public\".\"more\" RENAME COLUMN \"aa\" TO \"a2\";"]);
    target.execute(&told(&stopped)).await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    assert_eq!(target.value::<String>("SELECT a2 FROM public.more WHERE id = 3").await, "y");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_identity_in_mid_stream_changes_nothing() {
    let (source, target, cutwater) = items().await;
    source
        .execute("CREATE UNIQUE INDEX item_v ON public.item (v); ALTER TABLE public.item ALTER COLUMN v SET NOT NULL")
        .await;
    let mut run = cutwater.start(&["run"]);
    for (number, identity) in ["FULL", "USING INDEX item_v", "DEFAULT", "FULL", "NOTHING", "DEFAULT"].iter().enumerate()
    {
        let id = 1000 + number;
        source.execute(&format!("ALTER TABLE public.item REPLICA IDENTITY {identity}")).await;
        source.execute(&format!("INSERT INTO public.item (id, v) VALUES ({id}, 'i{id}')")).await;
        if *identity != "NOTHING" {
            source.execute(&format!("UPDATE public.item SET v = 'x{id}', id = id + 5000 WHERE id = {id}; UPDATE public.item SET n = {id} WHERE id % 9 = 0;
                                     DELETE FROM public.item WHERE id = 100 + {number}")).await;
        }
        if number % 2 == 1 {
            run.kill9();
            run = cutwater.start(&["run"]);
        }
    }
    run.kill9();
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    same(&source, &target, &["public.item"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_renamed_dropped_or_made_anew_is_named() {
    let (source, target, cutwater) = items().await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    let run = cutwater.start(&["run"]);
    wait_for("the stream", MINUTE, async || run.stderr().contains("following the source")).await;
    source.execute("ALTER TABLE public.item RENAME TO article; INSERT INTO public.article (id) VALUES (1000)").await;
    let stopped = run.wait(MINUTE).await.assert_code(1);
    assert_says(
        &stopped,
        &["public.item is called public.article", "ALTER TABLE \"public\".\"article\" RENAME TO \"item\";"],
    );
    let stopped = cutwater.run(UNTIL, MINUTE).await.assert_code(1);
    assert_says(&stopped, &["public.item is called public.article"]);
    source.execute("ALTER TABLE public.article RENAME TO item").await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    same(&source, &target, &["public.item"]).await;
    // Made anew: nothing of it would ever come, because it is not published.
    let run = cutwater.start(&["run"]);
    wait_for("the stream", MINUTE, async || run.stderr().contains("following the source")).await;
    source.execute("CREATE TABLE public.copy (LIKE public.item INCLUDING ALL); DROP TABLE public.item; ALTER TABLE public.copy RENAME TO item").await;
    let stopped = run.wait(MINUTE).await.assert_code(1);
    assert_says(&stopped, &["public.item was dropped at the source"]);
    let stopped = cutwater.run(UNTIL, MINUTE).await.assert_code(1);
    assert_says(&stopped, &["public.item was dropped at the source", "created again"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_an_enum_got_is_named_with_its_statement() {
    let (source, target, cutwater) = items().await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    source.execute("ALTER TYPE public.mood ADD VALUE 'so-so'").await;
    source.execute("UPDATE public.item SET m = 'so-so' WHERE id = 7").await;
    let stopped = cutwater.run(UNTIL, MINUTE).await.assert_code(1);
    assert_says(&stopped, &["public.item (id = 7)", "ALTER TYPE public.mood ADD VALUE 'so-so';"]);
    target.execute(&told(&stopped)).await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    same(&source, &target, &["public.item"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_added_during_the_copy_arrives_whenever_the_run_is_killed() {
    let (source, target, cutwater) = items().await;
    source
        .execute(
            "CREATE TABLE public.big (id int PRIMARY KEY, pad text);
             INSERT INTO public.big SELECT i, repeat('x', 200) FROM generate_series(1, 6000) AS i; ANALYZE",
        )
        .await;
    let cutwater = cutwater.and("[snapshot]\nworkers = 1\nmax_rows_per_second = 3000");
    let mut run = cutwater.start(&["run"]);
    let copying = "SELECT EXISTS (SELECT FROM cutwater.table_state WHERE stage = 'copying')";
    wait_for("the copy", MINUTE, async || {
        target.value::<bool>("SELECT to_regclass('cutwater.table_state') IS NOT NULL").await
            && target.value(copying).await
    })
    .await;
    // Of this snapshot, the rows are older than the columns; then a later snapshot has them.
    source
        .execute(
            "ALTER TABLE public.item ADD COLUMN late int DEFAULT 4; UPDATE public.item SET late = id WHERE id < 50",
        )
        .await;
    run.kill9();
    source
        .execute(
            "ALTER TABLE public.big ADD COLUMN late text DEFAULT 'l'; UPDATE public.big SET late = 'x' WHERE id < 50",
        )
        .await;
    let mut run = cutwater.start(&["run"]);
    wait_for("the second copy", MINUTE, async || run.stderr().contains("altered at the source")).await;
    source
        .execute(
            "ALTER TABLE public.big ADD COLUMN later text DEFAULT 'm'; UPDATE public.big SET later = 'y' WHERE id < 50",
        )
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    run.kill9();
    let cutwater = cutwater.run(UNTIL, LONG).await;
    cutwater.assert_code(0);
    same(&source, &target, &["public.item", "public.big"]).await;
}
