//! Reads the replication connection, on a thread of its own.
//!
//! Frames flow in, [`StreamItem`]s flow out through a bounded channel, status updates flow back. The three rules:
//!
//! - **Feedback never waits.** Whatever else the task waits for (the socket, the budget, the channel), it sends a status
//!   update every second, and soon after a confirmation; or the server would drop us while the target is slow.
//! - **Reads are coalesced while busy.** pgoutput sends every message with its own `send()`, and a reader that wakes for
//!   each makes the walsender switch for each. A pause between reads doubles what the source manages (FINDINGS.md).
//! - **Nothing is confirmed but what was said to be durable** (law 1), and never less than where the stream started.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::{BufMut, BytesMut};
use postgres_protocol::message::frontend;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::assemble::Assembler;
use crate::change::{Budget, ChangeEvent, Lsn};
use crate::error::{Error, Kind, Result};
use crate::postgres::Wire;
use crate::source::{EventChunk, StreamItem};

/// A status update at least this often. The server's `wal_sender_timeout` is seldom below a few seconds.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// … and this long after the last one when something new is durable, so that synchronous commits and slots go on.
const CONFIRM_INTERVAL: Duration = Duration::from_millis(50);
/// Nothing heard for this long: ask for an answer with every status update.
const ASK_AFTER: Duration = Duration::from_secs(10);
/// Still nothing: the connection is dead.
const DEAD_AFTER: Duration = Duration::from_secs(60);
/// Frames taken as one chunk, in bytes.
const CHUNK: usize = 256 << 10;
/// The pause between reads while busy.
const PAUSE: Duration = Duration::from_millis(1);
/// Busy: more than this arrives within …
const BUSY_BYTES: usize = 16 << 10;
/// … about this time.
const BUSY_WINDOW: Duration = Duration::from_millis(2);
/// What an event takes beside the bytes of its frame.
const EVENT_SIZE: usize = size_of::<ChangeEvent>();

/// What the handle of the stream and the task share.
#[derive(Default)]
pub(super) struct Shared {
    /// The LSN up to which everything is durable.
    confirmed: AtomicU64,
    changed: Notify,
    /// Told to end cleanly.
    pub(super) closing: CancellationToken,
}

impl Shared {
    pub(super) fn starting_at(from: Lsn) -> Arc<Shared> {
        Arc::new(Shared { confirmed: AtomicU64::new(from.0), ..Shared::default() })
    }

    pub(super) fn confirm(&self, durable: Lsn) {
        if self.confirmed.fetch_max(durable.0, Ordering::Relaxed) < durable.0 {
            self.changed.notify_one();
        }
    }
}

/// Reads until the handle is dropped, the stream is closed, or something fails; the failure is the last item.
pub(super) struct Reader {
    wire: Wire,
    assembler: Assembler,
    budget: Budget,
    items: mpsc::Sender<Result<StreamItem>>,
    shared: Arc<Shared>,
    last_status: Instant,
    last_confirmed: u64,
    last_heard: Instant,
    /// The last place given as a commit's end or as idle.
    given: Lsn,
    /// How old the newest commit was when it was sent.
    age: Duration,
}

/// Why the task ends without a failure.
#[derive(Debug, PartialEq)]
enum End {
    Dropped,
    Closing,
}

enum Stop {
    End(End),
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

impl Reader {
    pub(super) fn new(
        wire: Wire,
        assembler: Assembler,
        budget: Budget,
        items: mpsc::Sender<Result<StreamItem>>,
        shared: Arc<Shared>,
        from: Lsn,
    ) -> Reader {
        let now = Instant::now();
        Reader {
            wire,
            assembler,
            budget,
            items,
            shared,
            last_status: now,
            last_confirmed: from.0,
            last_heard: now,
            given: from,
            age: Duration::ZERO,
        }
    }

    pub(super) async fn run(mut self) {
        match self.read_on().await {
            Stop::End(End::Dropped) => {}
            Stop::End(End::Closing) => {
                if let Err(error) = self.say_goodbye().await {
                    tracing::debug!(%error, "the stream was not closed cleanly");
                }
            }
            Stop::Failed(error) => {
                let _ = self.items.send(Err(error.context("reading the source's stream"))).await;
            }
        }
    }

    /// Reads, decodes, delivers; returns why it stopped.
    async fn read_on(&mut self) -> Stop {
        let mut window = Instant::now();
        let (mut window_bytes, mut busy) = (0, false);
        // Something may have come together with the answer that began the stream, and be all that ever comes: an error.
        let mut missing = match self.deliver_all().await {
            Ok(missing) => missing,
            Err(stop) => return stop,
        };
        loop {
            if busy {
                // The whole thread: nothing else runs on it (see `stream`), and a timer of the runtime would be served
                // by epoll, which the server's every message wakes.
                std::thread::sleep(PAUSE);
            }
            match self.read(missing).await {
                Ok(count) => window_bytes += count,
                Err(stop) => return stop,
            }
            if window.elapsed() >= BUSY_WINDOW {
                busy = window_bytes >= BUSY_BYTES;
                (window, window_bytes) = (Instant::now(), 0);
            }
            missing = match self.deliver_all().await {
                Ok(missing) => missing,
                Err(stop) => return stop,
            };
        }
    }

