//! `cutwater cutover`: drives [`crate::cutover`] and says what happens.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use super::args::CutoverArgs;
use super::{Context, Ended, ends, event, human, output};
use crate::config::Config;
use crate::cutover::{self, CutoverReport, FinalVerify, Options, Parts, Progress};
use crate::error::{Kind, Result};
use crate::pipeline::{Job, preflight};
use crate::schema::Patterns;

pub(super) async fn run(context: &Context, args: &CutoverArgs) -> Result<Ended> {
    let config = context.config()?;
    let ends = ends::ends(&config)?;
    let state = ends.state.clone();
    let plan = ends::plan(&config).await?;
    state.require_current().await?;
    let patterns = Patterns::parse(&ends::patterns(&config, &state).await?)?;
    let left = left_behind(&config).await?;
    let name = config.migration.name;
    let parts = Parts { ends, plan, patterns, config: config.cutover };
    let options = Options {
        max_lag: args.max_lag.0,
        hold: args.hold.0,
        max_downtime: args.max_downtime.0,
        wait: args.wait,
        dry_run: args.dry_run,
    };
    if args.abort {
        event::record(&state, "cutover --abort", "started").await;
        let aborted = cutover::abort(&parts, &report).await;
        event::ended(&state, "cutover --abort", aborted).await?;
        say(context, &json!({ "undone": true }), &format!("{name}  UNDONE. The source takes writes."))?;
        return Ok(Ended::Done);
    }
    if args.dry_run {
        let done = cutover::drive(&parts, &options, &report, &context.shutdown).await;
        return answer(context, &name, done, left);
    }
    event::record(&state, "cutover", "started").await;
    let done = cutover::drive(&parts, &options, &report, &context.shutdown).await;
    let done = event::ended(&state, "cutover", done).await;
    answer(context, &name, done, left)
}

/// What no migration of tables carries over: said before it began, and now that it matters. Looked at first, because
/// nobody may be able to ask the source later; not worth a cutover's failure.
async fn left_behind(config: &Config) -> Result<Vec<String>> {
    let job = Job::open(config.clone())?;
    Ok(preflight::left_behind(&job).await.unwrap_or_else(|error| {
        tracing::warn!(error = error.message(), "what is not carried over could not be looked for");
        Vec::new()
    }))
}

fn answer(context: &Context, name: &str, done: Result<CutoverReport>, left: Vec<String>) -> Result<Ended> {
    match done {
        Ok(mut done) => {
            done.not_carried = left;
            let text = render(name, &done);
            say(context, &done, &text)?;
            Ok(Ended::Done)
        }
        // Closed gates are an answer: their screen is the result, not an error.
        Err(error)
            if error.kind() == Kind::Refused && !context.global.json && error.why().contains("CUTOVER REFUSED") =>
        {
            output::print(error.why());
            Ok(Ended::No)
        }
        Err(error) => Err(error),
    }
}

fn say(context: &Context, json: &impl serde::Serialize, text: &str) -> Result<()> {
    if context.global.json {
        return output::print_json(json);
    }
    output::print(text);
    Ok(())
}

/// Each step as a log line on stderr.
fn report(progress: &Progress<'_>) {
    match progress {
        Progress::Settled(what) => tracing::info!("an unfinished cutover was found: {what}"),
        Progress::Waiting(gates) => {
            let closed: Vec<&str> = gates.closed().map(|(name, _, _)| name).collect();
            tracing::info!("waiting for {}", closed.join(", "));
        }
        Progress::GatesOpen(gates) => tracing::info!("all {} gates are open", gates.gates.len()),
        Progress::Fencing => tracing::info!("taking the fence"),
        Progress::Fenced { relations, tries } => {
            tracing::info!(relations, tries, "the source refuses writes");
        }
        Progress::Drained(after) => tracing::info!("drained after {}", human::seconds(after.as_secs_f64())),
        Progress::Verifying(done, total) => tracing::debug!("compared {done} of {total}"),
        Progress::Verified { tables, rows } => tracing::info!(tables, rows, "both ends hold the same"),
        Progress::Sequences(count) => tracing::info!(count, "sequences are set"),
        Progress::Permanent => tracing::info!("the point of no return is passed"),
        Progress::LateMade(count) => tracing::info!(count, "foreign keys and triggers are made"),
        Progress::Validating(count) => tracing::info!(count, "validating foreign keys; the target is live meanwhile"),
        Progress::Refreshing(count) => {
            tracing::info!(count, "refreshing materialized views; the target is live meanwhile");
        }
        Progress::Switching(Some(command)) => tracing::info!(command, "moving the clients"),
        Progress::Switching(None) => tracing::info!("no switch_command: move the clients now"),
        Progress::Done(_) => tracing::info!("the target is live"),
        Progress::Undone(why) => tracing::warn!("undone: {why}"),
        Progress::Would(what) => tracing::info!("would {what}"),
    }
}

