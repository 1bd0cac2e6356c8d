//! Reads the binary log from the server, on a thread of its own.
//!
//! Events flow in, [`StreamItem`]s flow out through a bounded channel. While the budget is used up nothing is read, and the
//! server waits with its next event; its session was told to wait long. Nothing flows back: a MySQL source keeps its log by
//! age or size, and does not ask a reader.
//!
//! What can go wrong: the connection breaks, or the server stops (both are tried again); the server sends an error instead
//! of an event, which says what is missing (1236), or that another reader has the same server id.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use mysql_async::BinlogStream;
use mysql_async::binlog::events::Event as Received;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::assemble::Assembler;
use super::binlog::{Event, HEADER_LENGTH, TransactionPayload, kind};
use crate::change::{Budget, ChangeEvent};
use crate::error::{Error, Kind, Result};
use crate::source::{EventChunk, StreamItem};

/// The server says that it is alive this often when it has nothing to send.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(5);
/// Nothing heard for this long: the connection is dead.
const DEAD_AFTER: Duration = Duration::from_secs(60);
/// Events taken as one chunk, in bytes of log.
const CHUNK: usize = 256 << 10;
/// What an event takes besides the bytes it holds on to.
const EVENT_SIZE: usize = std::mem::size_of::<ChangeEvent>();

/// Why the reader stopped.
enum Stop {
    /// Nobody wants more.
    Ended,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

pub(super) struct Reader {
    stream: BinlogStream,
    assembler: Assembler,
    budget: Budget,
    items: mpsc::Sender<Result<StreamItem>>,
    closing: CancellationToken,
    events: Vec<ChangeEvent>,
    /// Bytes of log since the last chunk was given.
    bytes: usize,
}

impl Reader {
    pub(super) fn new(
        stream: BinlogStream,
        assembler: Assembler,
        budget: Budget,
        items: mpsc::Sender<Result<StreamItem>>,
        closing: CancellationToken,
    ) -> Reader {
        Reader { stream, assembler, budget, items, closing, events: Vec::new(), bytes: 0 }
    }

    pub(super) async fn run(mut self) {
        if let Stop::Failed(error) = self.read_on().await {
            let _ = self.items.send(Err(error.context("reading the source's binary log"))).await;
        }
        if let Err(error) = self.stream.close().await {
            tracing::debug!(%error, "the binary log was not closed cleanly");
        }
    }

    async fn read_on(&mut self) -> Stop {
        loop {
            let took = self.take_one().await;
            let due = took.is_err() || self.bytes >= CHUNK;
            // What came before an error is given all the same.
            if due && let Err(stop) = self.give_all().await {
                return stop;
            }
            if let Err(stop) = took {
                return stop;
            }
        }
    }

    /// Takes the next event; when there is none at once, gives first what has gathered.
    async fn take_one(&mut self) -> Result<(), Stop> {
        let received = match self.stream.next().now_or_never() {
            Some(received) => received,
            None => {
                self.give_all().await?;
                tokio::select! {
                    biased;
                    () = self.closing.cancelled() => return Err(Stop::Ended),
                    () = self.items.closed() => return Err(Stop::Ended),
                    received = timeout(DEAD_AFTER, self.stream.next()) => received.map_err(|_| {
                        let seconds = DEAD_AFTER.as_secs();
                        Error::new(Kind::Connection, format!("nothing was heard for {seconds} s"))
                    })?,
                }
            }
        };
        let Some(received) = received else {
            return Err(Error::new(Kind::Connection, "the source ended the stream: it is shutting down").into());
        };
        let received = received.map_err(Error::from)?;
        // The driver unpacks compressed transactions at once and whole; we did it already, piece by piece.
        if !received.footer().get_checksum_enabled() {
            return Ok(());
        }
        let (header, event) = Event::decode(raw(&received)?, self.assembler.format())?;
        self.bytes += header.size as usize;
        match event {
            Event::Payload(payload) => {
                self.assembler.feed(&header, Event::Ignored, false, &mut self.events)?;
                self.unpack(&payload).await
            }
            event => Ok(self.assembler.feed(&header, event, false, &mut self.events)?),
        }
    }

    /// Takes the events of a compressed transaction.
    async fn unpack(&mut self, payload: &TransactionPayload) -> Result<(), Stop> {
        let format = self.assembler.format().without_checksum();
        for event in payload.events()? {
            let event = event?;
            self.bytes += event.len();
            let (header, event) = Event::decode(event, &format)?;
            self.assembler.feed(&header, event, true, &mut self.events)?;
            if self.bytes >= CHUNK {
                self.give_all().await?;
            }
        }
        Ok(())
    }

    async fn give_all(&mut self) -> Result<(), Stop> {
        let bytes = std::mem::take(&mut self.bytes);
        if !self.events.is_empty() {
            let capacity = self.events.len();
            let events = std::mem::replace(&mut self.events, Vec::with_capacity(capacity));
            let bytes = bytes + events.len() * EVENT_SIZE;
            let budget = self.budget.clone();
            let share = self.unless_ended(budget.take(bytes)).await?;
            self.give(StreamItem::Events(EventChunk { events, bytes, age: self.assembler.age(), share })).await?;
        }
        match self.assembler.idle() {
            Some(position) => self.give(StreamItem::Idle(position)).await,
            None => Ok(()),
        }
    }

    async fn give(&self, item: StreamItem) -> Result<(), Stop> {
        match self.unless_ended(self.items.send(Ok(item))).await? {
            Ok(()) => Ok(()),
            Err(_) => Err(Stop::Ended),
        }
    }

    async fn unless_ended<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            () = self.closing.cancelled() => Err(Stop::Ended),
            () = self.items.closed() => Err(Stop::Ended),
            done = work => Ok(done),
        }
    }
}

/// The event's bytes as the server sent them: the driver has taken the checksum off.
fn raw(received: &Received) -> Result<Bytes> {
    let (header, data) = (received.header(), received.data());
    let mut bytes = BytesMut::with_capacity(HEADER_LENGTH + data.len() + 5);
    bytes.put_u32_le(header.timestamp());
    bytes.put_u8(header.event_type_raw());
    bytes.put_u32_le(header.server_id());
    bytes.put_u32_le(header.event_size());
    bytes.put_u32_le(header.log_pos());
    bytes.put_u16_le(header.flags_raw());
    bytes.put_slice(data);
    if header.event_type_raw() == kind::FORMAT_DESCRIPTION
        && let Some(algorithm) = received.footer().get_checksum_alg().map_err(|error| {
            Error::new(Kind::Protocol, format!("the log's events end with a checksum that is not known: {error}"))
        })?
    {
        bytes.put_u8(algorithm as u8);
    }
    if let Some(checksum) = received.checksum() {
        bytes.put_slice(&checksum);
    }
    Ok(bytes.freeze())
}
