//! What would bite at a MySQL or MariaDB end, whatever the other end is.

mod rights;
mod source;
mod tables;
mod target;

pub(super) use rights::at_source;
pub(super) use source::source;
pub(super) use target::{at_target, target};
