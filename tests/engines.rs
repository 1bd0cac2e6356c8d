//! Migrations between engines, with the real binary on real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

mod support;

use std::collections::HashSet;
use std::sync::Arc;

use cutwater::config::Config;
use cutwater::error::Kind;
use cutwater::mysql::Flavour;
use cutwater::pipeline::Job;
use cutwater::pipeline::progress::Progress;
use cutwater::pipeline::schema::Schema;
use cutwater::schema::TableName;
use cutwater::source::AnySource;
use cutwater::target::AnyTarget;
use support::harness::{Engine, MariaDb, MySql, PATIENCE, Postgres, Session, Stage, assert_holds, assert_same, seed};
use support::mysql::DATABASE;
use support::{Cutwater, Database, LocalMySql, MyOptions, compare, my_server, one, wait_for};
use tokio_util::sync::CancellationToken;

/// Small parts and a copy that lasts: more places to be killed at.
const SLOW: &str =
    "[snapshot]\nchunk_rows = 4000\nworkers = 2\nmax_rows_per_second = 15000\n[apply]\nbatch_rows = 200\n";
const BOTH: [Flavour; 2] = [Flavour::MySql, Flavour::MariaDb];

/// Runs the statements of a file.
async fn run_sql(server: &LocalMySql, text: &str) {
    let mut session = server.connect(DATABASE).await;
    for statement in text.split(";\n").filter(|sql| !sql.trim().is_empty()) {
        session.execute(statement).await.unwrap_or_else(|error| panic!("{error}\nin: {statement}"));
    }
}

fn job(source: &LocalMySql, target: &str, more: &str) -> Job {
    let config: Config = toml::from_str(&format!(
        "[migration]\nname = \"shop\"\n[source]\nurl = \"{}\"\n[target]\nurl = \"{target}\"\n{more}",
        source.url(DATABASE),
    ))
    .unwrap();
    Job { source: AnySource::of(&config).unwrap(), target: AnyTarget::of(&config).unwrap(), config, mends: false }
}

