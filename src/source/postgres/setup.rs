//! Slots: made with an exported snapshot, looked at, dropped.

use std::time::Duration;

use tokio::time::{Instant, interval_at};

use super::PgSource;
use crate::change::{Lsn, Position};
use crate::error::{Context, Error, Kind, Result};
use crate::postgres::{Client, Purpose, Wire};
use crate::schema::Ident;
use crate::source::SlotState;

/// How often the log says what the slot is waiting for.
const WAIT_REPORT: Duration = Duration::from_secs(3);

/// A slot's exported snapshot: valid until the next command on `wire`, or its end.
pub(super) struct Exported {
    pub(super) wire: Wire,
    pub(super) consistent_point: Lsn,
    pub(super) snapshot: String,
}

/// Creates a slot and exports the snapshot of its consistent point.
pub(super) async fn create_slot(source: &PgSource, name: &str, temporary: bool) -> Result<Exported> {
    let doing = || format!("creating the slot {name:?} on {}", source.info().label());
    let mut wire = source.wire(Purpose::Replication).await.map_err(explain)?;
    // The old spelling, which every version reads; 15 and later have (SNAPSHOT 'export') as well.
    let kind = if temporary { " TEMPORARY" } else { "" };
    let command = format!("CREATE_REPLICATION_SLOT {}{kind} LOGICAL pgoutput EXPORT_SNAPSHOT", Ident(name));
    let rows = {
        let creating = wire.query(&command);
        tokio::pin!(creating);
        let mut reports = interval_at(Instant::now() + WAIT_REPORT, WAIT_REPORT);
        loop {
            tokio::select! {
                rows = &mut creating => break rows.map_err(explain).with_context(doing)?,
                _ = reports.tick() => report_waiting(source).await,
            }
        }
    };
    let row = rows.into_iter().next().unwrap_or_default();
    match <[Option<String>; 4]>::try_from(row) {
        Ok([_, Some(point), Some(snapshot), _]) => {
            let consistent_point = point.parse().with_context(doing)?;
            tracing::info!(slot = name, temporary, %consistent_point, "slot created");
            Ok(Exported { wire, consistent_point, snapshot })
        }
        _ => Err(Error::new(Kind::Protocol, "the server answered without a snapshot").context(doing())),
    }
}

/// A new slot becomes consistent once every transaction that was running has ended: say which those are.
async fn report_waiting(source: &PgSource) {
    let rows = async { Ok::<_, Error>(source.connect().await?.query(include_str!("waiting.sql"), &[]).await?) };
    match rows.await {
        Ok(rows) => {
            for row in rows {
                let pid: Option<i32> = row.get("pid");
                let (age, who, what): (String, String, String) = (row.get("age"), row.get("who"), row.get("what"));
                tracing::warn!(pid, age, who, what, "the slot waits for this transaction to end");
            }
        }
        Err(error) => tracing::warn!(%error, "the slot waits for older transactions to end"),
    }
}

/// The slot, if it exists.
pub(super) async fn slot(client: &Client, name: &str) -> Result<Option<SlotState>> {
    let row = client
        .query_opt(
            "SELECT confirmed_flush_lsn::text, active_pid, coalesce(wal_status = 'lost', false) \
             FROM pg_catalog.pg_replication_slots WHERE slot_name = $1",
            &[&name],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let confirmed: Option<String> = row.get(0);
    let lsn = confirmed.map_or(Ok(Lsn::default()), |text| text.parse())?;
    Ok(Some(SlotState { confirmed: Position::Postgres(lsn), active_pid: row.get(1), lost: row.get(2) }))
}

/// Drops the slot; whoever reads it is given a moment to go, and is then ended. `false`: there was none.
pub(super) async fn drop_slot(client: &Client, name: &str) -> Result<bool> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let patience = Instant::now() + Duration::from_secs(2);
    loop {
        let Some(state) = slot(client, name).await? else { return Ok(false) };
        match state.active_pid {
            None => match client.execute("SELECT pg_catalog.pg_drop_replication_slot($1)", &[&name]).await {
                Ok(_) => return Ok(true),
                Err(error) => {
                    let error = Error::from(error);
                    // It became active again, or somebody else dropped it: look again.
                    let gone = error.kind() == Kind::Schema;
                    if Instant::now() > deadline || !(gone || error.kind() == Kind::SlotInUse) {
                        return Err(error);
                    }
                }
            },
            Some(pid) if Instant::now() > patience => {
                tracing::warn!(slot = name, pid, "ending the process that still reads the slot");
                client.execute("SELECT pg_catalog.pg_terminate_backend($1)", &[&pid]).await?;
            }
            Some(_) => {}
        }
        if Instant::now() > deadline {
            return Err(Error::new(Kind::SlotInUse, "another process keeps reading the slot"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Ends the session in which a predecessor of ours still reads the slot: a frozen process, or a connection whose other end
/// is gone without a word, would hold it until `wal_sender_timeout`. Only sessions that carry our own name; another
/// reader is somebody else's, and is left alone.
pub(super) async fn end_predecessor(client: &Client, slot: &str, application: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(2);
    while Instant::now() < deadline {
        let ended = client.query(include_str!("end_predecessor.sql"), &[&slot, &application]).await?;
        if ended.is_empty() {
            return Ok(());
        }
        tracing::info!(slot, "ended the session of a predecessor that still read the slot");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// What a server's refusal to replicate means, and what to do.
pub(super) fn explain(error: Error) -> Error {
    let why = error.why().to_owned();
    let setting = |fix: &str| Error::new(Kind::ServerSetting, why.clone()).fix(fix);
    if why.contains("wal_level") {
        return setting("ALTER SYSTEM SET wal_level = 'logical';  then restart the source");
    }
    if why.contains("all replication slots are in use") {
        return setting(
            "drop a slot that nobody needs (SELECT * FROM pg_replication_slots), or \
             ALTER SYSTEM SET max_replication_slots = 20;  then restart the source",
        );
    }
    if why.contains("max_wal_senders") {
        return setting("ALTER SYSTEM SET max_wal_senders = 20;  then restart the source");
    }
    if error.kind() == Kind::Privilege && (why.contains("walsender") || why.contains("replication")) {
        return error.fix("ALTER ROLE … REPLICATION;  for the role in the source's URL");
    }
    error
}
