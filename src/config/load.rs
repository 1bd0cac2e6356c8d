//! From a file, or from three arguments, to a checked [`Config`].
//!
//! `${ENV}` and `${file:/path}` are put into string *values* after the file was parsed, so that a password with a quote
//! or a `#` in it cannot change what the file means. Every mistake is shown at its place; a password written into the
//! file itself is masked there.

use std::path::Path;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource};
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Config, keys, validate};
use crate::error::{Error, Kind, Result};

/// A mistake in the file: where, what, and perhaps what was meant.
pub(super) struct Mistake {
    /// Byte range in the file.
    pub span: std::ops::Range<usize>,
    pub why: String,
    pub fix: Option<String>,
}

impl Config {
    /// Reads, completes and checks a config file.
    pub fn load(path: &Path) -> Result<Config> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::new(Kind::Config, format!("{}: {error}", path.display()))
                .fix("cutwater init writes one; -c FILE names another; or give --name, --source and --target")
        })?;
        Config::parse(&text, &path.display().to_string())
    }

    /// Reads a config file's text; `name` is what mistakes are shown in.
    pub fn parse(text: &str, name: &str) -> Result<Config> {
        parse(text).map_err(|mistake| shown(&mistake, text, name))
    }

    /// A config without a file: everything but the ends is left at its default.
    pub fn from_urls(name: &str, source: &str, target: &str) -> Result<Config> {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let text = format!(
            "[migration]\nname = {}\n[source]\nurl = {}\n[target]\nurl = {}\n",
            quoted(name),
            quoted(source),
            quoted(target)
        );
        // There is no file to point into: the reason alone is shown.
        parse(&text).map_err(|mistake| {
            let error = Error::new(Kind::Config, mistake.why);
            match mistake.fix {
                Some(fix) => error.fix(fix),
                None => error,
            }
        })
    }
}

fn parse(text: &str) -> Result<Config, Mistake> {
    let mut root = DeTable::parse(text).map_err(|error| from_toml(&error, text))?;
    for (key, value) in root.get_mut().iter_mut() {
        substitute(value, key.get_ref())?;
    }
    let config =
        Config::deserialize(toml::Deserializer::from(root.clone())).map_err(|error| from_toml(&error, text))?;
    validate::check(&config).map_err(|wrong| Mistake {
        span: locate(&root, &wrong.path),
        why: format!("{}: {}", wrong.path.join("."), wrong.why),
        fix: wrong.fix,
    })?;
    Ok(config)
}

fn from_toml(error: &toml::de::Error, text: &str) -> Mistake {
    let span = error.span().unwrap_or(0..0);
    let message = error.message().to_owned();
    let written = text.get(span.clone()).unwrap_or_default().trim_matches('"');
    let unknown_key = message.starts_with("unknown field");
    let near = || keys::nearest(written, keys::listed(&message)).map(|meant| format!("did you mean {meant:?}?"));
    let fix = match () {
        () if unknown_key => near().or_else(|| keys::elsewhere(written)),
        () if message.starts_with("unknown variant") => near(),
        () => None,
    };
    let why = match message.strip_prefix("unknown field") {
        Some(rest) => format!("unknown key{rest}"),
        None => message
            .replace("missing field", "missing key")
            .replace("unknown variant", "unknown word")
            .replace("expected usize", "expected a whole number")
            .replace("expected u64", "expected a whole number")
            .replace("expected struct", "expected the table"),
    };
    Mistake { span, why, fix }
}

