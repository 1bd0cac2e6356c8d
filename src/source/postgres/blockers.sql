SELECT l.pid AS pid,
       concat_ws(' ', a.usename, nullif(a.application_name, ''), l.mode) AS who,
       coalesce(date_trunc('second', clock_timestamp() - a.xact_start)::text, '') AS age
FROM pg_catalog.pg_locks l
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.mode = 'AccessExclusiveLock'
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND l.relation IN (
      SELECT relid FROM pg_catalog.pg_partition_tree($1::text::pg_catalog.regclass)
      UNION SELECT $1::text::pg_catalog.regclass
  )
