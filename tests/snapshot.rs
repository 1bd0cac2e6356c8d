//! Existing rows come over exactly, also after the copy was stopped in the middle.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cutwater::config::{Config, SnapshotConfig};
use cutwater::error::{Kind, Result};
use cutwater::pipeline::build::SchemaWork;
use cutwater::pipeline::progress::Progress;
use cutwater::pipeline::snapshot;
use cutwater::pipeline::steering::Steering;
use cutwater::postgres::ConnInfo;
use cutwater::schema::{Patterns, TableName};
use cutwater::source::postgres::PgSource;
use cutwater::source::{Snapshot, Source};
use cutwater::target::Target;
use cutwater::target::postgres::PgTarget;
use cutwater::target::state::LeaseOutcome;
use cutwater::target::state::{Lease, NewTable, TableStage, TableState};
use cutwater::transform::Plan;
use support::{Database, assert_equal, pair, wait_for};
use tokio_util::sync::CancellationToken;

const SHOP: &str = include_str!("snapshot/shop.sql");
/// Rows for it: two tables large enough for parts, values that only travel as text (composites), partitions, odd names.
const ROWS: &str = include_str!("snapshot/rows.sql");
const TABLES: [&str; 8] = [
    "app.customers",
    "app.orders",
    "app.events",
    "\"Odd Schema\".\"we\"\"ird Table; Type: X\"",
    "app.nokey",
    "app.uniq",
    "app.excl",
    "app.secret",
];

/// A migration at the point where its rows are to be copied.
struct Migration {
    config: Config,
    source: PgSource,
    target: PgTarget,
    plan: Plan,
    progress: Arc<Progress>,
}

impl Migration {
    async fn new(source: &Database, target: &Database, name: &str, snapshot: SnapshotConfig) -> Migration {
        let mut config: Config = toml::from_str(&format!(
            "[migration]\nname = \"{name}\"\n[source]\nurl = \"{}\"\n[target]\nurl = \"{}\"",
            source.url(),
            target.url()
        ))
        .unwrap();
        config.snapshot = snapshot;
        let source = PgSource::new(ConnInfo::parse(&config.source.url).unwrap(), name);
        let target = PgTarget::new(ConnInfo::parse(&config.target.url).unwrap(), name);
        let tables = source.tables(&Patterns::default()).await.unwrap();
        let plan = Plan::compile(&[], &tables).unwrap();
        let migration = Migration { config, source, target, plan, progress: Arc::new(Progress::new()) };
        let state = migration.target.state();
        state.install().await.unwrap();
        let identity = migration.source.identity().await.unwrap();
        state.begin("", &identity, &migration.source.label(), &migration.target.label()).await.unwrap();
        let lease = migration.lease().await;
        let rows: Vec<_> = migration
            .plan
            .tables()
            .map(|t| NewTable {
                source: t.source.name.clone(),
                target: t.shaped.name.clone(),
                rows: t.source.estimated_rows as i64,
                bytes: t.source.bytes as i64,
                rule: String::new(),
            })
            .collect();
        state.add_tables(&lease, &rows).await.unwrap();
        migration.work().create_tables(&CancellationToken::new()).await.unwrap();
        migration.source.prepare(&tables).await.unwrap();
        migration
    }

    fn work(&self) -> SchemaWork<'_> {
        SchemaWork::new(&self.config, &self.plan, &self.progress)
    }

    async fn lease(&self) -> Lease {
        match self.target.state().take_lease("test", Duration::from_secs(60), |_| false).await.unwrap() {
            LeaseOutcome::Taken(lease) => lease,
            LeaseOutcome::Held(by) => panic!("held by {by}"),
        }
    }

    async fn copy(&self, snapshot: &Arc<impl Snapshot>, halt: &CancellationToken) -> Result<()> {
        let lease = self.lease().await;
        self.progress.begin(&self.states().await);
        let steering = Arc::new(Steering::new(&self.config));
        snapshot::copy(&self.target, snapshot, &self.plan, &lease, &steering, &self.progress, halt).await.map(drop)
    }

    async fn states(&self) -> Vec<TableState> {
        self.target.state().tables().await.unwrap()
    }
}

