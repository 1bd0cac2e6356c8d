-- Ends whoever reads the slot $1 under the application name $2.
SELECT pg_catalog.pg_terminate_backend(a.pid)
  FROM pg_catalog.pg_replication_slots s
  JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid
 WHERE s.slot_name = $1 AND a.application_name = left($2, 63)
