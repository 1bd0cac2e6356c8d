//! Materialized views: the rows that no copy and no stream brings.
//!
//! | when | what happens |
//! |---|---|
//! | `run`, once the target holds one consistent state | those that hold rows at the source are filled ([`fill`]), and written to `cutwater.materialized_view` |
//! | while the stream runs | nothing: their rows are of the moment they were filled |
//! | `cutover`, before the fence | a gate is closed while one is empty that the source has filled |
//! | `cutover`, once the target is live | each is made anew from the rows of now ([`refresh`]), as long as it was not since the switch; no write waits for it |
//!
//! In: what the source has filled. Out: the same at the target, in an order in which each finds those it reads: by what
//! their queries name, and then by which could be filled before which, because nobody knows what a function reads. What can go
//! wrong: the query fails at the target (a function that needs a `search_path`, a division by zero). That is named with
//! the statement to run, and ends nothing.

use std::collections::HashMap;

use crate::error::{Context, Error, Kind, Result};
use crate::postgres::Client;
use crate::schema::TableName;
use crate::target::state::State;
use crate::target::state::db::params;

/// How long a refresh beside live clients queues for its lock, and they behind it.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '3s'";

/// A materialized view of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Its name, the same at both ends.
    pub name: TableName,
    /// Whether it may be read: it was refreshed once.
    pub filled: bool,
    /// Readers need not wait for its refresh: it has a unique index that tells its rows apart.
    concurrently: bool,
    /// Why its last refresh failed.
    pub error: Option<String>,
}

impl View {
    /// `materialized view shop.per_day`
    pub fn label(&self) -> String {
        format!("materialized view {}", self.name)
    }

    /// The statement that makes its rows anew.
    pub fn statement(&self) -> String {
        let word = if self.concurrently && self.filled { "CONCURRENTLY " } else { "" };
        format!("REFRESH MATERIALIZED VIEW {word}{};", self.name.sql())
    }
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Refreshed {
    /// How many hold the rows of now.
    pub done: u64,
    /// Those that do not, each with [`View::error`].
    pub failed: Vec<View>,
}

/// Who watches: a view's label, then whether it succeeded.
pub type Watch<'a> = &'a (dyn Fn(&str, Option<bool>) + Send + Sync);

/// The materialized views of a database that hold rows.
pub async fn filled(client: &Client) -> Result<Vec<TableName>> {
    let sql = "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE c.relkind = 'm' AND c.relispopulated ORDER BY 1, 2";
    let rows = client.query(sql, &[]).await.context("looking for materialized views")?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect())
}

/// Those of these that the target has, in the order in which they read each other.
pub async fn of(client: &Client, names: &[TableName]) -> Result<Vec<View>> {
    let (schemas, tables): (Vec<&str>, Vec<&str>) =
        names.iter().map(|name| (name.schema.as_str(), name.table.as_str())).unzip();
    let rows = client
        .query(include_str!("order.sql"), &[&schemas, &tables])
        .await
        .context("looking for materialized views at the target")?;
    Ok(rows
        .iter()
        .map(|row| View {
            name: TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)),
            filled: row.get(2),
            concurrently: row.get(3),
            error: None,
        })
        .collect())
}

/// Fills those of `wanted` that are there and empty.
pub async fn fill(client: &Client, state: &State, wanted: &[TableName], watch: Watch<'_>) -> Result<Refreshed> {
    let views = of(client, wanted).await?;
    state.know_views(&views).await?;
    let empty = views.into_iter().filter(|view| !view.filled).collect();
    all(client, state, empty, false, watch).await
}

/// Makes the rows anew of those that `run` has filled and that were not refreshed since the target is live.
pub async fn refresh(client: &Client, state: &State, watch: Watch<'_>) -> Result<Refreshed> {
    let stale = state.stale_views(client).await?;
    if stale.is_empty() {
        return Ok(Refreshed::default());
    }
    client.batch_execute(LOCK_TIMEOUT).await.context("limiting the wait for locks")?;
    all(client, state, stale, true, watch).await
}

/// Refreshes one after the other. One that fails because another is still empty, which only a function's body knows that
/// it reads, has another try for as long as the others get on.
async fn all(client: &Client, state: &State, views: Vec<View>, live: bool, watch: Watch<'_>) -> Result<Refreshed> {
    let mut result = Refreshed::default();
    let mut open = views;
    loop {
        let (before, mut again) = (result.done, Vec::new());
        for mut view in std::mem::take(&mut open) {
            watch(&view.label(), None);
            let refreshed = one(client, &view).await;
            watch(&view.label(), Some(refreshed.is_ok()));
            let Err(error) = refreshed else {
                state.set_view(&view.name, None, live).await?;
                result.done += 1;
                continue;
            };
            let needs_another = error.code().is_some_and(|code| code.code() == "55000");
            let error = Error::from(error);
            if error.kind() == Kind::Connection {
                return Err(error.context(format!("refreshing {}", view.label())));
            }
            view.error = Some(error.why().to_owned());
            state.set_view(&view.name, view.error.as_deref(), live).await?;
            if needs_another { again.push(view) } else { result.failed.push(view) }
        }
        if again.is_empty() || result.done == before {
            result.failed.extend(again);
            return Ok(result);
        }
        open = again;
    }
}

async fn one(client: &Client, view: &View) -> std::result::Result<(), tokio_postgres::Error> {
    client.batch_execute(&view.statement()).await?;
    client.batch_execute(&format!("ANALYZE {}", view.name.sql())).await
}

impl State {
    /// Writes down that these hold rows at the source.
    async fn know_views(&self, views: &[View]) -> Result<()> {
        let sql =
            "INSERT INTO cutwater.materialized_view (migration, nsp, name) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        for TableName { schema, table } in views.iter().map(|view| &view.name) {
            self.execute("writing down a materialized view", sql, params![self.name(), schema, table]).await?;
        }
        Ok(())
    }

    async fn set_view(&self, view: &TableName, error: Option<&str>, live: bool) -> Result<()> {
        let params = params![self.name(), &view.schema, &view.table, error, live];
        self.execute("writing down a refresh", include_str!("refreshed.sql"), params).await.map(drop)
    }

    /// Those that hold rows of another moment than the tables they read, unless they are gone, in the order in which they
    /// could be filled; `client` is the target's.
    pub async fn stale_views(&self, client: &Client) -> Result<Vec<View>> {
        let sql = "SELECT nsp, name, error, coalesce(place, 2147483647) FROM cutwater.materialized_view
                    WHERE migration = $1 AND NOT live";
        let rows = self.query("reading the materialized views", sql, params![self.name()]).await?;
        let known: HashMap<TableName, (Option<String>, i32)> =
            rows.iter().map(|row| Ok((row.name(0)?, (row.get(2)?, row.get(3)?)))).collect::<Result<_>>()?;
        let names: Vec<TableName> = known.keys().cloned().collect();
        let mut views = of(client, &names).await?;
        views.sort_by_key(|view| known[&view.name].1);
        for view in &mut views {
            view.error.clone_from(&known[&view.name].0);
        }
        Ok(views)
    }
}
