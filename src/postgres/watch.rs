//! Connections that are lost without a word.
//!
//! A firewall that forgets a connection, a router that dies: nothing arrives any more and nobody is told. TCP notices when
//! the other host is gone, not when something in between goes on acknowledging; and silence alone says nothing, for a
//! statement may rightly take hours. So whoever has waited for an answer for [`PATIENCE`] asks over a second connection
//! what the session is doing at the server:
//!
//! | the session there | means |
//! |---|---|
//! | is active, and does not wait for its client | at work: wait on |
//! | is idle, or waits for its client | what we sent, or its answer, is lost |
//! | is gone | the same |
//! | cannot be asked about | not known: wait on |
//!
//! In: the bytes of both directions, of which only the frames' headers are looked at. Out: the same bytes, and an error
//! instead of the next ones once a session was found lost twice in a row. Everything behind it treats that as a broken
//! connection.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ConnInfo;
use super::dial::Socket;

/// Silence for so long, while an answer is owed, is looked into.
const PATIENCE: Duration = Duration::from_secs(20);
/// … and again after this long, before it is believed.
const AGAIN: Duration = Duration::from_secs(5);

/// A socket whose owner is told when nothing will ever come over it.
pub struct Watched {
    socket: Socket,
    /// Whether its frames are looked at.
    followed: bool,
    sent: Frames,
    heard: Frames,
    traffic: Arc<Traffic>,
}

/// What the watch knows of a connection.
struct Traffic {
    born: Instant,
    /// Requests whose answer has not ended.
    owed: AtomicI64,
    /// Milliseconds since `born`: the last byte that was heard, or sent while nothing was owed. What is asked later does
    /// not make the first answer less late.
    last: AtomicU64,
    /// The kernel takes no more bytes from us.
    blocked: AtomicBool,
    /// Somebody waits for bytes; not so while they are held back by whoever they are for.
    reading: AtomicBool,
    lost: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Watched {
    /// Watches a socket over which nothing was sent yet. Nobody asks before [`Watched::guard`].
    pub fn new(socket: Socket) -> Watched {
        let traffic = Traffic {
            born: Instant::now(),
            owed: AtomicI64::new(0),
            last: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
            reading: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
        };
        // The first message a client sends has no tag.
        let sent = Frames { header: [0; 5], filled: 1, skip: 0 };
        let heard = Frames { header: [0; 5], filled: 0, skip: 0 };
        Watched { socket, followed: true, sent, heard, traffic: Arc::new(traffic) }
    }

    /// A socket that is used as any other.
    pub fn not(socket: Socket) -> Watched {
        Watched { followed: false, ..Watched::new(socket) }
    }

    /// A handle by which the watch is begun once the session's process at the server is known.
    pub fn guard(&self) -> Guard {
        Guard(Arc::downgrade(&self.traffic))
    }

    /// What was read is enough for now: nobody waits for more before the next read.
    pub fn taken(&self) {
        self.traffic.reading.store(false, Ordering::Relaxed);
    }

    /// What it watches.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }
}

/// See [`Watched::guard`].
pub struct Guard(Weak<Traffic>);

impl Guard {
    /// Watches the session with this process id until its socket is dropped.
    pub fn watch(self, info: &ConnInfo, pid: i32) {
        tokio::spawn(watch(self.0, info.clone(), pid));
    }
}

async fn watch(traffic: Weak<Traffic>, info: ConnInfo, pid: i32) {
    let mut suspected_at = None;
    loop {
        tokio::time::sleep(AGAIN).await;
        let Some(traffic) = traffic.upgrade() else { return };
        let Some(last) = traffic.silent_since() else {
            suspected_at = None;
            continue;
        };
        let working = super::session::is_working(&info, pid).await;
        if working != Some(false) {
            suspected_at = None;
        } else if suspected_at == Some(last) {
            tracing::warn!(
                server = info.label(),
                "a connection is lost: the server waits for us there, and we for it; it is made again"
            );
            traffic.lost.store(true, Ordering::Relaxed);
            traffic.reader.wake();
            traffic.writer.wake();
            return;
        } else {
            suspected_at = Some(last);
        }
    }
}

impl Traffic {
    /// When the last byte passed, if an answer has been waited for since, for too long.
    fn silent_since(&self) -> Option<u64> {
        let waits = self.owed.load(Ordering::Relaxed) > 0 && self.reading.load(Ordering::Relaxed);
        let last = self.last.load(Ordering::Relaxed);
        let silent = self.now().saturating_sub(last) > PATIENCE.as_millis() as u64;
        ((waits || self.blocked.load(Ordering::Relaxed)) && silent).then_some(last)
    }

