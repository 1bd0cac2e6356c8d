//! What `status` shows of the source.

use jiff::Timestamp;

use super::PgSource;
use crate::change::{LogFiles, Lsn};
use crate::error::{Error, Kind, Result};
use crate::postgres::connect;
use crate::source::{Head, Standing};

/// Asks for it.
pub(super) async fn ask(source: &PgSource) -> Result<Standing> {
    let client = connect(source.info(), "cutwater status").await?;
    let ours = source.info().session_name(&format!("cutwater_{}", source.migration()));
    let row = client.query_one(include_str!("standing.sql"), &[&source.slot_name(), &ours]).await?;
    let time = Timestamp::from_microsecond(row.get(0));
    let head: Lsn = row.get::<_, &str>(1).parse()?;
    let retained = row.get::<_, Option<i64>>(3).map(|bytes| bytes.max(0) as u64);
    let safe: Option<i64> = row.get(5);
    Ok(Standing {
        version: row.get(2),
        head: Head {
            position: head.into(),
            files: LogFiles::default(),
            time: time.map_err(|error| Error::new(Kind::Internal, error.to_string()))?,
            retained_bytes: retained,
            slot_status: row.get(4),
            server_limit_bytes: retained.zip(safe).map(|(kept, safe)| kept.saturating_add_signed(safe)),
        },
        confirmed: row.get::<_, Option<&str>>(6).map(str::parse).transpose()?,
        vacuum_held_seconds: row.get(7),
    })
}
