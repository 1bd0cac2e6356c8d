SELECT s.system_identifier::text AS system_id,
       c.timeline_id AS timeline,
       current_setting('server_version') AS version,
       current_database()::text AS database
FROM pg_catalog.pg_control_system() s, pg_catalog.pg_control_checkpoint() c
