//! The writer that judges migrations: its record agrees with a database that lost nothing, whatever happens to the
//! connections, and disagrees with one that lost or doubled a single write.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::time::Duration;

use cutwater::cli::demo::workload::{self, Session};
use support::harness::{Engine, MariaDb, MySql};
use support::{Database, Proof, Proxy, Record, Workload, Writer, WriterOptions, wait_for};

const SOON: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(120);
const FAST: WriterOptions = WriterOptions { connections: 3, rate: 600.0, seed: 7 };

async fn prove(record: &Record, database: &Database) -> Proof {
    record.prove(&mut session(&database.url()).await).await.unwrap()
}

async fn session(url: &str) -> Session {
    Session::connect(url, workload::Engine::of(url)).await.unwrap()
}

async fn write_some(database: &Database, writes: u64) -> Record {
    let workload = Workload::of_rows(2_000);
    workload.install(&mut session(&database.url()).await).await.unwrap();
    let writer = Writer::start(&database.url(), workload, FAST);
    wait_for("writes", SOON, async || writer.figures().acknowledged >= writes).await;
    writer.stop().await.unwrap().0
}

#[tokio::test]
async fn an_undisturbed_database_holds_every_write_once() {
    let (database, _) = support::pair().await;
    let record = write_some(&database, 500).await;
    let proof = prove(&record, &database).await;
    assert!(proof.holds(), "{proof:?}");
    assert!(proof.acknowledged >= 500 && proof.rows_checked > 300, "{proof:?}");
}

#[tokio::test]
async fn commits_whose_answer_was_cut_off_are_looked_up() {
    let (database, _) = support::pair().await;
    let workload = Workload::of_rows(2_000);
    workload.install(&mut session(&database.url()).await).await.unwrap();
    let proxy = Proxy::start(database.server.port()).await;
    let writer = Writer::start(&proxy.url("postgres", &database.name), workload, FAST);
    wait_for("unanswered commits", SOON, async || {
        let before = writer.figures().acknowledged;
        proxy.cut();
        wait_for("a write after the cut", SOON, async || writer.figures().acknowledged > before).await;
        writer.figures().looked_up >= 3
    })
    .await;
    let (record, figures) = writer.stop().await.unwrap();
    assert!(figures.failed > 0);
    let proof = prove(&record, &database).await;
    assert!(proof.holds(), "{proof:?}");
}

#[tokio::test]
async fn a_lost_a_doubled_and_an_old_row_are_each_found() {
    let (database, _) = support::pair().await;
    let record = write_some(&database, 300).await;
    for (damage, lost, doubled) in [
        ("DELETE FROM public.journal WHERE ctid = (SELECT ctid FROM public.journal LIMIT 1)", true, false),
        ("INSERT INTO public.journal SELECT * FROM public.journal LIMIT 1", false, true),
        (
            "UPDATE public.accounts SET balance = balance + 1 WHERE id = (SELECT max(id) FROM public.accounts)",
            true,
            false,
        ),
        ("UPDATE public.documents SET body = '' WHERE id >= 1000000000", true, false),
        ("DELETE FROM public.order_items WHERE order_id = 1", true, false),
        ("INSERT INTO public.events (happened_on, kind) VALUES ('2026-01-01', 'too many')", false, true),
    ] {
        let mut damaged = session(&database.url()).await;
        damaged.execute(&format!("BEGIN; {damage}")).await.unwrap();
        let proof = record.prove(&mut damaged).await.unwrap();
        assert_eq!((proof.lost > 0, proof.doubled > 0), (lost, doubled), "after {damage}: {proof:?}");
    }
}

#[tokio::test]
async fn it_follows_the_database_to_its_new_home_and_measures_the_gap() {
    let (old, new) = support::pair().await;
    let workload = Workload::of_rows(2_000);
    workload.install(&mut session(&old.url()).await).await.unwrap();
    workload.install(&mut session(&new.url()).await).await.unwrap();
    let writer = Writer::start(&old.url(), workload, FAST);
    wait_for("writes at the old home", SOON, async || writer.figures().acknowledged > 50).await;
    writer.switch_to(&new.url());
    wait_for("a write at the new home", SOON, async || writer.figures().downtime.is_some()).await;
    assert!(writer.figures().downtime.unwrap() < SOON);
    // Nobody carried the writes over, and it must not pass unseen.
    let (record, _) = writer.stop().await.unwrap();
    assert!(prove(&record, &new).await.lost >= 50);
}

/// The same at the other engines, through cut connections and a crash of the server.
#[tokio::test(flavor = "multi_thread")]
async fn mysql_and_mariadb_hold_every_write_once_through_cuts_and_a_crash() {
    let name = "the workload";
    tokio::join!(holds_through_cuts::<MySql>(name), holds_through_cuts::<MariaDb>(name));
}

async fn holds_through_cuts<E: Engine>(test: &str) {
    if !E::is_here(test).await {
        return;
    }
    let mut server = E::start().await;
    let (url, proxy) = (server.url(), Proxy::start(server.port()).await);
    let workload = Workload::of_rows(2_000);
    workload.install(&mut session(&url).await).await.unwrap();
    let before = workload::lines(&mut session(&url).await, "orders").await.unwrap();
    assert_eq!(before.len() as i64, 600);
    let writer = Writer::start(&E::url_at(proxy.port()), workload, FAST);
    wait_for("unanswered commits", PATIENCE, async || {
        let before = writer.figures().acknowledged;
        proxy.cut();
        wait_for("a write after the cut", PATIENCE, async || writer.figures().acknowledged > before).await;
        writer.figures().looked_up >= 3
    })
    .await;
    server.crash();
    server.start_again();
    let acknowledged = writer.figures().acknowledged;
    wait_for("writes after the crash", PATIENCE, async || writer.figures().acknowledged > acknowledged + 50).await;
    let (record, figures) = writer.stop().await.unwrap();
    let proof = record.prove(&mut session(&url).await).await.unwrap();
    assert!(proof.holds() && figures.failed > 0, "{}: {proof:?}", E::NAME);
    session(&url).await.execute("DELETE FROM journal LIMIT 1").await.unwrap();
    assert_eq!(record.prove(&mut session(&url).await).await.unwrap().lost, 1);
}
