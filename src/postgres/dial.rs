//! From an address to a connection on which a session can start.
//!
//! SQL sessions and replication connections use the same way: every address of every host in turn, TLS as its `sslmode`
//! says, the second attempt that libpq makes with `allow` and `prefer`, and `target_session_attrs`. What starts the
//! session is a [`Start`].

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::{ConnInfo, Host, SslMode, Wanted, tls};
use crate::endpoint::{keep_alive, no_host, unreachable};
use crate::error::{Error, Kind, Result};

/// A connection to a server, whichever way it runs.
pub enum Socket {
    /// Over the network, in the clear.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Over the network, encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Which time-outs of the role the startup packet switches off. A setting that is sent as a statement comes too late for
/// a time-out of a millisecond: it ends that very statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwitchOff {
    /// Those that every server knows.
    Common,
    /// And those of transactions, known from 17 on, and of idle sessions. An older server refuses the connection.
    All,
    /// And that of idle sessions, known from 14 on.
    Idle,
    /// None: a pooler takes no such settings.
    Nothing,
}

impl SwitchOff {
    /// The settings' names. Each becomes 0.
    pub(super) fn settings(self) -> &'static [&'static str] {
        const ALL: [&str; 5] = [
            "statement_timeout",
            "lock_timeout",
            "idle_in_transaction_session_timeout",
            "idle_session_timeout",
            "transaction_timeout",
        ];
        match self {
            SwitchOff::Nothing => &[],
            SwitchOff::Common => &ALL[..3],
            SwitchOff::Idle => &ALL[..4],
            SwitchOff::All => &ALL,
        }
    }

    /// What to try after a session could not begin.
    fn after(self, error: &Error) -> Option<SwitchOff> {
        match self {
            SwitchOff::Common if error.why().contains("startup parameter") => Some(SwitchOff::Nothing),
            // Perhaps ended by one of the other two, before it could switch them off.
            SwitchOff::Common if error.kind() == Kind::Connection => Some(SwitchOff::All),
            // "unrecognized configuration parameter"
            SwitchOff::All if error.why().contains("transaction_timeout") => Some(SwitchOff::Idle),
            _ => None,
        }
    }
}

/// What to do with a fresh connection: start a SQL session, or a replication connection.
pub trait Start: Sync {
    /// What comes out of it.
    type Session: Send;
    /// Authenticates and so on. An [`Kind::Authentication`] error may be tried again with or without TLS.
    fn start(&self, socket: Socket, off: SwitchOff) -> impl Future<Output = Result<Self::Session>> + Send;
    /// What kind of server the session is with; asked only where the URL minds.
    fn standing(&self, session: &mut Self::Session) -> impl Future<Output = Result<Standing>> + Send;
    /// Receive buffer to ask the kernel for, in bytes; 0 for its own choice.
    fn receive_buffer(&self) -> u32 {
        0
    }
}

/// Asks for a [`Standing`]: two booleans.
pub(super) const STANDING: &str = "SELECT pg_catalog.pg_is_in_recovery()::text, \
     (pg_catalog.pg_is_in_recovery() OR pg_catalog.current_setting('default_transaction_read_only')::bool)::text";

/// What `target_session_attrs` is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// It follows another server.
    pub standby: bool,
    /// It takes no writes: a standby, or by `default_transaction_read_only`.
    pub read_only: bool,
}

impl Standing {
    /// From the row of [`STANDING`].
    pub(super) fn from_text(standby: Option<&str>, read_only: Option<&str>) -> Standing {
        Standing { standby: standby == Some("true"), read_only: read_only == Some("true") }
    }

    /// Why the server will not do.
    fn objection(self, wanted: Wanted) -> Option<&'static str> {
        match wanted {
            Wanted::ReadWrite if self.standby => Some("is a standby, and takes no writes"),
            Wanted::ReadWrite if self.read_only => Some("takes no writes (default_transaction_read_only is on)"),
            Wanted::Primary if self.standby => Some("is a standby"),
            Wanted::ReadOnly if !self.read_only => Some("takes writes"),
            Wanted::Standby | Wanted::PreferStandby if !self.standby => Some("is not a standby"),
            _ => None,
        }
    }
}

