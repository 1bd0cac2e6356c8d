//! `--dry-run`: the same steps in the same order, said and not done.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::steps::{Passed, Steps};
use super::{CutoverReport, Options, Parts, Progress, Reporter, late, sequences, views};
use crate::error::{Error, Result};
use crate::verify::changed::Scope;

/// Says what would be done.
pub(super) struct Rehearsal<'a> {
    parts: &'a Parts,
    options: &'a Options,
    report: Reporter<'a>,
    said: Vec<String>,
}

impl<'a> Rehearsal<'a> {
    pub(super) fn new(parts: &'a Parts, options: &'a Options, report: Reporter<'a>) -> Self {
        Rehearsal { parts, options, report, said: Vec::new() }
    }

    fn would(&mut self, what: impl Into<String>) {
        let what = what.into();
        (self.report)(&Progress::Would(&what));
        self.said.push(what);
    }
}

impl Steps for Rehearsal<'_> {
    async fn begin(&mut self) -> Result<()> {
        self.would("journal the attempt in the target");
        Ok(())
    }

    async fn fence(&mut self) -> Result<()> {
        let tables = self.parts.tables();
        let mut fence = self.parts.fence().await?;
        let what = fence.words(&tables).await?;
        let seconds = self.options.max_downtime.as_secs_f64();
        self.would(format!("refuse writes to {what} at the source, for {seconds:.0} s at most"));
        for blocker in fence.blockers(&tables).await? {
            self.would(format!("wait for a lock: {blocker}"));
        }
        Ok(())
    }

    fn time_left(&self) -> Duration {
        self.options.max_downtime
    }

    async fn drain(&mut self) -> Result<()> {
        self.would("wait until the target has applied everything before the fence");
        Ok(())
    }

    async fn verify(&mut self) -> Result<()> {
        let last = self.parts.ends.state.migration().await?.and_then(|migration| migration.verify);
        let scope = Scope::of(&self.parts.ends, &self.parts.plan, last.as_ref()).await?;
        self.would(format!("compare {}, and undo everything if one row differs", scope.words()));
        Ok(())
    }

    async fn unbroken(&mut self) -> Result<()> {
        self.would("read the stream on to the source's head: no write may have come past the fence");
        Ok(())
    }

    async fn sequences(&mut self) -> Result<()> {
        let planned = sequences::plan(self.parts).await?;
        for sequence in &planned.moves {
            self.would(format!("set {} to {}", sequence.target, sequence.value));
        }
        Ok(())
    }

    async fn point_of_no_return(&mut self) -> Result<Passed> {
        self.would("make the fence permanent: the point of no return");
        Ok(Passed::Yes)
    }

    async fn switch(&mut self, _: &CancellationToken) -> Result<()> {
        if let Some(words) = late::waiting(self.parts).await? {
            self.would(format!("make {words}, which could not be there while changes were applied"));
        }
        match self.parts.config.switch_command.clone() {
            Some(command) => self.would(format!("run: {command}")),
            None => self.would("run no switch command: none is configured, clients move themselves"),
        }
        self.would("record that the target is live");
        for view in views::stale(self.parts).await? {
            self.would(format!("refresh {}, whose rows are of the moment run filled it", view.label()));
        }
        Ok(())
    }

    async fn undo(&mut self, why: Error) -> Error {
        why
    }

    fn report(self) -> CutoverReport {
        CutoverReport {
            rehearsed: self.said,
            max_downtime_ms: self.options.max_downtime.as_millis() as u64,
            ..CutoverReport::default()
        }
    }
}
