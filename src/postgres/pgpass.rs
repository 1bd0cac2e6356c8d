//! Passwords from `PGPASSWORD` and the password file.
//!
//! <https://www.postgresql.org/docs/current/libpq-pgpass.html>: lines of `host:port:database:user:password`, `*` matches
//! all, `\` escapes. A file that others can read is ignored with a warning, as libpq does.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::{ConnInfo, Host};
use crate::error::{Context, Result};

/// The password for `info`, if one is kept outside of the URL.
pub(super) fn lookup(info: &ConnInfo) -> Result<Option<SecretString>> {
    if let Ok(password) = std::env::var("PGPASSWORD") {
        return Ok(Some(password.into()));
    }
    let file = std::env::var_os("PGPASSFILE")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".pgpass")));
    let Some(file) = file.filter(|file| file.is_file()) else { return Ok(None) };
    let mode = std::fs::metadata(&file).map_or(0, |meta| meta.permissions().mode());
    if mode & 0o077 != 0 {
        tracing::warn!(file = %file.display(), "password file ignored: others can read it (chmod 0600)");
        return Ok(None);
    }
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    Ok(info.hosts.iter().find_map(|host| search(&text, host, &info.database, &info.user)).map(SecretString::from))
}

fn search(text: &str, host: &Host, database: &str, user: &str) -> Option<String> {
    let (name, port) = match host {
        Host::Tcp(name, port) => (name.clone(), port.to_string()),
        // libpq: sockets in the default folder count as localhost; naming both is more than enough.
        Host::Unix(path, port) => (path.display().to_string(), port.to_string()),
    };
    let local = matches!(host, Host::Unix(..));
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        let [host, for_port, for_database, for_user, password] = <[String; 5]>::try_from(fields).ok()?;
        let fits = |pattern: &str, value: &str| pattern == "*" || pattern == value;
        let host_fits = fits(&host, &name) || (local && host == "localhost");
        (host_fits && fits(&for_port, &port) && fits(&for_database, database) && fits(&for_user, user))
            .then_some(password)
    })
}

fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        let last = fields.len() - 1;
        match c {
            '\\' => fields[last].extend(chars.next()),
            // The password is the last field and may hold colons.
            ':' if fields.len() < 5 => fields.push(String::new()),
            c => fields[last].push(c),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_gives_the_password() {
        let file = "# comment\nother:5432:*:*:no\ndb:5432:shop:app:a\\:b\\\\c\ndb:*:*:*:late\n";
        let host = Host::Tcp("db".into(), 5432);
        assert_eq!(search(file, &host, "shop", "app").as_deref(), Some("a:b\\c"));
        assert_eq!(search(file, &host, "shop", "root").as_deref(), Some("late"));
        assert_eq!(search(file, &Host::Tcp("x".into(), 1), "shop", "app"), None);
    }
}
