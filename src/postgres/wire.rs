//! A plain connection that speaks the frontend/backend protocol frame by frame.
//!
//! tokio-postgres does SQL well, but knows neither the replication protocol nor how to hand out many rows of a COPY
//! without waking up for each. This does: startup and authentication, the simple query protocol, and frames as slices
//! of what was read. <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, ScramSha256};
use postgres_protocol::message::frontend;
use secrecy::ExposeSecret;
use tokio::io::AsyncWriteExt;
use tokio_util::io::poll_read_buf;

use super::dial::{STANDING, Socket, Standing, Start, SwitchOff, dial};
use super::error::{ServerError, no_password, unbound};
use super::watch::Watched;
use super::{ChannelBinding, ConnInfo};
use crate::error::{Context, Error, Kind, Result};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// SQL, and COPY in bulk.
    Sql,
    /// Replication commands of one database (`replication=database`), and SQL.
    Replication,
}

/// A session's settings, sent with the startup packet so that no statement is needed: the same as `session.sql`.
const SETTINGS: [(&str, &str); 13] = [
    ("client_encoding", "UTF8"),
    ("TimeZone", "UTC"),
    ("DateStyle", "ISO, YMD"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("array_nulls", "on"),
    ("xmloption", "content"),
    ("quote_all_identifiers", "off"),
    ("standard_conforming_strings", "on"),
    ("row_security", "off"),
    ("search_path", "pg_catalog"),
];

/// Room made for a read, in bytes: several milliseconds of a busy stream.
const READ: usize = 256 << 10;

/// No message of a server is larger (1 GiB is the limit of a value, and of a message).
const LARGEST: usize = i32::MAX as usize;

/// A connection whose server is ready for a command.
pub struct Wire {
    socket: Watched,
    incoming: BytesMut,
    user: String,
    /// The session's process at the server.
    pid: i32,
}

/// A row of a simple query's answer, as text.
pub type TextRow = Vec<Option<String>>;

struct WireStart<'a> {
    info: &'a ConnInfo,
    application_name: &'a str,
    purpose: Purpose,
}

impl Start for WireStart<'_> {
    type Session = Wire;

    async fn start(&self, socket: Socket, off: SwitchOff) -> Result<Wire> {
        // A stream of changes may rightly be silent, and has its own words for being alive.
        let socket = match self.purpose {
            Purpose::Sql => Watched::new(socket),
            Purpose::Replication => Watched::not(socket),
        };
        let guard = socket.guard();
        let mut wire = Wire { socket, incoming: BytesMut::new(), user: self.info.user.clone(), pid: 0 };
        let name = self.info.session_name(self.application_name);
        let mut parameters = vec![
            ("user", self.info.user.as_str()),
            ("database", self.info.database.as_str()),
            ("application_name", &name),
        ];
        parameters.extend(SETTINGS);
        parameters.extend(off.settings().iter().map(|name| (*name, "0")));
        if self.purpose == Purpose::Replication {
            parameters.push(("replication", "database"));
        }
        if let Some(options) = &self.info.options {
            parameters.push(("options", options));
        }
        let mut message = BytesMut::new();
        frontend::startup_message(parameters, &mut message)?;
        wire.send(&message).await?;
        wire.authenticate(self.info).await?;
        // The server may be too old for these two to stand in the startup packet: there only if need be.
        wire.query(include_str!("late_timeouts.sql")).await?;
        if self.purpose == Purpose::Sql {
            guard.watch(self.info, wire.pid);
        }
        Ok(wire)
    }

    async fn standing(&self, session: &mut Wire) -> Result<Standing> {
        let rows = session.query(STANDING).await?;
        let field = |index: usize| rows.first()?.get(index)?.as_deref();
        Ok(Standing::from_text(field(0), field(1)))
    }

    fn receive_buffer(&self) -> u32 {
        // FINDINGS: a large buffer lets much gather between two reads, which halves the walsender's work.
        8 << 20
    }
}

impl Wire {
    /// Connects and authenticates.
    pub async fn connect(info: &ConnInfo, application_name: &str, purpose: Purpose) -> Result<Wire> {
        let start = WireStart { info, application_name, purpose };
        dial(info, &start).await.with_context(|| format!("connecting to {} as {:?}", info.label(), info.user))
    }

