//! Verify between different engines, and between MySQL and MariaDB servers: what it finds, and what it must not mistake for
//! a difference.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    dead_code,
    reason = "in a test a panic is the report; support is shared"
)]

#[path = "verify_engines/stage.rs"]
mod stage;
mod support;
#[path = "mapping/values.rs"]
mod values;

use std::sync::Arc;
use std::time::Duration;

use cutwater::config::Config;
use cutwater::mysql::Flavour;
use cutwater::pipeline::Job;
use cutwater::schema::{MySqlType, mapping::default_type};
use cutwater::source::Source as _;
use cutwater::target::Target as _;
use cutwater::verify::DifferenceKind::{Different, Extra, Missing};
use cutwater::verify::changed::{self, Scope};
use cutwater::verify::{Ends, Options, run};
use stage::{Stage, ends, found, my_database, server, table, url, verify};
use support::{Cutwater, wait_for};
use tokio_util::sync::CancellationToken;

const BOTH: [Flavour; 2] = [Flavour::MySql, Flavour::MariaDb];
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn every_type_compares_equal_and_one_changed_value_of_each_is_named() {
    for flavour in BOTH {
        let Some(server) = server(flavour).await else { continue };
        let session = server.connect("").await;
        let sections: Vec<_> = values::sections().into_iter().filter(|s| s.is_for(session.server())).collect();
        let mut sql = Vec::new();
        let mut rules = String::new();
        for (at, section) in sections.iter().enumerate() {
            sql.push(format!("CREATE TABLE t{at} (id int PRIMARY KEY, v {} NULL)", section.from));
            let rows = section.values.iter().enumerate().map(|(at, (literal, _))| format!(", ({}, {literal})", at + 1));
            sql.push(format!("INSERT INTO t{at} VALUES (0, NULL){}", rows.collect::<String>()));
            let alias = flavour == Flavour::MariaDb && section.from == "json";
            if alias || default_type(&MySqlType::parse(&section.from)).as_ref() != Some(&section.to) {
                rules += &format!("[[schema.type]]\nmatch = \"types.t{at}.v\"\ntype = \"{}\"\n", section.to);
            }
        }
        let sql: Vec<&str> = sql.iter().map(String::as_str).collect();
        let stage = Stage::of(flavour, "types", &rules, &sql).await.unwrap();
        let report = stage.verify().await;
        let differing: Vec<_> = report.tables.iter().filter(|table| table.differing > 0).collect();
        assert!(report.clean(), "{flavour}: {differing:#?}");
        assert_eq!(report.rows(), sections.iter().map(|section| section.values.len() as u64 + 1).sum::<u64>());
        // Of each type one value becomes another of the same type, or one comes where there was none.
        for (at, section) in sections.iter().enumerate() {
            let other = if section.values.len() > 1 { 2 } else { 0 };
            let sql = format!("UPDATE t{at} SET v = (SELECT v FROM t{at} WHERE id = {other}) WHERE id = 1");
            stage.target.execute(&sql).await;
        }
        let report = stage.verify().await;
        for (at, section) in sections.iter().enumerate() {
            let wanted = if section.values.is_empty() { vec![] } else { vec![("(1)", Different)] };
            let name = format!("types.t{at}");
            assert_eq!(found(&report, &name), wanted, "{flavour}: {} -> {}", section.from, section.to);
        }
    }
}

