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
    ends(config)?;
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

/// The engine of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Postgres,
    MySql,
}

fn engine(path: &str, url: &Url) -> Result<Engine, Wrong> {
    let url = url.expose();
    // Never the URL itself: it may hold a password.
    let why = match url.split_once("://") {
        Some(("postgres" | "postgresql", _)) => return Ok(Engine::Postgres),
        Some(("mysql" | "mariadb", _)) => return Ok(Engine::MySql),
        Some((scheme, _)) if scheme.len() < 16 => {
            format!("{scheme}:// is not supported, only postgres://, mysql:// and mariadb://")
        }
        _ => "it does not begin with postgres://, mysql:// or mariadb://".to_owned(),
    };
    let fix = "write for example postgres://user:${PASSWORD}@host:5432/database?sslmode=verify-full \
               or mysql://user:${PASSWORD}@host:3306/database?ssl-mode=VERIFY_IDENTITY";
    Err(Wrong { fix: Some(fix.to_owned()), ..wrong(path, why) })
}

/// Between which engines there is a migration, and what of `[source]` is of one engine alone.
fn ends(config: &Config) -> Result<(), Wrong> {
    let source = engine("source.url", &config.source.url)?;
    let target = engine("target.url", &config.target.url)?;
    if (source, target) == (Engine::Postgres, Engine::MySql) {
        let why = "there is no migration from Postgres to MySQL or MariaDB";
        return Err(Wrong { fix: Some("a Postgres source goes to postgres://".into()), ..wrong("target.url", why) });
    }
    let given = &config.source;
    let (keys, of) = match source {
        Engine::Postgres => (vec![("source.server_id", given.server_id.is_some())], "MySQL or MariaDB"),
        Engine::MySql => {
            let of_a_slot = [
                ("source.slot", given.slot.is_some()),
                ("source.publication", given.publication.is_some()),
                // Its server keeps its log by age, whoever reads it.
                ("source.max_retained", given.max_retained.is_some()),
            ];
            (of_a_slot.to_vec(), "Postgres")
        }
    };
    match keys.iter().find(|(_, given)| *given) {
        Some((key, _)) => {
            let fix = Some("leave it out".to_owned());
            Err(Wrong { fix, ..wrong(key, format!("only a {of} source has one")) })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(source: &str, target: &str, more: &str) -> Option<String> {
        let text = format!(
            "[migration]\nname = \"shop\"\n[source]\nurl = \"{source}\"\n{more}\n[target]\nurl = \"{target}\"\n"
        );
        Config::parse(&text, "c").err().map(|error| error.to_string())
    }

    #[test]
    fn engines_that_can_be_the_ends_of_a_migration_are_accepted_and_others_are_named() {
        let (pg, my, maria) = ("postgres://a@h/d", "mysql://a:hunter2@h/d", "mariadb://a@h/d");
        for (source, target) in [(pg, pg), (my, pg), (maria, "postgresql://a@h/d"), (my, maria), (maria, my)] {
            assert_eq!(refused(source, target, ""), None);
        }
        for (source, target, says) in [
            (pg, my, "no migration from Postgres to MySQL"),
            ("oracle://a@h/d", pg, "oracle:// is not supported, only postgres://, mysql:// and mariadb://"),
            ("h/d", pg, "it does not begin with"),
        ] {
            let said = refused(source, target, "").unwrap_or_default();
            assert!(said.contains(says) && !said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn what_only_another_engine_has_is_refused_by_name() {
        let (pg, my) = ("postgres://a@h/d", "mysql://a@h/d");
        for (source, more, says) in [
            (my, "slot = \"s\"", "only a Postgres source has one"),
            (my, "publication = \"p\"", "only a Postgres source has one"),
            (my, "max_retained = \"1GB\"", "only a Postgres source has one"),
            (pg, "server_id = 7", "only a MySQL or MariaDB source has one"),
            (my, "server_id = 0", "from 1 to 4294967286"),
        ] {
            let said = refused(source, pg, more).unwrap_or_default();
            assert!(said.contains(says), "{said}");
        }
        assert_eq!(refused(my, pg, "server_id = 7"), None);
    }
}