    fn now(&self) -> u64 {
        self.born.elapsed().as_millis() as u64
    }

    fn passed(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
    }

    fn lost(&self) -> io::Result<()> {
        if self.lost.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the connection was lost without a word"));
        }
        Ok(())
    }
}

/// Follows the frames of one direction: <https://www.postgresql.org/docs/current/protocol-message-formats.html>
struct Frames {
    header: [u8; 5],
    /// Bytes of the header that are there.
    filled: usize,
    /// Bytes of the body still to come.
    skip: usize,
}

impl Frames {
    /// Calls `each` with the tag of every frame that begins in `bytes`.
    fn follow(&mut self, mut bytes: &[u8], mut each: impl FnMut(u8)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (5 - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == 5 {
                let [tag, length @ ..] = self.header;
                each(tag);
                self.skip = (u32::from_be_bytes(length) as usize).saturating_sub(4);
                self.filled = 0;
            }
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Watched { socket, heard, traffic, followed, .. } = self.get_mut();
        if !*followed {
            return Pin::new(socket).poll_read(cx, buf);
        }
        traffic.lost()?;
        let before = buf.filled().len();
        if Pin::new(socket).poll_read(cx, buf)?.is_pending() {
            traffic.reader.register(cx.waker());
            traffic.reading.store(true, Ordering::Relaxed);
            return Poll::Pending;
        }
        traffic.reading.store(false, Ordering::Relaxed);
        traffic.passed();
        heard.follow(&buf.filled()[before..], |tag| {
            // Ready for query. And a COPY has begun: the Sync that was sent with it will be passed over.
            if matches!(tag, b'Z' | b'G') {
                traffic.owed.fetch_sub(1, Ordering::Relaxed);
            }
        });
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Watched { socket, sent, traffic, followed, .. } = self.get_mut();
        if !*followed {
            return Pin::new(socket).poll_write(cx, buf);
        }
        traffic.lost()?;
        let written = Pin::new(socket).poll_write(cx, buf)?;
        let unblocked = traffic.blocked.swap(written.is_pending(), Ordering::Relaxed);
        if written.is_pending() {
            traffic.writer.register(cx.waker());
        }
        let count = ready!(written);
        if unblocked || traffic.owed.load(Ordering::Relaxed) <= 0 {
            traffic.passed();
        }
        sent.follow(&buf[..count], |tag| {
            // The start-up message, a query, a Sync: each is answered up to a "ready for query".
            if matches!(tag, 0 | b'Q' | b'S') {
                traffic.owed.fetch_add(1, Ordering::Relaxed);
            }
        });
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::Frames;

    #[test]
    fn frames_are_followed_wherever_they_are_cut() {
        let mut stream = vec![0, 0, 0, 8, 1, 2, 3, 4];
        for tag in [b'Q', b'P', b'S'] {
            stream.push(tag);
            stream.extend_from_slice(&9u32.to_be_bytes());
            stream.extend_from_slice(b"12345");
        }
        stream.extend_from_slice(b"S\0\0\0\x04");
        for size in 1..stream.len() {
            let mut frames = Frames { header: [0; 5], filled: 1, skip: 0 };
            let mut tags = Vec::new();
            stream.chunks(size).for_each(|bytes| frames.follow(bytes, |tag| tags.push(tag)));
            assert_eq!(tags, [0, b'Q', b'P', b'S', b'S'], "cut every {size} bytes");
        }
    }
}