const TABLES: &[&str] = &[
    "CREATE TABLE keyed (id bigint unsigned PRIMARY KEY, v varchar(40), n decimal(20,4), at datetime(6), b varbinary(9))",
    "INSERT INTO keyed VALUES (1, 'a', 1.5, '2026-01-01', x'00ff'), (9223372036854775808, NULL, -0.0001, NULL, ''),
                              (18446744073709551615, '', 7, '2026-01-01 00:00:00.000001', NULL)",
    "CREATE TABLE pairs (a int, word varchar(20), day date, v int, PRIMARY KEY (word, a, day))",
    "INSERT INTO pairs VALUES (1, 'x,y', '2024-02-29', 1), (-1, 'x,y', '2024-02-29', 1), (1, '(', '1000-01-01', 2)",
    // Under a collation that finds a and A equal, é and e, and (in MySQL) tells blanks at the end apart.
    "CREATE TABLE words (w varchar(20) COLLATE utf8mb4_bin PRIMARY KEY, v int)",
    "INSERT INTO words VALUES ('a', 1), ('A', 2), ('é', 3), ('e', 4), ('Ω', 5), ('😀', 6), ('z', 7), ('', 8), ('ß', 9)",
    "CREATE TABLE ci (w varchar(20) COLLATE utf8mb4_general_ci PRIMARY KEY, v int)",
    "INSERT INTO ci VALUES ('Abc', 1), ('élan', 2), ('zulu ', 3), ('😀', 4), ('it''s \\\\', 5)",
    "CREATE TABLE old (w varchar(20) CHARACTER SET latin1 PRIMARY KEY, v int)",
    "INSERT INTO old VALUES ('äöü', 1), ('Z', 2)",
    "CREATE TABLE raw (k binary(3), u binary(16), flag tinyint(1), m enum('b','a'), PRIMARY KEY (k, u, flag, m), v int)",
    "INSERT INTO raw VALUES (x'0001ff', x'0b1e7a5c1d2f4a3b8c4d5e6f70819203', 1, 'a', 1), (x'000000', x'00', 0, 'b', 2)",
    "CREATE TABLE rough (d double, s set('x','y'), PRIMARY KEY (d, s), v int)",
    "INSERT INTO rough VALUES (0.1, 'x,y', 1), (1e300, '', 2)",
    // A key that a policy makes another one at the target, by which the source cannot be asked.
    "CREATE TABLE clamped (d date PRIMARY KEY, v int)",
    "INSERT INTO clamped VALUES ('0000-00-00', 1), ('2024-01-01', 2)",
    "CREATE TABLE loose (v varchar(20), n int)",
    "INSERT INTO loose VALUES ('same', 1), ('same', 1), ('same', 1), (NULL, 1), ('', 2), ('NULL', 3)",
];

const TABLES_RULES: &str = "[[schema.type]]\nmatch = \"*.raw.u\"\ntype = \"uuid\"\n[values]\nzero_date = \"clamp\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_difference_is_named_by_key_whatever_the_key_is() {
    for flavour in BOTH {
        let Some(stage) = Stage::of(flavour, "kinds", TABLES_RULES, TABLES).await else { continue };
        let report = stage.verify().await;
        assert!(report.clean() && report.behind.is_none(), "{flavour}: {report:#?}");
        stage
            .target
            .execute(
                "UPDATE keyed SET n = n + 0.0001 WHERE id = 9223372036854775808;
                 UPDATE keyed SET v = NULL WHERE id = 18446744073709551615;
                 DELETE FROM keyed WHERE id = 1;
                 INSERT INTO keyed (id) VALUES (18446744073709551614);
                 UPDATE pairs SET v = 9 WHERE a = -1;
                 UPDATE words SET v = 9 WHERE w IN ('A', 'é', '😀', '');
                 INSERT INTO words VALUES ('E', 4);
                 UPDATE ci SET w = 'ABC' WHERE w = 'Abc';
                 UPDATE ci SET w = 'zulu' WHERE w = 'zulu ';
                 UPDATE ci SET v = 9 WHERE v = 5;
                 UPDATE old SET v = 9 WHERE w = 'äöü';
                 UPDATE raw SET v = 9 WHERE flag;
                 UPDATE rough SET v = 9;
                 DELETE FROM loose WHERE ctid = (SELECT min(ctid) FROM loose WHERE v = 'same');
                 INSERT INTO loose VALUES ('', 2), ('new', 9);",
            )
            .await;
        let fenced = stage.verify().await;
        // Without a fence what disagrees is read again by its key.
        let never = CancellationToken::new();
        let report = run(&stage.ends, &stage.plan, &Options::default(), &|_, _, _| {}, &never).await.unwrap();
        for table in &report.tables {
            assert_eq!(found(&report, &table.source), found(&fenced, &table.source), "{flavour}");
        }
        assert!(report.behind.unwrap().contains("no run is alive"));
        let report = fenced;
        let expected = [
            ("(1)", Missing),
            ("(18446744073709551614)", Extra),
            ("(18446744073709551615)", Different),
            ("(9223372036854775808)", Different),
        ];
        assert_eq!(found(&report, "kinds.keyed"), expected, "{flavour}");
        assert_eq!(found(&report, "kinds.pairs"), [("(-1, x,y, 2024-02-29)", Different)]);
        let expected = [("()", Different), ("(A)", Different), ("(E)", Extra), ("(é)", Different), ("(😀)", Different)];
        assert_eq!(found(&report, "kinds.words"), expected);
        let expected =
            [("(ABC)", Extra), ("(Abc)", Missing), ("(it's \\)", Different), ("(zulu )", Missing), ("(zulu)", Extra)];
        assert_eq!(found(&report, "kinds.ci"), expected);
        assert_eq!(found(&report, "kinds.old"), [("(äöü)", Different)]);
        let raw = "(\\x0001ff, 0b1e7a5c-1d2f-4a3b-8c4d-5e6f70819203, t, a)";
        assert_eq!(found(&report, "kinds.raw"), [(raw, Different)]);
        assert_eq!(found(&report, "kinds.rough"), [("(0.1, {x,y})", Different), ("(1e+300, {})", Different)]);
        assert_eq!(found(&report, "kinds.loose"), [("(,2)", Extra), ("(new,9)", Extra), ("(same,1)", Missing)]);
        assert_eq!((table(&report, "kinds.keyed").rows_source, table(&report, "kinds.keyed").rows_target), (3, 3));
    }
}

