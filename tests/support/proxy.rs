//! A TCP proxy that cuts, stalls and limits connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    Stalled,
    /// Connections that were made before the n-th cut are dead.
    Refusing,
}

#[derive(Debug, Clone, Copy)]
struct State {
    mode: Mode,
    cuts: u64,
}

/// Forwards 127.0.0.1:[`Proxy::port`] to a server; ends with its connections when dropped.
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    /// Bytes that may still flow from the server to the client; negative: no limit.
    left: AtomicI64,
    connections: AtomicUsize,
}

impl Proxy {
    /// A proxy in front of 127.0.0.1:`upstream`.
    pub async fn start(upstream: u16) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, receiver) = watch::channel(State { mode: Mode::Open, cuts: 0 });
        let shared = Arc::new(Shared { left: AtomicI64::new(-1), connections: AtomicUsize::new(0) });
        let accepting = tokio::spawn(accept(listener, upstream, receiver, shared.clone()));
        Proxy { address, state, shared, accepting }
    }

    /// Where clients connect.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `postgres://user@127.0.0.1:port/database` through the proxy.
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@{}/{database}", self.address)
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Closes every connection and takes new ones at once.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Closes every connection and refuses new ones until [`Proxy::resume`].
    pub fn refuse(&self) {
        self.state.send_modify(|state| {
            state.mode = Mode::Refusing;
            state.cuts += 1;
        });
    }

    /// Connections stay open and nothing flows, as behind a dead router, until [`Proxy::resume`].
    pub fn stall(&self) {
        self.state.send_modify(|state| state.mode = Mode::Stalled);
    }

    /// Lets everything flow again.
    pub fn resume(&self) {
        self.shared.left.store(-1, Ordering::SeqCst);
        self.state.send_modify(|state| state.mode = Mode::Open);
    }

    /// Cuts all connections, in the middle of a message if need be, once the server has sent this many bytes more.
    /// Then everything flows again.
    pub fn cut_after(&self, bytes: u32) {
        self.shared.left.store(i64::from(bytes), Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.refuse();
    }
}

async fn accept(listener: TcpListener, upstream: u16, state: watch::Receiver<State>, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let now = *state.borrow();
        if now.mode == Mode::Refusing {
            continue;
        }
        tokio::spawn(serve(client, upstream, now.cuts, state.clone(), shared.clone()));
    }
}

async fn serve(client: TcpStream, upstream: u16, born: u64, state: watch::Receiver<State>, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", upstream)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    shared.connections.fetch_add(1, Ordering::SeqCst);
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let mut watching = state.clone();
    tokio::select! {
        () = forward(client_read, server_write, state.clone(), None) => {}
        () = forward(server_read, client_write, state, Some(&shared)) => {}
        _ = watching.wait_for(|now| now.cuts != born) => {}
    }
    shared.connections.fetch_sub(1, Ordering::SeqCst);
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    limited: Option<&Shared>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if state.wait_for(|now| now.mode != Mode::Stalled).await.is_err() {
            return;
        }
        let mut passed = read;
        if let Some(shared) = limited {
            let left = shared.left.load(Ordering::SeqCst);
            if left >= 0 {
                passed = read.min(usize::try_from(left).expect("not negative"));
                shared.left.store(left - i64::try_from(passed).expect("a buffer's length"), Ordering::SeqCst);
            }
        }
        if to.write_all(&buffer[..passed]).await.is_err() {
            return;
        }
        if passed < read {
            if let Some(shared) = limited {
                shared.left.store(-1, Ordering::SeqCst);
            }
            return;
        }
    }
}
