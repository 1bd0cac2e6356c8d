-- The user tables with their key, replica identity and size.
--
-- key: the columns (attnum) a row is known by in the stream. With REPLICA IDENTITY DEFAULT or USING INDEX that is the
-- replica identity's index, because only its columns are in an old row; with FULL the primary key, or else any unique
-- index that is immediate, without predicate or expression and all NOT NULL (TRAPS 12).
WITH leaves AS (
    SELECT t.oid AS root,
           sum(greatest(l.reltuples, 0))::bigint AS rows,
           sum(pg_catalog.pg_table_size(l.oid))::bigint AS bytes
    FROM pg_catalog.pg_class t
    CROSS JOIN LATERAL pg_catalog.pg_partition_tree(t.oid) p
    JOIN pg_catalog.pg_class l ON l.oid = p.relid AND l.relkind = 'r'
    WHERE t.relkind = 'p' AND NOT t.relispartition
    GROUP BY t.oid
), keys AS (
    SELECT DISTINCT ON (i.indrelid) i.indrelid, columns.numbers
    FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
    CROSS JOIN LATERAL (
        SELECT array_agg(k.number ORDER BY k.position) AS numbers,
               bool_and(k.number > 0 AND a.attnotnull) AS plain
        FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, position)
        LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
        WHERE k.position <= i.indnkeyatts
    ) AS columns
    WHERE i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
      AND columns.plain
      AND CASE c.relreplident
              WHEN 'd' THEN i.indisprimary
              WHEN 'i' THEN i.indisreplident
              WHEN 'f' THEN true
              ELSE false
          END
    ORDER BY i.indrelid, i.indisprimary DESC, i.indnkeyatts, i.indexrelid
)
SELECT c.oid AS relation,
       n.nspname::text AS schema,
       c.relname::text AS table,
       c.relkind::text AS kind,
       c.relreplident::text AS replica_identity,
       keys.numbers AS key,
       coalesce(leaves.rows, greatest(c.reltuples, 0)::bigint) AS estimated_rows,
       coalesce(leaves.bytes, pg_catalog.pg_table_size(c.oid), 0) AS bytes
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN keys ON keys.indrelid = c.oid
LEFT JOIN leaves ON leaves.root = c.oid
WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'cutwater')
  AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_depend d
      WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.objsubid = 0
        AND d.deptype = 'e'
  )
