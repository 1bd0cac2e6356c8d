//! Random tables, random transactions, random crash points: at the end both sides are equal.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::engine::{Engine, Session};
use super::random::{Ids, Schema, transaction};
use super::stage::PATIENCE;
use crate::support::{Cutwater, compare, wait_for};

/// Plays one case between two databases of these servers.
pub async fn a_random_case<S: Engine, T: Engine>(source: &S, target: &T, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let dialect = S::dialect();
    // `Cutwater::new` calls the migration as the database: slots are the whole server's.
    let name = format!("test_{seed}");
    let (from, to) = tokio::join!(source.create_database(&name), target.create_database(&name));
    let schema = Schema::new(&mut rng, dialect);
    let script = schema.script(&mut rng);
    let mut session = S::connect(&from).await.unwrap();
    session.execute(&script).await.unwrap_or_else(|error| panic!("{error}\nin\n{script}"));
    for table in &schema.tables {
        eprintln!("case {seed}: {}", table.ddl.trim().replace('\n', " "));
    }

    let config = format!(
        "[snapshot]\nchunk_rows = {}\nworkers = {}\n[apply]\nbatch_rows = {}\nbatch_bytes = \"{}KB\"\nworkers = {}",
        rng.random_range(5..100),
        rng.random_range(1..=3),
        [1, 7, 60, 2000][rng.random_range(0..4)],
        [64, 1024][rng.random_range(0..2)],
        [1, 1, 3][rng.random_range(0..3)],
    );
    let cutwater = Cutwater::new(&from, &to).and(&config);
    let sessions = rng.random_range(1..=2);
    let kills: Vec<u64> = (0..rng.random_range(0..=3)).map(|_| rng.random_range(50..2500)).collect();
    let writing = async {
        let writers = (0..sessions).map(|number| write::<S>(&from, &schema, seed + 1_000_003 * number, number as i64));
        futures::future::join_all(writers).await.iter().sum::<u64>()
    };
    let running = async {
        for millis in &kills {
            let mut run = cutwater.start(&["run"]);
            tokio::time::sleep(Duration::from_millis(*millis)).await;
            assert!(run.is_running(), "it ended by itself: {}", run.stderr());
            run.kill9();
        }
        cutwater.start(&["run"])
    };
    let (committed, run) = tokio::join!(writing, running);
    // A process that has not begun yet knows no clean end.
    wait_for("its first word", PATIENCE, async || !run.stderr().is_empty()).await;
    run.sigint();
    run.wait(PATIENCE).await.assert_code(0);
    cutwater.run(&["run", "--until", "caught-up"], PATIENCE).await.assert_code(0);
    for table in &schema.tables {
        let (left, right) = (S::dump(&from, &table.name).await, T::dump(&to, &table.name).await);
        compare::compare(&table.name, left, right).await;
    }
    if rng.random_range(0..3) == 0 {
        cutwater.run(&["verify"], PATIENCE).await.assert_code(0);
    }
    let status = cutwater.run(&["status", "--json"], PATIENCE).await.json();
    assert_eq!(status["divergences"], 0, "{status}");
    eprintln!("case {seed}: equal after {committed} transactions and {} kills", kills.len());
    cutwater.run(&["teardown"], PATIENCE).await.assert_code(0);
    drop(session);
    tokio::join!(source.drop_database(&name), target.drop_database(&name));
}

/// Writes about a hundred transactions; the number of those that were committed.
async fn write<E: Engine>(url: &str, schema: &Schema, seed: u64, number: i64) -> u64 {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut session = E::connect(url).await.unwrap();
    let mut ids = Ids::of(number);
    let mut committed = 0;
    for _ in 0..rng.random_range(60..140) {
        let statements = transaction(&mut rng, schema, E::dialect(), &mut ids);
        let mut failed = false;
        for statement in &statements {
            // Two rows of one key, two writers in each other's way: the whole transaction goes, as an application's would.
            if session.execute(statement).await.is_err() {
                session.execute("ROLLBACK").await.unwrap();
                failed = true;
                break;
            }
        }
        committed += u64::from(!failed && statements.last().is_some_and(|last| last == "COMMIT"));
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..40))).await;
    }
    committed
}
