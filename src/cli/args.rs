//! The command line, and the help that teaches it.

use std::path::{Path, PathBuf};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::cli::demo::DemoArgs;
use crate::config::{Config, HumanDuration};
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

Results go to stdout, log and progress to stderr. With --json the answer is one JSON object on stdout,
an error too: {\"error\": {\"kind\", \"message\", \"fix\"}}, with the same exit code.";

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
                            reads them from SOURCE_PASSWORD and TARGET_PASSWORD.\n\n\
                            Changes: writes one file, and never over one that is there.\n\
                            Exit codes: 0 written, 1 an end cannot be reached, 2 the file is there already.")]
    Init(InitArgs),
    /// Test every setting, privilege and table that would bite; changes nothing
    #[command(after_help = "Examples:\n  cutwater check\n  cutwater check -v            # what passed, too\n  \
                            cutwater check --estimate    # how long it would take, from a copy of ten seconds\n  \
                            cutwater check --grants      # for the administrators of both ends\n\n\
                            Changes: nothing. Privileges are tried in transactions that are rolled back.\n\
                            Exit codes: 0 nothing blocks, 3 something does; each comes with the command that fixes it.")]
    Check(CheckArgs),
    /// Print the DDL the target needs; --apply makes the tables
    #[command(after_help = "Examples:\n  cutwater schema > target.sql\n  cutwater schema --apply\n\n\
                            Changes: nothing; with --apply the target's schema, without indexes and constraints,\n\
                            which run makes after the copy.\n\
                            Exit codes: 0 printed or made, 1 an error: nothing is left half made.")]
    Schema(SchemaArgs),
    /// Copy, then follow every change, until stopped or cut over
    #[command(
        after_help = "Examples:\n  cutwater run                      # leave it running; Ctrl-C is a clean stop\n  \
                            cutwater run --until caught-up    # for scripts\n\n\
                            Run it again after anything, a crash too: it goes on where it was.\n\n\
                            Changes: makes slot and publication at the source; at the target the schema cutwater, your\n\
                            tables and their rows.\n\
                            Exit codes: 0 stopped, caught up or cut over, 1 an error that trying again would not cure,\n\
                            2 a config that is wrong or of another migration."
    )]
    Run(RunArgs),
    /// Phase, health, lag, tables, last error; also when `run` is dead; changes nothing
    #[command(after_help = "Examples:\n  cutwater status --watch\n  cutwater status --json | jq .lag_seconds\n\n\
                            Changes: nothing. An end that does not answer is part of the answer.\n\
                            Exit codes: 0 printed, 2 a config of another migration, 130 Ctrl-C of --watch.")]
    Status(StatusArgs),
    /// Hold the copy, the applying, or both; a pause survives a restart of run
    #[command(after_help = "Examples:\n  cutwater pause               # both\n  \
                            cutwater pause --snapshot    # only the copy of the existing rows\n  \
                            cutwater pause --apply       # only writing the stream's changes at the target\n\n\
                            The source goes on being answered, nothing is confirmed that is not durable, and the lag goes\n\
                            on telling the truth. While it is paused the source keeps its log for us, and a cutover is\n\
                            refused.\n\n\
                            Changes: one row of the state at the target.\n\
                            Exit codes: 0 the run has acknowledged it, or no run is alive and the next takes it.")]
    Pause(PauseArgs),
    /// Let go on what pause holds
    #[command(after_help = "Examples:\n  cutwater resume\n  cutwater resume --apply\n\n\
                            Changes: one row of the state at the target.\n\
                            Exit codes: 0 the run has acknowledged it, or no run is alive and the next takes it.")]
    Resume(PauseArgs),
    /// Change settings of a live run: throttle, workers, batch; without arguments, list them
    #[command(after_help = "Examples:\n  cutwater set snapshot.max_rows_per_second=500000 snapshot.workers=2\n  \
                            cutwater set snapshot.max_rows_per_second=none\n  \
                            cutwater set apply.linger=default            # the file's again\n  \
                            cutwater set                                 # what there is, and what is set\n\n\
                            What is set survives a restart of run and goes before the file, until it is set to default.\n\n\
                            Changes: one row of the state at the target.\n\
                            Exit codes: 0 the run has acknowledged it, or no run is alive and the next takes it.")]
    Set(SetArgs),
    /// Compare both ends row by row (by checksums); changes nothing without --repair
    #[command(after_help = "Examples:\n  cutwater verify\n  cutwater verify --json | jq .tables\n  \
                            cutwater verify --repair   # then writes the source's version of what differs\n\n\
                            Rows that differ are read again behind the stream before they count. --repair needs no\n\
                            pause of the run: it works beside it, and follows the source itself where none is alive.\n\n\
                            Changes: only its own record; with --repair the target's rows that differ.\n\
                            Exit codes: 0 identical, or made so; 3 rows differ: they are named.")]
    Verify(VerifyArgs),
    /// The state of each table; add, remove, resync or skip some in mid-migration
    #[command(
        after_help = "Examples:\n  cutwater tables                          # how far each is, and what is wrong\n  \
                            cutwater tables add public.new_orders    # copied while the others stream on\n  \
                            cutwater tables resync 'public.*' --wait\n\n\
                            The run does it: the one that is alive now, or the next one.\n\n\
                            Changes: alone, nothing; else a request in the target's state, which the run carries out.\n\
                            Exit codes: 0 listed, accepted, or with --wait done; 1 a table could not be copied;\n            \
                            2 a pattern that matches nothing; 3 refused: a cutover, or a table that is in the set already."
    )]
    Tables(TablesArgs),
    /// Switch to the target, or undo everything if that takes too long
    #[command(
        after_help = "Examples:\n  cutwater cutover --dry-run           # every gate and step, nothing is touched\n  \
                            cutwater cutover --wait              # as soon as the gates open\n  \
                            cutwater cutover --abort             # take back one whose driver died\n\n\
                            Run it again after anything: before the point of no return it undoes or starts over,\n\
                            after it, it goes forward.\n\n\
                            Changes: fences the source, sets the target's sequences, runs switch_command; with --dry-run\n\
                            nothing.\n\
                            Exit codes: 0 the target is live, 3 refused: nothing was touched, 4 undone: the source is live,\n\
                            1 past the point of no return and not done: run it again, 130 Ctrl-C before the fence."
    )]
    Cutover(CutoverArgs),
    /// Remove slot, publication, fence and state; the data stays
    #[command(after_help = "Examples:\n  cutwater teardown --dry-run    # what would go\n  cutwater teardown\n\n\
                            Changes: removes what Cutwater made at both ends, with its record of who did what (--json\n\
                            prints it a last time); your tables and rows stay.\n\
                            Exit codes: 0 removed, 3 refused: a run is alive, or the source would take writes again.")]
    Teardown(TeardownArgs),
    /// Watch a live database move between two throw-away local servers, and the proof that nothing was lost
    #[command(after_help = "Examples:\n  cutwater demo\n  cutwater demo --rows 2000000 --rate 1000 --keep\n\n\
                            Needs a Postgres server's programs on this machine.\n\n\
                            Changes: nothing is left behind, unless --keep is given.\n\
                            Exit codes: 0 nothing was lost, 1 otherwise, 130 interrupted.")]
    Demo(DemoArgs),
}

