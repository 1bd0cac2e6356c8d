-- The source's clock first: everything that had committed then lies below the head read after it.
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
       (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_flush_lsn() END)::text,
       split_part(current_setting('server_version'), ' ', 1),
       (SELECT (CASE WHEN pg_is_in_recovery() THEN NULL
                     ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn) END)::bigint
          FROM pg_replication_slots s WHERE s.slot_name = $1),
       (SELECT s.wal_status FROM pg_replication_slots s WHERE s.slot_name = $1)
