//! One function a gate.

use tokio_postgres::types::ToSql;

use super::{Look, Verdict};
use crate::cutover::sequences as sequence_plan;
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::Client;
use crate::source::postgres::fence;
use crate::target::state::{Phase, TableStage, TableState};
use crate::verify::{behind, columns, partitions, published};

/// A question about the tables and every partition below them.
macro_rules! of_tree {
    ($file:literal) => {
        concat!(include_str!("../../postgres/tree.sql"), include_str!($file))
    };
}

/// A transaction open for longer than this would make the fence, and every writer behind it, wait.
const LONG_SECONDS: f64 = 3.0;

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

/// Every table was published without a break since its copy.
pub(super) async fn published(look: &Look<'_>) -> Result<Verdict> {
    match published::unbroken(&look.source, &look.parts.ends, &look.parts.plan).await {
        Ok(()) => Ok(Verdict::open("published")),
        Err(error) if error.kind() == Kind::Schema => {
            Ok(Verdict::closed(error.message(), error.suggestion().unwrap_or_default()))
        }
        Err(error) => Err(error),
    }
}

/// Every column that was added at the source is at the target.
pub(super) async fn columns(look: &Look<'_>) -> Result<Verdict> {
    Ok(Verdict::of(columns::missing(&look.target, &look.parts.plan).await?, "columns", columns::FIX))
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

/// We may fence the tables, and they are still the ones that were migrated.
pub(super) async fn fence_possible(look: &Look<'_>) -> Result<Verdict> {
    let tables = look.parts.tables();
    if let Err(error) = fence::unchanged(&look.source, &tables, &look.parts.patterns).await {
        if error.kind() == Kind::Schema {
            return Ok(Verdict::closed(error.message(), error.suggestion().unwrap_or_default()));
        }
        return Err(error);
    }
    let names = names(tables.iter().map(|table| (table.schema.as_str(), table.table.as_str())));
    let denied = texts(&look.source, of_tree!("fence_denied.sql"), &[&names.0, &names.1]).await?;
    let fix = "on the source   GRANT <owner of the tables> TO <role of the source url>;   a fence is made of triggers";
    Ok(Verdict::of(denied, "fence possible", fix))
}

/// The target takes writes.
pub(super) async fn target_writable(look: &Look<'_>) -> Result<Verdict> {
    // What the setting is for the application: our own sessions may have changed theirs.
    let sql =
        "SELECT pg_is_in_recovery(), reset_val = 'on' FROM pg_settings WHERE name = 'default_transaction_read_only'";
    let row = look.target.query_one(sql, &[]).await?;
    if row.get(0) {
        return Ok(Verdict::closed(
            "the target is a standby",
            "SELECT pg_promote();   or point [target] url elsewhere",
        ));
    }
    if row.get(1) {
        let fix = "ALTER SYSTEM SET default_transaction_read_only = off;   (or the role's, or the database's)";
        return Ok(Verdict::closed("the target's sessions are read-only by default", fix));
    }
    Ok(Verdict::open("target writable"))
}

/// The target's planner knows its tables: without statistics the first minutes after the switch are the worst.
pub(super) async fn statistics(look: &Look<'_>) -> Result<Verdict> {
    let missing = at_target(look, of_tree!("no_statistics.sql")).await?;
    Ok(Verdict::of(few(&missing, "never analyzed"), "statistics", "on the target   ANALYZE;"))
}

/// Every index of the target can be used.
pub(super) async fn indexes(look: &Look<'_>) -> Result<Verdict> {
    let invalid = at_target(look, of_tree!("invalid_indexes.sql")).await?;
    Ok(Verdict::of(few(&invalid, "invalid"), "indexes", "on the target   REINDEX INDEX CONCURRENTLY <index>;"))
}

/// Every constraint of the target is validated that is validated at the source.
pub(super) async fn constraints(look: &Look<'_>) -> Result<Verdict> {
    let sql = of_tree!("unvalidated.sql");
    let tables = look.parts.tables();
    let wanted = names(tables.iter().map(|table| (table.schema.as_str(), table.table.as_str())));
    let at_source = texts(&look.source, sql, &[&wanted.0, &wanted.1]).await?;
    let mut open = at_target(look, sql).await?;
    open.retain(|constraint| !at_source.contains(constraint));
    let fix = "on the target   ALTER TABLE … VALIDATE CONSTRAINT …;";
    Ok(Verdict::of(few(&open, "not validated"), "constraints", fix))
}

/// Every sequence has its counterpart.
pub(super) async fn sequences(look: &Look<'_>) -> Result<Verdict> {
    let plan = sequence_plan::plan(look.parts).await?;
    let (found, all) = (plan.moves.len(), plan.moves.len() + plan.missing.len());
    let missing = plan.missing.into_iter().map(|name| format!("{name} has no counterpart at the target")).collect();
    Ok(Verdict::of(missing, format!("sequences {found}/{all}"), "create them at the target"))
}

/// Nobody holds locks, or has written, for long: the fence would wait behind it and all writes with it. A transaction
/// that only reads is no obstacle: readers do not conflict with the fence, and what they try to write later is refused.
pub(super) async fn long_transactions(look: &Look<'_>) -> Result<Verdict> {
    let blockers = fence::blockers(&look.source, &look.parts.tables()).await?;
    let long: Vec<_> = blockers.iter().filter(|b| b.open_seconds > LONG_SECONDS || b.prepared.is_some()).collect();
    let mut details: Vec<String> = long.iter().map(ToString::to_string).collect();
    let mut fix = long.first().map(|blocker| blocker.fix()).unwrap_or_default();
    let known: Vec<i32> = blockers.iter().filter_map(|blocker| blocker.pid).collect();
    let rows = look.source.query(include_str!("long_writers.sql"), &[&LONG_SECONDS, &known]).await?;
    for row in &rows {
        details.push(row.get(0));
        if fix.is_empty() {
            fix = row.get(1);
        }
    }
    if !details.is_empty() {
        details.push("the fence would wait behind it, and all writes with it".into());
    }
    Ok(Verdict::of(details, "long transactions 0", fix))
}

/// Schemas and names side by side, as the statements take them.
pub(super) fn names<'a>(tables: impl Iterator<Item = (&'a str, &'a str)>) -> (Vec<&'a str>, Vec<&'a str>) {
    tables.unzip()
}

async fn at_target(look: &Look<'_>, sql: &str) -> Result<Vec<String>> {
    let tables = look.parts.plan.tables();
    let names = names(tables.map(|table| (table.shaped.name.schema.as_str(), table.shaped.name.table.as_str())));
    texts(&look.target, sql, &[&names.0, &names.1]).await
}

async fn texts(client: &Client, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<String>> {
    let rows = client.query(sql, params).await.map_err(Error::from).context("looking at the catalogue")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// One line that names the first few.
pub(super) fn few(names: &[String], what: &str) -> Vec<String> {
    if names.is_empty() {
        return Vec::new();
    }
    let more = if names.len() > 5 { format!(" and {} more", names.len() - 5) } else { String::new() };
    vec![format!("{what}: {}{more}", names[..names.len().min(5)].join(", "))]
}