/// Whatever is not read again here did not change.
#[tokio::test(flavor = "multi_thread")]
async fn the_comparison_behind_a_fence_reads_the_keys_that_changed() {
    for flavour in BOTH {
        let Some(stage) = Stage::of(flavour, "changed", TABLES_RULES, TABLES).await else { continue };
        let head = stage.job.source.head().await.unwrap().position;
        let checkpoint =
            format!("INSERT INTO cutwater.checkpoint (migration, epoch, position) VALUES ('shop', 0, '{head}')");
        stage.target.execute(&checkpoint).await;
        let never = CancellationToken::new();
        let report = run(&stage.ends, &stage.plan, &Options::default(), &|_, _, _| {}, &never).await.unwrap();
        assert!(report.clean(), "{report:#?}");
        let last = stage.ends.state.migration().await.unwrap().unwrap().verify.unwrap();
        let generation = last.generation.expect("keys are kept from here on");
        // As an applier keeps them: `key::text` of the target.
        for (name, keys) in [
            ("keyed", "SELECT ARRAY[id::text] FROM keyed"),
            ("words", "SELECT ARRAY[w::text] FROM words WHERE w IN ('A', 'é', '')"),
            ("ci", "SELECT ARRAY[w::text] FROM ci"),
            ("clamped", "SELECT ARRAY[d::text] FROM clamped"),
            ("raw", "SELECT ARRAY[k::text, u::text, flag::text, m::text] FROM raw"),
            ("rough", "SELECT ARRAY[d::text, s::text] FROM rough"),
            ("pairs", "SELECT ARRAY['5', 'gone', '2024-01-01']"),
        ] {
            let sql = format!(
                "INSERT INTO cutwater.changed_key (migration, generation, tbl, hash, key)
                 SELECT 'shop', {generation}, '\"public\".\"{name}\"', hashtextextended(k::text COLLATE \"C\", 0), k
                   FROM ({keys}) x(k)"
            );
            stage.target.execute(&sql).await;
        }
        let compare = async || {
            let scope = Scope::of(&stage.ends, &stage.plan, Some(&last)).await.unwrap();
            let Scope::Changed { keys, whole } = scope else { panic!("{scope:?}") };
            assert!(whole.is_empty());
            let options = Options { fenced: true, budget: Some(MINUTE), ..Options::default() };
            changed::run(&stage.ends, &stage.plan, &keys, &whole, &options, &|_, _, _| {}).await.unwrap()
        };
        let report = compare().await;
        assert!(report.clean(), "{flavour}: {report:#?}");
        let rows: Vec<(&str, u64, u64)> =
            report.tables.iter().map(|t| (t.source.as_str(), t.rows_source, t.rows_target)).collect();
        let wanted = [("ci", 5), ("clamped", 2), ("keyed", 3), ("pairs", 0), ("raw", 2), ("rough", 2), ("words", 3)];
        assert_eq!(
            rows,
            wanted.map(|(name, rows)| (format!("changed.{name}"), rows, rows)).each_ref().map(|(n, a, b)| (
                n.as_str(),
                *a,
                *b
            ))
        );
        stage
            .target
            .execute(
                "UPDATE keyed SET v = 'damaged' WHERE id = 18446744073709551615; DELETE FROM ci WHERE v = 2;
                 UPDATE raw SET v = 8 WHERE NOT flag; UPDATE rough SET v = 8 WHERE d = 0.1;
                 UPDATE words SET v = 8 WHERE w IN ('A', 'z');",
            )
            .await;
        let report = compare().await;
        assert_eq!(found(&report, "changed.keyed"), [("(18446744073709551615)", Different)], "{flavour}");
        assert_eq!(found(&report, "changed.ci"), [("(élan)", Missing)]);
        assert_eq!(found(&report, "changed.words"), [("(A)", Different)], "z did not change: it is not read");
        assert_eq!(report.differences(), 5);
        let recorded: i64 = stage.target.value("SELECT (verify->>'differences')::bigint FROM cutwater.migration").await;
        assert_eq!(recorded, 5, "no cutover begins before the next clean verify");
    }
}

/// Many rows, of which some differ at the ends and in the middle.
#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_the_table_and_a_statement_ends_with_whoever_reads() {
    let sql = [
        "CREATE TABLE big (id int PRIMARY KEY, v varchar(400) NOT NULL)",
        "INSERT INTO big SELECT seq, CONCAT(REPEAT('a value of many letters, ', 12), seq) FROM seq_1_to_200000",
        "ANALYZE TABLE big",
    ];
    let Some(stage) = Stage::empty(Flavour::MariaDb, "memory", "", &sql).await else { return };
    stage
        .target
        .execute(
            "INSERT INTO big SELECT i, repeat('a value of many letters, ', 12) || i FROM generate_series(1, 200000) i",
        )
        .await;
    let before = resident();
    let report = stage.verify().await;
    assert!(report.clean() && report.rows() == 200_000, "{report:?}");
    stage.target.execute("UPDATE big SET v = 'x' WHERE id IN (1, 200000); DELETE FROM big WHERE id = 100000").await;
    let report = stage.verify().await;
    assert_eq!(found(&report, "memory.big"), [("(1)", Different), ("(100000)", Missing), ("(200000)", Different)]);
    let grown = resident().saturating_sub(before);
    // The rows alone are some 60 MB at each end.
    assert!(grown < 32 << 20, "{} MiB more than before", grown >> 20);

    // Most rows of the target are gone.
    stage.target.execute("DELETE FROM big WHERE id > 1000").await;
    let options = Options { fenced: true, named_rows: 3, ..Options::default() };
    let never = CancellationToken::new();
    let report = run(&stage.ends, &stage.plan, &options, &|_, _, _| {}, &never).await.unwrap();
    assert_eq!(table(&report, "memory.big").differing, 199_001);

    let at_work = async || {
        let mut session = stage.session().await;
        let sql = "SELECT count(*) FROM information_schema.processlist WHERE info LIKE 'SELECT `id`%big%'";
        let there = session.value(sql).await.unwrap().unwrap();
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT t.%big%'";
        (there != "0", stage.target.value::<i64>(sql).await != 0)
    };
    // Ctrl-C.
    let stop = CancellationToken::new();
    let begun = async {
        wait_for("a statement at the source", MINUTE, async || at_work().await.0).await;
        stop.cancel();
    };
    let options = Options { fenced: true, ..Options::default() };
    let (ended, ()) = tokio::join!(run(&stage.ends, &stage.plan, &options, &|_, _, _| {}, &stop), begun);
    assert!(ended.unwrap_err().to_string().contains("interrupted"));
    assert_eq!(at_work().await, (false, false), "a statement goes on for nobody");
    // The time that a fence may take.
    let options = Options { fenced: true, budget: Some(Duration::from_millis(300)), ..Options::default() };
    let ended = run(&stage.ends, &stage.plan, &options, &|_, _, _| {}, &never).await;
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(at_work().await, (false, false), "a statement goes on for nobody");
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
}

