//! The ranges of tables that are copied in ranges of their key: `cutwater.table_chunk`.

use std::collections::HashMap;

use super::access::State;
use super::db::params;
use crate::change::{Chunk, ChunkMap};
use crate::error::Result;
use crate::schema::TableName;

impl State {
    /// The ranges of every table that has some, by its name at the source.
    pub async fn chunks(&self) -> Result<HashMap<TableName, ChunkMap>> {
        // Behind a dot a reserved word is a name like any other.
        let sql =
            "SELECT c.source_schema, c.source_table, c.key_column, c.number, c.lower, c.upper, c.copied_at, c.rows
                   FROM cutwater.table_chunk AS c WHERE c.migration = $1
                   ORDER BY c.source_schema, c.source_table, c.number";
        let rows = self.query("reading the ranges of large tables", sql, params![self.name()]).await?;
        let mut maps: HashMap<TableName, ChunkMap> = HashMap::new();
        for row in rows {
            let column = row.get(2)?;
            let map = maps.entry(row.name(0)?).or_insert_with(|| ChunkMap { column, chunks: Vec::new() });
            map.chunks.push(Chunk {
                number: row.get(3)?,
                lower: row.get(4)?,
                upper: row.get(5)?,
                copied_at: row.parse_opt(6)?,
                rows: row.get(7)?,
            });
        }
        Ok(maps)
    }

    /// Forgets a table's ranges: its copy begins anew.
    pub async fn forget_chunks(&self, source: &TableName) -> Result<()> {
        let sql = "DELETE FROM cutwater.table_chunk WHERE migration = $1 AND source_schema = $2 AND source_table = $3";
        let params = params![self.name(), &source.schema, &source.table];
        self.execute("forgetting the ranges of a table", sql, params).await.map(drop)
    }
}
