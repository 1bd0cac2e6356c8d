//! What was done and by whom: the steps of a cutover, the events, the report of the run.

use jiff::Timestamp;

use super::access::State;
use super::db::params;
use super::migration::{to_json, words};
use super::{Cutover, CutoverStep, Event, RunReport};
use crate::change::Position;
use crate::error::Result;

impl State {
    /// Writes the run's report and heartbeat.
    pub async fn heartbeat(&self, report: &RunReport) -> Result<()> {
        let sql = "INSERT INTO cutwater.run (migration, report) VALUES ($1, $2)
                   ON CONFLICT (migration) DO UPDATE SET report = $2, heartbeat_at = clock_timestamp()";
        let report = to_json(report)?;
        self.execute("writing the heartbeat", sql, params![self.name(), &report]).await.map(drop)
    }

    /// The last run's report and the seconds since it was written, by the target's clock.
    pub async fn run(&self) -> Result<Option<(RunReport, f64)>> {
        let sql = "SELECT report, heartbeat_at, clock_timestamp() FROM cutwater.run WHERE migration = $1";
        let rows = self.query("reading the run's report", sql, params![self.name()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (written, now): (Timestamp, Timestamp) = (row.get(1)?, row.get(2)?);
        Ok(Some((row.json(0)?, (now.as_microsecond() - written.as_microsecond()) as f64 / 1e6)))
    }

    /// Appends to the event log.
    pub async fn record(&self, event: &Event) -> Result<()> {
        let sql = "INSERT INTO cutwater.event (migration, os_user, host, version, command, outcome)
                   VALUES ($1, $2, $3, $4, $5, $6)";
        let Event { os_user, host, version, command, outcome, .. } = event;
        let params = params![self.name(), os_user, host, version, command, outcome];
        self.execute("writing the event log", sql, params).await.map(drop)
    }

    /// The event log, oldest first.
    pub async fn events(&self) -> Result<Vec<Event>> {
        let sql = "SELECT at, os_user, host, version, command, outcome
                   FROM cutwater.event WHERE migration = $1 ORDER BY id";
        let rows = self.query("reading the event log", sql, params![self.name()]).await?;
        rows.iter()
            .map(|row| {
                Ok(Event {
                    at: Some(row.get(0)?),
                    os_user: row.get(1)?,
                    host: row.get(2)?,
                    version: row.get(3)?,
                    command: row.get(4)?,
                    outcome: row.get(5)?,
                })
            })
            .collect()
    }

    /// The newest attempt at a cutover.
    pub async fn cutover(&self) -> Result<Option<Cutover>> {
        let sql = "SELECT nonce, step, started_at, deadline, drained_at, broken, note
                   FROM cutwater.cutover WHERE migration = $1 ORDER BY started_at DESC LIMIT 1";
        let rows = self.query("reading the cutover's state", sql, params![self.name()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Cutover {
            nonce: row.get(0)?,
            step: row.parse(1)?,
            started_at: row.get(2)?,
            deadline: row.get(3)?,
            drained_at: row.parse_opt(4)?,
            broken: row.get(5)?,
            note: row.get(6)?,
        }))
    }

    /// Journals the beginning of an attempt, before anything is touched.
    pub async fn begin_cutover(&self, nonce: &str, deadline: Timestamp) -> Result<()> {
        let sql = "INSERT INTO cutwater.cutover (migration, nonce, step, deadline) VALUES ($1, $2, $3, $4)";
        let params = params![self.name(), nonce, CutoverStep::Fencing.as_str(), deadline];
        self.execute("journalling the cutover", sql, params).await.map(drop)
    }

    /// Journals that everything up to `position`, which was read behind the fence, is durable: for a fence whose marker no
    /// applier sees.
    pub async fn note_drained(&self, nonce: &str, position: &Position) -> Result<()> {
        let sql = "UPDATE cutwater.cutover SET drained_at = $3 WHERE migration = $1 AND nonce = $2";
        let position = position.to_string();
        let params = params![self.name(), nonce, &position];
        self.execute("journalling the drain", sql, params).await.map(drop)
    }

    /// Journals a step: only from `from`, so that two drivers cannot both go on. Returns whether it was.
    pub async fn move_cutover(
        &self,
        nonce: &str,
        from: &[CutoverStep],
        to: CutoverStep,
        note: Option<&str>,
    ) -> Result<bool> {
        let sql = format!(
            "UPDATE cutwater.cutover SET step = $3, step_at = clock_timestamp(), note = coalesce($4, note)
             WHERE migration = $1 AND nonce = $2 AND step IN ({})",
            words(from.iter().map(|step| step.as_str()))
        );
        let params = params![self.name(), nonce, to.as_str(), note];
        Ok(self.execute("journalling the cutover", sql.as_str(), params).await? == 1)
    }
}
