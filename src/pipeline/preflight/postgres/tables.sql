-- For each migrated table: what decides whether its changes can be followed and its rows are all seen.
-- A table without identity gets the unique index that could stand in: immediate, whole, on NOT NULL columns.
SELECT n.nspname::text, c.relname::text, c.relreplident::text,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate AND i.indisvalid),
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid),
       (SELECT x.relname::text FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
         WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid
           AND i.indpred IS NULL AND i.indexprs IS NULL
           AND NOT EXISTS (SELECT FROM pg_attribute a
                            WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey::int2[]) AND NOT a.attnotnull)
         ORDER BY x.relname LIMIT 1),
       row_security_active(c.oid),
       pg_get_userbyid(c.relowner)::text = current_user,
       has_table_privilege(c.oid, 'SELECT')
  FROM unnest($1::text[], $2::text[]) AS wanted (s, t)
  JOIN pg_namespace n ON n.nspname = wanted.s
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.t
 ORDER BY 1, 2
