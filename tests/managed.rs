//! Where Postgres really runs: roles that are no superusers, databases that belong to somebody else.
#![allow(clippy::unwrap_used, dead_code, reason = "in a test a panic is the report; support is shared")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use support::{Cutwater, Database, Running};
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(180);

/// Foreign keys that cascade, refer to themselves, form a cycle, hang on a partitioned table; triggers that write and
/// that change what is written; a rule; a deferrable unique constraint. Doing any of it twice leaves a trace.
const LINKED: &str = r#"
    CREATE SCHEMA shop;
    CREATE TABLE shop.customer (id int PRIMARY KEY, boss int REFERENCES shop.customer ON DELETE CASCADE, name text);
    CREATE TABLE shop.item (id int PRIMARY KEY, version int NOT NULL DEFAULT 0,
        customer int REFERENCES shop.customer ON DELETE CASCADE ON UPDATE CASCADE);
    CREATE TABLE shop.line (id int PRIMARY KEY, item int REFERENCES shop.item ON DELETE SET NULL, note text);
    CREATE TABLE shop.event (id int, day int, customer int REFERENCES shop.customer ON DELETE CASCADE,
        PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
    CREATE TABLE shop.event_1 PARTITION OF shop.event FOR VALUES FROM (0) TO (10);
    CREATE TABLE shop.event_2 PARTITION OF shop.event FOR VALUES FROM (10) TO (20);
    CREATE TABLE shop.egg (id int PRIMARY KEY, hen int);
    CREATE TABLE shop.hen (id int PRIMARY KEY, egg int NOT NULL REFERENCES shop.egg DEFERRABLE INITIALLY DEFERRED);
    ALTER TABLE shop.egg ADD CONSTRAINT egg_hen FOREIGN KEY (hen) REFERENCES shop.hen DEFERRABLE INITIALLY DEFERRED;
    CREATE TABLE shop.seat (id int PRIMARY KEY, place int NOT NULL UNIQUE DEFERRABLE, label text UNIQUE);
    CREATE TABLE shop.audit (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text);
    CREATE TABLE shop.guest (id int PRIMARY KEY, host int);
    INSERT INTO shop.guest VALUES (1, 999999);
    ALTER TABLE shop.guest ADD CONSTRAINT guest_host FOREIGN KEY (host) REFERENCES shop.customer NOT VALID;
    INSERT INTO shop.customer SELECT i, nullif(i / 10, 0), 'c' || i FROM generate_series(1, 500) i;
    INSERT INTO shop.item (id, customer) SELECT i, 1 + i % 500 FROM generate_series(1, 2000) i;
    INSERT INTO shop.line SELECT i, 1 + i % 2000, 'l' || i FROM generate_series(1, 3000) i;
    INSERT INTO shop.event SELECT i, i % 20, 1 + i % 500 FROM generate_series(1, 1000) i;
    INSERT INTO shop.egg SELECT i, NULL FROM generate_series(1, 100) i;
    INSERT INTO shop.seat SELECT i, i, 's' || i FROM generate_series(1, 100) i;
    CREATE FUNCTION shop.note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO shop.audit (what) VALUES (TG_OP || ' ' || TG_TABLE_NAME); RETURN NULL; END $$;
    CREATE FUNCTION shop.count_up() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN NEW.version := NEW.version + 1; RETURN NEW; END $$;
    CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON shop.item FOR EACH ROW EXECUTE FUNCTION shop.note();
    CREATE TRIGGER count_up BEFORE INSERT OR UPDATE ON shop.item FOR EACH ROW EXECUTE FUNCTION shop.count_up();
    COMMENT ON TRIGGER note ON shop.item IS 'writes';
    CREATE RULE greet AS ON INSERT TO shop.guest DO ALSO INSERT INTO shop.audit (what) VALUES ('guest');
"#;

const TABLES: [&str; 9] = [
    "shop.customer",
    "shop.item",
    "shop.line",
    "shop.event",
    "shop.egg",
    "shop.hen",
    "shop.seat",
    "shop.audit",
    "shop.guest",
];

/// A role of this name at both ends, without any right.
async fn roles(source: &Database, target: &Database) -> String {
    let role = format!("cw_{}", source.name);
    for end in [source, target] {
        end.execute(&format!("CREATE ROLE {role} LOGIN")).await;
    }
    role
}

fn migration(source: &Database, target: &Database, role: &str, more: &str) -> Cutwater {
    let url = |end: &Database| end.server.url(role, &end.name);
    Cutwater::with_config(&format!(
        "[migration]\nname = \"{}\"\n\n[target]\nurl = \"{}\"\n\n[source]\nurl = \"{}\"\n{more}\n",
        source.name,
        url(target),
        url(source)
    ))
}

/// Writes at random until it is refused or stopped; returns how many transactions committed.
fn writer(source: &Arc<Database>, stop: &CancellationToken) -> tokio::task::JoinHandle<u64> {
    let (source, stop) = (Arc::clone(source), stop.clone());
    let mut rng = support::rng();
    tokio::spawn(async move {
        let client = source.connect().await;
        let mut committed = 0;
        let mut next = 10_000;
        while !stop.is_cancelled() {
            next += 1;
            let (some, place) = (rng.random_range(1..500), rng.random_range(1..100));
            let sql = match rng.random_range(0..9) {
                0 => format!("DELETE FROM shop.customer WHERE id = {some}"),
                1 => format!(
                    "INSERT INTO shop.customer VALUES ({next}, {some}, 'new'); INSERT INTO shop.item (id, customer) VALUES ({next}, {next})"
                ),
                2 => format!("UPDATE shop.item SET customer = {some} WHERE id % 500 = {some}"),
                // A parent goes and its children have moved to another in the same transaction.
                3 => format!(
                    "UPDATE shop.item SET customer = (SELECT min(id) FROM shop.customer) WHERE customer = {some}; DELETE FROM shop.customer WHERE id = {some} AND id > 1"
                ),
                4 => format!("UPDATE shop.seat SET place = 101 - place WHERE place IN ({place}, 101 - {place})"),
                5 => format!(
                    "INSERT INTO shop.hen VALUES ({next}, {next}); INSERT INTO shop.egg VALUES ({next}, {next})"
                ),
                6 => format!("DELETE FROM shop.item WHERE id = {some}"),
                7 => format!(
                    "UPDATE shop.customer SET id = {next} WHERE id = {some} AND NOT EXISTS (SELECT FROM shop.customer c WHERE c.boss = {some}) AND NOT EXISTS (SELECT FROM shop.event e WHERE e.customer = {some})"
                ),
                _ => format!(
                    "INSERT INTO shop.event SELECT {next}, {next} % 20, min(id) FROM shop.customer; INSERT INTO shop.guest SELECT {next}, min(id) FROM shop.customer"
                ),
            };
            match client.batch_execute(&format!("BEGIN; {sql}; COMMIT")).await {
                Ok(()) => committed += 1,
                Err(error) => {
                    client.batch_execute("ROLLBACK").await.unwrap();
                    let text = format!("{error:?}");
                    if text.contains("cutwater") || text.contains("cut over") {
                        return committed;
                    }
                    // A foreign key or a key that is taken: the source says no, and that is all.
                    assert!(error.code().is_some_and(|code| code.code().starts_with("23")), "{sql}: {text}");
                }
            }
        }
        committed
    })
}

async fn streaming(cutwater: &Cutwater, run: &mut Running) {
    support::wait_for("the stream", LONG, async || {
        assert!(run.is_running(), "the run ended:\n{}", run.stderr());
        let status = cutwater.run(&["status", "--json"], LONG).await;
        status.code == Some(0) && status.json()["phase"] == "streaming"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_keys_and_triggers_that_cannot_be_switched_off_are_made_at_the_cutover() {
    let (source, target) = support::pair().await;
    source.execute(LINKED).await;
    let role = roles(&source, &target).await;
    source.execute(&format!("ALTER ROLE {role} SUPERUSER")).await;
    target.execute(&format!("GRANT CREATE ON DATABASE {} TO {role}", target.name)).await;
    let source = Arc::new(source);
    let cutwater = migration(&source, &target, &role, "");

    let check = cutwater.run(&["check"], LONG).await.assert_code(0);
    assert!(
        check.stdout.contains("session_replication_role not permitted; 7 foreign keys and 2 triggers and 1 rule are added\n      after the copy, and cutover waits for them"),
        "{}",
        check.stdout
    );
    let stop = CancellationToken::new();
    let writes = writer(&source, &stop);
    let mut run = cutwater.start(&["run"]);
    streaming(&cutwater, &mut run).await;
    let none = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND connamespace = 'shop'::regnamespace";
    assert_eq!(target.value::<i64>(none).await, 0, "no foreign key while changes are applied");
    cutwater.run(&["verify"], LONG).await.assert_code(0);
    let cut = cutwater.run(&["cutover", "--max-lag", "20s", "--max-downtime", "60s"], LONG).await.assert_code(0);
    assert!(cut.stdout.contains("10 objects that had to wait made"), "{}", cut.stdout);
    assert!(writes.await.unwrap() > 50, "the writer hardly wrote");
    run.wait(LONG).await.assert_code(0);

    support::assert_equal(&source.url(), &target.url(), &TABLES).await;
    let definitions = "SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
        SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) || ' ' || convalidated AS line FROM pg_constraint
         WHERE contype = 'f' AND conparentid = 0 AND connamespace = 'shop'::regnamespace
        UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger
         WHERE NOT tgisinternal AND tgname !~ '^cutwater' AND tgrelid::regclass::text ~ '^shop'
        UNION ALL SELECT definition FROM pg_rules WHERE schemaname = 'shop') AS made";
    let (old, new): (String, String) = (source.value(definitions).await, target.value(definitions).await);
    assert_eq!(old, new, "what waited is there, and validated where the source's is");
    // And it acts: the customer takes the items along, each of which is noted.
    target.execute("INSERT INTO shop.customer VALUES (-1, NULL, 'x'); INSERT INTO shop.item (id, customer) VALUES (-1, -1); DELETE FROM shop.customer WHERE id = -1").await;
    assert_eq!(target.value::<i64>("SELECT count(*) FROM shop.item WHERE id = -1").await, 0);
}
