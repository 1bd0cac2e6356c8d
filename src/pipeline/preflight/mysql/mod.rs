//! What would bite at a MySQL or MariaDB end, whatever the other end is.

mod rights;
mod source;
mod tables;

pub(super) use rights::at_source;
pub(super) use source::source;
