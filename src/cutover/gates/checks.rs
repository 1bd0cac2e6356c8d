//! The gates that are questions to the state, or to both ends whatever they are: one function each.

use super::{Look, Verdict};
use crate::cutover::sequences as sequence_plan;
use crate::error::Result;
use crate::target::state::{Phase, TableStage, TableState};
use crate::verify::{behind, partitions};

/// Every table is copied and the stream has reached the head once.
pub(super) async fn snapshot(look: &Look<'_>) -> Result<Verdict> {
    let state = &look.parts.ends.state;
    let tables = state.tables().await?;
    let fix = "cutwater status shows how far it is";
    let is = |stages: &[TableStage]| tables.iter().filter(|t| stages.contains(&t.stage)).collect::<Vec<_>>();
    if let [first, ..] = is(&[TableStage::Failed])[..] {
        let details = is(&[TableStage::Failed]).into_iter().map(|table| {
            let why = table.error.as_deref().and_then(|error| error.lines().next()).unwrap_or("no reason was noted");
            format!("{} could not be copied: {why}", table.source)
        });
        let fix = format!(
            "remove the cause, then cutwater tables resync {0}   or leave it out: cutwater tables skip {0}",
            first.source.pattern()
        );
        return Ok(Verdict::Closed { details: details.collect(), fix });
    }
    let copying = is(&[TableStage::Waiting, TableStage::Copying, TableStage::CatchingUp]).len();
    if copying > 0 {
        return Ok(Verdict::closed(format!("{copying} of {} tables are not copied yet", tables.len()), fix));
    }
    if let Some(request) = state.requests().await?.first() {
        let why = format!("tables {} {} is not done yet", request.action.as_str(), request.source);
        return Ok(Verdict::closed(why, "cutwater tables   shows how far it is"));
    }
    let carried = tables.iter().filter(|table| table.stage.is_carried());
    if let Some(table) = carried.clone().find(|table| table.unfinished) {
        let why = table.error.as_deref().and_then(|error| error.lines().next());
        let why = why.map_or_else(|| "they are made once the stream has passed its copy".to_owned(), str::to_owned);
        return Ok(Verdict::closed(format!("foreign keys or triggers of {} are missing: {why}", table.source), fix));
    }
    if !look.parts.covers(carried.map(|table| &table.source)) {
        return Ok(Verdict::closed("the set of tables changed meanwhile", "run the same command again"));
    }
    match look.migration.phase {
        Phase::Streaming | Phase::Draining => Ok(Verdict::open(without(&is(&[TableStage::Skipped])))),
        phase => Ok(Verdict::closed(format!("the migration is in phase {phase}, not streaming"), fix)),
    }
}

/// What is not carried on request is said whenever a cutover is talked of.
fn without(skipped: &[&TableState]) -> String {
    let names: Vec<String> = skipped.iter().map(|table| table.source.to_string()).collect();
    match names.len() {
        0 => "snapshot".to_owned(),
        _ => format!("snapshot without {} (skipped: not carried, stale at the target)", names.join(", ")),
    }
}

/// Somebody applies the stream.
pub(super) async fn run_alive(look: &Look<'_>) -> Result<Verdict> {
    let state = &look.parts.ends.state;
    if let Some(why) = behind::not_running(state).await? {
        return Ok(Verdict::closed(why, "cutwater run"));
    }
    match state.run().await?.and_then(|(report, _)| report.trouble) {
        Some(trouble) => Ok(Verdict::closed(format!("the run is in trouble: {}", trouble.error), "cutwater status")),
        None => Ok(Verdict::open("run alive")),
    }
}

/// Nobody has paused it: a drain would wait for who resumes it, and the source's writes with it.
pub(super) async fn paused(look: &Look<'_>) -> Result<Verdict> {
    let control = look.parts.ends.state.control().await?;
    let Some(since) = control.apply_paused_at.or(control.snapshot_paused_at) else {
        return Ok(Verdict::open("not paused"));
    };
    let by = control.paused_by.as_deref().unwrap_or("somebody");
    Ok(Verdict::closed(format!("paused since {} UTC by {by}", since.strftime("%H:%M:%S")), "cutwater resume"))
}