/// Puts variables and files into every string below `value`; `key` names it for people.
fn substitute(value: &mut Spanned<DeValue<'_>>, key: &str) -> Result<(), Mistake> {
    let span = value.span();
    match value.get_mut() {
        DeValue::String(text) if text.contains("${") => {
            let resolved = resolve(text, &mut |name| std::env::var(name).ok()).map_err(|(why, fix)| Mistake {
                span,
                why: format!("{key}: {why}"),
                fix: Some(fix),
            })?;
            *text = resolved.into();
        }
        DeValue::Array(items) => {
            for item in items.iter_mut() {
                substitute(item, key)?;
            }
        }
        DeValue::Table(table) => {
            for (inner, item) in table.iter_mut() {
                substitute(item, &format!("{key}.{}", inner.get_ref()))?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// One string with its `${…}` replaced; on failure the reason and what to do. What was read is never looked into again.
fn resolve(text: &str, env: &mut dyn FnMut(&str) -> Option<String>) -> Result<String, (String, String)> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let inside = &rest[start + 2..];
        let end = inside
            .find('}')
            .ok_or_else(|| ("${ is not closed".to_owned(), "write ${NAME} or ${file:/path}".to_owned()))?;
        let name = &inside[..end];
        match name.strip_prefix("file:") {
            Some(path) => {
                let read = std::fs::read_to_string(path).map_err(|error| {
                    (format!("${{file:{path}}} cannot be read: {error}"), format!("make {path} readable for this user"))
                })?;
                out.push_str(read.trim_end_matches(['\n', '\r']));
            }
            None => {
                out.push_str(&env(name).ok_or_else(|| {
                    (format!("the environment variable {name} is not set"), format!("export {name}=…"))
                })?);
            }
        }
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Where the value at `path` stands, or the deepest part of it that exists. Numbers index into arrays.
fn locate(root: &Spanned<DeTable<'_>>, path: &[String]) -> std::ops::Range<usize> {
    let mut table = Some(root.get_ref());
    let mut here: Option<&Spanned<DeValue<'_>>> = None;
    for step in path {
        let next = match (table, here.map(Spanned::get_ref)) {
            (Some(table), _) => table.get(step.as_str()),
            (None, Some(DeValue::Array(items))) => step.parse().ok().and_then(|index: usize| items.get(index)),
            _ => None,
        };
        let Some(next) = next else { break };
        table = next.get_ref().as_table();
        here = Some(next);
    }
    here.map_or(0..0, Spanned::span)
}

fn shown(mistake: &Mistake, text: &str, name: &str) -> Error {
    let masked = mask_passwords(text);
    let span = mistake.span.start.min(masked.len())..mistake.span.end.min(masked.len());
    let line = 1 + masked[..span.start].matches('\n').count();
    let mut diagnostic = MietteDiagnostic::new(mistake.why.clone());
    diagnostic = diagnostic.with_label(LabeledSpan::at(span, "here"));
    let report = miette::Report::new(diagnostic).with_source_code(NamedSource::new(name, masked));
    let mut picture = String::new();
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(100);
    let why = match handler.render_report(&mut picture, report.as_ref()) {
        // The first lines repeat the message; the picture begins at the file's name.
        Ok(()) => match picture.find("╭─") {
            Some(at) => {
                let from = picture[..at].rfind('\n').map_or(0, |newline| newline + 1);
                format!("{name}:{line}: {}\n{}", mistake.why, picture[from..].trim_end())
            }
            None => format!("{name}:{line}: {}", mistake.why),
        },
        Err(_) => format!("{name}:{line}: {}", mistake.why),
    };
    let error = Error::new(Kind::Config, why);
    match &mistake.fix {
        Some(fix) => error.fix(fix.clone()),
        None => error,
    }
}

/// The text with every `user:password@` of a URL masked, byte for byte, so that places stay where they are.
fn mask_passwords(text: &str) -> String {
    let mut out = text.as_bytes().to_vec();
    let mut from = 0;
    while let Some(at) = text[from..].find("://").map(|at| from + at + 3) {
        let line_end = text[at..].find(['\n', '"', '\'']).map_or(text.len(), |end| at + end);
        if let Some(host) = text[at..line_end].rfind('@').map(|host| at + host)
            && let Some(password) = text[at..host].find(':').map(|colon| at + colon + 1)
            && !text[password..host].starts_with("${")
        {
            out[password..host].fill(b'*');
        }
        from = at;
    }
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: &str = "[source]\nurl = \"postgres://a@old/shop\"\n[target]\nurl = \"postgres://a@new/shop\"\n";

    fn load(head: &str, tail: &str) -> Result<Config> {
        Config::parse(&format!("{head}{ENDS}{tail}"), "cutwater.toml")
    }

    fn refusal(head: &str, tail: &str) -> String {
        let error = load(head, tail).expect_err("it is wrong");
        assert_eq!(error.kind(), Kind::Config);
        error.to_string()
    }

    const NAMED: &str = "[migration]\nname = \"shop\"\n";

    #[test]
    fn the_smallest_file_has_all_defaults() {
        let config = load(NAMED, "").expect("valid");
        assert_eq!(config.snapshot.workers, 4);
    }

    #[test]
    fn an_unknown_key_is_shown_at_its_line_with_what_was_meant() {
        let text = refusal(NAMED, "[snapshot]\nworker = 3\n");
        assert!(text.starts_with("cutwater.toml:8: unknown key `worker`"), "{text}");
        assert!(text.contains("8 │ worker = 3"), "{text}");
        assert!(text.ends_with("  fix: did you mean \"workers\"?"), "{text}");
    }

    #[test]
    fn a_wrong_type_is_shown_at_its_line() {
        let text = refusal(NAMED, "[snapshot]\nworkers = \"four\"\n");
        let says = "cutwater.toml:8: invalid type: string \"four\", expected a whole number";
        assert!(text.starts_with(says), "{text}");
    }

    #[test]
    fn a_key_in_the_wrong_section_is_sent_to_the_right_one() {
        let text = refusal(NAMED, "[snapshot]\nbatch_rows = 3\n");
        assert!(text.ends_with("  fix: it belongs to [apply]: batch_rows"), "{text}");
    }

    #[test]
    fn a_misspelt_word_is_shown_with_what_was_meant() {
        let text = refusal(NAMED, "[apply]\non_error = \"dead-leter\"\n");
        assert!(text.starts_with("cutwater.toml:8: unknown word"), "{text}");
        assert!(text.ends_with("  fix: did you mean \"dead-letter\"?"), "{text}");
    }

    #[test]
    fn a_bad_name_is_shown_at_its_line() {
        let text = refusal("[migration]\nname = \"My Shop\"\n", "");
        assert!(text.starts_with("cutwater.toml:2: migration.name: \"My Shop\" may hold only"), "{text}");
    }

    #[test]
    fn no_workers_and_bad_patterns_are_refused() {
        assert!(refusal(NAMED, "[snapshot]\nworkers = 0\n").contains("snapshot.workers: at least 1"));
        let text = refusal(NAMED, "[[transform]]\nmatch = \"users\"\n");
        assert!(text.starts_with("cutwater.toml:8: transform.0.match: "), "{text}");
    }

    #[test]
    fn an_unset_variable_names_key_and_line() {
        let text =
            Config::parse(&format!("{NAMED}[source]\nurl = \"postgres://a:${{CUTWATER_NO_SUCH}}@old/shop\"\n"), "c")
                .expect_err("not set")
                .to_string();
        assert!(text.starts_with("c:4: source.url: the environment variable CUTWATER_NO_SUCH is not set"), "{text}");
        assert!(text.contains("fix: export CUTWATER_NO_SUCH="), "{text}");
    }

    #[test]
    fn a_variable_cannot_change_what_the_file_means() {
        let resolved = resolve("a:${P}@b", &mut |_| Some("\"\n${P}#".into())).expect("set");
        assert_eq!(resolved, "a:\"\n${P}#@b");
    }

    #[test]
    fn a_file_gives_its_content_without_the_last_newline() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "s3cret\n").expect("written");
        let text = format!("x${{file:{}}}y", file.path().display());
        assert_eq!(resolve(&text, &mut |_| None).expect("readable"), "xs3crety");
    }

    #[test]
    fn a_password_in_the_file_is_never_shown() {
        let text = "[source]\nurl = \"postgres://me:hunter2@old/shop\"\nfoo = 1\n";
        let error = Config::parse(text, "c").expect_err("wrong").to_string();
        assert!(error.contains("postgres://me:*******@old/shop"), "{error}");
        assert!(!error.contains("hunter2"));
    }

    #[test]
    fn without_a_file_the_ends_come_from_arguments() {
        let config = Config::from_urls("shop", "postgres://a:\"x@old/shop", "postgres://b@new/shop").expect("valid");
        assert_eq!(config.source.url.expose(), "postgres://a:\"x@old/shop");
        let error = Config::from_urls("Shop", "postgres://a@b/c", "postgres://a@b/c").expect_err("bad name");
        assert!(error.message().starts_with("migration.name: "), "{error}");
    }
}
