SELECT 'slot ' || slot_name || ' on the source' FROM pg_replication_slots WHERE slot_name = $1
UNION ALL
SELECT 'publication ' || pubname || ' on the source' FROM pg_publication WHERE pubname = $2
UNION ALL
SELECT 'schema cutwater with the fence''s table on the source' FROM pg_namespace WHERE nspname = 'cutwater'
UNION ALL
SELECT count(*) || ' triggers of the fence on the source' FROM pg_trigger
 WHERE NOT tgisinternal AND tgname ~ '^cutwater_' HAVING count(*) > 0
