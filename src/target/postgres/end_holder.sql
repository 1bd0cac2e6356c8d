-- Ends the session $1 if it is one of ours: of the same role, under the application name $2.
SELECT pg_catalog.pg_terminate_backend(a.pid)
  FROM pg_catalog.pg_stat_activity a
 WHERE a.pid = $1 AND a.application_name = pg_catalog.left($2, 63) AND a.usename = current_user
   AND a.pid <> pg_catalog.pg_backend_pid()
