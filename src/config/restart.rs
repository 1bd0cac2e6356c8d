//! What may change between two runs of one migration: three written lists, by key. A test holds them against the config's
//! keys (every key stands in exactly one) and against the code (what is recorded changes with the keys of the last two
//! lists and with no other), and `docs/config.md` is made from them.

/// Taken up by the next run: nothing about the rows depends on them. What `[values]` says is true for the rows from then
/// on: where it stopped a run before, no row was changed by it.
pub const MAY_CHANGE: &[&str] = &[
    "source.slot",
    "source.publication",
    "source.server_id",
    "source.max_retained",
    "source.on_limit",
    "source.heartbeat",
    "target.existing",
    "snapshot.workers",
    "snapshot.chunk_rows",
    "snapshot.resume_rows",
    "snapshot.max_rows_per_second",
    "apply.batch_rows",
    "apply.batch_bytes",
    "apply.linger",
    "apply.workers",
    "apply.on_error",
    "apply.ddl",
    "values.zero_date",
    "values.out_of_range",
    "values.invalid_text",
    "values.nul_byte",
    "cutover.switch_command",
    "cutover.sequence_margin",
    "cutover.max_verify_age",
    "cutover.fence",
    "cutover.fence_command",
    "cutover.unfence_command",
    "cutover.keep_accounts",
    "telemetry.listen",
    "telemetry.log",
];

/// They decide which rows stand at the target and in which shape: `run` says which tables are concerned and which
/// `cutwater tables` command brings them along (`add`, `remove`; for a rule `resync`).
pub const NEEDS_TABLES: &[&str] = &[
    "source.tables",
    "schema.namespace",
    "schema.names",
    "schema.type[].match",
    "schema.type[].type",
    "transform[].match",
    "transform[].rename.schema",
    "transform[].rename.table",
    "transform[].rename.columns",
    "transform[].columns",
];

/// Another migration: refused. Of the URLs only hosts, ports and database count; user, password, TLS and the other
/// parameters may change.
pub const REFUSED: &[&str] = &["migration.name", "source.url", "target.url"];
