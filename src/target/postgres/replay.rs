//! How Postgres carries changes out row by row, for [`crate::target::batch::replay`]: under savepoints, with constraints
//! deferred. What a deferred constraint refuses at the end of a transaction is found by [`super::deferred`].

use bytes::Bytes;

use super::apply::PgApplier;
use super::deferred::Puzzle;
use super::encode::{Form, Raw};
use super::pipeline::{Failure, Pipeline};
use super::trouble::{Stopped, is_about_a_row};
use crate::change::{ChangeEvent, Row, RowChange, Truncate};
use crate::config::OnError;
use crate::error::{Context, Error, Kind, Result};
use crate::target::batch::replay::{Ended, Letter, Replayed, RowByRow, Tried};

impl RowByRow for PgApplier {
    fn on_error(&self) -> OnError {
        self.on_error
    }

    async fn start_again(&mut self) -> Result<()> {
        self.run_sql("ROLLBACK TO SAVEPOINT cutwater_batch; SET CONSTRAINTS ALL DEFERRED").await
    }

    async fn truncate(&mut self, truncate: &Truncate, at: &str) -> Result<()> {
        let sql = self.truncate_sql(truncate).await?;
        self.client.batch_execute(&sql).await.with_context(|| format!("{sql} at {at}"))
    }

    async fn begins(&mut self) -> Result<()> {
        if self.on_error == OnError::DeadLetter {
            self.run_sql("SAVEPOINT cutwater_source").await?;
        }
        Ok(())
    }

    fn advice(&self, why: &str) -> Option<String> {
        missing_label(why)
    }

    async fn attempt(&mut self, changes: &[&RowChange]) -> Result<Tried> {
        let mut pipeline = Pipeline::new(&self.client);
        let sent = async {
            pipeline.text("SAVEPOINT cutwater_row".into()).await.map_err(Stopped::Failure)?;
            for change in changes {
                self.send_change(&mut pipeline, change).await?;
            }
            Ok::<_, Stopped>(())
        }
        .await;
        let failure = match (pipeline.finish().await, sent) {
            (Ok(()), Ok(())) => None,
            (Err(failure), _) | (Ok(()), Err(Stopped::Failure(failure))) => Some(failure),
            (Ok(()), Err(Stopped::Error(error))) => return Err(error),
        };
        let tried = match failure {
            None => {
                self.run_sql("RELEASE SAVEPOINT cutwater_row").await?;
                return Ok(Tried::Applied);
            }
            Some(Failure::Count { affected, .. }) => Tried::Missing(affected),
            Some(Failure::Sql(error)) if is_about_a_row(&error) => Tried::Refused {
                // Unique and exclusion constraints: the other row may be gone when the transaction ends.
                for_now: error.code().is_some_and(|code| matches!(code.code(), "23505" | "23P01")),
                error: Error::from(error),
            },
            Some(Failure::Sql(error)) => return Err(Error::from(error).context("replaying a batch")),
        };
        self.run_sql("ROLLBACK TO SAVEPOINT cutwater_row; RELEASE SAVEPOINT cutwater_row").await?;
        Ok(tried)
    }

    /// Checks what is deferred, and defers again.
    async fn ends(&mut self, ended: &Ended<'_>, done: &mut Replayed) -> Result<()> {
        let checked = self.client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await;
        if let Err(error) = checked {
            if !is_about_a_row(&error) {
                return Err(Error::from(error).context("replaying a batch"));
            }
            if self.on_error == OnError::DeadLetter && self.without_the_refused(ended, done).await? {
                return Ok(());
            }
            let table = error.as_db_error().and_then(|db| Some(format!("{}.{}", db.schema()?, db.table()?)));
            let error = Error::from(error);
            return Err(Error::new(
                Kind::BadRow,
                format!(
                    "the transaction at {} leaves {} in a state that the target refuses: {}",
                    ended.carried.at(),
                    table.unwrap_or_else(|| "a table".into()),
                    error.why()
                ),
            )
            .fix("drop or correct the deferred constraint at the target; it has no counterpart at the source"));
        }
        if self.on_error == OnError::DeadLetter {
            self.run_sql("RELEASE SAVEPOINT cutwater_source").await?;
        }
        self.run_sql("SET CONSTRAINTS ALL DEFERRED").await
    }

