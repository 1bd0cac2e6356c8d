//! One typed tree for `cutwater.toml`.
//!
//! In: a file, or a name and two URLs from the command line. Out: [`Config`], complete and checked, secrets resolved
//! from `${ENV}` and `${file:/path}`. What can go wrong: an unknown key, a wrong type, a variable that is not set:
//! each an error that points at its line. Only keys that do something are accepted.

mod fingerprint;
pub(crate) mod keys;
mod load;
pub mod reference;
pub mod restart;
mod schema;
mod units;
mod validate;
mod values;

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

pub use fingerprint::RecordedEnds;
pub use schema::{Names, SchemaConfig, TypeRule};
pub use units::{ByteSize, HumanDuration};
pub use values::{InvalidText, NulByte, OutOfRange, ValuesConfig, ZeroDate};

/// The whole file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[migration]`: what it is called.
    pub migration: MigrationConfig,
    /// `[source]`: where the data is, and which tables of it.
    pub source: SourceConfig,
    /// `[target]`: where it goes.
    pub target: TargetConfig,
    /// `[snapshot]`: the copy of the rows that are there.
    #[serde(default)]
    pub snapshot: SnapshotConfig,
    /// `[apply]`: how changes are written to the target.
    #[serde(default)]
    pub apply: ApplyConfig,
    /// `[schema]`: what tables of another engine are called, and of which types they are. Between two servers of one engine
    /// nothing of it counts.
    #[serde(default)]
    pub schema: SchemaConfig,
    /// `[values]`: what becomes of a value that the target's type does not have, where the target is of another engine. By
    /// default nothing is changed: the run stops, and names the row and the setting. What is copied already stays as an
    /// earlier setting made it.
    #[serde(default)]
    pub values: ValuesConfig,
    /// `[[transform]]`: rules, in order; the first that matches a table is its rule.
    #[serde(default)]
    pub transform: Vec<TransformRule>,
    /// `[cutover]`: the switch, see [cutover.md](cutover.md).
    #[serde(default)]
    pub cutover: CutoverConfig,
    /// `[telemetry]`: metrics and log.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
}

/// `[migration]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MigrationConfig {
    /// Names the migration; everything it creates anywhere is called `cutwater_<name>`. Lower-case letters, digits and
    /// `_`, at most 40.
    pub name: String,
}

/// `[source]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// The source, as `postgres://user:${PASSWORD}@host:5432/database?sslmode=verify-full`, with libpq's parameters, or as
    /// `mysql://user:${PASSWORD}@host:3306/database?ssl-mode=VERIFY_IDENTITY` (`mariadb://` is the same), with those of the
    /// `mysql` client.
    /// From there the way goes to Postgres or to another MySQL or MariaDB server, from Postgres to Postgres.
    pub url: Url,
    /// Patterns of the tables to migrate, `schema.table` with `*` and `?`; `!` excludes; names with odd characters in
    /// double quotes. None: all user tables of the database. A MySQL database is the schema of its tables.
    #[serde(default)]
    pub tables: Vec<String>,
    /// A logical replication slot that an administrator made (`pgoutput`, in this database). It is used, and never
    /// dropped. Default: Cutwater makes one called `cutwater_<name>` and removes it at teardown.
    #[serde(default)]
    pub slot: Option<String>,
    /// A publication that an administrator made: of every migrated table and of `cutwater.fence`, for all four
    /// operations, with `publish_via_partition_root`. It is used, and never altered or dropped; `cutwater check --grants`
    /// prints the statements. Default: Cutwater makes one called `cutwater_<name>`.
    #[serde(default)]
    pub publication: Option<String>,
    /// MySQL and MariaDB: the server id by which the source knows the reader of its log, as it knows a replica. One that
    /// neither the source nor a replica of it has; the nine after it are for streams beside the migration's own. Default:
    /// made from the migration's name.
    #[serde(default)]
    #[schemars(extend("x-unit" = "id"))]
    pub server_id: Option<u32>,
    /// How much log (WAL) the source may keep for us, as a size (`"120GB"`). None by default: then only the server's own
    /// `max_slot_wal_keep_size` is a limit. `status`, the metrics and the log tell the room that is left, and how long it
    /// lasts at the present rate. It is watched by a live `run`; while none is alive, only the server's limit holds.
    #[serde(default)]
    pub max_retained: Option<ByteSize>,
    /// What happens when the source keeps more than `max_retained`.
    #[serde(default)]
    pub on_limit: OnLimit,
    /// How often a heartbeat is written into the source's log while others write there: a message of some 60 bytes that
    /// touches no table, and by which the slot moves on although none of the changes are ours. `"0s"`: never; then, and
    /// where it is not permitted, the server's keepalives have to do.
    #[serde(default = "ten_seconds")]
    pub heartbeat: HumanDuration,
}

