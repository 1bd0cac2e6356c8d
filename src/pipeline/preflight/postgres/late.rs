//! Foreign keys and triggers at the target: can they be switched off while changes are applied, or do they wait?

use super::{End, Report};
use crate::error::{Context, Kind, Result};
use crate::postgres::Client;
use crate::schema::{Ident, TableName};
use crate::target::postgres::late::{acting, counted, role_may_switch_off};
use crate::transform::Plan;

pub(super) async fn look(old: &Client, new: &Client, user: &str, plan: &Plan, report: &mut Report) -> Result<()> {
    let count = async {
        let (schemas, names): (Vec<&str>, Vec<&str>) =
            plan.tables().map(|table| (table.source.name.schema.as_str(), table.source.name.table.as_str())).unzip();
        let sql = concat!(include_str!("../../../postgres/tree.sql"), include_str!("late.sql"));
        let row = old.query_one(sql, &[&schemas, &names]).await.context("counting foreign keys and triggers")?;
        let number = |index: usize| usize::try_from(row.get::<_, i64>(index)).unwrap_or(0);
        Ok((number(0), number(1), number(2)))
    };
    at_target(new, user, plan, count, report).await
}

/// The same for a source of any engine: `count` are its foreign keys, triggers and rules that would be made.
pub(in crate::pipeline::preflight) async fn at_target(
    new: &Client,
    user: &str,
    plan: &Plan,
    count: impl Future<Output = Result<(usize, usize, usize)>>,
    report: &mut Report,
) -> Result<()> {
    if role_may_switch_off(new).await? {
        report.pass(
            End::Target,
            "replica-role",
            "foreign keys and triggers can be switched off while changes are applied",
        );
        return Ok(());
    }
    let version: i32 = new.query_one("SELECT current_setting('server_version_num')::int", &[]).await?.get(0);
    let grant = match version {
        150_000.. => format!("GRANT SET ON PARAMETER session_replication_role TO {};", Ident(user)),
        _ => "before Postgres 15 only a superuser may set it".to_owned(),
    };
    let (keys, triggers, rules) = count.await?;
    let Some(words) = counted(keys, triggers, rules) else {
        report.pass(End::Target, "replica-role", "session_replication_role not permitted, and nothing to switch off");
        return Ok(());
    };
    let text = format!(
        "session_replication_role not permitted; {words} are added\nafter the copy, and cutover waits for them"
    );
    report.note(End::Target, "replica-role", text).fix(format!("nothing need be done; or   {grant}"));
    let targets: Vec<TableName> = plan.tables().map(|table| table.shaped.name.clone()).collect();
    let found = acting(new, &targets).await?;
    if found.is_empty() {
        return Ok(());
    }
    let list: Vec<&str> = found.iter().map(|acting| acting.what.as_str()).collect();
    let text = format!(
        "session_replication_role not permitted, and these would act on the changes that are applied:\n{}\n\
         those that the source has too are made again at the cutover",
        list.join(", ")
    );
    let finding = report.fail(End::Target, "acting", Kind::Schema, text);
    for acting in found {
        finding.fix(acting.remove);
    }
    finding.fix(format!("or   {grant}"));
    Ok(())
}
