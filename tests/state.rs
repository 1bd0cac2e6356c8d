//! The state's layout over the life of a migration that outlives a release: the last format is read and upgraded, a newer
//! one is refused by every command before anything is touched.

#![allow(clippy::unwrap_used, reason = "a test dies of its errors")]

mod support;

use std::time::Duration;

use clap::CommandFactory;
use cutwater::cli::Cli;
use cutwater::config::Config;
use cutwater::target::state::FORMAT;
use support::{Cutwater, Database, assert_equal, pair, wait_for};

const MINUTE: Duration = Duration::from_secs(90);
const UNTIL: &[&str] = &["run", "--until", "caught-up"];
const TABLES: &[&str] = &["public.big", "public.small"];

/// A migration killed in mid-copy: one table is there, the other half.
async fn killed_in_mid_copy() -> (Database, Database, Cutwater) {
    let (source, target) = pair().await;
    source
        .execute(
            "CREATE TABLE public.small (id int PRIMARY KEY, v text);
             INSERT INTO public.small SELECT i, 'v' || i FROM generate_series(1, 100) AS i;
             CREATE TABLE public.big (id int PRIMARY KEY, v text);
             INSERT INTO public.big SELECT i, repeat('x', 200) || i FROM generate_series(1, 20000) AS i;
             ANALYZE",
        )
        .await;
    let toml = |rate: u64| {
        format!(
            "[migration]\nname = \"{}\"\n[source]\nurl = \"{}\"\n[target]\nurl = \"{}\"\n[snapshot]\nworkers = 2\nmax_rows_per_second = {rate}\n",
            source.name,
            source.url(),
            target.url()
        )
    };
    let slow = Cutwater::with_config(&toml(300));
    let mut run = slow.start(&["run"]);
    wait_for("the copy to be half done", MINUTE, async || {
        let sql = "SELECT to_regclass('cutwater.table_state') IS NOT NULL";
        target.value::<bool>(sql).await
            && target.value::<i64>("SELECT count(*) FROM cutwater.table_state WHERE stage = 'copied'").await == 1
            && target.value::<i64>("SELECT count(*) FROM cutwater.table_state WHERE stage = 'copying'").await == 1
    })
    .await;
    run.kill9();
    let cutwater = Cutwater::with_config(&toml(1_000_000));
    (source, target, cutwater)
}

/// Brings the state into the layout of format 1, rows and all, as the release that wrote it would have left it.
async fn downgrade(target: &Database, cutwater: &Cutwater) {
    let fixture = include_str!("fixtures/state_format_1.sql");
    let fingerprint = Config::load(&cutwater.config_path()).unwrap().fingerprint_of_format_1();
    target.execute("ALTER SCHEMA cutwater RENAME TO newer").await;
    target.execute(fixture).await;
    target
        .execute(&format!(
            "DO $$ DECLARE tbl text; cols text;
             BEGIN
                 -- Foreign keys: the migration's row first.
                 FOR tbl IN SELECT relname FROM pg_class WHERE relnamespace = 'cutwater'::regnamespace AND relkind = 'r'
                             ORDER BY relname <> 'migration', relname LOOP
                     SELECT string_agg(quote_ident(attname), ', ') INTO cols FROM pg_attribute
                      WHERE attrelid = format('cutwater.%I', tbl)::regclass AND attnum > 0 AND NOT attisdropped;
                     EXECUTE format('INSERT INTO cutwater.%I (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM newer.%I',
                                    tbl, cols, cols, tbl);
                 END LOOP;
             END $$;
             UPDATE cutwater.migration SET format = 1, fingerprint = '{fingerprint}';
             DROP SCHEMA newer CASCADE"
        ))
        .await;
}

