//! What Cutwater remembers. Over the life of a migration that outlives a release: the last format is read and upgraded, a
//! newer one is refused by every command before anything is touched. And the same laws in a target of every engine.

#![allow(clippy::unwrap_used, reason = "a test dies of its errors")]

mod remembered;
mod support;

use std::time::Duration;

use clap::CommandFactory;
use cutwater::cli::Cli;
use cutwater::config::Config;
use cutwater::error::Kind;
use cutwater::schema::{Became, Leaf, LeafChange, Shape};
use cutwater::source::postgres::membership::Membership;
use cutwater::target::state::{
    CutoverStep, Event, FORMAT, LeaseOutcome, NewTable, Order, Phase, Requested, TableAction, TableRequest, TableStage,
    Tracked,
};
use remembered::{TTL, at, begun, everywhere, name, new_table, source, taken};
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

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_is_begun_once_and_keeps_what_it_was_begun_with() {
    everywhere(async |target| {
        let state = target.state("shop");
        assert!(state.migration().await.unwrap().is_none() && !state.has_layout().await.unwrap());
        assert!(state.tables().await.unwrap().is_empty() && state.checkpoint().await.unwrap().is_none());
        let (state, lease) = begun(target, "shop", &[]).await;
        state.begin("other ends", &source(), "other", "other").await.unwrap();
        let migration = state.migration().await.unwrap().unwrap();
        assert_eq!((migration.fingerprint.as_str(), migration.format), ("the ends", FORMAT));
        assert_eq!(format!("{:?}", migration.source), format!("{:?}", source()));
        assert_eq!(migration.source_label, "postgres old:5432/shop");
        assert_eq!((migration.phase, migration.slot_position), (Phase::New, Some(at(100))));
        let age = jiff::Timestamp::now().duration_since(migration.created_at);
        assert!(age.abs() < jiff::SignedDuration::from_mins(5), "times are in UTC: {age:?}");

        state.set_phase(&lease, Phase::Streaming).await.unwrap();
        let since = state.migration().await.unwrap().unwrap().phase_since;
        state.set_phase(&lease, Phase::Streaming).await.unwrap();
        assert_eq!(state.migration().await.unwrap().unwrap().phase_since, since, "the same phase goes on");
        assert!(!state.move_phase(&[Phase::New, Phase::Draining], Phase::TargetLive).await.unwrap());
        assert!(state.move_phase(&[Phase::New, Phase::Streaming], Phase::Draining).await.unwrap());
        let migration = state.migration().await.unwrap().unwrap();
        assert!(migration.phase == Phase::Draining && migration.phase_since > since);

        state.set_copied_until(&lease, &at(700)).await.unwrap();
        state.set_slot_position(&lease, &at(200)).await.unwrap();
        assert_eq!(state.migration().await.unwrap().unwrap().copied_until, Some(at(700)));
        let checkpoint = state.checkpoint().await.unwrap().unwrap();
        assert_eq!((checkpoint.position, checkpoint.epoch, checkpoint.changes), (at(200), lease.epoch, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_is_one_process_s_until_it_ends() {
    everywhere(async |target| {
        let (first, lease) = begun(target, "shop", &["users"]).await;
        let second = target.state("shop");
        let asked = second.take_lease("host pid 2", TTL, |_| false).await.unwrap();
        assert!(matches!(asked, LeaseOutcome::Held(by) if by == "host pid 1"));
        let migration = second.migration().await.unwrap().unwrap();
        assert!(migration.lease_valid && migration.epoch == lease.epoch);
        first.renew_lease(&lease, TTL).await.unwrap();
        first.renew_lease(&lease, TTL).await.unwrap();

        // Given up, run out, or left by a dead process: it is the next one's.
        first.release_lease(&lease).await.unwrap();
        let lease = taken(&second, "host pid 2").await;
        second.renew_lease(&lease, Duration::ZERO).await.unwrap();
        assert!(!first.migration().await.unwrap().unwrap().lease_valid);
        let newer = taken(&first, "host pid 1").await;
        assert_eq!(newer.epoch, lease.epoch + 1);
        let asked = second.take_lease("host pid 2", TTL, |holder| holder == "host pid 1").await.unwrap();
        assert!(matches!(asked, LeaseOutcome::Taken(lease) if lease.epoch == newer.epoch + 1));

        // Who has lost it writes nothing.
        let users = name("users");
        for late in [
            first.renew_lease(&newer, TTL).await,
            first.set_phase(&newer, Phase::Streaming).await,
            first.set_slot_position(&newer, &at(1)).await,
            first.set_copied_until(&newer, &at(1)).await,
            first.set_shape(&newer, &users, &Shape::default()).await,
            first.set_finished(&newer, &users).await,
            first.set_memberships(Some(&newer), &[(users.clone(), Membership::parse("1 2"))]).await,
            first.begin_side(&newer, std::slice::from_ref(&users), &at(1)).await,
            first.hand_over(&newer, std::slice::from_ref(&users), &at(1)).await,
            first.end_side(&newer).await,
            first.settle_requests(&newer, &[], &[]).await.map(drop),
            first.route(&newer, 2).await.map(drop),
            first.upgrade(&newer, "other ends", &[]).await,
        ] {
            assert_eq!(late.unwrap_err().kind(), Kind::Fenced);
        }
        let checkpoint = second.checkpoint().await.unwrap().unwrap();
        assert_eq!((checkpoint.position, checkpoint.epoch), (at(100), newer.epoch + 1));
        assert!(second.memberships().await.unwrap().is_empty() && second.shapes().await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_frozen_past_its_lease_is_waited_for_and_the_next_one_is_fenced() {
    everywhere(async |target| {
        let (first, lease) = begun(target, "shop", &["users"]).await;
        // The process stops in the middle of a batch; its lease runs out.
        let batch = |from: u64, to: u64| {
            format!(
                "UPDATE cutwater.checkpoint SET position = '{}' WHERE migration = 'shop' AND worker = 0 AND epoch = {}
                    AND position = '{}'",
                at(to),
                lease.epoch,
                at(from)
            )
        };
        let mut frozen = target.session().await;
        frozen.execute("BEGIN").await;
        assert_eq!(frozen.execute(&batch(100, 150)).await, 1);
        first.renew_lease(&lease, Duration::ZERO).await.unwrap();

        let successor = target.state("shop");
        let taking = tokio::spawn({
            let successor = successor.clone();
            async move { taken(&successor, "host pid 2").await }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!taking.is_finished(), "the batch is still open");
        frozen.execute("COMMIT").await;
        let newer = taking.await.unwrap();
        let checkpoint = successor.checkpoint().await.unwrap().unwrap();
        assert_eq!((checkpoint.position, checkpoint.epoch), (at(150), newer.epoch));
        // It goes on where it was, and finds no row.
        assert_eq!(frozen.execute(&batch(150, 200)).await, 0);
        assert_eq!(first.renew_lease(&lease, TTL).await.unwrap_err().kind(), Kind::Fenced);
        let copied = format!("UPDATE cutwater.table_state SET stage = 'copied' WHERE epoch = {}", lease.epoch);
        assert_eq!(frozen.execute(&copied).await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_come_at_once_one_lays_the_layout_and_one_has_the_lease() {
    everywhere(async |target| {
        let states: Vec<_> = (0..6).map(|_| target.state("shop")).collect();
        let installed = futures::future::join_all(states.iter().map(|state| async {
            state.install().await?;
            state.begin("the ends", &source(), "old", "new").await
        }));
        for done in installed.await {
            done.unwrap();
        }
        let holders: Vec<String> = (0..6).map(|pid| format!("host pid {pid}")).collect();
        let asked = states.iter().zip(&holders).map(|(state, holder)| state.take_lease(holder, TTL, |_| false));
        let asked = futures::future::try_join_all(asked).await.unwrap();
        let taken = asked.iter().filter(|outcome| matches!(outcome, LeaseOutcome::Taken(_))).count();
        assert_eq!(taken, 1, "{asked:?}");

        // Through one and the same access too: nothing is lost between them.
        let orders = (0..8).map(|key| {
            let (state, key) = (states[0].clone(), format!("key.{key}"));
            async move {
                let order = Order { settings: [(key, Some("1".to_owned()))].into(), ..Order::default() };
                state.order(&order, "somebody").await.unwrap()
            }
        });
        let mut versions = futures::future::join_all(orders).await;
        versions.sort_unstable();
        assert_eq!(versions, (1..=8).collect::<Vec<_>>());
        assert_eq!(states[1].control().await.unwrap().settings.len(), 8);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_broken_is_made_anew() {
    everywhere(async |target| {
        let (state, lease) = begun(target, "shop", &[]).await;
        target.end_sessions().await;
        // Whoever was in the middle is told; the next is not.
        if let Err(error) = state.renew_lease(&lease, TTL).await {
            assert_eq!(error.kind(), Kind::Connection, "{error}");
        }
        state.renew_lease(&lease, TTL).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_remembered_letter_by_letter() {
    everywhere(async |target| {
        let names = [
            "users",
            "Users",
            "USERS",
            "we\"ird",
            "it's",
            "back`tick",
            "back\\slash",
            "Größe",
            "Grösse",
            "東京 🗼",
            "%_$1",
        ];
        let (state, lease) = begun(target, "shop", &names).await;
        let tables: Vec<NewTable> = names.iter().map(|table| new_table(&name(table), 9)).collect();
        state.add_tables(&lease, &tables).await.unwrap();
        let known = state.tables().await.unwrap();
        let mut sources: Vec<&str> = known.iter().map(|table| table.source.table.as_str()).collect();
        let mut expected = names.to_vec();
        sources.sort_unstable();
        expected.sort_unstable();
        assert_eq!(sources, expected);
        assert!(known.iter().all(|table| table.bytes_estimate == 0), "what is there already stays");

        for (number, table) in names.iter().enumerate() {
            let table = name(table);
            state.report_progress(&table, number as i64, 7, Some(&table.table)).await.unwrap();
            state
                .set_memberships(Some(&lease), &[(table.clone(), Membership::parse(&format!("{number} x")))])
                .await
                .unwrap();
            let shape = Shape { id: number as u32, key: vec![table.table.clone()], ..Shape::default() };
            state.set_shape(&lease, &table, &shape).await.unwrap();
        }
        let (memberships, shapes) = (state.memberships().await.unwrap(), state.shapes().await.unwrap());
        for table in state.tables().await.unwrap() {
            let number = names.iter().position(|name| *name == table.source.table).unwrap();
            assert_eq!((table.rows_copied, table.waits_for.as_ref()), (number as i64, Some(&table.source.table)));
            assert_eq!(memberships[&table.source], Membership::parse(&format!("{number} x")));
            assert_eq!((shapes[&table.source].id, &shapes[&table.source].key[0]), (number as u32, &table.source.table));
        }
        let users = name("users");
        state.forget_shape(&lease, &users).await.unwrap();
        let shapes = state.shapes().await.unwrap();
        assert!(!shapes.contains_key(&users) && shapes.contains_key(&name("Users")));
        let other = target.state("other");
        assert!(other.claimed(&[name("uSERS")]).await.unwrap().is_none());
        let (migration, table) = other.claimed(&[name("nothing"), name("Users")]).await.unwrap().unwrap();
        assert_eq!((migration.as_str(), table), ("shop", name("Users")));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_become_stages_unless_a_cutover_has_begun() {
    everywhere(async |target| {
        let (state, lease) = begun(target, "shop", &["users", "old"]).await;
        let request = |table: &str, action| TableRequest { source: name(table), action };
        let asked = [request("users", TableAction::Skip), request("Users", TableAction::Add)];
        assert_eq!(state.request(&asked).await.unwrap(), Requested::Accepted);
        let asked = [request("users", TableAction::Resync), request("old", TableAction::Remove)];
        assert_eq!(state.request(&asked).await.unwrap(), Requested::Accepted);
        let requests = state.requests().await.unwrap();
        assert_eq!(requests.len(), 3, "the last word counts: {requests:?}");
        assert!(requests.contains(&asked[0]));
        state.drop_request(&request("users", TableAction::Skip)).await.unwrap();
        assert_eq!(state.requests().await.unwrap().len(), 3, "it was changed meanwhile");

        let shapes =
            [NewTable { target: name("renamed"), ..new_table(&name("Users"), 77) }, new_table(&name("users"), 5)];
        assert!(state.settle_requests(&lease, &requests, &shapes).await.unwrap());
        assert!(state.requests().await.unwrap().is_empty());
        let tables = state.tables().await.unwrap();
        let added = tables.iter().find(|table| table.source == name("Users")).unwrap();
        assert_eq!((&added.target, added.bytes_estimate, added.stage), (&name("renamed"), 77, TableStage::Waiting));
        assert_eq!(tables.len(), 2, "what was removed is no part of it");
        assert_eq!(state.tables_ever().await.unwrap().len(), 3);

        let failure = cutwater::error::Error::new(Kind::Schema, "no such type").fix("make it");
        state.set_failed(&lease, &name("users"), &failure).await.unwrap();
        let tables = state.tables().await.unwrap();
        let failed = tables.iter().find(|table| table.source == name("users")).unwrap();
        assert_eq!((failed.stage, failed.error.as_deref()), (TableStage::Failed, Some("no such type\n  fix: make it")));

        state.set_phase(&lease, Phase::Draining).await.unwrap();
        assert_eq!(state.request(&asked).await.unwrap(), Requested::Closed);
        assert!(!state.settle_requests(&lease, &asked, &[]).await.unwrap());
        assert!(state.requests().await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_copy_is_handed_over_whole_or_forgotten_whole() {
    everywhere(async |target| {
        let (state, lease) = begun(target, "shop", &["users", "orders"]).await;
        target.execute("UPDATE cutwater.table_state SET stage = 'copied'").await;
        assert_eq!(state.begin_tracking().await.unwrap(), Some(1));
        let both = [name("users"), name("orders")];
        state.begin_side(&lease, &both, &at(300)).await.unwrap();
        assert!(state.tables().await.unwrap().iter().all(|table| table.stage == TableStage::Waiting));
        assert_eq!(state.begin_tracking().await.unwrap(), None, "copies write keys that nobody keeps");
        state.end_side(&lease).await.unwrap();
        assert_eq!(target.number("SELECT count(*) FROM cutwater.checkpoint WHERE worker < 0").await, 0);

        state.begin_side(&lease, &both, &at(300)).await.unwrap();
        let elsewhere = state.hand_over(&lease, &both, &at(301)).await.unwrap_err();
        assert_eq!(elsewhere.kind(), Kind::Fenced, "only from where its own stream ended");
        assert_eq!(target.number("SELECT count(*) FROM cutwater.table_state WHERE side").await, 2);
        let unknown = [name("users"), name("nothing")];
        assert!(state.hand_over(&lease, &unknown, &at(300)).await.is_err());
        assert_eq!(target.number("SELECT count(*) FROM cutwater.table_state WHERE side").await, 2);
        state.hand_over(&lease, &both, &at(300)).await.unwrap();
        for table in state.tables().await.unwrap() {
            assert_eq!((table.stage, table.copied_at, table.unfinished), (TableStage::Copied, Some(at(300)), true));
        }
        let Tracked::Whole(changed) = state.changed_since(1).await.unwrap() else { panic!("tracking is on") };
        let whole: Vec<&str> = changed.whole.iter().map(|(table, _)| table.as_str()).collect();
        assert_eq!(whole, ["\"shop\".\"orders\"", "\"shop\".\"users\""]);
        state.set_finished(&lease, &name("users")).await.unwrap();
        assert_eq!(target.number("SELECT count(*) FROM cutwater.table_state WHERE unfinished").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_partitions_are_remembered() {
    everywhere(async |target| {
        let (state, _lease) = begun(target, "shop", &["users"]).await;
        for (number, lower, upper, copied) in [(0, "NULL", "10", "'0/64'"), (1, "10", "9223372036854775807", "NULL")] {
            let row = format!("'shop', 'shop', 'users', {number}, 'Id', {lower}, {upper}, {copied}, 8");
            target.execute(&format!("INSERT INTO cutwater.table_chunk VALUES ({row})")).await;
        }
        let chunks = state.chunks().await.unwrap();
        let map = &chunks[&name("users")];
        assert_eq!((map.column.as_str(), map.chunks.len()), ("Id", 2));
        assert_eq!((map.chunks[0].lower, map.chunks[0].copied_at.clone()), (None, Some(at(100))));
        assert_eq!((map.chunks[1].upper, map.chunks[1].rows), (Some(i64::MAX), 8));
        state.forget_chunks(&name("Users")).await.unwrap();
        assert_eq!(state.chunks().await.unwrap().len(), 1);
        state.forget_chunks(&name("users")).await.unwrap();
        assert!(state.chunks().await.unwrap().is_empty());

        let leaf = Leaf { name: "p1".into(), file: u32::MAX, attached: "742".into() };
        let known = LeafChange { table: "shop.users".into(), id: 4_000_000_000, leaf, became: Became::Attached };
        let unknown = LeafChange { id: 5, ..known.clone() };
        state.know_leaf(&known).await.unwrap();
        state.know_leaf(&known).await.unwrap();
        let left = state.without_known_leaves(vec![known, unknown.clone()]).await.unwrap();
        assert_eq!(left, [unknown]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_of_two_drivers_takes_a_step_of_a_cutover() {
    everywhere(async |target| {
        let (state, _lease) = begun(target, "shop", &[]).await;
        assert!(state.cutover().await.unwrap().is_none());
        let deadline = "2031-02-03T04:05:06.789012Z".parse().unwrap();
        state.begin_cutover("nonce", deadline).await.unwrap();
        assert!(state.begin_cutover("nonce", deadline).await.is_err(), "a nonce is used once");
        let cutover = state.cutover().await.unwrap().unwrap();
        assert_eq!((cutover.step, cutover.deadline, cutover.note), (CutoverStep::Fencing, Some(deadline), None));

        let others: Vec<_> = (0..4).map(|_| target.state("shop")).collect();
        let from = [CutoverStep::Fencing, CutoverStep::Drained];
        let moves = others.iter().map(|state| state.move_cutover("nonce", &from, CutoverStep::Fenced, Some("it's on")));
        let moved = futures::future::try_join_all(moves).await.unwrap();
        assert_eq!(moved.iter().filter(|moved| **moved).count(), 1);
        assert!(!state.move_cutover("other", &[CutoverStep::Fenced], CutoverStep::Drained, None).await.unwrap());
        assert!(state.move_cutover("nonce", &[CutoverStep::Fenced], CutoverStep::Undone, None).await.unwrap());
        target.execute("UPDATE cutwater.cutover SET drained_at = '0/C8', broken = 'shop.users changed'").await;
        let cutover = state.cutover().await.unwrap().unwrap();
        assert_eq!((cutover.note.as_deref(), cutover.drained_at), (Some("it's on"), Some(at(200))));
        state.begin_cutover("newer", deadline).await.unwrap();
        assert_eq!(state.cutover().await.unwrap().unwrap().nonce, "newer");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_the_run_lasts_until_it_is_taken_back() {
    everywhere(async |target| {
        let (state, _lease) = begun(target, "shop", &[]).await;
        assert_eq!(state.control().await.unwrap(), Default::default());
        let set = |key: &str, value: Option<&str>| [(key.to_owned(), value.map(str::to_owned))].into();
        let pause =
            Order { apply_paused: Some(true), settings: set("apply.batch", Some("\"1 MB\"")), ..Order::default() };
        assert_eq!(state.order(&pause, "anna").await.unwrap(), 1);
        let since = state.control().await.unwrap().apply_paused_at;
        assert!(since.is_some());
        let more = Order { apply_paused: Some(true), settings: set("snapshot.workers", Some("2")), ..Order::default() };
        assert_eq!(state.order(&more, "ben").await.unwrap(), 2);
        let control = state.control().await.unwrap();
        assert_eq!(control.apply_paused_at, since, "a pause that lasts keeps its beginning");
        assert_eq!((control.paused_by.as_deref(), control.settings.len()), (Some("ben"), 2));
        assert_eq!(control.settings["apply.batch"], "\"1 MB\"");
        let go_on = Order { apply_paused: Some(false), settings: set("apply.batch", None), ..Order::default() };
        assert_eq!(state.order(&go_on, "anna").await.unwrap(), 3);
        state.acknowledge(3, "host pid 1").await.unwrap();
        let control = state.control().await.unwrap();
        assert_eq!((control.apply_paused_at, control.snapshot_paused_at), (None, None));
        assert_eq!(control.settings.keys().collect::<Vec<_>>(), ["snapshot.workers"]);
        assert_eq!((control.acknowledged, control.acknowledged_by.as_deref()), (3, Some("host pid 1")));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_kept_in_order_and_what_was_set_aside_is_settled_up_to_a_moment() {
    everywhere(async |target| {
        let (state, _lease) = begun(target, "shop", &[]).await;
        for outcome in ["started", "error: \"no\" – `it's` gone", "done"] {
            let event = Event {
                at: None,
                os_user: "anna".into(),
                host: "höst".into(),
                version: "1".into(),
                command: "run".into(),
                outcome: outcome.into(),
            };
            state.record(&event).await.unwrap();
        }
        let events = state.events().await.unwrap();
        assert_eq!(events.len(), 3);
        assert_eq!((events[1].outcome.as_str(), events[1].host.as_str()), ("error: \"no\" – `it's` gone", "höst"));
        assert!(events[0].at <= events[2].at);

        let letter = "INSERT INTO cutwater.dead_letter (migration, position, tbl, op, error)
                      VALUES ('shop', '0/1', 't', 'insert', 'no')";
        target
            .execute(
                "INSERT INTO cutwater.checkpoint (migration, worker, epoch, position, divergences)
                        VALUES ('shop', 1, 1, '0/1', 4), ('shop', 2, 1, '0/1', 4)",
            )
            .await;
        target.execute("UPDATE cutwater.checkpoint SET divergences = 1 WHERE worker = 0").await;
        target.execute(letter).await;
        let then = state.set_aside().await.unwrap();
        assert_eq!(
            (state.dead_letters().await.unwrap(), state.checkpoint().await.unwrap().unwrap().divergences),
            (1, 9)
        );
        target.execute(letter).await;
        target.execute("UPDATE cutwater.checkpoint SET divergences = divergences + 3 WHERE worker = 2").await;
        state.settle(then).await.unwrap();
        assert_eq!(
            (state.dead_letters().await.unwrap(), state.checkpoint().await.unwrap().unwrap().divergences),
            (1, 3)
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_since_a_verify_is_known_whole_or_not_at_all() {
    everywhere(async |target| {
        let (state, lease) = begun(target, "shop", &["users"]).await;
        assert_eq!(state.begin_tracking().await.unwrap(), None, "a table is being copied");
        target.execute("UPDATE cutwater.table_state SET stage = 'copied'").await;
        let first = state.begin_tracking().await.unwrap().unwrap();
        let second = state.begin_tracking().await.unwrap().unwrap();
        assert_eq!((first, second), (1, 2));
        let key = match target {
            remembered::Target::Postgres(_) => "ARRAY['a', 'b']",
            remembered::Target::MySql(_) => "'[\"a\", \"b\"]'",
        };
        for (generation, table, hash) in [(1, "A", 5), (2, "A", 5), (2, "A", -6), (2, "a", 5)] {
            let row = format!("'shop', {generation}, '{table}', {hash}, {key}");
            target.execute(&format!("INSERT INTO cutwater.changed_key VALUES ({row})")).await;
        }
        target.execute("INSERT INTO cutwater.changed_table VALUES ('shop', 2, 'b', 'it was truncated')").await;
        let Tracked::Whole(changed) = state.changed_since(first).await.unwrap() else { panic!("tracking is on") };
        let keys: Vec<_> =
            changed.keys.iter().map(|k| (k.generation, k.table.as_str(), k.count, k.columns.clone())).collect();
        assert_eq!(keys, [(1, "A", 1, 2..=2), (2, "A", 2, 2..=2), (2, "a", 1, 2..=2)]);
        assert_eq!(changed.whole, [("b".to_owned(), "it was truncated".to_owned())]);
        let Tracked::Whole(changed) = state.changed_since(second).await.unwrap() else { panic!("tracking is on") };
        assert_eq!(changed.keys.len(), 2);

        // A clean verify forgets what was before it.
        state.set_verify(3, 0, 50, Some(second), None).await.unwrap();
        assert!(matches!(state.changed_since(first).await.unwrap(), Tracked::Lost(_)));
        assert_eq!(target.number("SELECT count(*) FROM cutwater.changed_key").await, 3);
        let verify = state.migration().await.unwrap().unwrap().verify.unwrap();
        assert_eq!((verify.tables, verify.generation), (3, Some(second)));
        target.execute("UPDATE cutwater.tracking SET overflow = true").await;
        assert!(matches!(state.changed_since(second).await.unwrap(), Tracked::Lost(why) if why.contains("1000000")));
        // Nor is anything known behind a new slot.
        assert_eq!(state.begin_tracking().await.unwrap(), Some(3));
        state.set_slot_position(&lease, &at(900)).await.unwrap();
        assert!(matches!(state.changed_since(3).await.unwrap(), Tracked::Lost(_)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_stay_with_their_worker_while_one_is_beyond_the_first() {
    everywhere(async |target| {
        let (state, lease) = begun(target, "shop", &["a", "b", "c"]).await;
        target.execute("UPDATE cutwater.table_state SET stage = 'copied'").await;
        let routing = state.route(&lease, 2).await.unwrap();
        assert_eq!((routing.workers(), routing.furthest_beyond()), (2, None));
        assert_eq!(routing.by_target()[&name("b")], 1);
        assert_eq!(state.workers().await.unwrap(), [at(100), at(100)]);

        target.execute("UPDATE cutwater.checkpoint SET position = '0/C8', changes = 7 WHERE worker = 1").await;
        let routing = state.route(&lease, 3).await.unwrap();
        assert_eq!((routing.workers(), routing.furthest_beyond()), (2, Some(at(200))));
        assert_eq!((routing.beyond(&name("b")), routing.beyond(&name("a"))), (Some(&at(200)), None));
        target.execute("UPDATE cutwater.checkpoint SET position = '0/C8', changes = 1 WHERE worker = 0").await;
        assert_eq!(state.route(&lease, 3).await.unwrap().workers(), 3);
        assert_eq!(state.route(&lease, 1).await.unwrap().workers(), 1);
        let checkpoint = state.checkpoint().await.unwrap().unwrap();
        assert_eq!((checkpoint.position, checkpoint.changes), (at(200), 8), "what the others did is not forgotten");
        assert_eq!(target.number("SELECT count(*) FROM cutwater.table_state WHERE worker <> 0").await, 0);

        // While they are held, no batch begins.
        let held = state.hold_workers().await.unwrap();
        let mut batch = target.session().await;
        let begun = tokio::spawn(async move {
            batch.execute("UPDATE cutwater.checkpoint SET changes = 9 WHERE migration = 'shop'").await
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!begun.is_finished());
        drop(held);
        assert_eq!(begun.await.unwrap(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_a_migration_leaves_nothing_of_it_and_all_of_the_others() {
    everywhere(async |target| {
        let mut of_each = 0;
        for migration in ["shop", "other"] {
            let (state, _lease) = begun(target, migration, &["users"]).await;
            let m = migration;
            target.execute(&format!("UPDATE cutwater.table_state SET stage = 'copied' WHERE migration = '{m}'")).await;
            state.begin_tracking().await.unwrap().unwrap();
            state.order(&Order::default(), "anna").await.unwrap();
            state.request(&[TableRequest { source: name("users"), action: TableAction::Resync }]).await.unwrap();
            state.report_progress(&name("users"), 1, 1, None).await.unwrap();
            state.begin_cutover("nonce", jiff::Timestamp::now()).await.unwrap();
            let leaf = Leaf { name: "p1".into(), file: 1, attached: "7".into() };
            let leaf = LeafChange { table: "t".into(), id: 1, leaf, became: Became::Attached };
            state.know_leaf(&leaf).await.unwrap();
            let report = if let remembered::Target::Postgres(_) = target { "'{}'::jsonb" } else { "'{}'" };
            let key = if let remembered::Target::Postgres(_) = target { "ARRAY['a']" } else { "'[\"a\"]'" };
            for rows in [
                format!("run (migration, report) VALUES ('{m}', {report})"),
                format!("changed_key VALUES ('{m}', 1, 't', 1, {key})"),
                format!("changed_table VALUES ('{m}', 1, 't', 'why')"),
                format!("table_chunk VALUES ('{m}', 'shop', 'users', 1, 'id', NULL, NULL, NULL, 0)"),
                format!("dead_letter (migration, position, tbl, op, error) VALUES ('{m}', '0/1', 't', 'insert', 'no')"),
            ] {
                target.execute(&format!("INSERT INTO cutwater.{rows}")).await;
            }
            of_each = target.rows_of(migration).await;
            assert_eq!(of_each, remembered::TABLES.len() as i64 + 1, "one row in each table");
        }
        let state = target.state("shop");
        state.remove().await.unwrap();
        assert_eq!((target.rows_of("shop").await, target.rows_of("other").await), (0, of_each));
        assert!(state.migration().await.unwrap().is_none());
        target.state("other").remove().await.unwrap();
        let schemas = "SELECT count(*) FROM information_schema.schemata WHERE schema_name = 'cutwater'";
        assert_eq!(target.number(schemas).await, 0);
        state.remove().await.unwrap();
        assert!(!state.has_layout().await.unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_format_is_refused_by_every_access_in_every_engine() {
    everywhere(async |target| {
        let (state, _lease) = begun(target, "shop", &[]).await;
        target.execute(&format!("UPDATE cutwater.migration SET format = {}", FORMAT + 1)).await;
        let says = |error: cutwater::error::Error| {
            assert!(error.kind() == Kind::Config && error.to_string().contains("has format"), "{error}");
        };
        says(state.migration().await.unwrap_err());
        says(target.state("shop").tables().await.unwrap_err());
        says(target.state("beside").install().await.unwrap_err());
    })
    .await;
}
