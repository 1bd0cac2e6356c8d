//! The schema goes over: what the target has afterwards is what the source has.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

mod support;

use std::process::Command;
use std::sync::Arc;

use cutwater::config::{Config, TransformRule};
use cutwater::error::Kind;
use cutwater::pipeline::build::SchemaWork;
use cutwater::pipeline::progress::Progress;
use cutwater::postgres::ConnInfo;
use cutwater::schema::Patterns;
use cutwater::source::Source;
use cutwater::source::postgres::PgSource;
use cutwater::transform::Plan;
use support::{Database, pair};
use tokio_util::sync::CancellationToken;

const SHOP: &str = include_str!("snapshot/shop.sql");

fn config(source: &Database, target: &Database) -> Config {
    toml::from_str(&format!(
        "[migration]\nname = \"schema\"\n[source]\nurl = \"{}\"\n[target]\nurl = \"{}\"\n[snapshot]\nworkers = 3",
        source.url(),
        target.url()
    ))
    .unwrap()
}

async fn plan(config: &Config, patterns: &[&str], rules: &[TransformRule]) -> Plan {
    let source = PgSource::new(ConnInfo::parse(&config.source.url).unwrap(), "schema");
    let tables = source.tables(&Patterns::parse(patterns).unwrap()).await.unwrap();
    Plan::compile(rules, &tables).unwrap()
}

async fn build_all(work: &SchemaWork<'_>) {
    let halt = CancellationToken::new();
    work.create_tables(&halt).await.unwrap();
    work.build_keys_and_indexes(&halt).await.unwrap();
    work.finish_constraints(&std::collections::HashSet::new(), &halt).await.unwrap();
}

