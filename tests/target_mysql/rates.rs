//! How many rows a second of the server's time each kind of statement is worth. Run by hand:
//! `cargo test --release --test target_mysql rates -- --ignored --nocapture`.

use std::sync::Arc;

use cutwater::change::ChangeEvent;
use cutwater::mysql::Flavour;
use cutwater::target::LoadMode;

use super::fixture::*;
use crate::support::{MyOptions, my_server};

/// Seconds of processor that the server has used.
fn used(f: &Fixture) -> f64 {
    let pid = std::fs::read_to_string(f.server.socket().with_file_name("pid")).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[tokio::test]
#[ignore = "a measurement, not a claim"]
#[allow(clippy::print_stdout, reason = "its figures")]
async fn rates() {
    const ROWS: usize = 100_000;
    const BATCH: usize = 10_000;
    for flavour in [Flavour::MySql, Flavour::MariaDb] {
        let Some(server) = my_server(flavour, MyOptions::new(), "rates").await else { continue };
        let ddl = ["applied", "loaded"].map(|name| {
            format!(
                "CREATE TABLE {name} (id bigint PRIMARY KEY, n int, v varchar(60), at datetime(6), p decimal(12,2))"
            )
        });
        let f = Fixture::of(Arc::new(server), &ddl.join(";\n"), "postgres", "15").await;
        let (t, loaded) = (f.table("applied").await, f.table("loaded").await);
        f.known(&[&loaded]).await;
        let row = |id: usize, n: &str| {
            values(&[
                &id.to_string(),
                n,
                "forty characters of text for this table ..",
                "2026-01-01 00:00:00.123456",
                "1234.50",
            ])
        };
        let rows: Vec<_> = (0..ROWS).map(|id| row(id, "1")).collect();
        let before = used(&f);
        f.load(&loaded, LoadMode::Append, &rows).await.unwrap();
        println!("{flavour} LOAD DATA: {:.0} rows a second", ROWS as f64 / (used(&f) - before));
        let mut applier = f.applier().await;
        let mut measure = async |what: &str, change: &dyn Fn(usize) -> ChangeEvent| {
            let before = used(&f);
            for from in (0..ROWS).step_by(BATCH) {
                f.apply_as_sets(&mut applier, (from..from + BATCH).map(change).collect()).await;
            }
            println!("{flavour} {what}: {:.0} rows a second", ROWS as f64 / (used(&f) - before));
        };
        measure("inserts by LOAD DATA", &|id| insert(&t, row(id, "1"))).await;
        measure("UPDATE by join", &|id| update(&t, row(id, "2"))).await;
        measure("DELETE by list", &|id| delete(&t, row(id, "2"))).await;
    }
}
