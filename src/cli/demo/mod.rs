//! `cutwater demo`: two throw-away local servers, writes that never stop, a migration, and the proof.
//!
//! The migration is done by our own binary with the commands a user types: `run`, `status`, `verify`, `cutover`. What
//! judges it knows nothing of the engine: the writer's record of what was acknowledged ([`workload`]), and checksums of
//! both ends made by the servers. In: a few numbers. Out: the proof on stdout. Nothing is left behind, also after
//! Ctrl-C and kill -9 ([`server`]).

mod checksum;
mod engine;
pub mod home;
mod lag;
pub mod my_programs;
pub mod my_server;
mod outcome;
mod screen;
pub mod server;
pub mod throwaway;
pub mod workload;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::checksum::Frozen;
use self::engine::{Engine, Run};
use self::home::{DATABASE, Home};
use self::lag::LagSampler;
use self::outcome::Outcome;
use self::screen::Screen;
use self::workload::{Session, Workload, Writer, WriterOptions};
use crate::cli::{Context, Ended, human, output};
use crate::error::{Error, Kind, Result};

/// No stage of the demo takes longer than this unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(300);
/// The writer's connections.
const CONNECTIONS: u32 = 4;

/// `demo`
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// What the database moves away from
    #[arg(long, value_enum, default_value_t = home::Kind::Postgres, value_name = "ENGINE")]
    pub from: home::Kind,
    /// What it moves to
    #[arg(long, value_enum, default_value_t = home::Kind::Postgres, value_name = "ENGINE")]
    pub to: home::Kind,
    /// Rows that are there before the migration begins
    #[arg(long, default_value_t = 300_000, value_name = "N")]
    pub rows: u64,
    /// Transactions per second that the application writes
    #[arg(long, default_value_t = 400.0, value_name = "N")]
    pub rate: f64,
    /// How long to follow the writer before the cutover
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub seconds: u64,
    /// Leave both servers running afterwards, until Ctrl-C
    #[arg(long)]
    pub keep: bool,
}

/// Both servers.
struct Stage {
    source: Home,
    target: Home,
}

/// Runs the demo and prints the proof.
pub async fn run(context: &Context, args: &DemoArgs) -> Result<Ended> {
    let json = context.global.json;
    let (stage, outcome) = tokio::select! {
        played = Box::pin(play(args)) => played?,
        () = context.shutdown.cancelled() => {
            return Err(Error::new(Kind::Interrupted, "interrupted; both servers are gone"));
        }
    };
    if json {
        output::print_json(&outcome)?;
    } else {
        output::print(&outcome.text());
    }
    if args.keep {
        let (source, target) = (stage.source.url(), stage.target.url());
        let note = format!("source  {source}\ntarget  {target}\nBoth run until Ctrl-C.");
        screen::note(&note);
        context.shutdown.cancelled().await;
    }
    drop(stage);
    screen::note("Nothing is left behind: both servers and their data are gone.");
    if outcome.holds() {
        Ok(Ended::Done)
    } else {
        Err(Error::new(Kind::Divergence, "the target does not hold what was written"))
    }
}

async fn play(args: &DemoArgs) -> Result<(Stage, Outcome)> {
    let screen = Screen::new();
    let kinds = match (args.from, args.to) {
        (from, to) if from == to => format!("two {from} servers"),
        (from, to) => format!("a {from} and a {to} server"),
    };
    screen.now("servers", &format!("starting {kinds}"));
    let (source, target) = tokio::try_join!(Home::start(args.from), Home::start(args.to))?;
    screen.done("servers", &format!("two of our own, {} and {}", source.label(), target.label()));
    let outcome = migrate(args, &screen, &source, &target).await?;
    Ok((Stage { source, target }, outcome))
}