/// Rows of these columns are written the same at both ends, by the words of each server.
#[tokio::test(flavor = "multi_thread")]
async fn between_mysql_servers_rows_are_compared_by_value() {
    let pairs =
        [(Flavour::MariaDb, Flavour::MySql), (Flavour::MySql, Flavour::MariaDb), (Flavour::MySql, Flavour::MySql)];
    for (n, (from, to)) in pairs.into_iter().enumerate() {
        let (Some(source), Some(target)) = (server(from).await, server(to).await) else { continue };
        let (here, there) = (format!("between_{n}"), format!("between_{n}"));
        let sql = [
            "CREATE TABLE t (id bigint unsigned PRIMARY KEY, f float, d double, j json, b bit(9), n decimal(10,2), w text,
                             raw varbinary(9), at timestamp(3) NULL, y year, s set('x','y'), e enum('a','b'))",
            "INSERT INTO t VALUES (1, 1.1, 0.1, '{\"a\":  1, \"b\": [1.50]}', b'101', 1.5, 'é😀', x'00ff', '2026-01-01', 1999, 'x,y', 'b'),
                                  (18446744073709551615, -0.0, 1e300, NULL, NULL, NULL, '', '', NULL, NULL, '', NULL)",
            "CREATE TABLE raw (k varbinary(9), n int, PRIMARY KEY (k, n), v int)",
            "INSERT INTO raw VALUES (x'00ff', 1, 1), (x'0100', 1, 1)",
            "CREATE TABLE loose (v varchar(9), b blob)",
            "INSERT INTO loose VALUES ('a', x'00'), ('a', x'00'), (NULL, 'b')",
        ];
        // One server holds both databases under one name only if they are two servers.
        if from == to {
            continue;
        }
        my_database(&source, &here, &sql).await;
        my_database(&target, &there, &sql).await;
        let toml = format!(
            "[migration]\nname = \"my{n}\"\n[source]\nurl = \"{}\"\n[target]\nurl = \"{}\"\n",
            url(&source, &here),
            url(&target, &there)
        );
        let config: Config = toml::from_str(&toml).unwrap();
        let job = Job::open(config).unwrap();
        let plan = job.plan().await.unwrap();
        let ends = ends(&job).await;
        let report = verify(&ends, &plan).await;
        assert!(report.clean() && report.rows() == 7, "{from} to {to}: {report:#?}");
        let damage = "UPDATE t SET j = '{\"a\": 1, \"b\": [1.51]}' WHERE id = 1; \
                      UPDATE t SET raw = x'00' WHERE id = 18446744073709551615; \
                      INSERT INTO t (id) VALUES (7); DELETE FROM loose WHERE v = 'a' LIMIT 1";
        for sql in damage.split("; ") {
            target.execute(&there, sql).await;
        }
        let report = verify(&ends, &plan).await;
        let name = |table: &str| format!("{here}.{table}");
        let expected = [("(1)", Different), ("(18446744073709551615)", Different), ("(7)", Extra)];
        assert_eq!(found(&report, &name("t")), expected, "{from} to {to}");
        assert_eq!(found(&report, &name("loose")), [("(a,\\x00)", Missing)], "{from} to {to}");
        // By the keys that an applier keeps: bytes are hexadecimal digits there.
        target.execute(&there, "UPDATE t SET j = (SELECT '{\"a\": 1, \"b\": [1.5]}'), raw = NULL WHERE id IN (1, 18446744073709551615)").await;
        target.execute(&there, "UPDATE t SET raw = x'00ff' WHERE id = 1").await;
        target.execute(&there, "DELETE FROM t WHERE id = 7").await;
        target.execute(&there, "UPDATE t SET raw = '', j = NULL WHERE id = 18446744073709551615").await;
        target.execute(&there, "INSERT INTO loose VALUES ('a', x'00')").await;
        let head = job.source.head().await.unwrap().position;
        let checkpoint =
            format!("INSERT INTO checkpoint (migration, worker, epoch, position) VALUES ('my{n}', 0, 0, '{head}')");
        target.execute("cutwater", &checkpoint).await;
        let never = CancellationToken::new();
        let report = run(&ends, &plan, &Options::default(), &|_, _, _| {}, &never).await.unwrap();
        assert!(report.clean(), "{from} to {to}: {report:#?}");
        let last = ends.state.migration().await.unwrap().unwrap().verify.unwrap();
        let generation = last.generation.expect("keys are kept from here on");
        for (hash, key) in [["00ff", "1"], ["0100", "1"], ["02", "7"]].iter().enumerate() {
            let sql = format!(
                "INSERT INTO changed_key (migration, generation, tbl, hash, `key`)
                 VALUES ('my{n}', {generation}, '\"{here}\".\"raw\"', {hash}, '{}')",
                serde_json::json!(key)
            );
            target.execute("cutwater", &sql).await;
        }
        target.execute(&there, "UPDATE raw SET v = 9 WHERE k = x'0100'").await;
        let scope = Scope::of(&ends, &plan, Some(&last)).await.unwrap();
        let Scope::Changed { keys, whole } = scope else { panic!("{scope:?}") };
        let options = Options { fenced: true, ..Options::default() };
        let report = changed::run(&ends, &plan, &keys, &whole, &options, &|_, _, _| {}).await.unwrap();
        assert_eq!(found(&report, &name("raw")), [("(\\x0100, 1)", Different)], "{from} to {to}: {report:#?}");
        assert_eq!((report.tables.len(), report.rows()), (1, 2));
    }
}

