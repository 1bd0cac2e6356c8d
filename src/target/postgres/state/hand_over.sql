-- The tables of a side copy become the stream's: from the position where their own stream ended. Any of their rows may
-- have changed while nobody kept keys, so a comparison of what changed takes them whole. They are worker 0's, because
-- another one may be further than the stream: it would pass for having applied what came in between. $4: schemas, $5: names.
WITH ours AS (
    DELETE FROM cutwater.checkpoint
     WHERE migration = $1::text AND worker = -1 AND epoch = $2::bigint AND position = $3::text
    RETURNING migration
), handed AS (
    UPDATE cutwater.table_state t
       SET stage = 'copied', side = false, unfinished = true, error = NULL, worker = 0, copied_at = $3, finished_at = clock_timestamp()
      FROM ours, unnest($4::text[], $5::text[]) AS w (schema, name)
     WHERE t.migration = ours.migration AND t.epoch = $2 AND t.source_schema = w.schema AND t.source_table = w.name
    RETURNING t.target_schema, t.target_table
), marked AS (
    INSERT INTO cutwater.changed_table (migration, generation, tbl, why)
    SELECT c.migration, c.tracking, format('"%s"."%s"', replace(target_schema, '"', '""'), replace(target_table, '"', '""')),
           'it was copied again'
      FROM handed, cutwater.checkpoint c
     WHERE c.migration = $1 AND c.worker = 0 AND c.tracking IS NOT NULL
    ON CONFLICT DO NOTHING
)
SELECT count(*) FROM handed
