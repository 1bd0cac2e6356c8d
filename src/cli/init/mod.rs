//! `cutwater init`: looks at both ends and writes a commented `cutwater.toml`, without a password in it.

mod look;

use std::fs::OpenOptions;
use std::io::Write;

use serde_json::json;

use self::look::{End, Engine, Seen};
use super::args::{Global, InitArgs};
use super::{Context, Ended, human, output};
use crate::config::Config;
use crate::error::{Error, Kind, Result};

pub(super) async fn run(context: &Context, _args: &InitArgs) -> Result<Ended> {
    let path = context.global.config_path();
    if path.exists() {
        return Err(Error::new(Kind::Config, format!("{} exists already and is not overwritten", path.display()))
            .fix("cutwater check   tests it; or name another file with -c"));
    }
    let config = ends(&context.global)?;
    let (source, target) = (End::of(&config.source.url)?, End::of(&config.target.url)?);
    let (old, new) = tokio::try_join!(source.look(), target.look())?;
    let text = render(&config, &source, &target, &old, &new);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(|error| Error::from(error).context(format!("writing {}", path.display())))?;
    file.write_all(text.as_bytes())?;
    if context.global.json {
        output::print_json(&json!({ "written": path, "tables": old.tables, "bytes": old.bytes }))?;
        return Ok(Ended::Done);
    }
    let exports: String = [(&config.source.url, "SOURCE_PASSWORD"), (&config.target.url, "TARGET_PASSWORD")]
        .iter()
        .filter(|(url, name)| without_password(url.expose(), name).1)
        .map(|(_, name)| format!("  export {name}=…\n"))
        .collect();
    output::print(&format!(
        "{} written: {}, {}, from {} ({}) to {} ({}).\n\nNext:\n{exports}  cutwater check\n  cutwater run",
        path.display(),
        human::plural(old.tables, "table"),
        human::bytes(old.bytes),
        source.label(),
        old.version,
        target.label(),
        new.version,
    ));
    Ok(Ended::Done)
}

/// The ends from arguments and environment; without a name, the source's database names the migration.
fn ends(global: &Global) -> Result<Config> {
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let missing = |option: &str, variable: &str| {
        Error::new(Kind::Config, format!("{option} is missing")).fix(format!(
            "cutwater init --source postgres://me@old/shop --target postgres://me@new/shop; or set {variable}"
        ))
    };
    let source = global.source.clone().or_else(|| env("CUTWATER_SOURCE_URL"));
    let source = source.ok_or_else(|| missing("--source", "CUTWATER_SOURCE_URL"))?;
    let target = global.target.clone().or_else(|| env("CUTWATER_TARGET_URL"));
    let target = target.ok_or_else(|| missing("--target", "CUTWATER_TARGET_URL"))?;
    let name = match &global.name {
        Some(name) => name.clone(),
        None => {
            let end = End::of(&crate::config::Url::new(source.as_str()))?;
            let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
            end.database().chars().map(plain).take(40).collect()
        }
    };
    Config::from_urls(&name, &source, &target)
}

/// The URL with a placeholder where its password stands, and whether there was one.
fn without_password(url: &str, variable: &str) -> (String, bool) {
    let parts = || {
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split(['/', '?']).next()?;
        let (userinfo, _) = authority.rsplit_once('@')?;
        let (user, _) = userinfo.split_once(':')?;
        Some((format!("{scheme}://{user}:${{{variable}}}{}", &rest[userinfo.len()..]), true))
    };
    let (url, found) = parts().unwrap_or_else(|| (url.to_owned(), false));
    let Some((place, params)) = url.split_once('?') else { return (url, found) };
    let hidden = format!("password=${{{variable}}}");
    let swap = |param: &str| if param.starts_with("password=") { hidden.clone() } else { param.to_owned() };
    let params: Vec<String> = params.split('&').map(swap).collect();
    let found = found || params.contains(&hidden);
    (format!("{place}?{}", params.join("&")), found)
}

/// What there is to choose between two engines.
const BETWEEN: &str = r#"# [schema]               # docs/types.md says what each type becomes
# namespace = "public"  # the schema for the tables of the source's database
# names = "lower"       # or "keep": upper case stays, and has to be quoted

# [[schema.type]]
# match = "{schema}.users.flags"
# type = "smallint"

# [values]              # what the target's type cannot hold; by default it stops the run and names the row
# zero_date = "null"
# out_of_range = "clamp"

"#;