fn ten_seconds() -> HumanDuration {
    HumanDuration(Duration::from_secs(10))
}

/// `[source] on_limit`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnLimit {
    /// Only says so, in `status`, the metrics and the log: the source's disk keeps filling.
    #[default]
    Warn,
    /// The copy of the existing rows steps back: tables whose copy has begun are finished, no further one is begun. The
    /// stream is then followed for the tables that are copied, which frees the log, and the copy of the others goes on
    /// from a new snapshot. Nothing is lost and nothing is copied twice; the copy takes longer. While no copy is under
    /// way it only says so, as `"warn"`.
    PauseSnapshot,
    /// The slot is dropped and the run ends with an error: the source's disk is safe, and the migration must start over
    /// (`cutwater teardown`, `cutwater run`), because changes are missing from then on. The source and the data at the
    /// target are not touched. Never during a cutover.
    DropSlot,
}

impl OnLimit {
    /// What happens past the limit, in words for `status` and the log.
    pub fn consequence(self) -> &'static str {
        match self {
            OnLimit::Warn => "warn only, the source's disk keeps filling",
            OnLimit::PauseSnapshot => "the copy steps back and lets the stream free the log",
            OnLimit::DropSlot => "the slot is dropped, and the copy must start over",
        }
    }
}

/// `[target]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// The target, written as the source's.
    pub url: Url,
    /// What to do about rows already in a target table.
    #[serde(default)]
    pub existing: Existing,
}

/// `[target] existing`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Existing {
    /// Refuse, with counts.
    #[default]
    Stop,
    /// Empty the table first.
    Truncate,
}

/// `[snapshot]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SnapshotConfig {
    /// Connections that copy at the same time, and that build indexes at the same time.
    #[schemars(extend("x-unit" = "connections"))]
    pub workers: usize,
    /// A table estimated larger than this is copied in several ranges at once. A smaller one is copied in one piece,
    /// which alone can be frozen as it is loaded: that spares the index build, the first readers and vacuum much work.
    #[schemars(extend("x-unit" = "rows"))]
    pub chunk_rows: u64,
    /// A table estimated larger than this, whose primary key begins with an integer, is copied in ranges of that key,
    /// and each range that is there stays there when the run is killed. Other tables are copied again from their
    /// beginning. While ranges of different moments meet, changes of a key cost more.
    #[schemars(extend("x-unit" = "rows"))]
    pub resume_rows: u64,
    /// Upper limit over all workers together; none by default.
    #[schemars(extend("x-unit" = "rows a second"))]
    pub max_rows_per_second: Option<u64>,
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        SnapshotConfig { workers: 4, chunk_rows: 4_000_000, resume_rows: 20_000_000, max_rows_per_second: None }
    }
}

/// `[apply]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ApplyConfig {
    /// A batch ends at the first commit past this many changes …
    #[schemars(extend("x-unit" = "changes"))]
    pub batch_rows: usize,
    /// … or past this many bytes. A source transaction larger than this is applied in parts inside one target
    /// transaction.
    pub batch_bytes: ByteSize,
    /// How long a batch may wait for more transactions when the stream is quiet; out of a backlog it is ten times as long.
    pub linger: HumanDuration,
    /// Connections that apply at the same time, each with tables of its own; at most 64. More than one is faster where
    /// several tables change at once, and gives up that a reader at the target only sees states the source had: a
    /// transaction over tables of several workers becomes visible table by table. A cutover is as exact as with one.
    /// Another number is taken up by the next run.
    #[schemars(extend("x-unit" = "connections"))]
    pub workers: usize,
    /// What to do about a row the target refuses.
    pub on_error: OnError,
    /// What to do when a table's columns are changed at the source in mid-migration.
    pub ddl: Ddl,
}