    async fn read(&mut self, missing: usize) -> Result<usize, Stop> {
        let waiting_since = Instant::now();
        loop {
            tokio::select! {
                biased;
                count = self.wire.read(missing) => {
                    self.last_heard = Instant::now();
                    return Ok(count?);
                }
                () = status_due(&self.shared, self.last_status, self.last_confirmed) => {}
                () = self.shared.closing.cancelled() => return Err(Stop::End(End::Closing)),
                () = self.items.closed() => return Err(Stop::End(End::Dropped)),
            }
            if waiting_since.elapsed() > DEAD_AFTER {
                let seconds = waiting_since.elapsed().as_secs();
                return Err(Error::new(Kind::Connection, format!("nothing was heard for {seconds} s")).into());
            }
            self.send_status(waiting_since.elapsed() > ASK_AFTER).await?;
        }
    }

    /// Hands on everything that has been read completely; returns how many bytes the next frame lacks.
    async fn deliver_all(&mut self) -> Result<usize, Stop> {
        let mut capacity = 0;
        loop {
            let (frames, missing) = self.wire.take_frames(CHUNK)?;
            if frames.is_empty() {
                return Ok(missing);
            }
            let frame_bytes = frames.len();
            let mut events = Vec::with_capacity(capacity);
            let said = self.assembler.feed(frames, &mut events);
            capacity = events.len();
            if let Some(ChangeEvent::Commit(commit)) =
                events.iter().rev().find(|event| matches!(event, ChangeEvent::Commit(_)))
            {
                self.given = self.given.max(commit.end.lsn()?);
            }
            if !events.is_empty() {
                if let Ok(Some(age)) = said.as_ref().map(|said| said.age) {
                    self.age = Duration::from_micros(u64::try_from(age).unwrap_or(0));
                }
                let bytes = frame_bytes + events.len() * EVENT_SIZE;
                let budget = self.budget.clone();
                let share = self.while_reporting(budget.take(bytes)).await?;
                self.give(StreamItem::Events(EventChunk { events, bytes, age: self.age, share })).await?;
            }
            let said = said?;
            if said.reply_requested {
                self.send_status(false).await?;
            }
            if let Some(idle) = said.idle.filter(|&idle| idle > self.given) {
                self.given = idle;
                self.give(StreamItem::Idle(idle.into())).await?;
            }
        }
    }

    async fn give(&mut self, item: StreamItem) -> Result<(), Stop> {
        let items = self.items.clone();
        match self.while_reporting(items.reserve_owned()).await? {
            Ok(permit) => {
                permit.send(Ok(item));
                Ok(())
            }
            Err(_) => Err(Stop::End(End::Dropped)),
        }
    }

    /// Waits for `work` and keeps the server informed meanwhile.
    async fn while_reporting<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = status_due(&self.shared, self.last_status, self.last_confirmed) => {}
                () = self.shared.closing.cancelled() => return Err(Stop::End(End::Closing)),
                () = self.items.closed() => return Err(Stop::End(End::Dropped)),
            }
            self.send_status(false).await?;
        }
    }

    /// `Standby status update`: written, flushed and applied are all the same to us.
    async fn send_status(&mut self, ask_for_answer: bool) -> Result<()> {
        let confirmed = self.shared.confirmed.load(Ordering::Relaxed);
        let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut message = BytesMut::with_capacity(39);
        message.put_u8(b'd');
        message.put_u32(38);
        message.put_u8(b'r');
        for _ in ["written", "flushed", "applied"] {
            message.put_u64(confirmed);
        }
        message.put_i64(clock.as_micros() as i64 - 946_684_800_000_000);
        message.put_u8(u8::from(ask_for_answer));
        self.last_status = Instant::now();
        self.last_confirmed = confirmed;
        // A server that does not even take 39 bytes for so long is gone.
        match timeout(DEAD_AFTER, self.wire.send(&message)).await {
            Ok(sent) => sent,
            Err(_) => Err(Error::new(Kind::Connection, "the source takes no status updates")),
        }
    }

    /// The last confirmation and the end of the COPY; the server then frees the slot.
    async fn say_goodbye(&mut self) -> Result<()> {
        self.send_status(false).await?;
        let mut message = BytesMut::new();
        frontend::copy_done(&mut message);
        self.wire.send(&message).await?;
        // The server may still send a lot before it sees this: a moment's politeness is enough.
        let _ = timeout(Duration::from_secs(1), self.wire.until_ready()).await;
        message.clear();
        frontend::terminate(&mut message);
        self.wire.send(&message).await
    }
}

/// Returns when the next status update should be sent.
async fn status_due(shared: &Shared, last: Instant, last_confirmed: u64) {
    loop {
        let news = shared.confirmed.load(Ordering::Relaxed) > last_confirmed;
        let due = last + if news { CONFIRM_INTERVAL } else { STATUS_INTERVAL };
        tokio::select! {
            () = sleep_until(due) => return,
            () = shared.changed.notified(), if !news => {}
        }
    }
}
