-- What a migration of tables leaves behind: kind, how many, their names where they have any. $1: our slot.
SELECT 'large object', count(*), NULL::text[] FROM pg_largeobject_metadata
UNION ALL
SELECT 'unlogged table', count(*), array_agg(format('%I.%I', n.nspname, c.relname) ORDER BY 1)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence = 'u' AND n.nspname !~ '^pg_' AND n.nspname <> 'cutwater'
UNION ALL
SELECT 'event trigger', count(*), array_agg(evtname::text ORDER BY 1) FROM pg_event_trigger
UNION ALL
SELECT 'subscription', count(*), array_agg(subname::text ORDER BY 1) FROM pg_subscription
 WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
UNION ALL
SELECT 'slot of others', count(*), array_agg(slot_name::text ORDER BY 1) FROM pg_replication_slots
 WHERE (database = current_database() OR database IS NULL) AND slot_name <> $1 AND NOT temporary
UNION ALL
SELECT 'ALTER SYSTEM setting', count(*), array_agg(name ORDER BY 1) FROM pg_settings
 WHERE sourcefile ~ 'postgresql\.auto\.conf$'
UNION ALL
SELECT 'setting of a role or the database', count(*), NULL FROM pg_db_role_setting
 WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
UNION ALL
SELECT 'role with its password and grants', count(*), array_agg(rolname::text ORDER BY 1) FROM pg_roles
 WHERE rolname !~ '^pg_' AND rolname <> current_user AND NOT rolsuper
