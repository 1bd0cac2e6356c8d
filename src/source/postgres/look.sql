-- Whether anything about the columns and keys of the tables $1 (oids) has changed: one hash, with the tables' names, so
-- that the catalogue is read only when it has. The end of the log is read last: whatever is seen was committed before it.
SELECT pg_catalog.md5(coalesce(pg_catalog.string_agg(
           pg_catalog.format('%s %s %s %s %s %s', a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attisdropped),
           ',' ORDER BY a.attrelid, a.attnum), '')) AS columns,
       (SELECT pg_catalog.md5(coalesce(pg_catalog.string_agg(
                   pg_catalog.format('%s %s %s %s', c.oid, c.relnamespace::pg_catalog.regnamespace, c.relname, c.relreplident),
                   ',' ORDER BY c.oid), ''))
          FROM pg_catalog.pg_class c WHERE c.oid = ANY($1::oid[])) AS tables,
       (SELECT pg_catalog.md5(coalesce(pg_catalog.string_agg(
                   pg_catalog.format('%s %s %s %s', i.indexrelid, i.indkey, i.indisprimary, i.indisreplident),
                   ',' ORDER BY i.indexrelid), ''))
          FROM pg_catalog.pg_index i WHERE i.indrelid = ANY($1::oid[]) AND i.indisunique AND i.indisvalid) AS keys,
       pg_catalog.pg_current_wal_insert_lsn()::text AS at
  FROM pg_catalog.pg_attribute a
 WHERE a.attrelid = ANY($1::oid[]) AND a.attnum > 0
