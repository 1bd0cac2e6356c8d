-- What publication $1 leaves out of the tables $2 (schemas), $3 (names). Row filters and column lists came with 15, and
-- with them columns of the view that older servers do not have.
SELECT format('%I.%I', wanted.nsp, wanted.rel),
       CASE WHEN p.tablename IS NULL THEN 'absent'
            WHEN to_jsonb(p) ->> 'rowfilter' IS NOT NULL THEN 'rows'
            ELSE 'columns' END
  FROM unnest($2::text[], $3::text[]) AS wanted(nsp, rel)
  LEFT JOIN pg_catalog.pg_publication_tables p
         ON p.pubname = $1 AND p.schemaname = wanted.nsp AND p.tablename = wanted.rel
 WHERE p.tablename IS NULL
    OR to_jsonb(p) ->> 'rowfilter' IS NOT NULL
    OR jsonb_array_length(nullif(to_jsonb(p) -> 'attnames', 'null'))
       < (SELECT count(*) FROM pg_catalog.pg_attribute a
            JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = wanted.nsp AND c.relname = wanted.rel
             AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '')
 ORDER BY 1
