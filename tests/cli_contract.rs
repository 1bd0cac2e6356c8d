//! What every command keeps to: help that teaches, one JSON object whatever happens, exit codes, a clean end at Ctrl-C, a
//! record of who did what. The list of commands is the program's own: a new one cannot be forgotten.

#![allow(clippy::unwrap_used, reason = "a test dies of its errors")]

mod support;

use std::time::Duration;

use clap::CommandFactory;
use cutwater::cli::Cli;
use support::{Cutwater, Database, Running, pair, wait_for};

const MINUTE: Duration = Duration::from_secs(90);

#[test]
fn the_help_of_every_command_teaches() {
    for command in Cli::command().get_subcommands_mut() {
        let name = command.get_name().to_owned();
        let help = command.render_long_help().to_string();
        for part in ["Example", "Changes: ", "Exit codes: 0 "] {
            assert!(help.contains(part), "cutwater {name} --help has no {part:?}:\n{help}");
        }
        assert!(help.contains(&format!("cutwater {name}")), "cutwater {name} --help has no example of itself:\n{help}");
    }
    let help = Cli::command().render_long_help().to_string();
    assert!(help.contains("change nothing") && help.contains("Every command may be run again"), "{help}");
}

#[test]
fn the_exit_codes_of_the_page_are_those_of_the_help() {
    let page = include_str!("../docs/operations.md");
    let help = Cli::command().render_long_help().to_string();
    for code in ["0", "1", "2", "3", "4", "130"] {
        assert!(page.contains(&format!("| {code} |")), "docs/operations.md does not tell of exit code {code}");
        assert!(help.contains(&format!("{code} ")), "--help does not tell of exit code {code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_json_an_error_is_one_object_on_stdout_for_every_command() {
    let cutwater = Cutwater::new("postgres://a@127.0.0.1:1/x", "postgres://a@127.0.0.1:1/y");
    let broken = Cutwater::with_config("[migration]\nname = \"Not A Name\"\n");
    for command in Cli::command().get_subcommands() {
        let Some(args) = arguments(command.get_name()) else { continue };
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let finished = broken.run(&args, MINUTE).await.assert_code(2);
        assert_eq!(finished.json()["error"]["kind"], "config", "{args:?}: {}", finished.stdout);
        if command.get_name() == "status" {
            // An end that does not answer is an answer.
            assert_eq!(cutwater.run(&args, MINUTE).await.assert_code(0).json()["phase"], serde_json::Value::Null);
            continue;
        }
        let finished = cutwater.run(&args, MINUTE).await.assert_code(1);
        let error = &finished.json()["error"];
        assert_eq!(error["kind"], "connection", "{args:?}: {}", finished.stdout);
        assert!(error["message"].as_str().unwrap().contains("127.0.0.1:1"), "{error}");
        assert!(!finished.stderr.contains("error: "), "{args:?} says it twice: {}", finished.stderr);
    }
}

/// How a command is called that needs its ends; `None`: it has none.
fn arguments(command: &str) -> Option<Vec<&'static str>> {
    Some(match command {
        "init" | "demo" => return None,
        "set" => vec!["set", "snapshot.workers=2"],
        "tables" => vec!["tables", "resync", "public.t"],
        "run" => vec!["run", "--until", "caught-up"],
        // All others need nothing.
        _ => vec![Box::leak(command.to_owned().into_boxed_str())],
    })
}

async fn streaming() -> (Database, Database, Cutwater) {
    let (source, target) = pair().await;
    source.execute("CREATE TABLE public.t (id int PRIMARY KEY, v text); INSERT INTO public.t VALUES (1, 'a')").await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    cutwater.run(&["run", "--until", "caught-up"], MINUTE).await.assert_code(0);
    (source, target, cutwater)
}

async fn interrupted(running: Running) {
    running.sigint();
    running.wait(MINUTE).await.assert_code(130);
}

async fn ended_by_a_service_manager(running: Running, code: i32) {
    running.sigterm();
    running.wait(MINUTE).await.assert_code(code);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_every_long_command_with_130_and_leaves_nothing_half_done() {
    let (source, target, cutwater) = streaming().await;
    // A lock that keeps the comparison waiting for as long as it likes.
    let locker = target.connect().await;
    locker.batch_execute("BEGIN; LOCK TABLE public.t IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let waits = async |what: &str| {
        let sql = format!(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE '%{what}%'"
        );
        wait_for("the command to wait for the lock", MINUTE, async || target.value::<bool>(&sql).await).await;
    };
    // Its session ends with it, also at the server.
    let gone = async || {
        let sql = "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name LIKE '%verify%'";
        wait_for("its sessions to end", MINUTE, async || target.value::<bool>(sql).await).await;
    };
    let verify = cutwater.start(&["verify"]);
    waits("verify").await;
    interrupted(verify).await;
    gone().await;
    // SIGTERM, as service managers send it, means the same everywhere.
    let verify = cutwater.start(&["verify"]);
    waits("verify").await;
    ended_by_a_service_manager(verify, 130).await;
    gone().await;
    // Itself, or the run that it has started.
    let repair = cutwater.start(&["verify", "--repair"]);
    waits("cutwater").await;
    interrupted(repair).await;
    locker.batch_execute("ROLLBACK").await.unwrap();

    let status = cutwater.start(&["status", "--watch"]);
    wait_for("the first screen", MINUTE, async || !status.stdout().is_empty()).await;
    interrupted(status).await;
    // Nobody runs: the gates stay closed, and nothing is fenced.
    let waiting = cutwater.start(&["cutover", "--wait"]);
    wait_for("the gates", MINUTE, async || waiting.stderr().contains("waiting for")).await;
    interrupted(waiting).await;
    let waiting = cutwater.start(&["cutover", "--wait"]);
    wait_for("the gates", MINUTE, async || waiting.stderr().contains("waiting for")).await;
    ended_by_a_service_manager(waiting, 130).await;
    let tables = cutwater.start(&["tables", "resync", "public.t", "--wait"]);
    let asked = "SELECT count(*) FROM cutwater.table_request";
    wait_for("the request", MINUTE, async || target.value::<i64>(asked).await == 1).await;
    ended_by_a_service_manager(tables, 130).await;
    let run = cutwater.start(&["run"]);
    wait_for("the stream", MINUTE, async || run.stderr().contains("following the source")).await;
    ended_by_a_service_manager(run, 0).await;
    source.execute("INSERT INTO public.t VALUES (2, 'still takes writes')").await;
    cutwater.run(&["run", "--until", "caught-up"], MINUTE).await.assert_code(0);
    cutwater.run(&["verify"], MINUTE).await.assert_code(0);
    let attempts: i64 = target.value("SELECT count(*) FROM cutwater.cutover").await;
    assert_eq!(attempts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_did_what_is_on_record_from_the_first_command_to_the_last() {
    let (source, target) = pair().await;
    source.execute("CREATE TABLE public.t (id int PRIMARY KEY)").await;
    let cutwater = Cutwater::new(&source.url(), &target.url());
    let text = cutwater.run(&["status"], MINUTE).await.assert_code(0).stdout;
    assert!(text.contains("NEW") && text.contains("cutwater check"), "nothing was begun yet, says:\n{text}");
    assert_eq!(cutwater.run(&["status", "--json"], MINUTE).await.assert_code(0).json()["phase"], "new");
    cutwater.run(&["schema", "--apply"], MINUTE).await.assert_code(0);
    cutwater.run(&["run", "--until", "caught-up"], MINUTE).await.assert_code(0);
    cutwater.run(&["cutover"], MINUTE).await.assert_code(3);
    let removed = cutwater.run(&["teardown", "--json"], MINUTE).await.assert_code(0).json();
    let events: Vec<String> = removed["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| format!("{}: {}", event["command"].as_str().unwrap(), event["outcome"].as_str().unwrap()))
        .collect();
    let expected = [
        "schema --apply: started",
        "schema --apply: done",
        "run: started",
        "run: done",
        "cutover: started",
        "cutover: refused",
        "teardown: started",
    ];
    assert_eq!(events, expected);
    let left: i64 = target.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'cutwater'").await;
    assert_eq!(left, 0, "teardown leaves nothing");
}
