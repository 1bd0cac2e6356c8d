//! One transaction that no memory holds.

use std::time::{Duration, Instant};

use super::engine::{Engine, Session};
use crate::support::{Cutwater, Running, compare, wait_for};

/// What the engine may take at most.
pub const PEAK_KIB: u64 = 200 * 1024;

/// A transaction of `rows` rows, in `statements` statements, passes with the engine's memory bounded, and a reader at
/// the target never sees half of it.
pub async fn a_transaction_larger_than_memory<S: Engine, T: Engine>(rows: i64, statements: i64) {
    let (source, target) = tokio::join!(S::start(), T::start());
    let mut writing = S::connect(&source.url()).await.unwrap();
    writing.execute("CREATE TABLE large (id bigint PRIMARY KEY, v varchar(100))").await.unwrap();
    writing.execute("INSERT INTO large VALUES (0, 'first')").await.unwrap();
    let cutwater = Cutwater::new(&source.url(), &target.url());
    let run = cutwater.start(&["run"]);
    let patience = Duration::from_secs(60);
    wait_for("streaming", patience, async || {
        cutwater.run(&["status", "--json"], patience).await.json()["phase"] == "streaming"
    })
    .await;

    let begun = Instant::now();
    writing.execute("BEGIN").await.unwrap();
    let each = rows / statements;
    for statement in 0..statements {
        let values = S::series(statement * each + 1, (statement + 1) * each);
        let sql = format!("INSERT INTO large SELECT n, concat('one of many rows, this is number ', n) FROM {values}");
        writing.execute(&sql).await.unwrap();
    }
    writing.execute("COMMIT").await.unwrap();
    let written = begun.elapsed();

    let mut reading = T::connect(&target.url()).await.unwrap();
    let deadline = Duration::from_secs(60 + rows.unsigned_abs() / 2000);
    let (whole, mut reads) = (statements * each + 1, 0);
    loop {
        let seen = reading.numbers("SELECT count(*) FROM large").await.unwrap()[0];
        reads += 1;
        assert!(seen == 1 || seen == whole, "{seen} of {whole} rows: half a transaction");
        if seen == whole {
            break;
        }
        assert!(begun.elapsed() < deadline, "{}", run.stderr());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let peak = peak_kib(&run);
    eprintln!(
        "{rows} rows in one transaction: written in {written:?}, there after {:?}, {reads} reads saw none of it; peak memory {} MiB",
        begun.elapsed(),
        peak / 1024
    );
    assert!(peak < PEAK_KIB, "peak memory {peak} KiB");
    run.sigint();
    run.wait(patience).await.assert_code(0);
    let (left, right) = (S::dump(&source.url(), "large").await, T::dump(&target.url(), "large").await);
    compare::compare("large", left, right).await;
}

/// The most a process ever had in memory (`VmHWM`).
pub fn peak_kib(run: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", run.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