fn render(config: &Config, source: &End, target: &End, old: &Seen, new: &Seen) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let (from, _) = without_password(config.source.url.expose(), "SOURCE_PASSWORD");
    let (to, _) = without_password(config.target.url.expose(), "TARGET_PASSWORD");
    let warning = old.not_followed.as_ref().map(|what| format!("# {what}: cutwater check says how.\n"));
    // What tables are called in the examples, and what the source keeps of its log.
    let (schema, every, kept) = match source.engine() {
        Engine::Postgres => (
            "public",
            "every user table",
            "# max_retained = \"120GB\"                      # warn when the source keeps more log than this for us\n",
        ),
        Engine::MySql => {
            (if source.database().is_empty() { "shop" } else { source.database() }, "every table of the database", "")
        }
    };
    let schema = if schema.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') { schema } else { "shop" };
    let between = if source.engine() == target.engine() { "" } else { BETWEEN };
    let between = between.replace("{schema}", schema);
    format!(
        r#"# A migration by cutwater. Next: cutwater check
# ${{NAME}} is read from the environment, ${{file:/path}} from a file: no secret needs to stand here.

[migration]
name = {name}      # what it creates anywhere is called cutwater_{bare}

[source]                # {source} ({old_version}), {tables} tables, {size}
{warning}url = {from}
# tables = ["{schema}.*", "!{schema}.audit_*"]    # default: {every}
{kept}
[target]                # {target} ({new_version})
url = {to}
# existing = "stop"     # rows already in a target table: "stop" or "truncate"

# [snapshot]
# workers = 4           # connections that copy, and build indexes, at the same time
# max_rows_per_second = 500000

{between}# [[transform]]
# match = "{schema}.users"
# rename = {{ schema = "app", table = "people", columns = {{ mail = "email" }} }}
# columns = ["*", "!password_hint"]

# [cutover]
# switch_command = "./move-the-clients.sh"    # run after the point of no return; must be idempotent

# [telemetry]
# listen = "127.0.0.1:9464"                   # /metrics, /status and /healthz of a run
"#,
        name = quoted(&config.migration.name),
        bare = config.migration.name,
        source = source.label(),
        target = target.label(),
        old_version = old.version,
        new_version = new.version,
        warning = warning.unwrap_or_default(),
        tables = old.tables,
        size = human::bytes(old.bytes),
        from = quoted(&from),
        to = quoted(&to),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_becomes_a_placeholder_wherever_it_stands() {
        let hidden = |url: &str| without_password(url, "P");
        assert_eq!(hidden("postgres://me:s3@cr@old:5432/shop"), ("postgres://me:${P}@old:5432/shop".into(), true));
        assert_eq!(
            hidden("postgres://me@old/shop?sslmode=require"),
            ("postgres://me@old/shop?sslmode=require".into(), false)
        );
        assert_eq!(
            hidden("postgres:///shop?user=me&password=x"),
            ("postgres:///shop?user=me&password=${P}".into(), true)
        );
    }

    #[test]
    fn what_is_written_can_be_read_again_and_holds_no_password() {
        let config =
            Config::from_urls("shop", "postgres://a:hunter2@old/shop", "postgres://b@new/shop").expect("valid");
        let seen = |not_followed: Option<&str>| Seen {
            version: "15.8".into(),
            not_followed: not_followed.map(str::to_owned),
            tables: 3,
            bytes: 1 << 30,
        };
        for (from, mysql) in [("postgres://a:hunter2@old/shop", false), ("mysql://a:hunter2@old/shop", true)] {
            let mut config = config.clone();
            config.source.url = crate::config::Url::new(from);
            let (from, to) = (End::of(&config.source.url).expect("valid"), End::of(&config.target.url).expect("valid"));
            let text = render(&config, &from, &to, &seen(Some("the log is off")), &seen(None));
            assert!(!text.contains("hunter2") && text.contains("# the log is off: cutwater check says how."), "{text}");
            assert_eq!(text.contains("zero_date"), mysql);
            assert_eq!(text.contains("shop.users"), mysql);
            let text = text.replace("${SOURCE_PASSWORD}", "x").replace("${NAME}", "").replace("${file:/path}", "");
            // Every line that is commented out is one that could be there.
            toml::from_str::<Config>(&text).expect("valid");
            let words = ["# A migration", "check says how", "is read from"];
            let lines = text.lines().filter(|line| !words.iter().any(|words| line.contains(words)));
            let uncommented: Vec<&str> = lines.map(|line| line.strip_prefix("# ").unwrap_or(line)).collect();
            toml::from_str::<Config>(&uncommented.join("\n")).expect("valid");
        }
    }
}
