//! What goes wrong, said for the person who is paged about it.
//!
//! An [`Error`] carries what was being done, why it failed, and what to do. Its [`Kind`] decides three things, in this
//! file and nowhere else: whether the supervisor tries again, which exit code the process ends with, and the label under
//! which the metrics count it.

use std::fmt;

/// Every fallible function of the crate returns this.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of trouble it is. One line a kind: see [`Kind::disposition`], [`Kind::exit_code`], [`Kind::label`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A server cannot be reached, or the connection broke. It may come back.
    Connection,
    /// The server answers that this moment is a bad one: dead-lock victim, too many connections, disk full,
    /// statement or lock time-out, shutting down.
    Transient,
    /// Wrong password, unknown role, no matching `pg_hba.conf` line, certificate not trusted.
    Authentication,
    /// The role may not do what is needed.
    Privilege,
    /// The config file or the command line is wrong.
    Config,
    /// A server setting makes the migration impossible (`wal_level`, no free slot …).
    ServerSetting,
    /// Another process reads our slot.
    SlotInUse,
    /// Our slot is gone, invalidated, or ahead of the checkpoint: changes are missing for good.
    SlotLost,
    /// A table, column or type is not what was expected at one of the ends.
    Schema,
    /// A target table already holds rows.
    NotEmpty,
    /// The target does not hold what the stream says it must.
    Divergence,
    /// A row that the target refuses, named by table and key.
    BadRow,
    /// Another instance has taken the migration over (the epoch moved on).
    Fenced,
    /// The other end speaks a protocol or sends bytes we do not understand.
    Protocol,
    /// The answer is no: a gate is not met, check blocks, differences were found. Nothing was touched.
    Refused,
    /// A cutover was begun and taken back; the source is live.
    Undone,
    /// The user pressed Ctrl-C or the process was asked to stop.
    Interrupted,
    /// A local file, program or socket failed.
    Io,
    /// A bug in Cutwater.
    Internal,
}

/// What the supervisor does with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Wait (backoff, jitter), reconnect both ends, read the checkpoint again, go on.
    Retry,
    /// End the run: trying again would fail the same way.
    Stop,
}

impl Kind {
    /// Whether trying again can help.
    pub fn disposition(self) -> Disposition {
        match self {
            Kind::Connection | Kind::Transient | Kind::SlotInUse => Disposition::Retry,
            _ => Disposition::Stop,
        }
    }

    /// The process's exit code: 1 error, 2 usage or config, 3 the answer is no, 4 undone, 130 interrupted.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Config => 2,
            Kind::Refused => 3,
            Kind::Undone => 4,
            Kind::Interrupted => 130,
            _ => 1,
        }
    }

    /// The value of the `kind` label of `cutwater_errors_total`.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Connection => "connection",
            Kind::Transient => "transient",
            Kind::Authentication => "authentication",
            Kind::Privilege => "privilege",
            Kind::Config => "config",
            Kind::ServerSetting => "server_setting",
            Kind::SlotInUse => "slot_in_use",
            Kind::SlotLost => "slot_lost",
            Kind::Schema => "schema",
            Kind::NotEmpty => "not_empty",
            Kind::Divergence => "divergence",
            Kind::BadRow => "bad_row",
            Kind::Fenced => "fenced",
            Kind::Protocol => "protocol",
            Kind::Refused => "refused",
            Kind::Undone => "undone",
            Kind::Interrupted => "interrupted",
            Kind::Io => "io",
            Kind::Internal => "internal",
        }
    }
}

/// An error for the operator: what was being done, why it failed, what to do.
///
/// Printed as
/// ```text
/// could not create the slot "cutwater_shop" on old:5432: wal_level is "replica"
///   fix: ALTER SYSTEM SET wal_level = logical;  then restart the server
/// ```
/// Never put a secret into any part of it.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    /// Outermost first: each [`Error::context`] adds one in front.
    doing: Vec<String>,
    why: String,
    fix: Option<String>,
}

impl Error {
    /// An error of `kind` whose reason is `why` (one sentence, no full stop).
    pub fn new(kind: Kind, why: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, doing: Vec::new(), why: why.into(), fix: None }))
    }

    /// Adds what was being done ("copying public.orders"), outside of what was said before.
    #[must_use]
    pub fn context(mut self, doing: impl Into<String>) -> Self {
        let doing = doing.into();
        // Two rooms that do the same say it once.
        if self.0.doing.first() != Some(&doing) {
            self.0.doing.insert(0, doing);
        }
        self
    }

    /// Adds what the operator should do; the innermost fix wins, because it knows most.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.0.fix.get_or_insert(fix.into());
        self
    }

    /// The kind, which decides on retry and exit code.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The bare reason, without what was being done.
    pub fn why(&self) -> &str {
        &self.0.why
    }

    /// What to do about it, if it is known.
    pub fn suggestion(&self) -> Option<&str> {
        self.0.fix.as_deref()
    }

    /// The message on one line, without the fix.
    pub fn message(&self) -> String {
        let mut line = self.0.doing.join(": ");
        if !line.is_empty() {
            line.push_str(": ");
        }
        line + &self.0.why
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())?;
        if let Some(fix) = &self.0.fix {
            write!(f, "\n  fix: {fix}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {self}", self.0.kind.label())
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Error::new(Kind::Io, error.to_string())
    }
}

/// Adds what was being done to whatever failed.
pub trait Context<T> {
    /// Wraps the error with "doing: ".
    fn context(self, doing: impl Into<String>) -> Result<T>;
    /// Like [`Context::context`], the text made only on failure.
    fn with_context<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for Result<T, E> {
    fn context(self, doing: impl Into<String>) -> Result<T> {
        self.map_err(|error| error.into().context(doing))
    }

    fn with_context<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| error.into().context(doing()))
    }
}
