//! `cutwater tables`: the state of each table, and what is asked of the run about them.
//!
//! The command writes down what is wanted, the run does it ([`crate::pipeline::tables`]). What cannot be meant is refused
//! here, before anything is written: a pattern that matches nothing, a table that is in the migration already or is not.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::{TableChange, TablesArgs, Which};
use super::{Context, Ended, event, human, output};
use crate::config::Existing;
use crate::error::{Context as _, Error, Kind, Result};
use crate::pipeline::Job;
use crate::schema::{Patterns, ReplicaIdentity, TableName, TableSchema};
use crate::source::Source;
use crate::target::state::{CutoverStep, Phase, TableAction, TableRequest, TableStage, TableState};
use crate::target::state::{Requested, State};
use crate::target::{AnyTarget, Target};
use crate::verify::behind;

/// Between two looks with `--wait`.
const POLL: Duration = Duration::from_millis(300);

pub(super) async fn run(context: &Context, args: &TablesArgs) -> Result<Ended> {
    let config = context.config()?;
    let Some(change) = &args.change else {
        let state = AnyTarget::of(&config)?.state().clone();
        return list(context, &state).await;
    };
    let (action, which) = match change {
        TableChange::Add(which) => (TableAction::Add, which),
        TableChange::Remove(which) => (TableAction::Remove, which),
        TableChange::Resync(which) => (TableAction::Resync, which),
        TableChange::Skip(which) => (TableAction::Skip, which),
    };
    let job = Job::open(config)?;
    let state = job.target.state();
    may(state).await?;
    let name = format!("tables {}", action.as_str());
    event::record(state, &name, "started").await;
    let asked = ask(&job, action, which).await;
    let tables = event::ended(state, &name, asked).await?;
    answer(context, &job, action, &tables, which.wait).await
}

/// Whether the set may change now.
async fn may(state: &State) -> Result<()> {
    let migration = state.migration().await.context("looking at the target's state")?;
    let Some(migration) = migration else {
        return Err(Error::new(Kind::Refused, "nothing was migrated yet: which tables take part is said by the file")
            .fix("[source] tables, then cutwater run"));
    };
    if matches!(migration.phase, Phase::TargetLive | Phase::RolledBack) {
        return Err(Error::new(
            Kind::Refused,
            "the cutover is done: the set of tables is what it was. Nothing was touched",
        ));
    }
    let unfinished =
        state.cutover().await?.is_some_and(|last| !matches!(last.step, CutoverStep::Done | CutoverStep::Undone));
    if unfinished || migration.phase == Phase::Draining {
        return Err(closed());
    }
    state.require_current().await
}

fn closed() -> Error {
    Error::new(Kind::Refused, "a cutover is under way: the set of tables stays as it is. Nothing was touched")
        .fix("let it end, or take it back: cutwater cutover --abort")
}

/// Writes the requests down; the tables they are about.
async fn ask(job: &Job, action: TableAction, which: &Which) -> Result<Vec<TableName>> {
    let state = job.target.state();
    let known = state.tables_ever().await?;
    let tables = match action {
        TableAction::Add => to_add(job, &known, &which.patterns).await?,
        _ => chosen(action, &known, &which.patterns)?,
    };
    let requests: Vec<_> = tables.iter().map(|source| TableRequest { source: source.clone(), action }).collect();
    match state.request(&requests).await? {
        Requested::Accepted => Ok(tables),
        Requested::Closed => Err(closed()),
    }
}

