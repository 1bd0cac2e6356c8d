//! Columns whose values cannot be carried, or only by name.

use super::{End, Report};
use crate::error::{Context, Kind, Result};
use crate::postgres::Client;
use crate::schema::Ident;
use crate::transform::Plan;

pub(super) async fn columns(client: &Client, plan: &Plan, report: &mut Report) -> Result<()> {
    let ids: Vec<u32> = plan.tables().map(|table| table.source.id).collect();
    let rows = client.query(include_str!("types.sql"), &[&ids]).await.context("reading the types of the columns")?;
    let (mut refused, mut by_name) = (Vec::new(), Vec::new());
    for row in &rows {
        let (table, column): (u32, &str) = (row.get(0), row.get(1));
        let Some(plan) = plan.tables().find(|plan| plan.source.id == table) else { continue };
        // A rule may leave the column out.
        if !plan.columns.iter().any(|&index| plan.source.columns[index].name == column) {
            continue;
        }
        let what = format!("{}.{} ({})", plan.source.name, Ident(column), row.get::<_, &str>(2));
        if row.get(3) { refused.push((plan.source.name.to_string(), column, what)) } else { by_name.push(what) }
    }
    if refused.is_empty() {
        report.pass(End::Source, "types", "every column's type can be carried");
    } else {
        let list: Vec<&str> = refused.iter().map(|(_, _, what)| what.as_str()).collect();
        let text = format!("no server takes a value of these types, so they cannot be carried:\n{}", list.join(", "));
        let finding = report.fail(End::Source, "types", Kind::Schema, text);
        for (table, column, _) in &refused {
            finding.fix(format!("[[transform]] match = \"{table}\", columns = [\"*\", \"!{column}\"]"));
        }
    }
    let encoding: String = client.query_one("SELECT current_setting('server_encoding')", &[]).await?.get(0);
    if encoding == "SQL_ASCII" {
        let text = "the source's encoding is SQL_ASCII, so nothing is known of its texts: they are taken for UTF-8,\n\
                    and one that is not stops the run";
        report.note(End::Source, "encoding", text);
    }
    if !by_name.is_empty() {
        let text = format!(
            "object names in {}: carried as names, and each must exist at the target when its row arrives",
            by_name.join(", ")
        );
        report.note(End::Source, "object-names", text);
    }
    Ok(())
}
