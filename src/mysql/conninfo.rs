//! `mysql://` and `mariadb://` URLs with the parameters of MySQL's own clients.
//!
//! In: a URL, `~/.my.cnf`, `MYSQL_PWD`. Out: [`MyConnInfo`]. What can go wrong: a parameter we do not know, which is
//! refused by name, because a setting that is silently ignored (`ssl-mode` with a typing mistake) is a security hole.
//! <https://dev.mysql.com/doc/refman/8.4/en/connecting-using-uri-or-key-value-pairs.html>

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::option_file::OptionFile;
use crate::config::Url;
use crate::endpoint::{self, Pieces, decode};
use crate::error::{Error, Kind, Result};

/// Where and as whom to connect.
#[derive(Debug, Clone)]
pub struct MyConnInfo {
    /// The server.
    pub host: MyHost,
    /// Account.
    pub user: String,
    /// Its password: from the URL, `[client]` of `~/.my.cnf` or `MYSQL_PWD`, in this order.
    pub password: Option<SecretString>,
    /// The database that statements without a database's name are about; a server has several.
    pub database: Option<String>,
    /// What was said about TLS.
    pub tls: MyTls,
    /// How long one attempt at one address may take, up to the end of the authentication.
    pub connect_timeout: Duration,
    /// `mysql` or `mariadb`, as the URL says; what the server is, it says itself.
    scheme: &'static str,
}

/// The server's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MyHost {
    /// Name or address, and port.
    Tcp(String, u16),
    /// The file of a Unix socket.
    Socket(PathBuf),
}

/// `ssl-mode` of MySQL's clients.
/// <https://dev.mysql.com/doc/refman/8.4/en/connection-options.html#option_general_ssl-mode>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MySslMode {
    /// No TLS.
    Disabled,
    /// With TLS if the server has it.
    Preferred,
    /// With TLS, whoever the server is.
    Required,
    /// … whose certificate a trusted authority signed.
    VerifyCa,
    /// … for the very host we asked for.
    VerifyIdentity,
}

/// What was said about TLS.
#[derive(Debug, Clone, Default)]
pub struct MyTls {
    /// `ssl-mode`; `None`: [`MyConnInfo::ssl_mode`] decides by the address.
    pub mode: Option<MySslMode>,
    /// `ssl-ca`: a PEM file of authorities, instead of the system's.
    pub ca: Option<PathBuf>,
    /// `ssl-cert`: our own certificate (PEM).
    pub cert: Option<PathBuf>,
    /// `ssl-key`: its key (PEM).
    pub key: Option<PathBuf>,
}

const DEFAULT_PORT: u16 = 3306;
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// What to write instead, where nothing more precise is known.
const SHAPE: &str = "write mysql://user@host:3306/database, with ?name=value for options";

fn config(why: impl Into<String>) -> Error {
    Error::new(Kind::Config, why)
}

impl MySslMode {
    fn parse(text: &str) -> Result<MySslMode> {
        Ok(match text.to_ascii_uppercase().replace('-', "_").as_str() {
            "DISABLED" => MySslMode::Disabled,
            "PREFERRED" => MySslMode::Preferred,
            "REQUIRED" => MySslMode::Required,
            "VERIFY_CA" => MySslMode::VerifyCa,
            "VERIFY_IDENTITY" => MySslMode::VerifyIdentity,
            _ => {
                return Err(config(format!("ssl-mode {text:?} does not exist"))
                    .fix("ssl-mode is DISABLED, PREFERRED, REQUIRED, VERIFY_CA or VERIFY_IDENTITY"));
            }
        })
    }
}

impl MyHost {
    /// Whether it is this machine: a Unix socket or a loopback address.
    pub fn is_local(&self) -> bool {
        match self {
            MyHost::Socket(_) => true,
            MyHost::Tcp(name, _) => endpoint::is_this_machine(name),
        }
    }
}

