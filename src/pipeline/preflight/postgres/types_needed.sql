-- The types that columns of the tables $1 hold (alone, in arrays, ranges and domains, as attributes of composites) and that
-- do not come with the schema: the server's own, an extension's, and row types of tables that are not among $1.
WITH RECURSIVE held(relid, attname, within) AS (
    SELECT a.attrelid, a.attname, a.atttypid
      FROM pg_attribute a
     WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
    UNION
    SELECT h.relid, h.attname, further.type
      FROM held h JOIN pg_type t ON t.oid = h.within
     CROSS JOIN LATERAL (
          SELECT t.typelem AS type WHERE t.typelem <> 0 AND t.typlen = -1
          UNION ALL SELECT t.typbasetype WHERE t.typtype = 'd'
          UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid
          UNION ALL SELECT a.atttypid FROM pg_attribute a
                     WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
     ) AS further
)
SELECT h.relid, h.attname::text, format('%I.%I', n.nspname, t.typname), e.extname::text
  FROM held h JOIN pg_type t ON t.oid = h.within JOIN pg_namespace n ON n.oid = t.typnamespace
  LEFT JOIN pg_class c ON c.oid = t.typrelid
  LEFT JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
                       AND d.refclassid = 'pg_extension'::regclass
  LEFT JOIN pg_extension e ON e.oid = d.refobjid
 WHERE n.nspname = 'pg_catalog'
    OR e.oid IS NOT NULL
    OR c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.oid <> ALL ($1::oid[])
 ORDER BY 1, 2, 3
