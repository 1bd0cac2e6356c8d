SELECT s.plugin::text, s.database::text, pg_catalog.current_database()::text,
       coalesce(s.wal_status = 'lost', false), s.active_pid
  FROM pg_catalog.pg_replication_slots s
 WHERE s.slot_name = $1 AND NOT s.temporary
