-- Of the tree: OID, quoted name, and whether rows live in it (a partitioned parent holds none).
SELECT c.oid, format('%I.%I', n.nspname, c.relname), c.relkind = 'r', n.nspname::text, c.relname::text
  FROM tree JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p')
 ORDER BY c.oid
