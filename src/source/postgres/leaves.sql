-- The relations with storage that make up a table: itself, or its leaf partitions.
SELECT c.oid AS relation,
       n.nspname::text AS schema,
       c.relname::text AS table,
       -- The density of the statistics times today's size: the size is exact and the statistics may be old.
       CASE WHEN c.reltuples > 0 AND c.relpages > 0
            THEN (c.reltuples / c.relpages * (pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::bigint))::bigint
            -- Never analyzed: about a hundred rows a page.
            ELSE pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::bigint * 100
       END AS rows,
       pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::bigint AS pages,
       coalesce(pg_catalog.pg_relation_filenode(c.oid), 0::oid) AS file
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r'
  AND (c.oid = $1 OR c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree($1::oid::pg_catalog.regclass)))
ORDER BY c.oid
