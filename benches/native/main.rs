//! Cutwater beside Postgres' own logical replication, in one run, alternating: `make bench`.
//!
//! Two workloads. **catch-up**: a backlog of single-row inserts in transactions of 100 waits in a slot; timed from the
//! start of the reader until the target holds the last row. **copy**: an initial copy of a table with its primary key.
//! Printed are ratios of rows per second and CPU seconds of the source server, the target server and the engine; the
//! absolute figures beside them are good for nothing but this run on this machine.
//!
//! `CUTWATER_BENCH_BACKLOG`, `CUTWATER_BENCH_COPY` and `CUTWATER_BENCH_ROUNDS` change the sizes (500000, 2000000, 3).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a bench reports to a terminal and dies of errors"
)]

mod cpu;
mod peers;

use std::time::Duration;

use cutwater::cli::demo::server::{LocalPostgres, ServerOptions};

use crate::cpu::Cpu;
use crate::peers::{Peer, Workload};

/// What one peer did in one round.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    rows: u64,
    wall: Duration,
    /// The engine's own process; a native subscription has none, its worker is part of the target server.
    engine: Duration,
    source: Duration,
    target: Duration,
}

fn size(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::main]
async fn main() {
    let options = || {
        ServerOptions::new()
            .setting("fsync", "off")
            .setting("full_page_writes", "off")
            .setting("shared_buffers", "256MB")
            .setting("max_wal_size", "8GB")
            .setting("autovacuum", "off")
            .setting("checkpoint_timeout", "1h")
    };
    let source = LocalPostgres::start(options()).await.unwrap();
    let target = LocalPostgres::start(options()).await.unwrap();
    let rounds = size("CUTWATER_BENCH_ROUNDS", 3);
    let workloads = [
        Workload::CatchUp { rows: size("CUTWATER_BENCH_BACKLOG", 500_000) },
        Workload::Copy { rows: size("CUTWATER_BENCH_COPY", 2_000_000) },
    ];
    for workload in workloads {
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for round in 0..rounds {
            // Who goes first changes, so that neither always finds the caches warm.
            let order = if round % 2 == 0 { [Peer::Cutwater, Peer::Native] } else { [Peer::Native, Peer::Cutwater] };
            for peer in order {
                let sample = peers::run(peer, workload, round, &source, &target).await;
                println!("{workload} round {round} {peer:<8} {}", describe(&sample));
                match peer {
                    Peer::Cutwater => ours.push(sample),
                    Peer::Native => theirs.push(sample),
                }
            }
        }
        summary(&workload.to_string(), &ours, &theirs);
    }
}

fn describe(sample: &Sample) -> String {
    format!(
        "{:>9.0} rows/s   wall {:.2} s   CPU: engine {:.2} s, source {:.2} s, target {:.2} s",
        rate(sample),
        sample.wall.as_secs_f64(),
        sample.engine.as_secs_f64(),
        sample.source.as_secs_f64(),
        sample.target.as_secs_f64()
    )
}

fn rate(sample: &Sample) -> f64 {
    sample.rows as f64 / sample.wall.as_secs_f64()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn summary(workload: &str, ours: &[Sample], theirs: &[Sample]) {
    let ratio = |of: fn(&Sample) -> f64| {
        let pairs: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| of(a) / of(b)).collect();
        let (low, high) = pairs.iter().fold((f64::MAX, 0f64), |(low, high), &r| (low.min(r), high.max(r)));
        format!("{:.2}  ({low:.2}-{high:.2})", median(pairs.into_iter()))
    };
    println!("\n{workload}: cutwater / native, median of {} pairs (lowest-highest)", ours.len());
    println!("  rows/s            {}", ratio(rate));
    println!("  CPU, all          {}", ratio(|s| (s.engine + s.source + s.target).as_secs_f64()));
    println!("  CPU, source       {}", ratio(|s| s.source.as_secs_f64()));
    println!("  CPU, target+engine {}\n", ratio(|s| (s.engine + s.target).as_secs_f64()));
}

/// CPU used by both servers between two moments.
pub fn servers(source: &LocalPostgres, target: &LocalPostgres) -> (Cpu, Cpu) {
    (Cpu::of_server(&source.data_directory()), Cpu::of_server(&target.data_directory()))
}
