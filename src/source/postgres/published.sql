-- The tables that the publication $1 publishes under their own names, as the stream will name them.
SELECT t.schemaname::text AS schema, t.tablename::text AS "table"
FROM pg_catalog.pg_publication_tables t
WHERE t.pubname = $1
