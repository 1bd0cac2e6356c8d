//! A run of one's own, for as long as a repair takes, where none is alive: rows can be repaired only at a target that
//! follows the source.
//!
//! In: the job. Out: a target that is being followed, until [`Follower::end`]. Rows that the stream does not find, which
//! may be the very reason why no run is alive, are set aside instead of stopping it: the repair brings them, and settles
//! what was set aside.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::behind;
use crate::config::OnError;
use crate::error::{Error, Kind, Result};
use crate::pipeline::{self, Job, Outcome, Until};
use crate::target::Target;

/// How long its end may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The run.
pub struct Follower {
    stop: CancellationToken,
    task: JoinHandle<Result<Outcome>>,
}

impl Follower {
    /// Starts to follow, unless a run is alive already. Returns when it streams.
    pub async fn start(job: &Job) -> Result<Option<Follower>> {
        let state = job.target.state().clone();
        let Some(why) = behind::not_running(&state).await? else { return Ok(None) };
        tracing::info!("{why}: following the source for as long as this takes");
        let mut job = job.clone();
        job.config.apply.on_error = OnError::DeadLetter;
        job.mends = true;
        let stop = CancellationToken::new();
        let (halt, progress) = (stop.clone(), std::sync::Arc::default());
        let task = tokio::spawn(async move { pipeline::run(&job, Until::Stopped, halt, progress).await });
        let follower = Follower { stop, task };
        while behind::not_running(&state).await?.is_some() {
            if follower.task.is_finished() {
                follower.end().await?;
                return Err(Error::new(Kind::Transient, "the run that was started for this has ended")
                    .fix("cutwater run, and this again beside it"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Some(follower))
    }

    /// Ends it cleanly; if it waits for something at one of the ends that does not let go, like a crash.
    pub async fn end(mut self) -> Result<()> {
        self.stop.cancel();
        let Ok(ended) = timeout(PATIENCE, &mut self.task).await else {
            tracing::warn!(
                "the run that was started for this waits for something and is left alone: nothing is lost by that"
            );
            self.task.abort();
            return Ok(());
        };
        ended.map_err(|error| Error::new(Kind::Internal, error.to_string()))?.map(drop)
    }
}
