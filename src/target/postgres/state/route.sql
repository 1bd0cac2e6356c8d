-- Every worker has a checkpoint and every table a worker. Of $3 workers; $4: where worker 0 is, and with it all of them;
-- $5: schemas, $6: names, $7: workers of the tables. What was done by workers that are no more is worker 0's. Called with
-- the checkpoints locked.
WITH gone AS (
    DELETE FROM cutwater.checkpoint WHERE migration = $1::text AND worker >= $3::int RETURNING changes, divergences
), done AS (
    UPDATE cutwater.checkpoint
       SET changes = changes + (SELECT sum(gone.changes)::bigint FROM gone),
           divergences = divergences + (SELECT sum(gone.divergences)::bigint FROM gone)
     WHERE migration = $1 AND worker = 0 AND EXISTS (SELECT FROM gone)
), made AS (
    INSERT INTO cutwater.checkpoint (migration, worker, epoch, position)
    SELECT $1, w, $2::bigint, $4::text FROM generate_series(1, $3 - 1) AS w
    ON CONFLICT DO NOTHING
)
UPDATE cutwater.table_state t
   SET worker = w.worker
  FROM unnest($5::text[], $6::text[], $7::int[]) AS w (schema, name, worker)
 WHERE t.migration = $1 AND t.source_schema = w.schema AND t.source_table = w.name AND t.worker <> w.worker
