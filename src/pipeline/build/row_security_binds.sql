-- Whether the policies of table $1.$2, once row-level security is on, bind the role that asks.
SELECT NOT (r.rolsuper OR r.rolbypassrls) AND (c.relforcerowsecurity OR NOT pg_has_role(c.relowner, 'USAGE'))
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 CROSS JOIN pg_roles r
 WHERE n.nspname = $1 AND c.relname = $2 AND r.rolname = current_user