/// What there is in the target's schemas: columns, indexes, constraints.
async fn made(target: &Database) -> Vec<String> {
    let client = target.connect().await;
    let rows = client.query(include_str!("engines/made.sql"), &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_target_gets_the_tables_keys_indexes_and_constraints_and_what_is_there_stays() {
    for flavour in BOTH {
        let Some(source) = my_server(flavour, MyOptions::new(), "schema").await else { continue };
        run_sql(&source, include_str!("engines/shop.sql")).await;
        let target = one().await;
        let job = job(&source, &target.url(), "");
        let plan = job.plan().await.unwrap();
        let progress = Arc::new(Progress::new());
        let halt = CancellationToken::new();

        // Asked to stop at once: nothing is there that would look as if somebody had made it.
        let stopped = CancellationToken::new();
        stopped.cancel();
        let work = Schema::of(&job, &plan, &progress);
        assert_eq!(work.create_tables(&stopped).await.unwrap_err().kind(), Kind::Interrupted);
        assert_eq!(made(&target).await, [] as [String; 0]);

        let none = HashSet::new();
        work.create_tables(&halt).await.unwrap();
        work.build_keys_and_indexes(&halt).await.unwrap();
        let absent = HashSet::from([TableName::new(DATABASE, "Customers")]);
        work.finish_constraints(&absent, &halt).await.unwrap();
        assert!(!made(&target).await.iter().any(|line| line.contains("FOREIGN KEY")), "it refers to what is absent");
        work.finish_constraints(&none, &halt).await.unwrap();
        let all = made(&target).await;
        for wanted in [
            "column customers.id integer not null identity",
            "column customers.email character varying(80) not null",
            "column orders.id bigint not null identity",
            "column orders.placed timestamp with time zone not null",
            "index UNIQUE INDEX customers_email ON public.customers USING btree (email)",
            "index INDEX orders_by_customer ON public.orders USING btree (customer, placed)",
            "constraint customers PRIMARY KEY (id)",
            "constraint orders FOREIGN KEY (customer) REFERENCES customers(id)",
            "constraint orders CHECK ((amount > '-1000000'::integer))",
        ] {
            assert!(all.iter().any(|line| line.starts_with(wanted)), "{wanted} is not in {all:#?}");
        }
        let left = work.not_carried().await.unwrap();
        assert!(left.iter().any(|line| line.starts_with("view shop.rich")), "{left:#?}");
        let view = progress.view();
        assert!(view.indexes_total >= 7, "{view:?}");

        // As after a crash at any point: what is there is skipped, what is missing is made.
        let work = Schema::of(&job, &plan, &progress);
        target.execute("DROP INDEX orders_by_customer; ALTER TABLE orders DROP CONSTRAINT of_customer").await;
        work.create_tables(&halt).await.unwrap();
        work.build_keys_and_indexes(&halt).await.unwrap();
        work.finish_constraints(&none, &halt).await.unwrap();
        assert_eq!(made(&target).await, all);

        // One table alone, while others are followed.
        target.execute("DROP TABLE visits; DROP TABLE orders").await;
        let orders = HashSet::from([TableName::new(DATABASE, "orders")]);
        let work = Schema::of(&job, &plan, &progress);
        work.create_some(&orders, &halt).await.unwrap();
        work.index_some(&orders, &halt).await.unwrap();
        work.finish_some(&orders, &none, &halt).await.unwrap();
        let without_visits: Vec<&String> = all.iter().filter(|line| !line.contains("visits")).collect();
        assert_eq!(made(&target).await.iter().collect::<Vec<_>>(), without_visits);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_made_by_hand_are_taken_as_they_are() {
    let Some(source) = my_server(Flavour::MariaDb, MyOptions::new(), "schema by hand").await else { return };
    run_sql(&source, include_str!("engines/shop.sql")).await;
    let target = one().await;
    let job =
        job(&source, &target.url(), "[[transform]]\nmatch = \"shop.orders\"\nrename = { table = \"bestellung\" }");
    let (plan, progress, halt) = (job.plan().await.unwrap(), Arc::new(Progress::new()), CancellationToken::new());

    target.execute("CREATE TABLE bestellung (id numeric PRIMARY KEY, customer int, total float8)").await;
    let work = Schema::of(&job, &plan, &progress);
    let said = work.create_tables(&halt).await.unwrap_err().to_string();
    assert!(said.contains("public.bestellung exists at the target and lacks \"state\" text"), "{said}");

    let more = "state int, amount numeric, note text, blobs bytea, placed timestamptz, document text, extra int";
    let more: Vec<String> = more.split(", ").map(|column| format!("ADD COLUMN {column}")).collect();
    target.execute(&format!("ALTER TABLE bestellung {}", more.join(", "))).await;
    work.create_tables(&halt).await.unwrap();
    // A row that breaks the source's own foreign key, which servers allow with foreign_key_checks = 0.
    target.execute("INSERT INTO bestellung (id, customer) VALUES (1, 77)").await;
    target.execute("CREATE VIEW bestellung_by_note AS SELECT 1").await;
    let said = work.build_keys_and_indexes(&halt).await.unwrap_err().to_string();
    assert!(said.contains("bestellung_by_note of public.bestellung was not made"), "{said}");
    target.execute("DROP VIEW bestellung_by_note").await;
    work.build_keys_and_indexes(&halt).await.unwrap();
    work.finish_constraints(&HashSet::new(), &halt).await.unwrap();
    let all = made(&target).await;
    let has = |wanted: &str| all.iter().any(|line| line.starts_with(wanted));
    assert!(has("column bestellung.extra integer") && has("column bestellung.id numeric not null"), "{all:#?}");
    assert!(has("index INDEX bestellung_by_customer"), "{all:#?}");
    assert!(has("constraint bestellung FOREIGN KEY (customer) REFERENCES customers(id) NOT VALID"), "{all:#?}");
    assert!(!has("constraint bestellung CHECK"), "its columns are of other types: {all:#?}");
}

/// The definition of a table, as its own server prints it.
async fn shown(server: &LocalMySql, table: &str) -> String {
    let rows = server.connect(DATABASE).await.rows(format!("SHOW CREATE TABLE {table}")).await.unwrap();
    rows[0][1].clone().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn between_two_servers_of_a_flavour_a_table_is_what_the_source_says_it_is() {
    for flavour in BOTH {
        let test = "schema between two servers of a flavour";
        let Some(source) = my_server(flavour, MyOptions::new(), test).await else { continue };
        let Some(target) = my_server(flavour, MyOptions::new().setting("server-id", "2"), test).await else { continue };
        run_sql(&source, include_str!("engines/alike.sql")).await;
        let job = job(&source, &target.url(DATABASE), "");
        let (plan, progress, halt) = (job.plan().await.unwrap(), Arc::new(Progress::new()), CancellationToken::new());
        let work = Schema::of(&job, &plan, &progress);
        let stopped = CancellationToken::new();
        stopped.cancel();
        assert_eq!(work.create_tables(&stopped).await.unwrap_err().kind(), Kind::Interrupted);
        work.create_tables(&halt).await.unwrap();
        let before = shown(&target, "children").await;
        assert!(
            before.contains("KEY `counting`") && !before.contains("by_price") && !before.contains("REFERENCES"),
            "{before}"
        );
        work.build_keys_and_indexes(&halt).await.unwrap();
        assert!(shown(&target, "children").await.contains("REFERENCES"), "it is there before the first change");
        target.execute(DATABASE, "ALTER TABLE children DROP FOREIGN KEY of_parent").await;
        work.finish_constraints(&HashSet::from([TableName::new(DATABASE, "parents")]), &halt).await.unwrap();
        assert!(!shown(&target, "children").await.contains("REFERENCES"), "it refers to what is absent");
        work.finish_constraints(&HashSet::new(), &halt).await.unwrap();
        // And again, as after a crash, with something missing.
        target.execute(DATABASE, "ALTER TABLE children DROP FOREIGN KEY of_parent, DROP KEY by_price").await;
        let work = Schema::of(&job, &plan, &progress);
        work.create_tables(&halt).await.unwrap();
        work.build_keys_and_indexes(&halt).await.unwrap();
        work.finish_constraints(&HashSet::new(), &halt).await.unwrap();
        for table in ["parents", "children", "parts"] {
            assert_eq!(sorted(&shown(&target, table).await), sorted(&shown(&source, table).await));
        }
        let left = work.not_carried().await.unwrap();
        for wanted in ["trigger shop.fires: what it does comes with the stream", "view shop.seen"] {
            assert!(left.iter().any(|line| line.starts_with(wanted)), "{wanted} is not in {left:#?}");
        }

        // Through a rule: other names, a column that does not travel.
        let rule = "[[transform]]\nmatch = \"shop.children\"\ncolumns = [\"!secret\", \"!words\"]\n\
                    rename = { schema = \"far\", table = \"kids\", columns = { id = \"number\", parent = \"of\" } }";
        let job = self::job(&source, &target.url(DATABASE), rule);
        let plan = job.plan().await.unwrap();
        let work = Schema::of(&job, &plan, &progress);
        work.create_tables(&halt).await.unwrap();
        work.build_keys_and_indexes(&halt).await.unwrap();
        work.finish_constraints(&HashSet::new(), &halt).await.unwrap();
        let made = shown(&target, "far.kids").await;
        for wanted in [
            "PRIMARY KEY (`number`)",
            "DEFAULT 'KEY `id` (x), it''s \\\\' COMMENT 'CONSTRAINT `x` FOREIGN KEY (`id`), ),('",
            "FOREIGN KEY (`of`) REFERENCES `shop`.`parents` (`Id`) ON DELETE CASCADE",
            "`number` * 2",
            "'`id`'",
        ] {
            assert!(made.contains(wanted), "{wanted} is not in {made}");
        }
        assert!(!made.contains("secret") && !made.contains("words"), "{made}");
        let left = work.not_carried().await.unwrap();
        let lost = "index by_words of shop.children: words does not travel";
        assert!(left.iter().any(|line| line == lost), "{left:#?}");
    }
}

/// The lines of a definition regardless of their order: what was built later stands behind.
fn sorted(definition: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = definition.lines().map(|line| line.trim_end_matches(',')).collect();
    lines.sort_unstable();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn between_two_flavours_what_the_other_does_not_know_is_told() {
    let test = "schema between two flavours";
    let Some(mysql) = my_server(Flavour::MySql, MyOptions::new(), test).await else { return };
    let Some(mariadb) = my_server(Flavour::MariaDb, MyOptions::new().setting("server-id", "2"), test).await else {
        return;
    };
    for (source, target) in [(&mysql, &mariadb), (&mariadb, &mysql)] {
        run_sql(source, "DROP DATABASE shop;\nCREATE DATABASE shop;\nUSE shop").await;
        run_sql(source, include_str!("engines/alike.sql")).await;
        if source.flavour() == Flavour::MySql {
            source.execute(DATABASE, "ALTER TABLE parents ADD KEY low ((lower(code)))").await;
        }
        target.execute("", "DROP DATABASE shop").await;
        let job = job(source, &target.url(""), "");
        let (plan, progress, halt) = (job.plan().await.unwrap(), Arc::new(Progress::new()), CancellationToken::new());
        let work = Schema::of(&job, &plan, &progress);
        work.create_tables(&halt).await.unwrap();
        work.build_keys_and_indexes(&halt).await.unwrap();
        work.finish_constraints(&HashSet::new(), &halt).await.unwrap();
        let made = shown(target, "children").await;
        for wanted in ["by_price", "FOREIGN KEY (`parent`)", "positive", "STORED", "FULLTEXT"] {
            assert!(made.contains(wanted), "{wanted} is not in {made}");
        }
        let left = work.not_carried().await.unwrap().join("\n");
        if source.flavour() == Flavour::MySql {
            assert!(left.contains("index low of shop.parents: it is over an expression"), "{left}");
            assert!(left.contains("collation utf8mb4_0900_ai_ci of shop.children: it becomes utf8mb4_"), "{left}");
        }
    }
}

/// What a target is asked at the end, with the answers.
struct There {
    /// What the printed DDL has.
    ddl: &'static str,
    /// Foreign keys, columns that count by themselves, one index by name: what was made before, in and after the copy.
    made: [(&'static str, i64); 3],
    /// What is left of a migration after its teardown.
    left: &'static str,
}

const AT_POSTGRES: There = There {
    ddl: "CREATE TABLE \"public\".\"order_items\" (",
    made: [
        ("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace", 2),
        ("SELECT count(*) FROM pg_attribute WHERE attidentity = 'd' AND attrelid = 'public.orders'::regclass", 1),
        ("SELECT count(*) FROM pg_indexes WHERE indexname = 'orders_orders_account_id'", 1),
    ],
    left: "SELECT count(*) FROM pg_namespace WHERE nspname = 'cutwater'",
};

const AT_MYSQL: There = There {
    ddl: "CREATE TABLE `shop`.`order_items` (",
    made: [
        ("SELECT count(*) FROM information_schema.referential_constraints WHERE constraint_schema = 'shop'", 2),
        (
            "SELECT count(*) FROM information_schema.columns
              WHERE table_schema = 'shop' AND table_name = 'orders' AND extra = 'auto_increment'",
            1,
        ),
        (
            "SELECT count(*) FROM information_schema.statistics
              WHERE table_schema = 'shop' AND index_name = 'orders_account_id'",
            1,
        ),
    ],
    left: NO_DATABASE,
};

const NO_DATABASE: &str = "SELECT count(*) FROM information_schema.schemata WHERE schema_name = 'cutwater'";

/// A whole migration, killed at every stage while an application writes; the same command goes on. Then what the source
/// does to a table's definition stops it, and a teardown leaves nothing.
async fn a_migration_survives_and_proves<S: Engine, T: Engine>(there: There) {
    let test = "a migration between engines";
    if !S::is_here(test).await || !T::is_here(test).await {
        return;
    }
    let (source, target) = tokio::join!(S::start(), T::start());
    let (seed, _) = seed("engines");
    let stage = Stage::between(source, target, 24_000, 120.0, seed, SLOW).await;
    let checked = stage.cutwater.run(&["check"], PATIENCE).await.assert_code(0);
    assert!(checked.stdout.contains("Nothing was changed."), "{}", checked.stdout);
    let ddl = stage.cutwater.run(&["schema"], PATIENCE).await.assert_code(0).stdout;
    assert!(ddl.contains(there.ddl) && ddl.contains("FOREIGN KEY"), "{ddl}");

    for copied in [3_000, 12_000] {
        let mut run = stage.run_to("snapshot").await;
        wait_for("rows of the copy", PATIENCE, async || {
            let tables = stage.status().await["tables"].as_array().cloned().unwrap_or_default();
            tables.iter().filter_map(|table| table["rows"].as_i64()).sum::<i64>() >= copied
        })
        .await;
        run.kill9();
    }
    for phase in ["indexing", "catching-up"] {
        stage.run_to(phase).await.kill9();
    }
    for _ in 0..2 {
        let mut run = stage.run_to("streaming").await;
        stage.writes(150).await;
        run.kill9();
    }
    let run = stage.run_to("streaming").await;
    for (sql, number) in there.made {
        assert_eq!(stage.at_target(sql).await, number, "{sql}");
    }
    stage.writes(100).await;

    let Stage { source, target, from: _from, to: _to, cutwater, writer, .. } = stage;
    let (record, _) = writer.stop().await.unwrap();
    run.sigint();
    run.wait(PATIENCE).await.assert_code(0);
    cutwater.run(&["run", "--until", "caught-up"], PATIENCE).await.assert_code(0);
    assert_same::<S, T>(&source, &target).await;
    assert_holds(&target.url(), &source.url(), &record).await;
    let status = cutwater.status().await;
    assert_eq!((&status["divergences"], &status["dead_letters"]), (&0.into(), &0.into()), "{status}");

    let run = cutwater.start(&["run"]);
    let mut session = S::connect(&source.url()).await.unwrap();
    session.execute("ALTER TABLE orders ADD COLUMN forgotten int").await.unwrap();
    let stopped = run.wait(PATIENCE).await.assert_code(1);
    for part in ["ALTER TABLE orders ADD COLUMN forgotten int", "orders", "at "] {
        assert!(stopped.stderr.contains(part), "{part} is not in {}", stopped.stderr);
    }
    cutwater.run(&["teardown"], PATIENCE).await.assert_code(0);
    assert_eq!(session.numbers(NO_DATABASE).await.unwrap(), [0]);
    let mut at_target = T::connect(&target.url()).await.unwrap();
    assert_eq!(at_target.numbers(there.left).await.unwrap(), [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn from_mysql_to_postgres_nothing_is_lost() {
    a_migration_survives_and_proves::<MySql, Postgres>(AT_POSTGRES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_mariadb_to_postgres_nothing_is_lost() {
    a_migration_survives_and_proves::<MariaDb, Postgres>(AT_POSTGRES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_mysql_to_mysql_nothing_is_lost() {
    a_migration_survives_and_proves::<MySql, MySql>(AT_MYSQL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_purged_is_named_and_nothing_is_skipped() {
    for flavour in BOTH {
        let Some(source) = my_server(flavour, MyOptions::new(), "a purged log").await else { continue };
        let target = one().await;
        source.execute(DATABASE, "CREATE TABLE t (id int PRIMARY KEY)").await;
        source.execute(DATABASE, "INSERT INTO t VALUES (1)").await;
        let cutwater = Cutwater::new(&source.url(DATABASE), &target.url());
        cutwater.run(&["run", "--until", "caught-up"], PATIENCE).await.assert_code(0);
        source.execute(DATABASE, "INSERT INTO t VALUES (2)").await;
        source.execute(DATABASE, "FLUSH BINARY LOGS").await;
        let mut session = source.connect(DATABASE).await;
        // A file that the run's reader had open is kept until its server has noticed that it is gone.
        wait_for("the purge", PATIENCE, async || {
            let files = session.rows("SHOW BINARY LOGS").await.unwrap();
            let newest = files.last().unwrap()[0].clone().unwrap();
            session.execute(format!("PURGE BINARY LOGS TO '{newest}'")).await.unwrap();
            session.rows("SHOW BINARY LOGS").await.unwrap().len() == 1
        })
        .await;
        let ended = cutwater.run(&["run"], PATIENCE).await.assert_code(1);
        let told = ["purged", "log begins after"].iter().any(|words| ended.stderr.contains(words));
        assert!(told && ended.stderr.contains("teardown"), "{}", ended.stderr);
        assert_eq!(target.value::<i64>("SELECT count(*) FROM t").await, 1);
    }
}

/// MariaDB's log says nothing of the rows that a foreign key removes or changes (TRAPS 14), whenever that is.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_foreign_key_does_while_rows_are_copied_is_done_at_the_target_too() {
    let start = || my_server(Flavour::MariaDb, MyOptions::new(), "foreign keys in the copy");
    let (Some(source), Some(target)) = tokio::join!(start(), start()) else { return };
    let tables = "CREATE TABLE parent (id int PRIMARY KEY, v int);
        CREATE TABLE child (id int PRIMARY KEY, parent int, CONSTRAINT gone FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE);
        CREATE TABLE grandchild (id int PRIMARY KEY, child int,
            CONSTRAINT nulled FOREIGN KEY (child) REFERENCES child (id) ON DELETE SET NULL ON UPDATE CASCADE);
        INSERT INTO parent WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 900) SELECT i, 0 FROM n;
        INSERT INTO child SELECT id, id FROM parent;
        INSERT INTO grandchild SELECT id, id FROM child";
    source.execute(DATABASE, tables).await;
    let cutwater = Cutwater::new(&source.url(DATABASE), &target.url(DATABASE))
        .and("[snapshot]\nmax_rows_per_second = 300\nchunk_rows = 100\nworkers = 1\n");
    let mut run = cutwater.start(&["run"]);
    wait_for("the copy", PATIENCE, async || {
        assert!(run.is_running(), "{}", run.stderr());
        cutwater.run(&["status", "--json"], PATIENCE).await.json()["phase"] == "snapshot"
    })
    .await;
    source
        .execute(DATABASE, "DELETE FROM parent WHERE id <= 100; UPDATE child SET id = id + 5000 WHERE id > 800")
        .await;
    wait_for("the stream", PATIENCE, async || {
        cutwater.run(&["status", "--json"], PATIENCE).await.json()["phase"] == "streaming"
    })
    .await;
    source.execute(DATABASE, "DELETE FROM parent WHERE id BETWEEN 101 AND 110").await;
    run.sigint();
    run.wait(PATIENCE).await.assert_code(0);
    cutwater.run(&["run", "--until", "caught-up"], PATIENCE).await.assert_code(0);
    for table in ["parent", "child", "grandchild"] {
        let dump = |server: &LocalMySql| {
            let url = server.url(DATABASE);
            async move { MariaDb::dump(&url, table).await }
        };
        compare::compare(table, dump(&source).await, dump(&target).await).await;
    }
}
