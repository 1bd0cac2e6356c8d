//! The user's own commands: `fence_command` and `unfence_command`.

use std::process::Stdio;

use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{MyConnInfo, MyHost};

/// Runs one, with facts in its environment and no secrets. It may be run more than once.
pub(super) async fn run(key: &str, text: &str, info: &MyConnInfo, facts: &[(&str, String)]) -> Result<()> {
    let doing = format!("running {key}");
    let (host, port) = match &info.host {
        MyHost::Tcp(name, port) => (name.clone(), *port),
        MyHost::Socket(path) => (path.display().to_string(), 3306),
    };
    let mut command = tokio::process::Command::new("sh");
    command.arg("-c").arg(text).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command.env("CUTWATER_SOURCE_HOST", host).env("CUTWATER_SOURCE_PORT", port.to_string());
    command.env("CUTWATER_SOURCE_DATABASE", info.database.clone().unwrap_or_default());
    for (fact, value) in facts {
        command.env(fact, value);
    }
    // A URL may hold a password, and the command's environment is not the place for one.
    command.env_remove("CUTWATER_SOURCE_URL").env_remove("CUTWATER_TARGET_URL");
    let output = command.output().await.context(&doing)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().lines().last().unwrap_or("it said nothing").to_owned();
    Err(Error::new(Kind::Io, format!("it ended with {}: {said}", output.status)).context(doing))
}
