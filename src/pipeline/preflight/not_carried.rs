//! What a migration of tables leaves behind.

use super::{End, Report};
use crate::error::{Context, Result};
use crate::postgres::Client;

pub(super) async fn list(client: &Client, slot: &str, report: &mut Report) -> Result<()> {
    let row =
        client.query_one(include_str!("not_carried.sql"), &[&slot]).await.context("looking for what is not carried")?;
    let mut left = Vec::new();
    let kinds = ["large object", "unlogged table", "event trigger", "subscription"];
    for (index, kind) in kinds.iter().enumerate() {
        match row.get::<_, i64>(index) {
            0 => {}
            1 => left.push(format!("1 {kind}")),
            many => left.push(format!("{many} {kind}s")),
        }
    }
    for slot in row.get::<_, Vec<String>>(4) {
        left.push(format!("slot \"{slot}\" on the source"));
    }
    if row.get::<_, bool>(5) {
        left.push("pg_cron jobs".to_owned());
    }
    if row.get::<_, i64>(6) > 0 {
        left.push("roles and their passwords".to_owned());
    }
    if left.is_empty() {
        report.pass(End::Source, "not-carried", "nothing is left behind");
    } else {
        report.note(End::Source, "not-carried", format!("not carried: {}", left.join(", ")));
    }
    Ok(())
}
