//! The command that moves the clients.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio_util::sync::CancellationToken;

use super::{CutoverReport, Parts};
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{MyConnInfo, MyHost};
use crate::postgres::{ConnInfo, Host};
use crate::source::AnySource;
use crate::target::AnyTarget;

/// Runs `switch_command`, if there is one, with facts in its environment and no secrets. May be run more than once.
pub(super) async fn run(parts: &Parts, done: &CutoverReport, shutdown: &CancellationToken) -> Result<()> {
    let Some(text) = &parts.config.switch_command else { return Ok(()) };
    let mut command = tokio::process::Command::new("sh");
    command.arg("-c").arg(text).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.env("CUTWATER_MIGRATION", parts.name()).env("CUTWATER_NONCE", &done.nonce);
    for (fact, value) in results(done) {
        command.env(fact, value);
    }
    let source = match &parts.ends.source {
        AnySource::Postgres(source) => postgres(source.info()),
        AnySource::MySql(source) => mysql(source.info()),
    };
    let target = match &parts.ends.target {
        AnyTarget::Postgres(target) => postgres(target.info()),
        AnyTarget::MySql(target) => mysql(target.info()),
    };
    for (side, facts) in [("SOURCE", source), ("TARGET", target)] {
        for (fact, value) in facts {
            command.env(format!("CUTWATER_{side}_{fact}"), value);
        }
        // A URL may hold a password, and the command's environment is not the place for one.
        command.env_remove(format!("CUTWATER_{side}_URL"));
    }
    let doing = "running switch_command";
    let mut child = command.spawn().context(doing)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let finished = async {
        let (status, (), ()) = tokio::join!(child.wait(), log(out), log(err));
        status
    };
    let status = tokio::select! {
        status = finished => status.context(doing)?,
        () = shutdown.cancelled() => return Err(Error::new(Kind::Interrupted, "interrupted").context(doing)),
    };
    if status.success() {
        return Ok(());
    }
    Err(Error::new(Kind::Io, format!("it ended with {status}; its output is in the log")).context(doing))
}

/// What the steps so far came to. A driver that goes on for another one knows only that.
fn results(done: &CutoverReport) -> Vec<(&'static str, String)> {
    let mut results = vec![("CUTWATER_RESUMED", u8::from(done.resumed).to_string())];
    if !done.resumed {
        results.push(("CUTWATER_TABLES_COMPARED", done.tables.to_string()));
        results.push(("CUTWATER_ROWS_COMPARED", done.rows.to_string()));
        results.push(("CUTWATER_SEQUENCES_SET", done.sequences.to_string()));
        let millis = [("CUTWATER_DRAIN_MS", done.drain_ms), ("CUTWATER_VERIFY_MS", done.verify_ms)];
        results.extend(millis.into_iter().filter_map(|(fact, ms)| Some((fact, ms?.to_string()))));
    }
    results
}

/// Of a server of MySQL or MariaDB.
fn mysql(info: &MyConnInfo) -> Vec<(&'static str, String)> {
    let (host, port) = match &info.host {
        MyHost::Tcp(name, port) => (name.clone(), *port),
        MyHost::Socket(path) => (path.display().to_string(), 3306),
    };
    vec![("HOST", host), ("PORT", port.to_string()), ("DATABASE", info.database.clone().unwrap_or_default())]
}

fn postgres(info: &ConnInfo) -> Vec<(&'static str, String)> {
    let (host, port) = match info.hosts.first() {
        Some(Host::Tcp(name, port)) => (name.clone(), *port),
        Some(Host::Unix(path, port)) => (path.display().to_string(), *port),
        None => (String::new(), 5432),
    };
    vec![("HOST", host), ("PORT", port.to_string()), ("DATABASE", info.database.clone())]
}

async fn log(stream: Option<impl AsyncRead + Unpin>) {
    let Some(stream) = stream else { return };
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::info!(target: "cutwater::switch_command", "{line}");
    }
}
