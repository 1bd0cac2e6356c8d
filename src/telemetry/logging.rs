//! The log: text for a person at a terminal, JSON for a machine; always on stderr, because stdout is for results.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::error::{Error, Kind, Result};

/// Where log lines go: stderr, past progress bars that a command may be drawing there.
pub type Writer = fn() -> Box<dyn std::io::Write + Send>;

/// Starts the log, once a process. `-v` wins over `RUST_LOG`, which wins over `[telemetry] log`.
pub fn start(config: Option<&str>, verbose: u8, writer: Writer) -> Result<()> {
    let from_env = std::env::var("RUST_LOG").ok();
    let filter = match (verbose, from_env.as_deref().or(config)) {
        (0, Some(filter)) => filter,
        (0, None) => "cutwater=info,warn",
        (1, _) => "cutwater=debug,warn",
        (_, _) => "cutwater=trace,info",
    };
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Error::new(Kind::Config, format!("the log filter {filter:?} cannot be read: {error}"))
            .fix("write for example log = \"cutwater=debug\", or RUST_LOG=info")
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    // A second start in one process (tests, the library) keeps the first.
    let _ = if std::io::stderr().is_terminal() {
        log.with_target(false).try_init()
    } else {
        log.json().flatten_event(true).try_init()
    };
    Ok(())
}