/// One way of connecting that an `sslmode` allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Plain,
    /// With TLS if the server answers that it has it.
    TlsIfOffered,
    Tls,
}

/// Where a host is.
enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// Connects to the first server that answers and is as the URL wants it, and starts a session there.
pub async fn dial<S: Start>(info: &ConnInfo, start: &S) -> Result<S::Session> {
    match walk(info, info.wanted, start).await {
        // libpq: without a standby, whoever answers.
        Err(_) if info.wanted == Wanted::PreferStandby => walk(info, Wanted::Any, start).await,
        done => done,
    }
}

/// Every address of every host in turn.
async fn walk<S: Start>(info: &ConnInfo, wanted: Wanted, start: &S) -> Result<S::Session> {
    let mut failures: Vec<Error> = Vec::new();
    for host in &info.hosts {
        let addresses = match addresses(host).await {
            Ok(addresses) => addresses,
            Err(error) => {
                failures.push(error);
                continue;
            }
        };
        for address in &addresses {
            let error = match session(info, host, address, start).await {
                Ok(mut session) => match objection(wanted, start, &mut session).await {
                    Ok(None) => return Ok(session),
                    // The roles may be about to change: worth another try later.
                    Ok(Some(why)) => Error::new(Kind::Connection, format!("{host} {why}")),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            // A wrong password is wrong everywhere; only servers that cannot be reached or will not do are passed over.
            if error.kind() == Kind::Authentication {
                return Err(error);
            }
            failures.push(error);
        }
    }
    Err(together(failures))
}

async fn objection<S: Start>(wanted: Wanted, start: &S, session: &mut S::Session) -> Result<Option<&'static str>> {
    match wanted {
        Wanted::Any => Ok(None),
        wanted => Ok(start.standing(session).await?.objection(wanted)),
    }
}

/// One error that says of each host why it was passed over.
fn together(mut failures: Vec<Error>) -> Error {
    // An address that another one of the same host repeats is no news.
    let mut seen = std::collections::HashSet::new();
    failures.retain(|error| seen.insert(error.why().to_owned()));
    if failures.len() < 2 {
        return failures.pop().unwrap_or_else(|| Error::new(Kind::Config, "the URL names no host"));
    }
    let worth_a_retry = failures.iter().find(|error| error.kind() == Kind::Connection);
    let kind = worth_a_retry.or(failures.first()).map_or(Kind::Connection, Error::kind);
    let whys: Vec<&str> = failures.iter().map(Error::why).collect();
    let error = Error::new(kind, format!("no server will do: {}", whys.join("; ")));
    match failures.iter().find_map(Error::suggestion) {
        Some(fix) => error.fix(fix),
        None => error,
    }
}

/// A session at one address, by each way that the `sslmode` allows.
async fn session<S: Start>(info: &ConnInfo, host: &Host, address: &Address, start: &S) -> Result<S::Session> {
    let attempts: &[Attempt] = match info.ssl_mode(host) {
        SslMode::Disable => &[Attempt::Plain],
        SslMode::Allow => &[Attempt::Plain, Attempt::Tls],
        SslMode::Prefer => &[Attempt::TlsIfOffered, Attempt::Plain],
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Attempt::Tls],
    };
    let mut first_error = None;
    for &attempt in attempts {
        let error = match tokio::time::timeout(info.connect_timeout, one(info, host, address, attempt, start)).await {
            Ok(Ok(session)) => return Ok(session),
            Ok(Err(error)) => error,
            Err(_) => {
                let seconds = info.connect_timeout.as_secs();
                Error::new(Kind::Connection, format!("{host} did not answer within {seconds} s"))
            }
        };
        // As libpq: another try only where TLS may be what the server minded.
        let again = error.kind() == Kind::Authentication && !error.why().contains("password");
        first_error.get_or_insert(error);
        if !again {
            break;
        }
    }
    Err(first_error.unwrap_or_else(|| Error::new(Kind::Internal, "there is no way to connect")))
}