fn small_parts() -> SnapshotConfig {
    SnapshotConfig { workers: 4, chunk_rows: 700, ..SnapshotConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_comes_over_once_and_the_position_is_recorded() {
    let (source, target) = pair().await;
    source.execute(SHOP).await;
    source.execute(ROWS).await;
    source.execute("ANALYZE").await;
    let migration = Migration::new(&source, &target, "whole", small_parts()).await;
    let snapshot = Arc::new(migration.source.create_slot().await.unwrap());
    // After the snapshot's position: not part of the copy.
    source
        .execute("BEGIN; SET LOCAL session_replication_role = replica; DELETE FROM app.orders WHERE id = 7; COMMIT")
        .await;
    migration.copy(&snapshot, &CancellationToken::new()).await.unwrap();
    let seven: i64 = target.value("SELECT count(*) FROM app.orders WHERE id = 7").await;
    assert_eq!(seven, 1);
    source.execute("INSERT INTO app.orders SELECT 7, 7, '2024-01-07', 7, NULL").await;
    target
        .execute("DELETE FROM app.orders WHERE id = 7; INSERT INTO app.orders SELECT 7, 7, '2024-01-07', 7, NULL")
        .await;
    assert_equal(&source.url(), &target.url(), &TABLES).await;
    for state in migration.states().await {
        assert_eq!(
            (state.stage, state.copied_at.as_ref()),
            (TableStage::Copied, Some(snapshot.position())),
            "{}",
            state.source
        );
        let counted: i64 = target.value(&format!("SELECT count(*) FROM {}", state.target.sql())).await;
        assert_eq!(state.rows_copied, counted, "{}", state.source);
    }
    // Keys, indexes and constraints fit what was copied.
    let (work, halt) = (migration.work(), CancellationToken::new());
    work.build_keys_and_indexes(&halt).await.unwrap();
    work.finish_constraints(&std::collections::HashSet::new(), &halt).await.unwrap();
    migration.source.teardown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_stopped_between_two_parts_goes_on_exactly() {
    let (source, target) = pair().await;
    source.execute("CREATE TABLE small (id int PRIMARY KEY); INSERT INTO small SELECT generate_series(1, 10)").await;
    source
        .execute(
            "CREATE TABLE big (id int PRIMARY KEY, pad text);
             INSERT INTO big SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 20000) i; ANALYZE",
        )
        .await;
    let config =
        SnapshotConfig { workers: 2, chunk_rows: 1_000, max_rows_per_second: Some(4_000), ..SnapshotConfig::default() };
    let mut migration = Migration::new(&source, &target, "stopped", config).await;
    let snapshot = Arc::new(migration.source.create_slot().await.unwrap());
    let first_position = snapshot.position().clone();
    let halt = CancellationToken::new();
    let stop = halt.clone();
    let (url, progress) = (target.url(), Arc::clone(&migration.progress));
    let stopper = async {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        // Some parts are durable, the others are not, and the small table is done.
        wait_for("some parts to be durable", Duration::from_secs(30), async || {
            let row = client.query_one("SELECT count(*) FROM big", &[]).await.unwrap();
            let small = progress.table(&TableName::new("public", "small"));
            let done = small.is_some_and(|small| small.stage() == TableStage::Copied);
            row.get::<_, i64>(0) > 0 && done
        })
        .await;
        stop.cancel();
    };
    let (copied, ()) = tokio::join!(migration.copy(&snapshot, &halt), stopper);
    assert_eq!(copied.expect_err("it was stopped").kind(), Kind::Interrupted);
    drop(snapshot);
    let half: i64 = target.value("SELECT count(*) FROM big").await;
    assert!(half > 0 && half < 20_000, "{half} rows");
    // What the parts of two snapshots together would get wrong: rows that move, vanish and appear in between.
    source.execute("DELETE FROM big WHERE id % 7 = 0; UPDATE big SET id = id + 100000 WHERE id % 5 = 0").await;
    source.execute("INSERT INTO small VALUES (11)").await;
    migration.config.snapshot.max_rows_per_second = None;
    let snapshot = Arc::new(migration.source.temporary_snapshot().await.unwrap());
    migration.copy(&snapshot, &CancellationToken::new()).await.unwrap();
    assert_equal(&source.url(), &target.url(), &["public.big"]).await;
    let small: i64 = target.value("SELECT count(*) FROM small").await;
    assert_eq!(small, 10, "a finished table stays as it was copied; the stream brings what is new");
    for state in migration.states().await {
        let expected = if state.source.table == "small" { &first_position } else { snapshot.position() };
        assert_eq!(state.copied_at.as_ref(), Some(expected), "{}", state.source);
    }
    migration.source.teardown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_throttle_holds_over_all_workers() {
    let (source, target) = pair().await;
    source
        .execute(
            "CREATE TABLE a (id int PRIMARY KEY, pad text); CREATE TABLE b (id int PRIMARY KEY, pad text);
             INSERT INTO a SELECT i, repeat(md5(i::text), 40) FROM generate_series(1, 3000) i;
             INSERT INTO b SELECT * FROM a; ANALYZE",
        )
        .await;
    let config =
        SnapshotConfig { workers: 4, chunk_rows: 1_000, max_rows_per_second: Some(3_000), ..SnapshotConfig::default() };
    let migration = Migration::new(&source, &target, "throttle", config).await;
    let snapshot = Arc::new(migration.source.create_slot().await.unwrap());
    let begun = Instant::now();
    migration.copy(&snapshot, &CancellationToken::new()).await.unwrap();
    // 6,000 rows at 3,000 a second, less the last chunk (256 KiB, about 200 rows), which only waits for those before it.
    assert!(begun.elapsed() >= Duration::from_millis(1_800), "{:?}", begun.elapsed());
    assert_equal(&source.url(), &target.url(), &["public.a", "public.b"]).await;
    migration.source.teardown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_changed_since_the_plan_is_named() {
    let (source, target) = pair().await;
    source.execute("CREATE TABLE t (id int PRIMARY KEY, a text, b int)").await;
    let migration = Migration::new(&source, &target, "changed", SnapshotConfig::default()).await;
    snapshot::check_unchanged(&migration.source, &migration.plan).await.unwrap();
    source.execute("ALTER TABLE t ADD COLUMN c int").await;
    let error = snapshot::check_unchanged(&migration.source, &migration.plan).await.expect_err("it changed");
    assert_eq!(error.kind(), Kind::Schema);
    assert!(error.message().contains("public.t") && error.message().contains("column \"c\" was added"), "{error}");
    // And a column that went is found by the copy itself, which leaves the table with its error and goes on without it.
    source.execute("ALTER TABLE t DROP COLUMN b").await;
    let snapshot = Arc::new(migration.source.create_slot().await.unwrap());
    migration.copy(&snapshot, &CancellationToken::new()).await.unwrap();
    let failed = &migration.states().await[0];
    assert_eq!(failed.stage, TableStage::Failed);
    assert!(failed.error.as_ref().is_some_and(|error| error.contains("column \"b\" does not exist")), "{failed:?}");
    migration.source.teardown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_copied_in_one_piece_is_frozen_and_one_in_parts_is_not() {
    let (source, target) = pair().await;
    source
        .execute(
            "CREATE TABLE whole (id int PRIMARY KEY, v text); INSERT INTO whole SELECT i, 'v' FROM generate_series(1, 600) i;
             CREATE TABLE parts (id int PRIMARY KEY, v text); INSERT INTO parts SELECT i, 'v' FROM generate_series(1, 5000) i;
             CREATE TABLE divided (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
             CREATE TABLE divided_1 PARTITION OF divided DEFAULT; INSERT INTO divided SELECT i, 'v' FROM generate_series(1, 600) i;
             ANALYZE",
        )
        .await;
    let migration = Migration::new(&source, &target, "freeze", small_parts()).await;
    let snapshot = Arc::new(migration.source.create_slot().await.unwrap());
    migration.copy(&snapshot, &CancellationToken::new()).await.unwrap();
    target.execute("CREATE EXTENSION pageinspect").await;
    // HEAP_XMIN_FROZEN is both HEAP_XMIN_COMMITTED and HEAP_XMIN_INVALID (src/include/access/htup_details.h).
    let frozen = async |table: &str| -> bool {
        target
            .value(&format!("SELECT bool_and(t_infomask & 768 = 768) FROM heap_page_items(get_raw_page('{table}', 0))"))
            .await
    };
    assert!(frozen("whole").await, "what nobody can see before its transaction's end need not be written again");
    assert!(
        !frozen("parts").await && !frozen("divided_1").await,
        "FREEZE is for the transaction that emptied the table"
    );
    assert_equal(&source.url(), &target.url(), &["public.whole", "public.parts", "public.divided"]).await;
    migration.source.teardown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_copied_is_free_while_others_are_still_copied() {
    let (source, target) = pair().await;
    source
        .execute(
            "CREATE TABLE first (id int PRIMARY KEY, pad text);
             INSERT INTO first SELECT i, repeat('x', 1900) FROM generate_series(1, 1200) i;
             CREATE TABLE second (id int PRIMARY KEY, pad text);
             INSERT INTO second SELECT i, repeat('x', 600) FROM generate_series(1, 3000) i; ANALYZE",
        )
        .await;
    let config = SnapshotConfig { workers: 1, chunk_rows: 100_000, max_rows_per_second: Some(400), resume_rows: 0 };
    let migration = Arc::new(Migration::new(&source, &target, "free", config).await);
    let snapshot = Arc::new(migration.source.create_slot().await.unwrap());
    let copying = tokio::spawn({
        let (migration, snapshot) = (Arc::clone(&migration), Arc::clone(&snapshot));
        async move { migration.copy(&snapshot, &CancellationToken::new()).await }
    });
    // The one with more bytes goes first, the one with more rows takes longer under the throttle.
    wait_for("the first table's end", Duration::from_secs(60), async || {
        migration.states().await.iter().any(|table| table.stage == TableStage::Copied)
    })
    .await;
    source.execute("SET lock_timeout = '1s'; ALTER TABLE first ADD COLUMN v text").await;
    assert!(!copying.is_finished(), "the copy was over before the claim was tried");
    copying.await.unwrap().unwrap();
    migration.source.teardown().await.unwrap();
}
