//! The rows under keys that were kept, read at both ends.

use tokio_postgres::types::ToSql;

use super::table::{Both, Work, entry};
use crate::error::Result;
use crate::postgres::Client;
use crate::verify::TableReport;
use crate::verify::judge::{Found, compare, identity};

impl Work<'_> {
    /// Compares the rows under these keys.
    pub(super) async fn compare_keys(&self, keys: &[Vec<String>], report: &mut TableReport) -> Result<()> {
        let both: Both = self.statements(1).await?;
        let (at_source, at_target) = tokio::try_join!(
            read(&self.pair.source, &both.source.again, keys),
            read(&self.pair.target, &both.target.again, keys),
        )?;
        compare(at_source, at_target, self.look.options.named_rows, report);
        Ok(())
    }
}

/// The rows with these keys, by the key they have here.
async fn read(client: &Client, sql: &str, keys: &[Vec<String>]) -> Result<Found> {
    let width = keys.first().map_or(0, Vec::len);
    let columns: Vec<Vec<&str>> = (0..width).map(|n| keys.iter().map(|key| key[n].as_str()).collect()).collect();
    let params: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|column| column as &(dyn ToSql + Sync)).collect();
    let rows = client.query(sql, &params).await?;
    Ok(rows.iter().map(entry).map(|entry| (identity(true, 0, &entry.key), entry)).collect())
}
