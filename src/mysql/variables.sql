SHOW VARIABLES WHERE Variable_name IN (
    'binlog_annotate_row_events', 'binlog_checksum', 'binlog_expire_logs_seconds', 'binlog_format', 'binlog_order_commits',
    'binlog_row_image', 'binlog_row_metadata', 'binlog_row_value_options', 'binlog_transaction_compression',
    'character_set_server', 'collation_server', 'completion_type', 'default_storage_engine', 'enforce_gtid_consistency',
    'expire_logs_days', 'explicit_defaults_for_timestamp', 'foreign_key_checks', 'gtid_domain_id', 'gtid_mode',
    'gtid_strict_mode', 'hostname', 'idle_readonly_transaction_timeout', 'idle_transaction_timeout',
    'idle_write_transaction_timeout', 'innodb_lock_wait_timeout', 'innodb_read_only', 'innodb_snapshot_isolation',
    'innodb_strict_mode', 'lc_messages', 'local_infile', 'lock_wait_timeout', 'log_bin', 'log_bin_basename',
    'log_bin_compress', 'log_replica_updates', 'log_slave_updates', 'lower_case_table_names', 'max_allowed_packet',
    'max_connections', 'max_execution_time', 'max_statement_time', 'net_read_timeout', 'net_write_timeout',
    'performance_schema', 'port', 'read_only', 'require_secure_transport', 'server_id', 'server_uuid', 'sql_auto_is_null',
    'sql_big_selects', 'sql_generate_invisible_primary_key', 'sql_require_primary_key', 'sql_safe_updates',
    'sql_select_limit', 'super_read_only', 'system_time_zone', 'time_zone', 'transaction_isolation',
    'transaction_read_only', 'tx_isolation', 'tx_read_only', 'unique_checks', 'version', 'version_comment', 'wait_timeout')
