-- Tables and partitions ($1 schemas, $2 names) that hold rows and were never analyzed. The activity counters alone do not
-- say: a server that crashed has forgotten when it analyzed what, and still has the statistics.
SELECT format('%I.%I', n.nspname, c.relname)
  FROM tree JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
 WHERE c.relkind = 'r' AND pg_relation_size(c.oid) > 0
   AND s.last_analyze IS NULL AND s.last_autoanalyze IS NULL
   AND NOT EXISTS (SELECT FROM pg_stats p WHERE p.schemaname = n.nspname AND p.tablename = c.relname)
 ORDER BY 1
