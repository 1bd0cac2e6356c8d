//! A MySQL or MariaDB target.
//!
//! | file | what it is |
//! |---|---|
//! | `state` | database `cutwater`, where [`crate::target::state`] is remembered |

pub(in crate::target) mod state;