/// Everything that a command could have changed: the state's rows, what stands at the source, the target's rows.
async fn everything(source: &Database, target: &Database) -> String {
    let state =
        "SELECT coalesce(string_agg(query_to_xml(format('SELECT * FROM cutwater.%I t ORDER BY t::text', relname),
                                                         true, true, '')::text, '' ORDER BY relname), '')
                   FROM pg_class WHERE relnamespace = 'cutwater'::regnamespace AND relkind = 'r'";
    let objects = "SELECT coalesce(string_agg(x, ',' ORDER BY x), '') FROM (
                       SELECT slot_name || coalesce(confirmed_flush_lsn::text, '') FROM pg_replication_slots
                        WHERE database = current_database()
                       UNION ALL SELECT pubname FROM pg_publication UNION ALL SELECT tgname FROM pg_trigger
                       UNION ALL SELECT nspname FROM pg_namespace) AS o(x)";
    let tables = "SELECT string_agg(relname || pg_relation_size(oid), ',' ORDER BY relname) FROM pg_class
                   WHERE relnamespace = 'public'::regnamespace";
    let (state, objects): (String, String) = (target.value(state).await, source.value(objects).await);
    let tables: Option<String> = target.value(tables).await;
    state + &objects + &tables.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_begun_by_the_last_format_goes_on_exactly() {
    let (source, target, cutwater) = killed_in_mid_copy().await;
    downgrade(&target, &cutwater).await;
    source
        .execute(
            "UPDATE public.small SET v = 'changed' WHERE id <= 10; DELETE FROM public.big WHERE id % 7 = 0;
             INSERT INTO public.big VALUES (100000, 'new')",
        )
        .await;
    // Reading it changes nothing, and what would write into it says who must go first.
    let before = everything(&source, &target).await;
    let status = cutwater.run(&["status", "--json"], MINUTE).await.assert_code(0).json();
    assert_eq!(status["phase"], "snapshot");
    assert_eq!(status["tables"].as_array().unwrap().len(), 2);
    let finished = cutwater.run(&["verify"], MINUTE).await.assert_code(2);
    assert!(finished.stderr.contains("which an older cutwater wrote"), "{}", finished.stderr);
    assert!(finished.stderr.contains("fix: stop the old run, then cutwater run"), "{}", finished.stderr);
    assert_eq!(everything(&source, &target).await, before);

    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), TABLES).await;
    assert_eq!(target.value::<i32>("SELECT format FROM cutwater.migration").await, FORMAT);
    // From here on rules are known table by table.
    let finished = cutwater.and("[[transform]]\nmatch = \"public.small\"\ncolumns = [\"!v\"]").run(UNTIL, MINUTE).await;
    assert!(finished.stderr.contains("cutwater tables resync public.small"), "{}", finished.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_config_does_not_slip_through_the_upgrade() {
    let (source, target, cutwater) = killed_in_mid_copy().await;
    downgrade(&target, &cutwater).await;
    let before = everything(&source, &target).await;
    let changed = cutwater.and("[[transform]]\nmatch = \"public.small\"\ncolumns = [\"!v\"]");
    let finished = changed.run(UNTIL, MINUTE).await.assert_code(2);
    assert!(finished.stderr.contains("of other ends or other rules"), "{}", finished.stderr);
    assert_eq!(everything(&source, &target).await, before);
}

/// What each command is called with to be asked whether it refuses; `None`: it has nothing to do with a state.
fn calls(command: &str) -> Option<Vec<Vec<&'static str>>> {
    Some(match command {
        "init" | "demo" => return None,
        "run" => vec![vec!["run"], UNTIL.to_vec()],
        "schema" => vec![vec!["schema"], vec!["schema", "--apply"]],
        "status" => vec![vec!["status"], vec!["status", "--json"]],
        "verify" => vec![vec!["verify"], vec!["verify", "--repair"]],
        "cutover" => vec![vec!["cutover"], vec!["cutover", "--dry-run"], vec!["cutover", "--abort"]],
        "teardown" => vec![vec!["teardown"], vec!["teardown", "--dry-run"]],
        "check" => vec![vec!["check"]],
        "pause" | "resume" => vec![vec!["pause"], vec!["resume"]],
        "set" => vec![vec!["set", "snapshot.workers=2"], vec!["set"]],
        "tables" => vec![vec!["tables", "resync", "public.small"]],
        other => panic!("say here how {other:?} is called: a newer state must be refused by it"),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_of_a_newer_format_is_refused_by_every_command_before_anything_is_touched() {
    let (source, target, cutwater) = killed_in_mid_copy().await;
    let newer = FORMAT + 1;
    target.execute(&format!("UPDATE cutwater.migration SET format = {newer}")).await;
    let before = everything(&source, &target).await;
    for command in Cli::command().get_subcommands() {
        for args in calls(command.get_name()).unwrap_or_default() {
            let finished = cutwater.run(&args, MINUTE).await.assert_code(2);
            let text = format!("{}{}", finished.stdout, finished.stderr);
            let says = format!("has format {newer}, and this cutwater");
            assert!(text.contains(&says), "{args:?} says:\n{text}");
            assert!(text.contains("use the newer cutwater"), "{args:?} says:\n{text}");
            assert_eq!(everything(&source, &target).await, before, "{args:?} has changed something");
        }
    }
    // Nor does it begin another migration in that state.
    source.execute("CREATE TABLE public.third (id int PRIMARY KEY)").await;
    let toml = format!(
        "[migration]\nname = \"beside\"\n[source]\nurl = \"{}\"\ntables = [\"public.third\"]\n[target]\nurl = \"{}\"\n",
        source.url(),
        target.url()
    );
    let finished = Cutwater::with_config(&toml).run(UNTIL, MINUTE).await.assert_code(2);
    assert!(finished.stderr.contains(&format!("has format {newer}")), "{}", finished.stderr);
    assert_eq!(everything(&source, &target).await, before);
}
