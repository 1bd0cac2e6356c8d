//! Two ends with a migration between them, as `verify` and `cutover` find them, and an applier that only keeps up.
#![allow(dead_code, reason = "each test binary uses its own part of this module")]

use std::sync::Arc;

use cutwater::change::{Lsn, Position};
use cutwater::config::{Config, CutoverConfig, Url};
use cutwater::cutover::Parts;
use cutwater::postgres::ConnInfo;
use cutwater::schema::Patterns;
use cutwater::source::postgres::PgSource;
use cutwater::source::{AnySource, Source as _};
use cutwater::target::postgres::PgTarget;
use cutwater::target::{AnyTarget, Target as _};
use cutwater::transform::Plan;
use cutwater::verify::Ends;

use crate::support::Database;

pub const MIGRATION: &str = "shop";

/// What cutover and verify need, without anything having run. `rules` is TOML (`[[transform]] …`).
pub async fn parts(source: &Database, target: &Database, rules: &str) -> Parts {
    let toml = format!(
        "[migration]\nname = \"{MIGRATION}\"\n[source]\nurl = \"{}\"\n[target]\nurl = \"{}\"\n{rules}",
        source.url(),
        target.url()
    );
    let config: Config = toml::from_str(&toml).unwrap();
    let info = |database: &Database| ConnInfo::parse(&Url::new(database.url())).unwrap();
    let pg = PgSource::new(info(source), MIGRATION);
    let patterns = Patterns::default();
    let tables = pg.tables(&patterns).await.unwrap();
    pg.prepare(&tables).await.unwrap();
    let there = PgTarget::new(info(target), MIGRATION);
    let state = there.state().clone();
    state.install().await.unwrap();
    let identity = pg.identity().await.unwrap();
    state.begin("fingerprint", &identity, "source", "target").await.unwrap();
    // As a copy that is over leaves them.
    for table in &tables {
        let (schema, name) = (&table.name.schema, &table.name.table);
        target
            .execute(&format!(
                "INSERT INTO cutwater.table_state
                     (migration, source_schema, source_table, target_schema, target_table, epoch, stage)
                 VALUES ('{MIGRATION}', '{schema}', '{name}', '{schema}', '{name}', 0, 'copied')"
            ))
            .await;
    }
    Parts {
        ends: Ends { source: AnySource::Postgres(pg), target: AnyTarget::Postgres(there), state },
        plan: Plan::compile(&config.transform, &tables).unwrap(),
        patterns,
        config: CutoverConfig { switch_command: None, ..config.cutover },
    }
}

/// Writes a heartbeat and a checkpoint at the source's head, as a run does that has applied everything.
pub async fn keep_up(source: &Database, target: &Database) {
    let head: String = source.value("SELECT pg_current_wal_insert_lsn()::text").await;
    let head: Position = head.parse::<Lsn>().unwrap().into();
    target
        .execute(&format!(
            "INSERT INTO cutwater.checkpoint (migration, epoch, position) VALUES ('{MIGRATION}', 0, '{head}')
             ON CONFLICT (migration, worker) DO UPDATE SET position = excluded.position;
             INSERT INTO cutwater.run (migration, report) VALUES ('{MIGRATION}', '{}')
             ON CONFLICT (migration) DO UPDATE SET heartbeat_at = clock_timestamp()",
            report()
        ))
        .await;
}

fn report() -> String {
    serde_json::json!({
        "host": "test", "pid": 1, "version": "0", "started_at": "2026-01-01T00:00:00Z", "health": "ok",
        "caught_up_at": null, "source_head": null, "lag_seconds": 0.0, "lag_bytes": 0,
        "worst_lag_seconds": null, "worst_lag_at": null, "retained_bytes": null,
        "changes_per_second": 0.0, "transactions_per_second": 0.0, "copy_rows_per_second": 0.0,
        "copy_bytes_per_second": 0.0, "indexes_done": 0, "indexes_total": 0, "trouble": null
    })
    .to_string()
}

/// Keeps up until dropped. With `drains`, sets `drained_at` once the fence's marker is at the source, as the applier
/// does when it comes through the stream.
pub struct Applier(tokio::task::JoinHandle<()>);

impl Applier {
    pub fn start(source: &Arc<Database>, target: &Arc<Database>, drains: bool) -> Applier {
        let (source, target) = (Arc::clone(source), Arc::clone(target));
        Applier(tokio::spawn(async move {
            loop {
                keep_up(&source, &target).await;
                if drains {
                    let nonce: Option<String> =
                        source.value("SELECT max(nonce) FROM cutwater.fence WHERE state = 'armed'").await;
                    if let Some(nonce) = nonce {
                        target
                            .execute(&format!(
                                "UPDATE cutwater.cutover SET drained_at = '1/1' WHERE nonce = '{nonce}' AND drained_at IS NULL"
                            ))
                            .await;
                    }
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }))
    }
}

impl Drop for Applier {
    fn drop(&mut self) {
        self.0.abort();
    }
}
