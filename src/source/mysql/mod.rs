//! MySQL and MariaDB as a source.

pub mod binlog;
