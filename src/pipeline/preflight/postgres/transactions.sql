-- What the slot's creation has to wait for: transactions that have written, and prepared ones.
SELECT pid, extract(epoch FROM clock_timestamp() - xact_start)::float8, coalesce(usename::text, ''),
       left(coalesce(query, ''), 60)
  FROM pg_stat_activity
 WHERE backend_xid IS NOT NULL AND xact_start < clock_timestamp() - interval '30 seconds' AND pid <> pg_backend_pid()
UNION ALL
SELECT NULL::int, extract(epoch FROM clock_timestamp() - prepared)::float8, owner::text, gid
  FROM pg_prepared_xacts
 ORDER BY 2 DESC