async fn one<S: Start>(
    info: &ConnInfo,
    host: &Host,
    address: &Address,
    attempt: Attempt,
    start: &S,
) -> Result<S::Session> {
    let mut off = SwitchOff::Common;
    let mut first_error = None;
    loop {
        let socket = socket(info, host, address, attempt, start.receive_buffer()).await?;
        let error = match start.start(socket, off).await {
            Ok(session) => return Ok(session),
            Err(error) => error,
        };
        let next = off.after(&error);
        let error = first_error.get_or_insert(error);
        match next {
            Some(next) => off = next,
            None => return Err(error.clone()),
        }
    }
}

async fn socket(
    info: &ConnInfo,
    host: &Host,
    address: &Address,
    attempt: Attempt,
    receive_buffer: u32,
) -> Result<Socket> {
    match address {
        Address::Unix(path) => {
            Ok(Socket::Unix(UnixStream::connect(path).await.map_err(|e| unreachable(&path.display(), &e))?))
        }
        Address::Tcp(address) => {
            let tcp = tcp(host, *address, receive_buffer).await?;
            secure(tcp, info, host, attempt).await
        }
    }
}

/// A name may have several addresses: replicas behind one name, IPv4 and IPv6.
async fn addresses(host: &Host) -> Result<Vec<Address>> {
    let (name, port) = match host {
        Host::Unix(folder, port) => return Ok(vec![Address::Unix(folder.join(format!(".s.PGSQL.{port}")))]),
        Host::Tcp(name, port) => (name.as_str(), *port),
    };
    let found = tokio::net::lookup_host((name, port)).await.map_err(|error| no_host(name, &error))?;
    let found: Vec<Address> = found.map(Address::Tcp).collect();
    if found.is_empty() {
        return Err(Error::new(Kind::Connection, format!("the host name {name:?} has no address")));
    }
    Ok(found)
}

async fn tcp(host: &Host, address: SocketAddr, receive_buffer: u32) -> Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if receive_buffer > 0 && kernel_allows(receive_buffer) {
        // Before connecting, or the window's scale is already agreed upon.
        let _ = socket.set_recv_buffer_size(receive_buffer);
    }
    let stream = socket.connect(address).await.map_err(|error| unreachable(host, &error))?;
    stream.set_nodelay(true)?;
    keep_alive(&stream);
    Ok(stream)
}

/// Setting a size turns the kernel's own tuning off, and sizes are cut to `rmem_max`: where that is small, the kernel
/// does better alone.
fn kernel_allows(bytes: u32) -> bool {
    let limit = std::fs::read_to_string("/proc/sys/net/core/rmem_max").ok();
    limit.and_then(|text| text.trim().parse().ok()).is_some_and(|limit: u32| limit >= bytes / 2)
}

async fn secure(mut tcp: TcpStream, info: &ConnInfo, host: &Host, attempt: Attempt) -> Result<Socket> {
    if attempt == Attempt::Plain {
        return Ok(Socket::Tcp(tcp));
    }
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    tcp.write_all(&request).await.map_err(|e| unreachable(host, &e))?;
    let answer = tcp.read_u8().await.map_err(|e| unreachable(host, &e))?;
    match (answer, attempt) {
        (b'S', _) => {
            let mode = info.ssl_mode(host);
            let stream = tls::handshake(tcp, host, mode, &info.tls).await?;
            Ok(Socket::Tls(Box::new(stream)))
        }
        (b'N', Attempt::TlsIfOffered) => Ok(Socket::Tcp(tcp)),
        (b'N', _) => Err(Error::new(Kind::Authentication, format!("{host} does not speak TLS"))
            .fix("set ssl = on at the server, or add ?sslmode=disable to the URL if the network is trusted")),
        _ => Err(Error::new(Kind::Protocol, format!("{host} does not answer like a Postgres server"))),
    }
}

impl Socket {
    /// The channel binding of a TLS connection.
    pub fn server_end_point(&self) -> Option<Vec<u8>> {
        match self {
            Socket::Tls(stream) => tls::server_end_point(stream),
            Socket::Tcp(_) | Socket::Unix(_) => None,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Socket::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
