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
    // Copied again beside the stream, a parent and a table of triggers.
    target.execute("UPDATE shop.audit SET what = 'wrong'").await;
    cutwater
        .run(&["tables", "resync", "shop.customer", "shop.item", "shop.audit", "--wait"], LONG)
        .await
        .assert_code(0);
    assert_eq!(target.value::<i64>(none).await, 0, "nor after a table was copied again");
    cutwater.run(&["verify"], LONG).await.assert_code(0);
    let cut =
        cutwater.run(&["cutover", "--wait", "--max-lag", "20s", "--max-downtime", "60s"], LONG).await.assert_code(0);
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

/// The printed statements, run by an administrator of each end.
async fn grant_all(cutwater: &Cutwater, source: &Database, target: &Database) -> serde_json::Value {
    let grants = cutwater.run(&["check", "--grants", "--json"], LONG).await.assert_code(0).json();
    for (end, list) in [(source, &grants["source"]), (target, &grants["target"])] {
        for grant in list.as_array().unwrap() {
            end.execute(grant["sql"].as_str().unwrap()).await;
        }
    }
    grants
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_grants_are_all_that_a_migration_needs() {
    let (source, target) = support::pair().await;
    let role = roles(&source, &target).await;
    let owner = format!("{role}_app");
    // Everything belongs to the application; a table has policies; another is none of ours, and nobody's but the owner's.
    source
        .execute(&format!(
            "CREATE ROLE {owner} LOGIN; REVOKE ALL ON SCHEMA public FROM public;
             CREATE ROLE {role}_other; CREATE SCHEMA hidden AUTHORIZATION {role}_other;
             CREATE TABLE hidden.secret (id int PRIMARY KEY); ALTER TABLE hidden.secret OWNER TO {role}_other;
             GRANT CREATE ON DATABASE {} TO {owner}; SET ROLE {owner}; {LINKED}
             CREATE TABLE shop.mine (id int PRIMARY KEY, who text, amount numeric);
             INSERT INTO shop.mine SELECT i, 'x' || i % 3, i FROM generate_series(1, 300) i;
             ALTER TABLE shop.mine ENABLE ROW LEVEL SECURITY; ALTER TABLE shop.mine FORCE ROW LEVEL SECURITY;
             CREATE POLICY own ON shop.mine USING (who = current_user); RESET ROLE",
            source.name
        ))
        .await;
    target.execute("REVOKE ALL ON SCHEMA public FROM public").await;
    let cutwater = migration(&source, &target, &role, "tables = [\"shop.*\"]");
    let before = cutwater.run(&["check"], LONG).await.assert_code(3);
    for said in
        ["may not read", "cannot open a replication connection", "cannot publish the tables", "cannot make a schema"]
    {
        assert!(before.stdout.contains(said), "{said}\n{}", before.stdout);
    }
    grant_all(&cutwater, &source, &target).await;
    let after = cutwater.run(&["check", "-v"], LONG).await.assert_code(0);
    assert!(after.stdout.contains("foreign keys and triggers can be switched off"), "{}", after.stdout);
    assert!(after.stdout.contains("what is written can be marked with its origin"), "{}", after.stdout);

    let source = Arc::new(source);
    let stop = CancellationToken::new();
    let writes = writer(&source, &stop);
    let mut run = cutwater.start(&["run"]);
    streaming(&cutwater, &mut run).await;
    let origin =
        "SELECT count(*) FROM pg_replication_origin_status WHERE external_id = 'cutwater_' || current_database()";
    assert_eq!(target.value::<i64>(origin).await, 1, "what is applied carries its origin");
    cutwater.run(&["verify"], LONG).await.assert_code(0);
    cutwater.run(&["cutover", "--wait", "--max-lag", "20s", "--max-downtime", "60s"], LONG).await.assert_code(0);
    writes.await.unwrap();
    run.wait(LONG).await.assert_code(0);
    support::assert_equal(&source.url(), &target.url(), &TABLES).await;
    support::assert_equal(&source.url(), &target.url(), &["shop.mine"]).await;
    let security = "SELECT relrowsecurity AND relforcerowsecurity FROM pg_class WHERE oid = 'shop.mine'::regclass";
    assert!(target.value::<bool>(security).await, "row-level security is on, and binds the owner");
    cutwater.run(&["teardown", "--release-source"], LONG).await.assert_code(0);
    // Origins are the whole server's, which other tests share.
    let origins = "SELECT count(*) FROM pg_replication_origin
                    WHERE roname IN ('cutwater_' || current_database(), 'cutwater_' || current_database() || '.1')";
    assert_eq!(target.value::<i64>(origins).await, 0, "the origin is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_would_hide_rows_is_a_failure_and_never_a_filter() {
    let (source, target) = support::pair().await;
    let role = roles(&source, &target).await;
    source
        .execute(&format!(
            "CREATE TABLE mine (id int PRIMARY KEY, who text); INSERT INTO mine VALUES (1, 'a'), (2, '{role}');
             ALTER TABLE mine ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON mine USING (who = current_user);
             ALTER ROLE {role} REPLICATION; GRANT SELECT ON mine TO {role}"
        ))
        .await;
    target.execute(&format!("ALTER ROLE {role} SUPERUSER")).await;
    let cutwater = migration(&source, &target, &role, "");
    let check = cutwater.run(&["check"], LONG).await.assert_code(3);
    assert!(
        check
            .stdout
            .contains(&format!("row-level security hides rows of 1 table from role \"{role}\"\n      public.mine")),
        "{}",
        check.stdout
    );
    assert!(check.stdout.contains(&format!("ALTER ROLE \"{role}\" BYPASSRLS;")), "{}", check.stdout);
    let run = cutwater.run(&["run"], LONG).await.assert_code(1);
    assert!(run.stderr.contains("row-level security hides rows"), "{}", run.stderr);
    // Should a policy come up later: the session itself refuses to be filtered.
    let info = cutwater::postgres::ConnInfo::parse(&cutwater::config::Url::new(source.server.url(&role, &source.name)))
        .unwrap();
    let client = cutwater::postgres::connect(&info, "test").await.unwrap();
    let error = cutwater::error::Error::from(client.query("SELECT * FROM public.mine", &[]).await.unwrap_err());
    assert!(error.why().contains("row-level security policy for table \"mine\""), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_and_a_publication_of_the_administrator_are_used_and_left_alone() {
    let (source, target) = support::pair().await;
    let role = roles(&source, &target).await;
    source.execute(LINKED).await;
    let name = source.name.clone();
    let more = format!("slot = \"dba_{name}\"\npublication = \"Dba's {name}\"");
    let cutwater = migration(&source, &target, &role, &more);
    // Nothing is there; then what is there is not what is needed.
    source.execute(&format!("ALTER ROLE {role} REPLICATION; CREATE PUBLICATION \"Dba's {name}\" FOR TABLE shop.customer WITH (publish = 'insert')")).await;
    let check = cutwater.run(&["check"], LONG).await.assert_code(3);
    for said in [
        format!("there is no slot \"dba_{name}\""),
        format!("SELECT pg_create_logical_replication_slot('dba_{name}', 'pgoutput');"),
        "does not publish all four of insert, update, delete, truncate".to_owned(),
        "publishes partitions under their own names".to_owned(),
        format!("ALTER PUBLICATION \"Dba's {name}\" ADD TABLE cutwater.fence, shop.audit"),
    ] {
        assert!(check.stdout.contains(&said), "{said}\n{}", check.stdout);
    }
    source.execute(&format!("SELECT pg_create_logical_replication_slot('dba_{name}', 'test_decoding')")).await;
    let check = cutwater.run(&["check"], LONG).await.assert_code(3);
    assert!(check.stdout.contains(&format!("slot \"dba_{name}\" is of plugin test_decoding")), "{}", check.stdout);
    source.execute(&format!("SELECT pg_drop_replication_slot('dba_{name}')")).await;

    // The slot is older than much of what is written: what it holds from before the copy is not applied again.
    let grants = grant_all(&cutwater, &source, &target).await;
    assert!(!grants["source"].to_string().contains("CREATE ON DATABASE"), "{grants}");
    source
        .execute(
            "INSERT INTO shop.customer VALUES (20001, NULL, 'before the copy'); DELETE FROM shop.line WHERE id < 10",
        )
        .await;
    cutwater.run(&["check"], LONG).await.assert_code(0);
    let source = Arc::new(source);
    let stop = CancellationToken::new();
    let writes = writer(&source, &stop);
    let mut run = cutwater.start(&["run"]);
    streaming(&cutwater, &mut run).await;
    // Taken up again after a crash.
    run.kill9();
    let mut run = cutwater.start(&["run"]);
    streaming(&cutwater, &mut run).await;
    cutwater.run(&["verify"], LONG).await.assert_code(0);
    cutwater.run(&["cutover", "--wait", "--max-lag", "20s", "--max-downtime", "60s"], LONG).await.assert_code(0);
    writes.await.unwrap();
    run.wait(LONG).await.assert_code(0);
    support::assert_equal(&source.url(), &target.url(), &TABLES).await;
    cutwater.run(&["teardown", "--release-source"], LONG).await.assert_code(0);
    let left = format!(
        "SELECT (SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'dba_{name}')
                             + (SELECT count(*) FROM pg_publication WHERE pubname = $$Dba's {name}$$)"
    );
    assert_eq!(source.value::<i64>(&left).await, 2, "both are still there");
    source.execute(&format!("SELECT pg_drop_replication_slot('dba_{name}')")).await;
}

/// Rows and columns that a publication leaves out are in no stream, and the copy, which knows no publication, would have them.
#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_leaves_something_out_is_refused_at_the_start_and_in_mid_stream() {
    let (source, target) = support::pair().await;
    for table in ["a", "b", "c"] {
        source.execute(&format!("CREATE TABLE {table} (id int PRIMARY KEY, v text, w text)")).await;
    }
    let name = format!("dba_{}", source.name);
    source
        .execute(&format!(
            "CREATE SCHEMA cutwater; CREATE PUBLICATION {name} FOR TABLE a (id, v), b WHERE (id > 5), c
                 WITH (publish_via_partition_root = true)"
        ))
        .await;
    let cutwater = migration(&source, &target, "postgres", &format!("publication = \"{name}\""));
    let check = cutwater.run(&["check"], LONG).await.assert_code(3);
    for said in ["leaves out columns of public.a", "leaves out rows of public.b"] {
        assert!(check.stdout.contains(said), "{said}\n{}", check.stdout);
    }
    assert!(!check.stdout.contains("of public.c"), "{}", check.stdout);
    let run = cutwater.run(&["run", "--until", "caught-up"], LONG).await.assert_code(1);
    assert!(run.stderr.contains("leaves out"), "{}", run.stderr);

    source.execute(&format!("ALTER PUBLICATION {name} SET TABLE a, b, c")).await;
    grant_all(&cutwater, &source, &target).await;
    for (change, said) in [
        ("SET TABLE a, b, c WHERE (id > 5), cutwater.fence", "leaves out rows of public.c"),
        ("SET TABLE a, b (id, w), c, cutwater.fence", "leaves out columns of public.b"),
        ("SET (publish = 'insert, update, delete')", "does not publish all four of"),
    ] {
        let mut run = cutwater.start(&["run"]);
        streaming(&cutwater, &mut run).await;
        source.execute(&format!("ALTER PUBLICATION {name} {change}")).await;
        let ended = run.wait(LONG).await.assert_code(1);
        assert!(ended.stderr.contains(said), "{said}\n{}", ended.stderr);
        // Nor does another run pass over it.
        let again = cutwater.run(&["run", "--until", "caught-up"], LONG).await.assert_code(1);
        assert!(again.stderr.contains(said), "{said}\n{}", again.stderr);
        source
            .execute(&format!(
                "ALTER PUBLICATION {name} SET TABLE a, b, c, cutwater.fence;
                 ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate')"
            ))
            .await;
        // That it is whole again brings nothing back.
        let again = cutwater.run(&["run", "--until", "caught-up"], LONG).await.assert_code(1);
        assert!(again.stderr.contains("changes made meanwhile may not be in the stream"), "{}", again.stderr);
        cutwater.run(&["verify", "--repair"], LONG).await.assert_code(0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_role_do_not_bind_our_sessions() {
    let (source, target) = support::pair().await;
    source
        .execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 20000) i",
        )
        .await;
    let role = roles(&source, &target).await;
    for end in [&source, &target] {
        end.execute(&format!(
            "ALTER ROLE {role} SUPERUSER; ALTER ROLE {role} SET statement_timeout = '1ms';
             ALTER ROLE {role} SET idle_in_transaction_session_timeout = '1ms'; ALTER ROLE {role} SET lock_timeout = '1ms';
             ALTER ROLE {role} SET idle_session_timeout = '1ms'; ALTER ROLE {role} SET search_path = nowhere;
             ALTER ROLE {role} SET default_transaction_read_only = on; ALTER ROLE {role} SET DateStyle = 'German';
             ALTER ROLE {role} SET default_transaction_isolation = 'serializable'"
        ))
        .await;
    }
    let cutwater = migration(&source, &target, &role, "");
    cutwater.run(&["run", "--until", "caught-up"], LONG).await.assert_code(0);
    source.execute("UPDATE t SET v = 'w' WHERE id < 100").await;
    cutwater.run(&["run", "--until", "caught-up"], LONG).await.assert_code(0);
    support::assert_equal(&source.url(), &target.url(), &["public.t"]).await;
    cutwater.run(&["verify"], LONG).await.assert_code(0);
    // The application's own sessions would be read-only: the gate says so.
    let cut = cutwater.run(&["cutover", "--dry-run"], LONG).await.assert_code(3);
    assert!(cut.stdout.contains("the target's sessions are read-only by default"), "{}", cut.stdout);
    cutwater.run(&["teardown"], LONG).await.assert_code(0);

    // A database that is read-only is left so, and named.
    target.execute(&format!("ALTER DATABASE {} SET default_transaction_read_only = on; ALTER ROLE {role} RESET default_transaction_read_only", target.name)).await;
    let check = cutwater.run(&["check"], LONG).await.assert_code(3);
    assert!(check.stdout.contains("sessions are read-only (default_transaction_read_only)"), "{}", check.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_act_on_applied_changes_and_what_does_not_fit_is_named_with_its_statement() {
    let (source, target) = support::pair().await;
    let role = roles(&source, &target).await;
    source
        .execute(
            "CREATE TABLE p (id int PRIMARY KEY, name varchar(40)); CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p ON DELETE CASCADE);
             INSERT INTO p VALUES (1, 'a name of thirty characters ...'); INSERT INTO c VALUES (1, 1);
             CREATE UNLOGGED TABLE cache (id int); CREATE ROLE somebody_else; ALTER DATABASE postgres SET work_mem = '8MB';
             SELECT lo_create(0)",
        )
        .await;
    target
        .execute(&format!(
            "GRANT CREATE ON DATABASE {} TO {role}; GRANT ALL ON SCHEMA public TO {role}; SET ROLE {role};
             CREATE TABLE p (id int PRIMARY KEY, name varchar(20)); CREATE TABLE c (id int PRIMARY KEY, p int CONSTRAINT link REFERENCES p ON DELETE CASCADE);
             RESET ROLE",
            target.name
        ))
        .await;
    source.execute(&format!("ALTER ROLE {role} SUPERUSER")).await;
    let cutwater = migration(&source, &target, &role, "");
    let check = cutwater.run(&["check"], LONG).await.assert_code(3);
    for said in [
        "would act on the changes that are applied:\n      foreign key link of public.c",
        "ALTER TABLE \"public\".\"c\" DROP CONSTRAINT \"link\";",
        "public.p.name is character varying(20) there, character varying(40) at the source",
        "1 large object",
        "1 unlogged table (public.cache)",
        "replication origin not permitted",
    ] {
        assert!(check.stdout.contains(said), "{said}\n{}", check.stdout);
    }
    target.execute("ALTER TABLE c DROP CONSTRAINT link").await;
    // A column that is too narrow: named, nothing is cut.
    let run = cutwater.run(&["run", "--until", "caught-up"], LONG).await.assert_code(1);
    assert!(
        run.stderr.contains("public.p") && run.stderr.contains("too long for type character varying(20)"),
        "{}",
        run.stderr
    );
    target.execute("ALTER TABLE p ALTER name TYPE varchar(40)").await;
    cutwater.run(&["tables", "resync", "public.p"], LONG).await.assert_code(0);
    cutwater.run(&["run", "--until", "caught-up"], LONG).await.assert_code(0);
    // Made by somebody in the middle: refused before a change is applied under it.
    target.execute("ALTER TABLE c ADD CONSTRAINT link FOREIGN KEY (p) REFERENCES p ON DELETE CASCADE").await;
    let run = cutwater.run(&["run", "--until", "caught-up"], LONG).await.assert_code(1);
    assert!(run.stderr.contains("foreign key link of public.c would act on what is applied"), "{}", run.stderr);
    target.execute("ALTER TABLE c DROP CONSTRAINT link; DROP TABLE c").await;
    cutwater.run(&["teardown"], LONG).await.assert_code(0);
    target.execute(&format!("SET ROLE {role}; CREATE TABLE c (id int PRIMARY KEY); TRUNCATE p; RESET ROLE")).await;
    let check = cutwater.run(&["check"], LONG).await.assert_code(3);
    assert!(check.stdout.contains("public.c has no column \"p\""), "{}", check.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_key_that_would_not_hold_keeps_the_cutover_shut() {
    let (source, target) = support::pair().await;
    let role = roles(&source, &target).await;
    source
        .execute(&format!(
            "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY, p int CONSTRAINT link REFERENCES p);
             CREATE INDEX c_p ON c (p); INSERT INTO p VALUES (1); INSERT INTO c VALUES (1, 1);
             SET session_replication_role = replica; INSERT INTO c VALUES (7, 42); RESET session_replication_role;
             ALTER ROLE {role} SUPERUSER"
        ))
        .await;
    target
        .execute(&format!("GRANT CREATE ON DATABASE {} TO {role}; GRANT ALL ON SCHEMA public TO {role}", target.name))
        .await;
    let cutwater = migration(&source, &target, &role, "");
    let mut run = cutwater.start(&["run"]);
    streaming(&cutwater, &mut run).await;
    cutwater.run(&["verify"], LONG).await.assert_code(0);
    target.execute("DROP INDEX c_p").await;
    let shut = cutwater.run(&["cutover", "--dry-run"], LONG).await.assert_code(3);
    assert!(
        shut.stdout.contains("late-constraints  foreign key link of public.c: 42 has no parent"),
        "{}",
        shut.stdout
    );
    assert!(shut.stdout.contains("the source has, the target has not: index c_p of public.c"), "{}", shut.stdout);
    target.execute(&format!("SET ROLE {role}; CREATE INDEX elsewhere ON c (p); RESET ROLE")).await;
    source.execute("DELETE FROM c WHERE id = 7").await;
    cutwater.run(&["verify"], LONG).await.assert_code(0);
    let dry = cutwater.run(&["cutover", "--dry-run", "--max-lag", "20s"], LONG).await.assert_code(0);
    assert!(dry.stdout.contains("make 1 foreign key, which could not be there"), "{}", dry.stdout);
    let none = "SELECT count(*) FROM pg_constraint WHERE conname = 'link'";
    assert_eq!(target.value::<i64>(none).await, 0, "a rehearsal changes nothing");
    run.sigint();
    run.wait(LONG).await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_the_way_is_recognised_at_both_ends() {
    let (source, target) = support::pair().await;
    source.execute("CREATE TABLE t (id int PRIMARY KEY)").await;
    for pooled in [&source, &target] {
        let Some(pooler) = support::Pooler::start(pooled) else { return };
        support::wait_for("the pooler", LONG, async || {
            std::net::TcpStream::connect(("127.0.0.1", pooler.port())).is_ok()
        })
        .await;
        let through = format!("postgres://postgres@127.0.0.1:{}/{}", pooler.port(), pooled.name);
        let (cutwater, end) = match pooled.server.port() == source.server.port() {
            true => (Cutwater::new(&through, &target.url()), "source"),
            false => (Cutwater::new(&source.url(), &through), "target"),
        };
        let check = cutwater.run(&["check"], LONG).await.assert_code(3);
        assert!(check.stdout.contains(&format!("FAIL  {end}: a connection pooler is in the way")), "{}", check.stdout);
        let fix = format!("put the database server's own host and port into [{end}] url");
        assert!(check.stdout.contains(&fix), "{}", check.stdout);
        // Whatever is tried behind it fails for that reason, and says so.
        let run = cutwater.run(&["run", "--until", "caught-up"], LONG).await;
        assert_ne!(run.code, Some(0), "{}", run.stderr);
        assert!(run.stderr.contains("a connection pooler is in the way"), "{}", run.stderr);
    }
}
