-- The checkpoint of a side copy, and the mark on its tables by which their copies do not yet count as the stream's. The
-- migration's row is locked by the one who calls. $4: schemas, $5: names.
WITH begun AS (
    INSERT INTO cutwater.checkpoint (migration, worker, epoch, position) VALUES ($1::text, -1, $2::bigint, $3::text)
    RETURNING migration
)
UPDATE cutwater.table_state t
   SET side = true, stage = 'waiting', error = NULL, copied_at = NULL, rows_final = NULL, finished_at = NULL
  FROM begun, unnest($4::text[], $5::text[]) AS w (schema, name)
 WHERE t.migration = begun.migration AND t.epoch = $2 AND t.source_schema = w.schema AND t.source_table = w.name
