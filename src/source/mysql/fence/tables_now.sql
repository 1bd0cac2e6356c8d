-- Every table an application could write to and a migration could follow, as the catalogue is now.
SELECT table_schema, table_name FROM information_schema.tables
 WHERE table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')
   AND table_schema NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema', 'cutwater')
 ORDER BY 1, 2