    async fn set_aside(&mut self, letter: &Letter<'_>) -> Result<()> {
        let table = letter.change.table.name.to_string();
        let sql = "INSERT INTO cutwater.dead_letter (migration, position, tbl, op, key, old_row, new_row, error)
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let bytes = |row: &Option<Row>| row.as_ref().map(|row| row.as_bytes().to_vec());
        let (old, new) = (bytes(&letter.change.old), bytes(&letter.change.new));
        self.client
            .execute(
                sql,
                &[
                    &self.lease.migration,
                    &letter.at,
                    &table,
                    &letter.change.op.label(),
                    &letter.key,
                    &old,
                    &new,
                    &letter.why,
                ],
            )
            .await
            .context("writing a dead letter")
            .map(drop)
    }

    async fn describe_key(&mut self, change: &RowChange) -> String {
        const COLUMNS: usize = 4;
        let Some(row) = change.old.as_ref().or(change.new.as_ref()) else { return "no row".into() };
        let columns: Vec<usize> = match &change.table.key {
            Some(key) => key.columns.clone(),
            None => (0..change.table.columns.len().min(COLUMNS)).collect(),
        };
        let form = Form::of(row).unwrap_or(Form::Text);
        let Ok(entry) = self.tables.entry(&self.client, &change.table).await else { return "unknown".into() };
        let mut words = Vec::new();
        for column in columns {
            let attribute = &entry.target.attributes[entry.attributes[column]];
            let value = match row.get(column).and_then(|datum| datum.bytes()) {
                None => "NULL".into(),
                Some(text) if form == Form::Text => String::from_utf8_lossy(text).into_owned(),
                Some(binary) => self.print(&attribute.type_sql(), binary).await,
            };
            words.push(format!("{} = {value}", attribute.name));
        }
        words.join(", ")
    }
}

impl PgApplier {
    /// Takes a transaction back that leaves a deferred constraint violated, and applies what of it can stay.
    async fn without_the_refused(&mut self, ended: &Ended<'_>, done: &mut Replayed) -> Result<bool> {
        if ended.of.iter().any(|event| matches!(event, ChangeEvent::Truncate(_))) {
            return Ok(false);
        }
        self.run_sql("ROLLBACK TO SAVEPOINT cutwater_source").await?;
        *done = ended.before;
        let sent = ended.of.iter().filter_map(|event| match event {
            ChangeEvent::Row(change) => Some(change),
            _ => None,
        });
        let changes = ended.postponed.iter().chain(sent).collect();
        let puzzle = Puzzle { changes, tolerate_missing: ended.tolerate_missing, carried: ended.carried };
        let applied = self.put_together(&puzzle, done).await?;
        self.run_sql("RELEASE SAVEPOINT cutwater_source").await?;
        Ok(applied)
    }

    pub(super) async fn run_sql(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.context("replaying a batch")
    }

    /// A binary value in text, by the target's own output function.
    async fn print(&self, ty: &str, binary: &[u8]) -> String {
        let hex = || binary.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        if self.client.batch_execute("SAVEPOINT cutwater_print").await.is_err() {
            return hex();
        }
        let value = Raw(Some(Bytes::copy_from_slice(binary)));
        let printed = self.client.query_one(&format!("SELECT ($1::{ty})::pg_catalog.text"), &[&value]).await;
        let after = if printed.is_ok() { "RELEASE" } else { "ROLLBACK TO" };
        let ended = self.client.batch_execute(&format!("{after} SAVEPOINT cutwater_print")).await;
        match (printed, ended) {
            (Ok(row), Ok(())) => row.try_get::<_, String>(0).unwrap_or_else(|_| hex()),
            _ => hex(),
        }
    }
}

/// What to do about a label that an enum has at the source and not here: ALTER TYPE is in no stream.
fn missing_label(why: &str) -> Option<String> {
    let (ty, label) = why.split_once("invalid input value for enum ")?.1.split_once(": \"")?;
    let label = label.strip_suffix('"')?.replace('\'', "''");
    Some(format!(
        "ALTER TYPE {ty} ADD VALUE '{label}';  at the target (with BEFORE or AFTER, where it stands at the source), then \
         run again"
    ))
}
