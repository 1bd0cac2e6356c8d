-- Those of these materialized views ($1 schemas, $2 names) that exist, each after all that it reads: whether it holds rows,
-- and whether it may be refreshed while it is read. The limit of the depth ends views that were made to read each other.
WITH RECURSIVE reads AS (
    SELECT DISTINCT r.ev_class AS reader, d.refobjid AS what
      FROM pg_rewrite r
      JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                      AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class
     WHERE r.ev_type = '1'
), below AS (
    SELECT c.oid AS view, c.oid AS what, 0 AS depth
      FROM unnest($1::text[], $2::text[]) AS wanted(nsp, rel)
      JOIN pg_namespace n ON n.nspname = wanted.nsp
      JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.rel AND c.relkind = 'm'
    UNION
    SELECT below.view, reads.what, below.depth + 1 FROM below JOIN reads ON reads.reader = below.what WHERE below.depth < 100
)
SELECT n.nspname::text, c.relname::text, c.relispopulated,
       EXISTS (SELECT FROM pg_index i
                WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
                  AND i.indpred IS NULL AND i.indexprs IS NULL)
  FROM below JOIN pg_class c ON c.oid = below.view JOIN pg_namespace n ON n.oid = c.relnamespace
 GROUP BY c.oid, n.nspname, c.relname, c.relispopulated
 ORDER BY max(below.depth), 1, 2
