//! The comparison behind the fence reads what changed since the last clean verify, and nothing that did not (TRAPS 24).
#![allow(clippy::unwrap_used, reason = "a test dies of its errors")]

mod support;

use std::time::Duration;

use serde_json::Value;
use support::{Cutwater, Database, Running, wait_for};

const MINUTE: Duration = Duration::from_secs(60);
const BIG: i64 = 100_000;
const SCHEMA: &str = "
    CREATE TABLE big (id bigint PRIMARY KEY, v text);
    CREATE TABLE hot (id int, region text, v text, seat int UNIQUE, PRIMARY KEY (region, id));
    CREATE TABLE loose (v text);
    CREATE TABLE emptied (id int PRIMARY KEY, v text);
    ALTER TABLE loose REPLICA IDENTITY FULL;
    INSERT INTO big SELECT i, 'v' || i FROM generate_series(1, 100000) i;
    INSERT INTO hot SELECT i, 'nörth, \"1\"', 'v' || i, i FROM generate_series(1, 1000) i;
    INSERT INTO loose SELECT 'v' || i FROM generate_series(1, 100) i;
    INSERT INTO emptied SELECT i, 'v' FROM generate_series(1, 100) i;
    ANALYZE";

/// A migration that streams and whose ends were compared.
struct Stage {
    source: Database,
    target: Database,
    cutwater: Cutwater,
    run: Option<Running>,
}

impl Stage {
    async fn verified() -> Stage {
        let (source, target) = support::pair().await;
        source.execute(SCHEMA).await;
        // Slots belong to the whole server: each test is a migration of its own.
        let cutwater = Cutwater::with_config(&format!(
            "[migration]\nname = \"{}\"\n[source]\nurl = \"{}\"\n[target]\nurl = \"{}\"\n",
            source.name,
            source.url(),
            target.url()
        ));
        let run = Some(cutwater.start(&["run"]));
        let stage = Stage { source, target, cutwater, run };
        wait_for("streaming", MINUTE, async || stage.status().await["phase"] == "streaming").await;
        stage.verify().await;
        stage
    }

    async fn status(&self) -> Value {
        self.cutwater.run(&["status", "--json"], MINUTE).await.json()
    }

    async fn verify(&self) {
        self.cutwater.run(&["verify"], MINUTE).await.assert_code(0);
    }

    /// Changes the source, and waits until the target has it.
    async fn change(&self, sql: &str) {
        self.source.execute(sql).await;
        let head: String = self.source.value("SELECT pg_current_wal_flush_lsn()::text").await;
        let there = format!("SELECT position::pg_lsn >= '{head}' FROM cutwater.checkpoint");
        wait_for("the change at the target", MINUTE, async || self.target.value(&there).await).await;
    }

    async fn cutover(&self, code: i32) -> support::Finished {
        let args = ["cutover", "--json", "--max-lag", "10s", "--hold", "0s"];
        self.cutwater.run(&args, 2 * MINUTE).await.assert_code(code)
    }

    /// Cuts over; what was compared behind the fence, tables and rows.
    async fn compared(&self) -> (String, i64, i64) {
        let done = self.cutover(0).await.json();
        let number = |name: &str| done[name].as_i64().unwrap();
        (done["final_verify"].as_str().unwrap().to_owned(), number("tables"), number("rows"))
    }