/// `pg_dump --schema-only` without what changes from run to run.
fn dump(database: &Database) -> String {
    let output = Command::new(database.server.programs().join("pg_dump"))
        .args(["--schema-only", "--no-owner", "--no-privileges", "--dbname", &database.url()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.starts_with('\\')).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_target_gets_the_schema_of_the_source() {
    let (source, target) = pair().await;
    source.execute(SHOP).await;
    let config = config(&source, &target);
    let (plan, progress) = (plan(&config, &[], &[]).await, Arc::new(Progress::new()));
    build_all(&SchemaWork::new(&config, &plan, &progress)).await;
    assert_eq!(dump(&source), dump(&target));
    let view = progress.view();
    assert!(view.indexes_total > 20);
    assert_eq!(view.indexes_done, view.indexes_total);
    // And again, as after a crash before the end was recorded: what is there stays, nothing is doubled.
    build_all(&SchemaWork::new(&config, &plan, &progress)).await;
    assert_eq!(dump(&source), dump(&target));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_left_out_stays_behind_with_all_that_needs_it() {
    let (source, target) = pair().await;
    source.execute(SHOP).await;
    let config = config(&source, &target);
    let (plan, progress) = (plan(&config, &["*.*", "!app.secret"], &[]).await, Arc::new(Progress::new()));
    let work = SchemaWork::new(&config, &plan, &progress);
    build_all(&work).await;
    source.execute("DROP TABLE app.secret CASCADE").await;
    assert_eq!(dump(&source), dump(&target));
    let lines = work.not_carried().await.unwrap().join("\n");
    assert!(lines.contains("view app.secret_view: needs app.secret, which is not migrated"), "{lines}");
    assert!(lines.contains("view app.secret_view2: needs app.secret_view, which is not carried over"), "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reshaped_table_is_made_by_our_own_ddl() {
    let (source, target) = pair().await;
    source.execute(SHOP).await;
    let rules: Vec<TransformRule> = vec![
        toml::from_str(
            "match = \"app.customers\"\ncolumns = [\"*\", \"!note\"]\n\
             rename = { schema = \"crm\", table = \"people\", columns = { mail = \"email\" } }",
        )
        .unwrap(),
    ];
    let config = config(&source, &target);
    let (plan, progress) = (plan(&config, &[], &rules).await, Arc::new(Progress::new()));
    let work = SchemaWork::new(&config, &plan, &progress);
    build_all(&work).await;
    let columns = support::columns_of(&target.url(), "crm.people").await;
    assert_eq!(columns, ["id", "email", "m", "ms", "home", "last_order"]);
    let (identity, default, key): (String, String, String) = {
        let client = target.connect().await;
        let row = client
            .query_one(
                "SELECT (SELECT attidentity::text FROM pg_attribute WHERE attrelid = 'crm.people'::regclass AND attname = 'id'),
                        (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = 'crm.people'::regclass),
                        (SELECT pg_get_constraintdef(oid) FROM pg_constraint
                          WHERE conrelid = 'crm.people'::regclass AND contype = 'p')",
                &[],
            )
            .await
            .unwrap();
        (row.get(0), row.get(1), row.get(2))
    };
    assert_eq!((identity.as_str(), default.as_str(), key.as_str()), ("a", "'ok'::app.mood", "PRIMARY KEY (id)"));
    let lines = work.not_carried().await.unwrap().join("\n");
    assert!(lines.contains("app.big: is about app.customers, which a rule gives another shape"), "{lines}");
    assert!(!lines.contains("fkey"), "{lines}");
    assert!(lines.contains("generated column of app.customers.up: needs column \"note\""), "{lines}");
    assert!(work.ddl_text().await.unwrap().contains("CREATE TABLE \"crm\".\"people\""));
}

/// Constraints, indexes, defaults and sequences of a table at the target, in words.
const AROUND: &str = "
    SELECT coalesce(string_agg(line, E'\\n' ORDER BY line COLLATE \"C\"), '') FROM (
        SELECT conname || ': ' || pg_get_constraintdef(oid) AS line FROM pg_constraint WHERE contype <> 'n' AND connamespace = 'crm'::regnamespace
        UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class c ON c.oid = indexrelid
                   WHERE c.relnamespace = 'crm'::regnamespace
                     AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = indexrelid AND k.contype <> 'f')
        UNION ALL SELECT format('%s.%s default %s', adrelid::regclass, attname, pg_get_expr(adbin, adrelid))
                    FROM pg_attrdef JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
                   WHERE adrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'crm'::regnamespace)
        UNION ALL SELECT format('%s of %s.%s: %s %s %s %s %s', s.seqrelid::regclass, t.relname, a.attname, seqtypid::regtype, seqstart,
                                seqincrement, seqmax, seqcycle)
                    FROM pg_sequence s JOIN pg_depend d ON d.objid = s.seqrelid AND d.deptype IN ('a', 'i')
                    JOIN pg_class t ON t.oid = d.refobjid JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
                   WHERE t.relnamespace = 'crm'::regnamespace) x";

/// What stands around the rows goes over where its columns do, and what cannot is named.
#[tokio::test(flavor = "multi_thread")]
async fn a_reshaped_table_keeps_its_indexes_keys_defaults_and_sequences() {
    let (source, target) = pair().await;
    source
        .execute(
            "CREATE SCHEMA app; CREATE TYPE app.lower AS ENUM ('a'); CREATE SEQUENCE app.free_seq;
             CREATE FUNCTION app.mail(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';
             CREATE TABLE app.people (id bigint GENERATED BY DEFAULT AS IDENTITY (START WITH 100 INCREMENT BY 5 MAXVALUE 9999 CYCLE) PRIMARY KEY,
                 \"ma\"\"il\" text NOT NULL DEFAULT 'at' UNIQUE, nr serial, free bigint DEFAULT nextval('app.free_seq'),
                 boss bigint REFERENCES app.people ON DELETE SET NULL, note text, span int4range, k app.lower DEFAULT 'a',
                 CONSTRAINT odd CHECK (nr > 0 AND \"ma\"\"il\" <> 'nr' AND k <> ('b'::text)::app.lower OR true),
                 CONSTRAINT of_note CHECK (note <> ''),
                 EXCLUDE USING gist (span WITH &&) WHERE (nr > 5));
             CREATE TABLE app.pets (id int PRIMARY KEY, owner bigint REFERENCES app.people, mail text REFERENCES app.people (\"ma\"\"il\")
                 DEFERRABLE INITIALLY DEFERRED);
             CREATE TABLE app.alone (id int PRIMARY KEY, pet int REFERENCES app.pets);
             CREATE INDEX nr ON app.people (nr DESC NULLS LAST, (app.mail(\"ma\"\"il\")) text_pattern_ops) INCLUDE (boss) WITH (fillfactor = 70)
                 WHERE nr > 3;
             CREATE UNIQUE INDEX mail ON app.people (lower(\"ma\"\"il\") COLLATE \"C\");
             CREATE INDEX by_note ON app.people (note); CREATE INDEX by_owner ON app.pets (owner);",
        )
        .await;
    let rules: Vec<TransformRule> = [
        "match = \"app.people\"\ncolumns = [\"*\", \"!note\"]\nrename = { schema = \"crm\", table = \"persons\", columns = \
         { 'ma\"il' = \"e mail\", nr = \"number\", boss = \"chief\" } }",
        "match = \"app.pets\"\nrename = { schema = \"crm\", columns = { owner = \"keeper\" } }",
    ]
    .map(|rule| toml::from_str(rule).unwrap())
    .into();
    let config = config(&source, &target);
    let (plan, progress) = (plan(&config, &[], &rules).await, Arc::new(Progress::new()));
    let work = SchemaWork::new(&config, &plan, &progress);
    build_all(&work).await;
    let around: String = target.value(AROUND).await;
    insta::assert_snapshot!(around);
    assert_eq!(
        target.value::<String>("SELECT string_agg(pg_get_constraintdef(oid), '') FROM pg_constraint WHERE conrelid = 'app.alone'::regclass AND contype = 'f'").await,
        "FOREIGN KEY (pet) REFERENCES crm.pets(id)"
    );
    let lines = work.not_carried().await.unwrap().join("\n");
    for line in [
        "index app.by_note: needs column \"note\" of app.people, which does not travel",
        "check of_note of app.people: needs column \"note\" of app.people, which does not travel",
    ] {
        assert!(lines.contains(line), "{lines}");
    }
    // As after a crash: nothing is doubled.
    build_all(&work).await;
    assert_eq!(target.value::<String>(AROUND).await, around);
    target
        .execute("INSERT INTO crm.persons (\"e mail\") VALUES ('x'); INSERT INTO crm.pets VALUES (1, 100, 'x')")
        .await;
}

/// Comments, policies, triggers, generated columns and collations of tables at the target, in words.
const UPON: &str = "
    SELECT coalesce(string_agg(line, E'\\n' ORDER BY line COLLATE \"C\"), '') FROM (
        SELECT format('comment on %s: %s', pg_describe_object(classoid, objoid, objsubid), description) AS line
          FROM pg_description WHERE pg_describe_object(classoid, objoid, objsubid) ~ 'crm'
        UNION ALL SELECT format('policy %s of %s: %s for %s to %s using %s check %s', polname, polrelid::regclass, polpermissive, polcmd,
                                polroles::regrole[], pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) FROM pg_policy
        UNION ALL SELECT format('row security of %s, forced: %s', oid::regclass, relforcerowsecurity) FROM pg_class WHERE relrowsecurity
        UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT format('%s.%s generated %s', adrelid::regclass, attname, pg_get_expr(adbin, adrelid))
                    FROM pg_attrdef JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum WHERE attgenerated <> ''
        UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid::regclass::text ~ 'crm' AND NOT indisprimary
        UNION ALL SELECT format('%s.%s collate %s', attrelid::regclass, attname, attcollation::regcollation)
                    FROM pg_attribute WHERE attrelid::regclass::text ~ 'crm' AND attcollation <> 100 AND attcollation <> 0 AND attnum > 0) x";

/// What hangs on a table goes over to its other shape where the server could be told exactly what it means there.
#[tokio::test(flavor = "multi_thread")]
async fn a_reshaped_table_keeps_its_comments_policies_triggers_and_generated_columns() {
    let (source, target) = pair().await;
    source
        .execute(
            "CREATE SCHEMA app; CREATE TABLE app.aside (id int PRIMARY KEY);
             CREATE TABLE app.people (id int PRIMARY KEY, \"na\"\"me\" text COLLATE \"C\", n int, note text,
                 twice int GENERATED ALWAYS AS (n * 2) STORED NOT NULL, up text COLLATE \"C\" GENERATED ALWAYS AS (upper(\"na\"\"me\")) STORED,
                 noted text GENERATED ALWAYS AS (upper(note)) STORED, CONSTRAINT few CHECK (twice < 1000), CONSTRAINT one UNIQUE (n));
             CREATE INDEX by_up ON app.people (up, \"na\"\"me\"); CREATE INDEX by_note ON app.people (note);
             COMMENT ON TABLE app.people IS 'the \"people\"'; COMMENT ON COLUMN app.people.\"na\"\"me\" IS 'it''s SELECT \"n\"';
             COMMENT ON COLUMN app.people.twice IS 'made'; COMMENT ON COLUMN app.people.note IS 'stays'; COMMENT ON CONSTRAINT one ON app.people IS 'one';
             COMMENT ON INDEX app.by_up IS 'found'; COMMENT ON INDEX app.by_note IS 'stays';
             COMMENT ON CONSTRAINT people_pkey ON app.people IS 'stays';
             ALTER TABLE app.people ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
             CREATE POLICY mine ON app.people AS RESTRICTIVE FOR SELECT TO pg_monitor, pg_signal_backend
                 USING (n > 0 AND \"na\"\"me\" = (CURRENT_USER)::text);
             CREATE POLICY writes ON app.people FOR INSERT WITH CHECK (n > 1);
             CREATE POLICY asks ON app.people FOR DELETE USING (EXISTS (SELECT FROM app.aside a WHERE a.id = n));
             COMMENT ON POLICY mine ON app.people IS 'a policy'; COMMENT ON POLICY asks ON app.people IS 'stays';
             CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
             CREATE FUNCTION app.needs(app.aside) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
             CREATE TRIGGER touch BEFORE UPDATE ON app.people FOR EACH ROW EXECUTE FUNCTION app.touch();
             CREATE TABLE app.pets (id int PRIMARY KEY, tame boolean);
             CREATE TRIGGER tamed BEFORE UPDATE OF tame ON app.pets FOR EACH ROW WHEN (OLD.tame IS DISTINCT FROM NEW.tame)
                 EXECUTE FUNCTION app.touch('app.pets');
             CREATE TRIGGER moved AFTER UPDATE ON app.pets REFERENCING OLD TABLE AS o FOR EACH STATEMENT EXECUTE FUNCTION app.touch();
             ALTER TABLE app.pets DISABLE TRIGGER moved; COMMENT ON TRIGGER tamed ON app.pets IS 'a trigger'",
        )
        .await;
    let rules: Vec<TransformRule> = [
        "match = \"app.people\"\ncolumns = [\"*\", \"!note\"]\nrename = { schema = \"crm\", table = \"persons\", columns = \
         { 'na\"me' = \"called\", n = \"number\" } }",
        "match = \"app.pets\"\nrename = { schema = \"crm\", table = \"animals\" }",
    ]
    .map(|rule| toml::from_str(rule).unwrap())
    .into();
    let config = Config { transform: rules, ..config(&source, &target) };
    let (plan, progress) = (plan(&config, &["*.*", "!app.aside"], &config.transform).await, Arc::new(Progress::new()));
    let work = SchemaWork::new(&config, &plan, &progress);
    build_all(&work).await;
    let upon: String = target.value(UPON).await;
    insta::assert_snapshot!(upon);
    let lines = work.not_carried().await.unwrap().join("\n");
    insta::assert_snapshot!("not_carried_of_a_reshaped_table", lines);
    build_all(&work).await;
    assert_eq!(target.value::<String>(UPON).await, upon);
    target.execute("INSERT INTO crm.persons (id, called, number) VALUES (1, 'x', 7)").await;
    assert_eq!(target.value::<String>("SELECT concat(twice, up) FROM crm.persons").await, "14X");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_would_fire_twice_is_refused_before_anything_is_made() {
    let (source, target) = pair().await;
    source.execute(SHOP).await;
    source.execute("ALTER TABLE app.customers ENABLE ALWAYS TRIGGER touch").await;
    let config = config(&source, &target);
    let (plan, progress) = (plan(&config, &[], &[]).await, Arc::new(Progress::new()));
    let work = SchemaWork::new(&config, &plan, &progress);
    let error = work.create_tables(&CancellationToken::new()).await.expect_err("it must be refused");
    assert_eq!(error.kind(), Kind::Schema);
    assert!(error.message().contains("trigger app.customers touch is ENABLE ALWAYS"), "{error}");
    let tables: i64 = target.value("SELECT count(*) FROM pg_tables WHERE schemaname = 'app'").await;
    assert_eq!(tables, 0);
    // One that the target alone has, made by hand; on a partition as well.
    target.execute(SHOP).await;
    target
        .execute(
            "CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER ours BEFORE INSERT ON app.customers FOR EACH ROW EXECUTE FUNCTION count_it();
             CREATE TRIGGER theirs BEFORE INSERT ON app.events_1 FOR EACH ROW EXECUTE FUNCTION count_it()",
        )
        .await;
    source.execute("ALTER TABLE app.customers ENABLE TRIGGER touch").await;
    for (table, when, trigger) in [
        ("app.customers", "ALWAYS", "ours"),
        ("app.customers", "REPLICA", "ours"),
        ("app.events_1", "ALWAYS", "theirs"),
    ] {
        target.execute(&format!("ALTER TABLE {table} ENABLE {when} TRIGGER {trigger}")).await;
        let error = work.create_tables(&CancellationToken::new()).await.expect_err("it must be refused");
        assert_eq!(error.kind(), Kind::Schema);
        assert!(error.message().contains(&format!("trigger {trigger} on {table} at the target")), "{error}");
        assert!(error.suggestion().unwrap().contains(&format!("ALTER TABLE {table} DISABLE TRIGGER")), "{error}");
        target.execute(&format!("ALTER TABLE {table} ENABLE TRIGGER {trigger}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_table_that_lacks_a_column_is_named() {
    let (source, target) = pair().await;
    source.execute("CREATE TABLE t (id int PRIMARY KEY, a text, b numeric(5,2))").await;
    target.execute("CREATE TABLE t (id int PRIMARY KEY, a text)").await;
    let config = config(&source, &target);
    let (plan, progress) = (plan(&config, &[], &[]).await, Arc::new(Progress::new()));
    let work = SchemaWork::new(&config, &plan, &progress);
    let error = work.create_tables(&CancellationToken::new()).await.expect_err("it must be refused");
    assert_eq!(error.kind(), Kind::Schema);
    assert!(error.message().contains("public.t exists at the target and lacks \"b\" numeric(5,2)"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_in_the_middle_leaves_nothing_half_made() {
    let (source, target) = pair().await;
    source.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)").await;
    source
        .execute(
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE VIEW z AS SELECT f() + 1 AS x FROM a",
        )
        .await;
    // It exists, so it is not made; and the view cannot be made with it.
    target.execute("CREATE FUNCTION f() RETURNS point LANGUAGE sql AS 'SELECT point(1, 1)'").await;
    let config = config(&source, &target);
    let (plan, progress) = (plan(&config, &[], &[]).await, Arc::new(Progress::new()));
    let work = SchemaWork::new(&config, &plan, &progress);
    let error = work.create_tables(&CancellationToken::new()).await.expect_err("there is no point + integer");
    assert!(error.message().contains("view public.z"), "{error}");
    let tables: i64 = target.value("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").await;
    assert_eq!(tables, 0);
}
