//! The workload's rows as lines of text that are the same at every engine that holds the same rows.
//!
//! In: a session and a table. Out: its rows in the order in which the server gives them: numbers and texts as they are,
//! moments in UTC with microseconds, floats in their shortest form, documents as their server prints them, NULL apart from every text.

use super::session::{Engine, Session};
use crate::error::{Context, Error, Kind, Result};

/// How a column is shown.
#[derive(Clone, Copy)]
enum Show {
    AsText,
    Moment,
    Float,
}

use Show::{AsText, Float, Moment};

fn columns(table: &str) -> Option<&'static [(&'static str, Show)]> {
    Some(match table {
        "accounts" => {
            &[("id", AsText), ("owner", AsText), ("balance", AsText), ("version", AsText), ("updated_at", Moment)]
        }
        "orders" => &[
            ("id", AsText),
            ("account_id", AsText),
            ("status", AsText),
            ("total", AsText),
            ("tags", AsText),
            ("attributes", AsText),
            ("version", AsText),
            ("placed_at", Moment),
        ],
        "order_items" => {
            &[("order_id", AsText), ("line", AsText), ("sku", AsText), ("quantity", AsText), ("price", AsText)]
        }
        "documents" => {
            &[("id", AsText), ("reference", AsText), ("title", AsText), ("body", AsText), ("version", AsText)]
        }
        "events" => {
            &[("id", AsText), ("happened_on", AsText), ("kind", AsText), ("payload", AsText), ("weight", Float)]
        }
        "journal" => &[("writer", AsText), ("sequence", AsText), ("at", Moment)],
        _ => return None,
    })
}

/// The rows of one of the workload's tables, each a line.
pub async fn lines(session: &mut Session, table: &str) -> Result<Vec<String>> {
    let columns = columns(table).ok_or_else(|| Error::new(Kind::Internal, format!("{table} is not the workload's")))?;
    let engine = session.engine();
    let shown = columns.iter().map(|(name, show)| match (engine, show) {
        (Engine::Postgres, AsText | Float) => format!("{name}::text"),
        (Engine::Postgres, Moment) => format!("to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"),
        (Engine::MySql, AsText | Float) => format!("CAST({name} AS CHAR)"),
        (Engine::MySql, Moment) => format!("DATE_FORMAT({name}, '%Y-%m-%d %H:%i:%s.%f')"),
    });
    let sql = format!("SELECT {} FROM {table}", shown.collect::<Vec<_>>().join(", "));
    let rows = session.rows(&sql).await.with_context(|| format!("reading {table}"))?;
    let field = |(value, (_, show)): (Option<String>, &(&str, Show))| match (value, show) {
        (None, _) => "\\N".to_owned(),
        // Each server has a way of its own to write 0.00001.
        (Some(text), Float) => text.parse().map_or(text, |number: f64| number.to_string()),
        (Some(text), _) => text.replace('\\', "\\\\"),
    };
    let line = |row: Vec<Option<String>>| row.into_iter().zip(columns).map(field).collect::<Vec<_>>().join("\t");
    Ok(rows.into_iter().map(line).collect())
}
