SELECT current_setting('server_version_num')::int,
       split_part(current_setting('server_version'), ' ', 1),
       current_setting('wal_level'),
       current_setting('max_replication_slots')::int8,
       (SELECT count(*) FROM pg_replication_slots),
       current_setting('max_wal_senders')::int8,
       (SELECT count(*) FROM pg_stat_replication),
       current_setting('max_slot_wal_keep_size'),
       pg_size_bytes(CASE WHEN current_setting('max_slot_wal_keep_size') = '-1' THEN '0'
                          ELSE current_setting('max_slot_wal_keep_size') END),
       current_setting('synchronous_standby_names'),
       pg_is_in_recovery(),
       (SELECT system_identifier::text FROM pg_control_system()),
       current_database()::text,
       (SELECT r.rolsuper OR r.rolreplication
               OR EXISTS (SELECT FROM pg_roles m WHERE m.rolname IN ('rds_replication', 'cloudsqlsuperuser')
                             AND pg_has_role(r.oid, m.oid, 'MEMBER'))
          FROM pg_roles r WHERE r.rolname = current_user),
       (SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1)