/// The tables of the source that match and are not part of the migration, and fit.
async fn to_add(job: &Job, known: &[TableState], patterns: &[String]) -> Result<Vec<TableName>> {
    let all = job.source.tables(&Patterns::default()).await?;
    let mut chosen = Vec::new();
    for text in patterns {
        let pattern = Patterns::parse(&[text])?;
        let matching: Vec<_> = all.iter().filter(|table| pattern.includes(&table.name)).collect();
        if matching.is_empty() {
            let why = format!("{text:?} matches no table of {}. Nothing was touched", job.source.label());
            return Err(
                Error::new(Kind::Config, why).fix("write schema.table; * and ? are globs, in quotes for the shell")
            );
        }
        let (is, new): (Vec<_>, Vec<_>) = matching.into_iter().partition(|table| {
            known.iter().any(|known| known.source == table.name && known.stage != TableStage::Removed)
        });
        if let ([], Some(first)) = (&new[..], is.first()) {
            let why = format!("{} is part of the migration already. Nothing was touched", first.name);
            return Err(Error::new(Kind::Refused, why)
                .fix(format!("to copy it again: cutwater tables resync {}", first.name.pattern())));
        }
        chosen.extend(new.into_iter().cloned());
    }
    chosen.sort_by(|a, b| a.name.cmp(&b.name));
    chosen.dedup_by(|a, b| a.name == b.name);
    if let Some(table) = chosen.iter().find(|table| !followable(table)) {
        let why = format!("{} has no key: its updates and deletes cannot be followed. Nothing was touched", table.name);
        return Err(Error::new(Kind::Schema, why)
            .fix(format!("ALTER TABLE {} REPLICA IDENTITY FULL;  at the source", table.name.sql())));
    }
    if job.config.target.existing == Existing::Stop {
        let rules = crate::transform::Plan::compile(&job.config.transform, &all)?;
        let targets: Vec<_> =
            chosen.iter().filter_map(|table| rules.get(&table.name)).map(|table| table.shaped.name.clone()).collect();
        let there = job.target.tables(&targets).await?;
        let targets: Vec<_> = there.into_iter().flatten().map(|table| table.name.clone()).collect();
        job.target.make_room(&targets, Existing::Stop).await?;
    }
    Ok(chosen.iter().map(|table| table.name.clone()).collect())
}

fn followable(table: &TableSchema) -> bool {
    match table.replica_identity {
        ReplicaIdentity::Full => true,
        ReplicaIdentity::Default | ReplicaIdentity::Index => table.key.is_some(),
        ReplicaIdentity::Nothing => false,
    }
}

/// The tables of the migration that match.
fn chosen(action: TableAction, known: &[TableState], patterns: &[String]) -> Result<Vec<TableName>> {
    let mut chosen = Vec::new();
    for text in patterns {
        let pattern = Patterns::parse(&[text])?;
        let matching: Vec<_> = known.iter().filter(|table| pattern.includes(&table.source)).collect();
        let (out, mut inside): (Vec<_>, Vec<_>) =
            matching.into_iter().partition(|table| table.stage == TableStage::Removed);
        if action == TableAction::Skip {
            inside.retain(|table| table.stage != TableStage::Skipped);
        }
        if inside.is_empty() {
            let error = match out.first() {
                Some(out) => Error::new(Kind::Refused, format!("{} was removed from the migration", out.source))
                    .fix(format!("to take it in again: cutwater tables add {}", out.source.pattern())),
                None => Error::new(
                    Kind::Config,
                    format!("{text:?} matches no table of the migration to {}", action.as_str()),
                )
                .fix("cutwater tables   lists them"),
            };
            return Err(error);
        }
        chosen.extend(inside.into_iter().map(|table| table.source.clone()));
    }
    chosen.sort();
    chosen.dedup();
    Ok(chosen)
}

