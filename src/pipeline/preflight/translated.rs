//! What would bite from MySQL or MariaDB to Postgres: names and types that cannot be, what the target lacks for them, and
//! what stays behind.

use std::sync::Arc;

use super::postgres::{grants as rights, late, target as postgres};
use super::{End, Grants, Report};
use crate::error::{Context, Kind, Result};
use crate::pipeline::Job;
use crate::pipeline::build::Translated;
use crate::pipeline::progress::Progress;
use crate::postgres::{Client, connect};
use crate::schema::mapping::PgType;
use crate::schema::{Column, Object, Script};
use crate::source::mysql::MySource;
use crate::target::Target;
use crate::target::postgres::PgTarget;
use crate::transform::{Plan, TablePlan};

/// Looks at both ends.
pub(super) async fn between(job: &Job, source: &MySource, target: &PgTarget, plan: &Plan) -> Result<Report> {
    let mut report = Report::default();
    super::mysql::source(source, plan, false, &mut report).await?;
    let to = target.info();
    let new = connect(to, "cutwater check").await?;
    postgres::server(&new, to, &mut report).await?;
    let progress = Arc::new(Progress::new());
    let work = Translated::new(&job.config, plan, &progress);
    let script = work.script().await?;
    let keys = script.after.iter().filter(|statement| statement.object == Object::ForeignKey).count();
    late::at_target(&new, &to.user, plan, async { Ok((keys, 0, 0)) }, &mut report).await?;
    let mapping = work.mapping().await?;
    let type_of = |table: &TablePlan, column: &Column| {
        let mapped = mapping.tables.get(&table.source.name);
        let mapped = mapped.and_then(|mapped| mapped.columns.iter().find(|other| other.name == column.name));
        mapped.map_or_else(String::new, |mapped| mapped.ty.to_string())
    };
    let types = postgres::Types { of: &type_of, same: is_the_same };
    postgres::tables(&new, &job.config, plan, &types, &mut report).await?;
    convertible(target, plan, &mut report).await?;
    extensions(&new, script, &mut report).await?;
    super::workers(&job.config, &mut report);
    super::not_carried(&script.not_carried, &mut report);
    Ok(report)
}

/// Whether two words are of one type. One that is none of the words' is one that was made for an enum.
fn is_the_same(there: &str, wanted: &str) -> bool {
    let parse = |text: &str| PgType::parse(text.rsplit('.').next().unwrap_or_default()).unwrap_or(PgType::Enum);
    parse(there) == parse(wanted)
}

/// Whether the tables that are there take what the source holds.
async fn convertible(target: &PgTarget, plan: &Plan, report: &mut Report) -> Result<()> {
    let names: Vec<_> = plan.tables().map(|table| table.shaped.name.clone()).collect();
    let there = target.tables(&names).await?;
    let mut fits = true;
    for (table, there) in plan.tables().zip(there) {
        let Some(Err(error)) = there.map(|there| plan.fitted(table, &there)) else { continue };
        // Of a column that is not there it was said already.
        let finding = report.fail(End::Target, "conversion", Kind::Schema, error.why());
        if let Some(fix) = error.suggestion() {
            finding.fix(fix);
        }
        fits = false;
    }
    if fits {
        report.pass(End::Target, "conversion", "every column's values have a type to go to");
    }
    Ok(())
}

/// Extensions that the types need.
async fn extensions(new: &Client, script: &Script, report: &mut Report) -> Result<()> {
    for name in needed(script) {
        let sql = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = $1),
                          EXISTS (SELECT FROM pg_available_extensions WHERE name = $1)";
        let row = new.query_one(sql, &[&name]).await.context("looking for extensions at the target")?;
        match (row.get(0), row.get(1)) {
            (true, _) => report.pass(End::Target, "extensions", format!("the extension {name} is there")),
            (false, true) => report.pass(End::Target, "extensions", format!("the extension {name} can be made")),
            (false, false) => {
                let text = format!("the target has no package of the extension {name}, which a column's type is of");
                report
                    .fail(End::Target, "extensions", Kind::Schema, text)
                    .fix(format!("install the package of {name} on the target's server"))
                    .fix("or choose another type: [[schema.type]]; docs/types.md has the list");
            }
        }
    }
    Ok(())
}

fn needed(script: &Script) -> Vec<String> {
    let made = script.before.iter().filter(|statement| statement.object == Object::Extension);
    made.map(|statement| statement.name.clone()).collect()
}

/// Every right that is needed.
pub(super) async fn grants(job: &Job, source: &MySource, target: &PgTarget, plan: &Plan) -> Result<Grants> {
    let new = connect(target.info(), "cutwater check").await?;
    let progress = Arc::new(Progress::new());
    let work = Translated::new(&job.config, plan, &progress);
    let extensions = needed(work.script().await?);
    let target = Box::pin(rights::at_target(&new, plan, Vec::new(), &extensions)).await;
    let source = super::mysql::at_source(source, plan).await.context("working out the source's grants")?;
    Ok(Grants { source, target: target.context("working out the target's grants")? })
}

/// What the source has and no migration of tables carries over.
pub(super) async fn left_behind(job: &Job, plan: &Plan) -> Result<Vec<String>> {
    let progress = Arc::new(Progress::new());
    Ok(Translated::new(&job.config, plan, &progress).script().await?.not_carried.clone())
}
