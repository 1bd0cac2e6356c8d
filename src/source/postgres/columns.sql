-- Every column the tables $1 (oids) ever had, with what rows older than the column have in it.
--
-- A column added with a default that is no more volatile than now() is not written into the rows that exist: the value
-- stands in the catalogue (attmissingval) until the table is rewritten. Of a partitioned table it stands with the leaves.
SELECT a.attrelid AS relation,
       a.attnum AS number,
       a.attname::text AS name,
       a.attisdropped AS dropped,
       a.atttypid AS type_oid,
       a.atttypmod AS modifier,
       a.attnotnull AS not_null,
       a.attgenerated::text <> '' OR a.attidentity::text <> '' AS generated,
       leaf.missing,
       coalesce(leaf.kinds, 0) > 1 AS mixed,
       pg_catalog.pg_get_expr(d.adbin, d.adrelid) AS default_expression,
       CASE WHEN a.attcollation <> 0 AND a.attcollation <> t.typcollation
            THEN pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname) END AS collation
  FROM pg_catalog.pg_attribute a
  LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation
  LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  LEFT JOIN LATERAL (
      SELECT min(pg_catalog.array_to_string(l.attmissingval, '')) AS missing,
             count(DISTINCT pg_catalog.array_to_string(l.attmissingval, '')) AS kinds
        FROM pg_catalog.pg_attribute l
       WHERE l.attname = a.attname AND NOT l.attisdropped AND l.atthasmissing
         AND (l.attrelid = a.attrelid
              OR l.attrelid IN (SELECT relid FROM pg_catalog.pg_partition_tree(a.attrelid::pg_catalog.regclass)))
  ) leaf ON NOT a.attisdropped
 WHERE a.attrelid = ANY($1::oid[]) AND a.attnum > 0
 ORDER BY a.attrelid, a.attnum
