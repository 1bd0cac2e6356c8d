//! `postgres://` URLs with libpq's parameters.
//!
//! In: a URL, `PGPASSWORD`, `~/.pgpass`. Out: [`ConnInfo`]. What can go wrong: a parameter we do not know, which is
//! refused by name, because a setting that is silently ignored (`sslmode` with a typing mistake) is a security hole.
//! <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS>

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::pgpass;
use crate::config::Url;
use crate::endpoint::{self, Pieces, decode};
use crate::error::{Error, Kind, Result};

/// Where and as whom to connect.
#[derive(Debug, Clone)]
pub struct ConnInfo {
    /// Servers to try, in order.
    pub hosts: Vec<Host>,
    /// Role.
    pub user: String,
    /// Its password: from the URL, `PGPASSWORD` or the password file, in this order.
    pub password: Option<SecretString>,
    /// Database.
    pub database: String,
    /// What was said about TLS.
    pub tls: TlsOptions,
    /// `application_name` of the URL, which is put behind our own.
    pub application_name: Option<String>,
    /// How long one attempt at one address may take.
    pub connect_timeout: Duration,
    /// `options`: command-line options for the server (`-c name=value`).
    pub options: Option<String>,
    /// `target_session_attrs`: which of the hosts will do.
    pub wanted: Wanted,
    /// `channel_binding`: whether the password's proof must be bound to the TLS connection.
    pub channel_binding: ChannelBinding,
}

/// One address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// Name or address, and port.
    Tcp(String, u16),
    /// Folder of a Unix socket, and port.
    Unix(PathBuf, u16),
}

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// Without TLS, and with it if the server insists.
    Allow,
    /// With TLS if the server has it.
    Prefer,
    /// With TLS, whoever the server is.
    Require,
    /// … whose certificate a trusted authority signed.
    VerifyCa,
    /// … for the very host we asked for.
    VerifyFull,
}

/// What was said about TLS.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// `sslmode`; `None`: [`ConnInfo::ssl_mode`] decides by the address.
    pub mode: Option<SslMode>,
    /// `sslrootcert`: a PEM file of authorities, instead of the system's.
    pub root_cert: Option<PathBuf>,
    /// `sslcert`: our own certificate (PEM).
    pub cert: Option<PathBuf>,
    /// `sslkey`: its key (PEM).
    pub key: Option<PathBuf>,
}

/// libpq's `target_session_attrs`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wanted {
    /// The first that answers.
    #[default]
    Any,
    /// The first that takes writes.
    ReadWrite,
    /// The first that takes none.
    ReadOnly,
    /// The first that is no standby.
    Primary,
    /// The first that is a standby.
    Standby,
    /// The first standby, and without one the first that answers.
    PreferStandby,
}

/// libpq's `channel_binding`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where the server offers it.
    #[default]
    Prefer,
    /// Or no connection: it takes SCRAM-SHA-256-PLUS over TLS.
    Require,
}

const DEFAULT_PORT: u16 = 5432;
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// What to write instead, where nothing more precise is known.
const SHAPE: &str = "write postgres://user@host:5432/database, with ?name=value for options";

impl SslMode {
    fn parse(text: &str) -> Result<SslMode> {
        Ok(match text {
            "disable" => SslMode::Disable,
            "allow" => SslMode::Allow,
            "prefer" => SslMode::Prefer,
            "require" => SslMode::Require,
            "verify-ca" => SslMode::VerifyCa,
            "verify-full" => SslMode::VerifyFull,
            other => {
                return Err(Error::new(Kind::Config, format!("sslmode {other:?} does not exist"))
                    .fix("sslmode is disable, allow, prefer, require, verify-ca or verify-full"));
            }
        })
    }
}

impl Wanted {
    fn parse(text: &str) -> Result<Wanted> {
        Ok(match text {
            "any" => Wanted::Any,
            "read-write" => Wanted::ReadWrite,
            "read-only" => Wanted::ReadOnly,
            "primary" => Wanted::Primary,
            "standby" => Wanted::Standby,
            "prefer-standby" => Wanted::PreferStandby,
            other => {
                return Err(Error::new(Kind::Config, format!("target_session_attrs {other:?} does not exist"))
                    .fix("target_session_attrs is any, read-write, read-only, primary, standby or prefer-standby"));
            }
        })
    }
}

impl ChannelBinding {
    fn parse(text: &str) -> Result<ChannelBinding> {
        Ok(match text {
            "disable" => ChannelBinding::Disable,
            "prefer" => ChannelBinding::Prefer,
            "require" => ChannelBinding::Require,
            other => {
                return Err(Error::new(Kind::Config, format!("channel_binding {other:?} does not exist"))
                    .fix("channel_binding is disable, prefer or require"));
            }
        })
    }
}

impl Host {
    fn new(name: &str, port: u16) -> Host {
        // libpq: what starts with a slash is the folder of a Unix socket.
        if name.starts_with('/') { Host::Unix(name.into(), port) } else { Host::Tcp(name.to_owned(), port) }
    }

