//! The stream of a slot: checks that it can start where it should, starts it, hands it out.
//!
//! The connection lives on a thread of its own with a runtime of its own, because the reader's pauses must be real ones:
//! in a shared runtime the kernel would wake somebody for every message of the server even while nobody wants to read.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::PgSource;
use super::assemble::Assembler;
use super::pgoutput;
use super::reader::{Reader, Shared};
use crate::change::{Budget, Durable, Lsn, Position};
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::{Purpose, Wire};
use crate::schema::{Ident, TableSchema};
use crate::source::{ChangeStream, StreamItem};

/// Chunks that may wait between the reader and the pipeline: what is read while a batch is applied. The budget bounds
/// their bytes.
const CHANNEL: usize = 512;

/// A running stream. Dropping it ends the connection.
pub struct PgStream {
    items: mpsc::Receiver<Result<StreamItem>>,
    shared: Arc<Shared>,
    /// Sent by the thread when the reader has ended; dropped unsent if it panicked.
    ended: oneshot::Receiver<()>,
}

impl PgStream {
    pub(super) async fn start(
        source: &PgSource,
        from: Lsn,
        tables: &[Arc<TableSchema>],
        budget: &Budget,
        (binary, server_version): (bool, i32),
        temporary: Option<(Wire, String)>,
    ) -> Result<PgStream> {
        let shared = Shared::starting_at(from);
        let (sender, items) = mpsc::channel(CHANNEL);
        let (mut ready, started) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let assembler = Assembler::new(source.migration(), tables);
        let (source, budget, told) = (source.clone(), budget.clone(), Arc::clone(&shared));
        let work = async move {
            let opened = tokio::select! {
                opened = open(&source, from, (binary, server_version), temporary) => opened,
                // Nobody waits for it any more.
                () = ready.closed() => return,
            };
            let wire = match opened {
                Ok(wire) => wire,
                Err(error) => return drop(ready.send(Err(error))),
            };
            if ready.send(Ok(())).is_ok() {
                Reader::new(wire, assembler, budget, sender, told, from).run().await;
            }
        };
        std::thread::Builder::new().name("cutwater-reader".into()).spawn(move || {
            runtime.block_on(work);
            let _ = end.send(());
        })?;
        started.await.map_err(|_| Error::new(Kind::Internal, "the reader of the stream broke"))??;
        Ok(PgStream { items, shared, ended })
    }
}

/// Starts the migration's slot on a connection of its own, or a temporary one on the connection that made it.
async fn open(
    source: &PgSource,
    from: Lsn,
    (binary, server_version): (bool, i32),
    temporary: Option<(Wire, String)>,
) -> Result<Wire> {
    let (own, slot) = match temporary {
        Some((wire, slot)) => (Some(wire), slot),
        None => (None, source.slot_name().to_owned()),
    };
    let slot = slot.as_str();
    let doing = || format!("starting the stream of slot {slot:?} at {from}");
    let mut wire = match own {
        Some(wire) => wire,
        None => {
            let mut wire = source.wire(Purpose::Replication).await?;
            check_slot(&mut wire, slot, from).await.with_context(doing)?;
            wire
        }
    };
    let protocol = pgoutput::protocol_version(server_version);
    let command = format!(
        "START_REPLICATION SLOT {} LOGICAL {from} (proto_version '{protocol}', publication_names '{}'{}{})",
        Ident(slot),
        Ident(source.publication_name()).to_string().replace('\'', "''"),
        if binary { ", binary 'true'" } else { "" },
        // For our heartbeats; those of the application come too, and are passed over.
        if server_version >= 140_000 { ", messages 'true'" } else { "" },
    );
    wire.start_copy(&command, b'W').await.map_err(|error| explain_start(error, slot)).with_context(doing)?;
    tracing::info!(slot, %from, binary, protocol, "streaming");
    Ok(wire)
}

/// `START_REPLICATION` at a place before the slot's starts at the slot's place, without a word: a silent gap (TRAPS 2).
async fn check_slot(wire: &mut Wire, slot: &str, from: Lsn) -> Result<()> {
    let literal = slot.replace('\'', "''");
    let rows = wire
        .query(&format!(
            "SELECT confirmed_flush_lsn, wal_status, active_pid FROM pg_catalog.pg_replication_slots \
             WHERE slot_name = '{literal}'"
        ))
        .await?;
    let Some(row) = rows.first() else {
        return Err(lost(format!("the slot {slot:?} does not exist")));
    };
    if let Some(Some(pid)) = row.get(2) {
        return Err(Error::new(Kind::SlotInUse, format!("process {pid} of the source reads the slot already")));
    }
    if row.get(1).and_then(Option::as_deref) == Some("lost") {
        let why = "the source has thrown away log that the slot needs (wal_status is \"lost\")";
        return Err(Error::new(Kind::SlotLost, why)
            .fix("raise max_slot_wal_keep_size (or set it to -1), then begin again: cutwater teardown, cutwater run"));
    }
    if let Some(Some(confirmed)) = row.first() {
        let confirmed: Lsn = confirmed.parse()?;
        if confirmed > from {
            return Err(lost(format!(
                "the slot was confirmed up to {confirmed}, past the target's checkpoint {from}: the changes between are gone. \
                 The target was restored or failed over to an older state, or something else reads the slot"
            )));
        }
    }
    Ok(())
}

fn lost(why: String) -> Error {
    Error::new(Kind::SlotLost, why)
        .fix("what the slot held cannot be read again: begin again with cutwater teardown, then cutwater run")
}

fn explain_start(error: Error, slot: &str) -> Error {
    let why = error.why();
    if why.contains("can no longer get changes from replication slot") || why.contains("cannot read from logical") {
        return lost(format!("the slot {slot:?} can no longer be read: {why}"));
    }
    if error.kind() == Kind::SlotInUse {
        return error.fix("end the other process, or wait until it has gone");
    }
    if why.contains("does not exist") && why.contains("replication slot") {
        return lost(why.to_owned());
    }
    super::setup::explain(error)
}

impl ChangeStream for PgStream {
    async fn next(&mut self) -> Result<StreamItem> {
        match self.items.recv().await {
            Some(item) => item,
            None => Err(Error::new(Kind::Connection, "the source's stream has ended")),
        }
    }

    fn confirm(&self, durable: &Durable<Position>) {
        // Our own positions come back to us: there is no other kind.
        if let Ok(lsn) = durable.get().lsn() {
            self.shared.confirm(lsn);
        }
    }

    async fn close(self) -> Result<()> {
        self.shared.closing.cancel();
        // After the cancellation: the reader may be waiting for room in the channel.
        drop(self.items);
        self.ended.await.map_err(|_| Error::new(Kind::Internal, "the reader of the stream broke"))
    }
}
