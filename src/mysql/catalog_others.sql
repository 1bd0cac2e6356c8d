SELECT 'view', table_schema, table_name FROM information_schema.views WHERE table_schema /*databases*/
UNION ALL
SELECT 'trigger', trigger_schema, trigger_name FROM information_schema.triggers WHERE trigger_schema /*databases*/
UNION ALL
SELECT LOWER(routine_type), routine_schema, routine_name
  FROM information_schema.routines WHERE routine_schema /*databases*/
UNION ALL
SELECT 'event', event_schema, event_name FROM information_schema.events WHERE event_schema /*databases*/
UNION ALL
SELECT 'sequence', table_schema, table_name
  FROM information_schema.tables WHERE table_type = 'SEQUENCE' AND table_schema /*databases*/
 ORDER BY 1, 2, 3
