SELECT s.source_schema, s.source_table, s.target_schema, s.target_table, s.stage, s.copied_at,
       s.rows_estimate, coalesce(s.rows_final, p.rows_copied, 0),
       s.bytes_estimate, coalesce(p.bytes_copied, 0),
       s.started_at, s.finished_at, p.waits_for,
       -- Not as columns: a state of the last format, which only run upgrades, has none.
       to_jsonb(s) ->> 'rule', to_jsonb(s) ->> 'error', coalesce((to_jsonb(s) ->> 'unfinished')::boolean, false)
  FROM cutwater.table_state s
  LEFT JOIN cutwater.table_progress p USING (migration, source_schema, source_table)
 WHERE s.migration = $1
 ORDER BY s.source_schema, s.source_table
