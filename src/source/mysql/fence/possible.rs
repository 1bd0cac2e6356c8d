//! Whether a fence can be had, asked before anything is touched.

use std::collections::BTreeSet;

use super::way::{self, Rights, Way};
use super::{MyFence, blockers, locks};
use crate::config::FenceWay;
use crate::error::{Context, Kind, Result};
use crate::mysql::Session;
use crate::schema::{Patterns, TableName};

/// What stands against a fence, and what removes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// What it is.
    pub what: String,
    /// What to do.
    pub fix: String,
}

impl Obstacle {
    fn new(what: impl Into<String>, fix: impl Into<String>) -> Obstacle {
        Obstacle { what: what.into(), fix: fix.into() }
    }
}

/// How these are granted.
pub(super) fn grant(missing: &[&str]) -> String {
    format!("on the source   GRANT {} ON *.* TO <our account>;   or set [cutover] fence_command", missing.join(", "))
}

/// A transaction or statement of this age is in the way.
const LONG: f64 = 3.0;

impl MyFence {
    /// What it would be made of, in a few words; or what stands against it.
    pub async fn possible(
        &mut self,
        tables: &[TableName],
        patterns: &Patterns,
    ) -> Result<Result<String, Vec<Obstacle>>> {
        let mut obstacles = Vec::new();
        if let Err(error) = self.unchanged(tables, patterns).await {
            if error.kind() != Kind::Schema {
                return Err(error);
            }
            obstacles.push(Obstacle::new(error.message(), error.suggestion().unwrap_or_default()));
        }
        let rights = Rights::of(&mut self.driver).await?;
        let writers = self.writers(tables).await?;
        let through = self.through(&writers);
        let chosen = way::choose(self.config.fence, &rights, through);
        if let Err(missing) = &chosen {
            let what = format!("our account at the source lacks {}", missing.join(", "));
            obstacles.push(Obstacle::new(what, grant(missing)));
        }
        if let Ok(way) = chosen.clone() {
            obstacles.extend(self.of_the_way(way, tables).await?);
            if way == Way::ReadOnly && through {
                let names: Vec<String> =
                    writers.iter().filter(|w| w.writes_through && !w.kept).map(|w| w.account.to_string()).collect();
                let what = format!("read_only does not stop {}", names.join(", "));
                obstacles.push(Obstacle::new(what, "[cutover] fence = \"accounts\"   or name them in keep_accounts"));
            }
            if way == Way::Accounts && writers.iter().all(|writer| writer.kept) {
                let what = "no account writes to the tables but ours and those that are kept";
                let fix = "give the application an account of its own, or set [cutover] fence = \"read-only\"";
                obstacles.push(Obstacle::new(what, fix));
            }
        }
        let system = writers.iter().filter(|writer| writer.of_the_system && !writer.kept && !rights.is_of_the_system());
        let system: Vec<String> = system.map(|writer| writer.account.to_string()).collect();
        if !system.is_empty() && chosen != Ok(Way::Command) {
            let what = format!("sessions of {} may be ended by another SYSTEM_USER only", system.join(", "));
            obstacles.push(Obstacle::new(
                what,
                "on the source   GRANT SYSTEM_USER ON *.* TO <our account>;   or take it from them",
            ));
        }
        obstacles.extend(server(&mut self.driver).await?);
        if !obstacles.is_empty() {
            return Ok(Err(obstacles));
        }
        Ok(Ok(format!("fence by {}", self.words(tables).await?)))
    }

    /// What one way has against it.
    async fn of_the_way(&mut self, way: Way, tables: &[TableName]) -> Result<Vec<Obstacle>> {
        let mut obstacles = Vec::new();
        match way {
            Way::ReadOnly if self.config.fence == FenceWay::Auto => {
                let others = self.other_databases(tables).await?;
                if !others.is_empty() {
                    obstacles.push(Obstacle::new(
                        format!("read_only would stop writes to {} too", others.join(", ")),
                        "[cutover] fence = \"read-only\" if that is meant, or fence = \"accounts\"",
                    ));
                }
            }
            Way::Command => {
                for (key, set) in [
                    ("fence_command", self.config.fence_command.is_some()),
                    ("unfence_command", self.config.unfence_command.is_some()),
                ] {
                    if !set {
                        let what = format!("[cutover] {key} is not set");
                        obstacles.push(Obstacle::new(
                            what,
                            "both commands are needed: what stops writes, and what lets them go on",
                        ));
                    }
                }
            }
            Way::ReadOnly | Way::Accounts => {}
        }
        // `super_read_only` stops events; nothing else that we have does.
        if way != Way::ReadOnly || self.driver.server().is_mariadb() {
            obstacles.extend(events(&mut self.driver).await?);
        }
        Ok(obstacles)
    }

