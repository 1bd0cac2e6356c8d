-- Transactions open for more than $1 seconds that have written, other than the sessions $2, and those that are prepared.
SELECT format('pid %s on the source, open %s s, role %s, "%s", %s', a.pid,
              round(extract(epoch FROM clock_timestamp() - a.xact_start)), a.usename, a.application_name,
              coalesce(host(a.client_addr), 'local')),
       format('let it end, or on the source   SELECT pg_terminate_backend(%s);', a.pid)
  FROM pg_stat_activity a
 WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.pid <> ALL($2::int[])
   AND a.backend_xid IS NOT NULL
   AND extract(epoch FROM clock_timestamp() - a.xact_start) > $1::float8
 UNION ALL
SELECT format('prepared transaction %L of %s, open %s s', p.gid, p.owner,
              round(extract(epoch FROM clock_timestamp() - p.prepared))),
       format('let it end, or on the source   ROLLBACK PREPARED %L;', p.gid)
  FROM pg_prepared_xacts p
 WHERE p.database = current_database()
