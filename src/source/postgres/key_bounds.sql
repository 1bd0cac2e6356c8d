-- The first column of the primary key of the table $1 (oid), if it is an integer, and the values between which the
-- statistics saw equally many rows.
SELECT a.attname::text AS name, s.histogram_bounds::text::int8[] AS histogram
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
  LEFT JOIN pg_catalog.pg_stats s
    ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname AND s.inherited = (c.relkind = 'p')
 WHERE i.indrelid = $1 AND i.indisprimary AND i.indimmediate AND i.indisvalid
   AND a.atttypid IN ('int2'::pg_catalog.regtype, 'int4'::pg_catalog.regtype, 'int8'::pg_catalog.regtype)
