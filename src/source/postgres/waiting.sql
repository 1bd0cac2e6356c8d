-- The transactions that write or may write, oldest first: those a new slot waits for.
SELECT a.pid AS pid,
       date_trunc('second', clock_timestamp() - a.xact_start)::text AS age,
       concat_ws(' ', a.usename, nullif(a.application_name, ''), host(a.client_addr)) AS who,
       coalesce(a.state, '') AS what
FROM pg_catalog.pg_stat_activity a
WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid() AND a.backend_type <> 'walsender'
UNION ALL
SELECT NULL,
       date_trunc('second', clock_timestamp() - p.prepared)::text,
       p.owner::text,
       'prepared transaction ' || p.gid
FROM pg_catalog.pg_prepared_xacts p
ORDER BY age DESC
LIMIT 20
