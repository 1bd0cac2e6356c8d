//! The ranges of tables that are copied in ranges of their key: `cutwater.table_chunk`.

use std::collections::HashMap;

use super::{Params, State, position};
use crate::change::{Chunk, ChunkMap};
use crate::error::Result;
use crate::schema::TableName;

impl State {
    /// The ranges of every table that has some, by its name at the source.
    pub async fn chunks(&self) -> Result<HashMap<TableName, ChunkMap>> {
        let sql = "SELECT source_schema, source_table, key_column, number, lower, upper, copied_at, rows
                   FROM cutwater.table_chunk WHERE migration = $1 ORDER BY source_schema, source_table, number";
        let rows = self.query("reading the ranges of large tables", sql, &[&self.migration]).await?;
        let mut maps: HashMap<TableName, ChunkMap> = HashMap::new();
        for row in rows {
            let name = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
            let map = maps.entry(name).or_insert_with(|| ChunkMap { column: row.get(2), chunks: Vec::new() });
            map.chunks.push(Chunk {
                number: row.get(3),
                lower: row.get(4),
                upper: row.get(5),
                copied_at: position(row.get(6))?,
                rows: row.get(7),
            });
        }
        Ok(maps)
    }

    /// Forgets a table's ranges: its copy begins anew.
    pub async fn forget_chunks(&self, source: &TableName) -> Result<()> {
        let sql = "DELETE FROM cutwater.table_chunk WHERE migration = $1 AND source_schema = $2 AND source_table = $3";
        let params: Params<'_> = &[&self.migration, &source.schema, &source.table];
        self.execute("forgetting the ranges of a table", sql, params).await.map(drop)
    }
}