impl Default for ApplyConfig {
    fn default() -> Self {
        ApplyConfig {
            batch_rows: 50_000,
            batch_bytes: ByteSize(16 << 20),
            linger: HumanDuration(Duration::from_millis(5)),
            workers: 1,
            on_error: OnError::Stop,
            ddl: Ddl::Follow,
        }
    }
}

/// `[apply] on_error`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// Stop the run and name the row.
    #[default]
    Stop,
    /// Write the row to `cutwater.dead_letter` and go on.
    DeadLetter,
}

/// `[apply] ddl`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ddl {
    /// Add new columns at the target by itself, where what the existing rows hold in them is known; stop at everything
    /// else, with the statement to run at the target.
    #[default]
    Follow,
    /// Stop at every change of a table's columns.
    Stop,
}

/// One `[[transform]]`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransformRule {
    /// Pattern of the source tables it is for.
    #[serde(rename = "match")]
    pub pattern: String,
    /// New names at the target.
    #[serde(default)]
    pub rename: Rename,
    /// Which columns travel: names and `*`, `!name` leaves one out. Empty: all.
    #[serde(default)]
    pub columns: Vec<String>,
}

/// `rename = { schema = "app", table = "people", columns = { mail = "email" } }`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rename {
    /// The schema's name at the target.
    pub schema: Option<String>,
    /// The table's name at the target; only where the rule matches a single table.
    pub table: Option<String>,
    /// New names of columns: source column = target column.
    pub columns: BTreeMap<String, String>,
}

/// `[cutover]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CutoverConfig {
    /// Shell command that moves the clients. Run after the point of no return, possibly more than once: it must be
    /// idempotent. Facts are in its environment.
    pub switch_command: Option<String>,
    /// How far past the source's last value each target sequence is set, in increments.
    #[schemars(extend("x-unit" = "increments"))]
    pub sequence_margin: u64,
    /// A clean verify older than this does not open the gate.
    pub max_verify_age: HumanDuration,
    /// How a MySQL or MariaDB source is made to refuse writes. A Postgres source's fence is made of triggers.
    pub fence: FenceWay,
    /// `fence = "command"`: shell command that stops every write to the source. It may be run more than once; facts, the
    /// deadline among them, are in its environment.
    pub fence_command: Option<String>,
    /// `fence = "command"`: shell command that lets writes go on. Run whenever a cutover is taken back.
    pub unfence_command: Option<String>,
    /// Accounts of a MySQL or MariaDB source, `user` or `user@host`, that a fence never locks: those of administrators.
    /// `root` on the server itself and Cutwater's own account never are.
    pub keep_accounts: Vec<String>,
}

/// How a MySQL or MariaDB source is fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FenceWay {
    /// The best of the next two that our rights allow.
    #[default]
    Auto,
    /// `read_only` of the whole server.
    ReadOnly,
    /// Table locks, then locked accounts whose sessions are ended.
    Accounts,
    /// `fence_command`
    Command,
}

impl Default for CutoverConfig {
    fn default() -> Self {
        CutoverConfig {
            switch_command: None,
            sequence_margin: 1_000,
            max_verify_age: HumanDuration(Duration::from_secs(24 * 3600)),
            fence: FenceWay::Auto,
            fence_command: None,
            unfence_command: None,
            keep_accounts: Vec::new(),
        }
    }
}

/// `[telemetry]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// Where `run` serves `/metrics` and `/status`, for example `127.0.0.1:9464`. Absent: not served.
    #[schemars(with = "Option<String>", extend("format" = "address"))]
    pub listen: Option<std::net::SocketAddr>,
    /// Log filter, as in `RUST_LOG`; without it `info`.
    pub log: Option<String>,
}

/// A database URL, which may hold a password: never printed.
#[derive(Clone, Deserialize)]
pub struct Url(SecretString);

impl Url {
    /// Takes a URL.
    pub fn new(url: impl Into<String>) -> Self {
        Url(SecretString::from(url.into()))
    }

    /// The URL with its secrets, for the connection code only.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl std::fmt::Debug for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Url(..)")
    }
}

impl JsonSchema for Url {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Url".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "url" })
    }
}
