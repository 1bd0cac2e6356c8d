//! What stops a run: each with a clear error, the right exit code, and nothing lost.

#![allow(clippy::unwrap_used, reason = "a test dies of its errors")]

mod support;

use std::fs;
use std::time::Duration;

use support::{Cutwater, Database, Finished, assert_equal, pair, wait_for};

const MINUTE: Duration = Duration::from_secs(60);
const UNTIL: &[&str] = &["run", "--until", "caught-up"];

async fn items() -> (Database, Database, Cutwater) {
    let (source, target) = pair().await;
    source
        .execute(
            "CREATE TABLE public.item (id int PRIMARY KEY, v text, n int DEFAULT 0);
             INSERT INTO public.item SELECT i, 'v' || i FROM generate_series(1, 100) AS i",
        )
        .await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    (source, target, cutwater)
}

fn assert_says(finished: &Finished, parts: &[&str]) {
    for part in parts {
        assert!(finished.stderr.contains(part), "{part:?} is missing in:\n{}", finished.stderr);
    }
}

async fn count(at: &Database, sql: &str) -> i64 {
    at.value(&format!("SELECT count(*) FROM {sql}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_would_bite_is_refused_before_anything_is_changed() {
    let (source, target, cutwater) = items().await;
    target
        .execute("CREATE TABLE public.item (id int PRIMARY KEY, v text, n int); INSERT INTO public.item VALUES (7)")
        .await;
    let finished = cutwater.run(UNTIL, MINUTE).await;
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert_says(&finished, &["public.item", "(1)", "existing = \"truncate\""]);
    assert_eq!(count(&source, "pg_publication").await, 0);
    assert_eq!(count(&target, "pg_namespace WHERE nspname = 'cutwater'").await, 0);
    assert_eq!(count(&target, "public.item").await, 1);
    // Told to empty it, the same command goes through.
    let cutwater = Cutwater::new(&source.url(), &format!("{}\"\nexisting = \"truncate", target.url()));
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), &["public.item"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_somebody_else_reads_is_named_and_waited_for() {
    let (source, target, cutwater) = items().await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    let slot = format!("cutwater_{}", source.name);
    let url = source.url();
    let mut reader = tokio::process::Command::new(source.server.programs().join("pg_recvlogical"))
        .args(["-d", &url, "--slot", &slot, "--start", "-f", "/dev/null", "-o", "proto_version=1"])
        .args(["-o", &format!("publication_names={slot}")])
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    wait_for("the reader", MINUTE, async || {
        count(&source, &format!("pg_replication_slots WHERE slot_name = '{slot}' AND active")).await == 1
    })
    .await;
    let run = cutwater.start(&["run"]);
    wait_for("the error", MINUTE, async || {
        run.stderr().contains("reads the slot already") && run.stderr().contains(&slot)
    })
    .await;
    reader.kill().await.unwrap();
    source.execute("INSERT INTO public.item VALUES (1000, 'after')").await;
    wait_for("the stream", MINUTE, async || count(&target, "public.item WHERE id = 1000").await == 1).await;
    run.sigint();
    run.wait(MINUTE).await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_dropped_is_told_and_nothing_is_applied() {
    let (source, target, cutwater) = items().await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    source.execute(&format!("SELECT pg_drop_replication_slot('cutwater_{}')", source.name)).await;
    source.execute("INSERT INTO public.item VALUES (1000, 'lost with the slot')").await;
    let finished = cutwater.run(UNTIL, MINUTE).await.assert_code(1);
    assert_says(&finished, &["slot", "fix: ", "teardown"]);
    assert_eq!(count(&target, "public.item").await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_for_an_open_transaction_names_it_and_can_be_stopped() {
    let (source, target, cutwater) = items().await;
    let open = source.connect().await;
    open.batch_execute("BEGIN; INSERT INTO public.item VALUES (1000, 'not committed yet')").await.unwrap();
    let pid: i32 = open.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let run = cutwater.start(&["run"]);
    wait_for("the transaction to be named", MINUTE, async || {
        run.stderr().contains("the slot waits for this transaction") && run.stderr().contains(&pid.to_string())
    })
    .await;
    run.sigint();
    run.wait(Duration::from_secs(10)).await.assert_code(0);
    open.batch_execute("COMMIT").await.unwrap();
    // What the stopped run left behind is no obstacle to the next.
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), &["public.item"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_for_another_migration_is_refused() {
    let (source, target, cutwater) = items().await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    let (elsewhere, _) = pair().await;
    elsewhere.execute("CREATE TABLE public.item (id int PRIMARY KEY, v text, n int DEFAULT 0)").await;
    let toml = |name: &str, source: &Database| {
        let (source, target) = (source.url(), target.url());
        format!(
            "[migration]\nname = \"{name}\"\n[source]\nurl = \"{source}\"\n[target]\nurl = \"{target}\"\nexisting = \"truncate\""
        )
    };
    let other_end = Cutwater::with_config(&toml(&source.name, &elsewhere));
    let finished = other_end.run(UNTIL, MINUTE).await.assert_code(2);
    assert_says(&finished, &["this is a config for another migration", "its source was", &elsewhere.name, "fix: "]);
    for command in ["status", "verify", "cutover", "teardown"] {
        let finished = other_end.run(&[command], MINUTE).await.assert_code(2);
        assert_says(&finished, &["this is a config for another migration"]);
    }
    // Another name: the rows of the first migration would be emptied away under it.
    let other_name = Cutwater::with_config(&toml("another_name", &source));
    let finished = other_name.run(UNTIL, MINUTE).await.assert_code(2);
    assert_says(
        &finished,
        &["this is a config for another migration", "public.item belongs to migration", &source.name],
    );
    assert_eq!(count(&target, "public.item").await, 100);
    assert_eq!(count(&source, "pg_replication_slots WHERE slot_name = 'cutwater_another_name'").await, 0);
    // What may change does.
    let url = source.url();
    let changed = cutwater.and("[snapshot]\nworkers = 1\n[apply]\nbatch_rows = 7\n[cutover]\nsequence_margin = 5");
    changed.run(UNTIL, MINUTE).await.assert_code(0);
    assert_equal(&url, &target.url(), &["public.item"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_vanished_from_the_target_is_named() {
    let (source, target, cutwater) = items().await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    target.execute("ALTER TABLE public.item RENAME TO hidden").await;
    source.execute("INSERT INTO public.item VALUES (1000, 'waits')").await;
    let finished = cutwater.run(UNTIL, MINUTE).await.assert_code(1);
    assert_says(&finished, &["public.item", "target"]);
    target.execute("ALTER TABLE public.hidden RENAME TO item").await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), &["public.item"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_the_target_refuses_stops_the_run_and_is_named_by_its_key() {
    let (source, target, cutwater) = items().await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    target.execute("ALTER TABLE public.item ADD CONSTRAINT small CHECK (n < 10)").await;
    source.execute("INSERT INTO public.item VALUES (1000, 'fine', 1), (1001, 'too much', 11)").await;
    let finished = cutwater.run(UNTIL, MINUTE).await.assert_code(1);
    assert_says(&finished, &["public.item", "1001", "small", "on_error"]);
    assert_eq!(count(&target, "public.item").await, 100, "half a transaction is not shown");
    let text = cutwater.run(&["status"], MINUTE).await.assert_code(0).stdout;
    assert!(text.contains("1001"), "{text}");
    target.execute("ALTER TABLE public.item DROP CONSTRAINT small").await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), &["public.item"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_missing_at_the_target_is_a_divergence_and_stops_the_run() {
    let (source, target, cutwater) = items().await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    target.execute("DELETE FROM public.item WHERE id = 42").await;
    source.execute("UPDATE public.item SET v = 'new' WHERE id = 42").await;
    let finished = cutwater.run(UNTIL, MINUTE).await.assert_code(1);
    assert_says(&finished, &["public.item", "42"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_at_either_end_are_made_again_and_nothing_is_lost() {
    let (source, target, _) = items().await;
    let from = support::Proxy::start(source.server.port()).await;
    let to = support::Proxy::start(target.server.port()).await;
    let cutwater = Cutwater::new(
        &from.url(cutwater::cli::demo::server::SUPERUSER, &source.name),
        &to.url(cutwater::cli::demo::server::SUPERUSER, &target.name),
    );
    let run = cutwater.start(&["run"]);
    wait_for("the copy", MINUTE, async || run.stderr().contains("streaming")).await;
    for round in 0..6 {
        for n in 0..20 {
            source.execute(&format!("INSERT INTO public.item VALUES ({}, 'x')", 1000 + round * 100 + n)).await;
            match (round % 3, n) {
                (0, 10) => from.cut(),
                (1, 10) => to.cut(),
                (2, 10) => to.cut_after(200),
                _ => {}
            }
        }
        let expected = 100 + (round + 1) * 20;
        wait_for("the rows", MINUTE, async || count(&target, "public.item").await == i64::from(expected)).await;
    }
    run.sigint();
    run.wait(MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), &["public.item"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_rule_names_the_tables_it_shapes_and_the_command_that_copies_them_again() {
    let (source, target, cutwater) = items().await;
    source
        .execute(
            "CREATE TABLE public.user_a (id int PRIMARY KEY, mail text);
             CREATE TABLE public.user_b (id int PRIMARY KEY, mail text)",
        )
        .await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    let before = fs::read_to_string(cutwater.config_path()).unwrap();
    let changed = cutwater.and("[[transform]]\nmatch = \"public.user_*\"\ncolumns = [\"!mail\"]");
    source.execute("INSERT INTO public.user_a VALUES (1, 'a')").await;
    for command in [UNTIL, &["verify"], &["cutover", "--dry-run"]] {
        let finished = changed.run(command, MINUTE).await.assert_code(2);
        let says = [
            "[[transform]] makes something else of public.user_a, public.user_b than when they were copied",
            "fix: cutwater tables resync public.user_a public.user_b",
        ];
        assert_says(&finished, &says);
    }
    assert_eq!(count(&target, "public.user_a").await, 0, "nothing was applied in the wrong shape");
    // A rule that changes nothing is no change, and the rule put back goes on.
    fs::write(changed.config_path(), before.clone() + "\n[[transform]]\nmatch = \"public.user_*\"\ncolumns = [\"*\"]")
        .unwrap();
    changed.run(UNTIL, MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), &["public.item", "public.user_a", "public.user_b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_whose_log_was_thrown_away_is_told_and_nothing_is_applied() {
    let options =
        support::ServerOptions::new().setting("max_slot_wal_keep_size", "32MB").setting("max_wal_size", "64MB");
    let source = support::postgres_with(options).await;
    let (_, target) = pair().await;
    source
        .execute("postgres", "CREATE TABLE public.item (id int PRIMARY KEY); INSERT INTO public.item VALUES (1)")
        .await
        .unwrap();
    let cutwater = Cutwater::new(&source.url(cutwater::cli::demo::server::SUPERUSER, "postgres"), &target.url());
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    let client = source.connect("postgres").await.unwrap();
    client.batch_execute("CREATE TABLE other (v text); INSERT INTO public.item VALUES (2)").await.unwrap();
    wait_for("the slot to be lost", MINUTE, async || {
        client
            .batch_execute("INSERT INTO other SELECT repeat(md5(i::text), 30) FROM generate_series(1, 30000) AS i")
            .await
            .unwrap();
        client.batch_execute("SELECT pg_switch_wal()").await.unwrap();
        client.batch_execute("CHECKPOINT").await.unwrap();
        let status = client.query_one("SELECT wal_status FROM pg_replication_slots", &[]).await.unwrap();
        status.get::<_, Option<&str>>(0) == Some("lost")
    })
    .await;
    let finished = cutwater.run(UNTIL, MINUTE).await.assert_code(1);
    assert_says(&finished, &["wal_status is \"lost\"", "fix: raise max_slot_wal_keep_size", "cutwater teardown"]);
    assert_eq!(count(&target, "public.item").await, 1);
    let status = cutwater.run(&["status"], MINUTE).await.assert_code(0).stdout;
    assert!(status.contains("lost"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_without_a_table_is_a_refusal_and_not_a_silent_gap() {
    let (source, target, cutwater) = items().await;
    source.execute("CREATE TABLE public.stays (id int PRIMARY KEY)").await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    let publication = format!("cutwater_{}", source.name);
    source.execute(&format!("ALTER PUBLICATION {publication} DROP TABLE public.item")).await;
    source
        .execute("INSERT INTO public.item VALUES (1000, 'not in the stream'); INSERT INTO public.stays VALUES (1)")
        .await;
    let finished = cutwater.run(UNTIL, MINUTE).await.assert_code(1);
    let fix = format!("fix: ALTER PUBLICATION \"{publication}\" ADD TABLE \"public\".\"item\";");
    assert_says(&finished, &["does not publish public.item", &fix, "cutwater tables resync public.item"]);
    assert_eq!(count(&target, "public.stays").await, 0, "nothing is applied past the gap");
    source.execute(&format!("DROP PUBLICATION {publication}")).await;
    let finished = cutwater.run(UNTIL, MINUTE).await.assert_code(1);
    assert_says(&finished, &["does not exist any more", "fix: ", "cutwater teardown"]);
}

/// The publication looks as before; what was changed meanwhile never comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_was_altered_for_a_while_is_a_refusal_and_not_a_silent_gap() {
    let (source, target, cutwater) = items().await;
    source.execute("CREATE TABLE public.stays (id int PRIMARY KEY)").await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    let publication = format!("cutwater_{}", source.name);
    // VACUUM FREEZE is no alteration.
    source.execute("VACUUM FREEZE pg_publication").await;
    source.execute("VACUUM FREEZE pg_publication_rel").await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);

    // While no run is alive: a table leaves and comes back.
    source.execute(&format!("ALTER PUBLICATION {publication} DROP TABLE public.item")).await;
    source
        .execute("INSERT INTO public.item VALUES (1000, 'never sent'); UPDATE public.item SET v = 'x' WHERE id = 1")
        .await;
    source.execute(&format!("ALTER PUBLICATION {publication} ADD TABLE public.item")).await;
    source.execute("INSERT INTO public.stays VALUES (1)").await;
    let finished = cutwater.run(UNTIL, MINUTE).await.assert_code(1);
    assert_says(&finished, &["public.item was taken out and put in again", "fix: cutwater tables resync public.item"]);
    assert_eq!(count(&target, "public.stays").await, 0, "nothing is applied past the gap");
    let refused = cutwater.run(&["cutover", "--dry-run"], MINUTE).await.assert_code(3);
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(said.contains("published") && said.contains("taken out and put in again"), "{said}");
    // What is missing is brought without another copy.
    cutwater.run(&["verify", "--repair"], MINUTE).await.assert_code(0);
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), &["public.item", "public.stays"]).await;

    // Beside a live run: other options for a while.
    let run = cutwater.start(&["run"]);
    wait_for("the stream", MINUTE, async || run.stderr().contains("following the source")).await;
    // In one transaction: nobody sees it as it is meanwhile.
    source
        .execute(&format!(
            "BEGIN; ALTER PUBLICATION {publication} SET (publish = 'insert'); DELETE FROM public.item WHERE id = 2;
             ALTER PUBLICATION {publication} SET (publish = 'insert, update, delete, truncate'); COMMIT"
        ))
        .await;
    let finished = run.wait(MINUTE).await.assert_code(1);
    assert_says(&finished, &["was altered or made anew while public.item, public.stays were followed"]);
    cutwater.run(&["tables", "resync", "public.item", "public.stays"], MINUTE).await.assert_code(0);
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), &["public.item", "public.stays"]).await;

    // Published in part.
    source.execute(&format!("ALTER PUBLICATION {publication} SET (publish = 'insert')")).await;
    let finished = cutwater.run(UNTIL, MINUTE).await.assert_code(1);
    assert_says(&finished, &["does not publish all four", "fix: ALTER PUBLICATION"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_of_our_name_that_another_migration_made_is_left_alone() {
    let (source, first, cutwater) = items().await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    source.execute("INSERT INTO public.item VALUES (1000, 'for the first')").await;
    // The same name and source, and a target that knows nothing of it.
    let (_, second) = pair().await;
    let finished = Cutwater::new(&source.url(), &second.url()).run(UNTIL, MINUTE).await.assert_code(2);
    assert_says(
        &finished,
        &["already has a slot for a migration called", &source.name, "fix: give this migration another"],
    );
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &first.url(), &["public.item"]).await;
}

/// TRAPS 2: a position of one server means nothing on another, on another timeline of it, or in another database.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_another_server_timeline_or_database_than_before_is_refused() {
    let (source, target, cutwater) = items().await;
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    source.execute("INSERT INTO public.item VALUES (1000, 'waits')").await;
    let stored: String = target.value("SELECT source::text FROM cutwater.migration").await;
    for (field, other) in [("system_id", "\"7\""), ("timeline", "7"), ("database", "\"other\"")] {
        let changed = format!("UPDATE cutwater.migration SET source = jsonb_set(source, '{{{field}}}', '{other}')");
        target.execute(&changed).await;
        let finished = cutwater.run(UNTIL, MINUTE).await.assert_code(1);
        assert_says(&finished, &["not the server this migration began on", "fix: ", "cutwater teardown"]);
        assert_eq!(count(&target, "public.item").await, 100, "{field}: something was applied");
        target.execute(&format!("UPDATE cutwater.migration SET source = '{stored}'")).await;
    }
    cutwater.run(UNTIL, MINUTE).await.assert_code(0);
    assert_equal(&source.url(), &target.url(), &["public.item"]).await;
}
