//! `cutwater pause` and `resume`: hold the copy, the applying or both, on a live run or for the next one.

use super::args::PauseArgs;
use super::{Context, Ended, ordered};
use crate::error::Result;
use crate::target::state::Order;

pub(super) async fn pause(context: &Context, args: &PauseArgs) -> Result<Ended> {
    // Neither flag: everything.
    let (snapshot, apply) = (args.snapshot || !args.apply, args.apply || !args.snapshot);
    let order =
        Order { snapshot_paused: snapshot.then_some(true), apply_paused: apply.then_some(true), ..Order::default() };
    ordered::give(context, "pause", &order, "PAUSED").await
}

pub(super) async fn resume(context: &Context, args: &PauseArgs) -> Result<Ended> {
    let (snapshot, apply) = (args.snapshot || !args.apply, args.apply || !args.snapshot);
    let order =
        Order { snapshot_paused: snapshot.then_some(false), apply_paused: apply.then_some(false), ..Order::default() };
    ordered::give(context, "resume", &order, "RESUMED").await
}
