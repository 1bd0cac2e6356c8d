-- Tables and partitions ($1 schemas, $2 names) whose owner's rights our role lacks: only an owner may make a trigger fire always.
SELECT format('%I.%I belongs to %I, whose rights %I does not have', n.nspname, c.relname, pg_get_userbyid(c.relowner), current_user)
  FROM tree JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE NOT pg_has_role(c.relowner, 'USAGE')
 UNION ALL
SELECT format('%I may not create functions in schema cutwater', current_user)
  FROM pg_namespace WHERE nspname = 'cutwater' AND NOT has_schema_privilege(oid, 'CREATE')
 UNION ALL
SELECT 'the marker table cutwater.fence is missing'
 WHERE to_regclass('cutwater.fence') IS NULL
