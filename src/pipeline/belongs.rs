//! Whether a config and a state are of one migration.
//!
//! In: the config, and what the state recorded when the migration began. Out: nothing, or the error that says what
//! changed and what to do: another end is refused, another rule names the tables that have to be copied again.
//! [`crate::config::restart`] holds the lists of what may change.

use crate::config::{Config, RecordedEnds};
use crate::error::{Error, Kind, Result};
use crate::target::state::State;
use crate::target::state::{FORMAT, Lease, Migration, TableState};

/// Format 1 had one fingerprint for ends and rules together.
const ONE_FINGERPRINT: i32 = 1;

/// Refuses the config of another migration.
pub fn ends(config: &Config, migration: &Migration) -> Result<()> {
    let name = &migration.name;
    let was = format!("{} -> {}", migration.source_label, migration.target_label);
    let fix = "use the config it was begun with, another [migration] name, or end it with cutwater teardown";
    if migration.format == ONE_FINGERPRINT {
        if migration.fingerprint == config.fingerprint_of_format_1() {
            return Ok(());
        }
        let why = format!(
            "this is a config for another migration: the target holds {name:?} of other ends or other rules ({was}), \
             begun by an older cutwater"
        );
        return Err(Error::new(Kind::Config, why).fix(fix));
    }
    let now = config.recorded_ends();
    let recorded: RecordedEnds = serde_json::from_str(&migration.fingerprint).map_err(|_| {
        Error::new(Kind::Internal, format!("the state of {name:?} holds no ends but {:?}", migration.fingerprint))
    })?;
    if recorded == now {
        return Ok(());
    }
    let mut changed = Vec::new();
    for (end, was, is) in [("source", &recorded.source, &now.source), ("target", &recorded.target, &now.target)] {
        if was != is {
            changed.push(format!(
                "its {end} was {}, here it is {}",
                was.trim_end_matches('?'),
                is.trim_end_matches('?')
            ));
        }
    }
    let why = format!(
        "this is a config for another migration: the target holds {name:?} ({was}); {}. Nothing was touched",
        changed.join("; ")
    );
    Err(Error::new(Kind::Config, why).fix(fix))
}

/// Refuses rules that make something else of a table than what was copied.
pub fn rules(config: &Config, tables: &[TableState]) -> Result<()> {
    let changed: Vec<String> = tables
        .iter()
        .filter(|table| table.rule.as_ref().is_some_and(|rule| *rule != config.rule_of(&table.source)))
        .map(|table| table.source.to_string())
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    let (names, them, was) = match changed.len() {
        1 => (changed.join(" "), "it", "it was"),
        _ => (changed.join(" "), "them", "they were"),
    };
    let why = format!(
        "[[transform]] makes something else of {} than when {was} copied: rows of both shapes would stand in one table",
        changed.join(", ")
    );
    Err(Error::new(Kind::Config, why)
        .fix(format!("cutwater tables resync {names}   copies {them} again in the new shape; or put the rule back")))
}

/// Refuses to begin a migration over tables that another one of this target writes to, as after a change of the name.
pub async fn unclaimed(state: &State, tables: &[crate::schema::TableName]) -> Result<()> {
    let Some((other, table)) = state.claimed(tables).await? else { return Ok(()) };
    let why = format!(
        "this is a config for another migration: {:?} is not known at the target, where {table} belongs to migration \
         {other:?}. Nothing was touched",
        state.name()
    );
    Err(Error::new(Kind::Config, why)
        .fix(format!("[migration] name = {other:?} goes on with it; cutwater teardown under that name ends it")))
}

/// Brings a state of the last format to this one. The caller holds the lease, [`State::install`] has been run, and
/// [`ends`] has found the config to be that of before.
pub async fn upgrade(config: &Config, state: &State, migration: &Migration, lease: &Lease) -> Result<()> {
    if migration.format == FORMAT {
        return Ok(());
    }
    let tables = state.tables().await?;
    let rules: Vec<_> = tables
        .iter()
        .map(|table| (table.source.schema.clone(), table.source.table.clone(), config.rule_of(&table.source)))
        .collect();
    state.upgrade(lease, &config.fingerprint(), &rules).await?;
    tracing::info!("upgraded the state of {:?} from format {} to {FORMAT}", state.name(), migration.format);
    Ok(())
}
