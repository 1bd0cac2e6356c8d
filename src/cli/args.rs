//! The command line, and the help that teaches it.

use std::path::{Path, PathBuf};

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::config::Config;
use crate::error::{Error, Kind, Result};

const CONFIG_FILE: &str = "cutwater.toml";

const ABOUT: &str = "\
Moves a live Postgres database to another server without stopping the application.

check, status, verify and every --dry-run change nothing. Every command may be run again:
it goes on where it was; there are no resume flags and no work directory.";

const AFTER_HELP: &str = "\
First migration:
  cutwater init --name shop --source postgres://me@old/shop --target postgres://me@new/shop
  cutwater check
  cutwater run                  # copies, then follows; leave it running
  cutwater status --watch       # in another terminal
  cutwater cutover --dry-run    # then without --dry-run

Exit codes: 0 done, 1 error, 2 usage or config, 3 the answer is no (nothing was touched),
            4 a cutover that was taken back, 130 interrupted

Results go to stdout, log and progress to stderr.";

/// The program.
#[derive(Debug, Parser)]
#[command(name = "cutwater", version, about = ABOUT, after_help = AFTER_HELP, max_term_width = 100)]
#[command(disable_help_subcommand = true, arg_required_else_help = false)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// Which command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// Config file [default: cutwater.toml, if it exists]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Without a file: the migration's name
    #[arg(long, global = true, value_name = "NAME")]
    pub name: Option<String>,
    /// Without a file: the source; shows in `ps`, so rather CUTWATER_SOURCE_URL
    #[arg(long, global = true, value_name = "URL")]
    pub source: Option<String>,
    /// Without a file: the target; shows in `ps`, so rather CUTWATER_TARGET_URL
    #[arg(long, global = true, value_name = "URL")]
    pub target: Option<String>,
    /// Answer in JSON on stdout, errors too
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more; twice: say everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

impl Global {
    /// The file's config, or that of the arguments and the environment.
    pub fn config(&self) -> Result<Config> {
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let by_arguments = self.name.is_some() || self.source.is_some() || self.target.is_some();
        if let Some(file) = &self.config {
            if by_arguments {
                return Err(Error::new(Kind::Config, "--name, --source and --target stand in the file given with -c")
                    .fix("leave out -c, or the others"));
            }
            return Config::load(file);
        }
        if !by_arguments && Path::new(CONFIG_FILE).exists() {
            return Config::load(Path::new(CONFIG_FILE));
        }
        let missing = |what: &str| {
            Error::new(Kind::Config, format!("there is no {CONFIG_FILE} here, and {what} is missing"))
                .fix("cutwater init writes a file; or give --name, CUTWATER_SOURCE_URL and CUTWATER_TARGET_URL")
        };
        let source = self.source.clone().or_else(|| env("CUTWATER_SOURCE_URL")).ok_or_else(|| missing("--source"))?;
        let target = self.target.clone().or_else(|| env("CUTWATER_TARGET_URL")).ok_or_else(|| missing("--target"))?;
        let name = self.name.as_deref().ok_or_else(|| missing("--name"))?;
        Config::from_urls(name, &source, &target)
    }

    /// Where `init` writes, and what the advice of other commands names.
    pub fn config_path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| PathBuf::from(CONFIG_FILE))
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look at both ends and write a commented cutwater.toml
    #[command(after_help = "Example:\n  cutwater init --name shop --source postgres://me@old/shop \
                            --target postgres://me@new/shop\n\nPasswords are not written: the file \
                            reads them from SOURCE_PASSWORD and TARGET_PASSWORD.")]
    Init(InitArgs),
    /// Test every setting, privilege and table that would bite; changes nothing
    #[command(after_help = "Examples:\n  cutwater check\n  cutwater check -v     # what passed, too\n\n\
                            Exit code 3: something blocks; each comes with the command that fixes it.")]
    Check,
    /// Phase, health, lag, tables, last error; also when `run` is dead; changes nothing
    #[command(after_help = "Examples:\n  cutwater status --watch\n  cutwater status --json | jq .lag_seconds")]
    Status(StatusArgs),
    /// Remove slot, publication, fence and state; the data stays
    #[command(after_help = "Examples:\n  cutwater teardown --dry-run    # what would go\n  cutwater teardown")]
    Teardown(TeardownArgs),
}

/// `init`
#[derive(Debug, Clone, Args)]
pub struct InitArgs {}

/// `status`
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Draw it again every second, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
}

/// `teardown`
#[derive(Debug, Clone, Args)]
pub struct TeardownArgs {
    /// List what would be removed and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// After a cutover: also lift the fence, so that the old source accepts writes again
    #[arg(long)]
    pub release_source: bool,
}
