//! Asking something of a live run, and waiting until it says that it has heard.
//!
//! In: an [`Order`]. Out: which run has taken it up, or that the next one will. What can go wrong: nothing was begun, a
//! cutover is under way (a pause would only hold its fence up), a run that lives and does not answer.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::error::{Error, Kind, Result};
use crate::pipeline::behind;
use crate::target::state::State;
use crate::target::state::{Control, CutoverStep, Order, Phase};

/// A run reads the control row once a second; one whose target is slow, or which is being started, takes longer.
pub const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// What came of it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The run that has taken it up (`host pid 4121`); `None`: no run is alive, and the next one takes it up before it
    /// begins to work.
    pub taken_by: Option<String>,
    /// Everything that is asked of the run now.
    pub control: Control,
}

/// Writes the order and waits for the run, if one is alive, to acknowledge it.
pub async fn ask(state: &State, order: &Order, by: &str, patience: Duration) -> Result<Asked> {
    may(state, order).await?;
    let version = state.order(order, by).await?;
    let begun = Instant::now();
    loop {
        let control = state.control().await?;
        if control.acknowledged >= version {
            return Ok(Asked { taken_by: control.acknowledged_by.clone(), control });
        }
        if behind::not_running(state).await?.is_some() {
            return Ok(Asked { taken_by: None, control });
        }
        if begun.elapsed() > patience {
            let why =
                format!("it is written down, but the run has not acknowledged it within {} s", patience.as_secs());
            return Err(Error::new(Kind::Transient, why)
                .fix("cutwater status shows whether it is well; it takes it up as soon as it can read its state"));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn may(state: &State, order: &Order) -> Result<()> {
    let Some(migration) = state.migration().await? else {
        return Err(Error::new(Kind::Refused, "nothing was begun yet: there is no run to steer").fix("cutwater run"));
    };
    if matches!(migration.phase, Phase::TargetLive | Phase::RolledBack) {
        let why = format!("the migration is in phase {}: nothing runs any more", migration.phase);
        return Err(Error::new(Kind::Refused, why));
    }
    if order.apply_paused != Some(true) {
        return Ok(());
    }
    // Between the fence and the switch a pause would only lengthen the downtime, until the time limit undoes it all.
    let under_way = state.cutover().await?.is_some_and(|cutover| match cutover.step {
        CutoverStep::Done | CutoverStep::Undone => false,
        CutoverStep::Switching => true,
        _ => cutover.deadline.is_none_or(|deadline| deadline > Timestamp::now()),
    });
    if under_way {
        return Err(Error::new(Kind::Refused, "a cutover is under way, and the source's writes wait for it")
            .fix("let it end, or take it back: cutwater cutover --abort"));
    }
    Ok(())
}