fn render(name: &str, done: &CutoverReport) -> String {
    if done.was_done {
        let rest = late(done);
        let what = if rest.is_empty() { " Nothing was done.".to_owned() } else { format!("\n\n{}", rest.trim_end()) };
        return format!("{name}  CUT OVER already. The target is live.{what}");
    }
    if !done.rehearsed.is_empty() {
        let steps: String =
            done.rehearsed.iter().enumerate().map(|(n, step)| format!("{:>3}  {step}\n", n + 1)).collect();
        return format!(
            "{name}  DRY RUN: all gates are open. It would\n\n{steps}\n{}Nothing was changed.   next: cutwater cutover",
            late(done)
        );
    }
    let millis = |ms: Option<u64>| {
        ms.map_or_else(|| "not known".to_owned(), |ms| human::seconds(Duration::from_millis(ms).as_secs_f64()))
    };
    let writes = match done.downtime_ms {
        Some(ms) => format!("writes waited {ms} ms (limit {})", human::seconds(done.max_downtime_ms as f64 / 1000.0)),
        None => "an earlier driver took the fence".to_owned(),
    };
    let (tables, rows) = (human::plural(done.tables, "table"), human::plural(done.rows, "row"));
    let compared = match done.final_verify {
        Some(FinalVerify::Changed) => format!("{rows} of {tables} that had changed since the last verify"),
        Some(FinalVerify::Full) => format!("{tables}, {rows}"),
        None => "by an earlier driver".to_owned(),
    };
    format!(
        "{name}  CUT OVER. The target is live, the old source refuses writes.\n\n\
         downtime  {writes}\n\
         drain     {}\n\
         verify    {compared}, 0 differ ({})\n\
         sequences {}\n{}\n\
         When no client uses the old source any more: cutwater teardown --release-source",
        millis(done.drain_ms),
        millis(done.verify_ms),
        done.sequences,
        late(done),
    )
}

/// What waited for the cutover, what of it is still open, and what stayed behind. Ends with a line break, or is empty.
fn late(done: &CutoverReport) -> String {
    let mut text = String::new();
    if done.late_made > 0 {
        let _ = writeln!(
            text,
            "late      {} that had to wait made: foreign keys, triggers",
            human::plural(done.late_made, "object")
        );
    }
    if done.validated > 0 {
        let _ = writeln!(text, "validated {}", human::plural(done.validated, "foreign key"));
    }
    for open in &done.not_validated {
        let _ = writeln!(text, "open      {open}");
    }
    if !done.not_validated.is_empty() {
        text.push_str("          they hold for new rows; cutwater cutover goes on with the old ones\n");
    }
    if done.views_refreshed > 0 {
        let _ = writeln!(text, "views     {} refreshed", human::plural(done.views_refreshed, "materialized view"));
    }
    for stale in &done.views_stale {
        let _ = writeln!(text, "stale     {stale}");
    }
    if !done.views_stale.is_empty() {
        text.push_str("          cutwater cutover tries these again\n");
    }
    for note in &done.notes {
        let _ = writeln!(text, "source    {note}");
    }
    if !done.not_carried.is_empty() {
        let _ = writeln!(text, "not carried: {}", done.not_carried.join(", "));
    }
    text
}
