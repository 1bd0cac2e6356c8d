//! What the URLs and connections of all engines have in common.
//!
//! In: the text of a URL. Out: its parts, decoded one by one by whoever knows what they mean. What can go wrong: a text
//! that is no URL; the error never shows what may be a piece of a password (one with an unencoded `/` or `?` in it ends
//! up where a port or a parameter should be).

pub mod tls;

use std::net::IpAddr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustix::net::sockopt;
use tokio::net::TcpStream;

use crate::error::{Error, Kind, Result};

/// `user:password@`, `host:port,…`, `/database`, `?parameters` of a URL, still encoded.
pub struct Pieces<'a> {
    /// Before the `:` of the credentials.
    pub user: Option<&'a str>,
    /// After it.
    pub password: Option<&'a str>,
    /// One address or several.
    pub hosts: &'a str,
    /// Without its slash.
    pub database: &'a str,
    /// Without its question mark; see [`parameters`].
    pub query: &'a str,
}

impl<'a> Pieces<'a> {
    /// Cuts what follows the `scheme://` of a URL.
    pub fn of(rest: &'a str) -> Pieces<'a> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        // A password may hold an unencoded '/' or '@' in practice, but no client reads those either.
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        let (user, password) = match credentials {
            Some(credentials) => match credentials.split_once(':') {
                Some((user, password)) => (Some(user), Some(password)),
                None => (Some(credentials), None),
            },
            None => (None, None),
        };
        Pieces { user, password, hosts, database, query }
    }
}

fn bad(why: impl Into<String>) -> Error {
    Error::new(Kind::Config, why)
}

/// Undoes percent encoding.
pub fn decode(text: &str) -> Result<String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(|text| text.into_owned())
        .map_err(|_| bad("the URL holds a percent-encoding that is not UTF-8"))
}

/// The names and values of `a=1&b=2`, decoded.
pub fn parameters(query: &str) -> impl Iterator<Item = Result<(String, String)>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            // What holds an '@' was meant as a password.
            let shown = if pair.contains('@') { "a parameter".to_owned() } else { format!("{pair:?}") };
            bad(format!("{shown} lacks a value"))
        })?;
        Ok((decode(name)?, decode(value)?))
    })
}

/// A port, or `default` where nothing is written.
pub fn port(text: &str, default: u16) -> Result<u16> {
    if text.is_empty() {
        return Ok(default);
    }
    text.parse().map_err(|_| {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            bad(format!("{text:?} is not a port"))
        } else {
            bad("what stands after the host's \":\" is not a port (a \"/\", \"?\" or \"@\" in a password is written as %2F, %3F or %40)")
        }
    })
}

/// `name:port` or `[::1]:port`: the name, decoded, and the port, still as text.
pub fn address(part: &str) -> Result<(String, &str)> {
    let (name, port) = match part.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']').ok_or_else(|| bad("an IPv6 address lacks its \"]\""))?;
            (name, port.strip_prefix(':').unwrap_or(""))
        }
        None => part.split_once(':').unwrap_or((part, "")),
    };
    Ok((decode(name)?, port))
}

/// `name:port`, for people and for the address of a URL.
pub fn tcp_address(name: &str, port: u16) -> String {
    if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") }
}

/// Whether a name stands for this machine: `localhost` or a loopback address.
pub fn is_this_machine(name: &str) -> bool {
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A connection that was not made: what the address is called, and why.
pub fn unreachable(place: &dyn std::fmt::Display, error: &std::io::Error) -> Error {
    let why = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => {
            format!("{place} refused the connection: no server listens there")
        }
        std::io::ErrorKind::NotFound => format!("there is no socket {place}"),
        _ => format!("{place} cannot be reached: {error}"),
    };
    Error::new(Kind::Connection, why)
}

/// There is no such name.
pub fn no_host(name: &str, error: &std::io::Error) -> Error {
    Error::new(Kind::Connection, format!("there is no host {name:?}: {error}")).fix("check the host name in the URL")
}

/// After so much silence a connection is probed.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// A peer that is gone is noticed within about a minute and a half. Failing to set this is no reason not to connect.
pub fn keep_alive(stream: &TcpStream) {
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15));
    let _ = sockopt::set_tcp_keepcnt(stream, 4);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_of_a_password_is_never_shown() {
        // postgres://u:hunter/2@h/d: "hunter" stands where a port would.
        let pieces = Pieces::of("u:hunter/2@h/d");
        let (_, text) = address(pieces.hosts).expect("an address");
        let error = port(text, 1).expect_err("no port");
        assert!(!error.to_string().contains("hunter"), "{error}");
        assert!(error.to_string().contains("%2F"), "{error}");
        // postgres://u:p?hunter2@h/d
        let error = parameters(Pieces::of("u:p?hunter2@h/d").query).next().expect("one").expect_err("no value");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert_eq!(port("70000", 1).expect_err("too high").why(), "\"70000\" is not a port");
    }
}
