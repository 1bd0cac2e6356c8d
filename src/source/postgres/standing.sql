-- $1 the slot, $2 the name of our sessions. The source's clock first: everything that had committed then lies below the
-- head read after it.
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
       (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_flush_lsn() END)::text,
       split_part(current_setting('server_version'), ' ', 1),
       (CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn) END)::bigint,
       s.wal_status,
       s.safe_wal_size,
       s.confirmed_flush_lsn::text,
       -- Seen only of sessions of one's own role: enough, they are ours.
       (SELECT extract(epoch FROM clock_timestamp() - min(a.xact_start))::float8
          FROM pg_stat_activity a
         WHERE a.application_name = $2 AND a.datname = current_database() AND a.backend_xmin IS NOT NULL)
  FROM (SELECT) AS one
  LEFT JOIN pg_replication_slots s ON s.slot_name = $1
