-- The foreign keys by which tables outside of $1 (quoted names) refer to tables in it, and whether they are of tables in
-- $2; a partition is with its root.
WITH ours AS (
    SELECT tree.relid
      FROM unnest($1::text[]) AS name
     CROSS JOIN LATERAL (SELECT to_regclass(name)::regclass AS relid
                          UNION SELECT p.relid FROM pg_partition_tree(to_regclass(name)) p) AS tree
), others AS (
    SELECT tree.relid
      FROM unnest($2::text[]) AS name
     CROSS JOIN LATERAL (SELECT to_regclass(name)::regclass AS relid
                          UNION SELECT p.relid FROM pg_partition_tree(to_regclass(name)) p) AS tree
)
SELECT n.nspname::text, c.relname::text, f.conname::text,
       ARRAY (SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = f.conrelid AND a.attnum = ANY (f.conkey)),
       f.conrelid IN (SELECT relid FROM others WHERE relid IS NOT NULL)
  FROM pg_constraint f
  JOIN pg_class c ON c.oid = f.conrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE f.contype = 'f' AND f.conparentid = 0
   AND f.confrelid IN (SELECT relid FROM ours) AND f.conrelid NOT IN (SELECT relid FROM ours)
 ORDER BY 1, 2, 3