/// Says what becomes of it; with `wait`, waits for that.
async fn answer(context: &Context, job: &Job, action: TableAction, tables: &[TableName], wait: bool) -> Result<Ended> {
    let state = job.target.state();
    let idle = behind::not_running(state).await?;
    let migration = &job.config.migration.name;
    let names = tables.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if !context.global.json {
        let mut text = match &idle {
            None => format!("{migration}  accepted: {} {names}. The run does it now.", action.as_str()),
            Some(why) => format!(
                "{migration}  accepted: {} {names}. The next run does it ({why}).\n  do: cutwater run",
                action.as_str()
            ),
        };
        text.push_str(match action {
            TableAction::Add | TableAction::Resync => "\nThe other tables go on meanwhile; cutwater tables shows how far it is.",
            TableAction::Remove => {
                "\nIts changes are no longer followed. What the target has of it stays there, and grows old; so do foreign \
                 keys to it."
            }
            TableAction::Skip => {
                "\nIts changes are no longer followed, and a cutover does not wait for it: what the target has of it is \
                 stale or half copied.\nBack: cutwater tables resync"
            }
        });
        output::print(&text);
    }
    let done = if wait { Some(wait_for(state, action, tables).await?) } else { None };
    if context.global.json {
        let tables: Vec<String> = tables.iter().map(ToString::to_string).collect();
        output::print_json(&json!({
            "migration": migration, "action": action.as_str(), "tables": tables, "accepted": true,
            "run_alive": idle.is_none(), "done": done.is_some(),
        }))?;
    } else if let Some(done) = done {
        output::print(&format!("{migration}  {done}"));
    }
    Ok(Ended::Done)
}

