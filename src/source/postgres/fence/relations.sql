-- The migrated tables ($1 schemas, $2 names, side by side) and every partition below them: OID, quoted name, and whether
-- rows live in it (a partitioned parent holds none).
WITH RECURSIVE tree AS (
    SELECT c.oid FROM unnest($1::text[], $2::text[]) AS wanted(nsp, rel)
      JOIN pg_namespace n ON n.nspname = wanted.nsp
      JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.rel
    UNION
    SELECT i.inhrelid FROM tree
      JOIN pg_inherits i ON i.inhparent = tree.oid
      JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition
)
SELECT c.oid, format('%I.%I', n.nspname, c.relname), c.relkind = 'r', n.nspname::text, c.relname::text
  FROM tree JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p')
 ORDER BY c.oid
