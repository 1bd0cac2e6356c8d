-- Tables that carry a trigger of this fence: quoted table, trigger name, whether it fires always.
SELECT format('%I.%I', n.nspname, c.relname), t.tgname::text, t.tgenabled = 'A'
  FROM pg_trigger t
  JOIN pg_class c ON c.oid = t.tgrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE t.tgname IN ($1, $2) AND NOT t.tgisinternal
 ORDER BY c.oid
