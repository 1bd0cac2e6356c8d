//! From an address to an authenticated connection of the driver.
//!
//! Every address of the host in turn; TLS as the `ssl-mode` says ([`Checks`]), with `PREFERRED` again without it where
//! the server does not speak it. How the password is proved is the server's choice of plugin:
//!
//! | plugin | what is sent |
//! |---|---|
//! | `mysql_native_password`, `ed25519` | a proof that holds for this connection alone |
//! | `caching_sha2_password` | such a proof, if the server has the password's hash in its cache; else the password: as it is over TLS and over a Unix socket, otherwise encrypted with the RSA key that the server shows |
//! | `mysql_clear_password`, `mysql_old_password` | nothing: refused, whatever the connection |
//!
//! So a password never passes a network in the clear. Without TLS an attacker in between could show an RSA key of his
//! own; other machines are therefore reached without TLS only where the URL says so.
//!
//! The application's name travels as the connection attribute `program_name`. MySQL reads attributes only where the first
//! packet announces them, which the driver's first packet does not over TLS; MariaDB shows them in both cases.

use std::net::IpAddr;

use mysql_async::{Conn, DriverError, IoError, OptsBuilder, SslOpts, TlsError};
use secrecy::ExposeSecret;

use super::tls::Checks;
use super::{MyConnInfo, MyHost, MySslMode};
use crate::endpoint::{KEEPALIVE_IDLE, no_host, unreachable};
use crate::error::{Error, Kind, Result};

/// What no packet is larger than. The server's own limit, which is lower, is found in [`Server`](super::Server).
const LARGEST_PACKET: usize = 1 << 30;

/// Connects and authenticates.
pub(super) async fn dial(info: &MyConnInfo, application_name: &str) -> Result<Conn> {
    let MyHost::Tcp(name, port) = &info.host else {
        return Attempt { info, application_name, address: None }.one(None).await.map_err(Failure::into_error);
    };
    let found = tokio::net::lookup_host((name.as_str(), *port)).await.map_err(|error| no_host(name, &error))?;
    let mut first_error = None;
    for address in found {
        let attempt = Attempt { info, application_name, address: Some(address.ip()) };
        match attempt.by_mode().await {
            Ok(conn) => return Ok(conn),
            // A wrong password is wrong at every address; one that cannot be reached is passed over.
            Err(error) if error.kind() != Kind::Connection => return Err(error),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    Err(first_error.unwrap_or_else(|| Error::new(Kind::Connection, format!("the host name {name:?} has no address"))))
}

struct Attempt<'a> {
    info: &'a MyConnInfo,
    application_name: &'a str,
    address: Option<IpAddr>,
}

/// Why there is no connection, as far as another way may do better.
enum Failure {
    /// The server has no TLS.
    NoTls(Error),
    /// The handshake failed.
    Tls(rustls::Error),
    Other(Error),
}

impl Failure {
    fn into_error(self) -> Error {
        match self {
            Failure::NoTls(error) | Failure::Other(error) => error,
            Failure::Tls(error) => Error::new(Kind::Connection, format!("the TLS handshake failed: {error}")),
        }
    }
}

impl Attempt<'_> {
    async fn by_mode(&self) -> Result<Conn> {
        let (info, mode) = (self.info, self.info.ssl_mode());
        if mode == MySslMode::Disabled {
            return self.one(None).await.map_err(Failure::into_error);
        }
        let checks = Checks::of(mode, &info.tls);
        let mut failure = match self.one(Some(checks.options(&info.tls, None)?)).await {
            Ok(conn) => return Ok(conn),
            Err(failure) => failure,
        };
        if let Failure::Tls(error) = &failure
            && let Some(name) = checks.name_to_try(error)
        {
            failure = match self.one(Some(checks.options(&info.tls, Some(name))?)).await {
                Ok(conn) => return Ok(conn),
                Err(failure) => failure,
            };
        }
        match failure {
            // A server too old for any TLS that we speak counts as one without.
            Failure::NoTls(_) | Failure::Tls(_) if mode == MySslMode::Preferred => {
                self.one(None).await.map_err(Failure::into_error)
            }
            Failure::Tls(error) => Err(checks.explain(&error, &info.host)),
            other => Err(other.into_error()),
        }
    }

    async fn one(&self, tls: Option<SslOpts>) -> Result<Conn, Failure> {
        let info = self.info;
        let options = OptsBuilder::default()
            .user(Some(info.user.as_str()))
            .pass(info.password.as_ref().map(|password| password.expose_secret().to_owned()))
            .db_name(info.database.clone())
            .ssl_opts(tls)
            // Otherwise the driver leaves a TLS connection to this machine for the server's socket.
            .prefer_socket(false)
            .tcp_keepalive(Some(KEEPALIVE_IDLE))
            .max_allowed_packet(Some(LARGEST_PACKET))
            // Only a pool of connections, which we do not use, minds; it saves a question to the server.
            .wait_timeout(Some(28_800))
            // An UPDATE counts the rows that it found, not those that it changed: an applier must know whether a row is there.
            .client_found_rows(true)
            .connect_attribute("program_name", self.application_name);
        let options = match (&info.host, self.address) {
            (MyHost::Tcp(name, port), address) => {
                options.ip_or_hostname(name).tcp_port(*port).resolved_ips(address.map(|address| vec![address]))
            }
            (MyHost::Socket(path), _) => options.socket(Some(path.display().to_string())),
        };
        let connected = match tokio::time::timeout(info.connect_timeout, Conn::new(options)).await {
            Ok(connected) => connected,
            Err(_) => {
                let seconds = info.connect_timeout.as_secs();
                let why = format!("{} did not answer within {seconds} s", info.host);
                return Err(Failure::Other(Error::new(Kind::Connection, why)));
            }
        };
        connected.map_err(|error| self.failure(error))
    }

    fn failure(&self, error: mysql_async::Error) -> Failure {
        let host = &self.info.host;
        match error {
            mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer) => {
                Failure::NoTls(Error::new(Kind::Authentication, format!("{host} does not speak TLS")).fix(
                    "give the server a certificate (ssl_cert, ssl_key), or add ?ssl-mode=DISABLED to the URL if the \
                     network is trusted",
                ))
            }
            mysql_async::Error::Io(IoError::Tls(TlsError::Tls(error))) => Failure::Tls(error),
            mysql_async::Error::Io(IoError::Tls(TlsError::InvalidDnsName(_))) => {
                Failure::Other(Error::new(Kind::Config, format!("{host} is not a name a certificate can be for")))
            }
            mysql_async::Error::Io(IoError::Io(error)) => {
                match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                    Some(tls) => Failure::Tls(tls.clone()),
                    None => Failure::Other(unreachable(host, &error)),
                }
            }
            mysql_async::Error::Server(refusal) => {
                let no_password = self.info.password.is_none() && matches!(refusal.code, 1045 | 1698);
                let error = Error::from(mysql_async::Error::Server(refusal));
                Failure::Other(if no_password {
                    Error::new(error.kind(), error.why())
                        .fix("no password is set: put it into the URL, [client] of ~/.my.cnf or MYSQL_PWD")
                } else {
                    error
                })
            }
            other => Failure::Other(other.into()),
        }
    }
}
