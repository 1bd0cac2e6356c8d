-- Building indexes of freshly copied tables: memory for the sort, unless the server gives more already.
SELECT set_config('maintenance_work_mem', '256MB', false)
 WHERE pg_size_bytes(current_setting('maintenance_work_mem')) < pg_size_bytes('256MB')