/// Everything from the first row to the proof.
async fn migrate(args: &DemoArgs, screen: &Screen, source: &Home, target: &Home) -> Result<Outcome> {
    let workload = Workload::of_rows(args.rows);
    screen.now("rows", "filling the source");
    let home = source.url();
    let origin = workload::Engine::of(&home);
    workload.install(&mut Session::connect(&home, origin).await?).await?;
    let tables = Workload::TABLES.len() as u64;
    let rows = human::count(workload.rows().unsigned_abs());
    screen.done("rows", &format!("{rows} in {} of the source", human::plural(tables, "table")));

    let options = WriterOptions { connections: CONNECTIONS, rate: args.rate, seed: rand::random() };
    let writer = Arc::new(Writer::start(&source.application_url(), workload, options));
    screen.done("writer", &format!("{} transactions a second, and it will not stop", args.rate));

    let engine = Arc::new(Engine::new(source, target)?);
    screen.command("run");
    let copy_began = Instant::now();
    let mut run = engine.run()?;
    let sampler = LagSampler::start(engine.clone());
    until_streaming(screen, &mut run, &sampler, &writer).await?;
    let snapshot_seconds = copy_began.elapsed().as_secs_f64();
    screen.done("streaming", &format!("copied and caught up in {}", human::seconds(snapshot_seconds)));
    follow(Duration::from_secs(args.seconds), screen, &mut run, &sampler, &writer).await?;

    screen.command("verify");
    screen.now("verify", "comparing both ends while they are written to");
    engine.ask(&["verify", "--json"]).await?.json("verify")?;
    screen.done("verify", "identical");

    screen.command("cutover --max-lag 1s --max-downtime 30s");
    screen.now("cutover", "gate, fence, drain, verify, sequences, switch");
    let switch = tokio::spawn(switch(
        engine.switch_file(),
        Session::connect(&home, origin).await?,
        Session::connect(&target.url(), origin).await?,
        writer.clone(),
        target.application_url(),
    ));
    let switch = AbortOnDrop(switch);
    let cutover =
        engine.ask(&["cutover", "--max-lag", "1s", "--max-downtime", "30s", "--json"]).await?.json("cutover")?;
    let (frozen_source, frozen_target) = switch.join().await?;
    run.finished().await?;
    let lag_seconds = sampler.curve();
    drop(sampler);
    screen.done("cutover", "the target is live, and the writer writes to it");

    // The application goes on at its new home for a while: sequences, keys and constraints must carry it.
    let goal = writer.figures().acknowledged + (args.rate * 2.0) as u64;
    until("writes at the target", async || {
        let figures = writer.figures();
        Ok(figures.downtime.is_some() && figures.acknowledged >= goal)
    })
    .await?;
    let writer = Arc::into_inner(writer).expect("the switch has ended");
    let (record, figures) = writer.stop().await?;

    screen.now("proof", "comparing both ends and the writer's record");
    let tables = checksum::compare(frozen_source, frozen_target).await?;
    let writes = record.prove(&mut Session::connect(&target.url(), origin).await?).await?;
    Ok(Outcome {
        source: format!("{}/{DATABASE}", source.label()),
        target: format!("{}/{DATABASE}", target.label()),
        total_seconds: screen.elapsed().as_secs_f64(),
        rows_preloaded: workload.rows(),
        snapshot_seconds,
        tables,
        writes,
        failed_attempts: figures.failed,
        looked_up: figures.looked_up,
        write_downtime_ms: figures.downtime.unwrap_or_default().as_secs_f64() * 1000.0,
        cutover_downtime_ms: cutover["downtime_ms"].as_f64(),
        lag_seconds,
    })
}

async fn until_streaming(screen: &Screen, run: &mut Run, sampler: &LagSampler, writer: &Writer) -> Result<()> {
    until("the stream", async || {
        let status = sampler.status();
        let phase = status["phase"].as_str().unwrap_or("starting").to_owned();
        screen.now(&phase, &format!("{} writes acknowledged", human::count(writer.figures().acknowledged)));
        run.check()?;
        Ok(phase == "streaming")
    })
    .await
}

async fn follow(time: Duration, screen: &Screen, run: &mut Run, sampler: &LagSampler, writer: &Writer) -> Result<()> {
    let begin = Instant::now();
    until("the writer", async || {
        let lag = sampler.status()["lag_seconds"].as_f64().unwrap_or_default();
        let written = human::count(writer.figures().acknowledged);
        screen.now("streaming", &format!("lag {}   {written} writes acknowledged", human::seconds(lag)));
        run.check()?;
        Ok(begin.elapsed() >= time)
    })
    .await
}

/// What an application's own switch would do: when the switch command has run, its clients move.
async fn switch(
    file: PathBuf,
    source: Session,
    target: Session,
    writer: Arc<Writer>,
    url: String,
) -> Result<(Frozen, Frozen)> {
    while !file.exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let frozen = tokio::try_join!(Frozen::take(source), Frozen::take(target))?;
    writer.switch_to(&url);
    Ok(frozen)
}

/// A task that ends with its owner.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> AbortOnDrop<Result<T>> {
    async fn join(mut self) -> Result<T> {
        (&mut self.0).await.map_err(|error| Error::new(Kind::Internal, error.to_string()))?
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits for a condition that must come soon if all is well.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !condition().await? {
        if begin.elapsed() > PATIENCE {
            return Err(Error::new(Kind::Internal, format!("waited {PATIENCE:?} in vain for {what}")));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