    /// Databases with tables, none of which is migrated.
    async fn other_databases(&mut self, tables: &[TableName]) -> Result<Vec<String>> {
        let ours: BTreeSet<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
        let rows = self.driver.rows(include_str!("tables_now.sql")).await.context("looking for other databases")?;
        let found: BTreeSet<String> = rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
        Ok(found.into_iter().filter(|name| !ours.contains(name.as_str())).collect())
    }

    /// In words, what it would be made of.
    pub async fn words(&mut self, tables: &[TableName]) -> Result<String> {
        let (way, accounts) = self.plan(tables).await?;
        let names: Vec<String> = accounts.iter().map(ToString::to_string).collect();
        Ok(match way {
            Way::ReadOnly if names.is_empty() => "read_only of the whole server".to_owned(),
            Way::ReadOnly => format!("read_only of the whole server and locking {}", names.join(", ")),
            Way::Accounts => format!("locking {} tables, then {}", tables.len(), names.join(", ")),
            Way::Command => "fence_command".to_owned(),
        })
    }

    /// In words, who is in its way.
    pub async fn blockers(&mut self, tables: &[TableName]) -> Result<Vec<String>> {
        let (way, _) = self.plan(tables).await?;
        Ok(blockers::of(&mut self.driver, way, 0.0).await?.iter().map(ToString::to_string).collect())
    }

    /// Transactions and statements that have been in the way of a fence for long.
    pub async fn long(&mut self) -> Result<Vec<blockers::Blocker>> {
        let mut found = blockers::transactions(&mut self.driver).await?;
        for statement in blockers::statements(&mut self.driver).await? {
            if !found.iter().any(|blocker| blocker.id == statement.id) {
                found.push(statement);
            }
        }
        Ok(found.into_iter().filter(|blocker| blocker.seconds >= LONG).collect())
    }
}

/// What the server as a whole has against any fence.
async fn server(session: &mut Session) -> Result<Vec<Obstacle>> {
    let mut obstacles = Vec::new();
    if session.value("SELECT @@GLOBAL.read_only").await?.is_some_and(|value| !matches!(value.as_str(), "0" | "OFF")) {
        obstacles.push(Obstacle::new(
            "the source is read-only already, and nothing can be noted in it",
            "SET GLOBAL read_only = OFF;   or is [source] url a replica?",
        ));
    }
    for gid in locks::prepared(session).await? {
        let what = format!("XA transaction {gid} is prepared: it may be committed behind any fence");
        obstacles.push(Obstacle::new(what, format!("let it end, or on the source   XA ROLLBACK {gid};")));
    }
    let (sql, running) = match session.server() {
        server if server.is_mariadb() => ("SHOW ALL SLAVES STATUS", "Slave_SQL_Running"),
        server if server.version >= (8, 0, 22) => ("SHOW REPLICA STATUS", "Replica_SQL_Running"),
        _ => ("SHOW SLAVE STATUS", "Slave_SQL_Running"),
    };
    let rows: Vec<mysql_async::Row> =
        mysql_async::prelude::Queryable::query(session.conn(), sql).await.map_err(crate::error::Error::from)?;
    if rows.iter().any(|row| row.get::<String, _>(running).is_some_and(|value| value != "No")) {
        let what = "the source is itself a replica, and what it applies passes every fence";
        obstacles.push(Obstacle::new(what, "when it has caught up, on the source   STOP REPLICA;   (or STOP SLAVE;)"));
    }
    Ok(obstacles)
}

/// Events that would go on writing.
async fn events(session: &mut Session) -> Result<Vec<Obstacle>> {
    if session.value("SELECT @@GLOBAL.event_scheduler").await?.as_deref() != Some("ON") {
        return Ok(Vec::new());
    }
    let sql = "SELECT event_schema, event_name FROM information_schema.events WHERE status = 'ENABLED' ORDER BY 1, 2";
    let rows = session.rows(sql).await.context("looking for events")?;
    let name = |row: crate::mysql::TextRow| match &row[..] {
        [Some(schema), Some(event)] => Some(TableName::new(schema.as_str(), event.as_str())),
        _ => None,
    };
    let named = rows.into_iter().filter_map(name).map(|event| {
        let what = format!("event {event} goes on as whoever made it, whose account may be locked");
        Obstacle::new(what, format!("on the source   ALTER EVENT {} DISABLE;", crate::mysql::my_table(&event)))
    });
    Ok(named.collect())
}
