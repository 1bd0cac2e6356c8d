-- Who the server is, from what every role may read.
SELECT format('database %s role %s', d.oid, r.oid) AS system_id,
       left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8) AS timeline
FROM pg_catalog.pg_database d, pg_catalog.pg_roles r
WHERE d.datname = current_database() AND r.rolname = current_user
