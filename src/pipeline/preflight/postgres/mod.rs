//! What would bite between two Postgres servers.

pub(super) mod grants;
pub(super) mod late;
mod not_carried;
pub(super) mod pooler;
mod source;
mod standby;
pub(super) mod target;
mod types;
mod views;

use super::{End, Grant, Grants, Report};
use crate::config::Config;
use crate::error::Result;
use crate::pipeline::dump::PgDump;
use crate::postgres::connect;
use crate::source::postgres::PgSource;
use crate::target::postgres::PgTarget;
use crate::transform::Plan;

pub(super) use grants::grants;

/// Looks at both ends.
pub(super) async fn between(config: &Config, given: &PgSource, target: &PgTarget, plan: &Plan) -> Result<Report> {
    let (from, to) = (given.info(), target.info());
    let application = format!("cutwater_{}", config.migration.name);
    let (old, new) = tokio::try_join!(connect(from, "cutwater check"), connect(to, "cutwater check"))?;
    let mut report = Report::default();
    let facts = source::settings(&old, config, &application, &mut report).await?;
    source::tables(&old, &from.user, plan, &mut report).await?;
    types::columns(&old, plan, &mut report).await?;
    source::privileges(&old, given, plan, &facts, &mut report).await?;
    source::transactions(&old, &mut report).await?;
    target::beside(&new, from, to, &facts, &mut report).await?;
    target::server(&new, to, &mut report).await?;
    types::at_target(&old, &new, plan, &mut report).await?;
    late::look(&old, &new, &to.user, plan, &mut report).await?;
    let types = target::Types { of: &|_, column| column.ty.display.clone(), same: |there, wanted| there == wanted };
    let absent = target::tables(&new, config, plan, &types, &mut report).await?;
    programs(&facts, absent, &mut report).await;
    views::look(&old, &mut report).await?;
    super::workers(config, &mut report);
    not_carried::list(&old, given.slot_name(), &mut report).await?;
    Ok(report)
}

/// What the source has and no migration of tables carries over.
pub(super) async fn left_behind(source: &PgSource) -> Result<Vec<String>> {
    not_carried::not_carried(&source.connect().await?, source.slot_name()).await
}

/// `pg_dump` is needed where tables are to be made.
async fn programs(source: &source::SourceFacts, absent: usize, report: &mut Report) {
    match PgDump::find(u32::try_from(source.version_num / 10_000).unwrap_or_default()).await {
        Ok(found) => report.pass(End::Here, "pg_dump", format!("pg_dump {} ({})", found.major, found.path.display())),
        Err(_) if absent == 0 => report.pass(End::Here, "pg_dump", "pg_dump is not needed: every table is there"),
        Err(error) => {
            let finding = report.fail(End::Here, "pg_dump", error.kind(), error.why());
            if let Some(fix) = error.suggestion() {
                finding.fix(fix);
            }
        }
    }
}
