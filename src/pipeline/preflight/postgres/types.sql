-- The columns of the tables $1 that hold values which only the server itself makes (their input functions refuse
-- everything), or OIDs that are printed as names: alone, in arrays, in domains and as attributes of composites.
WITH RECURSIVE held(relid, attname, atttypid, within) AS (
    SELECT a.attrelid, a.attname, a.atttypid, a.atttypid
      FROM pg_attribute a
     WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    UNION
    SELECT h.relid, h.attname, h.atttypid, further.type
      FROM held h JOIN pg_type t ON t.oid = h.within
     CROSS JOIN LATERAL (
          SELECT t.typelem AS type WHERE t.typelem <> 0 AND t.typlen = -1
          UNION ALL SELECT t.typbasetype WHERE t.typtype = 'd'
          UNION ALL SELECT a.atttypid FROM pg_attribute a
                     WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
     ) AS further
)
SELECT h.relid, h.attname::text, format_type(h.atttypid, NULL), t.typname NOT LIKE 'reg%'
  FROM held h JOIN pg_type t ON t.oid = h.within JOIN pg_namespace n ON n.oid = t.typnamespace
 WHERE n.nspname = 'pg_catalog' AND t.typname IN ('pg_node_tree', 'pg_ndistinct', 'pg_dependencies', 'pg_mcv_list',
           'pg_brin_bloom_summary', 'pg_brin_minmax_multi_summary', 'gtsvector')
    OR n.nspname = 'pg_catalog' AND t.typname LIKE 'reg%' AND t.typtype = 'b'
    OR t.typname IN ('ghstore', 'gtrgm', 'ltree_gist', 'intbig_gkey', 'gbtreekey2', 'gbtreekey4', 'gbtreekey8',
           'gbtreekey16', 'gbtreekey32', 'gbtreekey_var')
       AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')
 GROUP BY 1, 2, 3, 4
 ORDER BY 1, 2
