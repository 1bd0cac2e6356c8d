//! Migrations between engines, with the real binary on real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

mod support;

use std::collections::HashSet;
use std::sync::Arc;

use cutwater::config::{Config, Url};
use cutwater::error::Kind;
use cutwater::mysql::{Flavour, MyConnInfo};
use cutwater::pipeline::Job;
use cutwater::pipeline::progress::Progress;
use cutwater::pipeline::schema::Schema;
use cutwater::postgres::ConnInfo;
use cutwater::schema::TableName;
use cutwater::source::AnySource;
use cutwater::source::mysql::MySource;
use cutwater::target::AnyTarget;
use cutwater::target::postgres::PgTarget;
use support::mysql::DATABASE;
use support::{Database, LocalMySql, MyOptions, my_server, one};
use tokio_util::sync::CancellationToken;

const BOTH: [Flavour; 2] = [Flavour::MySql, Flavour::MariaDb];

/// Runs the statements of a file.
async fn run_sql(server: &LocalMySql, text: &str) {
    let mut session = server.connect(DATABASE).await;
    for statement in text.split(";\n").filter(|sql| !sql.trim().is_empty()) {
        session.execute(statement).await.unwrap_or_else(|error| panic!("{error}\nin: {statement}"));
    }
}

fn job(source: &LocalMySql, target: &Database, more: &str) -> Job {
    let config: Config = toml::from_str(&format!(
        "[migration]\nname = \"shop\"\n[source]\nurl = \"{}\"\n[target]\nurl = \"{}\"\n{more}",
        source.url(DATABASE),
        target.url()
    ))
    .unwrap();
    let from = MySource::new(MyConnInfo::parse(&Url::new(source.url(DATABASE))).unwrap(), "shop");
    let to = PgTarget::new(ConnInfo::parse(&config.target.url).unwrap(), &config.migration.name);
    Job { config, source: AnySource::MySql(from), target: AnyTarget::Postgres(to), mends: false }
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
        let job = job(&source, &target, "");
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
    let job = job(&source, &target, "[[transform]]\nmatch = \"shop.orders\"\nrename = { table = \"bestellung\" }");
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
