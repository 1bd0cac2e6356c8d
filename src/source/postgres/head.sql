SELECT pg_catalog.pg_current_wal_flush_lsn()::text AS position,
       (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS time,
       pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_flush_lsn(), s.restart_lsn)::bigint AS retained,
       s.wal_status AS slot_status,
       pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_flush_lsn(), s.restart_lsn)::bigint + s.safe_wal_size AS server_limit
FROM (SELECT) AS one
LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = $1
