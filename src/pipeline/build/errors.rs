//! What a failed statement means: it is there already, or what the operator should do about it.

use crate::error::{Error, Kind};

/// Whether the error says that what `sql` makes exists: tables and indexes, schemas, functions, types and constraints; a
/// column that is an identity column already; a table that has a primary key already.
pub fn already_there(error: &tokio_postgres::Error, sql: &str) -> bool {
    error.code().is_some_and(|code| match code.code() {
        "42P07" | "42710" | "42P06" | "42723" | "42P04" => true,
        // Both codes stand for much else, too.
        "42P16" => sql.contains("PRIMARY KEY"),
        "55000" => sql.contains("ADD GENERATED"),
        _ => false,
    })
}

/// The error for the operator. `kind`: `EXTENSION`, `TABLE` …
pub fn explain(error: tokio_postgres::Error, kind: &str) -> Error {
    let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
    let error = Error::from(error);
    match (code.as_str(), kind) {
        // The server's own classes would have us wait for a package to install itself.
        ("0A000" | "58P01" | "22023", "EXTENSION") => Error::new(Kind::Schema, error.why())
            .fix("install the extension's package on the target server, or create the tables there without it"),
        // A policy names one.
        ("42704", _) if error.why().starts_with("role ") => {
            error.fix("CREATE ROLE …;  at the target, then run again: roles belong to the server and are not carried over")
        }
        ("53200", _) => Error::new(Kind::ServerSetting, error.why())
            .fix("ALTER SYSTEM SET max_locks_per_transaction = 1024;  at the target, then restart it"),
        ("42501", _) => error.fix(
            "GRANT CREATE ON DATABASE … TO the role of [target] url;  or create the tables yourself: cutwater schema prints them",
        ),
        _ => error,
    }
}
