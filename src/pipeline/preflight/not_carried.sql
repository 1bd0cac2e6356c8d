SELECT (SELECT count(*) FROM pg_largeobject_metadata),
       (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'r' AND c.relpersistence = 'u' AND n.nspname !~ '^pg_' AND n.nspname <> 'cutwater'),
       (SELECT count(*) FROM pg_event_trigger),
       (SELECT count(*) FROM pg_stat_subscription WHERE subname IS NOT NULL),
       ARRAY (SELECT slot_name::text FROM pg_replication_slots
               WHERE database = current_database() AND slot_name <> $1 AND NOT temporary ORDER BY 1),
       EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_cron'),
       (SELECT count(*) FROM pg_roles WHERE rolname !~ '^pg_' AND NOT rolsuper)
