//! What a MySQL and a MariaDB server share at both ends.

pub mod catalog;
