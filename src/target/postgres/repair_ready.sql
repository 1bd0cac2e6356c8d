-- Asked when the checkpoint is locked: what stood here before may have changed while the lock was waited for.
SELECT m.phase, t.stage
  FROM cutwater.migration m
  JOIN cutwater.table_state t ON t.migration = m.name
 WHERE m.name = $1 AND t.source_schema = $2 AND t.source_table = $3
