//! What a person types; one file a command; no logic that a library user would miss.
//!
//! In: arguments, a config, signals. Out: results on stdout, log and progress on stderr, an exit code. Every command
//! ends in [`Ended`] or an [`Error`], and both are printed here and nowhere else.

mod args;
pub mod check;
mod cutover;
pub mod demo;
mod ends;
mod estimate;
pub mod event;
pub mod human;
mod init;
mod ordered;
mod output;
mod pause;
mod run;
mod schema;
mod set;
mod signals;
pub mod status;
mod tables;
mod teardown;
mod verify;

use std::process::ExitCode;

use clap::Parser;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::telemetry::logging;

pub use args::{Cli, Command, Global};

/// How a command that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Exit code 0.
    Done,
    /// The answer is no and was printed: exit code 3.
    No,
}

/// What every command gets.
pub struct Context {
    /// `--json`, `-c` and the others.
    pub global: Global,
    /// Asks for an end.
    pub shutdown: CancellationToken,
}

impl Context {
    /// The config of the file or of the arguments.
    pub fn config(&self) -> Result<Config> {
        self.global.config()
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error),
    };
    let json = cli.global.json;
    let run = || {
        let runtime = tokio::runtime::Runtime::new().map_err(|e| Error::from(e).context("starting"))?;
        let ended = runtime.block_on(dispatch(cli));
        // A connection that does not answer must not hold up the end.
        runtime.shutdown_timeout(std::time::Duration::from_millis(200));
        ended
    };
    match run() {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::No) => ExitCode::from(Kind::Refused.exit_code()),
        Err(error) => {
            output::failure(&error, json);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

async fn dispatch(cli: Cli) -> Result<Ended> {
    let Cli { global, command } = cli;
    // The log's filter may stand in the config; a config that cannot be read is reported by the command itself.
    let filter = global.config().ok().and_then(|config| config.telemetry.log);
    logging::start(filter.as_deref(), global.verbose, output::log_writer)?;
    let shutdown = signals::shutdown()?;
    let context = Context { global, shutdown };
    match command {
        Command::Init(args) => interruptible(&context, init::run(&context, &args)).await,
        Command::Check(args) => interruptible(&context, Box::pin(check::run(&context, &args))).await,
        Command::Schema(args) => interruptible(&context, schema::run(&context, &args)).await,
        Command::Run(args) => run::run(&context, &args).await,
        Command::Verify(args) => interruptible(&context, verify::run(&context, &args)).await,
        // Never left in the middle: the driver undoes what it began before it ends.
        Command::Cutover(args) => cutover::run(&context, &args).await,
        Command::Status(args) => interruptible(&context, Box::pin(status::run(&context, &args))).await,
        Command::Pause(args) => interruptible(&context, pause::pause(&context, &args)).await,
        Command::Resume(args) => interruptible(&context, pause::resume(&context, &args)).await,
        Command::Set(args) => interruptible(&context, set::run(&context, &args)).await,
        Command::Tables(args) => interruptible(&context, Box::pin(tables::run(&context, &args))).await,
        Command::Teardown(args) => interruptible(&context, teardown::run(&context, &args)).await,
        Command::Demo(args) => demo::run(&context, &args).await,
    }
}

/// Runs a command that may be left at any point: everything it began rolls back with its connections.
async fn interruptible(context: &Context, command: impl Future<Output = Result<Ended>>) -> Result<Ended> {
    tokio::select! {
        ended = command => ended,
        () = context.shutdown.cancelled() => Err(Error::new(Kind::Interrupted, "interrupted")),
    }
}
