-- Whether a heartbeat may be written, and why not; the end of the log where there is one of our own to write.
SELECT CASE
           WHEN current_setting('server_version_num')::int4 < 140000 THEN 'its version is older than 14'
           WHEN pg_catalog.pg_is_in_recovery() THEN 'it is a standby'
           WHEN current_setting('transaction_read_only')::bool THEN 'it takes no writes'
           WHEN EXISTS (
               SELECT FROM pg_catalog.pg_proc p
                WHERE p.proname = 'pg_logical_emit_message'
                  AND p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace
                  AND NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
           ) THEN 'role ' || current_user || ' may not call pg_logical_emit_message'
       END AS objection,
       CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_insert_lsn()::text END AS head,
       pg_catalog.to_regclass('cutwater.fence') IS NOT NULL AS has_fence
