//! What a config must keep beyond its types.

use super::{Config, OnLimit, Url};
use crate::schema::mapping::{Matches, Rules};
use crate::schema::{Pattern, Patterns};

/// What is wrong, at which key.
pub(super) struct Wrong {
    /// `["transform", "0", "match"]`
    pub path: Vec<String>,
    pub why: String,
    pub fix: Option<String>,
}

fn wrong(path: &str, why: impl Into<String>) -> Wrong {
    Wrong { path: path.split('.').map(str::to_owned).collect(), why: why.into(), fix: None }
}

pub(super) fn check(config: &Config) -> Result<(), Wrong> {
    name(&config.migration.name)?;
    url("source.url", &config.source.url)?;
    url("target.url", &config.target.url)?;
    for (index, text) in config.source.tables.iter().enumerate() {
        Patterns::parse(&[text]).map_err(|error| pattern(&format!("source.tables.{index}"), &error))?;
    }
    if config.source.slot.is_some() && config.source.on_limit == OnLimit::DropSlot {
        return Err(wrong(
            "source.on_limit",
            "the slot of [source] slot is an administrator's and is never dropped: \"warn\" or \"pause-snapshot\"",
        ));
    }
    for (index, rule) in config.transform.iter().enumerate() {
        Pattern::parse(&rule.pattern).map_err(|error| pattern(&format!("transform.{index}.match"), &error))?;
    }
    if config.schema.namespace.is_empty() || config.schema.namespace.len() > 63 {
        return Err(wrong("schema.namespace", "the name of a schema has 1 to 63 bytes"));
    }
    for (index, rule) in config.schema.types.iter().enumerate() {
        let at = |key: &str| format!("schema.type.{index}.{key}");
        Matches::parse(&rule.pattern).map_err(|error| pattern(&at("match"), &error))?;
        Rules::parse([(rule.pattern.as_str(), rule.ty.as_str())]).map_err(|error| pattern(&at("type"), &error))?;
    }
    if config.source.server_id.is_some_and(|id| id == 0 || id > u32::MAX - 9) {
        return Err(wrong("source.server_id", "from 1 to 4294967286: the nine after it are taken too"));
    }
    let positive = [
        ("snapshot.workers", config.snapshot.workers as u64),
        ("snapshot.chunk_rows", config.snapshot.chunk_rows),
        ("snapshot.resume_rows", config.snapshot.resume_rows),
        ("snapshot.max_rows_per_second", config.snapshot.max_rows_per_second.unwrap_or(1)),
        ("apply.batch_rows", config.apply.batch_rows as u64),
        ("apply.workers", config.apply.workers as u64),
    ];
    for (key, value) in positive {
        if value == 0 {
            return Err(wrong(key, "at least 1"));
        }
    }
    if config.snapshot.workers > 256 {
        return Err(wrong("snapshot.workers", "at most 256: each is a connection at both ends"));
    }
    if config.apply.workers > 64 {
        return Err(wrong("apply.workers", "at most 64: each is a connection to the target"));
    }
    if config.source.on_limit != OnLimit::Warn && config.source.max_retained.is_none() {
        return Err(wrong("source.on_limit", "it says what happens at max_retained, which is not set"));
    }
    let bytes = config.apply.batch_bytes.0;
    if !(64 << 10..=1 << 30).contains(&bytes) {
        return Err(wrong("apply.batch_bytes", "between 64kB and 1GB: a batch is held in memory"));
    }
    if config.apply.linger.0.as_secs() > 60 {
        return Err(wrong("apply.linger", "at most 60s: it is added to the lag"));
    }
    Ok(())
}

fn pattern(path: &str, error: &crate::error::Error) -> Wrong {
    Wrong { fix: error.suggestion().map(str::to_owned), ..wrong(path, error.why()) }
}

/// It becomes part of slot and publication names, which allow no more than this.
fn name(name: &str) -> Result<(), Wrong> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || name.len() > 40 || !name.chars().all(allowed) {
        let why = format!("{name:?} may hold only lower-case letters, digits and _, at most 40 of them");
        return Err(wrong("migration.name", why));
    }
    Ok(())
}

fn url(path: &str, url: &Url) -> Result<(), Wrong> {
    let url = url.expose();
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok(());
    }
    let fix = Some("write for example postgres://user:${PASSWORD}@host:5432/database?sslmode=verify-full".to_owned());
    // Never the URL itself: it may hold a password.
    let why = match url.split_once("://") {
        Some((scheme, _)) if scheme.len() < 16 => format!("{scheme}:// is not supported, only postgres://"),
        _ => "it does not begin with postgres://".to_owned(),
    };
    Err(Wrong { fix, ..wrong(path, why) })
}
