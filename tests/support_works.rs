//! The tests' own tools do what the other tests trust them to do.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::process::{Command, Stdio};
use std::time::Duration;

use cutwater::mysql::Flavour;
use support::{MyOptions, Proxy, ServerOptions, StopMode, my_server, mysql, wait_for};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_server_survives_kill_9_with_its_committed_rows_on_the_same_port() {
    let mut server = support::postgres().await;
    let port = server.port();
    server.execute("postgres", "CREATE TABLE t (id int); INSERT INTO t VALUES (1)").await.unwrap();
    server.kill9().unwrap();
    server.start_again().unwrap();
    assert_eq!(server.port(), port);
    server.restart(StopMode::Fast).unwrap();
    let rows = server.connect("postgres").await.unwrap().query("TABLE t", &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
}

#[tokio::test]
async fn nothing_is_left_of_a_dropped_server() {
    let server = support::postgres().await;
    let folder = server.folder().to_owned();
    assert!(folder.exists());
    drop(server);
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_server_that_does_not_start_shows_its_log() {
    let error = match support::LocalPostgres::start(ServerOptions::new().setting("wal_level", "nonsense")).await {
        Ok(_) => panic!("it started"),
        Err(error) => error.to_string(),
    };
    assert!(error.contains("invalid value for parameter \"wal_level\""), "{error}");
}

#[tokio::test]
async fn passwords_are_asked_for_where_pg_hba_says_so() {
    let server = support::postgres_with(ServerOptions::new().hba("host all all 127.0.0.1/32 scram-sha-256")).await;
    server.execute("postgres", "CREATE ROLE app LOGIN PASSWORD 'sec:ret'").await.unwrap();
    let good = server.url_with_password("app", "sec:ret", "postgres");
    assert!(tokio_postgres::connect(&good, tokio_postgres::NoTls).await.is_ok());
    let bad = server.url_with_password("app", "wrong", "postgres");
    assert!(tokio_postgres::connect(&bad, tokio_postgres::NoTls).await.is_err());
}

/// The parent is this same test binary, run again as a child that starts a server and waits to be killed.
#[tokio::test]
async fn a_server_ends_with_a_parent_that_is_killed_with_9() {
    const VARIABLE: &str = "CUTWATER_TEST_PARENT_OF_A_SERVER";
    if let Ok(note) = std::env::var(VARIABLE) {
        let server = support::postgres().await;
        std::fs::write(note, server.folder().to_str().unwrap()).unwrap();
        std::future::pending::<()>().await;
    }
    let place = tempfile::tempdir().unwrap();
    let note = place.path().join("note");
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_server_ends_with_a_parent_that_is_killed_with_9"])
        .env(VARIABLE, &note)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the server", SOON, async || note.exists() && !std::fs::read_to_string(&note).unwrap().is_empty()).await;
    let folder = std::path::PathBuf::from(std::fs::read_to_string(&note).unwrap());
    let pid_file = std::fs::read_to_string(folder.join("data/postmaster.pid")).unwrap();
    let postmaster = pid_file.lines().next().unwrap().to_owned();
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_for("the folder to go", SOON, async || !folder.exists()).await;
    wait_for("the postmaster to end", SOON, async || {
        std::fs::read(format!("/proc/{postmaster}/cmdline")).is_ok_and(|line| line.is_empty())
            || !std::path::Path::new(&format!("/proc/{postmaster}")).exists()
    })
    .await;
}

/// As for Postgres: the parent is this binary, run again.
#[tokio::test(flavor = "multi_thread")]
async fn a_mariadb_server_ends_with_a_parent_that_is_killed_with_9() {
    const NAME: &str = "a_mariadb_server_ends_with_a_parent_that_is_killed_with_9";
    const VARIABLE: &str = "CUTWATER_TEST_PARENT_OF_A_MARIADB_SERVER";
    let start = || my_server(Flavour::MariaDb, MyOptions::new(), NAME);
    if let Ok(note) = std::env::var(VARIABLE) {
        let server = start().await.unwrap();
        std::fs::write(note, server.data_directory().to_str().unwrap()).unwrap();
        std::future::pending::<()>().await;
    }
    if support::my_programs(Flavour::MariaDb).is_err() {
        assert!(start().await.is_none());
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let note = place.path().join("note");
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME])
        .env(VARIABLE, &note)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let read = || std::fs::read_to_string(&note).unwrap_or_default();
    wait_for("the server", Duration::from_secs(120), async || !read().is_empty()).await;
    let data = std::path::PathBuf::from(read());
    let server = std::fs::read_to_string(data.parent().unwrap().join("pid")).unwrap().trim().to_owned();
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_for("the folder to go", Duration::from_secs(60), async || !data.parent().unwrap().exists()).await;
    let gone = async || std::fs::read(format!("/proc/{server}/cmdline")).map_or(true, |line| line.is_empty());
    wait_for("the server to end", SOON, gone).await;
}

async fn a_server_survives_kill_9_and_goes_back_to_a_copy(flavour: Flavour) {
    let Some(mut server) = my_server(flavour, MyOptions::new(), "a_server_survives_kill_9_and_goes_back").await else {
        return;
    };
    let (port, folder) = (server.port(), server.data_directory());
    server.execute(mysql::DATABASE, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    server.crash();
    server.start_again();
    assert_eq!(server.port(), port);
    server.stop();
    let copy = server.keep_a_copy();
    server.start_again();
    server.execute(mysql::DATABASE, "INSERT INTO t VALUES (2)").await;
    let ids = async |server: &support::LocalMySql| {
        server.connect(mysql::DATABASE).await.value("SELECT GROUP_CONCAT(id ORDER BY id) FROM t").await.unwrap()
    };
    assert_eq!(ids(&server).await.as_deref(), Some("1,2"));
    server.crash();
    server.restore(&copy);
    server.start_again();
    assert_eq!(ids(&server).await.as_deref(), Some("1"));
    drop(server);
    assert!(!folder.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mysql_server_survives_kill_9_and_goes_back_to_a_copy() {
    a_server_survives_kill_9_and_goes_back_to_a_copy(Flavour::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mariadb_server_survives_kill_9_and_goes_back_to_a_copy() {
    a_server_survives_kill_9_and_goes_back_to_a_copy(Flavour::MariaDb).await;
}

#[tokio::test]
async fn the_comparison_sees_a_single_different_row() {
    let (source, target) = support::pair().await;
    for end in [&source, &target] {
        end.execute(
            "CREATE TABLE t (id int, j json); INSERT INTO t SELECT g, '{\"a\":1}' FROM generate_series(1, 5000) g",
        )
        .await;
    }
    support::assert_equal(&source.url(), &target.url(), &["public.t"]).await;
    target.execute("UPDATE t SET j = 'null' WHERE id = 4711").await;
    let (a, b) = (source.url(), target.url());
    let seen = tokio::spawn(async move { support::assert_equal(&a, &b, &["public.t"]).await }).await;
    assert!(seen.unwrap_err().is_panic());
    target.execute("DELETE FROM t WHERE id >= 4711").await;
    let (a, b) = (source.url(), target.url());
    let seen = tokio::spawn(async move { support::assert_equal(&a, &b, &["public.t"]).await }).await;
    assert!(seen.unwrap_err().is_panic());
}

#[tokio::test]
async fn the_proxy_cuts_stalls_and_limits() {
    let (source, _) = support::pair().await;
    let proxy = Proxy::start(source.server.port()).await;
    let url = proxy.url("postgres", &source.name);
    let connect = || async {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    };

    let client = connect().await;
    client.simple_query("SELECT 1").await.unwrap();
    proxy.cut();
    assert!(client.simple_query("SELECT 1").await.is_err());

    let client = connect().await;
    proxy.stall();
    let query = client.simple_query("SELECT 1");
    let mut query = std::pin::pin!(query);
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut query).await.is_err(), "it went through a stall");
    proxy.resume();
    query.await.unwrap();

    proxy.cut_after(10_000);
    assert!(client.simple_query("SELECT repeat('x', 100) FROM generate_series(1, 1000)").await.is_err());

    let client = connect().await;
    proxy.refuse();
    assert!(client.simple_query("SELECT 1").await.is_err());
    assert!(tokio_postgres::connect(&url, tokio_postgres::NoTls).await.is_err());
    wait_for("no connection to be left", SOON, async || proxy.connections() == 0).await;
}
