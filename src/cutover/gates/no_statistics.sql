-- Tables and partitions ($1 schemas, $2 names) that hold rows and were never analyzed. The activity counters alone do not
-- say: a server that crashed has forgotten when it analyzed what, and still has the statistics.
WITH RECURSIVE tree AS (
    SELECT c.oid FROM unnest($1::text[], $2::text[]) AS wanted(nsp, rel)
      JOIN pg_namespace n ON n.nspname = wanted.nsp
      JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.rel
    UNION
    SELECT i.inhrelid FROM tree
      JOIN pg_inherits i ON i.inhparent = tree.oid
      JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition
)
SELECT format('%I.%I', n.nspname, c.relname)
  FROM tree JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
 WHERE c.relkind = 'r' AND pg_relation_size(c.oid) > 0
   AND s.last_analyze IS NULL AND s.last_autoanalyze IS NULL
   AND NOT EXISTS (SELECT FROM pg_stats p WHERE p.schemaname = n.nspname AND p.tablename = c.relname)
 ORDER BY 1
