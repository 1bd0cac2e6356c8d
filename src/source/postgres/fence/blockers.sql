-- Who stands between a fence and its locks on the relations $1 (OIDs): whoever holds or waits for a lock that conflicts
-- with SHARE ROW EXCLUSIVE. A prepared transaction has no process: its locks have no pid, and share
-- a virtual transaction with the lock on its own id.
SELECT DISTINCT ON (l.pid, p.gid)
       l.pid, p.gid,
       coalesce(a.backend_type, 'prepared transaction') AS backend_type,
       coalesce(a.usename::text, p.owner::text, '')     AS role,
       coalesce(a.application_name, '')                 AS application,
       coalesce(host(a.client_addr), '')                AS client,
       coalesce(left(a.query, 120), '')                 AS query,
       coalesce(extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared)), 0)::float8 AS open_seconds,
       coalesce(a.query_start, p.prepared)::text        AS since,
       l.relation::regclass::text                       AS relation
  FROM pg_locks l
  LEFT JOIN pg_stat_activity a ON a.pid = l.pid
  LEFT JOIN pg_locks x
         ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid'
        AND x.virtualtransaction = l.virtualtransaction
  LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
 WHERE l.locktype = 'relation'
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND l.relation = ANY($1)
   AND l.granted
   AND l.pid IS DISTINCT FROM pg_backend_pid()
   AND l.mode IN ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock',
                  'ExclusiveLock', 'AccessExclusiveLock')
