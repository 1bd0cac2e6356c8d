//! What would bite between two MySQL or MariaDB servers.

use std::sync::Arc;

use super::{End, Grants, Report, mysql};
use crate::error::{Context, Kind, Result};
use crate::pipeline::Job;
use crate::pipeline::build::Alike;
use crate::pipeline::progress::Progress;
use crate::source::Source;
use crate::source::mysql::MySource;
use crate::target::mysql::MyTarget;
use crate::transform::Plan;

/// Looks at both ends.
pub(super) async fn between(job: &Job, source: &MySource, target: &MyTarget, plan: &Plan) -> Result<Report> {
    let mut report = Report::default();
    // The applier does what the source's foreign keys do and its log does not say.
    mysql::source(source, plan, true, &mut report).await?;
    mysql::target(target, &job.config, plan, &mut report).await?;
    themselves(source, target, plan, &mut report).await?;
    super::workers(&job.config, &mut report);
    let progress = Arc::new(Progress::new());
    let work = Alike::new(&job.config, plan, &progress);
    super::not_carried(&work.script().await?.not_carried, &mut report);
    Ok(report)
}

/// Whether a table would be copied into itself: names stay between two servers.
async fn themselves(source: &MySource, target: &MyTarget, plan: &Plan, report: &mut Report) -> Result<()> {
    let (here, session) = tokio::try_join!(source.identity(), target.connect())?;
    let (from, to) = (&source.info().host, &target.info().host);
    let one = session.server().server_uuid() == Some(&here.system_id) || from.to_string() == to.to_string();
    let itself = plan.tables().find(|table| one && table.source.name == table.shaped.name);
    match itself {
        None => report.pass(End::Target, "same-tables", "no table is copied into itself"),
        Some(table) => {
            let text =
                format!("source and target are one server, and {} would be copied into itself", table.source.name);
            report
                .fail(End::Target, "same-tables", Kind::Config, text)
                .fix("look at [source] url and [target] url; or [[transform]] rename = { schema = \"…\" }");
        }
    }
    Ok(())
}

/// Every right that is needed.
pub(super) async fn grants(source: &MySource, target: &MyTarget, plan: &Plan) -> Result<Grants> {
    Ok(Grants {
        source: mysql::at_source(source, plan).await.context("working out the source's grants")?,
        target: mysql::at_target(target, plan).await.context("working out the target's grants")?,
    })
}

/// What the source has and no migration of tables carries over.
pub(super) async fn left_behind(job: &Job, plan: &Plan) -> Result<Vec<String>> {
    let progress = Arc::new(Progress::new());
    Ok(Alike::new(&job.config, plan, &progress).script().await?.not_carried.clone())
}