/// The last comparison was clean, is not too old, and fits into the downtime.
pub(super) async fn verify(look: &Look<'_>) -> Result<Verdict> {
    let Some(last) = &look.migration.verify else {
        return Ok(Verdict::closed("the two ends were never compared", "cutwater verify"));
    };
    if last.differences > 0 {
        let why = format!("the last verify found {} differing rows", last.differences);
        return Ok(Verdict::closed(why, "cutwater verify   names them"));
    }
    let age = jiff::Timestamp::now().duration_since(last.at).as_secs().max(0) as u64;
    let allowed = look.parts.config.max_verify_age.0.as_secs();
    if age > allowed {
        let why = format!("last clean verify is older than {}", words(allowed));
        return Ok(Verdict::closed(why, "cutwater verify"));
    }
    let moved = partitions::changed(&look.parts.ends, &look.parts.plan, last).await?;
    if let Some((table, _)) = moved.first() {
        let fix =
            format!("cutwater verify   and if rows differ   cutwater tables resync '{table}'   or verify --repair");
        let mut details: Vec<String> = moved.iter().take(5).map(|(_, why)| why.clone()).collect();
        if moved.len() > 5 {
            details.push(format!("and {} more such changes", moved.len() - 5));
        }
        details.push("since the last clean verify".into());
        return Ok(Verdict::Closed { details, fix });
    }
    // The final comparison behind the fence is never left out: one that would not fit is refused here, by name.
    // Without writers and waits it is no slower than the last one was.
    let (took, limit) = (look.scope.seconds(&look.parts.plan, last), look.options.max_downtime.as_secs_f64());
    if took > limit * 0.8 {
        let words = look.scope.words();
        let why = format!("the comparison behind the fence takes up to {took:.0} s, and only {limit:.0} s are allowed");
        let what = format!("it would read {words}");
        let longer = format!("--max-downtime {:.0}s", (took * 1.5).ceil());
        let fix = if look.scope.shrinks() {
            format!("cutwater verify   so that only what changes after it is left to compare; or {longer}")
        } else {
            longer
        };
        return Ok(Verdict::Closed { details: vec![why, what], fix });
    }
    Ok(Verdict::open(format!("verify {} ago", words(age))))
}

fn words(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} m", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

/// No row was put aside.
pub(super) async fn dead_letters(look: &Look<'_>) -> Result<Verdict> {
    match look.parts.ends.state.dead_letters().await? {
        0 => Ok(Verdict::open("dead letters 0")),
        count => Ok(Verdict::closed(
            format!("{count} rows the target refused are in cutwater.dead_letter"),
            "bring them in by hand, then   DELETE FROM cutwater.dead_letter;   and cutwater verify",
        )),
    }
}

/// Every update and delete found its row, or a verify since says that nothing came of it.
pub(super) async fn divergences(look: &Look<'_>) -> Result<Verdict> {
    let checkpoint = look.parts.ends.state.checkpoint().await?;
    match checkpoint.map_or(0, |checkpoint| checkpoint.divergences) {
        0 => Ok(Verdict::open("divergences 0")),
        count => Ok(Verdict::closed(
            format!("{count} updates or deletes did not find their row at the target"),
            "cutwater verify   names what differs; then copy the table again",
        )),
    }
}

/// Every sequence has its counterpart.
pub(super) async fn sequences(look: &Look<'_>) -> Result<Verdict> {
    let plan = sequence_plan::plan(look.parts).await?;
    let (found, all) = (plan.moves.len(), plan.moves.len() + plan.missing.len());
    let missing = plan.missing.into_iter().map(|name| format!("{name} has no counterpart at the target")).collect();
    Ok(Verdict::of(missing, format!("sequences {found}/{all}"), "create them at the target"))
}

/// One line that names the first few.
pub(super) fn few(names: &[String], what: &str) -> Vec<String> {
    if names.is_empty() {
        return Vec::new();
    }
    let more = if names.len() > 5 { format!(" and {} more", names.len() - 5) } else { String::new() };
    vec![format!("{what}: {}{more}", names[..names.len().min(5)].join(", "))]
}