/// A run brings what is written; no look may mistake a change on its way, or a row that goes to and fro, for a difference.
#[tokio::test(flavor = "multi_thread")]
async fn beside_a_run_writes_on_their_way_are_no_differences_and_a_real_one_is_found() {
    for flavour in BOTH {
        let Some(source) = server(flavour).await else { continue };
        let rows: String = (2..=2000).map(|id| format!(", ({id}, 'v{id}')")).collect();
        let insert = format!("INSERT INTO keyed VALUES (1, 'tick'){rows}");
        let sql = [
            "CREATE TABLE keyed (id int PRIMARY KEY, v varchar(20) NOT NULL)",
            insert.as_str(),
            "CREATE TABLE loose (v varchar(20))",
            "INSERT INTO loose VALUES ('a'), ('a'), (NULL)",
        ];
        my_database(&source, "live", &sql).await;
        let target = stage::database().await;
        let name = if flavour == Flavour::MySql { "live_my" } else { "live_maria" };
        let toml = format!(
            "[migration]\nname = \"{name}\"\n[source]\nurl = \"{}\"\n[target]\nurl = \"{}\"\n",
            url(&source, "live"),
            target.url()
        );
        let cutwater = Cutwater::with_config(&toml);
        let _run = cutwater.start(&["run"]);
        cutwater.wait_for_status(|status| status["phase"] == "streaming").await;
        let config: Config = toml::from_str(&toml).unwrap();
        let job = Job::open(config).unwrap();
        let plan = job.plan().await.unwrap();
        let state = job.target.state().clone();
        let ends = Ends { source: job.source.clone(), target: job.target.clone(), state };

        let writing = CancellationToken::new();
        let writer = tokio::spawn({
            let (source, writing) = (Arc::clone(&source), writing.clone());
            async move {
                let mut session = source.connect("live").await;
                let mut n = 0;
                while !writing.is_cancelled() {
                    n += 1;
                    for sql in [
                        // There and back again.
                        "UPDATE keyed SET v = 'tock' WHERE id = 1".to_owned(),
                        "UPDATE keyed SET v = 'tick' WHERE id = 1".to_owned(),
                        format!("UPDATE keyed SET v = 'w{n}' WHERE id = 2 + {} % 1500", n * 7),
                        format!("INSERT INTO keyed VALUES (10000 + {n}, 'new')"),
                        format!("DELETE FROM keyed WHERE id = 10000 + {n} - 20"),
                    ] {
                        session.execute(sql).await.unwrap();
                    }
                }
                n
            }
        });
        let never = CancellationToken::new();
        let mut looked_twice = 0;
        for _ in 0..5 {
            let report = run(&ends, &plan, &Options::default(), &|_, _, _| {}, &never).await.unwrap();
            assert!(report.clean() && report.behind.is_none(), "{flavour}: {report:?}");
            looked_twice += table(&report, "live.keyed").rechecked;
        }
        target.execute("UPDATE keyed SET v = 'damaged' WHERE id = 1777").await;
        target.execute("INSERT INTO loose VALUES ('b')").await;
        let report = run(&ends, &plan, &Options::default(), &|_, _, _| {}, &never).await.unwrap();
        writing.cancel();
        assert!(writer.await.unwrap() > 50);
        assert_eq!(found(&report, "live.keyed"), [("(1777)", Different)], "{flavour}: {report:?}");
        assert_eq!(found(&report, "live.loose"), [("(b)", Extra)]);
        eprintln!("{flavour}: {looked_twice} rows were looked at twice");

        let said = cutwater.run(&["verify"], MINUTE).await.assert_code(3);
        assert!(
            said.stdout.contains("(1777)  different values") && said.stdout.contains("DIFFERENT: 2 rows"),
            "{said:?}"
        );
        let said = cutwater.run(&["verify", "--repair"], MINUTE).await.assert_code(3);
        assert!(said.stderr.contains("cutwater tables resync"), "{said:?}");
        target.execute("UPDATE keyed SET v = 'v1777' WHERE id = 1777; DELETE FROM loose WHERE v = 'b'").await;
        let said = cutwater.run(&["verify"], MINUTE).await.assert_code(0);
        assert!(said.stdout.contains("IDENTICAL: 2 tables"), "{said:?}");
    }
}