/// `init`
#[derive(Debug, Clone, Args)]
pub struct InitArgs {}

/// `check`
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Copy for ten seconds into a transaction that is rolled back, and tell how long the migration would take
    #[arg(long)]
    pub estimate: bool,
    /// Print every right this migration needs at both ends, as statements for their administrators
    #[arg(long)]
    pub grants: bool,
}

/// `schema`
#[derive(Debug, Clone, Args)]
pub struct SchemaArgs {
    /// Make the tables at the target
    #[arg(long)]
    pub apply: bool,
}

/// `run`
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// End by itself
    #[arg(long, value_name = "WHEN")]
    pub until: Option<UntilArg>,
}

/// `--until`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UntilArg {
    /// Everything is durable that the source had at the start
    CaughtUp,
}

/// `verify`
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// Write the source's version of the rows that differ; tables without a key are left
    #[arg(long)]
    pub repair: bool,
}

/// `cutover`
#[derive(Debug, Clone, Args)]
pub struct CutoverArgs {
    /// The lag must be below this
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub max_lag: HumanDuration,
    /// … for this long
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub hold: HumanDuration,
    /// Writes are refused for this long at most, then everything is undone
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub max_downtime: HumanDuration,
    /// Show every gate and step and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Wait for the gates to open
    #[arg(long)]
    pub wait: bool,
    /// Take back a cutover that is not past its point of no return
    #[arg(long, conflicts_with_all = ["dry_run", "wait"])]
    pub abort: bool,
}

fn duration(text: &str) -> Result<HumanDuration, String> {
    text.parse()
}

/// `status`
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Draw it again every second, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
}

/// `pause`, `resume`
#[derive(Debug, Clone, Args)]
pub struct PauseArgs {
    /// Only the copy of the existing rows
    #[arg(long)]
    pub snapshot: bool,
    /// Only writing the stream's changes at the target
    #[arg(long)]
    pub apply: bool,
}

/// `set`
#[derive(Debug, Clone, Args)]
pub struct SetArgs {
    /// snapshot.max_rows_per_second=500000 …
    #[arg(value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
}

/// `tables`
#[derive(Debug, Clone, Args)]
pub struct TablesArgs {
    /// What to change; nothing: list them
    #[command(subcommand)]
    pub change: Option<TableChange>,
}

/// `tables add` …
#[derive(Debug, Clone, Subcommand)]
pub enum TableChange {
    /// Take tables of the source into the migration: made at the target, copied, followed
    Add(Which),
    /// Follow tables no longer; what the target has of them stays
    Remove(Which),
    /// Copy tables again, as after a mistake at the target or a failed copy
    Resync(Which),
    /// Leave tables out: nothing waits for them, and a cutover does not carry them
    Skip(Which),
}

/// Which tables.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// schema.table; * and ? are globs
    #[arg(required = true, value_name = "PATTERN")]
    pub patterns: Vec<String>,
    /// Wait until it is done
    #[arg(long)]
    pub wait: bool,
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