/// Waits until the run has done it; what was done.
async fn wait_for(state: &State, action: TableAction, tables: &[TableName]) -> Result<String> {
    loop {
        let open = state.requests().await?.iter().any(|request| tables.contains(&request.source));
        let states = state.tables_ever().await?;
        let ours: Vec<_> = states.iter().filter(|table| tables.contains(&table.source)).collect();
        if !open {
            if let Some(failed) = ours.iter().find(|table| table.stage == TableStage::Failed || table.error.is_some()) {
                let why = failed.error.as_deref().unwrap_or("no reason was noted");
                return Err(Error::new(Kind::BadRow, format!("{}: {}", failed.source, first_line(why)))
                    .fix(advice(&failed.source)));
            }
            if ours.len() < tables.len() {
                return Err(Error::new(Kind::Refused, "the run could not do it; its log says why"));
            }
            let copied = |table: &&TableState| table.stage == TableStage::Copied && !table.unfinished;
            match action {
                TableAction::Remove | TableAction::Skip => return Ok("DONE.".to_owned()),
                _ if ours.iter().all(copied) => return Ok("DONE: copied, and followed with the others.".to_owned()),
                _ => {}
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

fn advice(table: &TableName) -> String {
    let name = table.pattern();
    format!("remove the cause, then cutwater tables resync {name}   or go on without it: cutwater tables skip {name}")
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

async fn list(context: &Context, state: &State) -> Result<Ended> {
    let migration = state.migration().await.context("looking at the target's state")?;
    let phase = migration.map_or(Phase::New, |migration| migration.phase);
    let tables = state.tables_ever().await?;
    let requests = state.requests().await?;
    let alive = behind::not_running(state).await?.is_none();
    if context.global.json {
        let tables: Vec<Value> = tables.iter().map(|table| as_json(table, phase, &requests)).collect();
        let new = requests.iter().filter(|request| request.action == TableAction::Add).map(|r| r.source.to_string());
        output::print_json(&json!({
            "migration": state.name(), "phase": phase, "run_alive": alive, "tables": tables,
            "to_add": new.collect::<Vec<_>>(),
        }))?;
    } else {
        output::print(&render(state.name(), phase, &tables, &requests));
    }
    Ok(Ended::Done)
}

/// The word for what a table is at.
fn word(table: &TableState, phase: Phase) -> &'static str {
    match table.stage {
        TableStage::Copied if phase >= Phase::CatchingUp => "streaming",
        stage => stage.as_str(),
    }
}

fn wanted(table: &TableState, requests: &[TableRequest]) -> Option<&'static str> {
    requests.iter().find(|request| request.source == table.source).map(|request| request.action.as_str())
}

fn as_json(table: &TableState, phase: Phase, requests: &[TableRequest]) -> Value {
    json!({
        "name": table.source.to_string(), "target": table.target.to_string(), "state": word(table, phase),
        "rows": table.rows_copied, "rows_estimate": table.rows_estimate, "bytes_estimate": table.bytes_estimate,
        "copied_at": table.copied_at, "waits_for": table.waits_for, "error": table.error,
        "constraints_missing": table.unfinished, "requested": wanted(table, requests),
    })
}

fn render(migration: &str, phase: Phase, tables: &[TableState], requests: &[TableRequest]) -> String {
    if tables.is_empty() {
        return format!("{migration}  nothing was begun yet.\nDo: cutwater check, then cutwater run");
    }
    let mut counts: Vec<(&str, u64)> = Vec::new();
    for table in tables {
        let word = word(table, phase);
        match counts.iter_mut().find(|(other, _)| *other == word) {
            Some((_, count)) => *count += 1,
            None => counts.push((word, 1)),
        }
    }
    let counts: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let mut out = format!("{migration:<9} {}: {}\n\n", human::plural(tables.len() as u64, "table"), counts.join(", "));
    let width = tables.iter().map(|table| table.source.to_string().chars().count()).max().unwrap_or(0);
    for table in tables {
        let name = table.source.to_string();
        let _ = write!(out, "{name:<width$}   {:<12}", word(table, phase));
        match table.stage {
            TableStage::Copying => {
                let (rows, all) = (table.rows_copied.max(0) as u64, table.rows_estimate.max(0) as u64);
                let _ = write!(out, " {} of about {} rows", human::count(rows), human::count(all.max(rows)));
            }
            TableStage::Skipped => out.push_str(" not carried: what the target has of it is stale"),
            TableStage::Removed => out.push_str(" no longer part of the migration"),
            _ => {}
        }
        if let Some(waits) = &table.waits_for {
            let _ = write!(out, " waits for {waits}");
        }
        if table.unfinished && table.error.is_none() {
            out.push_str(" foreign keys and triggers are to come");
        }
        if let Some(wanted) = wanted(table, requests) {
            let _ = write!(out, " asked to {wanted}");
        }
        while out.ends_with(' ') {
            out.pop();
        }
        out.push('\n');
        if let Some(error) = &table.error {
            let _ = writeln!(out, "{:<width$}   {}", "", first_line(error));
            let _ = writeln!(out, "{:<width$}   fix: {}", "", advice(&table.source));
        }
    }
    for request in requests.iter().filter(|request| !tables.iter().any(|table| table.source == request.source)) {
        let _ = writeln!(out, "{:<width$}   asked to {}", request.source.to_string(), request.action.as_str());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, stage: TableStage) -> TableState {
        TableState {
            source: TableName::new("public", name),
            target: TableName::new("public", name),
            stage,
            copied_at: None,
            rows_estimate: 0,
            rows_copied: 0,
            bytes_estimate: 0,
            bytes_copied: 0,
            started_at: None,
            finished_at: None,
            waits_for: None,
            rule: None,
            error: None,
            unfinished: false,
        }
    }

    #[test]
    fn what_needs_somebody_is_said_with_what_to_do() {
        let mut bad = table("bad", TableStage::Failed);
        bad.error = Some("value too long\n  fix: widen it".into());
        let text = render("shop", Phase::Streaming, &[bad, table("good", TableStage::Copied)], &[]);
        assert_eq!(
            text,
            "shop      2 tables: 1 failed, 1 streaming\n\n\
             public.bad    failed\n              value too long\n              fix: remove the cause, then cutwater tables \
             resync public.bad   or go on without it: cutwater tables skip public.bad\npublic.good   streaming\n"
        );
    }

    #[test]
    fn a_pattern_must_match_something_that_can_be_meant() {
        let known = [table("a", TableStage::Copied), table("gone", TableStage::Removed)];
        let ask = |action, text: &str| chosen(action, &known, &[text.to_owned()]).map_err(|error| error.to_string());
        assert_eq!(ask(TableAction::Resync, "public.*"), Ok(vec![TableName::new("public", "a")]));
        assert!(ask(TableAction::Resync, "public.x").expect_err("no such table").contains("matches no table"));
        assert!(ask(TableAction::Remove, "public.gone").expect_err("removed").contains("tables add public.gone"));
    }
}
