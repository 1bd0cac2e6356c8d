//! The two peers, each doing the same work in databases of its own.

use std::fmt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use cutwater::cli::demo::server::LocalPostgres;

use crate::Sample;
use crate::cpu::children;

/// Who.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// This repository's binary.
    Cutwater,
    /// `CREATE SUBSCRIPTION`.
    Native,
}

/// What.
#[derive(Debug, Clone, Copy)]
pub enum Workload {
    /// A backlog of single-row inserts.
    CatchUp { rows: u64 },
    /// An initial copy.
    Copy { rows: u64 },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Peer::Cutwater => "cutwater",
            Peer::Native => "native",
        })
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Workload::CatchUp { rows } => write!(f, "catch-up of {rows} inserts"),
            Workload::Copy { rows } => write!(f, "copy of {rows} rows"),
        }
    }
}

const TABLE: &str = "CREATE TABLE public.bench (id bigint PRIMARY KEY, a int, t text, at timestamptz, n numeric)";
const ROW: &str =
    "i, (i % 1000)::int, lpad(i::text, 40, 'x'), timestamptz '2026-01-01' + i * interval '1 second', i / 7.0";

/// One round of one peer.
pub async fn run(peer: Peer, workload: Workload, round: u64, source: &LocalPostgres, target: &LocalPostgres) -> Sample {
    let kind = match workload {
        Workload::CatchUp { .. } => "catch_up",
        Workload::Copy { .. } => "copy",
    };
    let database = format!("{kind}_{peer}_{round}");
    for server in [source, target] {
        server.execute("postgres", &format!("CREATE DATABASE {database}")).await.unwrap();
    }
    source.execute(&database, TABLE).await.unwrap();
    let sample = match workload {
        Workload::CatchUp { rows } => catch_up(peer, rows, &database, source, target).await,
        Workload::Copy { rows } => copy(peer, rows, &database, source, target).await,
    };
    let counted = count(target, &database).await;
    assert_eq!(counted, sample.rows, "{peer} lost or doubled rows");
    clean_up(peer, &database, source, target).await;
    sample
}

async fn catch_up(peer: Peer, rows: u64, database: &str, source: &LocalPostgres, target: &LocalPostgres) -> Sample {
    match peer {
        Peer::Cutwater => cutwater(database, source, target).await,
        Peer::Native => {
            target.execute(database, TABLE).await.unwrap();
            subscribe(database, source, target).await;
            wait_copied(database, target).await;
            target.execute(database, &format!("ALTER SUBSCRIPTION {database} DISABLE")).await.unwrap();
        }
    }
    let backlog = format!(
        "DO $$ BEGIN FOR i IN 1..{rows} LOOP INSERT INTO public.bench VALUES ({ROW}); \
         IF i % 100 = 0 THEN COMMIT; END IF; END LOOP; END $$"
    );
    source.execute(database, &backlog).await.unwrap();
    measure(rows, source, target, async {
        match peer {
            Peer::Cutwater => cutwater(database, source, target).await,
            Peer::Native => {
                target.execute(database, &format!("ALTER SUBSCRIPTION {database} ENABLE")).await.unwrap();
                wait_for_row(database, target, rows).await;
            }
        }
    })
    .await
}

async fn copy(peer: Peer, rows: u64, database: &str, source: &LocalPostgres, target: &LocalPostgres) -> Sample {
    let fill = format!("INSERT INTO public.bench SELECT {ROW} FROM generate_series(1, {rows}) AS i");
    source.execute(database, &fill).await.unwrap();
    source.execute(database, "VACUUM ANALYZE public.bench").await.unwrap();
    measure(rows, source, target, async {
        match peer {
            Peer::Cutwater => cutwater(database, source, target).await,
            Peer::Native => {
                target.execute(database, TABLE).await.unwrap();
                subscribe(database, source, target).await;
                wait_copied(database, target).await;
            }
        }
    })
    .await
}

async fn measure(rows: u64, source: &LocalPostgres, target: &LocalPostgres, work: impl Future<Output = ()>) -> Sample {
    // A checkpoint now belongs to the work before; one in the middle would be noise.
    for server in [source, target] {
        server.execute("postgres", "CHECKPOINT").await.unwrap();
    }
    let (source_before, target_before) = crate::servers(source, target);
    let engine_before = children();
    let begun = Instant::now();
    work.await;
    let wall = begun.elapsed();
    let (source_after, target_after) = crate::servers(source, target);
    Sample {
        rows,
        wall,
        engine: children().saturating_sub(engine_before),
        source: source_after.since(source_before),
        target: target_after.since(target_before),
    }
}

async fn cutwater(database: &str, source: &LocalPostgres, target: &LocalPostgres) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_cutwater"))
        .args(["run", "--until", "caught-up", "--name", database])
        .env("CUTWATER_SOURCE_URL", source.url("postgres", database))
        .env("CUTWATER_TARGET_URL", target.url("postgres", database))
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn subscribe(database: &str, source: &LocalPostgres, target: &LocalPostgres) {
    source.execute(database, &format!("CREATE PUBLICATION {database} FOR TABLE public.bench")).await.unwrap();
    let connection = format!("host=127.0.0.1 port={} user=postgres dbname={database}", source.port());
    let sql =
        format!("CREATE SUBSCRIPTION {database} CONNECTION '{connection}' PUBLICATION {database} WITH (binary = true)");
    target.execute(database, &sql).await.unwrap();
}

async fn clean_up(peer: Peer, database: &str, source: &LocalPostgres, target: &LocalPostgres) {
    match peer {
        Peer::Native => target.execute(database, &format!("DROP SUBSCRIPTION {database}")).await.unwrap(),
        Peer::Cutwater => {
            let sql = format!("SELECT pg_drop_replication_slot('cutwater_{database}')");
            source.execute(database, &sql).await.unwrap();
        }
    }
    for server in [source, target] {
        server.execute("postgres", &format!("DROP DATABASE {database} WITH (FORCE)")).await.unwrap();
    }
}

async fn wait_copied(database: &str, target: &LocalPostgres) {
    poll(database, target, "SELECT count(*) FROM pg_catalog.pg_subscription_rel WHERE srsubstate <> 'r'", 0).await;
}

async fn wait_for_row(database: &str, target: &LocalPostgres, id: u64) {
    let sql = format!("SELECT count(*) FROM public.bench WHERE id = {id}");
    poll(database, target, &sql, 1).await;
}

async fn poll(database: &str, target: &LocalPostgres, sql: &str, wanted: i64) {
    let client = target.connect(database).await.unwrap();
    while client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) != wanted {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn count(target: &LocalPostgres, database: &str) -> u64 {
    let client = target.connect(database).await.unwrap();
    client.query_one("SELECT count(*) FROM public.bench", &[]).await.unwrap().get::<_, i64>(0) as u64
}
