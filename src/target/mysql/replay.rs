//! How MySQL carries changes out row by row, for [`crate::target::batch::replay`]: under savepoints. There are no deferred
//! constraints; what a row's statement warns of is asked for, and refused like an error.

use super::apply::{MyApplier, Trouble};
use super::session::{Failure, Script, is_a_duplicate, warning};
use crate::change::{Datum, Row, RowChange, Truncate};
use crate::config::OnError;
use crate::error::{Context, Error, Kind, Result};
use crate::target::batch::replay::{Ended, Letter, Replayed, RowByRow, Tried};
use crate::target::plan::key_fields;

impl RowByRow for MyApplier {
    fn on_error(&self) -> OnError {
        self.on_error
    }

    async fn start_again(&mut self) -> Result<()> {
        self.run_sql("ROLLBACK TO SAVEPOINT cutwater_batch").await
    }

    async fn attempt(&mut self, changes: &[&RowChange]) -> Result<Tried> {
        self.run_sql("SAVEPOINT cutwater_row").await?;
        let mut script = Script::new(self.writer.largest());
        let tried = match self.send_changes(&mut script, changes).await {
            Ok(()) => script.flush(self.session.get_mut()).await.map_err(Trouble::from),
            failed => failed,
        };
        let tried = match tried {
            Ok(()) => return Ok(Tried::Applied),
            Err(Trouble::Error(error)) => return Err(error),
            Err(Trouble::Unfoldable) => return Err(Error::new(Kind::Internal, "a change alone was folded")),
            Err(Trouble::Failure(Failure::Count { affected })) => Tried::Missing(affected),
            Err(Trouble::Failure(Failure::Warned)) => match warning(self.session.get_mut()).await? {
                // Of several it is not known which: they are tried one by one.
                Some(error) => Tried::Refused { error, for_now: false },
                None if changes.len() == 1 => return Ok(Tried::Applied),
                None => Tried::Missing(0),
            },
            Err(Trouble::Failure(Failure::Sql(error))) => {
                let code = match &error {
                    mysql_async::Error::Server(error) => error.code,
                    _ => 0,
                };
                if !super::session::is_about_a_row(code) {
                    return Err(Error::from(error).context("replaying a batch"));
                }
                Tried::Refused { for_now: is_a_duplicate(code), error: Error::from(error) }
            }
            Err(Trouble::Failure(Failure::Fenced)) => return Err(crate::target::state::fenced(&self.lease)),
        };
        self.run_sql("ROLLBACK TO SAVEPOINT cutwater_row").await?;
        Ok(tried)
    }

    async fn truncate(&mut self, truncate: &Truncate, at: &str) -> Result<()> {
        let mut script = Script::new(self.writer.largest());
        let sent = match self.send_truncate(&mut script, truncate).await {
            Ok(()) => script.flush(self.session.get_mut()).await.map_err(Trouble::from),
            sent => sent,
        };
        let doing = || format!("emptying a table at {at}");
        match sent {
            Err(Trouble::Error(error)) => Err(error.context(doing())),
            Err(Trouble::Failure(Failure::Sql(error))) => Err(Error::from(error).context(doing())),
            _ => Ok(()),
        }
    }

    async fn begins(&mut self) -> Result<()> {
        Ok(())
    }

    async fn ends(&mut self, _: &Ended<'_>, _: &mut Replayed) -> Result<()> {
        Ok(())
    }

    fn advice(&self, _: &str) -> Option<String> {
        None
    }

    async fn describe_key(&mut self, change: &RowChange) -> String {
        const COLUMNS: usize = 4;
        let Some(row) = change.old.as_ref().or(change.new.as_ref()) else { return "no row".into() };
        let columns: Vec<usize> = match &change.table.key {
            Some(key) => key.columns.clone(),
            None => (0..change.table.columns.len().min(COLUMNS)).collect(),
        };
        let words = columns.iter().zip(key_fields(&columns, row)).map(|(&column, datum)| {
            let value = match datum {
                Datum::Null | Datum::Unchanged => "NULL".into(),
                Datum::Text(text) => String::from_utf8_lossy(text).into_owned(),
                Datum::Binary(bytes) => {
                    let hex = bytes.iter().map(|byte| format!("{byte:02x}"));
                    format!("0x{}", hex.collect::<String>())
                }
            };
            format!("{} = {value}", change.table.columns[column].name)
        });
        words.collect::<Vec<_>>().join(", ")
    }

    async fn set_aside(&mut self, letter: &Letter<'_>) -> Result<()> {
        let sql = "INSERT INTO cutwater.dead_letter (migration, position, tbl, op, `key`, old_row, new_row, error)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
        let bytes = |row: &Option<Row>| row.as_ref().map(|row| row.as_bytes().to_vec());
        let change = letter.change;
        let values = (
            &self.lease.migration,
            letter.at,
            change.table.name.to_string(),
            change.op.label(),
            letter.key,
            bytes(&change.old),
            bytes(&change.new),
            letter.why,
        );
        self.session.get_mut().execute_with(sql, values).await.context("writing a dead letter").map(drop)
    }
}

impl MyApplier {
    async fn send_changes(&mut self, script: &mut Script, changes: &[&RowChange]) -> Result<(), Trouble> {
        for change in changes {
            let entry = self.tables.entry(self.session.get_mut(), &change.table).await?;
            self.send_followers_of_one(script, &entry, change).await?;
            let statements = self.of_one(&entry, change)?;
            self.send(script, statements).await?;
        }
        Ok(())
    }

    async fn run_sql(&mut self, sql: &str) -> Result<()> {
        self.session.get_mut().execute(sql).await.context("replaying a batch").map(drop)
    }
}
