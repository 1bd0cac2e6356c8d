-- Who holds a lock on the table $1, or a partition of it, that a copy waits for: as people read it, the oldest first.
SELECT concat('pid ', l.pid, ', ',
              -- The first two words of what it does, without its values: ALTER TABLE.
              coalesce(nullif(upper(substring(a.query FROM '^\s*(\w+(?:\s+\w+)?)')), ''), l.mode),
              ', role ', a.usename, ', ',
              CASE WHEN t.seconds < 120 THEN concat(t.seconds, ' s')
                   WHEN t.seconds < 7200 THEN concat(t.seconds / 60, ' m')
                   ELSE concat(t.seconds / 3600, ' h ', t.seconds / 60 % 60, ' m') END) AS who
  FROM pg_catalog.pg_locks l
  LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
 CROSS JOIN LATERAL (SELECT coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::int AS seconds) AS t
 WHERE l.locktype = 'relation' AND l.granted AND l.mode = 'AccessExclusiveLock'
   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
   AND l.relation IN (
       SELECT relid FROM pg_catalog.pg_partition_tree($1::text::pg_catalog.regclass)
       UNION SELECT $1::text::pg_catalog.regclass
   )
 ORDER BY a.xact_start
