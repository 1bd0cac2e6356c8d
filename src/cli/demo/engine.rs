//! Our own binary, run as a user runs it: the demo shows the very commands.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::process::{Child, Command};

use super::home::Home;
use crate::error::{Context, Error, Kind, Result};

/// The binary and its config file.
pub(super) struct Engine {
    program: PathBuf,
    folder: PathBuf,
    path: std::ffi::OsString,
}

/// A `cutwater run` in the background; killed when dropped.
pub(super) struct Run {
    child: Child,
    log: PathBuf,
}

/// What a command that has ended said.
pub(super) struct Answer {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Engine {
    /// Writes the config. It stands in the source's folder, under the name that `watchdog.sh` looks for, so that our
    /// commands end with the servers if the demo is killed.
    pub(super) fn new(source: &Home, target: &Home) -> Result<Engine> {
        let folder = source.folder().to_owned();
        let switch = format!("touch '{}'", folder.join("switch").display());
        let config = format!(
            "[migration]\nname = \"demo\"\n\n[source]\nurl = {}\n\n[target]\nurl = {}\n\n[cutover]\nswitch_command = {}\n",
            quoted(&source.url()),
            quoted(&target.url()),
            quoted(&switch),
        );
        fs::write(folder.join("cutwater.toml"), config).context("writing the demo's config")?;
        // pg_dump must not be older than the servers: the one beside them is not.
        let others = std::env::var_os("PATH").unwrap_or_default();
        let beside = source.programs().or_else(|| target.programs());
        let path = std::env::join_paths(beside.into_iter().chain(std::env::split_paths(&others)))
            .map_err(|error| Error::new(Kind::Io, error.to_string()))?;
        Ok(Engine { program: std::env::current_exe()?, folder, path })
    }

    /// The file that the switch command makes.
    pub(super) fn switch_file(&self) -> PathBuf {
        self.folder.join("switch")
    }

    /// Starts `cutwater run`.
    pub(super) fn run(&self) -> Result<Run> {
        let log = self.folder.join("run.log");
        let file = File::create(&log)?;
        let mut command = self.command(&["run"]);
        command.stdout(file.try_clone()?).stderr(file);
        Ok(Run { child: command.spawn().context("starting cutwater run")?, log })
    }

    /// Runs a command to its end.
    pub(super) async fn ask(&self, arguments: &[&str]) -> Result<Answer> {
        let output = self
            .command(arguments)
            .output()
            .await
            .with_context(|| format!("running cutwater {}", arguments.join(" ")))?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Answer { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .arg("-c")
            .arg(self.folder.join("cutwater.toml"))
            .env("PATH", &self.path)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            // A Ctrl-C at the terminal is for the demo, which then ends what it started.
            .process_group(0)
            .kill_on_drop(true);
        command
    }
}

impl Run {
    /// Fails when it has ended although nobody asked it to.
    pub(super) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.ended(status)),
        }
    }

    /// Waits until it ends by itself, as it does after a cutover.
    pub(super) async fn finished(&mut self) -> Result<()> {
        let status = self.child.wait().await?;
        if status.success() { Ok(()) } else { Err(self.ended(status)) }
    }

    fn ended(&self, status: ExitStatus) -> Error {
        Error::new(Kind::Internal, format!("cutwater run ended ({status}); its log ends with\n{}", tail(&self.log)))
    }
}

impl Answer {
    /// The `--json` answer of a command that went well.
    pub(super) fn json(self, command: &str) -> Result<serde_json::Value> {
        if !self.status.success() {
            let said = format!("{}{}", self.stdout, self.stderr);
            return Err(Error::new(
                Kind::Internal,
                format!("cutwater {command} ended ({}):\n{}", self.status, said.trim()),
            ));
        }
        serde_json::from_str(&self.stdout)
            .map_err(|error| Error::new(Kind::Internal, format!("cutwater {command} gave no JSON: {error}")))
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