    /// Cuts over, finds a difference in this table, and undoes it all.
    async fn finds(&self, table: &str) {
        let undone = self.cutover(4).await;
        let said = undone.stdout + &undone.stderr;
        assert!(said.contains(table), "{said}");
        self.source.execute("UPDATE hot SET v = v WHERE id = 1000").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_row_that_changed_since_the_verify_is_found_and_what_did_not_change_is_not_read() {
    let stage = Stage::verified().await;
    let changes = "
        UPDATE hot SET v = 'new' WHERE id <= 10;
        DELETE FROM hot WHERE id = 11;
        INSERT INTO hot VALUES (5000, 'x', 'y', 5000);
        UPDATE hot SET region = 'moved' WHERE id = 12";
    stage.change(changes).await;
    stage.target.execute("UPDATE hot SET v = 'damaged' WHERE id = 5").await;
    stage.finds("public.hot (1)").await;
    // What was found stands until the next clean comparison.
    stage.cutover(3).await;
    stage.target.execute("UPDATE hot SET v = 'new' WHERE id = 5").await;
    stage.verify().await;
    stage
        .change(changes.replace("id = 12", "id = 13").replace("5000", "5001").replace("id = 11", "id = 14").as_str())
        .await;
    // The key of before is as changed as the key of now.
    stage.target.execute("INSERT INTO hot SELECT 13, 'nörth, \"1\"', 'back again', -1").await;
    stage.finds("public.hot (1)").await;
    stage
        .target
        .execute("DELETE FROM hot WHERE seat = -1; INSERT INTO hot VALUES (14, 'nörth, \"1\"', 'undead', -1)")
        .await;
    stage.cutwater.run(&["verify"], MINUTE).await.assert_code(3);
    stage.target.execute("DELETE FROM hot WHERE seat = -1").await;
    stage.verify().await;
    stage.change("UPDATE hot SET v = 'last' WHERE id BETWEEN 1 AND 3; DELETE FROM hot WHERE id = 4").await;
    // Three rows; the fourth key has none any more. Of the large table not one was read.
    assert_eq!(stage.compared().await, ("changed".to_owned(), 1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_without_key_and_truncated_ones_are_compared_whole() {
    let stage = Stage::verified().await;
    stage.change("INSERT INTO loose VALUES ('one more')").await;
    // Not the row that changed: that cannot be told without a key.
    stage.target.execute("UPDATE loose SET v = 'damaged' WHERE v = 'v7'").await;
    stage.finds("public.loose").await;
    stage.target.execute("UPDATE loose SET v = 'v7' WHERE v = 'damaged'").await;
    stage.verify().await;
    stage.change("TRUNCATE emptied; INSERT INTO emptied VALUES (500, 'after')").await;
    stage.target.execute("INSERT INTO emptied VALUES (7, 'was not emptied')").await;
    stage.finds("public.emptied").await;
    stage.target.execute("DELETE FROM emptied WHERE id = 7").await;
    stage.verify().await;
    stage.change("TRUNCATE emptied; INSERT INTO emptied VALUES (1, 'x'); DELETE FROM loose WHERE v = 'v9'").await;
    assert_eq!(stage.compared().await, ("changed".to_owned(), 2, 1 + 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_limit_a_new_verify_is_asked_for_or_everything_is_compared() {
    let stage = Stage::verified().await;
    stage.target.execute("ALTER TABLE cutwater.tracking ALTER key_limit SET DEFAULT 5").await;
    stage.verify().await;
    stage.change("UPDATE hot SET v = 'a' WHERE id <= 5").await;
    let dry = stage.cutwater.run(&["cutover", "--dry-run", "--max-lag", "10s"], MINUTE).await.assert_code(0);
    assert!(dry.stdout.contains("the 5 rows that changed since the last verify"), "{}", dry.stdout);
    stage.change("UPDATE hot SET v = 'b' WHERE id <= 6").await;
    let off = "SELECT tracking IS NULL AND (SELECT bool_and(overflow) FROM cutwater.tracking) FROM cutwater.checkpoint";
    assert!(stage.target.value::<bool>(off).await);
    // It fits into the downtime: then it is done.
    let dry = stage.cutwater.run(&["cutover", "--dry-run", "--max-lag", "10s"], MINUTE).await.assert_code(0);
    assert!(dry.stdout.contains("all rows of all tables (more than 5 rows changed since then)"), "{}", dry.stdout);
    // It does not: refused, with what helps.
    stage.target.execute("UPDATE cutwater.migration SET verify = verify || '{\"duration_ms\": 60000}'").await;
    let refused = stage.cutwater.run(&["cutover", "--max-lag", "10s"], MINUTE).await.assert_code(3);
    assert!(refused.stdout.contains("more than 5 rows changed since then"), "{}", refused.stdout);
    assert!(refused.stdout.contains("fix: cutwater verify"), "{}", refused.stdout);
    stage.verify().await;
    // However long a comparison of everything takes: there is next to nothing to compare.
    stage.target.execute("UPDATE cutwater.migration SET verify = verify || '{\"duration_ms\": 60000}'").await;
    stage.change("UPDATE hot SET v = 'c' WHERE id <= 2").await;
    assert_eq!(stage.compared().await, ("changed".to_owned(), 1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_loses_no_key_that_changed() {
    let mut stage = Stage::verified().await;
    let client = stage.source.connect().await;
    for round in 0..4 {
        for id in round * 200 + 1..=round * 200 + 200 {
            client.execute("UPDATE hot SET v = 'changed' WHERE id = $1", &[&id]).await.unwrap();
            if id % 200 == 100 {
                let mut run = stage.run.take().unwrap();
                run.kill9();
            }
        }
        stage.run = Some(stage.cutwater.start(&["run"]));
    }
    stage.change("UPDATE hot SET v = 'changed' WHERE id = 900").await;
    assert_eq!(stage.target.value::<i64>("SELECT count(*) FROM cutwater.changed_key").await, 801);
    wait_for("streaming", MINUTE, async || stage.status().await["phase"] == "streaming").await;
    assert_eq!(stage.compared().await, ("changed".to_owned(), 1, 801));
    assert_eq!(stage.target.value::<i64>("SELECT count(*) FROM big").await, BIG);
}