    /// Runs a command and returns the rows of its answer. A command that starts a COPY is an error.
    pub async fn query(&mut self, command: &str) -> Result<Vec<TextRow>> {
        self.send_query(command).await?;
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            let (tag, body) = self.frame().await?;
            match tag {
                b'D' => rows.push(data_row(body)?),
                b'E' => failure = Some(server_error(&body)),
                b'Z' => return failure.map_or(Ok(rows), Err),
                b'T' | b'C' | b'I' | b'N' | b'S' | b'A' => {}
                other => return Err(unexpected(other)),
            }
        }
    }

    /// Starts a command that answers with a COPY: `expected` is `b'H'` (COPY OUT) or `b'W'` (both ways).
    pub async fn start_copy(&mut self, command: &str, expected: u8) -> Result<()> {
        self.send_query(command).await?;
        loop {
            let (tag, body) = self.frame().await?;
            match tag {
                b'E' => {
                    let error = server_error(&body);
                    self.until_ready().await?;
                    return Err(error);
                }
                b'N' | b'S' | b'A' => {}
                tag if tag == expected => return Ok(()),
                other => return Err(unexpected(other)),
            }
        }
    }

    /// Reads up to the server's being ready for the next command; the first error on the way is returned.
    pub async fn until_ready(&mut self) -> Result<()> {
        let mut failure = None;
        loop {
            let (tag, body) = self.frame().await?;
            match tag {
                b'Z' => return failure.map_or(Ok(()), Err),
                b'E' => failure = failure.or(Some(server_error(&body))),
                _ => {}
            }
        }
    }

    async fn send_query(&mut self, command: &str) -> Result<()> {
        let mut message = BytesMut::new();
        frontend::query(command, &mut message)?;
        self.send(&message).await
    }

    /// Sends bytes that already are messages.
    pub async fn send(&mut self, messages: &[u8]) -> Result<()> {
        self.socket.write_all(messages).await.map_err(|error| broken(&error))?;
        self.socket.flush().await.map_err(|error| broken(&error))
    }

    /// The next frame: its tag and what follows the length. Cancel-safe.
    pub async fn frame(&mut self) -> Result<(u8, Bytes)> {
        loop {
            let (complete, missing) = whole_frames(&self.incoming, 1)?;
            if complete > 0 {
                let mut frame = self.incoming.split_to(complete).freeze();
                let tag = frame[0];
                frame.advance(5);
                return Ok((tag, frame));
            }
            self.read(missing).await?;
        }
    }

    /// Waits for more and takes all that has gathered; the number of bytes. Cancel-safe.
    ///
    /// `missing` is how many bytes the frame that has begun still lacks, so that a large one is read in one piece.
    pub async fn read(&mut self, missing: usize) -> Result<usize> {
        let wanted = missing.max(READ / 4);
        if self.incoming.capacity() - self.incoming.len() < wanted {
            self.incoming.reserve(wanted.max(READ));
        }
        let Wire { socket, incoming, .. } = self;
        let count = poll_fn(|cx| {
            let mut total = 0;
            // A TLS connection gives at most one record at a time.
            while incoming.len() < incoming.capacity() {
                match poll_read_buf(Pin::new(&mut *socket), cx, incoming) {
                    Poll::Pending if total == 0 => return Poll::Pending,
                    Poll::Pending | Poll::Ready(Ok(0)) => break,
                    Poll::Ready(Ok(count)) => total += count,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                }
            }
            Poll::Ready(Ok(total))
        })
        .await
        .map_err(|error| broken(&error))?;
        // Until the next read it is we who keep the server waiting.
        self.socket.taken();
        if count == 0 {
            return Err(Error::new(Kind::Connection, "the server closed the connection"));
        }
        Ok(count)
    }

    /// Takes the complete frames that have been read, up to about `limit` bytes, as one piece. The second number is how
    /// many bytes the next frame lacks, for [`Wire::read`].
    pub fn take_frames(&mut self, limit: usize) -> Result<(Bytes, usize)> {
        let (complete, missing) = whole_frames(&self.incoming, limit)?;
        Ok((self.incoming.split_to(complete).freeze(), missing))
    }

    async fn authenticate(&mut self, info: &ConnInfo) -> Result<()> {
        let password = || info.password.as_ref().map(|p| p.expose_secret()).ok_or_else(|| no_password(&info.user));
        let mut scram: Option<ScramSha256> = None;
        // Asked for, and not yet had: then no secret is shown in another way, and the session does not begin.
        let mut unbound_yet = info.channel_binding == ChannelBinding::Require;
        loop {
            let (tag, mut body) = self.frame().await?;
            match tag {
                b'R' if body.len() >= 4 => {}
                b'E' => return Err(server_error(&body)),
                b'Z' => return Ok(()),
                // BackendKeyData
                b'K' if body.len() >= 4 => {
                    self.pid = body.get_i32();
                    continue;
                }
                // ParameterStatus, notices, NegotiateProtocolVersion
                b'S' | b'K' | b'N' | b'v' => continue,
                other => return Err(unexpected(other)),
            }
            let mut answer = BytesMut::new();
            match (body.get_i32(), &mut scram) {
                (0 | 3 | 5, _) if unbound_yet => return Err(unbound()),
                (0, _) => continue,
                (3, _) => frontend::password_message(password()?.as_bytes(), &mut answer)?,
                (5, _) if body.len() >= 4 => {
                    let salt = [body[0], body[1], body[2], body[3]];
                    let hash = md5_hash(self.user.as_bytes(), password()?.as_bytes(), salt);
                    frontend::password_message(hash.as_bytes(), &mut answer)?;
                }
                (10, _) => {
                    let (mechanism, binding) = self.choose_mechanism(&body, info.channel_binding)?;
                    unbound_yet &= mechanism != sasl::SCRAM_SHA_256_PLUS;
                    let exchange = ScramSha256::new(password()?.as_bytes(), binding);
                    frontend::sasl_initial_response(mechanism, exchange.message(), &mut answer)?;
                    scram = Some(exchange);
                }
                (11, Some(exchange)) => {
                    exchange.update(&body).map_err(|e| scram_error(&e))?;
                    frontend::sasl_response(exchange.message(), &mut answer)?;
                }
                (12, Some(exchange)) => {
                    exchange.finish(&body).map_err(|e| scram_error(&e))?;
                    continue;
                }
                (method, _) => {
                    return Err(Error::new(
                        Kind::Authentication,
                        format!("the server wants authentication method {method}, which Cutwater does not speak"),
                    )
                    .fix("use scram-sha-256, md5, password, trust or a client certificate in pg_hba.conf"));
                }
            }
            self.send(&answer).await?;
        }
    }

    /// SCRAM with channel binding where the server offers it and the connection has one, as RFC 5802 wants it.
    fn choose_mechanism(&self, offered: &[u8], wanted: ChannelBinding) -> Result<(&'static str, sasl::ChannelBinding)> {
        let offers = |name: &str| offered.split(|&byte| byte == 0).any(|offer| offer == name.as_bytes());
        let end_point = self.socket.socket().server_end_point().filter(|_| wanted != ChannelBinding::Disable);
        match end_point {
            Some(hash) if offers(sasl::SCRAM_SHA_256_PLUS) => {
                Ok((sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash)))
            }
            _ if wanted == ChannelBinding::Require => Err(unbound()),
            _ if !offers(sasl::SCRAM_SHA_256) => {
                Err(Error::new(Kind::Authentication, "the server offers no SASL mechanism that Cutwater speaks"))
            }
            Some(_) => Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested())),
            None => Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported())),
        }
    }
}

