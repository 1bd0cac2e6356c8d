//! What may not change in mid-migration.
//!
//! | may change | needs the table copied again | refused |
//! |---|---|---|
//! | workers, throttle, batch sizes, `[cutover]`, `[telemetry]`, user, password, TLS | `[source] tables` | the ends, the name, `[[transform]]` |
//!
//! The fingerprint covers the last column; it is stored when a migration begins and compared whenever it goes on.

use sha2::{Digest, Sha256};

use super::{Config, Url};

impl Config {
    /// A hash over the name, the ends without users and secrets, and the rules. Hexadecimal, 32 digits.
    pub fn fingerprint(&self) -> String {
        let mut hash = Fields(Sha256::new());
        hash.field(&self.migration.name);
        hash.field(&end(&self.source.url));
        hash.field(&end(&self.target.url));
        for rule in &self.transform {
            hash.field("rule");
            hash.field(&rule.pattern);
            hash.field(rule.rename.schema.as_deref().unwrap_or_default());
            hash.field(rule.rename.table.as_deref().unwrap_or_default());
            for (from, to) in &rule.rename.columns {
                hash.field("rename");
                hash.field(from);
                hash.field(to);
            }
            for column in &rule.columns {
                hash.field("column");
                hash.field(column);
            }
        }
        hash.0.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

struct Fields(Sha256);

impl Fields {
    /// With its length first, so that two lists of fields never run into the same bytes.
    fn field(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text);
    }
}

/// Hosts, ports and database of a URL, also where they are given as parameters (a Unix socket's folder).
fn end(url: &Url) -> String {
    let url = url.expose();
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (path, params) = rest.split_once('?').unwrap_or((rest, ""));
    let place = path.rsplit_once('@').map_or(path, |(_, place)| place);
    let mut kept: Vec<&str> = params
        .split('&')
        .filter(|param| ["host=", "hostaddr=", "port=", "dbname="].iter().any(|key| param.starts_with(key)))
        .collect();
    kept.sort_unstable();
    format!("{place}?{}", kept.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(source: &str, rest: &str) -> String {
        let text = format!(
            "[migration]\nname = \"shop\"\n[source]\nurl = \"{source}\"\ntables = [\"public.*\"]\n\
             [target]\nurl = \"postgres://b@new/shop\"\n{rest}"
        );
        Config::parse(&text, "c").expect("valid").fingerprint()
    }

    #[test]
    fn secrets_users_and_workers_may_change() {
        let first = of("postgres://a:one@old:5432/shop", "");
        assert_eq!(first, of("postgres://c:two@old:5432/shop?sslmode=require", "[snapshot]\nworkers = 9\n"));
    }

    #[test]
    fn another_end_or_rule_is_another_migration() {
        let first = of("postgres://a@old/shop", "");
        assert_ne!(first, of("postgres://a@other/shop", ""));
        assert_ne!(first, of("postgres://a@/shop?host=/tmp", ""));
        assert_ne!(
            first,
            of("postgres://a@old/shop", "[[transform]]\nmatch = \"public.users\"\ncolumns = [\"!mail\"]\n")
        );
    }
}
