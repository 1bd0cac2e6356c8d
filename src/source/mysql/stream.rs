//! The stream of a migration, as the pipeline reads it.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::MySource;
use super::reader::Reader;
use super::setup;
use crate::change::{Budget, Durable, Position};
use crate::error::{Error, Kind, Result};
use crate::schema::TableSchema;
use crate::source::{ChangeStream, StreamItem};

/// Chunks that may wait between the reader and the pipeline. The budget bounds their bytes.
const CHANNEL: usize = 512;

/// A running stream. Dropping it ends the connection.
pub struct MyStream {
    items: mpsc::Receiver<Result<StreamItem>>,
    closing: CancellationToken,
    /// Sent by the thread when the reader has ended; dropped unsent if it panicked.
    ended: oneshot::Receiver<()>,
}

impl MyStream {
    /// The migration's own.
    pub(super) async fn start(
        source: &MySource,
        from: &Position,
        tables: &[Arc<TableSchema>],
        budget: &Budget,
    ) -> Result<MyStream> {
        MyStream::start_as(setup::Reader::main(source), source, from, tables, budget).await
    }

    /// One beside it.
    pub(super) async fn beside(
        source: &MySource,
        from: &Position,
        tables: &[Arc<TableSchema>],
        budget: &Budget,
    ) -> Result<MyStream> {
        MyStream::start_as(setup::Reader::beside(source), source, from, tables, budget).await
    }

    async fn start_as(
        reader: setup::Reader,
        source: &MySource,
        from: &Position,
        tables: &[Arc<TableSchema>],
        budget: &Budget,
    ) -> Result<MyStream> {
        let (sender, items) = mpsc::channel(CHANNEL);
        let (mut ready, started) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let closing = CancellationToken::new();
        // Decoding is work: on the runtime of everybody it would stand in the way of timers.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (source, from, tables) = (source.clone(), from.clone(), tables.to_vec());
        let (budget, closes) = (budget.clone(), closing.clone());
        let work = async move {
            let opened = tokio::select! {
                opened = setup::open(&source, &from, &tables, &reader) => opened,
                // Nobody waits for it any more.
                () = ready.closed() => return,
            };
            let (stream, assembler) = match opened {
                Ok(opened) => opened,
                Err(error) => return drop(ready.send(Err(error))),
            };
            if ready.send(Ok(())).is_ok() {
                Reader::new(stream, assembler, budget, sender, closes).run().await;
            }
        };
        std::thread::Builder::new().name("cutwater-reader".into()).spawn(move || {
            runtime.block_on(work);
            let _ = end.send(());
        })?;
        started.await.map_err(|_| Error::new(Kind::Internal, "the reader of the binary log broke"))??;
        Ok(MyStream { items, closing, ended })
    }
}

impl ChangeStream for MyStream {
    async fn next(&mut self) -> Result<StreamItem> {
        match self.items.recv().await {
            Some(item) => item,
            None => Err(Error::new(Kind::Connection, "the source's stream has ended")),
        }
    }

    /// A MySQL source keeps its log by age or size, whoever reads it: there is nobody to tell.
    fn confirm(&self, _durable: &Durable<Position>) {}

    async fn close(self) -> Result<()> {
        self.closing.cancel();
        drop(self.items);
        self.ended.await.map_err(|_| Error::new(Kind::Internal, "the reader of the binary log broke"))
    }
}
