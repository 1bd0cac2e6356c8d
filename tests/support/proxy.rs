//! A TCP proxy that cuts, stalls, loses, slows down and holds up connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

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
    /// Connections that were made before the n-th loss are silent for ever.
    losses: u64,
    /// What was held up before the n-th release goes on.
    releases: u64,
}

/// What waits for a word from a client.
#[derive(Debug, Clone)]
enum Trap {
    /// Lets it pass, and cuts the connection before the answer.
    Cut(Vec<u8>),
    /// Holds it up, with everything behind it.
    Hold(Vec<u8>),
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
    from_server: AtomicI64,
    /// The other way.
    to_server: AtomicI64,
    /// Bytes a second and direction; 0: no limit.
    rate: AtomicU64,
    /// Milliseconds for which what a server sends is gathered before it passes; 0: not at all.
    gather: AtomicU64,
    trap: Mutex<Option<Trap>>,
    /// Traps that have snapped.
    sprung: AtomicUsize,
    connections: AtomicUsize,
}

impl Proxy {
    /// A proxy in front of 127.0.0.1:`upstream`.
    pub async fn start(upstream: u16) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, receiver) = watch::channel(State { mode: Mode::Open, cuts: 0, losses: 0, releases: 0 });
        let unlimited = || AtomicI64::new(-1);
        let shared = Arc::new(Shared { from_server: unlimited(), to_server: unlimited(), ..Shared::default() });
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

    /// The connections that are open now stay so, and nothing ever flows over them again, as when a firewall has
    /// forgotten them. New ones work.
    pub fn lose(&self) {
        self.state.send_modify(|state| state.losses += 1);
    }

    /// At most this many bytes a second and direction on each connection, until [`Proxy::resume`].
    pub fn throttle(&self, bytes_per_second: u64) {
        self.shared.rate.store(bytes_per_second, Ordering::SeqCst);
    }

    /// What a server sends within a moment arrives in one piece, until [`Proxy::resume`].
    pub fn gather(&self, moment: Duration) {
        self.shared.gather.store(u64::try_from(moment.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Lets everything flow again.
    pub fn resume(&self) {
        self.shared.from_server.store(-1, Ordering::SeqCst);
        self.shared.to_server.store(-1, Ordering::SeqCst);
        self.shared.rate.store(0, Ordering::SeqCst);
        self.shared.gather.store(0, Ordering::SeqCst);
        *self.shared.trap.lock().unwrap() = None;
        self.state.send_modify(|state| state.mode = Mode::Open);
    }

    /// Cuts a connection, in the middle of a message if need be, once the server has sent this many bytes more over all
    /// of them. Then everything flows again.
    pub fn cut_after(&self, bytes: u32) {
        self.shared.from_server.store(i64::from(bytes), Ordering::SeqCst);
    }

    /// As [`Proxy::cut_after`], for what the clients send.
    pub fn cut_after_sent(&self, bytes: u32) {
        self.shared.to_server.store(i64::from(bytes), Ordering::SeqCst);
    }

    /// Cuts the next connection over which a client sends `word` (`COMMIT`), once the server has it and before its
    /// answer passes.
    pub fn cut_behind(&self, word: &[u8]) {
        *self.shared.trap.lock().unwrap() = Some(Trap::Cut(word.to_vec()));
    }

    /// Holds up the next `word` that a client sends, and everything behind it on that connection, until
    /// [`Proxy::release`], even when the client is gone by then.
    pub fn hold(&self, word: &[u8]) {
        *self.shared.trap.lock().unwrap() = Some(Trap::Hold(word.to_vec()));
    }

    /// Whether a word was held up or cut behind since the proxy began.
    pub fn sprung(&self) -> usize {
        self.shared.sprung.load(Ordering::SeqCst)
    }

    /// Lets go on what [`Proxy::hold`] holds up.
    pub fn release(&self) {
        self.state.send_modify(|state| state.releases += 1);
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
        tokio::spawn(serve(client, upstream, now, state.clone(), shared.clone()));
    }
}

async fn serve(client: TcpStream, upstream: u16, born: State, state: watch::Receiver<State>, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", upstream)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    shared.connections.fetch_add(1, Ordering::SeqCst);
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let mut watching = state.clone();
    let way = |to_server| Way { born, state: state.clone(), shared: shared.clone(), to_server };
    tokio::select! {
        () = way(true).forward(client_read, server_write) => {}
        () = way(false).forward(server_read, client_write) => {}
        _ = watching.wait_for(|now| now.cuts != born.cuts) => {}
    }
    shared.connections.fetch_sub(1, Ordering::SeqCst);
}

/// One direction of one connection.
struct Way {
    born: State,
    state: watch::Receiver<State>,
    shared: Arc<Shared>,
    to_server: bool,
}

impl Way {
    async fn forward(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let rate = self.shared.rate.load(Ordering::SeqCst);
            let room = if rate == 0 { buffer.len() } else { (rate as usize / 20).clamp(1, buffer.len()) };
            let gather = self.shared.gather.load(Ordering::SeqCst);
            if gather > 0 && !self.to_server && from.readable().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(gather)).await;
            }
            let Ok(read @ 1..) = from.read(&mut buffer[..room]).await else { return };
            if rate > 0 {
                tokio::time::sleep(Duration::from_secs_f64(read as f64 / rate as f64)).await;
            }
            if self.state.wait_for(|now| now.mode != Mode::Stalled).await.is_err() {
                return;
            }
            if self.state.borrow().losses != self.born.losses {
                std::future::pending::<()>().await;
            }
            let mut begin = 0;
            if self.to_server
                && let Some((trap, place)) = self.snap(&buffer[..read])
            {
                match trap {
                    Trap::Cut(_) => {
                        let _ = to.write_all(&buffer[..read]).await;
                        return;
                    }
                    Trap::Hold(_) => {
                        if to.write_all(&buffer[..place]).await.is_err() {
                            return;
                        }
                        begin = place;
                        let before = self.state.borrow().releases;
                        let _ = self.state.wait_for(|now| now.releases != before).await;
                    }
                }
            }
            let passed = self.allowed(read);
            if to.write_all(&buffer[begin..passed.max(begin)]).await.is_err() || passed < read {
                return;
            }
        }
    }

    /// The trap that these bytes spring, and where in them its word begins.
    fn snap(&self, bytes: &[u8]) -> Option<(Trap, usize)> {
        let mut trap = self.shared.trap.lock().unwrap();
        let word = match trap.as_ref()? {
            Trap::Cut(word) | Trap::Hold(word) => word,
        };
        let place = bytes.windows(word.len()).position(|window| window == word)?;
        self.shared.sprung.fetch_add(1, Ordering::SeqCst);
        trap.take().map(|trap| (trap, place))
    }

    /// How many of `read` bytes may pass. Fewer: the connection ends behind them, and the limit is lifted.
    fn allowed(&self, read: usize) -> usize {
        let limit = if self.to_server { &self.shared.to_server } else { &self.shared.from_server };
        let left = limit.load(Ordering::SeqCst);
        if left < 0 {
            return read;
        }
        let passed = read.min(usize::try_from(left).expect("not negative"));
        let rest = if passed < read { -1 } else { left - i64::try_from(passed).expect("a buffer's length") };
        limit.store(rest, Ordering::SeqCst);
        passed
    }
}