    /// Whether it is this machine: a Unix socket or a loopback address.
    pub fn is_local(&self) -> bool {
        match self {
            Host::Unix(..) => true,
            Host::Tcp(name, _) => endpoint::is_this_machine(name),
        }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Host::Tcp(name, port) => f.write_str(&endpoint::tcp_address(name, *port)),
            Host::Unix(path, port) => write!(f, "{}:{port}", path.display()),
        }
    }
}

/// `a:1,[::1]:2,c` of the URL's authority.
fn split_hosts(text: &str) -> Result<(Vec<String>, Vec<u16>)> {
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (name, port) = endpoint::address(part)?;
        names.push(name);
        ports.push(endpoint::port(port, DEFAULT_PORT)?);
    }
    Ok((names, ports))
}

impl ConnInfo {
    /// Reads a URL; a password that it lacks is looked up in `PGPASSWORD` and the password file.
    pub fn parse(url: &Url) -> Result<ConnInfo> {
        let mut info = Self::parse_alone(url.expose())?;
        if info.password.is_none() {
            info.password = pgpass::lookup(&info)?;
        }
        Ok(info)
    }

    fn parse_alone(url: &str) -> Result<ConnInfo> {
        Self::read(url).map_err(|error| error.fix(SHAPE))
    }

    fn read(url: &str) -> Result<ConnInfo> {
        let url = url.trim();
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))
            .ok_or_else(|| Error::new(Kind::Config, "the URL does not start with postgres://"))?;
        let pieces = Pieces::of(rest);
        let non_empty = |text: String| Some(text).filter(|text| !text.is_empty());
        let (mut names, mut ports) = split_hosts(pieces.hosts)?;
        let mut user = pieces.user.map(decode).transpose()?.and_then(non_empty);
        let mut password = pieces.password.map(decode).transpose()?;
        let mut database = non_empty(decode(pieces.database)?);
        let mut tls = TlsOptions::default();
        let (mut wanted, mut channel_binding) = (Wanted::default(), ChannelBinding::default());
        let (mut application_name, mut options, mut connect_timeout) = (None, None, DEFAULT_CONNECT_TIMEOUT);

        for pair in endpoint::parameters(pieces.query) {
            let (name, value) = pair?;
            match name.as_str() {
                "host" | "hostaddr" => names = value.split(',').map(str::to_owned).collect(),
                "port" => {
                    ports = value.split(',').map(|port| endpoint::port(port, DEFAULT_PORT)).collect::<Result<_>>()?;
                }
                "user" => user = Some(value),
                "password" => password = Some(value),
                "dbname" => database = Some(value),
                "sslmode" => tls.mode = Some(SslMode::parse(&value)?),
                // libpq's word for "the system's authorities", which is what we do anyway.
                "sslrootcert" if value == "system" => tls.mode = tls.mode.or(Some(SslMode::VerifyFull)),
                "sslrootcert" => tls.root_cert = Some(value.into()),
                "sslcert" => tls.cert = Some(value.into()),
                "sslkey" => tls.key = Some(value.into()),
                "application_name" | "fallback_application_name" => application_name = Some(value),
                "options" => options = Some(value),
                "connect_timeout" => {
                    let seconds: u64 = value
                        .parse()
                        .map_err(|_| Error::new(Kind::Config, format!("connect_timeout {value:?} is not a number")))?;
                    // libpq: 0 waits for ever. A day is as good, and ends.
                    connect_timeout = Duration::from_secs(if seconds == 0 { 86_400 } else { seconds });
                }
                "target_session_attrs" => wanted = Wanted::parse(&value)?,
                "channel_binding" => channel_binding = ChannelBinding::parse(&value)?,
                // What Cutwater sets itself, or does always.
                "client_encoding" if value.eq_ignore_ascii_case("utf8") || value == "auto" => {}
                _ => {
                    return Err(Error::new(Kind::Config, format!("the URL's parameter {name:?} is not known")).fix(
                        "known are host, port, user, password, dbname, sslmode, sslrootcert, sslcert, sslkey, \
                         application_name, connect_timeout, options, target_session_attrs and channel_binding",
                    ));
                }
            }
        }
        if names.is_empty() {
            names.push("localhost".into());
        }
        let hosts = names
            .iter()
            .enumerate()
            .map(|(index, name)| {
                // One port stands for all hosts, as in libpq.
                let port = ports.get(index).or(ports.first().filter(|_| ports.len() == 1)).copied();
                Host::new(if name.is_empty() { "localhost" } else { name }, port.unwrap_or(DEFAULT_PORT))
            })
            .collect();
        let user = user
            .or_else(|| std::env::var("PGUSER").ok())
            .or_else(|| std::env::var("USER").ok())
            .ok_or_else(|| Error::new(Kind::Config, "the URL names no user"))?;
        Ok(ConnInfo {
            hosts,
            database: database.unwrap_or_else(|| user.clone()),
            user,
            password: password.map(SecretString::from),
            tls,
            application_name,
            connect_timeout,
            options,
            wanted,
            channel_binding,
        })
    }

    /// How to speak TLS with `host`. Where nothing was said: verified for other machines, by choice of the server on
    /// this one.
    pub fn ssl_mode(&self, host: &Host) -> SslMode {
        match (host, self.tls.mode) {
            (Host::Unix(..), _) => SslMode::Disable,
            (_, Some(mode)) => mode,
            (host, None) if host.is_local() => SslMode::Prefer,
            _ => SslMode::VerifyFull,
        }
    }

    /// The `application_name` of a session: ours first, because servers and people look for it.
    pub fn session_name(&self, ours: &str) -> String {
        match &self.application_name {
            Some(theirs) => format!("{ours} {theirs}"),
            None => ours.to_owned(),
        }
    }

    /// `old:5432`, for people.
    pub fn address(&self) -> String {
        self.hosts.iter().map(Host::to_string).collect::<Vec<_>>().join(",")
    }

    /// `postgres old:5432/shop`, for people.
    pub fn label(&self) -> String {
        format!("postgres {}/{}", self.address(), self.database)
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn parse(url: &str) -> ConnInfo {
        ConnInfo::parse_alone(url).expect("a good URL")
    }

    #[test]
    fn every_part_of_a_url_is_read_and_decoded() {
        let info =
            parse("postgresql://us%40er:p%2Fa%3Ass@db.example.com:6432/my%20db?application_name=x&connect_timeout=3");
        assert_eq!(info.hosts, [Host::Tcp("db.example.com".into(), 6432)]);
        assert_eq!((info.user.as_str(), info.database.as_str()), ("us@er", "my db"));
        assert_eq!(info.password.expect("given").expose_secret(), "p/a:ss");
        assert_eq!(info.connect_timeout, Duration::from_secs(3));
        assert_eq!(info.application_name.as_deref(), Some("x"));
    }

    #[test]
    fn several_hosts_each_have_their_port() {
        let info = parse("postgres://u@a:1,[::1]:2,c/d");
        assert_eq!(
            info.hosts,
            [Host::Tcp("a".into(), 1), Host::Tcp("::1".into(), 2), Host::Tcp("c".into(), DEFAULT_PORT)]
        );
        assert_eq!(info.address(), "a:1,[::1]:2,c:5432");
    }

    #[test]
    fn a_host_that_is_a_path_is_a_unix_socket() {
        let info = parse("postgres:///d?host=/run/postgresql&port=5433&user=u");
        assert_eq!(info.hosts, [Host::Unix("/run/postgresql".into(), 5433)]);
        let info = parse("postgres://u@%2Frun%2Fpostgresql/d");
        assert_eq!(info.hosts, [Host::Unix("/run/postgresql".into(), DEFAULT_PORT)]);
    }

    #[test]
    fn a_parameter_nobody_knows_is_refused_by_name() {
        let error = ConnInfo::parse_alone("postgres://u@h/d?sslmod=require").expect_err("a typing mistake");
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.why().contains("sslmod"), "{error}");
        assert!(ConnInfo::parse_alone("postgres://u@h/d?sslmode=yes").is_err());
    }

    #[test]
    fn which_host_will_do_and_how_the_password_is_proved_are_read() {
        let info = parse("postgres://u@a,b/d?target_session_attrs=read-write&channel_binding=require");
        assert_eq!((info.wanted, info.channel_binding), (Wanted::ReadWrite, ChannelBinding::Require));
        let info = parse("postgres://u@a,b/d");
        assert_eq!((info.wanted, info.channel_binding), (Wanted::Any, ChannelBinding::Prefer));
        assert!(ConnInfo::parse_alone("postgres://u@h/d?target_session_attrs=master").is_err());
        assert!(ConnInfo::parse_alone("postgres://u@h/d?channel_binding=yes").is_err());
    }

    #[test]
    fn other_machines_are_verified_unless_the_url_says_otherwise() {
        let mode = |url: &str| {
            let info = parse(url);
            info.ssl_mode(&info.hosts[0])
        };
        assert_eq!(mode("postgres://u@db.example.com/d"), SslMode::VerifyFull);
        assert_eq!(mode("postgres://u@10.0.0.1/d"), SslMode::VerifyFull);
        assert_eq!(mode("postgres://u@127.0.0.1/d"), SslMode::Prefer);
        assert_eq!(mode("postgres://u@[::1]/d"), SslMode::Prefer);
        assert_eq!(mode("postgres://u@db.example.com/d?sslmode=require"), SslMode::Require);
        assert_eq!(mode("postgres:///d?host=/tmp&user=u&sslmode=require"), SslMode::Disable);
    }

    #[test]
    fn nothing_printed_holds_the_password() {
        let info = parse("postgres://u:hunter2@h/d");
        assert!(!format!("{info:?} {}", info.label()).contains("hunter2"));
        let error = ConnInfo::parse_alone("postgres://u:hunter2@h:x/d").expect_err("no port");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
