-- $2, $3, $4: one value a table.
UPDATE cutwater.table_state t
   SET worker = w.worker
  FROM unnest($2::text[], $3::text[], $4::bigint[]) AS w (schema, name, worker)
 WHERE t.migration = $1 AND t.source_schema = w.schema AND t.source_table = w.name AND t.worker <> w.worker
