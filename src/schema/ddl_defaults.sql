-- What a table's columns have beside their type: default expressions, and whether they are generated. $1: oid.
-- pg_get_expr qualifies by the search_path, which our sessions pin to pg_catalog: everything else comes out qualified.
SELECT a.attname::text, pg_get_expr(d.adbin, d.adrelid), a.attgenerated <> ''
  FROM pg_attrdef d
  JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
 WHERE d.adrelid = $1::oid AND NOT a.attisdropped
