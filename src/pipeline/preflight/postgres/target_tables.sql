-- What stands at the target under the names the tables will have there; no row for what is absent.
SELECT wanted.s, wanted.t, c.relkind::text,
       ARRAY (SELECT a.attname::text FROM pg_attribute a
               WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum),
       ARRAY (SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
               WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum),
       ARRAY (SELECT a.attname::text FROM pg_attribute a
               WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull AND NOT a.atthasdef
                 AND a.attidentity = '' ORDER BY a.attnum),
       ARRAY (SELECT g.tgname::text FROM pg_trigger g
               WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgenabled IN ('A', 'R') ORDER BY g.tgname)
  FROM unnest($1::text[], $2::text[]) AS wanted (s, t)
  JOIN pg_namespace n ON n.nspname = wanted.s
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.t
 ORDER BY 1, 2
