-- What the publication $1 leaves out of the tables $2 (oids), although it holds them: kinds of change (no table is named), rows,
-- columns. Row filters and column lists came with 15, in columns that older servers do not have.
SELECT NULL AS table, 'changes' AS what
  FROM pg_catalog.pg_publication p
 WHERE p.pubname = $1 AND NOT (p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate AND p.pubviaroot)
UNION ALL
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname),
       CASE WHEN pg_catalog.to_jsonb(r) ->> 'prqual' IS NOT NULL THEN 'rows' ELSE 'columns' END
  FROM pg_catalog.pg_publication p
  JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
  JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE p.pubname = $1 AND r.prrelid = ANY ($2::oid[])
   AND (pg_catalog.to_jsonb(r) ->> 'prqual' IS NOT NULL
        OR pg_catalog.to_jsonb(r) ->> 'prattrs' IS NOT NULL
           AND (SELECT count(*) FROM pg_catalog.regexp_matches(pg_catalog.to_jsonb(r) ->> 'prattrs', '\d+', 'g'))
               < (SELECT count(*) FROM pg_catalog.pg_attribute a
                   WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''))
