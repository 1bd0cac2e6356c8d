//! User and password from `~/.my.cnf`.
//!
//! <https://dev.mysql.com/doc/refman/8.4/en/option-files.html>: sections in brackets, `name=value`, `-` and `_` the same,
//! values in quotes, `\` escapes, `#` and `;` begin a comment. Only `[client]` is read, the later line wins. What it keeps
//! for a host, port or socket that it names is given to no other. A file that others can read is ignored with a warning.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrecy::SecretString;

use super::MyHost;
use crate::error::{Context, Result};

/// What `[client]` says.
#[derive(Default)]
pub(super) struct OptionFile {
    /// `user`
    pub user: Option<String>,
    /// `password`
    pub password: Option<SecretString>,
    host: Option<String>,
    port: Option<String>,
    socket: Option<String>,
}

impl OptionFile {
    /// `~/.my.cnf`, or nothing if there is none.
    pub(super) fn of_this_user() -> Result<OptionFile> {
        let Some(home) = std::env::var_os("HOME") else { return Ok(OptionFile::default()) };
        let file = Path::new(&home).join(".my.cnf");
        let Ok(meta) = std::fs::metadata(&file) else { return Ok(OptionFile::default()) };
        if meta.permissions().mode() & 0o077 != 0 {
            tracing::warn!(file = %file.display(), "option file ignored: others can read it (chmod 0600)");
            return Ok(OptionFile::default());
        }
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        Ok(OptionFile::read(&text))
    }

    /// Reads a file's text.
    pub(super) fn read(text: &str) -> OptionFile {
        let mut options = OptionFile::default();
        let mut ours = false;
        for line in text.lines().map(str::trim) {
            if let Some(section) = line.strip_prefix('[') {
                ours = section.trim_end_matches(|c: char| c != ']').trim_end_matches(']').trim() == "client";
                continue;
            }
            if !ours || line.starts_with(['#', ';', '!']) {
                continue;
            }
            let Some((name, text)) = line.split_once('=') else { continue };
            let value = value(text.trim());
            match name.trim().replace('_', "-").as_str() {
                "user" => options.user = Some(value),
                "password" => options.password = Some(value.into()),
                "host" => options.host = Some(value),
                "port" => options.port = Some(value),
                "socket" => options.socket = Some(value),
                _ => {}
            }
        }
        options
    }

    /// The file, unless what it says is about another server.
    pub(super) fn fits(&self, host: &MyHost) -> Option<&OptionFile> {
        let fits = |said: &Option<String>, is: &str| said.as_deref().is_none_or(|said| said == is);
        let same = match host {
            MyHost::Tcp(name, port) => fits(&self.host, name) && fits(&self.port, &port.to_string()),
            MyHost::Socket(path) => fits(&self.socket, &path.display().to_string()) && fits(&self.host, "localhost"),
        };
        same.then_some(self)
    }
}

/// A value without its quotes, comment and escapes.
fn value(text: &str) -> String {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''));
    let mut out = String::new();
    let mut chars = text.chars().skip(usize::from(quote.is_some()));
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some('b') => out.push('\u{8}'),
                Some('s') => out.push(' '),
                Some('\\') | None => out.push('\\'),
                Some(quote @ ('"' | '\'')) => out.push(quote),
                // Not an escape: both stand for themselves.
                Some(other) => out.extend(['\\', other]),
            },
            c if Some(c) == quote => return out,
            '#' if quote.is_none() => break,
            c => out.push(c),
        }
    }
    if quote.is_none() { out.trim_end().to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn values_are_read_as_mysql_reads_them() {
        for (text, is) in [
            ("plain", "plain"),
            ("with space # comment", "with space"),
            ("\"quoted # no comment\" # one", "quoted # no comment"),
            ("'it''s'", "it"),
            (r"a\\b\sc\x", "a\\b c\\x"),
            (r#""a\"b""#, "a\"b"),
            ("", ""),
        ] {
            assert_eq!(value(text), is, "{text}");
        }
    }

    #[test]
    fn only_the_section_of_all_clients_counts() {
        let file = "password=no\n[mysqld]\nuser=mysql\n[client]\n# comment\nuser=one\nuser = two\npassword=p#x\n\n[mysql]\nuser=no\n";
        let options = OptionFile::read(file);
        assert_eq!(options.user.as_deref(), Some("two"));
        assert_eq!(options.password.expect("given").expose_secret(), "p");
    }

    #[test]
    fn what_is_kept_for_one_server_is_given_to_no_other() {
        let of = |text: &str, host: MyHost| OptionFile::read(&format!("[client]\n{text}")).fits(&host).is_some();
        let tcp = |name: &str, port| MyHost::Tcp(name.into(), port);
        assert!(of("user=a", tcp("h", 1)));
        assert!(of("host=h\nport=1", tcp("h", 1)));
        assert!(!of("host=h", tcp("other", 1)));
        assert!(!of("port=2", tcp("h", 1)));
        assert!(of("socket=/s", MyHost::Socket("/s".into())));
        assert!(!of("socket=/s", MyHost::Socket("/t".into())));
    }
}