impl std::fmt::Display for MyHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MyHost::Tcp(name, port) => f.write_str(&endpoint::tcp_address(name, *port)),
            MyHost::Socket(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What a URL says, before the option file is asked for what it leaves out.
struct Said {
    name: String,
    port: u16,
    socket: Option<PathBuf>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    tls: MyTls,
    connect_timeout: Duration,
    scheme: &'static str,
}

fn read(url: &str) -> Result<Said> {
    let url = url.trim();
    let schemes = [("mysql", "mysql://"), ("mariadb", "mariadb://")];
    let (scheme, rest) = schemes
        .into_iter()
        .find_map(|(scheme, prefix)| Some((scheme, url.strip_prefix(prefix)?)))
        .ok_or_else(|| config("the URL does not start with mysql://"))?;
    let pieces = Pieces::of(rest);
    if pieces.hosts.contains(',') {
        return Err(config("the URL names several hosts").fix(
            "name one: another server has another binary log, and which of them is asked is no matter of chance",
        ));
    }
    let non_empty = |text: String| Some(text).filter(|text| !text.is_empty());
    let (name, port) = endpoint::address(pieces.hosts)?;
    let mut said = Said {
        name,
        port: endpoint::port(port, DEFAULT_PORT)?,
        socket: None,
        user: pieces.user.map(decode).transpose()?.and_then(non_empty),
        password: pieces.password.map(decode).transpose()?,
        database: non_empty(decode(pieces.database)?),
        tls: MyTls::default(),
        connect_timeout: DEFAULT_CONNECT_TIMEOUT,
        scheme,
    };
    for pair in endpoint::parameters(pieces.query) {
        let (name, value) = pair?;
        said.parameter(&name, value)?;
    }
    // As in postgres:// URLs: a host that starts with a slash is a Unix socket.
    if said.name.starts_with('/') {
        said.socket.get_or_insert(said.name.clone().into());
    }
    Ok(said)
}

impl Said {
    fn parameter(&mut self, name: &str, value: String) -> Result<()> {
        match name.to_ascii_lowercase().replace('_', "-").as_str() {
            "host" => self.name = value,
            "port" => self.port = endpoint::port(&value, DEFAULT_PORT)?,
            "socket" => self.socket = Some(value.into()),
            "user" => self.user = Some(value),
            "password" => self.password = Some(value),
            "database" => self.database = Some(value),
            "ssl-mode" => self.tls.mode = Some(MySslMode::parse(&value)?),
            "ssl-ca" => self.tls.ca = Some(value.into()),
            "ssl-cert" => self.tls.cert = Some(value.into()),
            "ssl-key" => self.tls.key = Some(value.into()),
            "connect-timeout" => {
                let seconds: u64 =
                    value.parse().map_err(|_| config(format!("connect-timeout {value:?} is not a number")))?;
                // MySQL: 0 waits for ever. A day is as good, and ends.
                self.connect_timeout = Duration::from_secs(if seconds == 0 { 86_400 } else { seconds });
            }
            // What Cutwater sets itself.
            "charset" | "default-character-set" if value.eq_ignore_ascii_case("utf8mb4") => {}
            _ => {
                return Err(config(format!("the URL's parameter {name:?} is not known")).fix(
                    "known are host, port, socket, user, password, database, ssl-mode, ssl-ca, ssl-cert, ssl-key and \
                     connect-timeout",
                ));
            }
        }
        Ok(())
    }

    fn host(&self) -> MyHost {
        match &self.socket {
            Some(path) => MyHost::Socket(path.clone()),
            None if self.name.is_empty() => MyHost::Tcp("localhost".into(), self.port),
            None => MyHost::Tcp(self.name.clone(), self.port),
        }
    }
}

impl MyConnInfo {
    /// Reads a URL; what it lacks of user and password is looked up in `~/.my.cnf` and `MYSQL_PWD`.
    pub fn parse(url: &Url) -> Result<MyConnInfo> {
        let variable = |name: &str| std::env::var(name).ok();
        Self::complete(url.expose(), &OptionFile::of_this_user()?, variable).map_err(|error| error.fix(SHAPE))
    }

    fn complete(url: &str, file: &OptionFile, variable: impl Fn(&str) -> Option<String>) -> Result<MyConnInfo> {
        let said = read(url)?;
        let host = said.host();
        let given = file.fits(&host);
        let user = said
            .user
            .or_else(|| given?.user.clone())
            .or_else(|| variable("USER"))
            .ok_or_else(|| config("the URL names no user"))?;
        // A password that the file keeps for another account is not for this server's eyes.
        let for_user = given.filter(|given| given.user.as_ref().is_none_or(|of| *of == user));
        let password = said
            .password
            .map(SecretString::from)
            .or_else(|| for_user?.password.clone())
            .or_else(|| variable("MYSQL_PWD").map(SecretString::from));
        Ok(MyConnInfo {
            host,
            user,
            password,
            database: said.database,
            tls: said.tls,
            connect_timeout: said.connect_timeout,
            scheme: said.scheme,
        })
    }

    /// How to speak TLS. Where nothing was said: verified for other machines, by choice of the server on this one;
    /// with an authority of one's own always verified.
    pub fn ssl_mode(&self) -> MySslMode {
        match (&self.host, self.tls.mode) {
            (MyHost::Socket(_), _) => MySslMode::Disabled,
            (_, Some(mode)) => mode,
            (host, None) if !host.is_local() => MySslMode::VerifyIdentity,
            (_, None) if self.tls.ca.is_some() => MySslMode::VerifyCa,
            _ => MySslMode::Preferred,
        }
    }

    /// `old:3306`, for people.
    pub fn address(&self) -> String {
        self.host.to_string()
    }

    /// `mysql old:3306/shop`, for people.
    pub fn label(&self) -> String {
        let database = self.database.as_deref().unwrap_or_default();
        format!("{} {}/{database}", self.scheme, self.address())
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn parse_with(url: &str, file: &str, variables: &[(&str, &str)]) -> Result<MyConnInfo> {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        MyConnInfo::complete(url, &OptionFile::read(file), find)
    }

    fn parse(url: &str) -> MyConnInfo {
        parse_with(url, "", &[]).expect("a good URL")
    }

    fn password(info: &MyConnInfo) -> Option<&str> {
        info.password.as_ref().map(ExposeSecret::expose_secret)
    }

    #[test]
    fn every_part_of_a_url_is_read_and_decoded() {
        let info = parse("mysql://us%40er:p%2Fa%3Ass@db.example.com:3307/my%20db?connect-timeout=3&ssl_mode=required");
        assert_eq!(info.host, MyHost::Tcp("db.example.com".into(), 3307));
        assert_eq!((info.user.as_str(), info.database.as_deref()), ("us@er", Some("my db")));
        assert_eq!(password(&info), Some("p/a:ss"));
        assert_eq!((info.connect_timeout, info.ssl_mode()), (Duration::from_secs(3), MySslMode::Required));
        assert_eq!(info.label(), "mysql db.example.com:3307/my db");
        let info = parse("mariadb://u@[::1]:2");
        assert_eq!((info.host, info.database), (MyHost::Tcp("::1".into(), 2), None));
        assert_eq!(parse("mariadb://u@[::1]:2").label(), "mariadb [::1]:2/");
        assert_eq!(parse("mysql://u@h").address(), "h:3306");
    }

    #[test]
    fn a_unix_socket_is_named_in_two_ways() {
        let socket = MyHost::Socket("/run/mysqld/mysqld.sock".into());
        assert_eq!(parse("mysql://u@localhost/d?socket=/run/mysqld/mysqld.sock").host, socket);
        assert_eq!(parse("mysql://u@%2Frun%2Fmysqld%2Fmysqld.sock/d").host, socket);
        assert_eq!(parse("mysql://u@/d?socket=/s&ssl-mode=REQUIRED").ssl_mode(), MySslMode::Disabled);
    }

    #[test]
    fn what_nobody_knows_is_refused_by_name() {
        for (url, says) in [
            ("mysql://u@h/d?sslmod=REQUIRED", "sslmod"),
            ("mysql://u@h/d?ssl-mode=yes", "does not exist"),
            ("mysql://u@h/d?charset=latin1", "charset"),
            ("mysql://u@a,b/d", "several hosts"),
            ("postgres://u@h/d", "mysql://"),
            ("mysql://h/d", "no user"),
        ] {
            let error = parse_with(url, "", &[]).expect_err(url);
            assert_eq!(error.kind(), Kind::Config, "{url}");
            assert!(error.why().contains(says), "{url}: {error}");
        }
    }

    #[test]
    fn other_machines_are_verified_unless_the_url_says_otherwise() {
        let mode = |url: &str| parse(url).ssl_mode();
        assert_eq!(mode("mysql://u@db.example.com/d"), MySslMode::VerifyIdentity);
        assert_eq!(mode("mysql://u@10.0.0.1/d?ssl-ca=/ca.pem"), MySslMode::VerifyIdentity);
        assert_eq!(mode("mysql://u@127.0.0.1/d"), MySslMode::Preferred);
        assert_eq!(mode("mysql://u@[::1]/d?ssl-ca=/ca.pem"), MySslMode::VerifyCa);
        assert_eq!(mode("mysql://u@db.example.com/d?ssl-mode=verify-ca"), MySslMode::VerifyCa);
    }

    #[test]
    fn a_password_that_the_url_lacks_comes_from_the_option_file_and_then_the_environment() {
        let file = "[client]\nuser = app\npassword = from-file\n";
        let variables = [("MYSQL_PWD", "from-env"), ("USER", "me")];
        let get = |url: &str| parse_with(url, file, &variables).expect("a good URL");
        assert_eq!(password(&get("mysql://app:here@h/d")), Some("here"));
        assert_eq!(password(&get("mysql://app@h/d")), Some("from-file"));
        assert_eq!(get("mysql://h/d").user, "app");
        assert_eq!(password(&get("mysql://other@h/d")), Some("from-env"), "the file's is another account's");
        let file = "[client]\nhost=old\nport=3307\npassword=x\n";
        let get = |url: &str| parse_with(url, file, &variables).expect("a good URL");
        assert_eq!(password(&get("mysql://u@old:3307/d")), Some("x"));
        assert_eq!(password(&get("mysql://u@old/d")), Some("from-env"), "the file's is another server's");
        assert_eq!(get("mysql://new/d").user, "me");
    }

    #[test]
    fn nothing_printed_holds_the_password() {
        let info = parse("mysql://u:hunter2@h/d");
        assert!(!format!("{info:?} {}", info.label()).contains("hunter2"));
        let from_file = parse_with("mysql://u@h/d", "[client]\npassword=hunter2\n", &[]).expect("good");
        assert!(!format!("{from_file:?}").contains("hunter2"));
        for url in ["mysql://u:hunter2@h:x/d", "mysql://u:hunter2/@h/d", "mysql://u:hunter2?@h/d"] {
            let error = parse_with(url, "", &[]).expect_err("not a good URL");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