/// The length of the complete frames at the start of `bytes`, ending with the first past `limit`; and, if none is
/// complete, or after them, how many bytes the next one lacks.
fn whole_frames(bytes: &[u8], limit: usize) -> Result<(usize, usize)> {
    let mut at = 0;
    while at < limit {
        let Some(header) = bytes.get(at + 1..at + 5) else { break };
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if !(4..=LARGEST).contains(&length) {
            return Err(Error::new(Kind::Protocol, format!("the server sent a message of {length} bytes")));
        }
        let end = at + 1 + length;
        if end > bytes.len() {
            return Ok((at, end - bytes.len()));
        }
        at = end;
    }
    Ok((at, 5))
}

fn data_row(mut body: Bytes) -> Result<TextRow> {
    let cut_short = || Error::new(Kind::Protocol, "the server sent a row that is cut short");
    let count = body.try_get_u16().map_err(|_| cut_short())?;
    (0..count)
        .map(|_| match body.try_get_i32().map_err(|_| cut_short())? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| cut_short())?;
                if length > body.len() {
                    return Err(cut_short());
                }
                Ok(Some(String::from_utf8_lossy(&body.split_to(length)).into_owned()))
            }
        })
        .collect()
}

/// An ErrorResponse: fields of a type byte and a string, ended by a zero.
/// <https://www.postgresql.org/docs/current/protocol-error-fields.html>
pub fn server_error(body: &[u8]) -> Error {
    let (mut code, mut message, mut detail, mut hint, mut context) = ("", "", None, None, None);
    for field in body.split(|&byte| byte == 0) {
        let Some((kind, value)) = field.split_first() else { continue };
        let value = std::str::from_utf8(value).unwrap_or("(not UTF-8)");
        match kind {
            b'C' => code = value,
            b'M' => message = value,
            b'D' => detail = Some(value),
            b'H' => hint = Some(value),
            b'W' => context = Some(value),
            _ => {}
        }
    }
    ServerError { code, message, detail, hint, context }.into()
}

fn unexpected(tag: u8) -> Error {
    Error::new(Kind::Protocol, format!("the server sent an unexpected message {:?}", char::from(tag)))
}

fn broken(error: &io::Error) -> Error {
    Error::new(Kind::Connection, format!("the connection broke: {error}"))
}

fn scram_error(error: &io::Error) -> Error {
    Error::new(Kind::Authentication, format!("SCRAM authentication failed: {error}"))
        .fix("check the password in the URL, PGPASSWORD or ~/.pgpass")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_frames_are_taken() {
        let bytes = [b'd', 0, 0, 0, 6, 1, 2, b'd', 0, 0, 0, 5, 3, b'd', 0, 0, 0, 9, 4];
        assert_eq!(whole_frames(&bytes, 1000).expect("well formed"), (13, 4));
        assert_eq!(whole_frames(&bytes, 1).expect("well formed"), (7, 5));
        assert_eq!(whole_frames(&bytes[..3], 1000).expect("well formed"), (0, 5));
        assert!(whole_frames(&[b'd', 0, 0, 0, 3], 1000).is_err());
    }

    #[test]
    fn an_error_response_becomes_an_error_with_its_kind() {
        let error = server_error(b"SFATAL\0C28P01\0Mpassword authentication failed for user \"u\"\0\0");
        assert_eq!(error.kind(), Kind::Authentication);
        assert!(error.suggestion().is_some());
    }
}
