//! What a person reads when something is wrong: text and exit code of each mistake, through the binary, against real
//! servers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use support::{Cutwater, Finished, ServerOptions, pair, postgres_with};

const DEADLINE: Duration = Duration::from_secs(60);
const TABLE: &str = "CREATE TABLE public.orders (id bigint PRIMARY KEY, note text)";

fn assert_says(finished: &Finished, parts: &[&str]) {
    let text = format!("{}{}", finished.stdout, finished.stderr);
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

#[tokio::test]
async fn an_unknown_config_key_points_at_its_line_and_offers_the_right_one() {
    let cutwater =
        Cutwater::new("postgres://a@127.0.0.1:1/x", "postgres://a@127.0.0.1:1/y").and("[snapshot]\nworker = 2");
    let finished = cutwater.run(&["check"], DEADLINE).await.assert_code(2);
    assert_says(&finished, &["unknown key `worker`", "worker = 2", "fix: did you mean \"workers\"?"]);
}

#[tokio::test]
async fn an_unset_variable_is_named_with_key_and_line() {
    let cutwater = Cutwater::new("postgres://a:${CUTWATER_TEST_UNSET}@127.0.0.1:1/x", "postgres://a@127.0.0.1:1/y");
    let finished = cutwater.run(&["check"], DEADLINE).await.assert_code(2);
    let expected = "cutwater.toml:5: source.url: the environment variable CUTWATER_TEST_UNSET is not set";
    assert_says(&finished, &[expected, "fix: export CUTWATER_TEST_UNSET="]);
}

#[tokio::test]
async fn an_unknown_command_is_a_usage_error_in_json_too() {
    let cutwater = Cutwater::new("postgres://a@127.0.0.1:1/x", "postgres://a@127.0.0.1:1/y");
    cutwater.run(&["statsu"], DEADLINE).await.assert_code(2);
    let finished = cutwater.run(&["statsu", "--json"], DEADLINE).await.assert_code(2);
    assert_eq!(finished.json()["error"]["kind"], "config");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_by_address() {
    let cutwater = Cutwater::new("postgres://a@127.0.0.1:1/x", "postgres://a@127.0.0.1:1/y");
    let finished = cutwater.run(&["check", "--json"], DEADLINE).await.assert_code(1);
    let error = &finished.json()["error"];
    assert_eq!(error["kind"], "connection");
    assert!(error["message"].as_str().unwrap().contains("127.0.0.1:1"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_is_an_authentication_error_and_stays_secret() {
    let server = postgres_with(ServerOptions::new().hba("host all all 127.0.0.1/32 scram-sha-256")).await;
    server.execute("postgres", "CREATE ROLE mover LOGIN SUPERUSER PASSWORD 'right'").await.unwrap();
    let url = server.url_with_password("mover", "wrong-horse", "postgres");
    let cutwater = Cutwater::new(&url, &url);
    let finished = cutwater.run(&["check"], DEADLINE).await.assert_code(1);
    assert_says(&finished, &["error: ", "password authentication failed for user \"mover\""]);
    assert!(!format!("{}{}", finished.stdout, finished.stderr).contains("wrong-horse"));
}

#[tokio::test]
async fn a_missing_privilege_comes_with_the_grant() {
    let (source, target) = pair().await;
    source.execute(TABLE).await;
    source.execute("DO $$ BEGIN CREATE ROLE weak LOGIN; EXCEPTION WHEN duplicate_object THEN END $$").await;
    let cutwater = Cutwater::new(&source.server.url("weak", &source.name), &target.url());
    let finished = cutwater.run(&["check"], DEADLINE).await.assert_code(3);
    assert_says(
        &finished,
        &[
            "FAIL  source: role \"weak\" cannot open a replication connection",
            "ALTER ROLE \"weak\" REPLICATION;",
            "FAIL  source: role \"weak\" may not read public.orders",
            "GRANT SELECT ON \"public\".\"orders\" TO \"weak\";",
            "Nothing was changed.",
        ],
    );
}

#[tokio::test]
async fn wal_level_not_logical_says_how_to_change_it() {
    let source = postgres_with(ServerOptions::new().setting("wal_level", "replica")).await;
    let (_, target) = pair().await;
    source.execute("postgres", TABLE).await.unwrap();
    let cutwater = Cutwater::new(&source.url("postgres", "postgres"), &target.url());
    let finished = cutwater.run(&["check"], DEADLINE).await.assert_code(3);
    assert_says(
        &finished,
        &["FAIL  source: wal_level is \"replica\", not \"logical\"", "ALTER SYSTEM SET wal_level = logical;"],
    );
}

#[tokio::test]
async fn a_target_table_with_rows_is_refused_with_the_count() {
    let (source, target) = pair().await;
    source.execute(TABLE).await;
    target.execute(&format!("{TABLE}; INSERT INTO public.orders VALUES (1, 'old'), (2, 'old')")).await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    let finished = cutwater.run(&["check"], DEADLINE).await.assert_code(3);
    assert_says(&finished, &["FAIL  target: 1 table holds rows already: public.orders (2)", "existing = \"truncate\""]);
}

#[tokio::test]
async fn a_target_table_without_a_column_is_named_with_the_statement() {
    let (source, target) = pair().await;
    source.execute(TABLE).await;
    target.execute("CREATE TABLE public.orders (id bigint PRIMARY KEY)").await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    let finished = cutwater.run(&["check"], DEADLINE).await.assert_code(3);
    assert_says(
        &finished,
        &[
            "FAIL  target: public.orders has no column \"note\"",
            "ALTER TABLE \"public\".\"orders\" ADD COLUMN \"note\" text;",
        ],
    );
}

#[tokio::test]
async fn a_table_without_a_key_comes_with_both_ways_out() {
    let (source, target) = pair().await;
    source.execute("CREATE TABLE public.log (note text)").await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    let finished = cutwater.run(&["check"], DEADLINE).await.assert_code(3);
    assert_says(
        &finished,
        &["1 table has no key", "ALTER TABLE \"public\".\"log\" REPLICA IDENTITY FULL;", "\"!public.log\""],
    );
}

#[tokio::test]
async fn row_level_security_in_the_way_is_named_by_table() {
    let (source, target) = pair().await;
    source
        .execute(
            "CREATE TABLE public.invoices (id bigint PRIMARY KEY);
             ALTER TABLE public.invoices ENABLE ROW LEVEL SECURITY;
             DO $$ BEGIN CREATE ROLE reader LOGIN REPLICATION; EXCEPTION WHEN duplicate_object THEN END $$;
             GRANT SELECT ON public.invoices TO reader",
        )
        .await;
    let cutwater = Cutwater::new(&source.server.url("reader", &source.name), &target.url());
    let finished = cutwater.run(&["check"], DEADLINE).await.assert_code(3);
    assert_says(
        &finished,
        &[
            "FAIL  source: row-level security hides rows of 1 table from role \"reader\"",
            "public.invoices",
            "ALTER ROLE \"reader\" BYPASSRLS;",
        ],
    );
}

#[tokio::test]
async fn one_database_at_both_ends_is_refused() {
    let (source, _) = pair().await;
    source.execute(TABLE).await;
    let cutwater = Cutwater::new(&source.url(), &source.url());
    let finished = cutwater.run(&["check"], DEADLINE).await.assert_code(3);
    assert_says(&finished, &["FAIL  target: source and target are the same database"]);
}

#[tokio::test]
async fn commits_that_would_wait_for_us_are_refused() {
    let server = postgres_with(ServerOptions::new().setting("synchronous_standby_names", "cutwater_shop")).await;
    let (_, target) = pair().await;
    server.execute("postgres", &format!("SET synchronous_commit = local; {TABLE}")).await.unwrap();
    let cutwater = Cutwater::new(&server.url("postgres", "postgres"), &target.url());
    let finished = cutwater.run(&["check"], DEADLINE).await.assert_code(3);
    assert_says(&finished, &["would count us (cutwater_shop) as a synchronous standby"]);
}

#[tokio::test]
async fn a_sound_pair_passes_and_check_leaves_nothing_behind() {
    let (source, target) = pair().await;
    source.execute(TABLE).await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    let finished = cutwater.run(&["check", "-v"], DEADLINE).await.assert_code(0);
    assert_says(&finished, &["0 to fix", "pass  source: wal_level is logical"]);
    let left = "SELECT count(*) FROM pg_namespace WHERE nspname ~ '^cutwater'";
    assert_eq!(source.value::<i64>(left).await + target.value::<i64>(left).await, 0);
    let status = cutwater.run(&["status"], DEADLINE).await.assert_code(0);
    assert_says(&status, &["NEW", "Nothing was begun yet."]);
    let teardown = cutwater.run(&["teardown"], DEADLINE).await.assert_code(0);
    assert_says(&teardown, &["There is nothing to remove."]);
}

#[tokio::test]
async fn init_writes_a_file_that_check_accepts_and_never_overwrites_it() {
    let (source, target) = pair().await;
    source.execute(TABLE).await;
    let cutwater = Cutwater::new("postgres://unused@x/x", "postgres://unused@x/y");
    std::fs::remove_file(cutwater.config_path()).unwrap();
    let (from, to) = (source.url(), target.url());
    let args = ["init", "--name", "shop", "--source", &from, "--target", &to];
    let finished = cutwater.run(&args, DEADLINE).await.assert_code(0);
    assert_says(&finished, &["1 table", "cutwater check"]);
    cutwater.run(&["check"], DEADLINE).await.assert_code(0);
    let again = cutwater.run(&args, DEADLINE).await.assert_code(2);
    assert_says(&again, &["exists already and is not overwritten"]);
}
