-- Every column the tables $1 (oids) ever had, with what rows older than the column have in it.
--
-- A column added with a default that is no more volatile than now() is not written into the rows that exist: the value
-- stands in the catalogue (attmissingval) until the table is rewritten. Of a partitioned table it stands with the leaves.
WITH leaves AS (
    SELECT r.root, coalesce(p.relid::oid, r.root) AS relation
      FROM pg_catalog.unnest($1::oid[]) AS r(root)
      LEFT JOIN LATERAL (
          SELECT relid FROM pg_catalog.pg_partition_tree(r.root::pg_catalog.regclass) WHERE isleaf
      ) p ON true
), missing AS (
    SELECT leaves.root, l.attname,
           min(pg_catalog.array_to_string(l.attmissingval, '')) AS value,
           count(DISTINCT pg_catalog.array_to_string(l.attmissingval, '')) AS kinds
      FROM leaves
      JOIN pg_catalog.pg_attribute l ON l.attrelid = leaves.relation AND l.atthasmissing AND NOT l.attisdropped
     GROUP BY leaves.root, l.attname
)
SELECT a.attrelid AS relation,
       a.attnum AS number,
       a.attname::text AS name,
       a.attisdropped AS dropped,
       a.atttypid AS type_oid,
       a.atttypmod AS modifier,
       a.attnotnull AS not_null,
       a.attgenerated::text <> '' OR a.attidentity::text <> '' AS generated,
       m.value AS missing,
       coalesce(m.kinds, 0) > 1 AS mixed,
       pg_catalog.pg_get_expr(d.adbin, d.adrelid) AS default_expression,
       CASE WHEN a.attcollation <> 0 AND a.attcollation <> t.typcollation
            THEN pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname) END AS collation
  FROM pg_catalog.pg_attribute a
  LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation
  LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  LEFT JOIN missing m ON m.root = a.attrelid AND m.attname = a.attname AND NOT a.attisdropped
 WHERE a.attrelid = ANY($1::oid[]) AND a.attnum > 0
 ORDER BY a.attrelid, a.attnum
