//! From an address to a connection on which a session can start.
//!
//! SQL sessions and replication connections use the same way: every host in turn, TLS as its `sslmode` says, and the
//! second attempt that libpq makes with `allow` and `prefer`. What starts the session is a [`Start`].

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::{ConnInfo, Host, SslMode, tls};
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

/// What to do with a fresh connection: start a SQL session, or a replication connection.
pub trait Start: Sync {
    /// What comes out of it.
    type Session: Send;
    /// Authenticates and so on. An [`Kind::Authentication`] error may be tried again with or without TLS.
    fn start(&self, socket: Socket) -> impl Future<Output = Result<Self::Session>> + Send;
    /// Receive buffer to ask the kernel for, in bytes; 0 for its own choice.
    fn receive_buffer(&self) -> u32 {
        0
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

/// Connects to the first server that answers, and starts a session there.
pub async fn dial<S: Start>(info: &ConnInfo, start: &S) -> Result<S::Session> {
    let mut first_error = None;
    for host in &info.hosts {
        let attempts: &[Attempt] = match info.ssl_mode(host) {
            SslMode::Disable => &[Attempt::Plain],
            SslMode::Allow => &[Attempt::Plain, Attempt::Tls],
            SslMode::Prefer => &[Attempt::TlsIfOffered, Attempt::Plain],
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Attempt::Tls],
        };
        for (index, &attempt) in attempts.iter().enumerate() {
            let error = match tokio::time::timeout(info.connect_timeout, one(info, host, attempt, start)).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(error)) => error,
                Err(_) => {
                    let seconds = info.connect_timeout.as_secs();
                    Error::new(Kind::Connection, format!("{host} did not answer within {seconds} s"))
                }
            };
            // As libpq: another try only where TLS may be what the server minded.
            let refused = error.kind() == Kind::Authentication && !error.why().contains("password");
            let again = index + 1 < attempts.len() && refused;
            let error = first_error.get_or_insert(error);
            if !again {
                // A wrong password is wrong everywhere; only unreachable hosts are passed over.
                if error.kind() == Kind::Authentication {
                    return Err(error.clone());
                }
                break;
            }
        }
    }
    Err(first_error.unwrap_or_else(|| Error::new(Kind::Config, "the URL names no host")))
}

async fn one<S: Start>(info: &ConnInfo, host: &Host, attempt: Attempt, start: &S) -> Result<S::Session> {
    let socket = match host {
        Host::Unix(folder, port) => {
            let path = folder.join(format!(".s.PGSQL.{port}"));
            Socket::Unix(UnixStream::connect(&path).await.map_err(|e| unreachable(&path.display(), &e))?)
        }
        Host::Tcp(name, port) => {
            let tcp = tcp(name, *port, start.receive_buffer()).await?;
            secure(tcp, info, host, attempt).await?
        }
    };
    start.start(socket).await
}

fn unreachable(place: &dyn std::fmt::Display, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            Error::new(Kind::Connection, format!("{place} refused the connection: no server listens there"))
        }
        io::ErrorKind::NotFound => Error::new(Kind::Connection, format!("there is no socket {place}")),
        _ => Error::new(Kind::Connection, format!("{place} cannot be reached: {error}")),
    }
}

async fn tcp(name: &str, port: u16, receive_buffer: u32) -> Result<TcpStream> {
    let addresses = tokio::net::lookup_host((name, port)).await.map_err(|error| {
        Error::new(Kind::Connection, format!("there is no host {name:?}: {error}"))
            .fix("check the host name in the URL")
    })?;
    let mut failure = Error::new(Kind::Connection, format!("the host name {name:?} has no address"));
    for address in addresses {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if receive_buffer > 0 && kernel_allows(receive_buffer) {
            // Before connecting, or the window's scale is already agreed upon.
            let _ = socket.set_recv_buffer_size(receive_buffer);
        }
        match socket.connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                keep_alive(&stream);
                return Ok(stream);
            }
            Err(error) => failure = unreachable(&format!("{name}:{port}"), &error),
        }
    }
    Err(failure)
}

/// Setting a size turns the kernel's own tuning off, and sizes are cut to `rmem_max`: where that is small, the kernel
/// does better alone.
fn kernel_allows(bytes: u32) -> bool {
    let limit = std::fs::read_to_string("/proc/sys/net/core/rmem_max").ok();
    limit.and_then(|text| text.trim().parse().ok()).is_some_and(|limit: u32| limit >= bytes / 2)
}

/// A peer that is gone is noticed within about a minute and a half. Failing to set this is no reason not to connect.
fn keep_alive(stream: &TcpStream) {
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, Duration::from_secs(30));
    let _ = sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15));
    let _ = sockopt::set_tcp_keepcnt(stream, 4);
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
