//! How a migration is seen from outside: true lag, metrics, the log, the HTTP status.
//!
//! In: heads, durable positions, counts. Out: [`LagReading`], the text of `/metrics`, log lines on stderr. Nothing in
//! here steers anything, and no secret may reach it.

pub mod http;
mod lag;
pub mod logging;
mod metric;
mod trend;

pub use http::serve;
pub use lag::{LagMeter, LagReading};
pub use metric::{
    install, record_batch, record_copied, record_error, record_lag, record_paused, record_phase, record_retained,
    record_retained_limit, record_room, record_rows, record_snapshot_progress, render,
};
pub use trend::{Trend, room_seconds};
