//! Tables of every shape, and every kind of change to them, through the real binary: what arrives is what is there.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

mod support;

use std::io::Write as _;
use std::time::{Duration, Instant};

use cutwater::cli::demo::server::SUPERUSER;
use support::{Cutwater, Database, Proxy, assert_equal, pair, wait_for};

const MINUTE: Duration = Duration::from_secs(60);

async fn catch_up(cutwater: &Cutwater) -> String {
    cutwater.run(&["run", "--until", "caught-up"], 3 * MINUTE).await.assert_code(0).stderr
}

/// Every table that is migrated, quoted.
async fn tables(source: &Database) -> Vec<String> {
    let sql =
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
                 AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'cutwater') ORDER BY 1";
    source.connect().await.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn assert_same(source: &Database, target: &Database) {
    let tables = tables(source).await;
    let names: Vec<&str> = tables.iter().map(String::as_str).collect();
    assert_equal(&source.url(), &target.url(), &names).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_every_shape_follow_every_change() {
    let (source, target) = pair().await;
    source.execute(include_str!("cases/shapes.sql")).await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    catch_up(&cutwater).await;
    assert_same(&source, &target).await;
    for changes in include_str!("cases/changes.sql").split("-- then") {
        source.execute(changes).await;
        catch_up(&cutwater).await;
        assert_same(&source, &target).await;
    }
    // ONLY the parent, and the child apart.
    let only = |table: &str| format!("SELECT count(*) FROM ONLY {table}");
    for table in ["s.parent", "s.child", "s.\"grand child\""] {
        assert_eq!(source.value::<i64>(&only(table)).await, target.value::<i64>(&only(table)).await, "{table}");
    }
    cutwater.run(&["verify"], MINUTE).await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_of_another_structure_gets_the_same_rows() {
    let (source, target) = pair().await;
    source
        .execute(
            "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
             CREATE TABLE parts (id int, day date, m mood, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
             CREATE TABLE parts_a PARTITION OF parts FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
             CREATE TABLE parts_b PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
             CREATE TABLE flat (id int PRIMARY KEY, m mood, n int, gone int, v text);
             ALTER TABLE flat DROP COLUMN gone;
             INSERT INTO parts SELECT i, date '2025-06-01' + i, 'ok', 'v' || i FROM generate_series(1, 400) i;
             INSERT INTO flat SELECT i, 'happy', i, 'v' || i FROM generate_series(1, 400) i;",
        )
        .await;
    // A plain table for a partitioned one and the other way round; labels and columns in another order, types wider.
    target
        .execute(
            "CREATE TYPE mood AS ENUM ('happy', 'new', 'ok', 'sad');
             CREATE TABLE parts (v text, m mood, day date, id bigint, PRIMARY KEY (id, day));
             CREATE TABLE flat (v text, extra int DEFAULT 7, n numeric, m mood, id int PRIMARY KEY) PARTITION BY HASH (id);
             CREATE TABLE flat_0 PARTITION OF flat FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE flat_1 PARTITION OF flat FOR VALUES WITH (MODULUS 2, REMAINDER 1);",
        )
        .await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    let digest = "SELECT md5(string_agg(concat_ws('|', id, day, m, v), ',' ORDER BY id, day) ) FROM parts";
    let flat = "SELECT md5(string_agg(concat_ws('|', id, m, n, v), ',' ORDER BY id)) FROM flat";
    for changes in [
        "SELECT 1",
        "UPDATE parts SET day = day + 100 WHERE id % 3 = 0; DELETE FROM parts WHERE id % 7 = 0;
         UPDATE parts SET m = 'sad', v = NULL WHERE id % 5 = 0; INSERT INTO parts VALUES (9999, '2026-05-05', 'happy', '');
         UPDATE flat SET id = id + 1000 WHERE id % 3 = 0; DELETE FROM flat WHERE id % 7 = 0; UPDATE flat SET m = 'sad', n = -1 WHERE id % 5 = 0",
        "TRUNCATE flat; INSERT INTO flat VALUES (1, 'ok', 2, 'again')",
    ] {
        source.execute(changes).await;
        catch_up(&cutwater).await;
        assert_eq!(source.value::<String>(digest).await, target.value::<String>(digest).await);
        assert_eq!(source.value::<String>(flat).await, target.value::<String>(flat).await);
    }
    assert_eq!(
        target.value::<i64>("SELECT count(*) FROM flat WHERE extra = 7").await,
        1,
        "a column of its own keeps its default"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_meets_a_table_that_refers_to_the_emptied_one() {
    let (source, target) = pair().await;
    source.execute("CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1), (2)").await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    catch_up(&cutwater).await;
    target.execute("CREATE TABLE \"out side\" (id int PRIMARY KEY, a int CONSTRAINT to_a REFERENCES a)").await;
    // Nothing refers to a row: it is emptied.
    source.execute("TRUNCATE a; INSERT INTO a VALUES (3), (4)").await;
    catch_up(&cutwater).await;
    assert_same(&source, &target).await;
    // A row does: that is named, with what to do, and nothing is lost by doing it.
    target.execute("INSERT INTO \"out side\" VALUES (1, 3)").await;
    source.execute("TRUNCATE a; INSERT INTO a VALUES (5)").await;
    let refused = cutwater.run(&["run", "--until", "caught-up"], MINUTE).await.assert_code(1);
    let said = &refused.stderr;
    assert!(
        said.contains("rows of public.out side, which is not migrated, refer to it at the target (to_a)"),
        "{said}"
    );
    assert!(said.contains("ALTER TABLE \"public\".\"out side\" DROP CONSTRAINT \"to_a\""), "{said}");
    target.execute("ALTER TABLE \"out side\" DROP CONSTRAINT to_a").await;
    catch_up(&cutwater).await;
    assert_same(&source, &target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_types_that_cannot_be_followed_are_refused_with_what_to_do() {
    let (source, target) = pair().await;
    source
        .execute(
            "CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
             CREATE TABLE no_key (a int); CREATE TABLE with_index (a int NOT NULL); CREATE UNIQUE INDEX by_a ON with_index (a);
             CREATE TABLE trees (id int PRIMARY KEY, tree pg_node_tree, names regclass[])",
        )
        .await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    let check = cutwater.run(&["check"], MINUTE).await.assert_code(3).stdout;
    for line in [
        "3 tables have no key",
        "ALTER TABLE \"public\".\"no_key\" REPLICA IDENTITY FULL;",
        "ALTER TABLE \"public\".\"with_index\" REPLICA IDENTITY USING INDEX \"by_a\";",
        "public.trees.\"tree\" (pg_node_tree)",
        "[[transform]] match = \"public.trees\", columns = [\"*\", \"!tree\"]",
        "object names in public.trees.\"names\" (regclass[])",
    ] {
        assert!(check.contains(line), "{line:?} is not in\n{check}");
    }
    cutwater.run(&["run", "--until", "caught-up"], MINUTE).await.assert_code(1);
    assert_eq!(
        source.value::<i64>("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()").await,
        0,
        "nothing was begun"
    );
}

#[test]
fn statements_are_plain_ascii_for_servers_of_every_encoding() {
    fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in files(&source).iter().filter(|path| path.extension().is_some_and(|end| end == "sql")) {
        let text = std::fs::read_to_string(path).unwrap();
        // Those of the demo run on servers of its own.
        assert!(text.is_ascii() || path.components().any(|part| part.as_os_str() == "demo"), "{}", path.display());
    }
}

/// A database of another encoding on the server of `beside`.
async fn encoded(beside: &Database, encoding: &str) -> Database {
    let name = format!("{}_{}", beside.name, encoding.to_lowercase());
    let sql = format!("CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    beside.server.execute("postgres", &sql).await.unwrap();
    Database { server: std::sync::Arc::clone(&beside.server), name }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_converted_from_the_sources_encoding_or_refused() {
    let (base, target) = pair().await;
    let latin = encoded(&base, "LATIN1").await;
    let rows = "CREATE TABLE \"tïtle\" (id int PRIMARY KEY, v text, j jsonb);
                INSERT INTO \"tïtle\" VALUES (1, 'Müller ß ÿ', '{\"k\": \"é\"}')";
    latin.execute(rows).await;
    let cutwater = Cutwater::new(&latin.url(), &target.url());
    catch_up(&cutwater).await;
    latin
        .execute("INSERT INTO \"tïtle\" VALUES (2, 'naïve', NULL); UPDATE \"tïtle\" SET v = v || '±' WHERE id = 1")
        .await;
    catch_up(&cutwater).await;
    cutwater.run(&["verify"], MINUTE).await.assert_code(0);
    assert_eq!(
        target.value::<String>("SELECT string_agg(v, ',' ORDER BY id) FROM \"tïtle\"").await,
        "Müller ß ÿ±,naïve"
    );

    // SQL_ASCII says nothing of what its bytes mean: those that are no UTF-8 are refused, and the place is named.
    let (base, target) = pair().await;
    let ascii = encoded(&base, "SQL_ASCII").await;
    ascii
        .execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'plain'), (2, 'utf-8: ü')")
        .await;
    let proxy = Proxy::start(ascii.server.port()).await;
    let cutwater = Cutwater::new(&proxy.url(SUPERUSER, &ascii.name), &target.url());
    catch_up(&cutwater).await;
    assert_same(&ascii, &target).await;
    ascii.execute("INSERT INTO t VALUES (3, convert_from('\\xff41', 'SQL_ASCII'))").await;
    let refused = cutwater.run(&["run", "--until", "caught-up"], MINUTE).await.assert_code(1);
    let said = &refused.stderr;
    assert!(said.contains("invalid byte sequence for encoding \"UTF8\": 0xff"), "{said}");
    assert!(said.contains("no text in the encoding"), "{said}");
    // … also where the refusal comes in one piece with the answer that begins the stream.
    proxy.gather(Duration::from_millis(30));
    let begun = Instant::now();
    let refused = cutwater.run(&["run", "--until", "caught-up"], 3 * MINUTE).await.assert_code(1);
    assert!(refused.stderr.contains("invalid byte sequence"), "{}", refused.stderr);
    assert!(begun.elapsed() < MINUTE, "it was found only when nothing had been heard for a minute");
    let (_, elsewhere) = pair().await;
    let other = Cutwater::with_config(&format!(
        "[migration]\nname = \"other\"\n[source]\nurl = \"{}\"\n[target]\nurl = \"{}\"\n",
        ascii.url(),
        elsewhere.url()
    ));
    let check = other.run(&["check"], MINUTE).await.assert_code(0).stdout;
    assert!(check.contains("the source's encoding is SQL_ASCII"), "{check}");
    let refused = other.run(&["run", "--until", "caught-up"], MINUTE).await.assert_code(1).stderr;
    assert!(refused.contains("copying public.t") && refused.contains("invalid byte sequence"), "{refused}");
}

/// `pg_dump --schema-only` without what is Cutwater's own and what changes from run to run.
fn dump(database: &Database) -> String {
    let output = std::process::Command::new(database.server.programs().join("pg_dump"))
        .args(["--schema-only", "--no-owner", "--no-privileges", "--no-publications", "--exclude-schema=cutwater"])
        // Unlogged tables are in no log: check names them as not carried.
        .args(["--exclude-table=a.unlogged", "--dbname", &database.url()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.starts_with('\\')).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn assert_same_text(source: &str, target: &str) {
    let differs = source.lines().zip(target.lines()).position(|(a, b)| a != b);
    let Some(line) = differs.or((source.lines().count() != target.lines().count()).then_some(0)) else { return };
    let part = |text: &str| text.lines().skip(line.saturating_sub(8)).take(16).collect::<Vec<_>>().join("\n");
    panic!("the schemas differ at line {line}\nsource:\n{}\n\ntarget:\n{}", part(source), part(target));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_stands_around_the_rows_is_the_same_after_the_run_and_after_the_cutover() {
    let (source, target) = pair().await;
    source.execute(include_str!("cases/schema.sql")).await;
    let before = dump(&source);
    let cutwater = Cutwater::new(&source.url(), &target.url());
    let said = catch_up(&cutwater).await;
    assert_same_text(&before, &dump(&target));
    assert!(said.contains("not carried over"), "{said}");
    assert_same(&source, &target).await;

    cutwater.run(&["verify"], MINUTE).await.assert_code(0);
    let run = cutwater.start(&["run"]);
    cutwater.run(&["cutover", "--wait", "--max-lag", "10s", "--hold", "0s"], 2 * MINUTE).await.assert_code(0);
    run.wait(MINUTE).await.assert_code(0);
    assert_same_text(&before, &dump(&target));
    for sequence in ["a.alone", "a.owned", "a.people_numbers"] {
        let value = format!("SELECT last_value FROM {sequence}");
        let (old, new): (i64, i64) = (source.value(&value).await, target.value(&value).await);
        assert!(
            if sequence == "a.alone" { new <= old } else { new >= old },
            "{sequence}: {old} at the source, {new} at the target"
        );
    }
}

/// The rows of materialized views are in no copy and in no stream.
#[tokio::test(flavor = "multi_thread")]
async fn materialized_views_are_filled_after_the_copy_and_made_anew_once_the_target_is_live() {
    let (source, target) = pair().await;
    source.execute(include_str!("cases/views.sql")).await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    let check = cutwater.run(&["check"], MINUTE).await.assert_code(0).stdout;
    assert!(check.contains("materialized views (v.a_top, v.bottom, v.by_function, v.odd) are filled after"), "{check}");
    let said = catch_up(&cutwater).await;
    assert!(
        said.contains("materialized view v.odd stays empty") && said.contains("REFRESH MATERIALIZED VIEW"),
        "{said}"
    );
    // Each after what it reads, also where only a function's body knows that.
    let sums = "SELECT format('%s %s %s', (SELECT sum(s) FROM v.bottom), (SELECT sum(s) FROM v.a_top), (SELECT s FROM v.by_function))";
    assert_eq!(target.value::<String>(sums).await, "5050 10100 5050");
    let empty =
        "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind = 'm' AND NOT relispopulated";
    assert_eq!(target.value::<String>(empty).await, "nobody odd", "what the source has not filled stays empty");

    source.execute("UPDATE v.t SET n = n + 1").await;
    let run = cutwater.start(&["run"]);
    let there = async || target.value::<i64>("SELECT sum(n)::int8 FROM v.t").await == 5150;
    wait_for("the update", MINUTE, there).await;
    cutwater.run(&["verify"], MINUTE).await.assert_code(0);
    let cutover = async |more: &[&str], code: i32| {
        let args = [&["cutover", "--max-lag", "10s", "--hold", "0s"], more].concat();
        let done = cutwater.run(&args, 2 * MINUTE).await.assert_code(code);
        done.stdout + &done.stderr
    };
    let refused = cutover(&[], 3).await;
    assert!(
        refused.contains("materialized-views") && refused.contains("v.odd is empty: relation \"t\" does not exist"),
        "{refused}"
    );
    target.execute("SET search_path = v; REFRESH MATERIALIZED VIEW v.odd").await;
    assert_eq!(target.value::<String>(sums).await, "5050 10100 5050", "of the moment they were filled");
    let rehearsed = cutover(&["--dry-run"], 0).await;
    assert!(rehearsed.contains("refresh materialized view v.a_top"), "{rehearsed}");
    let done = cutover(&[], 0).await;
    run.wait(MINUTE).await.assert_code(0);
    assert_eq!(target.value::<String>(sums).await, "5150 10300 5150");
    assert!(done.contains("views     3 materialized views refreshed"), "{done}");
    assert!(done.contains("stale     materialized view v.odd: relation \"t\" does not exist"), "{done}");
    // The same command tries only what is left.
    target.execute("INSERT INTO v.t VALUES (1000, 0); ALTER FUNCTION v.odd() SET search_path = v").await;
    let again = cutover(&[], 0).await;
    assert!(again.contains("views     1 materialized view refreshed") && !again.contains("stale "), "{again}");
    assert_eq!(target.value::<i64>("SELECT s FROM v.odd").await, 101);
}

/// What is done to a partition as a whole is not in the stream of its root.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_emptied_attached_or_detached_is_noticed_and_asks_for_a_new_verify() {
    let (source, target) = pair().await;
    source
        .execute(
            "CREATE TABLE part (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF part FOR VALUES FROM (0) TO (100);
             CREATE TABLE p2 PARTITION OF part FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (id);
             CREATE TABLE p2a PARTITION OF p2 FOR VALUES FROM (100) TO (200);
             CREATE TABLE aside (id int PRIMARY KEY, v text);
             INSERT INTO part SELECT i, 'v' || i FROM generate_series(0, 199) i;
             INSERT INTO aside SELECT i, 'a' || i FROM generate_series(200, 299) i",
        )
        .await;
    let config =
        "[migration]\nname = \"%n\"\n[source]\nurl = \"%s\"\ntables = [\"public.part\"]\n[target]\nurl = \"%t\"\n";
    let config = config.replace("%n", &source.name).replace("%s", &source.url()).replace("%t", &target.url());
    let cutwater = Cutwater::with_config(&config);
    let run = cutwater.start(&["run"]);
    wait_for("streaming", MINUTE, async || run.stderr().contains("following the source")).await;
    let cutover = async |code: i32| {
        let args = ["cutover", "--max-lag", "10s", "--hold", "0s"];
        let done = cutwater.run(&args, 2 * MINUTE).await.assert_code(code);
        done.stdout + &done.stderr
    };
    let verify = async |code: i32| {
        cutwater.run(&["verify"], MINUTE).await.assert_code(code);
    };
    wait_for("the copy", MINUTE, async || {
        cutwater.run(&["status", "--json"], MINUTE).await.json()["phase"] == "streaming"
    })
    .await;
    verify(0).await;
    target.execute("ANALYZE").await;

    // A partition that comes empty, as one does every night, is noticed and asks for nothing: its rows are in the stream.
    source.execute("CREATE TABLE p3 PARTITION OF part FOR VALUES FROM (300) TO (400)").await;
    wait_for("the new partition", MINUTE, async || {
        target.value::<i64>("SELECT count(*) FROM cutwater.empty_leaf").await == 1
    })
    .await;
    target.execute("CREATE TABLE IF NOT EXISTS p3 PARTITION OF part FOR VALUES FROM (300) TO (400)").await;
    source.execute("INSERT INTO part VALUES (300, 'new')").await;
    wait_for("its row", MINUTE, async || target.value::<i64>("SELECT count(*) FROM part").await == 201).await;
    target.execute("ANALYZE").await;
    cutwater.run(&["cutover", "--dry-run", "--max-lag", "10s"], MINUTE).await.assert_code(0);

    for (change, back, told, gate, code) in [
        (
            "TRUNCATE p2a",
            "",
            "partition public.p2a of public.part was emptied",
            "public.p2a of public.part was emptied",
            3,
        ),
        (
            "ALTER TABLE part ATTACH PARTITION aside FOR VALUES FROM (200) TO (300)",
            "CREATE TABLE aside PARTITION OF part FOR VALUES FROM (200) TO (300)",
            "public.aside became a partition of public.part",
            "public.aside became a partition",
            3,
        ),
        (
            "ALTER TABLE part DETACH PARTITION p1",
            "",
            "public.p1 is no partition of public.part any more",
            "public.p1 is no",
            3,
        ),
        ("VACUUM FULL p3", "", "partition public.p3 of public.part was emptied", "public.p3 of public.part", 0),
    ] {
        let before = run.stderr().len();
        source.connect().await.batch_execute(change).await.unwrap();
        if !back.is_empty() {
            target.execute(back).await;
        }
        wait_for(change, MINUTE, async || run.stderr()[before..].contains(told)).await;
        let refused = cutover(3).await;
        assert!(refused.contains(gate), "{change}: {refused}");
        assert!(refused.contains("fix: cutwater verify"), "{refused}");
        let status = cutwater.run(&["status"], MINUTE).await.assert_code(0).stdout;
        let why = "Cutover would be refused: since the last clean verify";
        assert!(status.contains(why) && status.contains(gate), "{change}: {status}");
        verify(code).await;
        if code != 0 {
            cutover(3).await;
            cutwater.run(&["verify", "--repair"], 2 * MINUTE).await.assert_code(0);
        }
    }
    target.execute("ANALYZE").await;
    assert_equal(&source.url(), &target.url(), &["public.part"]).await;
    cutover(0).await;
    run.wait(MINUTE).await;
}

/// A domain over an enum, a range or an array has no `=` of its own.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_compared_and_repaired_by_keys_of_every_kind() {
    let (source, target) = pair().await;
    source
        .execute(
            "CREATE SCHEMA \"A b\"; CREATE TYPE \"A b\".mood AS ENUM ('sad', 'ok', 'happy');
             CREATE DOMAIN d1 AS \"A b\".mood; CREATE DOMAIN d2 AS d1; CREATE DOMAIN d3 AS int4range; CREATE DOMAIN d4 AS text[];
             CREATE DOMAIN d5 AS char(4); CREATE DOMAIN d6 AS varchar(9);
             CREATE TABLE enums (m d2, id int, v text, PRIMARY KEY (m, id));
             CREATE TABLE odd (r d3, a d4, c d5, s d6, t int, v text, PRIMARY KEY (r, a, c, s, t));
             INSERT INTO enums SELECT (ARRAY['sad', 'ok', 'happy'])[i % 3 + 1]::d2, i, 'v' || i FROM generate_series(1, 300) i;
             INSERT INTO odd SELECT int4range(i, i + 3), ARRAY['a', i::text], 'c ', 's ' || i, i, 'v' || i
               FROM generate_series(1, 300) i",
        )
        .await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    catch_up(&cutwater).await;
    cutwater.run(&["verify"], MINUTE).await.assert_code(0);
    target
        .execute(
            "UPDATE enums SET v = 'wrong' WHERE id = 7; DELETE FROM enums WHERE id = 8; INSERT INTO enums VALUES ('ok', -1);
             UPDATE odd SET v = 'wrong' WHERE r = int4range(7, 10); DELETE FROM odd WHERE r = int4range(8, 11);
             INSERT INTO odd VALUES ('empty', '{}', '', '', 1)",
        )
        .await;
    // The second look at what differed is by key, and so is the repair.
    cutwater.run(&["verify"], MINUTE).await.assert_code(3);
    cutwater.run(&["verify", "--repair"], 2 * MINUTE).await.assert_code(0);
    assert_same(&source, &target).await;
    cutwater.run(&["verify"], MINUTE).await.assert_code(0);
}

/// Near the server's limit of 1 GB a value: 300 MB (bytea: 600 MB in text form) with `CUTWATER_CHAOS`, else 20 MB.
#[tokio::test(flavor = "multi_thread")]
async fn a_huge_value_passes_whole_in_snapshot_and_stream() {
    let megabytes = if std::env::var_os("CUTWATER_CHAOS").is_some() { 300 } else { 20 };
    let (source, target) = pair().await;
    // The second half is another text than the first, so that no half can stand for the other.
    let text = |seed: &str| {
        format!("repeat(md5('{seed}a'), {n}) || repeat(md5('{seed}b'), {n})", n = megabytes * 1024 * 1024 / 64)
    };
    let insert = |id: u32| {
        let text = text(&id.to_string());
        format!("INSERT INTO huge SELECT {id}, t, convert_to(t, 'UTF8') FROM (SELECT {text} AS t) x")
    };
    source.execute("CREATE TABLE huge (id int PRIMARY KEY, t text, b bytea, n int)").await;
    source.execute(&insert(1)).await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    let run = cutwater.start(&["run"]);
    let digest = "SELECT coalesce(string_agg(concat_ws(' ', id, length(t), md5(t), length(b), md5(b), n), ',' ORDER BY id), '') FROM huge";
    let arrived = async |what: &str| {
        let expected: String = source.value(digest).await;
        wait_for(what, 10 * MINUTE, async || {
            let there = target.connect().await.query_one(digest, &[]).await;
            there.is_ok_and(|row| row.get::<_, String>(0) == expected)
        })
        .await;
    };
    arrived("the copy").await;
    for change in [&insert(2), "UPDATE huge SET n = 1", &format!("UPDATE huge SET t = {} WHERE id = 1", text("x"))] {
        source.execute(change).await;
        arrived(&change[..20]).await;
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", run.pid())).unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("memory unknown");
    let _ = writeln!(std::io::stderr(), "values of {megabytes} MB: {peak}");
    run.sigint();
    run.wait(MINUTE).await.assert_code(0);
}

/// While a batch waits for the rest of its transaction, what it holds of the memory budget is not free.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_larger_than_the_budget_passes_in_the_middle_of_a_transaction() {
    let (source, target) = pair().await;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY, t text)").await;
    let cutwater = Cutwater::new(&source.url(), &target.url()).and("[apply]\nbatch_bytes = \"64KB\"\n");
    catch_up(&cutwater).await;
    let row = |id: u32, length: u32| format!("INSERT INTO notes VALUES ({id}, repeat('x', {length}));");
    let rows: String = (0..40).map(|id| row(id, if id % 4 == 2 { 2_000_000 } else { 5_000 })).collect();
    source.execute(&format!("BEGIN; {rows} COMMIT;")).await;
    catch_up(&cutwater).await;
    assert_same(&source, &target).await;
}

/// What the source itself cannot send in one message.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a gigabyte of text: make chaos runs it"]
async fn a_row_that_the_source_cannot_send_is_refused_by_name() {
    let (source, target) = pair().await;
    let text = format!("repeat('0123456789abcdef', {})", 400 * 1024 * 1024 / 16);
    source.execute("CREATE TABLE huge (id int PRIMARY KEY, a text, b text, c text)").await;
    source.execute(&format!("INSERT INTO huge SELECT 7, {text}")).await;
    source.execute("UPDATE huge SET b = a || ''").await;
    source.execute("UPDATE huge SET c = a || ''").await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    let refused = cutwater.run(&["run", "--until", "caught-up"], 3 * MINUTE).await;
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("public.huge"), "{}", refused.stderr);
    assert!(refused.stderr.contains("a row of more than 1 GB"), "{}", refused.stderr);
    assert_eq!(target.value::<i64>("SELECT count(*) FROM huge").await, 0);

    // The same in the stream: the row was small when it was copied, and one statement makes it large. The server forms such a
    // row only of values that are stored already, compressed; an unlogged table is not of the migration.
    let (source, target) = pair().await;
    source.execute("CREATE TABLE huge (id int PRIMARY KEY, a text, b text, c text); INSERT INTO huge VALUES (7)").await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    catch_up(&cutwater).await;
    source.execute(&format!("CREATE UNLOGGED TABLE store AS SELECT {text} AS t")).await;
    source.execute("UPDATE huge SET a = t, b = t, c = t FROM store").await;
    source.execute("UPDATE huge SET a = NULL, b = NULL, c = 'small again'").await;
    let refused = cutwater.run(&["run", "--until", "caught-up"], 3 * MINUTE).await;
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("a row of more than 1 GB is in the log"), "{}", refused.stderr);
    assert!(refused.stderr.contains("cutwater teardown"), "{}", refused.stderr);
    assert_eq!(target.value::<i64>("SELECT count(*) FROM huge WHERE c IS NULL").await, 1, "nothing half of it");
}
